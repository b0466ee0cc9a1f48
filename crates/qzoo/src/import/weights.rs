use super::absorb::{absorb, means_behind};
use super::file::{ForeignFile, ForeignTensor};
use super::keys::{How, Key, Matching, behind, match_keys};
use super::report::{Absorbed, Dropped, ImportReport, Matched};
use crate::checkpoint::CheckpointError;
use crate::experiment;
use crate::models::Model;
use crate::nn::Parameters;
use qtensor::{DType, Tensor};
use std::path::Path;

/// Dropped values up to this are taken for the remains of weight decay on a parameter without effect.
pub const NEGLIGIBLE: f64 = 1e-5;
/// Names that a message lists.
const LISTED: usize = 6;

/// What an import may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportOptions {
    /// The experiment's key map.
    pub rules: experiment::Import,
    /// Drop tensors that the model lacks even where their values are not [negligible](NEGLIGIBLE).
    pub allow_dropped: bool,
}

/// The weights of a file, in a model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model's parameters and buffers with the values of the file.
    pub parameters: Parameters,
    /// Where they come from.
    pub report: ImportReport,
}

/// Reads the weights of a checkpoint of PyTorch, or of a safetensors file, into those of a model. Nothing is executed, and `model` stays as it is.
///
/// A bias that the model lacks because a batch normalisation directly follows is subtracted from the running mean, which gives the same network.
///
/// # Errors
/// The file is refused, see [`torch::read`](crate::checkpoint::torch::read) and [`safetensors::read`](crate::checkpoint::safetensors::read); a tensor of the model is not in it, or with another shape; one that is dropped is not negligible; or a value is not finite.
pub fn import(path: &Path, model: &Model, options: &ImportOptions) -> Result<Imported, CheckpointError> {
    let file = ForeignFile::read(path)?;
    let wrong = |message: String| CheckpointError::incompatible(path, message);
    let targets: Vec<(&str, &Tensor)> = model.parameters().named().collect();
    let keys: Vec<Key<'_>> = targets.iter().map(|(name, value)| Key { name, shape: value.shape() }).collect();
    let theirs: Vec<Key<'_>> = file.tensors.iter().map(|t| Key { name: t.name(), shape: t.shape() }).collect();
    let matching = match_keys(&theirs, &keys, &options.rules);
    refuse_misfits(&matching, &theirs, &keys).map_err(wrong)?;

    let mut parameters = model.parameters().clone();
    let (mut matched, mut initial) = (Vec::new(), Vec::new());
    for (position, ((name, old), source)) in targets.iter().zip(&matching.of_model).enumerate() {
        let Some(source) = source.map(|i| &file.tensors[i]) else {
            parameters.set(name, &Tensor::scalar(0i64)).map_err(|error| wrong(error.to_string()))?;
            initial.push(name.to_string());
            continue;
        };
        let value = source.read_as(old.dtype())?;
        if value.dtype().is_float() && !largest(&value).is_finite() {
            return Err(source.refuse("holds values that are not finite"));
        }
        parameters.set(name, &value).map_err(|error| wrong(error.to_string()))?;
        let by = if matching.guessed.contains(&position) { How::Order } else { How::Name };
        matched.push(Matched {
            name: name.to_string(),
            from: source.name().to_string(),
            shape: source.shape().to_vec(),
            by,
        });
    }
    let (mut absorbed, mut dropped) = (Vec::new(), Vec::new());
    for tensor in matching.dropped.iter().map(|i| &file.tensors[*i]) {
        let name = options.rules.name_of(behind(&matching.prefix, tensor.name()).unwrap_or(tensor.name()));
        match absorb(tensor, &means_behind(model, &name), &mut parameters)? {
            Some(bias) => absorbed.push(bias),
            None => dropped.push(drop(tensor)?),
        }
    }
    if !options.allow_dropped {
        refuse_dropped(&dropped).map_err(wrong)?;
    }
    let report = report(path, file, &matching, (matched, initial, absorbed, dropped), parameters.count());
    Ok(Imported { parameters, report })
}

fn report(
    path: &Path,
    file: ForeignFile,
    matching: &Matching,
    (matched, initial, absorbed, dropped): (Vec<Matched>, Vec<String>, Vec<Absorbed>, Vec<Dropped>),
    parameters: usize,
) -> ImportReport {
    ImportReport {
        file: path.display().to_string(),
        format: file.format,
        prefix: matching.prefix.clone(),
        matched,
        initial,
        absorbed,
        dropped,
        elsewhere: matching.elsewhere.len(),
        parameters,
        values: file.values.into_iter().collect(),
    }
}

/// Refuses a match that leaves tensors of the model without values, or gives them some of another shape.
fn refuse_misfits(matching: &Matching, file: &[Key<'_>], model: &[Key<'_>]) -> Result<(), String> {
    let missing: Vec<usize> = matching.missing(model).collect();
    if !missing.is_empty() {
        let behind = if matching.prefix.is_empty() { String::new() } else { format!(" behind `{}.`", matching.prefix) };
        // Those that could be meant come first.
        let mut unused: Vec<&Key<'_>> = matching.dropped.iter().chain(&matching.elsewhere).map(|i| &file[*i]).collect();
        unused.sort_by_key(|key| !missing.iter().any(|i| model[*i].shape == key.shape));
        let mut message = format!(
            "{} of the model's {} tensors are not in the file{behind}: {}",
            missing.len(),
            model.len(),
            list(missing.iter().map(|i| &model[*i]))
        );
        message += &match unused.is_empty() {
            true => "; the file has no others".to_string(),
            false => format!("; unmatched in the file: {}", list(unused.into_iter())),
        };
        return Err(message
            + "; is the experiment's model the one of the file? `[import] prefix` and `[import.names]` map other names");
    }
    let misfits: Vec<String> = (matching.of_model.iter().zip(model))
        .filter_map(|(source, key)| Some((file[(*source)?], key)))
        .filter(|(source, key)| source.shape != key.shape)
        .map(|(source, key)| format!("{} is {:?} in the model and {:?} in the file", key.name, key.shape, source.shape))
        .collect();
    match misfits.as_slice() {
        [] => Ok(()),
        all => {
            let more = if all.len() > LISTED { format!(" and {} more", all.len() - LISTED) } else { String::new() };
            let first = all[..all.len().min(LISTED)].join(", ");
            Err(format!(
                "{} tensors have another shape: {first}{more}; check width, classes and image size of the experiment",
                all.len()
            ))
        }
    }
}

/// Refuses to lose values that matter.
fn refuse_dropped(dropped: &[Dropped]) -> Result<(), String> {
    let large: Vec<&Dropped> =
        dropped.iter().filter(|tensor| tensor.largest.is_nan() || tensor.largest > NEGLIGIBLE).collect();
    let Some(first) = large.first() else { return Ok(()) };
    Err(format!(
        "the model lacks {} tensors of the file whose values are not negligible, such as `{}` with values up to {:.2e}; \
         choose a model that has them, or drop them with --allow-dropped",
        large.len(),
        first.name,
        first.largest
    ))
}

/// Names and shapes of the first few.
fn list<'k>(keys: impl Iterator<Item = &'k Key<'k>>) -> String {
    let keys: Vec<&Key<'_>> = keys.collect();
    let first: Vec<String> =
        keys.iter().take(LISTED).map(|key| format!("{} {:?}", key.name.escape_debug(), key.shape)).collect();
    let more = if keys.len() > LISTED { format!(" and {} more", keys.len() - LISTED) } else { String::new() };
    first.join(", ") + &more
}

fn drop(tensor: &ForeignTensor) -> Result<Dropped, CheckpointError> {
    // A counter of batches says nothing about the network's answers.
    let is_counter = tensor.name().ends_with(super::keys::COUNTER);
    let largest = if is_counter { 0.0 } else { largest(&tensor.read()?) };
    Ok(Dropped { name: tensor.name().to_string(), shape: tensor.shape().to_vec(), largest })
}

/// The largest absolute value; not finite if any is not.
pub(super) fn largest(tensor: &Tensor) -> f64 {
    let values = tensor.to_dtype(DType::F64).ok().map(|tensor| tensor.contiguous());
    let values = values.as_ref().and_then(|tensor| tensor.as_slice::<f64>().ok()).unwrap_or_default();
    values
        .iter()
        .fold(0.0, |most, value| if most.is_nan() || value.is_nan() { f64::NAN } else { f64::max(most, value.abs()) })
}
