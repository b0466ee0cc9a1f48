use super::network::{Lesson, Network};
use super::trainer::Trainer;
use crate::Result;
use crate::experiment::{Backward, BackwardMode, Experiment};
use crate::run::{LayerMemory, LayerMode, MemoryProfile, ModeTotal};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{Tensor, pool};
use std::time::Instant;

/// Steps that are measured in each mode. Odd, so that a median is one of them.
const STEPS: usize = 3;

/// Memory and time by layer and backward mode of training steps of an experiment, on random images of that shape.
///
/// # Errors
/// The network cannot be built for these images, or a step fails.
pub fn memory_profile(experiment: &Experiment, image_shape: [usize; 3], classes: usize) -> Result<MemoryProfile> {
    let network = Network::build(experiment, image_shape, classes)?;
    let batch = experiment.train.batch_size;
    let key = StreamKey { seed: experiment.seed, purpose: Purpose::Test, epoch: 0, index: 0 };
    let [channels, height, width] = image_shape;
    let images = Stream::new(key).normal_tensor([batch, channels, height, width], 0.0, 1.0)?.to_channels_last();
    let labels: Vec<i64> = (0..batch).map(|i| (i % classes.max(1)) as i64).collect();
    let targets = Tensor::from_vec([batch], labels)?;
    profile(&network, &lesson(experiment, &images, &targets))
}

/// The first pass of a run on these images.
fn lesson<'a>(experiment: &Experiment, images: &'a Tensor, targets: &'a Tensor) -> Lesson<'a> {
    Lesson {
        images,
        targets,
        label_smoothing: experiment.train.label_smoothing,
        precision: experiment.train.precision,
        seed: experiment.seed,
        pass: 0,
    }
}

impl Trainer {
    /// Runs `work` on the first batch of the run. Nothing of the run changes.
    pub(super) fn on_first_batch<R>(&mut self, work: impl FnOnce(&Network, &Lesson<'_>) -> Result<R>) -> Result<R> {
        let batch = self.feed.train(0, 0)?.next_batch()?;
        let targets = batch.targets.as_ref().unwrap_or(&batch.labels);
        // The peak of these steps must not hide that of the run, nor the other way round.
        self.peak_bytes = self.peak_bytes();
        let done = work(&self.network, &lesson(&self.experiment, &batch.images, targets));
        pool::reset_peak();
        done
    }

    /// Writes `memory.json`: what each layer keeps and takes in each backward mode, on the first batch of the run.
    pub(super) fn write_memory(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        let profile = self.on_first_batch(profile)?;
        Ok(self.folder.write_json("memory.json", &MemoryProfile { plan, ..profile })?)
    }
}

/// Steps with all layers in each of the modes that differ for the network.
pub(super) fn profile(network: &Network, lesson: &Lesson<'_>) -> Result<MemoryProfile> {
    let units = network.units();
    let mut profile = MemoryProfile { batch: lesson.images.shape()[0], ..MemoryProfile::default() };
    profile.layers = units
        .iter()
        .map(String::as_str)
        .chain([""])
        .map(|name| LayerMemory { name: name.to_string(), modes: Vec::new() })
        .collect();
    for mode in network.distinct_modes() {
        let all = units.iter().map(|unit| (unit.clone(), *mode)).collect();
        let backward = Backward { mode: BackwardMode::Symbolic, layers: all, ..Backward::default() };
        let (total, layers) = measure(&network.with_backward(&backward)?, lesson, &units)?;
        profile.modes.push(ModeTotal { mode: mode.to_string(), ..total });
        profile.layers.iter_mut().zip(layers).for_each(|(layer, cost)| layer.modes.push(cost));
    }
    Ok(profile)
}

/// A few steps: their totals, and the costs of each unit and then of all that belongs to none.
pub(super) fn measure(network: &Network, lesson: &Lesson<'_>, units: &[String]) -> Result<(ModeTotal, Vec<LayerMode>)> {
    // Once without a stopwatch, so that buffers and caches are warm; and the peak is that of a step alone.
    pool::reset_peak();
    drop(network.learn(lesson)?);
    let peak_bytes = pool::usage().peak as u64;
    let mut steps: Vec<(f64, Vec<LayerMode>)> = Vec::with_capacity(STEPS);
    let mut kept_bytes = 0;
    for _ in 0..STEPS {
        let meter = qgraph::Profile::new();
        let start = Instant::now();
        let cost = network.profile(lesson, &meter)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut layers = vec![LayerMode::default(); units.len() + 1];
        let times = meter.rows().into_iter().map(|row| {
            let time = row.forward.time + row.backward.time + row.recompute.time;
            (row.scope, time.as_secs_f64())
        });
        for (place, seconds) in by_unit(units, times) {
            layers[place].seconds += seconds;
        }
        for (place, bytes) in by_unit(units, cost.retained.rows.iter().map(|row| (row.scope.clone(), row.bytes))) {
            layers[place].kept_bytes += bytes as u64;
        }
        kept_bytes = cost.retained.bytes() as u64;
        steps.push((seconds, layers));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let seconds = median(steps.iter().map(|(seconds, _)| *seconds).collect());
    let mut layers = steps[0].1.clone();
    for (i, layer) in layers.iter_mut().enumerate() {
        layer.seconds = median(steps.iter().map(|(_, layers)| layers[i].seconds).collect());
    }
    Ok((ModeTotal { mode: String::new(), kept_bytes, peak_bytes, seconds }, layers))
}

/// The unit to which each scope belongs, or the number of units: scopes below its name, and those that follow beside it, which are its normalisation and
/// its activation.
fn by_unit<T>(units: &[String], rows: impl Iterator<Item = (String, T)>) -> Vec<(usize, T)> {
    let parent = |name: &str| name.rsplit_once('.').map_or(String::new(), |(parent, _)| parent.to_string());
    let within =
        |scope: &str, unit: &str| scope.strip_prefix(unit).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let mut last: Option<usize> = None;
    rows.map(|(scope, value)| {
        let own = (0..units.len()).filter(|i| within(&scope, &units[*i])).max_by_key(|i| units[*i].len());
        last = own.or(last);
        let beside = last.filter(|unit| !scope.is_empty() && parent(&units[*unit]) == parent(&scope));
        (own.or(beside).unwrap_or(units.len()), value)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normalisation_belongs_to_the_unit_before_it() {
        let units = ["stem", "block.a", "block.ab", "fc"].map(String::from);
        let scopes =
            ["stem.conv1", "stem", "bn", "block.a.conv1", "block.n", "block.ab", "block.m", "", "fc", "other.x"];
        let places: Vec<usize> =
            by_unit(&units, scopes.iter().map(|s| (s.to_string(), ()))).into_iter().map(|(place, ())| place).collect();
        assert_eq!(places, [0, 0, 0, 1, 1, 2, 2, 4, 3, 4]);
    }
}
