use super::feed::TrainBatches;
use super::network::{Answer, Lesson};
use super::trainer::Trainer;
use crate::Result;
use crate::checkpoint::Position;
use crate::optim::{clip_by_norm, global_norm};
use qtensor::{DType, Tensor};

/// What an optimizer step came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepResult {
    pub(super) images: u64,
    /// Mean over the images.
    pub(super) loss: f64,
    /// Sum over the images.
    pub(super) correct: f64,
    pub(super) lr: f64,
    /// Before clipping.
    pub(super) grad_norm: f64,
}

impl Trainer {
    /// One update from the next batch, or from the next few where gradients are accumulated.
    pub(super) fn step(&mut self, batches: &mut TrainBatches) -> Result<StepResult> {
        let Position { epoch, step_in_epoch, step } = self.state.position;
        let first = step_in_epoch * self.accumulate();
        let count = self.accumulate().min(self.feed.batches_per_epoch() - first);
        let (mut images, mut loss, mut correct) = (0, 0.0, 0.0);
        let mut sum: Vec<Option<Tensor>> = Vec::new();
        let mut norm = 0.0;
        for part in 0..count {
            let batch = batches.next_batch()?;
            let targets = batch.targets.as_ref().unwrap_or(&batch.labels);
            let lesson = Lesson {
                images: &batch.images,
                targets,
                label_smoothing: self.experiment.train.label_smoothing,
                precision: self.experiment.train.precision,
                seed: self.experiment.seed,
                pass: epoch * self.feed.batches_per_epoch() + first + part,
            };
            let answer = self.network.learn(&lesson)?;
            norm = global_norm(&answer.gradients)?;
            if !answer.loss.is_finite() || !norm.is_finite() {
                return Err(self.explain(&lesson, &answer, norm));
            }
            let size = batch.images.shape()[0] as u64;
            images += size;
            loss += answer.loss * size as f64;
            correct += count_correct(&answer.logits, targets)?;
            self.network.apply(&answer.effects)?;
            add_gradients(&mut sum, answer.gradients)?;
        }
        if count > 1 {
            for gradient in sum.iter_mut().flatten() {
                qkernels::elementwise::scale_assign(gradient, 1.0 / count as f64)?;
            }
            norm = global_norm(&sum)?;
        }
        norm = self.mask_gradients(&mut sum, norm)?;
        if self.experiment.train.clip_norm > 0.0 {
            clip_by_norm(&mut sum, self.experiment.train.clip_norm)?;
        }
        let factor = self.schedule.factor(step);
        self.optimizer.step(self.network.parameters_mut(), sum, factor)?;
        if let Some(ema) = &mut self.ema {
            ema.update(self.network.parameters())?;
        }
        Ok(StepResult {
            images,
            loss: loss / images.max(1) as f64,
            correct,
            lr: self.schedule.lr(step),
            grad_norm: norm,
        })
    }

    /// Runs a pass again with every value checked, to name the layer in which it went wrong.
    fn explain(&self, lesson: &Lesson<'_>, answer: &Answer, norm: f64) -> crate::Error {
        let parameters = self.network.parameters().parameters();
        let gradient = || {
            let named = parameters.iter().zip(&answer.gradients);
            let mut wrong = named.filter(|(_, g)| g.as_ref().is_some_and(|g| !super::save::is_finite(g)));
            wrong.next().map(|(parameter, _)| format!("the gradient of {} is not finite", parameter.name))
        };
        let what =
            self.network.find_not_finite(lesson).or_else(gradient).unwrap_or_else(|| "the loss is not finite".into());
        self.diverged(what, answer.loss, Some(norm))
    }
}

fn add_gradients(sum: &mut Vec<Option<Tensor>>, gradients: Vec<Option<Tensor>>) -> Result<()> {
    if sum.is_empty() {
        *sum = gradients;
        return Ok(());
    }
    for (total, gradient) in sum.iter_mut().zip(gradients) {
        match (total, gradient) {
            (Some(total), Some(gradient)) => qkernels::add_assign(total, &gradient)?,
            (total @ None, gradient) => *total = gradient,
            (Some(_), None) => {}
        }
    }
    Ok(())
}

/// Sum over the images of being right: of the target's probability for the first of the largest logits.
fn count_correct(logits: &Tensor, targets: &Tensor) -> Result<f64> {
    let predicted = qkernels::reduce::argmax_last(logits)?.to_dtype(DType::I64)?.to_vec::<i64>()?;
    if targets.dtype() == DType::I64 {
        let labels = targets.to_vec::<i64>()?;
        return Ok(predicted.iter().zip(&labels).filter(|(p, label)| p == label).count() as f64);
    }
    let classes = logits.shape()[1];
    let shares = targets.to_vec::<f32>()?;
    Ok(predicted.iter().enumerate().map(|(row, class)| f64::from(shares[row * classes + *class as usize])).sum())
}
