use super::alphabet::Alphabet;
use super::data::{Collection, walks};
use super::layers::{check_patterns, stages};
use super::method::Method;
use super::quantizer::Recipe;
use super::result::Form;
use crate::Result;
use crate::experiment::Quantize;
use crate::models::Model;
use crate::nn::Sees;
use qkernels::gram::{Gram, Sources};
use serde::Serialize;

/// What a quantization would do with a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerPlan {
    /// Its name.
    pub name: String,
    /// Number of its weights.
    pub weights: usize,
    /// Bits of a weight, at each of the settings' bits.
    pub bits: Vec<f64>,
    /// Characters of the alphabets.
    pub characters: Vec<usize>,
    /// How they are computed.
    pub form: Form,
    /// Bytes of the matrices, or of the data, that this takes.
    pub bytes: u64,
}

/// The layers of a network that the settings choose, in the order of the walk, with up to `images` calibration images.
///
/// # Errors
/// Patterns that match no layer, or matrices that do not fit the memory.
pub fn plan(model: &Model, settings: &Quantize, images: usize) -> Result<Vec<LayerPlan>> {
    let stages = stages(model);
    check_patterns(settings, &stages)?;
    let Quantize { method: name, compat, order, damping, sweeps, .. } = *settings;
    let method = Method { name, compat, order, damping, sweeps, seed: 0 };
    let mut planned: Vec<LayerPlan> = Vec::new();
    for stage in &stages {
        let before = planned.len();
        for group in stage.groups.iter().filter(|group| group.sees != Sees::Pairs) {
            let chosen = group.sites.iter().filter(|site| site.bits(settings, &Recipe::uniform(1.0, 1.0)).is_some());
            let chosen: Vec<_> = chosen.collect();
            let Some(first) = chosen.first() else { continue };
            let are_same = if group.is_first { before == 0 } else { planned.is_empty() };
            let collection = Collection {
                settings,
                inputs: first.inputs(settings, 0, group.number),
                memory: settings.memory_bytes(),
                neurons: chosen.iter().map(|site| site.projection.map().outputs()).sum(),
            };
            let (size, sources) = (collection.inputs.size() as u64, if are_same { Sources::One } else { Sources::Two });
            let (form, bytes) = if !method.needs_data() {
                (Form::Weights, 0)
            } else if walks(&method, &collection, images, are_same)? {
                (Form::Data, 4 * images as u64 * size * if are_same { 1 } else { 2 })
            } else {
                // The recursion needs a copy, and a factor of the matrix.
                (Form::Gram, Gram::bytes(&collection.inputs, sources)? as u64 + 16 * size * size)
            };
            for site in chosen {
                let bits: Vec<f64> = settings
                    .bits
                    .as_slice()
                    .iter()
                    .filter_map(|bits| site.bits(settings, &Recipe::uniform(*bits, 1.0)))
                    .collect();
                planned.push(LayerPlan {
                    name: site.name.clone(),
                    weights: site.projection.map().weight_shape().iter().product(),
                    characters: bits.iter().map(|bits| count(settings, *bits)).collect(),
                    bits,
                    form,
                    bytes,
                });
            }
        }
    }
    Ok(planned)
}

/// Characters of the settings' alphabet.
fn count(settings: &Quantize, bits: f64) -> usize {
    let Quantize { alphabet: name, radius, per_output, percentile, sparsity, threshold, .. } = *settings;
    Alphabet { name, bits, radius, per_output, percentile, scalar: 1.0, sparsity, threshold }.count()
}
