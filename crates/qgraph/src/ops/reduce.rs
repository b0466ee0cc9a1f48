//! Sums and means.

use crate::{Context, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::scale_assign;
use qkernels::reduce::{mean, sum};
use qtensor::{Shape, Tensor};

/// The sum over some axes. Keeps nothing.
#[derive(Clone, Debug)]
pub struct Sum {
    /// The axes that are summed.
    pub axes: Vec<usize>,
    /// Whether they stay, with length 1.
    pub keep: bool,
}

impl Vjp for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(spread(&dy, &self.axes, &saved.take_shape()?)?)])
    }
}

impl Op for Sum {
    fn on_half(&self) -> OnHalf {
        OnHalf::Widen
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(sum(x, &self.axes, self.keep)?)
    }
}

/// The mean over some axes. Keeps nothing.
#[derive(Clone, Debug)]
pub struct Mean {
    /// The axes that are averaged.
    pub axes: Vec<usize>,
    /// Whether they stay, with length 1.
    pub keep: bool,
}

impl Vjp for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let shape = saved.take_shape()?;
        let count: usize = self.axes.iter().map(|axis| shape[*axis]).product();
        scale_assign(&mut dy, 1.0 / count as f64)?;
        Ok(vec![Some(spread(&dy, &self.axes, &shape)?)])
    }
}

impl Op for Mean {
    fn on_half(&self) -> OnHalf {
        OnHalf::Widen
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(mean(x, &self.axes, self.keep)?)
    }
}

/// Repeats the gradient of a reduction along the axes that were reduced: a view.
fn spread(dy: &Tensor, axes: &[usize], shape: &Shape) -> Result<Tensor> {
    let kept: Vec<usize> = (0..shape.rank()).map(|i| if axes.contains(&i) { 1 } else { shape[i] }).collect();
    Ok(dy.reshape(kept)?.expand(shape)?)
}

impl Tape {
    /// The sum over `axes`, which disappear, or stay with length 1 where `keep` is set; keeps nothing.
    ///
    /// # Errors
    /// No such axis, an axis named twice, or a type that is neither f32 nor f64.
    pub fn sum(&mut self, x: &Var, axes: &[usize], keep: bool) -> Result<Var> {
        self.apply(Sum { axes: axes.to_vec(), keep }, &[x])
    }

    /// The sum of all elements, a scalar; keeps nothing.
    ///
    /// # Errors
    /// A type that is neither f32 nor f64.
    pub fn sum_all(&mut self, x: &Var) -> Result<Var> {
        self.apply(Sum { axes: (0..x.value().rank()).collect(), keep: false }, &[x])
    }

    /// The mean over `axes`, as [`sum`](Self::sum); the mean of nothing is NaN.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn mean(&mut self, x: &Var, axes: &[usize], keep: bool) -> Result<Var> {
        self.apply(Mean { axes: axes.to_vec(), keep }, &[x])
    }

    /// The mean of all elements, a scalar; keeps nothing.
    ///
    /// # Errors
    /// A type that is neither f32 nor f64.
    pub fn mean_all(&mut self, x: &Var) -> Result<Var> {
        self.apply(Mean { axes: (0..x.value().rank()).collect(), keep: false }, &[x])
    }
}
