//! Optimizers: the update rules of `torch.optim` over a flat list of parameters.

mod clip;
mod rules;

#[cfg(test)]
mod tests;

pub use clip::{clip_by_norm, global_norm};

use crate::experiment::{Optim, Rule};
use crate::nn::{Parameter, Parameters};
use crate::sparse::Masks;
use qkernels::update::Updates;
use qtensor::{DType, Error, Result, Tensor};
use rules::Update;

/// An optimizer with the state of every parameter that it has updated so far.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    settings: Vec<Settings>,
    state: Vec<Option<State>>,
}

/// What holds for one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    lr: f64,
    weight_decay: f64,
}

/// What the rule remembers of one parameter; made at its first update.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Updates so far.
    pub(crate) steps: u64,
    /// Tensors of the parameter's shape, in the order of the rule's [slots](slots).
    pub(crate) slots: Vec<Tensor>,
}

impl Optimizer {
    /// An optimizer for these parameters, without state yet.
    ///
    /// A parameter takes its learning rate and decay from the first group whose pattern matches its name; without one, the second-order part of quadratic
    /// neurons has the share of the rate that the experiment gives it. Decay that no group
    /// gives is left out for norms and biases where the experiment spares them.
    pub fn new(config: &Optim, parameters: &Parameters) -> Self {
        let settings: Vec<Settings> = parameters
            .parameters()
            .iter()
            .enumerate()
            .map(|(index, p)| settings(config, p, parameters.is_quadratic(index)))
            .collect();
        let state = vec![None; settings.len()];
        Optimizer { rule: config.rule.clone(), settings, state }
    }

    /// Updates every parameter that has a gradient; `factor` multiplies all learning rates (see
    /// [`Schedule::factor`](crate::schedule::Schedule::factor)). Gradients are taken by position.
    ///
    /// # Errors
    /// The number of gradients, or a gradient's shape or element type, is not that of the parameters.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: Vec<Option<Tensor>>, factor: f64) -> Result<()> {
        if gradients.len() != self.settings.len() || parameters.parameters().len() != self.settings.len() {
            return Err(Error::argument(
                "optimizer",
                format!("{} gradients for {} parameters", gradients.len(), self.settings.len()),
            ));
        }
        let slots = slots(&self.rule).len();
        let same_type = |(parameter, gradient): (&Parameter, Option<Tensor>)| {
            gradient.map(|gradient| like(&parameter.value, gradient)).transpose()
        };
        let gradients = parameters.parameters().iter().zip(gradients).map(same_type).collect::<Result<Vec<_>>>()?;
        let all = parameters.values_mut().zip(&gradients).zip(&mut self.state).zip(&self.settings);
        let mut updates = Updates::new();
        for (((parameter, gradient), state), settings) in all {
            let Some(gradient) = gradient else { continue };
            let lr = settings.lr * factor;
            let weight_decay = settings.weight_decay;
            let state = state
                .get_or_insert_with(|| State { steps: 0, slots: (0..slots).map(|_| parameter.zeros_like()).collect() });
            rules::add(&mut updates, &self.rule, Update { parameter, gradient, state, lr, weight_decay })?;
        }
        updates.run();
        Ok(())
    }

    /// Tensors of the size of a parameter that are kept for each.
    pub fn slots(&self) -> usize {
        slots(&self.rule).len()
    }

    /// Sets to zero what is remembered of weights that masks take away, so that they neither move nor come back with an old momentum.
    ///
    /// # Errors
    /// The masks are those of another model.
    pub fn mask(&mut self, masks: &Masks) -> Result<()> {
        for (position, state) in self.state.iter_mut().enumerate() {
            state.iter_mut().flat_map(|state| &mut state.slots).try_for_each(|slot| masks.apply(position, slot))?;
        }
        Ok(())
    }

    /// The learning rate of each parameter before the schedule, by position.
    pub fn learning_rates(&self) -> impl Iterator<Item = f64> {
        self.settings.iter().map(|s| s.lr)
    }

    /// The state as named tensors for a checkpoint: `slot:parameter` for every slot, and the counter `step:parameter`.
    pub fn export(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (parameter, state) in parameters.parameters().iter().zip(&self.state) {
            let Some(state) = state else { continue };
            tensors.push((format!("step:{}", parameter.name), Tensor::scalar(state.steps as i64)));
            for (slot, value) in slots(&self.rule).iter().zip(&state.slots) {
                tensors.push((format!("{slot}:{}", parameter.name), value.clone()));
            }
        }
        tensors
    }

    /// Takes over a state that [`export`](Self::export) gave, so that the next step has the same bits.
    ///
    /// # Errors
    /// A name that is not of this optimizer and these parameters, a slot without its counter or the other way round, or a
    /// tensor of another shape or type. The optimizer is then unchanged.
    pub fn import<'a>(
        &mut self,
        parameters: &Parameters,
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<()> {
        let slots = slots(&self.rule);
        let mut found: Vec<(Option<u64>, Vec<Option<Tensor>>)> =
            vec![(None, vec![None; slots.len()]); self.settings.len()];
        for (name, value) in tensors {
            let unknown = || Error::argument("optimizer", format!("{name} is no state of this optimizer and model"));
            let (slot, parameter_name) = name.split_once(':').ok_or_else(unknown)?;
            let index = parameters.parameters().iter().position(|p| p.name == parameter_name).ok_or_else(unknown)?;
            let (steps, places) = found.get_mut(index).ok_or_else(unknown)?;
            if slot == "step" {
                *steps = Some(counter(name, value)?);
            } else {
                let place = slots.iter().position(|s| *s == slot).ok_or_else(unknown)?;
                places[place] = Some(like(&parameters.parameters()[index].value, value.clone())?);
            }
        }
        let mut states = Vec::with_capacity(found.len());
        for ((steps, places), parameter) in found.into_iter().zip(parameters.parameters()) {
            let given = places.iter().flatten().count();
            states.push(match steps {
                None if given == 0 => None,
                Some(steps) if given == slots.len() => {
                    Some(State { steps, slots: places.into_iter().flatten().collect() })
                }
                _ => {
                    let message = format!("the state of {} is not complete", parameter.name);
                    return Err(Error::argument("optimizer", message));
                }
            });
        }
        self.state = states;
        Ok(())
    }
}

fn settings(config: &Optim, parameter: &Parameter, quadratic: bool) -> Settings {
    let group = config.group_of(&parameter.name);
    let spared = !config.decay_norms_and_biases && !parameter.kind.is_weight();
    Settings {
        lr: group.and_then(|g| g.lr).unwrap_or(config.lr * if quadratic { config.quadratic_lr } else { 1.0 }),
        weight_decay: group.and_then(|g| g.weight_decay).unwrap_or(if spared { 0.0 } else { config.weight_decay }),
    }
}

/// Names of the tensors that a rule keeps for each parameter, as in PyTorch.
fn slots(rule: &Rule) -> &'static [&'static str] {
    match rule {
        Rule::Sgd(sgd) if sgd.momentum == 0.0 => &[],
        Rule::Sgd(_) => &["momentum_buffer"],
        Rule::Adam(_) | Rule::AdamW(_) => &["exp_avg", "exp_avg_sq"],
        Rule::Adadelta(_) => &["square_avg", "acc_delta"],
    }
}

fn counter(name: &str, value: &Tensor) -> Result<u64> {
    if value.dtype() != DType::I64 || value.numel() != 1 {
        return Err(Error::argument("optimizer", format!("{name} should be one i64, not {value:?}")));
    }
    u64::try_from(value.to_vec::<i64>()?[0])
        .map_err(|_| Error::argument("optimizer", format!("{name} counts fewer than no steps")))
}

/// `value` in the memory order of `parameter`, so that both are walked side by side.
fn like(parameter: &Tensor, value: Tensor) -> Result<Tensor> {
    if value.shape() != parameter.shape() || value.dtype() != parameter.dtype() {
        return Err(Error::shape("optimizer", format!("{value:?} does not fit the parameter {parameter:?}")));
    }
    if value.strides() == parameter.strides() {
        return Ok(value);
    }
    let mut ordered = parameter.empty_like();
    ordered.copy_from(&value)?;
    Ok(ordered)
}
