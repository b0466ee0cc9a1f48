//! Setting a part of a layer's weights to zero. The weights that are left keep their values.

use super::Part;
use crate::experiment::Masking;
use crate::nn::Parameters;
use crate::{Error, Result};
use qtensor::Tensor;
use qtensor::random::{Purpose, Stream, StreamKey};

/// What to set to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// Channels or single weights.
    pub masking: Masking,
    /// Share of them, in [0, 1]; the number is rounded.
    pub ratio: f64,
    /// The seed of the experiment.
    pub seed: u64,
    /// Number of the draw; each has other channels or weights.
    pub draw: u32,
}

impl Mask {
    /// The parameters with this mask on the layer. What is drawn depends on the seed, the draw and the layer only.
    ///
    /// Structured: a set of output channels of each convolution unit of the layer, the same one for all its projections; their filters, their biases and the
    /// scales and shifts of the projections' normalisations become zero, so that the unit gives zero there. Unstructured: single weights of
    /// each filter bank; biases and normalisations stay.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub fn apply(&self, parameters: &Parameters, part: &Part) -> Result<Parameters> {
        let mut masked = parameters.clone();
        for unit in &part.units {
            let within = of_layer(parameters, unit);
            let Some(&first) = within.first() else {
                return Err(Error::Config(format!("the network has no parameters of a layer {unit}")));
            };
            match self.masking {
                Masking::Structured => {
                    let channels = parameters.parameters()[first].value.shape()[0];
                    let mut factors = vec![1.0; channels];
                    self.draw(channels, first).for_each(|channel| factors[channel] = 0.0);
                    within.iter().try_for_each(|index| masked.scale_rows(*index, &factors))?;
                }
                Masking::Unstructured => {
                    for index in within.into_iter().filter(|i| parameters.parameters()[*i].kind.is_weight()) {
                        let parameter = &parameters.parameters()[index];
                        let mut values = parameter.value.to_vec::<f32>()?;
                        self.draw(values.len(), index).for_each(|place| values[place] = 0.0);
                        masked.set(&parameter.name, &Tensor::from_vec(*parameter.value.shape(), values)?)?;
                    }
                }
            }
        }
        Ok(masked)
    }

    /// The share of `0..count` that is drawn for the parameter at that position.
    fn draw(&self, count: usize, index: usize) -> impl Iterator<Item = usize> {
        let key = StreamKey { seed: self.seed, purpose: Purpose::Mask, epoch: self.draw, index: index as u64 };
        let drawn = (self.ratio.clamp(0.0, 1.0) * count as f64).round() as usize;
        Stream::new(key).permutation(count as u32).into_iter().take(drawn).map(|place| place as usize)
    }
}

/// Positions of the parameters of the layer of that name, those of its parts included.
fn of_layer(parameters: &Parameters, layer: &str) -> Vec<usize> {
    let named = parameters.parameters().iter().enumerate();
    named.filter(|(_, parameter)| super::belongs(&parameter.name, layer)).map(|(index, _)| index).collect()
}
