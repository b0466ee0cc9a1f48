use super::file::ForeignTensor;
use super::report::Absorbed;
use super::weights::largest;
use crate::checkpoint::CheckpointError;
use crate::models::Model;
use crate::nn::Parameters;
use qtensor::{DType, Tensor};

/// The running means of the batch normalisations that directly follow the projection whose bias would have that name, where the model has no such bias.
pub(super) fn means_behind(model: &Model, bias: &str) -> Vec<String> {
    let Some(projection) = bias.strip_suffix(".bias").filter(|_| model.parameters().get(bias).is_none()) else {
        return Vec::new();
    };
    let of_it = |weight: &str| weight.strip_suffix(".weight") == Some(projection);
    model.normalised().into_iter().filter(|[weight, _]| of_it(weight)).map(|[_, mean]| mean.to_string()).collect()
}

/// Subtracts a bias from the running means behind it: `(z + b) - mean = z - (mean - b)`. Training is the same too, because the mean of a batch takes off any bias.
/// `None` where there are no such means, or they are not of its shape.
pub(super) fn absorb(
    bias: &ForeignTensor,
    means: &[String],
    parameters: &mut Parameters,
) -> Result<Option<Absorbed>, CheckpointError> {
    let fits = |mean: &String| parameters.get(mean).is_some_and(|mean| **mean.shape() == *bias.shape());
    if means.is_empty() || !bias.is_float() || !means.iter().all(fits) {
        return Ok(None);
    }
    let value = bias.read_as(DType::F64)?;
    let largest = largest(&value);
    if !largest.is_finite() {
        return Err(bias.refuse("holds values that are not finite"));
    }
    for mean in means {
        let shifted = parameters.get(mean).map(|old| difference(old, &value));
        let shifted = shifted.transpose().and_then(|new| new.map(|new| parameters.set(mean, &new)).transpose());
        shifted.map_err(|error| bias.refuse(&error.to_string()))?;
    }
    Ok(Some(Absorbed { name: bias.name().to_string(), into: means.to_vec(), largest }))
}

fn difference(mean: &Tensor, bias: &Tensor) -> qtensor::Result<Tensor> {
    let old = mean.to_dtype(DType::F64)?.to_vec::<f64>()?;
    let new = old.iter().zip(bias.to_vec::<f64>()?).map(|(mean, bias)| (mean - bias) as f32).collect();
    Tensor::from_vec(*mean.shape(), new)
}
