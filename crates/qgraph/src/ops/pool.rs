//! Pooling of images `[N, C, H, W]`.

use crate::{Context, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::pool::{
    PoolParams, avg_pool2d, avg_pool2d_grad, global_avg_pool2d, global_avg_pool2d_grad, max_pool2d, max_pool2d_grad,
};
use qtensor::Tensor;

/// The largest value of each window. Keeps its place in the window (one byte, four in windows of more than 256 places), not the input.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d(
    /// Window, steps and borders.
    pub PoolParams,
);

impl Vjp for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        record.taps.iter().for_each(|places| saved.keep(places));
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (places, x_shape) = (saved.take()?, saved.take_shape()?);
        Ok(vec![Some(max_pool2d_grad(&dy, &places, &x_shape, &self.0)?)])
    }
}

impl Op for MaxPool2d {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], context: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        let (y, places) = max_pool2d(x, &self.0)?;
        context.tap(places);
        Ok(y)
    }
}

/// The mean of each window. Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d(
    /// Window, steps and borders.
    pub PoolParams,
);

impl Vjp for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(avg_pool2d_grad(&dy, &saved.take_shape()?, &self.0)?)])
    }
}

impl Op for AvgPool2d {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(avg_pool2d(x, &self.0)?)
    }
}

/// The mean of each plane, `[N, C]`. Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct GlobalAvgPool2d;

impl Vjp for GlobalAvgPool2d {
    fn name(&self) -> &'static str {
        "global_avg_pool2d"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(global_avg_pool2d_grad(&dy, &saved.take_shape()?)?)])
    }
}

impl Op for GlobalAvgPool2d {
    fn on_half(&self) -> OnHalf {
        OnHalf::Widen
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(global_avg_pool2d(x)?)
    }
}

impl Tape {
    /// The largest value of each window of `[N, C, H, W]`; keeps the places of the maxima.
    ///
    /// # Errors
    /// Another rank, a window that does not fit, or a type that is neither f32 nor f64.
    pub fn max_pool2d(&mut self, x: &Var, params: PoolParams) -> Result<Var> {
        self.apply(MaxPool2d(params), &[x])
    }

    /// The mean of each window of `[N, C, H, W]`; keeps nothing.
    ///
    /// # Errors
    /// Another rank, a window that does not fit, or a type that is neither f32 nor f64.
    pub fn avg_pool2d(&mut self, x: &Var, params: PoolParams) -> Result<Var> {
        self.apply(AvgPool2d(params), &[x])
    }

    /// The mean of each plane, `[N, C, H, W]` to `[N, C]`; keeps nothing.
    ///
    /// # Errors
    /// Another rank, or a type that is neither f32 nor f64.
    pub fn global_avg_pool2d(&mut self, x: &Var) -> Result<Var> {
        self.apply(GlobalAvgPool2d, &[x])
    }
}
