//! From what a probe sees to the places of layers.

use super::OUTPUT;
use super::layers::LayerInfo;
use crate::Result;
use crate::nn::marks;
use qgraph::{Pass, Probe, Sighting, SightingKind};
use qtensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Takes what is seen.
pub(super) trait Sink: Send {
    /// The value of a place of a layer, or the gradient with respect to it; f32.
    fn take(&mut self, layer: usize, place: &str, pass: Pass, tensor: &Tensor) -> Result<()>;
}

/// Watches the marked values of layers, and hands them to a sink.
#[derive(Debug)]
pub(super) struct Watch<S> {
    state: Arc<Mutex<State<S>>>,
}

#[derive(Debug)]
struct State<S> {
    sink: S,
    layers: HashMap<String, usize>,
    /// Sums so far of the parts of a neuron.
    parts: Vec<(usize, &'static str, Tensor)>,
    failed: Option<crate::Error>,
}

impl<S: Sink + 'static> Watch<S> {
    pub(super) fn new(layers: &[LayerInfo], sink: S) -> Self {
        let layers = layers.iter().enumerate().map(|(i, layer)| (layer.name.clone(), i)).collect();
        Watch { state: Arc::new(Mutex::new(State { sink, layers, parts: Vec::new(), failed: None })) }
    }

    /// A probe that reports here.
    pub(super) fn probe(&self) -> Probe {
        let state = self.state.clone();
        Probe::new(move |sighting| lock(&state).see(sighting))
    }

    /// Gives access to the sink.
    ///
    /// # Errors
    /// What the sink could not take.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut S) -> T) -> Result<T> {
        let mut state = lock(&self.state);
        match state.failed.take() {
            Some(error) => Err(error),
            None => Ok(f(&mut state.sink)),
        }
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<S: Sink> State<S> {
    fn see(&mut self, sighting: &Sighting<'_>) {
        if sighting.kind == SightingKind::Mark && self.failed.is_none() {
            self.failed = self.mark(sighting).err();
        }
    }

    fn mark(&mut self, sighting: &Sighting<'_>) -> Result<()> {
        let Sighting { scope, name, pass, .. } = *sighting;
        let (layer, place) = match (self.layers.get(name), self.layers.get(scope)) {
            (Some(layer), _) => (*layer, OUTPUT),
            (None, Some(layer)) => (*layer, name),
            (None, None) => return Ok(()),
        };
        // A first-order layer is a projection too; what it is given is another layer's output.
        if place == marks::INPUT {
            return Ok(());
        }
        let part = [marks::SECOND_ORDER, marks::LINEAR].into_iter().find(|part| *part == place);
        match (part, pass) {
            // The gradient of a part is that of the neuron.
            (Some(_), Pass::Backward | Pass::Recompute) => return Ok(()),
            (Some(part), Pass::Forward) => return self.add(layer, part, sighting.tensor),
            (None, Pass::Forward) if place == marks::NEURON => {
                for (layer, part, sum) in std::mem::take(&mut self.parts) {
                    self.sink.take(layer, part, Pass::Forward, &sum)?;
                }
            }
            _ => {}
        }
        let tensor = sighting.tensor.to_dtype(DType::F32)?;
        self.sink.take(layer, place, pass, &tensor)
    }

    /// Adds to a part of the neuron that runs.
    fn add(&mut self, layer: usize, part: &'static str, tensor: &Tensor) -> Result<()> {
        let tensor = tensor.to_dtype(DType::F32)?;
        match self.parts.iter_mut().find(|(l, p, _)| (*l, *p) == (layer, part)) {
            Some((_, _, sum)) => qkernels::add_assign(sum, &tensor)?,
            None => self.parts.push((layer, part, tensor)),
        }
        Ok(())
    }
}
