//! `report.html`: a run on one page, made from the files in its folder.

pub(crate) mod analysis;
mod bars;
mod heat;
pub(crate) mod html;
pub(crate) mod kernels;
mod memory;
mod pixels;
mod plots;
mod quantization;
pub(crate) mod search;
mod sections;
mod sparsity;

use crate::failure::Failure;
use qzoo::data::{Dataset, Splits, data_root};
use qzoo::experiment::Experiment;
use qzoo::run::RunReader;
use std::path::{Path, PathBuf};

/// Gives the PNG bytes of an image of a split (`test` or `validation`) by its position, where the data are at hand.
pub(crate) type ImageSource<'a> = dyn Fn(&str, u64) -> Option<Vec<u8>> + 'a;

/// Writes `report.html` into the folder of the run and returns its path. Sections whose files are missing are left out.
pub(crate) fn write(run: &RunReader, images: &ImageSource<'_>) -> Result<PathBuf, Failure> {
    let path = run.path().join("report.html");
    qzoo::checkpoint::atomic::write(&path, render(run, images)?)?;
    Ok(path)
}

fn render(run: &RunReader, images: &ImageSource<'_>) -> Result<String, Failure> {
    let environment = run.environment()?;
    let name = run.path().file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut body = sections::heading(&name, environment.as_ref());
    if let Some(result) = run.quantization()? {
        body += &quantization::sections(&result, run.quantization_details()?.as_ref());
        body += &evaluation(run, images)?;
    } else {
        body += &training(run, images)?;
    }
    body += &html::section("Experiment", &sections::experiment(&run.experiment()?));
    if let Some(environment) = &environment {
        body += &html::section("Environment", &sections::environment(environment));
    }
    Ok(html::page(&name, &body))
}

fn training(run: &RunReader, images: &ImageSource<'_>) -> Result<String, Failure> {
    let metrics = run.metrics()?;
    let mut body = sections::tiles(run.result()?.as_ref(), &metrics, run.evaluation()?.as_ref());
    body += &html::section("Training", &sections::charts(&metrics));
    body += &evaluation(run, images)?;
    if let Some(profile) = run.profile()? {
        body += &html::section("Time and memory by layer", &sections::layers(&profile));
    }
    if let Some(memory) = run.memory()? {
        body += &html::section("Memory and time by backward mode", &memory::table(&memory));
    }
    if let Some(layers) = run.sparsity()? {
        body += &html::section("Zeros by layer", &sparsity::table(&layers));
    }
    if let Some(tables) = run.swaps()? {
        body += &html::section("Kernels by layer", &kernels::decisions(&tables));
    }
    Ok(body + &html::section("Epochs", &sections::epochs(&metrics)))
}

fn evaluation(run: &RunReader, images: &ImageSource<'_>) -> Result<String, Failure> {
    let Some(evaluation) = run.evaluation()? else { return Ok(String::new()) };
    let classes = html::section("Classes", &sections::classes(&evaluation));
    Ok(classes + &html::section("Sample predictions", &sections::samples(&evaluation, images)))
}

/// As [`write()`], with the sample images from the data set where it is at hand; without them the samples are left out.
pub(crate) fn write_with_images(run: &RunReader, data: Option<&Path>) -> Result<PathBuf, Failure> {
    let splits = open_splits(run, data);
    let image = |split: &str, index: u64| {
        let splits = splits.as_ref()?;
        let dataset = if split == "validation" { splits.validation.as_ref()? } else { &splits.test };
        png(dataset, usize::try_from(index).ok()?)
    };
    write(run, &image)
}

fn open_splits(run: &RunReader, data: Option<&Path>) -> Option<Splits> {
    let text = run.experiment().ok()?;
    let experiment = Experiment::parse("config.resolved.toml", &text, &[]).ok()?;
    qzoo::data::open(&experiment.data, &data_root(data), experiment.seed).ok()
}

/// An image of a data set as the bytes of a PNG file.
fn png(dataset: &Dataset, index: usize) -> Option<Vec<u8>> {
    if index >= dataset.len() {
        return None;
    }
    let (shape, mut scratch) = (dataset.info().shape, Vec::new());
    let planes = dataset.image(index, &mut scratch).ok()?;
    pixels::png(&pixels::of_planes(planes, shape))
}
