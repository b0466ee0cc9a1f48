//! `summary`: a model layer by layer.

use crate::args::Summary;
use crate::failure::Failure;
use crate::format::{bytes, count};
use qzoo::data::{data_root, describe};
use qzoo::experiment::{Experiment, Override};
use qzoo::models::Model;
use qzoo::train::build_model;
use serde_json::json;
use std::path::Path;

/// Prints a table, or the same as JSON.
pub(crate) fn run(arguments: &Summary) -> Result<(), Failure> {
    let overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    let experiment = Experiment::load(&arguments.experiment, &overrides)?;
    let (model, input) = build(&experiment, arguments.root.data.as_deref())?;
    let memory = match arguments.memory {
        true => Some(qzoo::train::memory_profile(&experiment, input, model.classes())?),
        false => None,
    };
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
            "activation_bytes": activations, "layers": layers, "memory": memory,
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
    if let Some(memory) = &memory {
        super::memory::print(memory);
    }
    Ok(())
}

/// Builds the model of an experiment for the images of its data set. Only an image folder has to be there for that.
pub(crate) fn build(experiment: &Experiment, data: Option<&Path>) -> Result<(Model, [usize; 3]), Failure> {
    let model = build_model(experiment, &describe(&experiment.data, &data_root(data))?)?;
    let input = model.input();
    Ok((model, input))
}
