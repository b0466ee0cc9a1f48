use super::evaluate::evaluate;
use super::feed::{EvaluationFeed, image_shape};
use super::network::Network;
use super::{Evaluator, Event, Observer, StopFlag};
use crate::checkpoint::CheckpointError;
use crate::data::{self, Dataset};
use crate::experiment::Experiment;
use crate::models::Model;
use crate::nn::{Inputs, Parameters};
use crate::{Error, Result};
use qtensor::random::{Purpose, Stream, StreamKey};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a [`Probe`] is told beside its network.
#[derive(Clone, Debug, Default)]
pub struct ProbeOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// Images that accuracies are measured on; 0 = all of the split.
    pub images: usize,
    /// Training images that running statistics are measured on before every accuracy; 0 = they stay as they are.
    pub calibration_images: usize,
    /// Set by another thread to stop.
    pub stop: StopFlag,
}

/// Right answers of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Images that were recognised.
    pub correct: u64,
    /// Images in all.
    pub images: u64,
}

/// A trained network with images to try other weights on.
///
/// The images are held-out ones where the experiment holds some out, else test images; where not all of them are used, which ones depends on the
/// experiment's seed only.
#[derive(Debug)]
pub struct Probe {
    network: Network,
    seed: u64,
    split: &'static str,
    feed: EvaluationFeed,
    calibration: Option<EvaluationFeed>,
    stop: StopFlag,
}

impl Probe {
    /// Opens the data of the network's experiment.
    ///
    /// # Errors
    /// The data cannot be had, or are not those of the training.
    pub fn new(evaluator: Evaluator, options: &ProbeOptions) -> Result<Self> {
        let Evaluator { network, experiment, state, .. } = &evaluator;
        let splits = data::open(&experiment.data, &options.data_root, experiment.seed)?;
        let info = splits.test.info();
        if (&info.classes, image_shape(info)) != (&state.classes, state.image_shape) {
            let message = "was trained on data with other classes or another image size";
            return Err(CheckpointError::incompatible(evaluator.path(), message).into());
        }
        let (split, images) = match splits.validation {
            Some(validation) => ("validation", validation),
            None => ("test", splits.test),
        };
        let feed = some_of(experiment, images, options.images, 0)?;
        let calibration = match options.calibration_images {
            0 => None,
            // A batch of one image has no variance for a batch normalisation.
            count => Some(some_of(experiment, splits.train, count.max(2), 1)?),
        };
        if feed.images() == 0 {
            return Err(Error::Config("there are no images to measure accuracies on".into()));
        }
        let (network, stop) = (network.clone(), options.stop.clone());
        Ok(Probe { network, seed: experiment.seed, split, feed, calibration, stop })
    }

    /// The network.
    pub fn model(&self) -> &Model {
        self.network.model()
    }

    /// What the images are: `test` or `validation`.
    pub fn split(&self) -> &'static str {
        self.split
    }

    /// Right answers with these parameters in place of the network's; `None` where it was stopped.
    ///
    /// # Errors
    /// The data or the engine fails, or the parameters are those of another model.
    pub fn score(&self, parameters: Parameters, observer: &mut dyn Observer) -> Result<Option<Score>> {
        self.score_with(parameters, Inputs::new(), observer)
    }

    /// As [`score`](Self::score), with the inputs of some projections quantized.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub fn score_with(
        &self,
        parameters: Parameters,
        inputs: Inputs,
        observer: &mut dyn Observer,
    ) -> Result<Option<Score>> {
        let mut network = self.network.with_parameters(parameters);
        network.model_mut().set_inputs(inputs);
        if let Some(feed) = &self.calibration {
            let batches = feed.pass()?.map(|batch| Ok(batch?.images));
            network.recalibrate(batches.filter(|images| !matches!(images, Ok(i) if i.shape()[0] < 2)), self.seed)?;
        }
        let metrics = evaluate(&network, &self.feed, |_, done, total| {
            observer.event(&Event::Evaluating { split: self.split, done, total });
            Ok(done == total || !self.stop.is_set())
        })?;
        Ok(metrics.map(|metrics| Score { correct: metrics.correct(), images: metrics.count() }))
    }
}

/// At most `count` images of a data set; 0 = all.
pub(super) fn some_of(experiment: &Experiment, dataset: Dataset, count: usize, index: u64) -> Result<EvaluationFeed> {
    if count == 0 || count >= dataset.len() {
        return EvaluationFeed::new(experiment, dataset, None);
    }
    // Not the first ones: those of an image folder are of one class.
    let key = StreamKey { seed: experiment.seed, purpose: Purpose::Split, epoch: 1, index };
    let mut order = Stream::new(key).permutation(dataset.len() as u32);
    order.truncate(count);
    order.sort_unstable();
    EvaluationFeed::new(experiment, dataset.subset(&order)?, None)
}
