//! Projections combined as they are.

use super::rule::{Combine, Rule, with_rule};
use super::{part_shape, place, rows};
use crate::elementwise::operands::aligned;
use crate::elementwise::sweep::{Sweep, sweep};
use crate::isa::Isa;
use crate::{Activation, naive};
use qtensor::{DType, Error, Result, Tensor};

/// `activation(rule(z) + residual)` for joined projections; the residual has the shape of the result.
///
/// # Errors
/// A first axis without as many parts as the rule has, a residual that does not fit, or a type other than f32 and f64.
pub fn combine(rule: Rule, z: &Tensor, residual: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    const OP: &str = "combine";
    let shape = part_shape(OP, z, rule)?;
    if let Some(residual) = residual.filter(|r| *r.shape() != shape || r.dtype() != z.dtype()) {
        return Err(Error::shape(OP, format!("the result is {} {shape}, the residual {residual:?}", z.dtype())));
    }
    if z.dtype() == DType::F32 {
        let z = rows(z)?;
        let mut y = z.slice(0, 0..shape[0])?.empty_like();
        let residual = residual.map(|r| aligned(r, &y)).transpose()?;
        let (values, length) = (z.memory::<f32>()?, y.numel());
        let residual = residual.as_ref().map(Tensor::memory::<f32>).transpose()?;
        with_rule!(rule, |combine, PARTS| {
            let parts: [&[f32]; PARTS] = std::array::from_fn(|i| &values[i * length..(i + 1) * length]);
            match residual {
                None => sweep(Value(combine, activation), parts, [], [y.memory_mut::<f32>()?]),
                Some(residual) => {
                    let reads: [&[f32]; PARTS + 1] =
                        std::array::from_fn(|i| if i < PARTS { parts[i] } else { residual });
                    sweep(ValueAndResidual(combine, activation), reads, [], [y.memory_mut::<f32>()?]);
                }
            }
        });
        return Ok(y);
    }
    let values = naive::values(OP, z)?;
    let residual = residual.map(|r| naive::values(OP, r)).transpose()?;
    let y = (0..shape.numel()).map(|i| {
        let sum = rule.value(place(&values, rule.parts(), i)) + residual.as_ref().map_or(0.0, |r| r[i]);
        activation.apply(sum)
    });
    naive::tensor(shape, y.collect(), z.dtype())
}

/// The gradient of [`combine`] without residual and activation with respect to `z`, from that of its result; written over `z` where its buffer is unique.
///
/// # Errors
/// As [`combine`], or a gradient that does not fit.
pub fn combine_grad(rule: Rule, z: Tensor, dy: &Tensor) -> Result<Tensor> {
    const OP: &str = "combine_grad";
    let shape = part_shape(OP, &z, rule)?;
    if *dy.shape() != shape || dy.dtype() != z.dtype() {
        return Err(Error::shape(OP, format!("the result is {} {shape}, its gradient {dy:?}", z.dtype())));
    }
    if z.dtype() == DType::F32 {
        let mut dz = rows(&z)?;
        drop(z);
        let dy = aligned(dy, &dz.slice(0, 0..shape[0])?.empty_like())?;
        let dy = dy.memory::<f32>()?;
        with_rule!(rule, |combine, PARTS| {
            sweep(Partials(combine), [dy], [], parts_mut::<PARTS>(dz.memory_mut()?, dy.len()));
        });
        return Ok(dz);
    }
    let (values, dy) = (naive::values(OP, &z)?, naive::values(OP, dy)?);
    let mut dz = vec![0.0; values.len()];
    for (i, g) in dy.iter().enumerate() {
        let partials = rule.partials(place(&values, rule.parts(), i), *g);
        (0..rule.parts()).for_each(|part| dz[part * dy.len() + i] = partials[part]);
    }
    naive::tensor(z.shape(), dz, z.dtype())
}

/// The parts of a joined tensor's memory, `length` numbers each.
pub(super) fn parts_mut<const N: usize>(memory: &mut [f32], length: usize) -> [&mut [f32]; N] {
    let mut parts = memory.chunks_exact_mut(length.max(1));
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// `activation(y)`
#[derive(Clone, Copy)]
struct Value<C>(C, Activation);

/// `activation(y + residual)`, the residual being read last.
#[derive(Clone, Copy)]
struct ValueAndResidual<C>(C, Activation);

/// `dy · ∂y/∂z`, over `z`.
#[derive(Clone, Copy)]
struct Partials<C>(C);

macro_rules! sweeps {
    ($($parts:literal $and_one:literal),*) => {$(
        impl<C: Combine<$parts>> Sweep<$parts, 0, 1> for Value<C> {
            #[inline(always)]
            fn step<I: Isa>(self, isa: I, z: [I::F32; $parts], _: [I::F32; 0], write: &mut [I::F32; 1]) {
                write[0] = self.1.apply_vector(isa, self.0.value(isa, z));
            }
        }

        impl<C: Combine<$parts>> Sweep<$and_one, 0, 1> for ValueAndResidual<C> {
            #[inline(always)]
            fn step<I: Isa>(self, isa: I, read: [I::F32; $and_one], _: [I::F32; 0], write: &mut [I::F32; 1]) {
                let mut z = [read[0]; $parts];
                z.copy_from_slice(&read[..$parts]);
                write[0] = self.1.apply_vector(isa, isa.add(self.0.value(isa, z), read[$parts]));
            }
        }

        impl<C: Combine<$parts>> Sweep<1, 0, $parts> for Partials<C> {
            #[inline(always)]
            fn step<I: Isa>(self, isa: I, [dy]: [I::F32; 1], _: [I::F32; 0], z: &mut [I::F32; $parts]) {
                *z = self.0.partials(isa, *z, dy);
            }
        }
    )*};
}
sweeps!(1 2, 2 3, 3 4);
