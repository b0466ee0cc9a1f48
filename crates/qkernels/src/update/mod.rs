//! Optimizer updates, each one pass over a parameter and its state. All formulas are those of PyTorch 2.

mod rules;

use crate::elementwise::operands::{aligned, dense, same};
use crate::elementwise::sweep::sweep;
use qtensor::{DType, Element, Error, Result, Tensor};
use rules::{Adadelta, Adam, Doubles, Lerp, Momentum, Plain, Rule, Vectorised};

/// Arguments of [`sgd_step`].
#[derive(Debug)]
pub struct SgdStep<'a> {
    /// Updated
    pub parameter: &'a mut Tensor,
    /// Gradient of the loss
    pub gradient: &'a Tensor,
    /// The velocity, updated; `None` where `momentum` is 0
    pub velocity: Option<&'a mut Tensor>,
    /// Whether this is the first step: the velocity starts as the gradient, without dampening, and its content is not read
    pub first: bool,
    /// Learning rate
    pub lr: f64,
    /// Share of the velocity that stays
    pub momentum: f64,
    /// Share of the gradient that does not enter the velocity
    pub dampening: f64,
    /// Nesterov's look-ahead
    pub nesterov: bool,
    /// Multiple of the parameter that is added to its gradient
    pub weight_decay: f64,
}

/// Arguments of [`adam_step`].
#[derive(Debug)]
pub struct AdamStep<'a> {
    /// Updated
    pub parameter: &'a mut Tensor,
    /// Gradient of the loss
    pub gradient: &'a Tensor,
    /// Running mean of the gradient, updated; zeros before the first step
    pub mean: &'a mut Tensor,
    /// Running mean of the squared gradient, updated; zeros before the first step
    pub square: &'a mut Tensor,
    /// Number of this step, from 1
    pub step: u64,
    /// Learning rate
    pub lr: f64,
    /// Decay of the two running means
    pub betas: [f64; 2],
    /// Added to the root of the second
    pub eps: f64,
    /// Weight decay
    pub weight_decay: f64,
    /// AdamW (arXiv:1711.05101): the decay shrinks the parameter directly instead of entering the gradient
    pub decoupled: bool,
}

/// Arguments of [`adadelta_step`].
#[derive(Debug)]
pub struct AdadeltaStep<'a> {
    /// Updated
    pub parameter: &'a mut Tensor,
    /// Gradient of the loss
    pub gradient: &'a Tensor,
    /// Running mean of the squared gradient, updated; zeros before the first step
    pub square: &'a mut Tensor,
    /// Running mean of the squared update, updated; zeros before the first step
    pub update: &'a mut Tensor,
    /// Learning rate
    pub lr: f64,
    /// Decay of the running means
    pub rho: f64,
    /// Added under the roots
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient
    pub weight_decay: f64,
}

/// Stochastic gradient descent: `g += decay · p; v = momentum · v + (1 - dampening) · g; p -= lr · (nesterov ? g + momentum · v : v)`,
/// and `p -= lr · g` without a velocity.
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn sgd_step(step: SgdStep) -> Result<()> {
    const OP: &str = "sgd_step";
    let SgdStep { parameter, gradient, velocity, first, lr, momentum, dampening, nesterov, weight_decay } = step;
    let Some(velocity) = velocity else {
        return run(OP, [gradient], [parameter], Plain { lr, weight_decay });
    };
    let (keep, take) = if first { (0.0, 1.0) } else { (momentum, 1.0 - dampening) };
    if first {
        // What it holds is not to be read: 0 times NaN would be NaN.
        *velocity = velocity.zeros_like();
    }
    if nesterov {
        run(OP, [gradient], [parameter, velocity], Momentum::<true> { lr, momentum, keep, take, weight_decay })
    } else {
        run(OP, [gradient], [parameter, velocity], Momentum::<false> { lr, momentum, keep, take, weight_decay })
    }
}

/// Adam (Kingma and Ba, 2015, arXiv:1412.6980) and AdamW.
///
/// # Errors
/// Step 0, shapes or types that differ, or a type other than f32 and f64.
pub fn adam_step(step: AdamStep) -> Result<()> {
    const OP: &str = "adam_step";
    let AdamStep { parameter, gradient, mean, square, step, lr, betas, eps, weight_decay, decoupled } = step;
    if step == 0 {
        return Err(Error::argument(OP, "steps are counted from 1"));
    }
    let correction = betas.map(|b| 1.0 - b.powf(step as f64));
    let rule = Adam {
        betas,
        size: lr / correction[0],
        root: correction[1].sqrt(),
        eps,
        coupled: if decoupled { 0.0 } else { weight_decay },
        shrink: if decoupled { 1.0 - lr * weight_decay } else { 1.0 },
    };
    run(OP, [gradient], [parameter, mean, square], rule)
}

/// Adadelta (Zeiler, 2012, arXiv:1212.5701).
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn adadelta_step(step: AdadeltaStep) -> Result<()> {
    let AdadeltaStep { parameter, gradient, square, update, lr, rho, eps, weight_decay } = step;
    run("adadelta_step", [gradient], [parameter, square, update], Adadelta { lr, rho, eps, weight_decay })
}

/// `a += weight · (b - a)`: the exponential moving average of weights, with `weight = 1 - decay`.
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn lerp(a: &mut Tensor, b: &Tensor, weight: f64) -> Result<()> {
    run("lerp", [b], [a], Lerp { weight })
}

fn run<R: Rule<W>, const W: usize>(
    op: &'static str,
    [gradient]: [&Tensor; 1],
    mut state: [&mut Tensor; W],
    rule: R,
) -> Result<()> {
    for t in &state {
        same(op, gradient, t)?;
    }
    let first = dense(state[0]);
    for t in &mut state {
        **t = aligned(t, &first)?;
    }
    let gradient = aligned(gradient, &first)?;
    drop(first);
    if gradient.dtype() == DType::F32 {
        let writes: [&mut [f32]; W] = memories(state)?;
        sweep(Vectorised(rule), [gradient.memory()?], [], writes);
        return Ok(());
    }
    let mut writes: [&mut [f64]; W] = memories(state)?;
    for (i, g) in gradient.memory::<f64>()?.iter().enumerate() {
        let mut values = [0.0; W];
        values.iter_mut().zip(&writes).for_each(|(v, w)| *v = w[i]);
        rule.apply(Doubles, *g, &mut values);
        writes.iter_mut().zip(values).for_each(|(w, v)| w[i] = v);
    }
    Ok(())
}

fn memories<T: Element, const W: usize>(state: [&mut Tensor; W]) -> Result<[&mut [T]; W]> {
    let mut slices = std::array::from_fn(|_| <&mut [T]>::default());
    for (slice, t) in slices.iter_mut().zip(state) {
        *slice = t.memory_mut()?;
    }
    Ok(slices)
}
