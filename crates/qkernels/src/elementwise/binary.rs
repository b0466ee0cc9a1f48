//! Vector forms of the binary operations.

use super::BinaryOp;
use super::operands::{aligned, dense, repeated_run, same_order, value_of_runs};
use super::runs::sweep_runs;
use super::sweep::{Into, Map, Over, Sweep, Tiled, TiledFirst, sweep};
use crate::isa::Isa;
use crate::layout;
use qtensor::{DType, Result, Tensor, bf16};

macro_rules! table {
    ($($op:ident: |$isa:ident, $a:ident, $b:ident| $value:expr;)*) => {
        $(
            #[derive(Clone, Copy)]
            struct $op;

            impl Map<2> for $op {
                #[inline(always)]
                fn of<I: Isa>(self, $isa: I, [$a, $b]: [I::F32; 2]) -> I::F32 {
                    $value
                }
            }
        )*

        /// `f(a, b)` of f32 tensors whose shapes broadcast.
        pub(super) fn value(op: BinaryOp, a: &Tensor, b: &Tensor) -> Result<Tensor> {
            match op {
                $(BinaryOp::$op => broadcast($op, op.name(), a, b),)*
            }
        }
    };
}

table! {
    Add: |isa, a, b| isa.add(a, b);
    Sub: |isa, a, b| isa.sub(a, b);
    Mul: |isa, a, b| isa.mul(a, b);
    Div: |isa, a, b| isa.div(a, b);
    Max: |isa, a, b| isa.select(isa.is_nan(a), a, isa.max(a, b));
    Min: |isa, a, b| isa.select(isa.is_nan(a), a, isa.min(a, b));
}

/// `max(a + b, 0)`
#[derive(Clone, Copy)]
struct AddRelu;

impl Map<2> for AddRelu {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.relu(isa.add(a, b))
    }
}

/// `max(a + b, 0)` of f32 tensors whose shapes broadcast.
pub(super) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    broadcast(AddRelu, "add_relu", a, b)
}

fn broadcast<M: Map<2>>(map: M, op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = a.shape().broadcast(b.shape(), op)?;
    if *a.shape() == shape && (a.layout().is_dense() || *b.shape() != shape) {
        return second_repeats(map, &dense(a), b);
    }
    if *b.shape() == shape {
        let b = dense(b);
        let mut out = b.empty_like();
        if let Some(run) = repeated_run(a, &b)? {
            sweep(TiledFirst(map), [b.memory::<f32>()?], [run.memory()?], [out.memory_mut()?]);
        } else if let Some(values) = value_of_runs(a, &b)? {
            sweep_runs(TiledFirst(map), [b.memory::<f32>()?], [values.memory()?], out.memory_mut()?);
        } else {
            let a = aligned(&a.expand(shape)?, &b)?;
            sweep(Into(map), [a.memory::<f32>()?, b.memory()?], [], [out.memory_mut()?]);
        }
        return Ok(out);
    }
    // Both are stretched: the first becomes a tensor of the result's shape, which the result then overwrites.
    let mut out = a.expand(shape)?.copy();
    over(map, &mut out, b)?;
    Ok(out)
}

/// `a` is dense and has the shape of the result.
fn second_repeats<M: Map<2>>(map: M, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut out = a.empty_like();
    if a.shape() != b.shape() {
        if let Some(run) = repeated_run(b, a)? {
            sweep(Tiled(map), [a.memory::<f32>()?], [run.memory()?], [out.memory_mut()?]);
            return Ok(out);
        }
        if let Some(values) = value_of_runs(b, a)? {
            sweep_runs(Tiled(map), [a.memory::<f32>()?], [values.memory()?], out.memory_mut()?);
            return Ok(out);
        }
    }
    let b = aligned(&b.expand(a.shape())?, a)?;
    sweep(Into(map), [a.memory::<f32>()?, b.memory()?], [], [out.memory_mut()?]);
    Ok(out)
}

/// `a = f(a, b)`, in place where the buffer of `a` is unique.
fn over<M: Map<2>>(map: M, a: &mut Tensor, b: &Tensor) -> Result<()> {
    if !a.layout().is_dense() || !a.is_unique() {
        *a = second_repeats(map, &dense(a), b)?;
        return Ok(());
    }
    if a.shape() != b.shape() {
        if let Some(run) = repeated_run(b, a)? {
            sweep::<_, f32, 0, 1, 1>(Tiled(map), [], [run.memory()?], [a.memory_mut()?]);
            return Ok(());
        }
        if let Some(values) = value_of_runs(b, a)? {
            sweep_runs::<_, f32, 0, 1>(Tiled(map), [], [values.memory()?], a.memory_mut()?);
            return Ok(());
        }
    }
    let wide = b.expand(a.shape())?;
    let b = if same_order(&wide, a) { wide } else { aligned(&wide, a)? };
    sweep::<_, f32, 1, 0, 1>(Over(Flipped(map)), [b.memory()?], [], [a.memory_mut()?]);
    Ok(())
}

/// With its operands exchanged.
#[derive(Clone, Copy)]
struct Flipped<M>(M);

impl<M: Map<2>> Map<2> for Flipped<M> {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        self.0.of(isa, [b, a])
    }
}

/// `y + alpha · x`
#[derive(Clone, Copy)]
struct Axpy(f32);

impl Map<2> for Axpy {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, [y, x]: [I::F32; 2]) -> I::F32 {
        isa.fma(isa.splat(self.0), x, y)
    }
}

/// `y += alpha · x` of f32 tensors, where `x` broadcasts to the shape of `y`.
pub(super) fn axpy(alpha: f64, x: &Tensor, y: &mut Tensor) -> Result<()> {
    over(Axpy(alpha as f32), y, x)
}

/// [`axpy`] of bf16 tensors: summed in f32 and rounded.
pub(super) fn axpy_bf16(alpha: f64, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let wide = x.expand(y.shape())?;
    if !y.layout().is_dense() {
        *y = y.contiguous();
    }
    let x = aligned(&wide, y)?;
    let map = Over(Flipped(Axpy(alpha as f32)));
    sweep::<_, bf16, 1, 0, 1>(map, [x.memory()?], [], [y.memory_mut()?]);
    Ok(())
}

/// `factor · x + shift`
#[derive(Clone, Copy)]
struct Affine {
    factor: f32,
    shift: f32,
}

impl Map<1> for Affine {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.fma(isa.splat(self.factor), x, isa.splat(self.shift))
    }
}

/// `out = factor · x + shift`, or `out = factor · out + shift` without an `x`; `-0` stays.
pub(super) fn affine(factor: f64, shift: f64, x: Option<&[f32]>, out: &mut [f32]) {
    // Adding -0 changes no number, adding 0 changes -0.
    let map = Affine { factor: factor as f32, shift: if shift == 0.0 { -0.0 } else { shift as f32 } };
    match x {
        Some(x) => sweep(Into(map), [x], [], [out]),
        None => sweep::<_, _, 0, 0, 1>(Over(map), [], [], [out]),
    }
}

/// The two partial derivatives times `dy`, in place of copies of `a` and `b`.
#[derive(Clone, Copy)]
struct Partials<const DIVIDE: bool> {
    sign: f32,
}

impl<const DIVIDE: bool> Sweep<1, 0, 2> for Partials<DIVIDE> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [dy]: [I::F32; 1], _: [I::F32; 0], write: &mut [I::F32; 2]) {
        let [a, b] = *write;
        *write = if DIVIDE {
            let da = isa.div(dy, b);
            [da, isa.mul(isa.mul(isa.splat(-1.0), da), isa.div(a, b))]
        } else {
            // `sign` exchanges the roles for the minimum; equal operands share.
            let difference = isa.mul(isa.splat(self.sign), isa.sub(a, b));
            let half = isa.mul(isa.splat(0.5), dy);
            let share = |d: I::F32| {
                let won = isa.gt(d, isa.zero());
                let lost = isa.gt(isa.zero(), d);
                isa.select(won, dy, isa.select(lost, isa.zero(), half))
            };
            [share(difference), share(isa.mul(isa.splat(-1.0), difference))]
        };
    }
}

/// Gradients with respect to `a` and `b` with the shape of `dy`, for f32 operands that broadcast to it. Only what `needs` asks for is meaningful.
pub(super) fn partials(op: BinaryOp, [a, b, dy]: [&Tensor; 3], needs: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
    debug_assert_eq!(dy.dtype(), DType::F32);
    let one = |which: usize, make: &dyn Fn() -> Result<Tensor>| needs[which].then(make).transpose();
    let sign = match op {
        BinaryOp::Add => return Ok([one(0, &|| Ok(dy.clone()))?, one(1, &|| Ok(dy.clone()))?]),
        BinaryOp::Sub => {
            let minus = || super::scale(dy, -1.0);
            return Ok([one(0, &|| Ok(dy.clone()))?, one(1, &minus)?]);
        }
        BinaryOp::Mul => {
            return Ok([one(0, &|| value(op, dy, b))?, one(1, &|| value(op, dy, a))?]);
        }
        BinaryOp::Div if !needs[1] => return Ok([one(0, &|| value(op, dy, b))?, None]),
        BinaryOp::Div | BinaryOp::Max => 1.0,
        BinaryOp::Min => -1.0,
    };
    let dy = dense(dy);
    let copy = |x: &Tensor| -> Result<Tensor> {
        let mut copy = dy.empty_like();
        layout::copy(&x.expand(dy.shape())?, &mut copy)?;
        Ok(copy)
    };
    let (mut da, mut db) = (copy(a)?, copy(b)?);
    let writes: [&mut [f32]; 2] = [da.memory_mut()?, db.memory_mut()?];
    if op == BinaryOp::Div {
        sweep(Partials::<true> { sign }, [dy.memory()?], [], writes);
    } else {
        sweep(Partials::<false> { sign }, [dy.memory()?], [], writes);
    }
    Ok([needs[0].then_some(da), needs[1].then_some(db)])
}
