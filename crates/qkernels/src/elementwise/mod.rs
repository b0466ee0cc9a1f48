//! Elementwise operations.
//!
//! Results keep the memory order of the first dense operand. f32 operands that are dense in the same memory order are fast; all strides work.

mod binary;
pub(crate) mod math;
pub(crate) mod operands;
mod prelu;
pub(crate) mod runs;
pub(crate) mod sweep;
mod unary;

pub use math::ULP;
pub use prelu::{prelu, prelu_grad};

use crate::cast::{from_bf16, to_bf16};
use crate::{naive, reduce};
use operands::{aligned, dense, same_stored};
pub(crate) use operands::{same, same_type};
use qtensor::{DType, Error, Result, Tensor};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// `x²`
    Square,
    /// `√x`
    Sqrt,
    /// `1 / x`
    Recip,
    /// `eˣ`
    Exp,
    /// Natural logarithm
    Log,
    /// Hyperbolic tangent
    Tanh,
    /// `1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `max(x, 0)`; NaN stays NaN
    Relu,
    /// `min(max(x, 0), 6)`; NaN stays NaN
    Relu6,
    /// `x` where positive, `slope · x` elsewhere
    LeakyRelu(f64),
}

/// What the gradient of a unary operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saves {
    /// Neither input nor output.
    Nothing,
    /// The input.
    Input,
    /// The output, which the next operation often keeps anyway.
    Output,
}

impl UnaryOp {
    /// What [`unary_grad`] takes beside the output's gradient.
    pub fn saves(self) -> Saves {
        match self {
            UnaryOp::Neg => Saves::Nothing,
            UnaryOp::Abs | UnaryOp::Square | UnaryOp::Log => Saves::Input,
            // The sign of the output is that of the input only for slopes that do not flip it.
            UnaryOp::LeakyRelu(slope) if slope.is_nan() || slope < 0.0 => Saves::Input,
            _ => Saves::Output,
        }
    }

    /// The name, for messages and profiles.
    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Abs => "abs",
            UnaryOp::Square => "square",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Recip => "recip",
            UnaryOp::Exp => "exp",
            UnaryOp::Log => "log",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Sigmoid => "sigmoid",
            UnaryOp::Relu => "relu",
            UnaryOp::Relu6 => "relu6",
            UnaryOp::LeakyRelu(_) => "leaky_relu",
        }
    }
}

/// A function of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
    /// The larger; NaN where either is NaN
    Max,
    /// The smaller; NaN where either is NaN
    Min,
}

impl BinaryOp {
    /// The name, for messages and profiles.
    pub fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Max => "maximum",
            BinaryOp::Min => "minimum",
        }
    }
}

/// `f(x)` of every element.
///
/// # Errors
/// `x` is neither f32 nor f64.
pub fn unary(op: UnaryOp, x: &Tensor) -> Result<Tensor> {
    if x.dtype() == DType::F32 {
        let x = dense(x);
        let mut y = x.empty_like();
        unary::forward(op, Some(x.memory()?), y.memory_mut()?);
        return Ok(y);
    }
    naive::tensor_like(x, naive::values(op.name(), x)?.into_iter().map(|x| op.value(x)).collect())
}

/// Replaces every element by `f(x)`, in place where the buffer is unique.
///
/// # Errors
/// `x` is neither f32 nor f64.
pub fn unary_assign(op: UnaryOp, x: &mut Tensor) -> Result<()> {
    if x.dtype() == DType::F32 && x.is_unique() && x.layout().is_dense() {
        unary::forward(op, None, x.memory_mut()?);
    } else {
        *x = unary(op, x)?;
    }
    Ok(())
}

/// `f'(x) · dy`, where `saved` is the input or the output of [`unary`] as [`UnaryOp::saves`] says (where that is [`Saves::Nothing`], pass `dy`).
///
/// # Errors
/// Shapes or types differ, or the type is none of f32, bf16 and f64.
pub fn unary_grad(op: UnaryOp, saved: &Tensor, dy: &Tensor) -> Result<Tensor> {
    same_stored("unary_grad", saved, dy)?;
    if dy.dtype() == DType::BF16 {
        return to_bf16(&unary_grad(op, &from_bf16(saved)?, &from_bf16(dy)?)?);
    }
    if dy.dtype() == DType::F32 {
        let dy = dense(dy);
        let saved = aligned(saved, &dy)?;
        let mut dx = dy.empty_like();
        unary::backward(op, saved.memory()?, Some(dy.memory()?), dx.memory_mut()?);
        return Ok(dx);
    }
    let saved = naive::values(op.name(), saved)?;
    let dx = saved.into_iter().zip(naive::values(op.name(), dy)?).map(|(s, dy)| op.derivative(s) * dy).collect();
    naive::tensor_like(dy, dx)
}

/// As [`unary_grad`], written over `dy` where its buffer is unique.
///
/// # Errors
/// As [`unary_grad`].
pub fn unary_grad_assign(op: UnaryOp, saved: &Tensor, dy: &mut Tensor) -> Result<()> {
    if dy.dtype() == DType::F32 && dy.is_unique() && dy.layout().is_dense() {
        same("unary_grad", saved, dy)?;
        let saved = aligned(saved, dy)?;
        unary::backward(op, saved.memory()?, None, dy.memory_mut()?);
    } else {
        *dy = unary_grad(op, saved, dy)?;
    }
    Ok(())
}

/// `f(a, b)` with NumPy's broadcasting.
///
/// # Errors
/// Shapes that do not broadcast, types that differ or are neither f32 nor f64.
pub fn binary(op: BinaryOp, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_type(op.name(), a, b)?;
    if a.dtype() == DType::F32 {
        return binary::value(op, a, b);
    }
    let shape = a.shape().broadcast(b.shape(), op.name())?;
    let (wide_a, wide_b) = (a.expand(shape)?, b.expand(shape)?);
    let pairs = naive::values(op.name(), &wide_a)?.into_iter().zip(naive::values(op.name(), &wide_b)?);
    let like = if wide_a.layout().is_dense() { &wide_a } else { &wide_b };
    naive::tensor_like(like, pairs.map(|(a, b)| op.value(a, b)).collect())
}

/// Gradients of [`binary`] with respect to `a` and `b`, each with the shape of its operand, computed only where `needs` says so.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn binary_grad(op: BinaryOp, a: &Tensor, b: &Tensor, dy: &Tensor, needs: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
    same_type(op.name(), a, b)?;
    same_type(op.name(), a, dy)?;
    let shape = a.shape().broadcast(b.shape(), op.name())?;
    if *dy.shape() != shape {
        return Err(Error::shape(op.name(), format!("gradient of shape {} for an output of {shape}", dy.shape())));
    }
    if dy.dtype() == DType::F32 {
        let [da, db] = binary::partials(op, [a, b, dy], needs)?;
        let undo = |d: Option<Tensor>, x: &Tensor| d.map(|d| reduce::sum_to(&d, x.shape())).transpose();
        return Ok([undo(da, a)?, undo(db, b)?]);
    }
    let (wide_a, wide_b) = (naive::values(op.name(), &a.expand(shape)?)?, naive::values(op.name(), &b.expand(shape)?)?);
    let wide_dy = naive::values(op.name(), dy)?;
    let side = |which: usize, operand: &Tensor| -> Result<Option<Tensor>> {
        if !needs[which] {
            return Ok(None);
        }
        let partial = wide_a.iter().zip(&wide_b).zip(&wide_dy).map(|((a, b), dy)| op.derivatives(*a, *b)[which] * dy);
        Ok(Some(reduce::sum_to(&naive::tensor_like(dy, partial.collect())?, operand.shape())?))
    };
    Ok([side(0, a)?, side(1, b)?])
}

/// `max(a + b, 0)` in one pass: the end of a residual block. Its gradient is that of [`UnaryOp::Relu`] from the output.
///
/// # Errors
/// Shapes that do not broadcast, types that differ or are neither f32 nor f64.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_type("add_relu", a, b)?;
    if a.dtype() == DType::F32 {
        return binary::add_relu(a, b);
    }
    unary(UnaryOp::Relu, &binary(BinaryOp::Add, a, b)?)
}

/// `a += b`, where `b` broadcasts to the shape of `a`; in place where the buffer of `a` is unique.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn add_assign(a: &mut Tensor, b: &Tensor) -> Result<()> {
    axpy(1.0, b, a)
}

/// `y += alpha · x`, where `x` broadcasts to the shape of `y`; in place where the buffer of `y` is unique. f32, f64 or bf16.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn axpy(alpha: f64, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if [x, y].map(|t| t.dtype()) == [DType::BF16; 2] {
        return binary::axpy_bf16(alpha, x, y);
    }
    same_type("axpy", x, y)?;
    if y.dtype() == DType::F32 {
        return binary::axpy(alpha, x, y);
    }
    let x = naive::values("axpy", &x.expand(y.shape())?)?;
    let sum = naive::values("axpy", y)?.into_iter().zip(x).map(|(y, x)| y + alpha * x).collect();
    *y = naive::tensor_like(y, sum)?;
    Ok(())
}

/// `factor · x`
///
/// # Errors
/// `x` is neither f32 nor f64.
pub fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
    affine("scale", x, factor, 0.0)
}

/// `x *= factor`, in place where the buffer is unique.
///
/// # Errors
/// `x` is neither f32 nor f64.
pub fn scale_assign(x: &mut Tensor, factor: f64) -> Result<()> {
    if x.dtype() == DType::F32 && x.is_unique() && x.layout().is_dense() {
        binary::affine(factor, 0.0, None, x.memory_mut()?);
    } else {
        *x = scale(x, factor)?;
    }
    Ok(())
}

/// `x + value`
///
/// # Errors
/// `x` is neither f32 nor f64.
pub fn add_scalar(x: &Tensor, value: f64) -> Result<Tensor> {
    affine("add_scalar", x, 1.0, value)
}

fn affine(op: &'static str, x: &Tensor, factor: f64, shift: f64) -> Result<Tensor> {
    if x.dtype() == DType::F32 {
        let x = dense(x);
        let mut y = x.empty_like();
        binary::affine(factor, shift, Some(x.memory()?), y.memory_mut()?);
        return Ok(y);
    }
    naive::tensor_like(x, naive::values(op, x)?.into_iter().map(|x| x * factor + shift).collect())
}
