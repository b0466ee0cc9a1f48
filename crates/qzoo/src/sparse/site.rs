//! The layers of a network that could run on sparse kernels, and what each is given.

use crate::Result;
use crate::models::Model;
use crate::nn::{Body, Composite, Leaves, Map, Phase, Projection, Sees, marks};
use qgraph::{Probe, SightingKind, Tape, Var};
use qtensor::Tensor;
use qtensor::random::{Purpose, Stream, StreamKey};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A projection of a network.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its full name, without `.weight`.
    pub name: String,
    /// Its map and the place of its weights.
    pub projection: Projection,
    /// What it is given for a batch: `[N, features]` or `[N, C, H, W]`.
    pub input: Vec<usize>,
}

/// The projections of a network for a batch of `images`, in the order of the forward pass. Those that see products of pairs are not linear maps of what they are given, and are left out.
///
/// # Errors
/// Images of another shape.
pub fn sites(model: &Model, images: &Tensor) -> Result<Vec<Site>> {
    let inputs = inputs(model, images)?;
    let parameters = model.parameters().parameters();
    let mut sites = Vec::new();
    for unit in model.network().composites().into_iter().flat_map(Composite::units) {
        let Body::Unit(unit) = unit.body() else { continue };
        for projection in unit.projections().iter().filter(|projection| projection.sees() != Sees::Pairs) {
            let weight = &parameters[projection.weight()].name;
            let name = weight.strip_suffix(".weight").unwrap_or(weight).to_string();
            if let Some(input) = inputs.get(&name) {
                sites.push(Site { name, projection: projection.clone(), input: input.clone() });
            }
        }
    }
    Ok(sites)
}

/// Random images of the size that a network takes, for measurements.
///
/// # Errors
/// There is no room.
pub fn images(model: &Model, batch: usize) -> Result<Tensor> {
    let [channels, height, width] = model.input();
    let key = StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 };
    Ok(Stream::new(key).normal_tensor([batch, channels, height, width], 0.0, 1.0)?.to_channels_last())
}

/// The shape of what each projection is given, by its name.
fn inputs(model: &Model, images: &Tensor) -> Result<BTreeMap<String, Vec<usize>>> {
    let found = Arc::new(Mutex::new(BTreeMap::new()));
    let notes = found.clone();
    let probe = Probe::new(move |sighting| {
        if sighting.kind == SightingKind::Mark && sighting.name == marks::INPUT {
            let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.insert(sighting.scope.to_string(), sighting.tensor.shape().to_vec());
        }
    });
    let leaves = Leaves::constant(model.parameters());
    model.forward(&mut Tape::new().probe(&probe), &leaves, &Var::constant(images.clone()), Phase::Evaluate)?;
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *found))
}

impl Site {
    /// The map in a few words, such as `conv 3x3 64 -> 128`.
    pub fn kind(&self) -> String {
        self.projection.kind()
    }

    /// Number of its weights, zeros included.
    pub fn weights(&self) -> usize {
        self.projection.map().weight_shape().iter().product()
    }

    /// Height and width of its images; 1 and 1 where it is given vectors.
    pub fn image(&self) -> [usize; 2] {
        match (self.projection.map(), self.input.as_slice()) {
            (Map::Conv2d(_), &[_, _, height, width]) => [height, width],
            _ => [1, 1],
        }
    }
}
