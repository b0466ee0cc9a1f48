use super::layers::Site;
use crate::models::Model;
use crate::nn::{EPS, Parameters};
use crate::{Error, Result};
use qtensor::{DType, Tensor};
use std::collections::BTreeSet;

/// Makes the scale of every batch norm part of the weights in front of it; the norm keeps its shift. The network gives what it gave before, up to rounding.
///
/// # Errors
/// A norm that does not directly follow a layer, or one whose layer's weights are used twice: their scale has no place to go.
pub(super) fn fold(model: &mut Model) -> Result<()> {
    let pairs: Vec<[String; 2]> =
        model.normalised().into_iter().map(|[weight, mean]| [weight.to_string(), mean.to_string()]).collect();
    let norms = norms(model.parameters());
    let followed: BTreeSet<&str> = pairs.iter().filter_map(|[_, mean]| mean.strip_suffix(".running_mean")).collect();
    if let Some(norm) = norms.iter().find(|norm| !followed.contains(norm.as_str())) {
        let message = format!(
            "{norm} does not directly follow the weights of one layer, so they cannot take up its scale exactly; leave quantize.fold away"
        );
        return Err(Error::Config(message));
    }
    let mut seen = BTreeSet::new();
    for [weight, mean] in &pairs {
        if !seen.insert(weight) {
            let message = format!(
                "{weight} is used twice with a norm each, and cannot take up both scales; leave quantize.fold away"
            );
            return Err(Error::Config(message));
        }
        let norm = mean.strip_suffix(".running_mean").unwrap_or(mean);
        let of = |parameters: &Parameters, part: &str| values(parameters, &format!("{norm}.{part}"));
        let parameters = model.parameters_mut();
        let (gamma, variance) = (of(parameters, "weight")?, of(parameters, "running_var")?);
        let deviations: Vec<f64> = variance.iter().map(|variance| (variance + EPS).sqrt()).collect();
        let scale: Vec<f64> = gamma.iter().zip(&deviations).map(|(gamma, deviation)| gamma / deviation).collect();
        // The norm goes on to subtract the mean, of values that are scaled already.
        for name in [weight.clone(), weight.replace(".weight", ".bias"), mean.clone()] {
            scale_rows(parameters, &name, &scale)?;
        }
        put(parameters, &format!("{norm}.weight"), &deviations)?;
    }
    Ok(())
}

/// Adds a layer's mean error to its bias, or takes it off the mean that the norm behind it subtracts; where there is neither, nothing can take it up.
pub(super) fn correct_bias(parameters: &mut Parameters, model: &Model, site: &Site, error: &[f64]) -> Result<()> {
    let list = parameters.parameters();
    let (name, sign) = if let Some(bias) = site.projection.bias() {
        (list[bias].name.clone(), 1.0)
    } else {
        let weight = &list[site.projection.weight()].name;
        let mut means = model.normalised().into_iter().filter(|[name, _]| name == weight);
        match (means.next(), means.next()) {
            (Some([_, mean]), None) => (mean.to_string(), -1.0),
            _ => return Ok(()),
        }
    };
    let old = values(parameters, &name)?;
    let new: Vec<f64> = old.iter().zip(error).map(|(old, error)| old + sign * error).collect();
    put(parameters, &name, &new)
}

/// The names of all batch norms.
fn norms(parameters: &Parameters) -> Vec<String> {
    let names = parameters.buffers().iter().filter_map(|buffer| buffer.name.strip_suffix(".running_mean"));
    names.map(String::from).collect()
}

fn values(parameters: &Parameters, name: &str) -> Result<Vec<f64>> {
    let missing = || Error::Config(format!("the network has no {name}"));
    Ok(parameters.get(name).ok_or_else(missing)?.to_dtype(DType::F64)?.to_vec()?)
}

fn put(parameters: &mut Parameters, name: &str, values: &[f64]) -> Result<()> {
    let tensor = Tensor::from_vec([values.len()], values.iter().map(|x| *x as f32).collect())?;
    Ok(parameters.set(name, &tensor)?)
}

/// Multiplies the rows of a tensor, where there is one of that name.
fn scale_rows(parameters: &mut Parameters, name: &str, scale: &[f64]) -> Result<()> {
    let Some(tensor) = parameters.get(name) else { return Ok(()) };
    let shape = *tensor.shape();
    let mut values = tensor.to_vec::<f32>()?;
    let row = (values.len() / scale.len().max(1)).max(1);
    for (row, factor) in values.chunks_mut(row).zip(scale) {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }
    Ok(parameters.set(name, &Tensor::from_vec(shape, values)?)?)
}
