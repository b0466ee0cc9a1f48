use super::block::Block;
use super::{BLOCK, PANEL, Rounding, Rule};
use crate::{Gemm, par};
use qtensor::{DType, Error, Result, Tensor};

/// Where the recursion aims: `E w`, before the division.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The weights themselves: `E = I`.
    Weights,
    /// The lower triangle of this matrix `[N, N]`, f64, with its diagonal, times the weights.
    Lower(&'a Tensor),
    /// Given for each neuron and feature, `[neurons, N]`, f64.
    Given(&'a Tensor),
}

/// The recursion on matrices of `N` features.
#[derive(Clone, Copy, Debug)]
pub struct Recursion<'a> {
    /// `E` before the division.
    pub target: Target<'a>,
    /// `F` before the division, `[N, N]`, f64. A first pass reads what lies below the diagonal, a later one all but the diagonal. `None` for 0.
    pub feedback: Option<&'a Tensor>,
    /// What both are divided by, one a feature; `None` for 1.
    pub divisors: Option<&'a [f64]>,
    /// What happens at features without data.
    pub rule: Rule,
}

impl Recursion<'_> {
    /// The characters for weights `[neurons, N]`, f32 or f64, as f32 of that shape.
    ///
    /// # Errors
    /// Shapes or element types that do not fit, or values that are not finite.
    pub fn quantize(&self, weights: &Tensor, rounding: &Rounding) -> Result<Tensor> {
        self.run(weights, None, rounding)
    }

    /// A later pass, which chooses every character anew beside all others as they are: a sweep of coordinate descent where `F` and the divisors are `H` and its diagonal, and
    /// the target is `C w`. `start` has the characters so far, f32 `[neurons, N]`.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    pub fn sweep(&self, weights: &Tensor, start: &Tensor, rounding: &Rounding) -> Result<Tensor> {
        self.run(weights, Some(start), rounding)
    }

    fn run(&self, weights: &Tensor, start: Option<&Tensor>, rounding: &Rounding) -> Result<Tensor> {
        let [neurons, features] = self.check(weights, start)?;
        rounding.grid.check(neurons)?;
        let mut out = Tensor::empty([neurons, features], DType::F32)?;
        if out.numel() == 0 {
            return Ok(out);
        }
        let weights = weights.to_dtype(DType::F64)?;
        let start = start.map(|start| start.to_dtype(DType::F64)).transpose()?;
        let results = par::map_chunks(out.memory_mut::<f32>()?, PANEL * features, |i, out| {
            let range = i * PANEL..((i + 1) * PANEL).min(neurons);
            let of = |x: &Tensor| Ok::<_, Error>(x.slice(0, range.clone())?.t()?.contiguous());
            let panel = Panel {
                recursion: self,
                neuron: range.start,
                weights: of(&weights)?,
                target: if let Target::Given(target) = self.target { Some(of(target)?) } else { None },
                q: match &start {
                    Some(start) => of(start)?,
                    None => Tensor::zeros([features, range.len()], DType::F64)?,
                },
                is_later_pass: start.is_some(),
            };
            panel.run(rounding, out)
        });
        results.into_iter().collect::<Result<()>>()?;
        Ok(out)
    }

    fn check(&self, weights: &Tensor, start: Option<&Tensor>) -> Result<[usize; 2]> {
        let &[neurons, features] = &weights.shape()[..] else {
            return Err(Error::shape(
                "feedback",
                format!("weights must be [neurons, features], found {}", weights.shape()),
            ));
        };
        if !weights.dtype().is_float() {
            return Err(Error::DType { op: "feedback", expected: DType::F32, found: weights.dtype() });
        }
        let square = |name: &str, matrix: &Tensor| fits(name, matrix, [features, features], DType::F64);
        match self.target {
            Target::Weights => {}
            Target::Lower(matrix) => square("the target's matrix", matrix)?,
            Target::Given(target) => fits("the target", target, [neurons, features], DType::F64)?,
        }
        if let Some(feedback) = self.feedback {
            square("the feedback", feedback)?;
        }
        if let Some(start) = start {
            fits("the start", start, [neurons, features], DType::F32)?;
        }
        if let Some(divisors) = self.divisors {
            if divisors.len() != features {
                let message = format!("{} divisors for {features} features", divisors.len());
                return Err(Error::argument("feedback", message));
            }
            if let Some(t) = divisors.iter().position(|d| !d.is_finite()) {
                let message = format!("the data of feature {t} are infinite or not numbers");
                return Err(Error::argument("feedback", message));
            }
        }
        Ok([neurons, features])
    }
}

pub(super) fn fits(name: &str, x: &Tensor, shape: [usize; 2], dtype: DType) -> Result<()> {
    if x.dtype() != dtype {
        return Err(Error::DType { op: "feedback", expected: dtype, found: x.dtype() });
    }
    if *x.shape() != shape {
        return Err(Error::shape("feedback", format!("{name} must be {shape:?}, found {}", x.shape())));
    }
    Ok(())
}

/// Neurons that one task takes through all features.
struct Panel<'a> {
    recursion: &'a Recursion<'a>,
    /// Number of the first neuron.
    neuron: usize,
    /// `[features, neurons]`.
    weights: Tensor,
    /// The same, where it is given.
    target: Option<Tensor>,
    /// The same: characters.
    q: Tensor,
    is_later_pass: bool,
}

impl Panel<'_> {
    /// Writes the characters to `out`, `[neurons, features]`.
    fn run(mut self, rounding: &Rounding, out: &mut [f32]) -> Result<()> {
        let [features, neurons] = [self.weights.shape()[0], self.weights.shape()[1]];
        for start in (0..features).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(features);
            let mut s = self.arguments(rows.clone())?;
            let within = |matrix: &Tensor| matrix.slice(0, rows.clone())?.slice(1, rows.clone())?.to_vec::<f64>();
            let own = match self.recursion.target {
                Target::Lower(matrix) => {
                    Some(rows.clone().map(|t| matrix.get::<f64>(&[t, t])).collect::<Result<Vec<_>>>()?)
                }
                _ => None,
            };
            let feedback = self.recursion.feedback.map(within).transpose()?;
            let block = Block {
                feature: start,
                neuron: self.neuron,
                features: rows.len(),
                neurons,
                feedback: feedback.as_deref(),
                divisors: self.recursion.divisors.map(|divisors| &divisors[rows.clone()]),
                own: own.as_deref(),
                rule: self.recursion.rule,
            };
            let here = rows.start * neurons..rows.end * neurons;
            let weights = &self.weights.memory::<f64>()?[here.clone()];
            let q = &mut self.q.memory_mut::<f64>()?[here];
            block.run(s.memory_mut()?, weights, q, rounding, self.is_later_pass);
        }
        let q = self.q.memory::<f64>()?;
        for (j, row) in out.chunks_exact_mut(features).enumerate() {
            row.iter_mut().enumerate().for_each(|(t, out)| *out = q[t * neurons + j] as f32);
        }
        Ok(())
    }

    /// `E w` less what the characters outside of the block say, `[rows, neurons]`.
    fn arguments(&self, rows: std::ops::Range<usize>) -> Result<Tensor> {
        let features = self.weights.shape()[0];
        let mut s = match (&self.target, self.recursion.target) {
            (Some(target), _) => target.slice(0, rows.clone())?.copy(),
            (None, Target::Lower(matrix)) => {
                let mut s = lower_product(matrix, &self.weights, rows.clone())?;
                let before = matrix.slice(0, rows.clone())?.slice(1, 0..rows.start)?;
                accumulate(&mut s, 1.0, &before, &self.weights.slice(0, 0..rows.start)?)?;
                s
            }
            (None, _) => self.weights.slice(0, rows.clone())?.copy(),
        };
        if let Some(feedback) = self.recursion.feedback {
            let feedback = feedback.slice(0, rows.clone())?;
            accumulate(&mut s, -1.0, &feedback.slice(1, 0..rows.start)?, &self.q.slice(0, 0..rows.start)?)?;
            if self.is_later_pass {
                let after = rows.end..features;
                accumulate(&mut s, -1.0, &feedback.slice(1, after.clone())?, &self.q.slice(0, after)?)?;
            }
        }
        Ok(s)
    }
}

/// The product of the lower triangle of the rows' own square with their weights.
fn lower_product(matrix: &Tensor, weights: &Tensor, rows: std::ops::Range<usize>) -> Result<Tensor> {
    let mut triangle = matrix.slice(0, rows.clone())?.slice(1, rows.clone())?.copy();
    keep_lower(&mut triangle)?;
    Gemm::new(&triangle, &weights.slice(0, rows)?).run()
}

/// Sets what lies above the diagonal to 0.
pub(super) fn keep_lower(square: &mut Tensor) -> Result<()> {
    let size = square.shape()[0];
    if square.dtype() == DType::F32 {
        let rows = square.memory_mut::<f32>()?.chunks_exact_mut(size.max(1));
        rows.enumerate().for_each(|(t, row)| row[t + 1..].fill(0.0));
    } else {
        let rows = square.memory_mut::<f64>()?.chunks_exact_mut(size.max(1));
        rows.enumerate().for_each(|(t, row)| row[t + 1..].fill(0.0));
    }
    Ok(())
}

/// `s += factor · a b`
pub(super) fn accumulate(s: &mut Tensor, factor: f64, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.numel() == 0 || b.numel() == 0 {
        return Ok(());
    }
    Gemm { alpha: factor, beta: 1.0, ..Gemm::new(a, b) }.run_into(s)
}
