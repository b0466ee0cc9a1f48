//! `report.html`: a run on one page, made from the files in its folder.

pub(crate) mod html;
mod plots;
mod sections;

use crate::failure::Failure;
use qzoo::run::RunReader;
use std::path::PathBuf;

/// Gives the PNG bytes of an image of a split (`test` or `validation`) by its position, where the data are at hand.
pub(crate) type ImageSource<'a> = dyn Fn(&str, u64) -> Option<Vec<u8>> + 'a;

/// Writes `report.html` into the folder of the run and returns its path. Sections whose files are missing are left out.
pub(crate) fn write(run: &RunReader, images: &ImageSource<'_>) -> Result<PathBuf, Failure> {
    let path = run.path().join("report.html");
    qzoo::checkpoint::atomic::write(&path, render(run, images)?)?;
    Ok(path)
}

fn render(run: &RunReader, images: &ImageSource<'_>) -> Result<String, Failure> {
    let metrics = run.metrics()?;
    let evaluation = run.evaluation()?;
    let environment = run.environment()?;
    let name = run.path().file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut body = sections::heading(&name, environment.as_ref());
    body += &sections::tiles(run.result()?.as_ref(), &metrics, evaluation.as_ref());
    body += &html::section("Training", &sections::charts(&metrics));
    if let Some(evaluation) = &evaluation {
        body += &html::section("Classes", &sections::classes(evaluation));
        body += &html::section("Sample predictions", &sections::samples(evaluation, images));
    }
    if let Some(profile) = run.profile()? {
        body += &html::section("Time and memory by layer", &sections::layers(&profile));
    }
    body += &html::section("Epochs", &sections::epochs(&metrics));
    body += &html::section("Experiment", &sections::experiment(&run.experiment()?));
    if let Some(environment) = &environment {
        body += &html::section("Environment", &sections::environment(environment));
    }
    Ok(html::page(&name, &body))
}
