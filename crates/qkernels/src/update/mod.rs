//! Optimizer updates: [`Updates`] of all parameters in one pass over them and their state. All formulas are those of PyTorch 2.

mod batch;
mod rules;

pub use batch::Updates;
use qtensor::{Error, Result, Tensor};
use rules::{Adadelta, Adam, Lerp, Momentum, Plain};

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

impl<'a> Updates<'a> {
    /// Stochastic gradient descent: `g += decay · p; v = momentum · v + (1 - dampening) · g; p -= lr · (nesterov ? g + momentum · v : v)`,
    /// and `p -= lr · g` without a velocity.
    ///
    /// # Errors
    /// Shapes or types differ, or a type other than f32 and f64.
    pub fn sgd(&mut self, step: SgdStep<'a>) -> Result<()> {
        const OP: &str = "sgd_step";
        let SgdStep { parameter, gradient, velocity, first, lr, momentum, dampening, nesterov, weight_decay } = step;
        let Some(velocity) = velocity else {
            return self.add(OP, gradient, [parameter], Plain { lr, weight_decay });
        };
        let (keep, take) = if first { (0.0, 1.0) } else { (momentum, 1.0 - dampening) };
        if first {
            // What it holds is not to be read: 0 times NaN would be NaN.
            *velocity = velocity.zeros_like();
        }
        let state = [parameter, velocity];
        if nesterov {
            self.add(OP, gradient, state, Momentum::<true> { lr, momentum, keep, take, weight_decay })
        } else {
            self.add(OP, gradient, state, Momentum::<false> { lr, momentum, keep, take, weight_decay })
        }
    }

    /// Adam (Kingma and Ba, 2015, arXiv:1412.6980) and AdamW.
    ///
    /// # Errors
    /// Step 0, shapes or types that differ, or a type other than f32 and f64.
    pub fn adam(&mut self, step: AdamStep<'a>) -> Result<()> {
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
        self.add(OP, gradient, [parameter, mean, square], rule)
    }

    /// Adadelta (Zeiler, 2012, arXiv:1212.5701).
    ///
    /// # Errors
    /// Shapes or types differ, or a type other than f32 and f64.
    pub fn adadelta(&mut self, step: AdadeltaStep<'a>) -> Result<()> {
        let AdadeltaStep { parameter, gradient, square, update, lr, rho, eps, weight_decay } = step;
        self.add("adadelta_step", gradient, [parameter, square, update], Adadelta { lr, rho, eps, weight_decay })
    }

    /// `a += weight · (b - a)`: the exponential moving average of weights, with `weight = 1 - decay`.
    ///
    /// # Errors
    /// Shapes or types differ, or a type other than f32 and f64.
    pub fn lerp(&mut self, a: &'a mut Tensor, b: &Tensor, weight: f64) -> Result<()> {
        self.add("lerp", b, [a], Lerp { weight })
    }
}

/// [`Updates::sgd`] of one parameter.
///
/// # Errors
/// As there.
pub fn sgd_step(step: SgdStep) -> Result<()> {
    at_once(|updates| updates.sgd(step))
}

/// [`Updates::adam`] of one parameter.
///
/// # Errors
/// As there.
pub fn adam_step(step: AdamStep) -> Result<()> {
    at_once(|updates| updates.adam(step))
}

/// [`Updates::adadelta`] of one parameter.
///
/// # Errors
/// As there.
pub fn adadelta_step(step: AdadeltaStep) -> Result<()> {
    at_once(|updates| updates.adadelta(step))
}

/// [`Updates::lerp`] of one tensor.
///
/// # Errors
/// As there.
pub fn lerp(a: &mut Tensor, b: &Tensor, weight: f64) -> Result<()> {
    at_once(|updates| updates.lerp(a, b, weight))
}

fn at_once<'a>(add: impl FnOnce(&mut Updates<'a>) -> Result<()>) -> Result<()> {
    let mut updates = Updates::new();
    add(&mut updates)?;
    updates.run();
    Ok(())
}
