//! Batches prepared ahead by worker threads, in an order that does not depend on them.

use super::batch::{Assembler, Batch, Position};
use super::dataset::Dataset;
use super::error::{DataError, Result};
use crate::experiment::Augment;
use qtensor::random::{Purpose, Stream, StreamKey};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// How a [`Loader`] makes batches.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Samples of a batch, at least 1.
    pub batch_size: usize,
    /// Names the random numbers, together with the epoch and the sample.
    pub seed: u64,
    /// A new random order each epoch.
    pub shuffle: bool,
    /// Leave out the last batch of an epoch if it is smaller.
    pub drop_last: bool,
    /// Subtract the mean and divide by the standard deviation of each channel.
    pub normalize: bool,
    /// Random changes of the images; none for evaluation.
    pub augment: Option<Augment>,
    /// Threads that prepare batches, at most 256; 0 = prepare each when it is asked for.
    pub workers: usize,
    /// Batches that each worker keeps ready, at least 1.
    pub prefetch: usize,
}

impl LoaderOptions {
    /// For evaluation: every sample once, in its order, as it is; one worker.
    pub fn evaluation(batch_size: usize) -> Self {
        LoaderOptions {
            batch_size,
            seed: 0,
            shuffle: false,
            drop_last: false,
            normalize: true,
            augment: None,
            workers: 1,
            prefetch: 2,
        }
    }

    /// For training: a new order each epoch; no augmentation and one worker unless set.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        LoaderOptions { seed, shuffle: true, ..Self::evaluation(batch_size) }
    }
}

/// Makes the batches of an epoch.
pub struct Loader {
    dataset: Dataset,
    options: LoaderOptions,
    assembler: Arc<Assembler>,
}

impl Loader {
    /// A loader of the data set.
    ///
    /// # Errors
    /// An option is out of its range, or does not fit the images.
    pub fn new(dataset: Dataset, options: LoaderOptions) -> Result<Self> {
        if options.batch_size == 0 || options.prefetch == 0 || options.workers > 256 {
            let message = "a loader needs a batch size and a prefetch of at least 1 and at most 256 workers";
            return Err(DataError::Argument(message.to_string()));
        }
        let assembler = Arc::new(Assembler::new(dataset.clone(), options.augment.clone(), options.normalize)?);
        Ok(Loader { dataset, options, assembler })
    }

    /// The samples.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// How batches are made.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }

    /// Number of batches of an epoch.
    pub fn batches(&self) -> usize {
        match self.options.drop_last {
            true => self.dataset.len() / self.options.batch_size,
            false => self.dataset.len().div_ceil(self.options.batch_size),
        }
    }

    /// Number of samples of an epoch.
    pub fn samples(&self) -> usize {
        self.dataset.len().min(self.batches() * self.options.batch_size)
    }

    /// The batches of an epoch from number `first` on; they are the same ones as those of a whole epoch.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn epoch(&self, epoch: u32, first: usize) -> Result<Batches> {
        let count = self.dataset.len() as u32;
        let order = match self.options.shuffle {
            true => {
                let key = StreamKey { seed: self.options.seed, purpose: Purpose::Shuffle, epoch, index: 0 };
                Stream::new(key).permutation(count)
            }
            false => (0..count).collect(),
        };
        let plan = Arc::new(Plan {
            assembler: Arc::clone(&self.assembler),
            order,
            batch_size: self.options.batch_size,
            seed: self.options.seed,
            epoch,
        });
        let end = self.batches();
        let workers = self.options.workers.min(end.saturating_sub(first));
        let mut batches = Batches { plan, next: first, end, first, receivers: Vec::new(), threads: Vec::new() };
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(self.options.prefetch);
            let (plan, start) = (Arc::clone(&batches.plan), first + worker);
            let thread = Builder::new()
                .name(format!("loader-{worker}"))
                .spawn(move || plan.work(start..end, workers, &sender))
                .map_err(|error| DataError::Worker(format!("it could not be started: {error}")))?;
            batches.receivers.push(receiver);
            batches.threads.push(thread);
        }
        Ok(batches)
    }
}

/// All that determines the batches of an epoch.
struct Plan {
    assembler: Arc<Assembler>,
    order: Vec<u32>,
    batch_size: usize,
    seed: u64,
    epoch: u32,
}

impl Plan {
    fn batch(&self, number: usize) -> Result<Batch> {
        let start = number * self.batch_size;
        let indices = &self.order[start..self.order.len().min(start + self.batch_size)];
        let at = Position { seed: self.seed, epoch: self.epoch, batch: number as u64 };
        let made = catch_unwind(AssertUnwindSafe(|| self.assembler.assemble(indices, at)));
        made.unwrap_or_else(|panic| Err(DataError::Worker(panic_message(panic.as_ref()))))
    }

    /// Makes every `step`-th batch until an error, the end, or nobody listens any more.
    fn work(&self, numbers: std::ops::Range<usize>, step: usize, sender: &SyncSender<Result<Batch>>) {
        for number in numbers.step_by(step) {
            let batch = self.batch(number);
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_string()
}

/// The batches of an epoch, in order. After an error there are no more. Dropping it ends the workers.
pub struct Batches {
    plan: Arc<Plan>,
    next: usize,
    end: usize,
    first: usize,
    /// Worker `w` makes the batches `first + w`, `first + w + workers` and so on.
    receivers: Vec<Receiver<Result<Batch>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let batch = if self.receivers.is_empty() {
            self.plan.batch(self.next)
        } else {
            let worker = (self.next - self.first) % self.receivers.len();
            let received = self.receivers[worker].recv();
            received.unwrap_or_else(|_| Err(DataError::Worker("it ended early".to_string())))
        };
        self.next = if batch.is_ok() { self.next + 1 } else { self.end };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next);
        (if left > 0 { 1 } else { 0 }, Some(left))
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Workers that wait to send are woken by this.
        self.receivers.clear();
        for thread in self.threads.drain(..) {
            // It cannot have panicked: the work is done under `catch_unwind`.
            let _ = thread.join();
        }
    }
}
