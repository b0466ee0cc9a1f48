//! `summary`: a model layer by layer.

use crate::args::Summary;
use crate::failure::Failure;
use crate::format::{bytes, count};
use qzoo::data::{Manifest, data_root, open_test};
use qzoo::experiment::{Dataset, Experiment, Override};
use qzoo::models::Model;
use serde_json::json;
use std::path::Path;

/// Prints a table, or the same as JSON.
pub(crate) fn run(arguments: &Summary) -> Result<(), Failure> {
    let overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    let experiment = Experiment::load(&arguments.experiment, &overrides)?;
    let (model, input) = build(&experiment, arguments.root.data.as_deref())?;
    let rows = model.summary()?;
    let parameters: usize = rows.iter().map(|row| row.parameters).sum();
    let macs: u64 = rows.iter().map(|row| row.macs).sum();
    let activations: u64 = rows.iter().map(|row| row.activation_bytes).sum();
    if arguments.json {
        let layers: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name, "kind": row.kind, "output": row.output, "parameters": row.parameters,
                    "macs": row.macs, "activation_bytes": row.activation_bytes,
                })
            })
            .collect();
        let all = json!({
            "model": model.name().name(), "input": input, "classes": model.classes(), "parameters": parameters, "macs": macs,
            "activation_bytes": activations, "layers": layers,
        });
        println!("{all}");
        return Ok(());
    }
    let shape = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    println!("{} for images of {}, {} classes", model.name(), shape(&input), model.classes());
    let width =
        |text: &dyn Fn(&qzoo::nn::Row) -> usize, least: usize| rows.iter().map(text).max().unwrap_or(0).max(least);
    let (name, kind) = (width(&|row| row.name.chars().count(), 5), width(&|row| row.kind.chars().count(), 4));
    println!(
        "{:name$}  {:kind$}  {:>12}  {:>12}  {:>14}  {:>11}",
        "layer", "kind", "output", "parameters", "MACs", "activation"
    );
    for row in &rows {
        println!(
            "{:name$}  {:kind$}  {:>12}  {:>12}  {:>14}  {:>11}",
            row.name,
            row.kind,
            shape(&row.output),
            count(row.parameters as u64),
            count(row.macs),
            bytes(row.activation_bytes)
        );
    }
    println!(
        "in all: {} parameters ({}), {} MACs, {} of activations an image",
        count(parameters as u64),
        bytes(4 * parameters as u64),
        count(macs),
        bytes(activations)
    );
    Ok(())
}

/// Builds the model of an experiment for the images of its data set. Only an image folder has to be there for that.
pub(crate) fn build(experiment: &Experiment, data: Option<&Path>) -> Result<(Model, [usize; 3]), Failure> {
    let (input, classes) = images(experiment, data)?;
    let refused = |error: qgraph::Error| Failure::usage(format!("{}: {error}", experiment.name));
    let mut model = Model::build(&experiment.model, input, classes, experiment.seed).map_err(refused)?;
    model.set_backward(&experiment.backward).map_err(refused)?;
    Ok((model, input))
}

/// Size of an image, and number of classes.
fn images(experiment: &Experiment, data: Option<&Path>) -> Result<([usize; 3], usize), Failure> {
    let chosen = &experiment.data;
    if chosen.dataset == Dataset::Folder {
        let info = open_test(chosen, &data_root(data))?.info().clone();
        return Ok(([info.shape.channels, info.shape.height, info.shape.width], info.classes.len()));
    }
    let manifest = Manifest::of(chosen.dataset.name())?;
    let side = |own: usize| chosen.image_size.unwrap_or(own);
    let shape = manifest.shape;
    Ok(([shape.channels, side(shape.height), side(shape.width)], manifest.classes.len()))
}
