//! The weights of a network that can be pruned.

use crate::experiment::{Sparse, SparseScope, pattern};
use crate::models::Model;
use crate::nn::{Body, Composite};
use crate::{Error, Result};

/// A matrix of weights that is pruned: of a linear or convolutional layer, or one of those of a quadratic neuron.
#[derive(Clone, Debug, PartialEq)]
pub struct PrunableLayer {
    /// Its full name, without `.weight`.
    pub name: String,
    /// Position of its weights among the model's parameters.
    pub position: usize,
    /// Shape of its weights; the first axis is that of the outputs.
    pub shape: Vec<usize>,
    /// The share of zeros that it comes to, or that all layers of the global scope come to together.
    pub sparsity: f64,
    /// Whether its weights are compared with those of other layers.
    pub is_global: bool,
}

/// The layers of a model that the settings prune, in the order of the network. Biases and normalisations are never pruned.
///
/// # Errors
/// A pattern that matches no layer, or no layer that is left to prune.
pub fn layers(model: &Model, settings: &Sparse) -> Result<Vec<PrunableLayer>> {
    let units: Vec<&Composite> = model.network().composites().into_iter().flat_map(Composite::units).collect();
    let last = units.len().saturating_sub(1);
    let mut all: Vec<(PrunableLayer, bool)> = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        let Body::Unit(body) = unit.body() else { continue };
        for projection in body.projections() {
            let position = projection.weight();
            // Projections may share their weights.
            if all.iter().any(|(layer, _)| layer.position == position) {
                continue;
            }
            let parameter = &model.parameters().parameters()[position];
            let name = parameter.name.strip_suffix(".weight").unwrap_or(&parameter.name).to_string();
            let sparsity = settings.sparsity_of(&name);
            let is_own = pattern::longest(&settings.layers, &name).is_some();
            let is_global = settings.scope == SparseScope::Global && settings.n_of_m.is_none() && !is_own;
            let shape = parameter.value.shape().to_vec();
            all.push((PrunableLayer { name, position, shape, sparsity, is_global }, number == 0 || number == last));
        }
    }
    check_patterns(settings, &all)?;
    let is_skipped = |layer: &PrunableLayer, is_end: bool| match &settings.skip {
        Some(patterns) => patterns.iter().any(|wanted| pattern::matches(wanted, &layer.name)),
        None => is_end,
    };
    let names: Vec<String> = all.iter().map(|(layer, _)| layer.name.clone()).collect();
    let layers: Vec<_> = all.into_iter().filter(|(layer, is_end)| !is_skipped(layer, *is_end)).collect();
    if layers.is_empty() {
        let message = format!(
            "[sparse] leaves no layer to prune: skip = {} stays dense of {}; skip = [] prunes all of them",
            settings.skip.as_ref().map_or("the first and last layer".into(), |skip| format!("{skip:?}")),
            names.join(", "),
        );
        return Err(Error::Config(message));
    }
    Ok(layers.into_iter().map(|(layer, _)| layer).collect())
}

fn check_patterns(settings: &Sparse, all: &[(PrunableLayer, bool)]) -> Result<()> {
    for wanted in settings.layers.keys().chain(settings.skip.iter().flatten()) {
        if !all.iter().any(|(layer, _)| pattern::matches(wanted, &layer.name)) {
            let names: Vec<&str> = all.iter().map(|(layer, _)| layer.name.as_str()).collect();
            let message = format!("[sparse] no layer matches {wanted}; the layers are {}", names.join(", "));
            return Err(Error::Config(message));
        }
    }
    Ok(())
}

impl PrunableLayer {
    /// Number of its weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Weights of one output.
    pub(super) fn row(&self) -> usize {
        self.shape[1..].iter().product()
    }
}
