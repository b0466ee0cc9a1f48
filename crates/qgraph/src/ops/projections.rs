//! The linear maps of a quadratic neuron: several of one input, of its square, or of all products of two of its values.

use super::bilinear::{bilinear, bilinear_grad};
use super::linear::{bias_gradient, weight_gradient};
use crate::half::fitting;
use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp};
use qkernels::conv::{
    Projection, conv2d_stacked_input_grad, conv2d_stacked_joined, conv2d_stacked_measured, conv2d_stacked_weight_grad,
};
use qkernels::elementwise::{BinaryOp, UnaryOp, add_assign, binary, scale, unary};
use qkernels::norm::Moments;
use qkernels::{Activation, Conv2dParams, Gemm, matmul};
use qtensor::{Shape, Tensor};

/// What a projection is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sees {
    /// `x`
    Input,
    /// `x²`, element by element
    Square,
    /// All products of two values that a filter sees, `p_i · p_j` with `i ≤ j`: its weights are the upper triangle of a quadratic form, row by row.
    Pairs,
}

/// The kind of the maps.
#[derive(Clone, Copy, Debug)]
pub enum LinearMap {
    /// Of `[N, in]`, with weights `[out, in]`; `[out, in (in + 1) / 2]` for pairs.
    Dense,
    /// Of `[N, C, H, W]`, with filters `[O, C / groups, kh, kw]`; `[O, n (n + 1) / 2]` for pairs, of which a filter sees `n = C / groups · kh · kw` values.
    Conv2d {
        /// Stride, padding, dilation and groups.
        params: Conv2dParams,
        /// Height and width of the filters.
        kernel: [usize; 2],
    },
}

/// Linear maps of `x` that share their work. The inputs are `x`, then the weights of each, then, where there are biases, the biases `[out]` of each. The
/// output `[maps · N, …]` holds all images of the first map, then those of the second, and so on: a [slice](Tape::slice) of the first axis is a view without
/// gaps. Keeps `x` and the weights where the gradient needs them.
#[derive(Clone, Debug)]
pub struct Projections {
    /// The kind of all of them.
    pub map: LinearMap,
    /// What each sees; those of one kind follow each other.
    pub sees: Vec<Sees>,
    /// Whether each has a bias.
    pub bias: bool,
    /// Whether the output may be computed again, by the same products, for an op behind that would otherwise keep it.
    pub again: bool,
    /// Whether means and variances of the results are taken while they are written, for a batch normalisation that follows.
    pub measures: bool,
}

impl Projections {
    /// Maps of `x` itself, with filters of that size.
    pub fn conv2d(params: Conv2dParams, kernel: [usize; 2], count: usize, bias: bool) -> Self {
        Projections {
            map: LinearMap::Conv2d { params, kernel },
            sees: vec![Sees::Input; count],
            bias,
            again: false,
            measures: false,
        }
    }

    fn count(&self) -> usize {
        self.sees.len()
    }

    /// Each kind with its maps.
    fn groups(&self) -> impl Iterator<Item = (Sees, std::ops::Range<usize>)> {
        [Sees::Input, Sees::Square, Sees::Pairs].into_iter().filter_map(|kind| {
            let first = self.sees.iter().position(|sees| *sees == kind)?;
            let length = self.sees[first..].iter().take_while(|sees| **sees == kind).count();
            Some((kind, first..first + length))
        })
    }

    /// All outputs, joined.
    fn compute(&self, x: &Tensor, weights: &[&Tensor], biases: &[&Tensor]) -> Result<(Tensor, Option<Moments>)> {
        let mut parts = Vec::new();
        let mut moments = Vec::new();
        for (kind, range) in self.groups() {
            let bias = |i: usize| biases.get(i).copied();
            if kind == Sees::Pairs {
                for i in range {
                    parts.push(bilinear(&self.map, x, weights[i], bias(i))?);
                }
                continue;
            }
            let seen = if kind == Sees::Square { unary(UnaryOp::Square, x)? } else { x.clone() };
            parts.push(match self.map {
                LinearMap::Conv2d { params, .. } => {
                    let stack: Vec<_> = range.map(|i| Projection { w: weights[i], bias: bias(i) }).collect();
                    if self.measures {
                        let (joined, of_joined) = conv2d_stacked_measured(&seen, &stack, &params, Activation::None)?;
                        moments.extend(of_joined);
                        joined
                    } else {
                        conv2d_stacked_joined(&seen, &stack, &params, Activation::None)?
                    }
                }
                LinearMap::Dense => {
                    let each = range.map(|i| {
                        let w = fitting(weights[i].clone(), seen.dtype())?;
                        Ok(Gemm { bias: bias(i), ..Gemm::new(&seen, &w.t()?) }.run()?)
                    });
                    concatenated(each.collect::<Result<_>>()?)?
                }
            });
        }
        // Where only some of the maps have told theirs, the rest would cost what all do.
        let is_complete = moments.len() == parts.len();
        Ok((concatenated(parts)?, Moments::joined(moments).filter(|_| is_complete)))
    }

    /// The gradients of `x` and of the weights of some maps of one kind.
    fn gradients(&self, kind: Sees, part: Part<'_>) -> Result<(Option<Tensor>, Vec<Tensor>)> {
        let Part { x, weights, dys, x_shape, w_shapes } = part;
        let seen = match (kind, x) {
            (Sees::Square, Some(x)) => Some(unary(UnaryOp::Square, x)?),
            (_, x) => x.cloned(),
        };
        let wants_weights = w_shapes.iter().any(Option::is_some);
        let seen = seen.filter(|_| wants_weights);
        let wanted: Vec<&Tensor> = dys.iter().zip(w_shapes).filter_map(|(dy, shape)| shape.map(|_| dy)).collect();
        let (dx, dws) = match self.map {
            LinearMap::Conv2d { params, .. } => {
                let shape = w_shapes.iter().flatten().next();
                let dws = match (seen, shape) {
                    (Some(x), Some(shape)) => conv2d_stacked_weight_grad(&x, &wanted, shape, &params)?,
                    _ => Vec::new(),
                };
                let outputs: Vec<_> = dys.iter().zip(weights).collect();
                let dx = (!weights.is_empty()).then(|| conv2d_stacked_input_grad(&outputs, x_shape, &params));
                (dx.transpose()?, dws)
            }
            LinearMap::Dense => {
                let dws = match seen {
                    Some(x) => wanted.into_iter().map(|dy| weight_gradient(&x, dy)).collect::<Result<_>>()?,
                    None => Vec::new(),
                };
                let each = dys.iter().zip(weights).map(|(dy, w)| Ok(matmul(dy, &fitting(w.clone(), dy.dtype())?)?));
                (sum(each)?, dws)
            }
        };
        match (kind, dx, x) {
            (Sees::Square, Some(dx), Some(x)) => Ok((Some(binary(BinaryOp::Mul, &scale(&dx, 2.0)?, x)?), dws)),
            (_, dx, _) => Ok((dx, dws)),
        }
    }

    /// Whether the gradient of `x` is written in `x` itself.
    fn is_quadratic(&self) -> bool {
        self.sees.iter().any(|sees| *sees != Sees::Input)
    }
}

/// What the gradients of some maps need.
struct Part<'a> {
    x: Option<&'a Tensor>,
    /// Empty where the gradient of `x` is not wanted.
    weights: &'a [Tensor],
    dys: &'a [Tensor],
    x_shape: &'a Shape,
    /// Of the weights whose gradients are wanted.
    w_shapes: &'a [Option<&'a Shape>],
}

fn concatenated(mut parts: Vec<Tensor>) -> Result<Tensor> {
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    Ok(Tensor::concatenate(&parts, 0)?)
}

fn sum(terms: impl Iterator<Item = Result<Tensor>>) -> Result<Option<Tensor>> {
    let mut total: Option<Tensor> = None;
    for term in terms {
        match &mut total {
            Some(total) => add_assign(total, &term?)?,
            None => total = Some(term?),
        }
    }
    Ok(total)
}

impl Vjp for Projections {
    fn name(&self) -> &'static str {
        "projections"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        let weights = 1..=self.count();
        let needs_weights = record.needs[weights.clone()].contains(&true);
        if needs_weights || self.again || (record.needs[0] && self.is_quadratic()) {
            saved.keep_input(record, 0);
        }
        if record.needs[0] || self.again {
            weights.clone().for_each(|i| saved.keep(&record.inputs[i]));
        }
        if self.again {
            record.inputs[self.count() + 1..].iter().for_each(|bias| saved.keep(bias));
        }
        saved.keep_shape(&record.inputs[0]);
        weights.for_each(|i| saved.keep_shape(&record.inputs[i]));
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let count = self.count();
        let needs_weights = needs[1..=count].contains(&true);
        let x = saved.take_if(needs_weights || self.again || (needs[0] && self.is_quadratic()))?;
        let mut weights: Vec<Tensor> =
            if needs[0] || self.again { (0..count).map(|_| saved.take()).collect::<Result<_>>()? } else { Vec::new() };
        if !needs[0] {
            weights.clear();
        }
        let x_shape = saved.take_shape()?;
        let w_shapes: Vec<Shape> = (0..count).map(|_| saved.take_shape()).collect::<Result<_>>()?;
        let images = dy.shape()[0] / count;
        let parts = (0..count).map(|i| Ok(dy.slice(0, i * images..(i + 1) * images)?));
        let parts: Vec<Tensor> = parts.collect::<Result<_>>()?;
        drop(dy);
        let mut gradients = vec![None; needs.len()];
        for (kind, range) in self.groups() {
            if !needs[0] && !needs[1 + range.start..1 + range.end].contains(&true) {
                continue;
            }
            let (dx, dws) = if kind == Sees::Pairs {
                let x = x.as_ref().ok_or_else(|| Error::argument(self.name(), "x was not kept"))?;
                let each = range.clone().map(|i| {
                    let wanted = [needs[0], needs[1 + i]];
                    bilinear_grad(&self.map, x, weights.get(i), &parts[i], wanted)
                });
                let each: Vec<_> = each.collect::<Result<_>>()?;
                let (dxs, dws): (Vec<_>, Vec<_>) = each.into_iter().unzip();
                (sum(dxs.into_iter().flatten().map(Ok))?, dws.into_iter().flatten().collect())
            } else {
                let shapes: Vec<_> = range.clone().map(|i| needs[1 + i].then_some(&w_shapes[i])).collect();
                let part = Part {
                    x: x.as_ref(),
                    weights: weights.get(range.clone()).unwrap_or(&[]),
                    dys: &parts[range.clone()],
                    x_shape: &x_shape,
                    w_shapes: &shapes,
                };
                self.gradients(kind, part)?
            };
            let mut dws = dws.into_iter();
            for i in range.filter(|i| needs[1 + i]) {
                gradients[1 + i] = dws.next();
            }
            gradients[0] = sum(gradients[0].take().into_iter().chain(dx).map(Ok))?;
        }
        for (i, part) in parts.iter().enumerate() {
            let place = 1 + count + i;
            if needs.get(place) == Some(&true) {
                let axes: Vec<usize> = (0..part.rank()).filter(|axis| *axis != 1).collect();
                gradients[place] = Some(bias_gradient(part, &axes)?);
            }
        }
        Ok(gradients)
    }

    fn restores(&self, _: usize) -> bool {
        self.again
    }

    fn restore(&self, saved: &Saved) -> Result<Tensor> {
        let kept: Vec<&Tensor> = saved.iter().collect();
        let (x, rest) = kept.split_first().ok_or_else(|| Error::argument(self.name(), "nothing was kept"))?;
        let (weights, biases) = rest.split_at(self.count().min(rest.len()));
        Ok(Projections { measures: false, ..self.clone() }.compute(x, weights, biases)?.0)
    }
}

impl Op for Projections {
    fn on_half(&self) -> OnHalf {
        if self.is_quadratic() { OnHalf::Round } else { OnHalf::Native }
    }

    fn forward(&self, inputs: &[Tensor], context: &mut Context) -> Result<Tensor> {
        let count = self.count();
        let expected = 1 + count * if self.bias { 2 } else { 1 };
        if inputs.len() != expected || count == 0 {
            let message = format!("{count} maps take {expected} inputs, found {}", inputs.len());
            return Err(Error::argument(self.name(), message));
        }
        if self.groups().map(|(_, range)| range.len()).sum::<usize>() != count {
            return Err(Error::argument(self.name(), "maps that see the same must follow each other"));
        }
        if matches!(self.map, LinearMap::Dense) && inputs[..=count].iter().any(|t| t.rank() != 2) {
            let message = format!("x {} and the weights must be [N, in] and [out, in]", inputs[0].shape());
            return Err(Error::shape(self.name(), message));
        }
        let all: Vec<&Tensor> = inputs.iter().collect();
        let (z, moments) = self.compute(all[0], &all[1..=count], &all[1 + count..])?;
        context.measured(moments);
        Ok(z)
    }

    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        let all: usize = inputs[1..=self.count()].iter().map(|w| w.numel() / w.shape()[0].max(1)).sum();
        (output.numel() / self.count() * all) as u64
    }
}

impl Tape {
    /// The maps of `x` by each of `weights`, plus `biases`, none or one for each: see [`Projections`] for the output.
    ///
    /// # Errors
    /// No weights, or weights of different shapes where they see the same; some biases missing; else as [`conv2d`](Self::conv2d) and [`linear`](Self::linear).
    pub fn projections(&mut self, op: Projections, x: &Var, weights: &[&Var], biases: &[&Var]) -> Result<Var> {
        let inputs: Vec<&Var> =
            std::iter::once(x).chain(weights.iter().copied()).chain(biases.iter().copied()).collect();
        self.apply(op, &inputs)
    }
}
