//! `[schedule]`: how the learning rate changes over the run.
//!
//! Every schedule is a factor on the learning rate of each group. Below, T is the length of the run in epochs and t the time in
//! epochs after the warm-up, out of T minus the warm-up.

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::named::named_enum;

named_enum! {
    /// The schedules that an experiment can name.
    ScheduleName {
        Constant = "constant", "the same rate throughout";
        Step = "step", "times gamma after every step_size epochs";
        MultiStep = "multi_step", "times gamma at each of the milestones";
        Cosine = "cosine", "half a cosine from lr down to final_lr (Loshchilov and Hutter 2017)";
        CosineRestarts = "cosine_restarts", "cosines from lr to final_lr, each period_factor times as long as the one before";
        Poly = "poly", "from lr to final_lr with (1 - t / T) to a power";
        OneCycle = "one_cycle", "up from lr / div_factor to lr, then down to almost nothing (Smith and Topin 2018)";
    }
}

named_enum! {
    /// How often the rate is computed anew.
    ScheduleUnit {
        Step = "step", "at every update";
        Epoch = "epoch", "at the start of every epoch (the warm-up still moves at every update)";
    }
}

named_enum! {
    /// The curve between two rates of `one_cycle`.
    Anneal {
        Cosine = "cosine", "half a cosine";
        Linear = "linear", "a straight line";
    }
}

/// `[schedule]`: the keys that every schedule has, and the shape with its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// `name` and the keys of that schedule alone.
    #[serde(flatten)]
    pub shape: Shape,
    /// How often the rate is computed anew. Default `step`.
    pub unit: ScheduleUnit,
    /// Epochs over which the rate rises in a straight line to its full value; the schedule's own time starts after them.
    /// 0 or larger, at most `train.epochs`. Default 0.
    pub warmup_epochs: f64,
    /// Share of the full rate at the first update of the warm-up, in [0, 1]. Default 0.
    pub warmup_start: f64,
}

/// The schedule and the keys that only it has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Shape {
    /// `name = "constant"`: no keys of its own.
    Constant(Constant),
    /// `name = "step"`.
    Step(Step),
    /// `name = "multi_step"`.
    MultiStep(MultiStep),
    /// `name = "cosine"`.
    Cosine(Cosine),
    /// `name = "cosine_restarts"`.
    CosineRestarts(CosineRestarts),
    /// `name = "poly"`.
    Poly(Poly),
    /// `name = "one_cycle"`.
    OneCycle(OneCycle),
}

/// Keys of `name = "constant"`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {}

/// Keys of `name = "step"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Epochs between two reductions, 1 or more. Default 30.
    pub step_size: usize,
    /// Factor of each reduction, above 0 and at most 1. Default 0.1.
    pub gamma: f64,
}

/// Keys of `name = "multi_step"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiStep {
    /// Epochs (counted from the start of the run, warm-up included) at which the rate is reduced, increasing. Required.
    pub milestones: Vec<usize>,
    /// Factor of each reduction, above 0 and at most 1. Default 0.1.
    pub gamma: f64,
}

/// Keys of `name = "cosine"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    /// The rate that `optim.lr` ends at, from 0 to `optim.lr`; groups with a rate of their own are scaled alike. Default 0.
    pub final_lr: f64,
}

/// Keys of `name = "cosine_restarts"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CosineRestarts {
    /// Epochs of the first cosine, 1 or more. Default 10.
    pub period: usize,
    /// Each cosine is this many times as long as the one before, 1 or more. Default 1.
    pub period_factor: usize,
    /// The rate that each cosine ends at, from 0 to `optim.lr`. Default 0.
    pub final_lr: f64,
}

/// Keys of `name = "poly"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Poly {
    /// The power, above 0. Default 1: a straight line.
    pub power: f64,
    /// The rate that `optim.lr` ends at, from 0 to `optim.lr`. Default 0.
    pub final_lr: f64,
}

/// Keys of `name = "one_cycle"`; the names and meanings are PyTorch's, with `optim.lr` as the highest rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// Share of the run in which the rate rises, above 0 and below 1. Default 0.3.
    pub pct_start: f64,
    /// The first rate is `optim.lr` divided by this, 1 or more. Default 25.
    pub div_factor: f64,
    /// The last rate is the first one divided by this, 1 or more. Default 10000.
    pub final_div_factor: f64,
    /// The curve of rise and fall. Default `cosine`.
    pub anneal: Anneal,
}

impl Default for Step {
    fn default() -> Self {
        Step { step_size: 30, gamma: 0.1 }
    }
}

impl Default for MultiStep {
    fn default() -> Self {
        MultiStep { milestones: Vec::new(), gamma: 0.1 }
    }
}

impl Default for CosineRestarts {
    fn default() -> Self {
        CosineRestarts { period: 10, period_factor: 1, final_lr: 0.0 }
    }
}

impl Default for Poly {
    fn default() -> Self {
        Poly { power: 1.0, final_lr: 0.0 }
    }
}

impl Default for OneCycle {
    fn default() -> Self {
        OneCycle { pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4, anneal: Anneal::Cosine }
    }
}

impl Shape {
    /// The schedule's name.
    pub fn name(&self) -> ScheduleName {
        match self {
            Shape::Constant(_) => ScheduleName::Constant,
            Shape::Step(_) => ScheduleName::Step,
            Shape::MultiStep(_) => ScheduleName::MultiStep,
            Shape::Cosine(_) => ScheduleName::Cosine,
            Shape::CosineRestarts(_) => ScheduleName::CosineRestarts,
            Shape::Poly(_) => ScheduleName::Poly,
            Shape::OneCycle(_) => ScheduleName::OneCycle,
        }
    }

    /// The schedule of that name with its defaults.
    pub fn of(name: ScheduleName) -> Shape {
        match name {
            ScheduleName::Constant => Shape::Constant(Constant::default()),
            ScheduleName::Step => Shape::Step(Step::default()),
            ScheduleName::MultiStep => Shape::MultiStep(MultiStep::default()),
            ScheduleName::Cosine => Shape::Cosine(Cosine::default()),
            ScheduleName::CosineRestarts => Shape::CosineRestarts(CosineRestarts::default()),
            ScheduleName::Poly => Shape::Poly(Poly::default()),
            ScheduleName::OneCycle => Shape::OneCycle(OneCycle::default()),
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            shape: Shape::Constant(Constant::default()),
            unit: ScheduleUnit::Step,
            warmup_epochs: 0.0,
            warmup_start: 0.0,
        }
    }
}

impl Schedule {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.not_negative("warmup_epochs", self.warmup_epochs);
        checker.closed_share("warmup_start", self.warmup_start);
        self.shape.check(checker);
    }

    /// The rate that the shape ends at, where it has one.
    fn final_lr(&self) -> Option<f64> {
        match &self.shape {
            Shape::Cosine(shape) => Some(shape.final_lr),
            Shape::CosineRestarts(shape) => Some(shape.final_lr),
            Shape::Poly(shape) => Some(shape.final_lr),
            _ => None,
        }
    }

    /// What depends on the other sections.
    pub(super) fn check_beside(&self, epochs: usize, lr: f64, checker: &mut Checker<'_>) {
        if self.warmup_epochs.is_finite() && self.warmup_epochs > epochs as f64 {
            let message = format!("\"warmup_epochs\" is {}, but the run has {epochs}", self.warmup_epochs);
            checker.conflict("warmup_epochs", message, Some("at most train.epochs"));
        }
        if let Some(last) = self.final_lr().filter(|last| last.is_finite() && *last > lr) {
            let message = format!("\"final_lr\" is {last}, above the rate that it starts from");
            checker.conflict("final_lr", message, Some(&format!("at most optim.lr, which is {lr}")));
        }
    }
}

/// Demands a factor above 0 and at most 1.
fn check_gamma(gamma: f64, checker: &mut Checker<'_>) {
    if !(gamma > 0.0 && gamma <= 1.0) {
        checker.wrong("gamma", format!("\"gamma\" must be above 0 and at most 1, not {gamma}"), None);
    }
}

/// Demands a finite divisor, 1 or more.
fn check_divisor(key: &str, value: f64, checker: &mut Checker<'_>) {
    if !(value >= 1.0 && value.is_finite()) {
        checker.wrong(key, format!("{key:?} must be a finite number, 1 or larger, not {value}"), None);
    }
}

impl Shape {
    fn check(&self, checker: &mut Checker<'_>) {
        const LONGEST: usize = 1_000_000;
        match self {
            Shape::Constant(_) => {}
            Shape::Step(shape) => {
                checker.whole("step_size", shape.step_size, 1, LONGEST);
                check_gamma(shape.gamma, checker);
            }
            Shape::MultiStep(shape) => {
                check_milestones(&shape.milestones, LONGEST, checker);
                check_gamma(shape.gamma, checker);
            }
            Shape::Cosine(shape) => checker.not_negative("final_lr", shape.final_lr),
            Shape::CosineRestarts(shape) => {
                checker.whole("period", shape.period, 1, LONGEST);
                checker.whole("period_factor", shape.period_factor, 1, 1000);
                checker.not_negative("final_lr", shape.final_lr);
            }
            Shape::Poly(shape) => {
                checker.positive("power", shape.power);
                checker.not_negative("final_lr", shape.final_lr);
            }
            Shape::OneCycle(shape) => {
                if !(shape.pct_start > 0.0 && shape.pct_start < 1.0) {
                    let message = format!("\"pct_start\" must be above 0 and below 1, not {}", shape.pct_start);
                    checker.wrong("pct_start", message, None);
                }
                check_divisor("div_factor", shape.div_factor, checker);
                check_divisor("final_div_factor", shape.final_div_factor, checker);
            }
        }
    }
}

fn check_milestones(milestones: &[usize], longest: usize, checker: &mut Checker<'_>) {
    if milestones.is_empty() {
        checker.wrong("milestones", "\"milestones\" needs at least one epoch".into(), Some("milestones = [100, 150]"));
    }
    let mut last = 0;
    for (index, &milestone) in milestones.iter().enumerate() {
        let mut checker = checker.within("milestones");
        if milestone == 0 || milestone > longest {
            checker.wrong(index, format!("a milestone must be from 1 to {longest}, not {milestone}"), None);
        } else if milestone <= last {
            checker.wrong(index, format!("milestones must increase, but {milestone} follows {last}"), None);
        }
        last = milestone;
    }
}
