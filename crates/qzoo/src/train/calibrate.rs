use super::Evaluator;
use super::feed::EvaluationFeed;
use super::probe::some_of;
use crate::data::{self, Batch, DataError};
use crate::nn::Parameters;
use crate::{Error, Result};
use qtensor::Tensor;
use std::fmt;
use std::path::Path;

type Pass = Box<dyn Iterator<Item = Result<Batch, DataError>>>;

/// Images that a network is calibrated on, always the same ones in the same order: some of a training split, not augmented, or those of a caller.
pub struct CalibrationImages(Source);

enum Source {
    Feed {
        feed: EvaluationFeed,
        /// A pass that has begun, and the number of its next batch.
        pass: Option<(Pass, usize)>,
    },
    Given(Vec<Tensor>),
}

impl CalibrationImages {
    /// At most `count` images, drawn by the experiment's seed where the split has more.
    ///
    /// # Errors
    /// The data cannot be had, or are not those of the training; or there are none.
    pub fn open(evaluator: &Evaluator, data_root: &Path, count: usize) -> Result<Self> {
        let experiment = evaluator.experiment();
        let splits = data::open(&experiment.data, data_root, experiment.seed)?;
        evaluator.expect_same_data(splits.train.info())?;
        let feed = some_of(experiment, splits.train, count, 2)?;
        if feed.images() == 0 {
            return Err(Error::Config("there are no training images to calibrate on".into()));
        }
        Ok(CalibrationImages(Source::Feed { feed, pass: None }))
    }

    /// These mini-batches `[N, C, H, W]`, as the network takes them.
    ///
    /// # Errors
    /// There are no images.
    pub fn of(batches: Vec<Tensor>) -> Result<Self> {
        if batches.is_empty() || batches.iter().any(|batch| batch.numel() == 0) {
            return Err(Error::Config("there are no images to calibrate on".into()));
        }
        Ok(CalibrationImages(Source::Given(batches)))
    }

    /// Images in all.
    pub fn images(&self) -> usize {
        match &self.0 {
            Source::Feed { feed, .. } => feed.images(),
            Source::Given(batches) => batches.iter().map(|batch| batch.shape()[0]).sum(),
        }
    }

    /// Mini-batches.
    pub fn batches(&self) -> usize {
        match &self.0 {
            Source::Feed { feed, .. } => feed.batches() as usize,
            Source::Given(batches) => batches.len(),
        }
    }

    /// The images of a mini-batch, `[N, C, H, W]`. Batches are best asked for in their order.
    ///
    /// # Errors
    /// An image cannot be read, or there is no such batch.
    pub fn batch(&mut self, number: usize) -> Result<Tensor> {
        let count = self.batches();
        let none = || DataError::Argument(format!("there are {count} batches, none of number {number}"));
        match &mut self.0 {
            Source::Given(batches) => Ok(batches.get(number).cloned().ok_or_else(none)?),
            Source::Feed { feed, pass } => {
                let (mut batches, next) = match pass.take() {
                    Some((batches, next)) if next <= number => (batches, next),
                    _ => (Box::new(feed.pass()?) as Box<_>, 0),
                };
                let batch = batches.nth(number - next).ok_or_else(none)??;
                *pass = Some((batches, number + 1));
                Ok(batch.images)
            }
        }
    }

    /// Parameters and buffers with running statistics that are measured anew on the first `count` images, or on all where there are fewer.
    ///
    /// # Errors
    /// The parameters are those of another model, or an image cannot be read.
    pub fn recalibrate(&mut self, evaluator: &Evaluator, parameters: &Parameters, count: usize) -> Result<Parameters> {
        let mut network = evaluator.network.with_parameters(parameters.clone());
        let (mut images, mut left) = (Vec::new(), count);
        for number in 0..self.batches() {
            let batch = self.batch(number)?;
            let some = batch.slice(0, 0..batch.shape()[0].min(left))?;
            left -= some.shape()[0];
            // A batch of one image has no variance for a batch normalisation.
            images.extend((some.shape()[0] > 1).then_some(Ok(some)));
            if left == 0 {
                break;
            }
        }
        network.recalibrate(images.into_iter(), evaluator.experiment().seed)?;
        Ok(network.parameters().clone())
    }
}

impl fmt::Debug for CalibrationImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CalibrationImages").field("images", &self.images()).finish_non_exhaustive()
    }
}
