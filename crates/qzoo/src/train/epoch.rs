use super::pace::Pace;
use super::recorder::Recorder;
use super::trainer::Trainer;
use super::{End, StepEvent};
use crate::Result;
use std::time::Instant;

/// `metrics.jsonl` gets about so many lines of steps an epoch, at the same steps in every run.
const LINES_PER_EPOCH: u64 = 20;

impl Trainer {
    /// Trains the rest of the current epoch. Returns why it stopped before the end, if it did.
    pub(super) fn train_epoch(&mut self, recorder: &mut Recorder<'_>, pace: &mut Pace) -> Result<Option<End>> {
        let steps = self.steps_per_epoch();
        let (epoch, done) = (self.state.position.epoch, self.state.position.step_in_epoch);
        if done >= steps {
            return Ok(None);
        }
        self.change_masks(recorder)?;
        self.swap_layers(recorder)?;
        let every = self.experiment.log.checkpoint_every_steps as u64;
        let mut batches = self.feed.train(epoch, done * self.accumulate())?;
        while self.state.position.step_in_epoch < steps {
            let since = Instant::now();
            let step = self.step(&mut batches)?;
            pace.add(step.images, since);
            let position = &mut self.state.position;
            position.step += 1;
            position.step_in_epoch += 1;
            let (step_in_epoch, number) = (position.step_in_epoch, position.step);
            self.state.totals.images += step.images;
            self.state.totals.loss += step.loss * step.images as f64;
            self.state.totals.correct += step.correct;
            let images = self.state.totals.images.max(1) as f64;
            let left = (self.state.epochs - epoch) * steps - step_in_epoch;
            let event = StepEvent {
                epoch: epoch + 1,
                epochs: self.state.epochs,
                step_in_epoch,
                steps_per_epoch: steps,
                step: number,
                step_loss: step.loss,
                loss: self.state.totals.loss / images,
                top1: self.state.totals.correct / images,
                lr: step.lr,
                grad_norm: step.grad_norm,
                images_per_s: pace.images_per_s(),
                eta_seconds: left as f64 * pace.seconds_per_step(),
            };
            let line = step_in_epoch % steps.div_ceil(LINES_PER_EPOCH) == 0;
            recorder.step(&event, line)?;
            let end = self.must_stop(recorder);
            if every > 0 && number % every == 0 && (end.is_some() || step_in_epoch < steps) {
                self.save_last(recorder)?;
            }
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }
}
