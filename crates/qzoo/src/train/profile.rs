use super::network::{Cost, Lesson};
use super::trainer::Trainer;
use crate::Result;
use crate::run::{LayerCost, PassCost, Profile};
use std::collections::HashMap;
use std::time::Instant;

/// Steps that are measured. Odd, so that a median is one of them.
const STEPS: usize = 5;

impl Trainer {
    /// Measures a few steps on the first batch of the run, and writes them to `profile.json`. Nothing of the run changes.
    pub(super) fn write_profile(&mut self) -> Result<()> {
        let profile = self.profile()?;
        Ok(self.folder.write_json("profile.json", &profile)?)
    }

    /// Time and memory by layer of a training step, medians of a few, on the first batch of the run. Nothing of the run changes.
    ///
    /// # Errors
    /// The data or the engine fails.
    pub fn profile(&mut self) -> Result<Profile> {
        let batch = self.feed.train(0, 0)?.next_batch()?;
        let lesson = Lesson {
            images: &batch.images,
            targets: batch.targets.as_ref().unwrap_or(&batch.labels),
            label_smoothing: self.experiment.train.label_smoothing,
            precision: self.experiment.train.precision,
            seed: self.experiment.seed,
            pass: 0,
        };
        // Once without a stopwatch, so that buffers and caches are warm.
        let gradients = self.network.learn(&lesson)?.gradients;
        let (mut network, mut optimizer) = (self.network.clone(), self.optimizer.clone());
        optimizer.step(network.parameters_mut(), gradients.clone(), 0.0)?;
        let start = Instant::now();
        optimizer.step(network.parameters_mut(), gradients, 0.0)?;
        let update = start.elapsed();
        drop((network, optimizer));
        // The peak of these steps must not hide that of the run, nor the other way round.
        self.peak_bytes = self.peak_bytes();
        qtensor::pool::reset_peak();
        let mut steps = Vec::with_capacity(STEPS);
        for _ in 0..STEPS {
            let meter = qgraph::Profile::new();
            let cost = self.network.profile(&lesson, &meter)?;
            let seconds = [cost.forward, cost.backward].map(|time| time.as_secs_f64());
            steps.push((seconds, cost.retained.bytes() as u64, layers(&meter, &cost)));
        }
        let peak = qtensor::pool::usage().peak;
        let total = |pass: usize| median(steps.iter().map(|(seconds, ..)| seconds[pass]).collect());
        Ok(Profile {
            batch: batch.images.shape()[0],
            steps: STEPS,
            peak_gflops: qkernels::peak::multiply_add_peak(qkernels::par::threads())?,
            forward_seconds: total(0),
            backward_seconds: total(1),
            update_seconds: update.as_secs_f64(),
            retained_bytes: steps[0].1,
            peak_bytes: peak as u64,
            layers: typical(steps.into_iter().map(|(.., layers)| layers).collect()),
        })
    }
}

impl Trainer {
    /// The most bytes in tensors at any moment of this process's part of the run.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.max(qtensor::pool::usage().peak as u64)
    }
}

/// Costs summed over the ops of each scope, in the order of the forward pass.
fn layers(meter: &qgraph::Profile, cost: &Cost) -> Vec<LayerCost> {
    let mut layers: Vec<LayerCost> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut place = |scope: &str, layers: &mut Vec<LayerCost>| {
        *places.entry(scope.to_string()).or_insert_with(|| {
            layers.push(LayerCost { name: scope.to_string(), ..LayerCost::default() });
            layers.len() - 1
        })
    };
    for row in meter.rows() {
        let index = place(&row.scope, &mut layers);
        add(&mut layers[index].forward, row.forward);
        add(&mut layers[index].backward, row.backward);
        add(&mut layers[index].backward, row.recompute);
    }
    for row in &cost.retained.rows {
        let index = place(&row.scope, &mut layers);
        layers[index].retained_bytes += row.bytes as u64;
    }
    layers
}

fn add(total: &mut PassCost, cost: qgraph::PassCost) {
    total.seconds += cost.time.as_secs_f64();
    total.multiply_adds += cost.multiply_adds;
    total.bytes += cost.bytes;
}

/// The same layers of several steps, with the median of each time.
fn typical(steps: Vec<Vec<LayerCost>>) -> Vec<LayerCost> {
    let mut layers = steps[0].clone();
    for (i, layer) in layers.iter_mut().enumerate() {
        layer.forward.seconds = median(steps.iter().map(|step| step[i].forward.seconds).collect());
        layer.backward.seconds = median(steps.iter().map(|step| step[i].backward.seconds).collect());
    }
    layers
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
