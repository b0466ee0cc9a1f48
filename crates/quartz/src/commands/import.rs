//! `import`: a run from a checkpoint of PyTorch or a safetensors file.

use crate::args::{DataRoot, Import};
use crate::failure::Failure;
use crate::format::count;
use qzoo::experiment::{Experiment, Override};
use qzoo::import::{Dropped, ImportOptions, ImportReport, NEGLIGIBLE, import};
use qzoo::run::RunFolder;
use qzoo::train::{Beginning, begin_with, build_model};
use std::path::{Path, PathBuf};

/// Tensors of a list that are shown; `--json` and `import.json` have all.
const SHOWN: usize = 40;

/// What is imported into which run.
pub(crate) struct Source<'a> {
    pub(crate) experiment: &'a Experiment,
    /// The checkpoint; the experiment's own where it is `None`.
    pub(crate) file: Option<&'a Path>,
    pub(crate) root: &'a DataRoot,
    /// Folder of the run; a new one where it is `None`.
    pub(crate) out: Option<&'a Path>,
    pub(crate) allow_dropped: bool,
}

impl Source<'_> {
    fn file(&self) -> Result<PathBuf, Failure> {
        let own = || {
            let file = self.experiment.import.file.as_ref()?;
            Some(qzoo::data::data_root(self.root.data.as_deref()).join(file))
        };
        self.file.map(Path::to_path_buf).or_else(own).ok_or_else(|| {
            Failure::usage("no file to import: name one, or give the experiment `file = ...` in [import]")
        })
    }

    /// Makes a run of the checkpoint.
    pub(crate) fn import(&self) -> Result<(ImportReport, RunFolder), Failure> {
        let Source { experiment, .. } = self;
        let data_root = qzoo::data::data_root(self.root.data.as_deref());
        let info = qzoo::data::describe(&experiment.data, &data_root)?;
        let model = build_model(experiment, &info)?;
        let options = ImportOptions { rules: experiment.import.clone(), allow_dropped: self.allow_dropped };
        let imported = import(&self.file()?, &model, &options).map_err(qzoo::Error::from)?;
        let report = imported.report;

        let folder = match self.out {
            Some(path) => RunFolder::create_at(path)?,
            None => RunFolder::create(super::train::RUNS.as_ref(), &experiment.name)?,
        };
        folder.write_json("import.json", &report)?;
        let environment = super::train::environment(experiment, self.root);
        let origin = format!("imported {} tensors from {}", report.matched.len(), report.file);
        let parameters = &imported.parameters;
        let environment = Some(&environment);
        begin_with(&Beginning { experiment, info: &info, parameters, environment, origin: &origin }, &folder)?;
        Ok((report, folder))
    }
}

/// Imports, and prints what became of every tensor.
pub(crate) fn run(arguments: &Import) -> Result<(), Failure> {
    let overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    let experiment = Experiment::load(&arguments.experiment, &overrides)?;
    let source = Source {
        experiment: &experiment,
        file: arguments.file.as_deref(),
        root: &arguments.root,
        out: arguments.out.as_deref(),
        allow_dropped: arguments.allow_dropped,
    };
    let (report, folder) = source.import()?;
    let report = &report;
    if arguments.output.json {
        let mut all = serde_json::to_value(report)?;
        all["run"] = folder.path().display().to_string().into();
        println!("{all}");
    } else {
        print(report);
        println!("{}", folder.path().display());
    }
    if report.guessed().next().is_some() && !arguments.output.quiet {
        anstream::eprintln!(
            "warning: names that are not the model's were matched by order and shape: check the result with eval, or map them by [import.names]"
        );
    }
    Ok(())
}

fn print(report: &ImportReport) {
    let behind = if report.prefix.is_empty() { String::new() } else { format!(", behind `{}.`", report.prefix) };
    println!(
        "{} tensors{behind}: {} learnt values",
        count(report.matched.len() as u64),
        count(report.parameters as u64)
    );
    for (name, value) in &report.values {
        println!("  {name}: {value}");
    }
    let guessed: Vec<_> = report.guessed().collect();
    if !guessed.is_empty() {
        println!("{} of them by order and shape, because their names are not the model's", count(guessed.len() as u64));
        shorten(guessed.iter().map(|tensor| format!("{} from {}", tensor.name, tensor.from.escape_debug())));
    }
    if !report.initial.is_empty() {
        println!("{} counters are not in the file and begin at 0", count(report.initial.len() as u64));
    }
    if report.elsewhere > 0 {
        println!("{} tensors elsewhere in the file were not looked at", count(report.elsewhere as u64));
    }
    if !report.absorbed.is_empty() {
        let largest = report.absorbed.iter().map(|bias| bias.largest).fold(0.0, f64::max);
        println!(
            "{} biases, up to {largest:.2e}, taken into the means of the batch normalisations behind them, which is exact",
            count(report.absorbed.len() as u64)
        );
        shorten(
            report.absorbed.iter().map(|bias| format!("{} into {}", bias.name.escape_debug(), bias.into.join(", "))),
        );
    }
    if report.dropped.is_empty() {
        return;
    }
    let largest = report.dropped.iter().map(|tensor| tensor.largest).fold(0.0, f64::max);
    let judgement = if largest <= NEGLIGIBLE { ": negligible" } else { "" };
    println!(
        "{} tensors dropped, which the model lacks; largest absolute value {largest:.2e}{judgement}",
        count(report.dropped.len() as u64)
    );
    let line =
        |tensor: &Dropped| format!("{} {:?}  largest {:.2e}", tensor.name.escape_debug(), tensor.shape, tensor.largest);
    shorten(report.dropped.iter().map(line));
}

/// Prints the first lines, and how many more there are.
fn shorten(lines: impl ExactSizeIterator<Item = String>) {
    let count_of_all = lines.len();
    lines.take(SHOWN).for_each(|line| println!("  {line}"));
    if count_of_all > SHOWN {
        println!("  and {} more", count((count_of_all - SHOWN) as u64));
    }
}
