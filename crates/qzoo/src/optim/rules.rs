//! One parameter's update by the rule of the experiment, as a part of the pass over all parameters.

use super::State;
use crate::experiment::{Adam, AdamW, Rule};
use qkernels::update::{AdadeltaStep, AdamStep, SgdStep, Updates};
use qtensor::{Error, Result, Tensor};

/// One parameter's update.
pub(super) struct Update<'a> {
    pub(super) parameter: &'a mut Tensor,
    pub(super) gradient: &'a Tensor,
    pub(super) state: &'a mut State,
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}

/// Counts the step and adds it to those of all parameters.
pub(super) fn add<'a>(updates: &mut Updates<'a>, rule: &Rule, update: Update<'a>) -> Result<()> {
    let Update { parameter, gradient, state, lr, weight_decay } = update;
    state.steps += 1;
    let (step, slots) = (state.steps, state.slots.as_mut_slice());
    match rule {
        Rule::Sgd(sgd) => updates.sgd(SgdStep {
            parameter,
            gradient,
            velocity: slots.first_mut(),
            first: step == 1,
            lr,
            momentum: sgd.momentum,
            dampening: sgd.dampening,
            nesterov: sgd.nesterov,
            weight_decay,
        }),
        Rule::Adam(Adam { betas, eps }) | Rule::AdamW(AdamW { betas, eps }) => {
            let [mean, square] = pair(slots)?;
            let (betas, eps, decoupled) = (*betas, *eps, matches!(rule, Rule::AdamW(_)));
            updates.adam(AdamStep { parameter, gradient, mean, square, step, lr, betas, eps, weight_decay, decoupled })
        }
        Rule::Adadelta(rule) => {
            let [square, update] = pair(slots)?;
            let (rho, eps) = (rule.rho, rule.eps);
            updates.adadelta(AdadeltaStep { parameter, gradient, square, update, lr, rho, eps, weight_decay })
        }
    }
}

fn pair(slots: &mut [Tensor]) -> Result<&mut [Tensor; 2]> {
    slots.try_into().map_err(|_| Error::argument("optimizer", "the state of a parameter should be two tensors"))
}
