use super::{EvaluateOptions, TrainOptions};
use crate::Result;
use crate::checkpoint::Normalization;
use crate::data::{self, Batch, Batches, DataError, Dataset, DatasetInfo, Loader, LoaderOptions};
use crate::experiment::Experiment;
use std::fmt;

/// The data of a run, split by split.
pub(super) struct Feed {
    train: Loader,
    limit: u64,
    pub(super) validation: Option<EvaluationFeed>,
    pub(super) test: EvaluationFeed,
}

/// Images to be judged by, in their own order and as they are.
pub(super) struct EvaluationFeed {
    loader: Loader,
    limit: u64,
}

/// The rest of a training epoch.
pub(super) struct TrainBatches(Batches);

impl Feed {
    /// Opens the data of the experiment.
    pub(super) fn open(experiment: &Experiment, options: &TrainOptions) -> Result<Self> {
        let splits = data::open(&experiment.data, &options.data_root, experiment.seed)?;
        let batch_size = experiment.train.batch_size;
        let training = LoaderOptions {
            normalize: experiment.data.normalize,
            augment: Some(experiment.data.augment.clone()),
            workers: experiment.data.workers,
            // A batch of one image has no variance for a batch normalisation.
            drop_last: splits.train.len() > 1 && splits.train.len() % batch_size == 1,
            ..LoaderOptions::training(batch_size, experiment.seed)
        };
        let evaluation = |dataset| EvaluationFeed::new(experiment, dataset, options.limit_batches);
        Ok(Feed {
            train: Loader::new(splits.train, training)?,
            limit: options.limit_batches.unwrap_or(u64::MAX),
            validation: splits.validation.map(evaluation).transpose()?,
            test: evaluation(splits.test)?,
        })
    }

    /// What the splits have in common.
    pub(super) fn info(&self) -> &DatasetInfo {
        self.train.dataset().info()
    }

    /// Images of the training split.
    pub(super) fn train_images(&self) -> usize {
        self.train.dataset().len()
    }

    /// Batches of a training epoch.
    pub(super) fn batches_per_epoch(&self) -> u64 {
        self.limit.min(self.train.batches() as u64)
    }

    /// The batches of an epoch (from 0) from number `first` on.
    pub(super) fn train(&self, epoch: u64, first: u64) -> Result<TrainBatches> {
        Ok(TrainBatches(self.train.epoch(epoch as u32, first as usize)?))
    }
}

impl TrainBatches {
    /// The next batch. There is one for each that [`Feed::batches_per_epoch`] counts.
    pub(super) fn next_batch(&mut self) -> Result<Batch> {
        let none = || DataError::Argument("the training split ended before its last batch".into());
        Ok(self.0.next().ok_or_else(none)??)
    }
}

impl EvaluationFeed {
    /// The test images of the experiment, or those of a file.
    pub(super) fn open_test(experiment: &Experiment, options: &EvaluateOptions) -> Result<Self> {
        let dataset = match &options.data_file {
            Some(file) => data::open_test_file(&experiment.data, file)?,
            None => data::open_test(&experiment.data, &options.data_root)?,
        };
        Self::new(experiment, dataset, options.limit_batches)
    }

    /// The images of a data set.
    pub(super) fn new(experiment: &Experiment, dataset: Dataset, limit: Option<u64>) -> Result<Self> {
        let options = LoaderOptions {
            normalize: experiment.data.normalize,
            workers: experiment.data.workers,
            ..LoaderOptions::evaluation(experiment.train.eval_batch_size)
        };
        Ok(EvaluationFeed { loader: Loader::new(dataset, options)?, limit: limit.unwrap_or(u64::MAX) })
    }

    /// What the splits have in common.
    pub(super) fn info(&self) -> &DatasetInfo {
        self.loader.dataset().info()
    }

    /// Images of the split.
    pub(super) fn images(&self) -> usize {
        self.loader.dataset().len()
    }

    /// Batches of a pass.
    pub(super) fn batches(&self) -> u64 {
        self.limit.min(self.loader.batches() as u64)
    }

    /// The batches of a pass.
    pub(super) fn pass(&self) -> Result<impl Iterator<Item = Result<Batch, DataError>> + use<>> {
        Ok(self.loader.epoch(0, 0)?.take(self.batches() as usize))
    }
}

/// Channels, height and width of the images.
pub(super) fn image_shape(info: &DatasetInfo) -> [usize; 3] {
    [info.shape.channels, info.shape.height, info.shape.width]
}

/// What pixels in [0, 1] are put through before the network sees them.
pub(super) fn normalization(info: &DatasetInfo, normalize: bool) -> Normalization {
    let list = |values: &[f32], otherwise: f64| {
        values.iter().map(|value| if normalize { f64::from(*value) } else { otherwise }).collect()
    };
    Normalization { mean: list(&info.mean, 0.0), std: list(&info.std, 1.0) }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("train", self.train.dataset()).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl fmt::Debug for EvaluationFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvaluationFeed").field("images", self.loader.dataset()).finish_non_exhaustive()
    }
}
