use crate::Result;
use crate::analysis::Histogram;
use crate::models::Model;
use crate::nn::{Inputs, Parameters};
use crate::train::{Observer, Probe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the best network of a search looks like, layer by layer: `quantization_details.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Accuracies of networks of which a part is quantized; absent where none was asked for.
    pub cumulative: Option<Cumulative>,
    /// The weights of each quantized layer.
    pub weights: Vec<WeightHistograms>,
}

/// Right answers of networks whose first layers are quantized and whose others are as they were, in the order of the walk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cumulative {
    /// Images of the split that networks are compared on.
    pub images: u64,
    /// Right answers of the original network.
    pub original: u64,
    /// With one layer quantized, with two, and so on to all.
    pub quantized: Vec<u64>,
    /// The same with weights that are rounded one by one.
    pub msq: Vec<u64>,
}

/// The weights of a layer before and after, in the same bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightHistograms {
    /// Name of the layer.
    pub name: String,
    /// Those that are quantized: the original ones, or with a normalisation's scale where it is folded into them.
    pub before: Histogram,
    /// The characters.
    pub after: Histogram,
}

/// The networks that are looked at.
pub(super) struct Networks<'a> {
    /// The original, normalisations folded where the settings say so.
    pub(super) model: &'a Model,
    pub(super) quantized: &'a Parameters,
    /// How it rounds the inputs of its projections.
    pub(super) inputs: Inputs,
    pub(super) rounded: &'a Parameters,
    /// Names of the quantized layers, in the order of the walk.
    pub(super) layers: Vec<&'a str>,
}

/// An odd number, so that the middle of one bin is 0.
const BINS: usize = 81;

impl Networks<'_> {
    /// Everything; `None` where it was stopped. Accuracies are measured where there is a `probe`.
    pub(super) fn details(&self, probe: Option<&Probe>, observer: &mut dyn Observer) -> Result<Option<Details>> {
        let cumulative = match probe {
            Some(probe) => match self.cumulative(probe, observer)? {
                Some(cumulative) => Some(cumulative),
                None => return Ok(None),
            },
            None => None,
        };
        Ok(Some(Details {
            cumulative,
            weights: self.layers.iter().map(|name| self.weights(name)).collect::<Result<_>>()?,
        }))
    }

    fn cumulative(&self, probe: &Probe, observer: &mut dyn Observer) -> Result<Option<Cumulative>> {
        let Some(original) = probe.score(self.model.parameters().clone(), observer)? else { return Ok(None) };
        let mut curves = Vec::new();
        for (changed, inputs) in [(self.quantized, &self.inputs), (self.rounded, &Inputs::new())] {
            let (mut mixed, mut curve) = (self.model.parameters().clone(), Vec::new());
            let owners = self.owners();
            for layer in 0..self.layers.len() {
                for (name, tensor) in changed.named().filter(|(name, _)| self.owner(&owners, name) == layer) {
                    mixed.set(name, tensor)?;
                }
                let score = probe.score_with(mixed.clone(), self.first_of(inputs, layer + 1), observer)?;
                let Some(score) = score else { return Ok(None) };
                curve.push(score.correct);
            }
            curves.push(curve);
        }
        let (msq, quantized) = (curves.pop().unwrap_or_default(), curves.pop().unwrap_or_default());
        Ok(Some(Cumulative { images: original.images, original: original.correct, quantized, msq }))
    }

    /// The inputs of the first layers.
    fn first_of(&self, inputs: &Inputs, layers: usize) -> Inputs {
        let parameters = self.model.parameters().parameters();
        let is_first = |position: usize| {
            let name = parent(&parameters[position].name);
            self.layers[..layers].contains(&name)
        };
        inputs.iter().filter(|(position, _)| is_first(**position)).map(|(p, given)| (*p, given.clone())).collect()
    }

    /// The number of the layer whose quantization may change the tensors below a name: its own, and those of the norm that directly follows it.
    fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners: BTreeMap<String, usize> =
            self.layers.iter().enumerate().map(|(i, name)| ((*name).to_string(), i)).collect();
        for [weight, mean] in self.model.normalised() {
            let layer = owners.get(parent(weight)).copied();
            if let Some(layer) = layer {
                let norm = owners.entry(parent(mean).to_string()).or_insert(layer);
                *norm = layer.max(*norm);
            }
        }
        owners
    }

    /// What belongs to no layer, such as statistics that were measured anew, comes with the last one.
    fn owner(&self, owners: &BTreeMap<String, usize>, tensor: &str) -> usize {
        owners.get(parent(tensor)).copied().unwrap_or(self.layers.len() - 1)
    }

    fn weights(&self, layer: &str) -> Result<WeightHistograms> {
        let name = format!("{layer}.weight");
        let values = |parameters: &Parameters| -> Result<Vec<f32>> {
            Ok(parameters.get(&name).map(|weights| weights.to_vec::<f32>()).transpose()?.unwrap_or_default())
        };
        let (before, after) = (values(self.model.parameters())?, values(self.quantized)?);
        let largest = before.iter().chain(&after).fold(f32::MIN_POSITIVE, |most, w| most.max(w.abs()));
        let of = |values: &[f32]| {
            let mut histogram = Histogram::between([-f64::from(largest), f64::from(largest)], BINS);
            values.iter().for_each(|w| histogram.add(f64::from(*w)));
            histogram
        };
        Ok(WeightHistograms { name: layer.to_string(), before: of(&before), after: of(&after) })
    }
}

/// A name without its last part.
fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(parent, _)| parent)
}
