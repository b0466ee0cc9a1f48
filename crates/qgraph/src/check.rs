//! Gradient checks by random projection.
//!
//! The Jacobian `J` of `f` is compared with finite differences along random directions `u`, weighed with a random `v`: reverse
//! mode gives `vᵀJ`, whose product with `u` must equal `vᵀ(f(x + hu) − f(x − hu)) / 2h`. That takes a few evaluations whatever
//! the number of elements, and a wrong entry anywhere shows with probability 1.

use crate::random::{Purpose, Stream, StreamKey};
use crate::{Error, Gradients, Result, Tape, Var};
use qtensor::{DType, Tensor};

/// Settings of a check.
///
/// ```
/// use qgraph::{Tensor, check::GradientCheck};
/// let x = Tensor::from_vec([3], vec![0.5, -1.0, 2.0])?;
/// let checked = GradientCheck::default().run(&[x], |tape, x| tape.mul(&x[0], &x[0]))?;
/// assert!(checked.relative_error < 1e-6);
/// # Ok::<(), qgraph::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GradientCheck {
    /// Number of random directions.
    pub directions: usize,
    /// Step `h` of the central difference, whose error is of the order `h²`.
    pub step: f64,
    /// Seed of the directions.
    pub seed: u64,
}

impl Default for GradientCheck {
    fn default() -> Self {
        GradientCheck { directions: 3, step: 1e-5, seed: 0 }
    }
}

/// What a check has found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Checked {
    /// The worst difference between the two derivatives, relative to their size.
    pub relative_error: f64,
    /// The worst difference between a gradient computed alone (all other inputs constant) and together with the others, or
    /// between `f` of an input and of its copy with other strides, relative to their size.
    pub consistency_error: f64,
}

impl Checked {
    /// The larger of the two errors.
    pub fn worst(&self) -> f64 {
        worse(self.relative_error, self.consistency_error)
    }
}

impl GradientCheck {
    /// Checks the gradient of `f` at `inputs`. Float inputs become f64 and are differentiated, with the strides that they have;
    /// others, such as labels, stay as they are.
    ///
    /// # Errors
    /// `f` fails, or its output is not f64.
    pub fn run(&self, inputs: &[Tensor], f: impl Fn(&mut Tape, &[Var]) -> Result<Var>) -> Result<Checked> {
        let inputs: Vec<Tensor> = inputs.iter().map(in_f64).collect::<Result<_>>()?;
        let mut random = Stream::new(StreamKey { seed: self.seed, purpose: Purpose::Test, epoch: 0, index: 0 });
        let evaluate = |inputs: &[Tensor]| -> Result<Vec<f64>> {
            let constants: Vec<Var> = inputs.iter().map(|x| Var::constant(x.clone())).collect();
            values(f(&mut Tape::new(), &constants)?.value())
        };
        let base = evaluate(&inputs)?;
        let weights: Vec<f64> = base.iter().map(|_| f64::from(random.normal())).collect();
        let gradients = self.gradients(&inputs, &weights, |_| true, &f)?;
        let mut checked = Checked::default();

        for i in (0..inputs.len()).filter(|i| inputs[*i].dtype().is_float()) {
            let alone = self.gradients(&inputs, &weights, |j| j == i, &f)?;
            worsen(&mut checked.consistency_error, distance(&alone[i], &gradients[i]));
        }
        let restrided: Vec<Tensor> = inputs.iter().map(Tensor::contiguous).collect();
        worsen(&mut checked.consistency_error, distance(&evaluate(&restrided)?, &base));

        // A difference of two rounded values is no better than this, however small the derivative.
        let sizes: f64 = weights.iter().zip(&base).map(|(v, y)| (v * y).abs()).sum();
        let noise = 4.0 * f64::EPSILON * sizes / self.step;
        for _ in 0..self.directions {
            let directions: Vec<Vec<f64>> =
                inputs.iter().map(|x| (0..x.numel()).map(|_| f64::from(random.normal())).collect()).collect();
            let moved = |sign: f64| -> Result<Vec<f64>> {
                let step = sign * self.step;
                let inputs = inputs.iter().zip(&directions).map(|(x, u)| shifted(x, u, step));
                evaluate(&inputs.collect::<Result<Vec<_>>>()?)
            };
            let (plus, minus) = (moved(1.0)?, moved(-1.0)?);
            let slope: Vec<f64> = plus.iter().zip(&minus).map(|(p, m)| (p - m) / (2.0 * self.step)).collect();
            let numeric = dot(&weights, &slope);
            let analytic: f64 = gradients.iter().zip(&directions).map(|(g, u)| dot(g, u)).sum();
            // Where the terms cancel, the size of the sum says nothing about the accuracy to expect.
            let typical = 0.1 * (dot(&weights, &weights) * dot(&slope, &slope) / weights.len().max(1) as f64).sqrt();
            let scale = numeric.abs().max(analytic.abs()).max(typical).max(1e-6);
            worsen(&mut checked.relative_error, beyond(numeric - analytic, noise) / scale);
        }
        Ok(checked)
    }

    /// The gradient of each input in logical order; empty for those that are not floats, zeros where nothing arrived.
    fn gradients(
        &self,
        inputs: &[Tensor],
        weights: &[f64],
        wanted: impl Fn(usize) -> bool,
        f: impl Fn(&mut Tape, &[Var]) -> Result<Var>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut tape = Tape::new();
        let mut leaf = |(i, x): (usize, &Tensor)| {
            if x.dtype().is_float() && wanted(i) { tape.leaf(x.clone()) } else { Var::constant(x.clone()) }
        };
        let vars: Vec<Var> = inputs.iter().enumerate().map(&mut leaf).collect();
        let output = f(&mut tape, &vars)?;
        let dy = Tensor::from_slice(output.shape(), weights)?;
        let gradients = if output.needs_gradient() { Some(tape.backward_from(&output, dy)?) } else { None };
        let gradient = |(var, x): (&Var, &Tensor)| match gradients.as_ref().and_then(|g: &Gradients| g.get(var)) {
            Some(gradient) if gradient.shape() == x.shape() => values(gradient),
            Some(gradient) => Err(Error::gradient_shape("gradient_check", x.shape(), gradient.shape())),
            None if x.dtype().is_float() => Ok(vec![0.0; x.numel()]),
            None => Ok(Vec::new()),
        };
        vars.iter().zip(inputs).map(gradient).collect()
    }
}

/// A float tensor in f64 with the strides that it has, where it is f64 already; others unchanged.
fn in_f64(tensor: &Tensor) -> Result<Tensor> {
    Ok(if tensor.dtype().is_float() { tensor.to_dtype(DType::F64)? } else { tensor.clone() })
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_vec::<f64>()?)
}

/// `x + step · direction` in the memory order of `x` where that is dense.
fn shifted(x: &Tensor, direction: &[f64], step: f64) -> Result<Tensor> {
    if !x.dtype().is_float() {
        return Ok(x.clone());
    }
    let moved: Vec<f64> = values(x)?.iter().zip(direction).map(|(x, u)| x + step * u).collect();
    let mut out = x.empty_like();
    out.copy_from(&Tensor::from_vec(x.shape(), moved)?)?;
    Ok(out)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Largest difference relative to the largest magnitude.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let largest = a.iter().chain(b).fold(1e-6, |m: f64, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0, |m, (a, b)| worse(m, (a - b).abs() / largest))
}

/// How far a difference exceeds what rounding explains; NaN stays NaN.
fn beyond(difference: f64, noise: f64) -> f64 {
    if difference.abs() <= noise { 0.0 } else { difference.abs() - noise }
}

fn worsen(error: &mut f64, new: f64) {
    *error = worse(*error, new);
}

/// The larger one; NaN counts as the largest.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
