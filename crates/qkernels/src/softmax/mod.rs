//! Softmax and cross-entropy.

mod vector;

use crate::{elementwise, naive};
use qtensor::{DType, Error, Result, Tensor};

/// `log(exp(x) / Σ exp(x))` along the last axis, computed without overflow.
///
/// # Errors
/// Rank 0, or a type other than f32 and f64.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let width = last_axis("log_softmax", x)?;
    if x.dtype() == DType::F32 {
        let mut y = Tensor::empty(x.shape(), DType::F32)?;
        vector::log_softmax(x.contiguous().memory()?, width, y.memory_mut()?);
        return Ok(y);
    }
    naive::tensor(x.shape(), naive::softmax::log_softmax(&naive::values("log_softmax", x)?, width), x.dtype())
}

/// Gradient of [`log_softmax`] from its output `y`.
///
/// # Errors
/// Shapes or types differ, rank 0, or a type other than f32 and f64.
pub fn log_softmax_grad(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let width = last_axis("log_softmax_grad", y)?;
    elementwise::same("log_softmax_grad", y, dy)?;
    if y.dtype() == DType::F32 {
        let mut dx = Tensor::empty(y.shape(), DType::F32)?;
        vector::log_softmax_grad(y.contiguous().memory()?, dy.contiguous().memory()?, width, dx.memory_mut()?);
        return Ok(dx);
    }
    let (values, gradients) = (naive::values("log_softmax_grad", y)?, naive::values("log_softmax_grad", dy)?);
    naive::tensor(y.shape(), naive::softmax::log_softmax_grad(&values, &gradients, width), y.dtype())
}

fn last_axis(op: &'static str, x: &Tensor) -> Result<usize> {
    x.shape().last().copied().ok_or_else(|| Error::shape(op, "a scalar has no axis to normalise"))
}

/// Mean over the rows of `logits` `[N, K]` of `-Σ q log softmax(logits)`, accumulated in f64.
///
/// `targets` are class indices (i64, `[N]`) or probabilities (the type and shape of `logits`). With smoothing `ε` the targets become
/// `q = (1 - ε) q + ε / K` (Szegedy et al., 2016, arXiv:1512.00567).
///
/// Returns the scalar loss and its gradient with respect to the logits, for [`softmax_cross_entropy_grad`].
///
/// # Errors
/// `logits` are not `[N, K]` with at least one row and one class, `targets` do not fit or name a class that does not exist (the message names
/// the row), `label_smoothing` is outside `0..=1`, or a type other than f32 and f64.
pub fn softmax_cross_entropy(logits: &Tensor, targets: &Tensor, label_smoothing: f64) -> Result<(Tensor, Tensor)> {
    const OP: &str = "softmax_cross_entropy";
    let [rows, classes] = *logits.shape().dims() else {
        return Err(Error::shape(OP, format!("logits must be [N, K], found {}", logits.shape())));
    };
    if rows == 0 || classes == 0 {
        return Err(Error::shape(OP, format!("logits of shape {} have nothing to average", logits.shape())));
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        return Err(Error::argument(OP, format!("label smoothing {label_smoothing} is outside 0..=1")));
    }
    let labels = match targets.dtype() {
        DType::I64 => Some(checked_labels(OP, targets, rows, classes)?),
        _ => None,
    };
    if labels.is_none() {
        elementwise::same(OP, logits, targets)?;
    }
    if logits.dtype() == DType::F32 {
        let probabilities = targets.contiguous();
        let targets = match &labels {
            Some(labels) => vector::Targets::Labels(labels),
            None => vector::Targets::Probabilities(probabilities.memory()?),
        };
        let mut residual = Tensor::empty(logits.shape(), DType::F32)?;
        let logits = logits.contiguous();
        let arguments = vector::CrossEntropy { x: logits.memory()?, classes, targets, label_smoothing };
        let loss = arguments.run(residual.memory_mut()?);
        return Ok((Tensor::scalar(loss as f32), residual));
    }
    let values = naive::values(OP, logits)?;
    let mut q = match labels {
        Some(labels) => {
            let mut q = vec![0.0; values.len()];
            labels.into_iter().enumerate().for_each(|(row, label)| q[row * classes + label] = 1.0);
            q
        }
        None => naive::values(OP, targets)?,
    };
    q.iter_mut().for_each(|q| *q = (1.0 - label_smoothing) * *q + label_smoothing / classes as f64);
    let (loss, residual) = naive::softmax::cross_entropy(&values, &q, classes);
    Ok((naive::tensor([], vec![loss], logits.dtype())?, naive::tensor(logits.shape(), residual, logits.dtype())?))
}

fn checked_labels(op: &'static str, labels: &Tensor, rows: usize, classes: usize) -> Result<Vec<usize>> {
    if labels.shape().dims() != [rows] {
        return Err(Error::shape(op, format!("labels of shape {} for {rows} rows of logits", labels.shape())));
    }
    let check = |(row, label): (usize, i64)| {
        usize::try_from(label).ok().filter(|label| *label < classes).ok_or_else(|| {
            Error::argument(op, format!("label {label} of row {row} is not one of the classes 0..{classes}"))
        })
    };
    labels.to_vec::<i64>()?.into_iter().enumerate().map(check).collect()
}

/// Gradient with respect to the logits: the second result of [`softmax_cross_entropy`] times the gradient of the loss, a scalar.
///
/// # Errors
/// `dloss` has more than one element, or a type other than f32 and f64.
pub fn softmax_cross_entropy_grad(residual: &Tensor, dloss: &Tensor) -> Result<Tensor> {
    elementwise::scale(residual, dloss.item()?)
}
