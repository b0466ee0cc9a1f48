//! Projections that are batch-normalised before they are combined: one pass for the statistics and one for the result, two passes back.
//!
//! With `h_i = (z_i - mean_i) · inv_std_i` and `n_i = gamma_i · h_i + beta_i` the result is `rule(n)`. Its gradient needs `z` and the statistics only:
//! `dz_i = gamma_i · inv_std_i · (dn_i - mean(dn_i) - h_i · mean(dn_i · h_i))`, where `dn_i = dy · ∂rule/∂n_i`.

use super::plain::parts_mut;
use super::rule::{Combine, Rule, with_rule};
use super::{part_shape, place, rows};
use crate::conv::measure::pixels;
use crate::elementwise::operands::aligned;
use crate::elementwise::sweep::{Sweep, sweep, sweep_then};
use crate::isa::Isa;
use crate::naive::{self, norm::Extent};
use crate::norm::Moments;
use crate::reduce::columns::{Columns, columns};
use crate::{Activation, norm};
use qtensor::{DType, Error, Result, Tensor};

/// Arguments of [`combine_normalised`].
#[derive(Clone, Copy, Debug)]
pub struct Normalised<'a> {
    /// How the normalised projections are combined
    pub rule: Rule,
    /// Joined projections, `[parts · N, C]` or `[parts · N, C, H, W]`
    pub z: &'a Tensor,
    /// Scale of each projection, `[parts, C]`
    pub gamma: &'a Tensor,
    /// Shift of each projection, `[parts, C]`
    pub beta: &'a Tensor,
    /// Added to the variance
    pub eps: f64,
    /// Statistics of `z` that the kernel took that wrote it; else they cost a pass
    pub moments: Option<&'a Moments>,
}

/// Result of [`combine_normalised`].
#[derive(Clone, Debug)]
pub struct NormalisedOutput {
    /// The combined projections, `[N, …]`
    pub y: Tensor,
    /// Mean of each channel of each projection, `[parts, C]`
    pub mean: Tensor,
    /// Biased variance, `[parts, C]`
    pub var: Tensor,
    /// `1 / √(var + eps)`, `[parts, C]`
    pub inv_std: Tensor,
    /// Statistics of `y`, for a batch normalisation that follows; not of f64
    pub moments: Option<Moments>,
}

/// Arguments of [`combine_normalised_grad`].
#[derive(Debug)]
pub struct NormalisedGrad<'a> {
    /// Rule of the forward pass
    pub rule: Rule,
    /// Joined projections of the forward pass; where this is the only handle on its buffer, the gradient is written over it
    pub z: Tensor,
    /// Gradient of the result
    pub dy: &'a Tensor,
    /// Scale, `[parts, C]`
    pub gamma: &'a Tensor,
    /// Shift, `[parts, C]`
    pub beta: &'a Tensor,
    /// Mean that the forward pass returned
    pub mean: &'a Tensor,
    /// `inv_std` that the forward pass returned
    pub inv_std: &'a Tensor,
    /// Whether `z` holds what [`normalise`] made of the projections
    pub is_normalised: bool,
}

/// Result of [`combine_normalised_grad`].
#[derive(Clone, Debug)]
pub struct NormalisedGradients {
    /// Gradient of the joined projections
    pub dz: Tensor,
    /// Gradient of the scales, `[parts, C]`
    pub dgamma: Tensor,
    /// Gradient of the shifts, `[parts, C]`
    pub dbeta: Tensor,
}

/// `(z - mean) · inv_std` of each channel of each projection.
///
/// # Errors
/// As [`combine_normalised`].
pub fn normalise(rule: Rule, z: &Tensor, [mean, inv_std]: [&Tensor; 2]) -> Result<Tensor> {
    const OP: &str = "normalise";
    let images = part_shape(OP, z, rule)?[0];
    let one = Tensor::scalar(1.0f64).to_dtype(mean.dtype())?.expand([mean.shape()[1]])?.contiguous();
    let zero = one.zeros_like();
    let parts = (0..rule.parts()).map(|part| {
        let statistics = [mean.select(0, part)?, inv_std.select(0, part)?];
        let values = z.slice(0, part * images..(part + 1) * images)?;
        norm::batch_norm_again(&values, [&one, &zero], [&statistics[0], &statistics[1]], Activation::None)
    });
    rows(&Tensor::concatenate(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

/// Numbers by part and channel, in f64.
struct ByChannel {
    parts: usize,
    channels: usize,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    inv_std: Vec<f64>,
    /// `h = (z - center) · factor` of the values at hand: the statistics, or 0 and 1 where they are normalised already.
    center: Vec<f64>,
    factor: Vec<f64>,
}

impl ByChannel {
    fn new(op: &'static str, z: &Tensor, rule: Rule, [gamma, beta, mean, inv_std]: [&Tensor; 4]) -> Result<Self> {
        let (parts, channels) = (rule.parts(), extent(op, z)?.channels);
        for t in [gamma, beta, mean, inv_std] {
            if t.shape().dims() != [parts, channels] || t.dtype() != z.dtype() {
                let message = format!("{t:?} for {parts} projections of {channels} channels in {}", z.dtype());
                return Err(Error::shape(op, message));
            }
        }
        let [gamma, beta, mean, inv_std] = [gamma, beta, mean, inv_std].map(|t| naive::values(op, t));
        let (center, inv_std) = (mean?, inv_std?);
        let factor = inv_std.clone();
        Ok(ByChannel { parts, channels, gamma: gamma?, beta: beta?, inv_std, center, factor })
    }

    /// For values that [`normalise`] gave.
    fn of_normalised(self) -> Self {
        let all = self.gamma.len();
        ByChannel { center: vec![0.0; all], factor: vec![1.0; all], ..self }
    }

    /// `n = z · scale + shift`: the scales of all parts, then the shifts.
    fn affine(&self) -> [Vec<f64>; 2] {
        let scale: Vec<f64> = self.gamma.iter().zip(&self.factor).map(|(g, s)| g * s).collect();
        let shift = (0..scale.len()).map(|i| self.beta[i] - self.center[i] * scale[i]).collect();
        [scale, shift]
    }

    /// `∂n/∂z` for the projections themselves.
    fn slope(&self) -> Vec<f64> {
        self.gamma.iter().zip(&self.inv_std).map(|(g, s)| g * s).collect()
    }

    /// One vector of f32 for each part.
    fn single(&self, values: &[f64]) -> Vec<Vec<f32>> {
        values.chunks(self.channels.max(1)).map(|part| part.iter().map(|v| *v as f32).collect()).collect()
    }
}

/// Combines the projections, each normalised with the mean and the biased variance of the batch.
///
/// # Errors
/// `z` is neither `[parts · N, C]` nor `[parts · N, C, H, W]` or has no value to average, shapes or types that do not fit, or a type other than f32 and f64.
pub fn combine_normalised(arguments: Normalised) -> Result<NormalisedOutput> {
    const OP: &str = "combine_normalised";
    let Normalised { rule, z, gamma, beta, eps, moments } = arguments;
    let shape = part_shape(OP, z, rule)?;
    let extent = extent(OP, z)?;
    if extent.count() == 0 {
        return Err(Error::shape(OP, format!("input of shape {} has no values to average", z.shape())));
    }
    let (mean, var) = match moments {
        Some(moments) => moments.of(OP, [rule.parts() * extent.channels, extent.count() / rule.parts()])?,
        None => {
            let values = |part: usize| z.slice(0, part * shape[0]..(part + 1) * shape[0]);
            let parts = (0..rule.parts()).map(|part| norm::statistics(OP, &values(part)?));
            let (mean, var): (Vec<_>, Vec<_>) = parts.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            (mean.concat(), var.concat())
        }
    };
    let inv_std = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let by_channel = [rule.parts(), extent.channels];
    let [mean, var, inv_std] = [mean, var, inv_std].map(|v| naive::tensor(by_channel, v, z.dtype()));
    let (mean, var, inv_std) = (mean?, var?, inv_std?);
    let (y, moments) = combined(rule, z, [gamma, beta], [&mean, &inv_std])?;
    Ok(NormalisedOutput { y, mean, var, inv_std, moments })
}

/// The result of [`combine_normalised`] from given statistics: once more the same bits from those that it returned.
///
/// # Errors
/// As [`combine_normalised`].
pub fn combine_normalised_again(
    rule: Rule,
    z: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [mean, inv_std]: [&Tensor; 2],
) -> Result<Tensor> {
    Ok(combined(rule, z, [gamma, beta], [mean, inv_std])?.0)
}

fn combined(
    rule: Rule,
    z: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [mean, inv_std]: [&Tensor; 2],
) -> Result<(Tensor, Option<Moments>)> {
    const OP: &str = "combine_normalised";
    let shape = part_shape(OP, z, rule)?;
    let by = ByChannel::new(OP, z, rule, [gamma, beta, mean, inv_std])?;
    let [scale, shift] = by.affine();
    if z.dtype() == DType::F32 {
        let z = rows(z)?;
        let mut y = z.slice(0, 0..shape[0])?.empty_like();
        let (values, length) = (z.memory::<f32>()?, y.numel());
        let (scale, shift) = (by.single(&scale), by.single(&shift));
        let channels = by.channels;
        let pieces = with_rule!(rule, |combine, PARTS| {
            let parts: [&[f32]; PARTS] = std::array::from_fn(|i| &values[i * length..(i + 1) * length]);
            let affine: [&[f32]; 2 * PARTS] = in_turn([&scale, &shift]);
            sweep_then(Apply(combine), parts, affine, [y.memory_mut::<f32>()?], |part| pixels(part, channels))
        });
        let moments = Moments::of_pieces(channels, &pieces);
        return Ok((y, Some(moments)));
    }
    let n = normalised(&naive::values(OP, z)?, &by, [&scale, &shift], extent(OP, z)?);
    let y = (0..shape.numel()).map(|i| rule.value(place(&n, by.parts, i))).collect();
    Ok((naive::tensor(shape, y, z.dtype())?, None))
}

/// Gradients of [`combine_normalised`], through the statistics of the batch.
///
/// # Errors
/// As [`combine_normalised`], or a gradient that does not fit.
pub fn combine_normalised_grad(arguments: NormalisedGrad) -> Result<NormalisedGradients> {
    const OP: &str = "combine_normalised_grad";
    let NormalisedGrad { rule, z, dy, gamma, beta, mean, inv_std, is_normalised } = arguments;
    let shape = part_shape(OP, &z, rule)?;
    if *dy.shape() != shape || dy.dtype() != z.dtype() {
        return Err(Error::shape(OP, format!("the result is {} {shape}, its gradient {dy:?}", z.dtype())));
    }
    let mut by = ByChannel::new(OP, &z, rule, [gamma, beta, mean, inv_std])?;
    if is_normalised {
        by = by.of_normalised();
    }
    let dtype = z.dtype();
    let (dz, dgamma, dbeta) =
        if dtype == DType::F32 { vector(rule, z, dy, &by)? } else { textbook(rule, &z, dy, &by)? };
    let [dgamma, dbeta] = [dgamma, dbeta].map(|values| naive::tensor([by.parts, by.channels], values, dtype));
    Ok(NormalisedGradients { dz, dgamma: dgamma?, dbeta: dbeta? })
}

fn vector(rule: Rule, z: Tensor, dy: &Tensor, by: &ByChannel) -> Result<(Tensor, Vec<f64>, Vec<f64>)> {
    let mut dz = rows(&z)?;
    drop(z);
    let dy = aligned(dy, &dz.slice(0, 0..dz.shape()[0] / by.parts)?.empty_like())?;
    let (dy, length) = (dy.memory::<f32>()?, dy.numel());
    let [scale, shift] = by.affine();
    let slope = by.slope();
    let (a, scale, shift, center) = (by.single(&slope), by.single(&scale), by.single(&shift), by.single(&by.center));
    let count = (length / by.channels.max(1)) as f64;
    let (mut dgamma, mut dbeta) = (Vec::new(), Vec::new());
    with_rule!(rule, |combine, PARTS| {
        let values = dz.memory::<f32>()?;
        let reads: [&[f32]; PARTS + 1] =
            std::array::from_fn(|i| if i < PARTS { &values[i * length..(i + 1) * length] } else { dy });
        let parameters: [&[f32]; 3 * PARTS] = in_turn([&scale, &shift, &center]);
        let sums: [Vec<f64>; 2 * PARTS] = columns(Totals(combine), reads, parameters, by.channels);
        for part in 0..PARTS {
            let factor = &by.factor[part * by.channels..];
            dbeta.extend(&sums[part]);
            dgamma.extend(sums[PARTS + part].iter().zip(factor).map(|(sum, s)| sum * s));
        }
        // dz = a · dn + b · (z - center) + d
        let b: Vec<f64> = (0..dgamma.len()).map(|i| -slope[i] * by.factor[i] * dgamma[i] / count).collect();
        let d: Vec<f64> = (0..dbeta.len()).map(|i| -slope[i] * dbeta[i] / count).collect();
        let (b, d) = (by.single(&b), by.single(&d));
        let parameters: [&[f32]; 6 * PARTS] = in_turn([&scale, &shift, &center, &b, &d, &a]);
        sweep(Slopes(combine), [dy], parameters, parts_mut::<PARTS>(dz.memory_mut()?, length));
    });
    Ok((dz, dgamma, dbeta))
}

/// The vectors of all parts of the first kind, then those of the second, and so on.
fn in_turn<const KINDS: usize, const ALL: usize>(kinds: [&[Vec<f32>]; KINDS]) -> [&[f32]; ALL] {
    let mut all = kinds.into_iter().flatten();
    std::array::from_fn(|_| all.next().map_or(&[][..], Vec::as_slice))
}

fn textbook(rule: Rule, z: &Tensor, dy: &Tensor, by: &ByChannel) -> Result<(Tensor, Vec<f64>, Vec<f64>)> {
    const OP: &str = "combine_normalised_grad";
    let (values, dy) = (naive::values(OP, z)?, naive::values(OP, dy)?);
    let extent = extent(OP, z)?;
    let [scale, shift] = by.affine();
    let n = normalised(&values, by, [&scale, &shift], extent);
    let length = dy.len();
    let mut dn = vec![0.0; n.len()];
    for (i, dy) in dy.iter().enumerate() {
        let partials = rule.partials(place(&n, by.parts, i), *dy);
        (0..by.parts).for_each(|part| dn[part * length + i] = partials[part]);
    }
    let one = Extent { outer: extent.outer / by.parts, ..extent };
    let (mut dz, mut dgamma, mut dbeta) = (Vec::new(), Vec::new(), Vec::new());
    for part in 0..by.parts {
        let range = part * length..(part + 1) * length;
        let channels = part * by.channels..(part + 1) * by.channels;
        // As if the values at hand were the projections, which they may be an affine function of.
        let factors: Vec<f64> =
            by.inv_std[channels.clone()].iter().zip(&by.factor[channels.clone()]).map(|(v, f)| v / f).collect();
        let statistics = [&by.gamma[channels.clone()], &by.center[channels.clone()], &by.factor[channels]];
        let (x, scale, shift) = naive::norm::grad(&values[range.clone()], &dn[range], statistics, one);
        dz.extend(naive::norm::affine(&x, &factors, &vec![0.0; factors.len()], one));
        dgamma.extend(scale);
        dbeta.extend(shift);
    }
    Ok((naive::tensor(z.shape(), dz, z.dtype())?, dgamma, dbeta))
}

/// `z · scale + shift` of all parts, in logical order.
fn normalised(z: &[f64], by: &ByChannel, [scale, shift]: [&[f64]; 2], extent: Extent) -> Vec<f64> {
    let (length, one) = (z.len() / by.parts, Extent { outer: extent.outer / by.parts, ..extent });
    let of_part = |part: usize| {
        let channels = part * by.channels..(part + 1) * by.channels;
        naive::norm::affine(&z[part * length..(part + 1) * length], &scale[channels.clone()], &shift[channels], one)
    };
    (0..by.parts).flat_map(of_part).collect()
}

fn extent(op: &'static str, z: &Tensor) -> Result<Extent> {
    norm::extent(op, z, &[])
}

/// `rule(z · scale + shift)`; parameters are the scales, then the shifts.
#[derive(Clone, Copy)]
struct Apply<C>(C);

/// Σ dn, then Σ dn · (z - center), of each part; `dy` is read last; parameters are scales, shifts, centers.
#[derive(Clone, Copy)]
struct Totals<C>(C);

/// `a · dn + b · (z - center) + d` over `z`; parameters are scales, shifts, centers, `b`, `d`, `a`.
#[derive(Clone, Copy)]
struct Slopes<C>(C);

/// The normalised projections.
#[inline(always)]
fn affine<I: Isa, const N: usize>(isa: I, z: [I::F32; N], scale: &[I::F32], shift: &[I::F32]) -> [I::F32; N] {
    let mut n = z;
    for (i, n) in n.iter_mut().enumerate() {
        *n = isa.fma(z[i], scale[i], shift[i]);
    }
    n
}

macro_rules! passes {
    ($($parts:literal: $two:literal $three:literal $five:literal $six:literal, $and_one:literal;)*) => {$(
        impl<C: Combine<$parts>> Sweep<$parts, $two, 1> for Apply<C> {
            #[inline(always)]
            fn step<I: Isa>(self, isa: I, z: [I::F32; $parts], p: [I::F32; $two], write: &mut [I::F32; 1]) {
                write[0] = self.0.value(isa, affine(isa, z, &p[..$parts], &p[$parts..]));
            }
        }

        impl<C: Combine<$parts>> Columns<$and_one, $three, $two> for Totals<C> {
            const START: f32 = 0.0;
            #[inline(always)]
            fn step<I: Isa>(self, isa: I, read: [I::F32; $and_one], p: [I::F32; $three], totals: &mut [I::F32; $two]) {
                let mut z = [read[0]; $parts];
                z.copy_from_slice(&read[..$parts]);
                let n = affine(isa, z, &p[..$parts], &p[$parts..$two]);
                let dn = self.0.partials(isa, n, read[$parts]);
                for i in 0..$parts {
                    totals[i] = isa.add(totals[i], dn[i]);
                    totals[$parts + i] = isa.fma(dn[i], isa.sub(z[i], p[$two + i]), totals[$parts + i]);
                }
            }
            #[inline(always)]
            fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
                isa.add(a, b)
            }
            fn join_f64(self, a: f64, b: f64) -> f64 {
                a + b
            }
        }

        impl<C: Combine<$parts>> Sweep<1, $six, $parts> for Slopes<C> {
            #[inline(always)]
            fn step<I: Isa>(self, isa: I, [dy]: [I::F32; 1], p: [I::F32; $six], z: &mut [I::F32; $parts]) {
                let n = affine(isa, *z, &p[..$parts], &p[$parts..$two]);
                let dn = self.0.partials(isa, n, dy);
                for i in 0..$parts {
                    let deviation = isa.sub(z[i], p[$two + i]);
                    z[i] = isa.fma(p[$five + i], dn[i], isa.fma(p[$three + i], deviation, p[$three + $parts + i]));
                }
            }
        }
    )*};
}
passes! {
    1: 2 3 5 6, 2;
    2: 4 6 10 12, 3;
    3: 6 9 15 18, 4;
}
