use super::{Event, Observer, StepEvent};
use crate::Result;
use crate::run::tensorboard::EventFile;
use crate::run::{EpochLine, LogFile, MetricsFile, Record, RunFolder, StepLine, unix_seconds};
use std::path::Path;
use std::time::Instant;

/// Everything that a run writes while it trains, besides checkpoints.
pub(super) struct Recorder<'a> {
    observer: &'a mut dyn Observer,
    metrics: MetricsFile,
    events: Option<EventFile>,
    log: LogFile,
    started: Instant,
}

impl<'a> Recorder<'a> {
    /// Opens the files of `folder` for a run that goes on after `lines` lines of metrics and `step` steps.
    pub(super) fn open(
        folder: &RunFolder,
        observer: &'a mut dyn Observer,
        tensorboard: bool,
        (lines, step): (u64, u64),
    ) -> Result<Self> {
        let metrics = MetricsFile::open(&folder.path().join("metrics.jsonl"), lines)?;
        let events = if tensorboard { Some(EventFile::create(folder.path(), step + 1)?) } else { None };
        let log = LogFile::open(&folder.path().join("log.txt"))?;
        let missing = lines - metrics.lines();
        let mut recorder = Recorder { observer, metrics, events, log, started: Instant::now() };
        if missing > 0 {
            recorder.warn(&format!("metrics.jsonl has lost {missing} lines of the time before this checkpoint"))?;
        }
        Ok(recorder)
    }

    /// Lines of metrics so far.
    pub(super) fn lines(&self) -> u64 {
        self.metrics.lines()
    }

    /// Seconds since this process took up the run.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Tells the observer only.
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        self.observer.event(event);
    }

    /// A line of `log.txt`.
    pub(super) fn log(&mut self, message: &str) -> Result<()> {
        Ok(self.log.line(message)?)
    }

    /// What the run decided by itself.
    pub(super) fn note(&mut self, message: &str) -> Result<()> {
        self.observer.event(&Event::Note(message));
        self.log(message)
    }

    /// Something that a person should know.
    pub(super) fn warn(&mut self, message: &str) -> Result<()> {
        self.observer.event(&Event::Warning(message));
        self.log(&format!("warning: {message}"))
    }

    /// A step; `write` says whether it also goes to the files.
    pub(super) fn step(&mut self, event: &StepEvent, write: bool) -> Result<()> {
        self.observer.event(&Event::Step(*event));
        if !write {
            return Ok(());
        }
        let StepEvent { epoch, step, loss, top1, step_loss, lr, grad_norm, images_per_s, .. } = *event;
        let (seconds, time) = (self.seconds(), unix_seconds());
        let line = StepLine { epoch, step, loss, top1, step_loss, lr, grad_norm, images_per_s, seconds, time };
        self.metrics.append(&Record::Step(line))?;
        if let Some(events) = &mut self.events {
            let values = [
                ("step/loss", step_loss),
                ("step/learning_rate", lr),
                ("step/gradient_norm", grad_norm),
                ("step/images_per_second", images_per_s),
            ];
            events.scalars(step, &values)?;
        }
        Ok(())
    }

    /// A completed epoch.
    pub(super) fn epoch(&mut self, line: &EpochLine, best: bool) -> Result<()> {
        self.metrics.append(&Record::Epoch(line.clone()))?;
        let r = &line.record;
        if let Some(events) = &mut self.events {
            let mut values = vec![
                ("epoch/train_loss", r.train_loss),
                ("epoch/train_top1", r.train_top1),
                ("epoch/test_loss", r.test_loss),
                ("epoch/test_top1", r.test_top1),
                ("epoch/test_top5", r.test_top5),
            ];
            values.extend(r.validation_loss.map(|v| ("epoch/validation_loss", v)));
            values.extend(r.validation_top1.map(|v| ("epoch/validation_top1", v)));
            values.extend(r.sparsity.map(|v| ("epoch/sparsity", v)));
            events.scalars(r.step, &values)?;
            events.flush()?;
        }
        let sparsity = r.sparsity.map(|v| format!("; {:.2} % zeros", 100.0 * v)).unwrap_or_default();
        self.log(&format!(
            "epoch {}: train loss {:.4}, top-1 {:.2} %; test loss {:.4}, top-1 {:.2} %{}{sparsity}; {:.0} images/s",
            r.epoch,
            r.train_loss,
            100.0 * r.train_top1,
            r.test_loss,
            100.0 * r.test_top1,
            if best { ", the best so far" } else { "" },
            line.images_per_s
        ))?;
        self.observer.event(&Event::Epoch { line, best });
        Ok(())
    }

    /// A checkpoint is on the disk.
    pub(super) fn saved(&mut self, path: &Path, step: u64) -> Result<()> {
        self.observer.event(&Event::Saved { path, step });
        self.log(&format!("step {step}: saved {}", path.display()))
    }

    /// Makes the metrics durable, which the next checkpoint counts on.
    pub(super) fn sync(&mut self) -> Result<()> {
        if let Some(events) = &mut self.events {
            events.flush()?;
        }
        Ok(self.metrics.sync()?)
    }
}
