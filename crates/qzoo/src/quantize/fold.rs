use super::layers::Site;
use crate::models::Model;
use crate::nn::{BatchNorm, Body, Composite, EPS, Layer, Map, Order, Parameters, Projection, Sequential};
use crate::{Error, Result};
use qtensor::{DType, Tensor};
use std::collections::BTreeSet;

/// Makes the scale of every batch norm part of the weights in front of it, and the norm keeps its shift; where an activation stands between them and a linear
/// layer comes next, all of the norm becomes part of that layer. The network gives what it gave before, up to rounding.
///
/// # Errors
/// A norm that neither directly follows a layer nor directly precedes a linear one, or one whose layer's weights are used twice: their scale has no place to go.
/// Behind a norm a convolution with a border could not take up the shift, since the border is 0.
pub(super) fn fold(model: &mut Model) -> Result<()> {
    let pairs: Vec<[String; 2]> =
        model.normalised().into_iter().map(|[weight, mean]| [weight.to_string(), mean.to_string()]).collect();
    let network = model.clone();
    let mut ahead = Ahead::default();
    ahead.sequential(network.network());
    let mut taken = BTreeSet::new();
    for (norm, projection) in ahead.found {
        taken.insert(into_next(model.parameters_mut(), norm, projection)?);
    }
    let norms = norms(model.parameters());
    let mut followed: BTreeSet<&str> =
        pairs.iter().filter_map(|[_, mean]| mean.strip_suffix(".running_mean")).collect();
    followed.extend(taken.iter().map(String::as_str));
    if let Some(norm) = norms.iter().find(|norm| !followed.contains(norm.as_str())) {
        let message = format!(
            "{norm} neither directly follows the weights of one layer nor directly precedes those of a linear one, so no weights can take it up exactly; leave quantize.fold away"
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

/// The norms behind an activation of which all goes to one linear layer, with that layer's projection.
#[derive(Default)]
struct Ahead<'a> {
    found: Vec<(&'a BatchNorm, &'a Projection)>,
    /// What the next layer is given the result of.
    norm: Option<&'a BatchNorm>,
}

impl<'a> Ahead<'a> {
    fn sequential(&mut self, layers: &'a Sequential) {
        for layer in layers.layers() {
            match layer {
                Layer::Sequential(layers) => self.sequential(layers),
                Layer::Composite(composite) => self.composite(composite),
                // Channels become as many neighbouring features.
                Layer::Dropout(_) | Layer::Flatten => {}
                Layer::BatchNorm(norm) => self.norm = Some(norm),
                Layer::Pool(_) | Layer::GlobalAveragePool | Layer::Activation(_) => self.norm = None,
            }
        }
    }

    fn composite(&mut self, composite: &'a Composite) {
        let norm = self.norm.take();
        let Body::Unit(unit) = composite.body() else { return };
        if let (Some(norm), Some((projection, _))) = (norm, unit.first_order())
            && matches!(projection.map(), Map::Linear(_))
            && projection.bias().is_some()
        {
            self.found.push((norm, projection));
        }
        self.norm = unit.norm().filter(|_| unit.order() == Order::ActivationFirst);
    }
}

/// `W (s x + t) + b = (W s) x + (b + W t)`: makes a norm part of the linear layer behind it; returns its name. What is left of it changes nothing.
fn into_next(parameters: &mut Parameters, norm: &BatchNorm, projection: &Projection) -> Result<String> {
    let [scale, shift] = norm.affine(parameters)?;
    let list = parameters.parameters();
    let (weight, bias) = (list[projection.weight()].name.clone(), projection.bias().map(|i| list[i].name.clone()));
    let tensor = list[projection.weight()].value.clone();
    let mut weights = tensor.to_vec::<f32>()?;
    let columns = tensor.shape()[1];
    let places = columns / scale.len().max(1);
    let mut moved = Vec::with_capacity(tensor.shape()[0]);
    for row in weights.chunks_mut(columns.max(1)) {
        let mut sum = 0.0;
        for (i, w) in row.iter_mut().enumerate() {
            let channel = i / places.max(1);
            sum += f64::from(*w) * shift[channel];
            *w = (f64::from(*w) * scale[channel]) as f32;
        }
        moved.push(sum);
    }
    let names = norm.tensors(parameters)?.map(|(name, _)| name.to_string());
    parameters.set(&weight, &Tensor::from_vec(*tensor.shape(), weights)?)?;
    if let Some(bias) = bias {
        let old = values(parameters, &bias)?;
        put(parameters, &bias, &old.iter().zip(moved).map(|(old, moved)| old + moved).collect::<Vec<_>>())?;
    }
    for (name, value) in names.iter().zip([1.0, 0.0, 0.0, 1.0 - EPS]) {
        put(parameters, name, &vec![value; scale.len()])?;
    }
    Ok(names[0].strip_suffix(".weight").unwrap_or(&names[0]).to_string())
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
