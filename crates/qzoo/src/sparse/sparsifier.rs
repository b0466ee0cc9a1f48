//! From weights to masks.

use super::select::Ranked;
use super::{Masks, PrunableLayer, layers};
use crate::experiment::{Sparse, SparsifierName};
use crate::models::Model;
use crate::nn::{Parameter, Parameters};
use crate::{Error, Result};
use qtensor::random::{Purpose, Stream, StreamKey};

/// Draws masks for a network by the settings of an experiment. What it draws depends on the weights, the settings and the seed only.
#[derive(Clone, Debug)]
pub struct Sparsifier {
    layers: Vec<PrunableLayer>,
    settings: Sparse,
    seed: u64,
}

/// Prunes a trained network at once, to the final sparsity of the settings.
///
/// # Errors
/// As [`layers`] and [`Sparsifier::draw`].
pub fn prune(model: &mut Model, settings: &Sparse, seed: u64) -> Result<Masks> {
    let masks = Sparsifier::new(model, settings, seed)?.draw(model.parameters(), 0.0)?;
    masks.mask_parameters(model.parameters_mut())?;
    Ok(masks)
}

impl Sparsifier {
    /// For a network of this structure.
    ///
    /// # Errors
    /// As [`layers`].
    pub fn new(model: &Model, settings: &Sparse, seed: u64) -> Result<Self> {
        Ok(Sparsifier { layers: layers(model, settings)?, settings: settings.clone(), seed })
    }

    /// The layers that it prunes.
    pub fn layers(&self) -> &[PrunableLayer] {
        &self.layers
    }

    /// Masks for these weights. `remaining` is the part of the way from the initial sparsity to the final one that is still to go: 0 for the final one. The counts
    /// are exact: in every layer, or in all layers of the global scope together, the share of zeros is rounded to whole weights. At least one weight of
    /// each output is kept, which only matters at the highest sparsities.
    ///
    /// # Errors
    /// Parameters of another model, or a weight that is infinite or not a number.
    pub fn draw(&self, parameters: &Parameters, remaining: f64) -> Result<Masks> {
        let mut kept: Vec<(usize, Vec<bool>)> = Vec::with_capacity(self.layers.len());
        let mut all = Ranked::default();
        for layer in &self.layers {
            let ranks = self.ranks(layer, parameters)?;
            if layer.is_global {
                all.add(&ranks, layer.row());
                continue;
            }
            let mut own = Ranked::default();
            own.add(&ranks, layer.row());
            let flags = match self.settings.n_of_m {
                Some(groups) => own.keep_in_groups(groups),
                None => own.keep(self.share(layer.sparsity, remaining))?,
            };
            kept.push((layer.position, flags));
        }
        let together = all.keep(self.share(self.settings.sparsity, remaining))?;
        let mut rest = together.as_slice();
        for layer in self.layers.iter().filter(|layer| layer.is_global) {
            let (flags, others) = rest.split_at(layer.weights());
            kept.push((layer.position, flags.to_vec()));
            rest = others;
        }
        Ok(Masks::new(parameters, kept)?)
    }

    /// The share of zeros on the way to the final one.
    fn share(&self, sparsity: f64, remaining: f64) -> f64 {
        share_on_the_way(&self.settings, sparsity, remaining)
    }

    fn ranks(&self, layer: &PrunableLayer, parameters: &Parameters) -> Result<Vec<u32>> {
        let parameter = parameters.parameters().get(layer.position);
        let fits = |parameter: &&Parameter| parameter.value.shape() == layer.shape.as_slice();
        let Some(parameter) = parameter.filter(fits) else {
            return Err(Error::Config(format!("the weights of {} are not those of this network", layer.name)));
        };
        let weights = parameter.value.to_vec::<f32>()?;
        if let Some(place) = weights.iter().position(|w| !w.is_finite()) {
            let message =
                format!("weight {place} of {} is {}: it cannot be pruned by its size", layer.name, weights[place]);
            return Err(Error::Config(message));
        }
        Ok(match self.settings.method {
            SparsifierName::Random => {
                let key = StreamKey { seed: self.seed, purpose: Purpose::Mask, epoch: 0, index: layer.position as u64 };
                let mut stream = Stream::new(key);
                weights.iter().map(|_| stream.next_u32() >> 1).collect()
            }
            // The bits of numbers that are not negative are in the order of the numbers.
            _ => weights.iter().map(|w| w.abs().to_bits()).collect(),
        })
    }
}

/// `s_f + (s_i - s_f) · remaining`, where the initial share of zeros s_i is at most the final one s_f.
pub(super) fn share_on_the_way(settings: &Sparse, sparsity: f64, remaining: f64) -> f64 {
    let initial = settings.gmp.initial_sparsity.min(sparsity);
    sparsity + (initial - sparsity) * remaining
}
