//! Learning rates in closed form: the rate at a step is a function of the step alone, so a resumed run needs no saved state.
//!
//! The forms and their numbers are those of `torch.optim.lr_scheduler`. Every schedule may begin with a linear warm-up; the
//! cosine, polynomial and one-cycle forms then span what is left of the training, while the milestones of the step forms
//! count from its beginning.

use std::f64::consts::PI;

/// How often the rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// With every optimizer step.
    Step,
    /// Once an epoch.
    Epoch,
}

/// The form of a schedule after its warm-up. Lengths are in epochs; rates called final are absolute.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// The base rate throughout.
    Constant,
    /// Times `gamma` after every `every` epochs.
    Step {
        /// Epochs between two drops.
        every: f64,
        /// Factor of a drop.
        gamma: f64,
    },
    /// Times `gamma` at each milestone.
    MultiStep {
        /// Epochs at which the rate drops.
        milestones: Vec<f64>,
        /// Factor of a drop.
        gamma: f64,
    },
    /// Half a cosine from the base rate to `final_lr` (Loshchilov and Hutter, 2017).
    Cosine {
        /// Rate that would be reached just after the last step.
        final_lr: f64,
    },
    /// Half cosines that start again, each `factor` times as long as the one before.
    CosineRestarts {
        /// Epochs of the first cycle.
        first: f64,
        /// Growth of the cycles, at least 1.
        factor: f64,
        /// Rate at the end of a cycle.
        final_lr: f64,
    },
    /// `final + (base - final) · (1 - t/T)^power`.
    Poly {
        /// The exponent.
        power: f64,
        /// Rate that would be reached just after the last step.
        final_lr: f64,
    },
    /// Up from base / `start_divisor` to the base rate and down to 1/`final_divisor` of where it began, both by half a
    /// cosine (Smith and Topin, 2018).
    OneCycle {
        /// Share of the steps that the way up takes.
        rise: f64,
        /// Base rate over first rate.
        start_divisor: f64,
        /// First rate over last rate.
        final_divisor: f64,
    },
}

/// The linear warm-up of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp {
    /// Length in epochs; 0 for none.
    pub epochs: f64,
    /// Share of the base rate at the first step.
    pub start: f64,
}

/// A learning-rate schedule for a training of known length.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    form: Form,
    unit: Unit,
    warm_up: WarmUp,
    steps_per_epoch: f64,
    epochs: f64,
}

impl Schedule {
    /// A schedule over `epochs` epochs of `steps_per_epoch` optimizer steps.
    pub fn new(form: Form, unit: Unit, warm_up: WarmUp, steps_per_epoch: u64, epochs: u64) -> Self {
        Schedule { form, unit, warm_up, steps_per_epoch: steps_per_epoch.max(1) as f64, epochs: epochs as f64 }
    }

    /// The rate of the optimizer step number `step`, counted from 0 over the whole training, for a base rate.
    pub fn lr(&self, base: f64, step: u64) -> f64 {
        let warm = (self.warm_up.epochs * self.steps_per_epoch).round();
        let step = step as f64;
        if step < warm {
            return base * (self.warm_up.start + (1.0 - self.warm_up.start) * step / warm);
        }
        match self.unit {
            Unit::Step => self.after_warm_up(base, step, warm, 1.0 / self.steps_per_epoch),
            Unit::Epoch => self.after_warm_up(base, (step / self.steps_per_epoch).floor(), self.warm_up.epochs, 1.0),
        }
    }

    /// The rate at time `now` after a warm-up that ended at `warm`, both in ticks of `tick` epochs.
    fn after_warm_up(&self, base: f64, now: f64, warm: f64, tick: f64) -> f64 {
        let ticks = |epochs: f64| (epochs / tick).max(1.0);
        let since = (now - warm).max(0.0);
        let span = (self.epochs / tick - warm).max(1.0);
        match &self.form {
            Form::Constant => base,
            Form::Step { every, gamma } => base * gamma.powf((now / ticks(*every)).floor()),
            Form::MultiStep { milestones, gamma } => {
                let passed = milestones.iter().filter(|m| **m / tick <= now).count();
                base * gamma.powf(passed as f64)
            }
            Form::Cosine { final_lr } => half_cosine(base, *final_lr, (since / span).min(1.0)),
            Form::CosineRestarts { first, factor, final_lr } => {
                half_cosine(base, *final_lr, share_of_cycle(since, ticks(*first), *factor))
            }
            Form::Poly { power, final_lr } => {
                final_lr + (base - final_lr) * (1.0 - (since / span).min(1.0)).powf(*power)
            }
            Form::OneCycle { rise, start_divisor, final_divisor } => {
                let start = base / start_divisor;
                let (top, last) = (rise * span - 1.0, span - 1.0);
                if since <= top {
                    half_cosine(start, base, since / top.max(1.0))
                } else {
                    half_cosine(base, start / final_divisor, ((since - top) / (last - top).max(1.0)).min(1.0))
                }
            }
        }
    }
}

/// From `from` at share 0 to `to` at share 1.
fn half_cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * share).cos())
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
