//! Learning rates in closed form: the rate at a step is a function of the step alone, so a resumed run needs no saved state.
//!
//! The forms and their numbers are those of `torch.optim.lr_scheduler`. Every schedule may begin with a linear warm-up; the
//! schedule's own time starts after it, except for the milestones of `multi_step`, which count from the start of the run.

use crate::experiment::{self, Anneal, ScheduleUnit, Shape};
use std::f64::consts::PI;

/// A learning-rate schedule for a training of known length.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    config: experiment::Schedule,
    base: f64,
    steps_per_epoch: f64,
    epochs: f64,
}

impl Schedule {
    /// A schedule for the base rate `base` over `epochs` epochs of `steps_per_epoch` optimizer steps.
    pub fn new(config: &experiment::Schedule, base: f64, steps_per_epoch: u64, epochs: u64) -> Self {
        Schedule { config: config.clone(), base, steps_per_epoch: steps_per_epoch.max(1) as f64, epochs: epochs as f64 }
    }

    /// The rate of the optimizer step number `step`, counted from 0 over the whole training.
    pub fn lr(&self, step: u64) -> f64 {
        let warm_epochs = self.config.warmup_epochs;
        let warm = (warm_epochs * self.steps_per_epoch).round();
        let step = step as f64;
        if step < warm {
            return self.base * (self.config.warmup_start + (1.0 - self.config.warmup_start) * step / warm);
        }
        match self.config.unit {
            ScheduleUnit::Step => self.after_warm_up(step, warm, 1.0 / self.steps_per_epoch),
            ScheduleUnit::Epoch => self.after_warm_up((step / self.steps_per_epoch).floor(), warm_epochs, 1.0),
        }
    }

    /// The rate at a step as a share of the base rate: what the rates of parameter groups are multiplied by.
    pub fn factor(&self, step: u64) -> f64 {
        if self.base == 0.0 { 0.0 } else { self.lr(step) / self.base }
    }

    /// The rate at time `now` after a warm-up that ended at `warm`, both in ticks of `tick` epochs.
    fn after_warm_up(&self, now: f64, warm: f64, tick: f64) -> f64 {
        let base = self.base;
        let ticks = |epochs: usize| (epochs as f64 / tick).round();
        let since = (now - warm).max(0.0);
        let span = (self.epochs / tick - warm).max(1.0);
        let share = (since / span).min(1.0);
        match &self.config.shape {
            Shape::Constant(_) => base,
            Shape::Step(step) => base * step.gamma.powf((since / ticks(step.step_size).max(1.0)).floor()),
            Shape::MultiStep(step) => {
                let passed = step.milestones.iter().filter(|m| ticks(**m) <= now).count();
                base * step.gamma.powf(passed as f64)
            }
            Shape::Cosine(cosine) => half_cosine(base, cosine.final_lr, share),
            Shape::CosineRestarts(cosine) => {
                let first = ticks(cosine.period).max(1.0);
                half_cosine(base, cosine.final_lr, share_of_cycle(since, first, cosine.period_factor as f64))
            }
            Shape::Poly(poly) => poly.final_lr + (base - poly.final_lr) * (1.0 - share).powf(poly.power),
            Shape::OneCycle(cycle) => {
                let curve = match cycle.anneal {
                    Anneal::Cosine => half_cosine,
                    Anneal::Linear => line,
                };
                let start = base / cycle.div_factor;
                let (top, last) = (cycle.pct_start * span - 1.0, span - 1.0);
                if since <= top {
                    curve(start, base, since / top.max(1.0))
                } else {
                    curve(base, start / cycle.final_div_factor, ((since - top) / (last - top).max(1.0)).min(1.0))
                }
            }
        }
    }
}

/// From `from` at share 0 to `to` at share 1.
fn half_cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * share).cos())
}

/// From `from` at share 0 to `to` at share 1.
fn line(from: f64, to: f64, share: f64) -> f64 {
    from + (to - from) * share
}

/// The share of the current cycle that has passed, where each cycle is `factor` times as long as the one before.
fn share_of_cycle(since: f64, first: f64, factor: f64) -> f64 {
    if factor <= 1.0 {
        return (since % first) / first;
    }
    // A cycle's start is the sum of a geometric series; the last start not after `since` is found by its logarithm, and
    // one step of correction makes up for rounding in it.
    let start = |cycle: f64| first * (factor.powf(cycle) - 1.0) / (factor - 1.0);
    let mut cycle = (since / first * (factor - 1.0) + 1.0).log(factor).floor().max(0.0);
    if start(cycle) > since {
        cycle -= 1.0;
    } else if start(cycle + 1.0) <= since {
        cycle += 1.0;
    }
    (since - start(cycle)) / (first * factor.powf(cycle))
}

#[cfg(test)]
mod tests;
