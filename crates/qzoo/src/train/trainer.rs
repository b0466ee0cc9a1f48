use super::feed::{Feed, image_shape};
use super::given::first_state;
use super::network::Network;
use super::pace::Pace;
use super::recorder::Recorder;
use super::{Divergence, End, Event, Observer, Started, TrainOptions};
use crate::checkpoint::{Best, CheckpointFolder, EpochRecord, Position, RunningTotals, State};
use crate::data::DataError;
use crate::ema::Ema;
use crate::experiment::Experiment;
use crate::optim::Optimizer;
use crate::run::{EpochLine, MemoryPlan, RunFolder, RunResult, unix_seconds};
use crate::schedule::Schedule;
use crate::sparse::Pruner;
use crate::{Error, Result};

/// A run: everything that training an experiment needs, from the first step or from where an earlier process stopped.
#[derive(Debug)]
pub struct Trainer {
    pub(super) experiment: Experiment,
    pub(super) options: TrainOptions,
    pub(super) folder: RunFolder,
    pub(super) checkpoints: CheckpointFolder,
    pub(super) feed: Feed,
    pub(super) network: Network,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) ema: Option<Ema>,
    /// Where the experiment is a sparse one.
    pub(super) pruner: Option<Pruner>,
    /// The generation of masks for which kernels were chosen.
    pub(super) swapped: Option<u64>,
    pub(super) state: State,
    /// Where a continued run goes on.
    pub(super) resumed: Option<Position>,
    /// What is to be told when the run begins.
    pub(super) warnings: Vec<String>,
    /// The position of the checkpoint that is on the disk.
    pub(super) saved: Option<Position>,
    /// The most bytes in tensors before the pool's own count was reset.
    pub(super) peak_bytes: u64,
    /// The backward modes, where the run chose them.
    pub(super) plan: Option<MemoryPlan>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Its totals.
    pub result: RunResult,
}

/// What an experiment is made of before anything is written.
pub(super) struct Parts {
    feed: Feed,
    network: Network,
    pruner: Option<Pruner>,
}

impl Parts {
    pub(super) fn open(experiment: &Experiment, options: &TrainOptions) -> Result<Self> {
        let feed = Feed::open(experiment, options)?;
        if feed.batches_per_epoch() == 0 {
            let message = "there are no training images, or no batches of them are allowed";
            return Err(DataError::Argument(message.into()).into());
        }
        let network = Network::build(experiment, image_shape(feed.info()), feed.info().classes.len())?;
        // By the epochs of the experiment, so that those of a run that trains on are sparse as its last ones were.
        let epochs = experiment.train.epochs as u64;
        let sparse = experiment.sparse.as_ref().filter(|sparse| sparse.finetune.is_none());
        let pruner = sparse.map(|s| Pruner::new(network.model(), s, experiment.seed, epochs));
        Ok(Parts { feed, network, pruner: pruner.transpose()? })
    }
}

impl Trainer {
    /// Sets up a new run in `folder` and saves its beginning.
    ///
    /// # Errors
    /// The data or the model cannot be had (then the folder is removed again), or the disk refuses.
    pub fn new(experiment: Experiment, folder: RunFolder, options: TrainOptions) -> Result<Self> {
        let parts = match Parts::open(&experiment, &options) {
            Ok(parts) => parts,
            Err(error) => {
                folder.abandon();
                return Err(error);
            }
        };
        let text = super::restore::to_toml(&experiment)?;
        if let Some(environment) = &options.environment {
            folder.write_json("env.json", environment)?;
        }
        folder.write("config.resolved.toml", &text)?;
        Self::begin(experiment, text, folder, (parts, options))
    }

    /// A run without steps yet.
    pub(super) fn begin(
        experiment: Experiment,
        text: String,
        folder: RunFolder,
        (parts, options): (Parts, TrainOptions),
    ) -> Result<Self> {
        let Parts { feed, network, pruner } = parts;
        let epochs = options.epochs.unwrap_or(experiment.train.epochs) as u64;
        let steps = feed.batches_per_epoch().div_ceil(experiment.train.accumulate.max(1) as u64);
        let state =
            State { limit_batches: options.limit_batches, epochs, ..first_state(&experiment, text, feed.info()) };
        let decay = experiment.train.ema_decay;
        Ok(Trainer {
            checkpoints: CheckpointFolder::open(&folder.checkpoints(), experiment.log.keep)?,
            optimizer: Optimizer::new(&experiment.optim, network.parameters()),
            schedule: Schedule::new(&experiment.schedule, experiment.optim.lr, steps, epochs),
            ema: if decay > 0.0 { Some(Ema::new(decay, network.parameters())?) } else { None },
            experiment,
            options,
            folder,
            feed,
            network,
            pruner,
            swapped: None,
            state,
            resumed: None,
            warnings: Vec::new(),
            saved: None,
            peak_bytes: 0,
            plan: None,
        })
    }

    /// The experiment, every default filled in.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The folder of the run.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// How far the run is.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Optimizer steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.feed.batches_per_epoch().div_ceil(self.accumulate())
    }

    pub(super) fn accumulate(&self) -> u64 {
        self.experiment.train.accumulate.max(1) as u64
    }

    /// Trains to the end, or until the stop flag or the time limit; saves in either case.
    ///
    /// # Errors
    /// The data, the disk or the engine fails, or training diverges. The checkpoints stay those of the last good save.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        qtensor::pool::reset_peak();
        let from = (self.state.metric_lines, self.state.position.step);
        let mut recorder = Recorder::open(&self.folder, observer, self.experiment.log.tensorboard, from)?;
        let outcome = self.run_with(&mut recorder);
        if let Err(error) = &outcome {
            // The run's own error matters more than one of the log.
            let _ = recorder.log(&format!("error: {error}"));
        }
        outcome
    }

    fn run_with(&mut self, recorder: &mut Recorder<'_>) -> Result<Outcome> {
        self.announce(recorder)?;
        if let Some(message) = self.plan_memory()? {
            recorder.note(&message)?;
        }
        if self.saved.is_none() {
            self.save_last(recorder)?;
        }
        self.swap_layers(recorder)?;
        let mut pace = Pace::default();
        let mut end = None;
        while end.is_none() && !self.is_over() {
            end = self.train_epoch(recorder, &mut pace)?;
            if end.is_none() {
                end = self.close_epoch(recorder, &pace)?;
            }
        }
        if self.saved != Some(self.state.position) {
            self.save_last(recorder)?;
        }
        let end = match end {
            Some(end) => end,
            None => self.report(recorder)?,
        };
        let result = self.result(recorder, &pace)?;
        if matches!(end, End::Completed | End::EarlyStop) {
            self.folder.write_json("result.json", &result)?;
        }
        recorder.log(&format!("ended: {end:?} after {} epochs", result.epochs))?;
        recorder.sync()?;
        recorder.tell(&Event::Finished(&result));
        Ok(Outcome { end, result })
    }

    fn announce(&mut self, recorder: &mut Recorder<'_>) -> Result<()> {
        let started = Started {
            run: self.folder.path(),
            model: self.experiment.model.name.name(),
            parameters: self.network.parameters().count(),
            train_images: self.feed.train_images(),
            test_images: self.feed.test.images(),
            epochs: self.state.epochs,
            steps_per_epoch: self.steps_per_epoch(),
            resumed: self.resumed,
        };
        match self.resumed {
            Some(position) => recorder.log(&format!("continuing after step {}", position.step))?,
            None => recorder.log(&format!("training {} with {} parameters", started.model, started.parameters))?,
        }
        recorder.tell(&Event::Started(started));
        for warning in std::mem::take(&mut self.warnings) {
            recorder.warn(&warning)?;
        }
        Ok(())
    }

    /// Whether nothing is left to train.
    fn is_over(&self) -> bool {
        self.state.position.epoch >= self.state.epochs || self.out_of_patience()
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.experiment.train.early_stop as u64;
        let best = self.state.best.as_ref().map_or(0, |best| best.epoch);
        let epoch = self.state.position.epoch;
        // Accuracy that falls because weights are taken away says nothing of what training still brings.
        let settled = self.pruner.as_ref().is_none_or(|pruner| pruner.phases().is_settled(epoch.saturating_sub(1)));
        patience > 0 && settled && epoch >= best + patience
    }

    /// How a run ends that is over.
    pub(super) fn natural_end(&self) -> End {
        if self.state.position.epoch < self.state.epochs { End::EarlyStop } else { End::Completed }
    }

    /// Why to stop now, if at all.
    pub(super) fn must_stop(&self, recorder: &Recorder<'_>) -> Option<End> {
        let out_of_time = self.options.max_time.is_some_and(|most| recorder.seconds() >= most.as_secs_f64());
        match () {
            () if self.options.stop.is_set() => Some(End::Interrupted),
            () if out_of_time => Some(End::TimeUp),
            () => None,
        }
    }

    /// Evaluates the epoch that was just trained and enters it in the books.
    fn close_epoch(&mut self, recorder: &mut Recorder<'_>, pace: &Pace) -> Result<Option<End>> {
        let held_out = match self.feed.validation.is_some() {
            true => self.evaluate_split("validation", recorder)?.map(Some),
            false => Some(None),
        };
        let (Some(held_out), Some(test)) = (held_out, self.evaluate_split("test", recorder)?) else {
            return Ok(Some(self.must_stop(recorder).unwrap_or(End::Interrupted)));
        };
        let Position { epoch, step, .. } = self.state.position;
        let totals = self.state.totals;
        let images = totals.images.max(1) as f64;
        let record = EpochRecord {
            epoch: epoch + 1,
            step,
            lr: self.schedule.lr(step.saturating_sub(1)),
            train_loss: totals.loss / images,
            train_top1: totals.correct / images,
            test_loss: test.loss(),
            test_top1: test.top1(),
            test_top5: test.top5(),
            validation_loss: held_out.as_ref().map(|m| m.loss()),
            validation_top1: held_out.as_ref().map(|m| m.top1()),
            sparsity: self.sparsity(epoch).map(|[sparsity, _]| sparsity),
        };
        for (loss, split) in [(Some(record.test_loss), "test"), (record.validation_loss, "validation")] {
            if loss.is_some_and(|loss| !loss.is_finite()) {
                return Err(self.diverged(
                    format!("the mean loss on the {split} images is not finite"),
                    record.train_loss,
                    None,
                ));
            }
        }
        let best = self.enter_best(&record);
        self.state.history.push(record.clone());
        self.state.position = Position { epoch: epoch + 1, step_in_epoch: 0, step };
        self.state.totals = RunningTotals::default();
        self.state.finished = self.is_over();
        let line =
            EpochLine { record, images_per_s: pace.images_per_s(), seconds: recorder.seconds(), time: unix_seconds() };
        recorder.epoch(&line, best)?;
        if best {
            self.save_best(recorder)?;
        }
        self.keep_epoch(recorder)?;
        self.save_last(recorder)?;
        Ok(if self.is_over() { None } else { self.must_stop(recorder) })
    }

    /// Whether the epoch is the best so far; a later equal one is not. One with sparser phases is, whatever its accuracy, and one with denser phases is not: the
    /// best network of a sparse experiment is a sparse one.
    fn enter_best(&mut self, record: &EpochRecord) -> bool {
        let (metric, value) = match record.validation_top1 {
            Some(value) => ("validation_top1", value),
            None => ("test_top1", record.test_top1),
        };
        let sparsity = self.sparsity(record.epoch - 1).map(|[_, wanted]| wanted);
        let better = self.state.best.as_ref().is_none_or(|best| (sparsity, value) > (best.sparsity, best.value));
        if better {
            let (metric, epoch, test_top1) = (metric.into(), record.epoch, record.test_top1);
            let best = Best { metric, value, epoch, test_top1, sparsity };
            self.state.best = Some(best);
        }
        better
    }

    /// The error of a step that went wrong.
    pub(super) fn diverged(&self, what: String, loss: f64, grad_norm: Option<f64>) -> Error {
        let Position { epoch, step, .. } = self.state.position;
        let checkpoint = self.saved.map(|_| self.checkpoints.last());
        let lr = self.schedule.lr(step);
        Error::Diverged(Box::new(Divergence {
            epoch: epoch + 1,
            step: step + 1,
            what,
            loss,
            lr,
            grad_norm,
            checkpoint,
        }))
    }

    fn result(&self, recorder: &Recorder<'_>, pace: &Pace) -> Result<RunResult> {
        let last = self.state.history.last();
        Ok(RunResult {
            run: self.folder.path().display().to_string(),
            epochs: self.state.position.epoch,
            best_top1: self.state.best.as_ref().map(|best| best.test_top1),
            last_top1: last.map(|record| record.test_top1),
            test_loss: last.map(|record| record.test_loss),
            images_per_s: pace.images_per_s(),
            peak_bytes: self.peak_bytes(),
            seconds: recorder.seconds(),
            weights_sha256: self.network.digest()?,
        })
    }
}
