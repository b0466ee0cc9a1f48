//! `sparsify`: a trained network with few weights, on kernels that skip the others.

mod show;

use crate::args::Sparsify;
use crate::commands::{signals, source, train};
use crate::failure::Failure;
use crate::progress::Progress;
use qzoo::experiment::{Arithmetic, Experiment, Override, Sparse};
use qzoo::run::RunReader;
use qzoo::sparse::{FINETUNING, FinetuneOptions, Masks, Swap, SwapOptions, SwapTable, finetune, prune, variants};
use qzoo::train::Evaluator;
use serde_json::json;
use show::Show;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prunes, finetunes and prints the tables.
pub(crate) fn run(arguments: &Sparsify) -> Result<(), Failure> {
    let overrides = overrides(arguments);
    let is_file = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let file = arguments.source.as_ref().filter(is_file);
    let experiment = file.map(|path| Experiment::load(path, &overrides)).transpose()?;
    let stop = signals::stop_flag()?;
    let path = match (&experiment, &arguments.source) {
        (None, None) => source::most_recent("sparsify experiments/sparse_finetune_mnist.toml")?,
        (None, Some(path)) => path.clone(),
        (Some(experiment), _) => match source::newest(experiment)? {
            Some(path) => path,
            None => source::train(experiment, &arguments.root, arguments.output.quiet, &stop)?,
        },
    };
    let evaluator = Evaluator::open(&path)?;
    let experiment = match experiment {
        Some(experiment) => experiment,
        None => Experiment::parse(evaluator.path(), evaluator.state().experiment.as_str(), &overrides)?,
    };
    let mut settings = experiment.sparse.clone().unwrap_or_default();
    settings.finetune.get_or_insert_default();
    if arguments.check {
        return check(&evaluator, &settings, arguments);
    }
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => folder(&evaluator, &settings),
    };
    let interval = Duration::from_secs_f64(experiment.log.interval_seconds.clamp(0.1, 86_400.0));
    let mut show = Show::new(Progress::new(arguments.output.quiet, interval));
    let options = FinetuneOptions {
        data_root: qzoo::data::data_root(arguments.root.data.as_deref()),
        limit_batches: arguments.limit_batches,
        environment: Some(train::environment(evaluator.experiment(), &arguments.root)),
        stop: stop.flag.clone(),
    };
    let table = finetune(&evaluator, &settings, &folder, &options, &mut show)?;
    show.progress.clear();
    let Some(table) = table else {
        let message = "interrupted; what is done is saved, go on with the same command";
        return Err(Failure::signal(stop.number(), message));
    };
    for variant in &table.variants {
        crate::report::write_with_images(&RunReader::open(&variant.run)?, arguments.root.data.as_deref())?;
    }
    let name = folder.file_name().map_or_else(|| "finetuning".into(), |name| name.to_string_lossy().into_owned());
    let report = folder.join("report.html");
    qzoo::checkpoint::atomic::write(&report, crate::report::kernels::finetuning(&name, &table))?;
    if arguments.output.json {
        println!("{}", serde_json::to_string(&table)?);
    } else {
        show::print(&table);
        println!("{}", folder.display());
    }
    if !arguments.output.quiet {
        anstream::eprintln!("report: {}", report.display());
    }
    Ok(())
}

/// The flags as keys of the experiment.
fn overrides(arguments: &Sparsify) -> Vec<Override> {
    let numbers = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    let names: Vec<String> = arguments.arithmetic.iter().map(|name| format!("{name:?}")).collect();
    let flags = [
        ("--sparsity", "sparse.finetune.sparsity", Some(numbers(&arguments.sparsity)).filter(|list| !list.is_empty())),
        ("--arithmetic", "sparse.finetune.arithmetic", Some(names.join(", ")).filter(|list| !list.is_empty())),
    ];
    let lists = flags.into_iter().map(|(flag, key, list)| (flag, key, list.map(|list| format!("[{list}]"))));
    let single = [
        ("--global", "sparse.scope", arguments.global.then(|| "\"global\"".to_string())),
        ("--epochs", "sparse.finetune.epochs", arguments.epochs.map(|epochs| epochs.to_string())),
        ("--lr", "sparse.finetune.lr", arguments.lr.map(|lr| format!("{lr:?}"))),
    ];
    let mut overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    overrides.extend(lists.chain(single).filter_map(|(flag, key, value)| Some(Override::flag(flag, key, value?))));
    overrides
}

/// Prunes, measures, and prints what would be trained.
fn check(evaluator: &Evaluator, settings: &Sparse, arguments: &Sparsify) -> Result<(), Failure> {
    let batch = evaluator.experiment().train.batch_size;
    let mut done: Vec<(f64, SwapTable)> = Vec::new();
    let mut sparsities: Vec<f64> = variants(settings).iter().map(|variant| variant.sparsity).collect();
    sparsities.dedup();
    // Networks in int8 may hand other numbers from layer to layer.
    let of_int8 = settings.finetune.as_ref().and_then(|finetune| finetune.int8_precision);
    let mut precisions = vec![evaluator.experiment().train.precision];
    precisions.extend(of_int8.filter(|precision| *precision != precisions[0]));
    for (sparsity, precision) in
        sparsities.into_iter().flat_map(|sparsity| precisions.iter().map(move |p| (sparsity, *p)))
    {
        let settings = Sparse { sparsity, arithmetic: Arithmetic::Auto, ..settings.clone() };
        let mut model = evaluator.model().clone();
        let masks: Masks = prune(&mut model, &settings, evaluator.experiment().seed)?;
        let images = qzoo::sparse::images(&model, batch)?;
        let mut swap = Swap::new(SwapOptions::new(&settings, precision));
        let table = swap.decide(&model, &images, |position| masks.pattern(position).map(|pattern| &**pattern))?;
        if !arguments.output.json {
            println!("{}", show::heading(sparsity, &masks));
            show::decisions(&table);
        }
        done.push((sparsity, table));
    }
    if arguments.output.json {
        let rows: Vec<_> =
            done.iter().map(|(sparsity, table)| json!({ "sparsity": sparsity, "table": table })).collect();
        println!("{}", json!({ "source": evaluator.path(), "networks": rows }));
    }
    Ok(())
}

/// The folder of a finetuning of this network that has not ended, or a new one.
fn folder(evaluator: &Evaluator, settings: &Sparse) -> PathBuf {
    let base = Path::new(train::RUNS);
    let name = |number: u32| base.join(format!("{}-sparsify-{number}", evaluator.experiment().name));
    let mut number = 1;
    while name(number).join(FINETUNING).exists() || !is_of(&name(number), evaluator, settings) {
        number += 1;
    }
    name(number)
}

/// Whether a folder is free, or has the beginning of this finetuning.
fn is_of(folder: &Path, evaluator: &Evaluator, settings: &Sparse) -> bool {
    if !folder.exists() {
        return true;
    }
    let wanted = qzoo::sparse::beginning(evaluator, settings);
    std::fs::read_to_string(folder.join(qzoo::sparse::BEGINNING)).is_ok_and(|text| text == wanted)
}
