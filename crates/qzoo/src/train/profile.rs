use super::network::{Cost, Lesson};
use super::trainer::Trainer;
use crate::Result;
use crate::run::{LayerCost, Profile};
use std::collections::HashMap;

impl Trainer {
    /// Measures one step, on the first batch of the run, and writes it to `profile.json`. Nothing of the run changes.
    pub(super) fn write_profile(&mut self) -> Result<()> {
        let profile = self.profile()?;
        Ok(self.folder.write_json("profile.json", &profile)?)
    }

    /// Time and memory by layer of one training step, on the first batch of the run.
    ///
    /// # Errors
    /// The data or the engine fails.
    pub fn profile(&mut self) -> Result<Profile> {
        let batch = self.feed.train(0, 0)?.next_batch()?;
        let lesson = Lesson {
            images: &batch.images,
            targets: batch.targets.as_ref().unwrap_or(&batch.labels),
            label_smoothing: self.experiment.train.label_smoothing,
            seed: self.experiment.seed,
            pass: 0,
        };
        // Once without a stopwatch, so that buffers and caches are warm.
        let gradients = self.network.learn(&lesson)?.gradients;
        let (mut network, mut optimizer) = (self.network.clone(), self.optimizer.clone());
        let start = std::time::Instant::now();
        optimizer.step(network.parameters_mut(), gradients, 0.0)?;
        let update = start.elapsed();
        drop((network, optimizer));
        // The peak of this step must not hide that of the run, nor the other way round.
        self.peak_bytes = self.peak_bytes();
        qtensor::pool::reset_peak();
        let times = qgraph::Profile::new();
        let cost = self.network.profile(&lesson, &times)?;
        let peak = qtensor::pool::usage().peak;
        Ok(Profile {
            batch: batch.images.shape()[0],
            forward_seconds: cost.forward.as_secs_f64(),
            backward_seconds: cost.backward.as_secs_f64(),
            update_seconds: update.as_secs_f64(),
            retained_bytes: cost.retained.bytes() as u64,
            peak_bytes: peak as u64,
            layers: layers(&times, &cost),
        })
    }
}

impl Trainer {
    /// The most bytes in tensors at any moment of this process's part of the run.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.max(qtensor::pool::usage().peak as u64)
    }
}

/// Times and bytes summed over the ops of each scope, in the order of the forward pass.
fn layers(times: &qgraph::Profile, cost: &Cost) -> Vec<LayerCost> {
    let mut layers: Vec<LayerCost> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut place = |scope: &str, layers: &mut Vec<LayerCost>| {
        *places.entry(scope.to_string()).or_insert_with(|| {
            layers.push(LayerCost { name: scope.to_string(), ..LayerCost::default() });
            layers.len() - 1
        })
    };
    for row in times.rows() {
        let index = place(&row.scope, &mut layers);
        layers[index].forward_seconds += row.forward.as_secs_f64();
        layers[index].backward_seconds += (row.backward + row.recompute).as_secs_f64();
    }
    for row in &cost.retained.rows {
        let index = place(&row.scope, &mut layers);
        layers[index].retained_bytes += row.bytes as u64;
    }
    layers
}
