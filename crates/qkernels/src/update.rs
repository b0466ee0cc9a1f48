//! Optimizer updates, each one pass over a parameter and its state. All formulas are those of PyTorch 2.

use crate::elementwise::same;
use crate::naive;
use qtensor::{Result, Tensor};

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
    same(OP, step.parameter, step.gradient)?;
    let mut p = naive::values(OP, step.parameter)?;
    let mut g = naive::values(OP, step.gradient)?;
    g.iter_mut().zip(&p).for_each(|(g, p)| *g += step.weight_decay * p);
    if let Some(velocity) = step.velocity {
        same(OP, step.parameter, velocity)?;
        let mut v = naive::values(OP, velocity)?;
        for (v, g) in v.iter_mut().zip(&mut g) {
            *v = if step.first { *g } else { step.momentum * *v + (1.0 - step.dampening) * *g };
            *g = if step.nesterov { *g + step.momentum * *v } else { *v };
        }
        *velocity = naive::tensor_like(velocity, v)?;
    }
    p.iter_mut().zip(&g).for_each(|(p, g)| *p -= step.lr * g);
    *step.parameter = naive::tensor_like(step.parameter, p)?;
    Ok(())
}

/// Adam (Kingma and Ba, 2015, arXiv:1412.6980) and AdamW.
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn adam_step(step: AdamStep) -> Result<()> {
    const OP: &str = "adam_step";
    for t in [step.gradient, step.mean, step.square] {
        same(OP, step.parameter, t)?;
    }
    let [b1, b2] = step.betas;
    let exponent = step.step as f64;
    let (correction1, correction2) = (1.0 - b1.powf(exponent), (1.0 - b2.powf(exponent)).sqrt());
    let mut p = naive::values(OP, step.parameter)?;
    let g = naive::values(OP, step.gradient)?;
    let (mut m, mut s) = (naive::values(OP, step.mean)?, naive::values(OP, step.square)?);
    for i in 0..p.len() {
        let g = if step.decoupled {
            p[i] *= 1.0 - step.lr * step.weight_decay;
            g[i]
        } else {
            g[i] + step.weight_decay * p[i]
        };
        m[i] += (1.0 - b1) * (g - m[i]);
        s[i] = b2 * s[i] + (1.0 - b2) * g * g;
        p[i] -= step.lr / correction1 * m[i] / (s[i].sqrt() / correction2 + step.eps);
    }
    *step.mean = naive::tensor_like(step.mean, m)?;
    *step.square = naive::tensor_like(step.square, s)?;
    *step.parameter = naive::tensor_like(step.parameter, p)?;
    Ok(())
}

/// Adadelta (Zeiler, 2012, arXiv:1212.5701).
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn adadelta_step(step: AdadeltaStep) -> Result<()> {
    const OP: &str = "adadelta_step";
    for t in [step.gradient, step.square, step.update] {
        same(OP, step.parameter, t)?;
    }
    let mut p = naive::values(OP, step.parameter)?;
    let g = naive::values(OP, step.gradient)?;
    let (mut s, mut u) = (naive::values(OP, step.square)?, naive::values(OP, step.update)?);
    for i in 0..p.len() {
        let g = g[i] + step.weight_decay * p[i];
        s[i] = step.rho * s[i] + (1.0 - step.rho) * g * g;
        let delta = (u[i] + step.eps).sqrt() / (s[i] + step.eps).sqrt() * g;
        u[i] = step.rho * u[i] + (1.0 - step.rho) * delta * delta;
        p[i] -= step.lr * delta;
    }
    *step.square = naive::tensor_like(step.square, s)?;
    *step.update = naive::tensor_like(step.update, u)?;
    *step.parameter = naive::tensor_like(step.parameter, p)?;
    Ok(())
}

/// `a += weight · (b - a)`: the exponential moving average of weights, with `weight = 1 - decay`.
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn lerp(a: &mut Tensor, b: &Tensor, weight: f64) -> Result<()> {
    same("lerp", a, b)?;
    let b = naive::values("lerp", b)?;
    let mean = naive::values("lerp", a)?.into_iter().zip(b).map(|(a, b)| a + weight * (b - a)).collect();
    *a = naive::tensor_like(a, mean)?;
    Ok(())
}
