//! Two-dimensional convolution and its gradients as nested loops.

use crate::Activation;
use crate::conv::{Conv2dParams, Geometry};
use qtensor::{DType, Result, Tensor};

/// The elements in logical order as f64.
fn values(x: &Tensor) -> Result<Vec<f64>> {
    x.to_dtype(DType::F64)?.to_vec::<f64>()
}

/// Calls `visit(index of x, index of w, index of y)` for every product in a convolution; the indices are row-major (`N, C, H, W`).
pub(super) fn for_each_product(g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let (group_in, group_out) = (g.channels / g.groups, g.filters / g.groups);
    for (n, o) in (0..g.batch).flat_map(|n| (0..g.filters).map(move |o| (n, o))) {
        for (oh, ow) in (0..g.out[0]).flat_map(|oh| (0..g.out[1]).map(move |ow| (oh, ow))) {
            let y = ((n * g.filters + o) * g.out[0] + oh) * g.out[1] + ow;
            for i in 0..group_in {
                let c = o / group_out * group_in + i;
                for kh in 0..g.kernel[0] {
                    let Some(h) = g.input_row(oh, kh) else { continue };
                    for kw in 0..g.kernel[1] {
                        let Some(w) = g.input_column(ow, kw) else { continue };
                        let x = ((n * g.channels + c) * g.input[0] + h) * g.input[1] + w;
                        visit(x, ((o * group_in + i) * g.kernel[0] + kh) * g.kernel[1] + kw, y);
                    }
                }
            }
        }
    }
}

/// The convolution by its definition, in f64, as a row-major f64 tensor `[N, O, OH, OW]`.
///
/// # Errors
/// As [`conv2d`](crate::conv2d).
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Tensor> {
    let g = Geometry::of_forward("conv2d", x, w, params)?;
    let (xs, ws) = (values(x)?, values(w)?);
    let mut y = vec![0.0; g.output_shape().iter().product()];
    if let Some(bias) = bias {
        let bias = values(bias)?;
        let plane = g.out[0] * g.out[1];
        y.iter_mut().enumerate().for_each(|(i, y)| *y = bias[i / plane % g.filters]);
    }
    for_each_product(&g, |i, j, k| y[k] += xs[i] * ws[j]);
    y.iter_mut().for_each(|y| *y = activation.apply(*y));
    Tensor::from_vec(g.output_shape(), y)
}

/// The gradient with respect to the input by its definition, in f64, as a row-major f64 tensor of shape `x_shape`.
///
/// # Errors
/// As [`conv2d_input_grad`](crate::conv2d_input_grad).
pub fn conv2d_input_grad(dy: &Tensor, w: &Tensor, x_shape: &[usize], params: &Conv2dParams) -> Result<Tensor> {
    let g = Geometry::new("conv2d_input_grad", x_shape, w.shape(), params)?;
    g.check_output("conv2d_input_grad", dy)?;
    let (dys, ws) = (values(dy)?, values(w)?);
    let mut dx = vec![0.0; x_shape.iter().product()];
    for_each_product(&g, |i, j, k| dx[i] += dys[k] * ws[j]);
    Tensor::from_vec(x_shape, dx)
}

/// The gradient with respect to the weights by its definition, in f64, as a row-major f64 tensor of shape `w_shape`.
///
/// # Errors
/// As [`conv2d_weight_grad`](crate::conv2d_weight_grad).
pub fn conv2d_weight_grad(x: &Tensor, dy: &Tensor, w_shape: &[usize], params: &Conv2dParams) -> Result<Tensor> {
    let g = Geometry::new("conv2d_weight_grad", x.shape(), w_shape, params)?;
    g.check_output("conv2d_weight_grad", dy)?;
    let (xs, dys) = (values(x)?, values(dy)?);
    let mut dw = vec![0.0; w_shape.iter().product()];
    for_each_product(&g, |i, j, k| dw[j] += xs[i] * dys[k]);
    Tensor::from_vec(w_shape, dw)
}
