//! The arithmetic of quantized layers ([`crate::i8`]) as nested loops.

use super::conv::for_each_product;
use crate::conv::{Conv2dParams, Geometry};
use crate::i8::{Output, Quantization};
use crate::pool::{PoolParams, Windows};
use qtensor::{DType, Result, Tensor};

/// A layer with its weights as they are, i8 `[O, C/groups, KH, KW]`; the rest as in [`Operands`](crate::i8::Operands), with a scale for each filter.
pub struct Layer<'a> {
    /// u8 `[N, C, H, W]`.
    pub x: &'a Tensor,
    /// What `x` stands for.
    pub input: Quantization,
    /// i8 filters.
    pub w: &'a Tensor,
    /// One for each filter.
    pub scales: &'a [f32],
    /// How the filters walk the images.
    pub params: Conv2dParams,
    /// f32 or i32 `[O]`.
    pub bias: Option<&'a Tensor>,
    /// u8 `[N, O, OH, OW]`.
    pub residual: Option<(&'a Tensor, Quantization)>,
    /// Whether negative results become 0.
    pub relu: bool,
    /// What is returned.
    pub output: Output,
}

/// The sums of products with the integer bias, in i64, row-major `[N, O, OH, OW]`.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn sums(layer: &Layer) -> Result<Tensor> {
    let g = Geometry::new("naive", layer.x.shape(), layer.w.shape(), &layer.params)?;
    let (x, w) = (layer.x.to_vec::<u8>()?, layer.w.to_vec::<i8>()?);
    let zero = i64::from(layer.input.zero_point);
    let mut sums = vec![0; g.output_shape().iter().product()];
    for_each_product(&g, |i, j, k| sums[k] += (i64::from(x[i]) - zero) * i64::from(w[j]));
    if let Some(bias) = layer.bias.filter(|bias| bias.dtype() == DType::I32) {
        let bias = bias.to_vec::<i32>()?;
        sums.iter_mut().enumerate().for_each(|(i, s)| *s += i64::from(bias[filter_of(&g, i)]));
    }
    Tensor::from_vec(g.output_shape(), sums)
}

/// The filter of an element of a row-major result.
fn filter_of(g: &Geometry, index: usize) -> usize {
    index / (g.out[0] * g.out[1]) % g.filters
}

/// The convolution with its ending, row-major.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn conv2d(layer: &Layer) -> Result<Tensor> {
    let g = Geometry::new("naive", layer.x.shape(), layer.w.shape(), &layer.params)?;
    let bias = layer.bias.filter(|bias| bias.dtype() == DType::F32).map(Tensor::to_vec::<f32>).transpose()?;
    let residual = match layer.residual {
        Some((r, q)) => Some((r.to_vec::<u8>()?, q)),
        None => None,
    };
    let real = |i: usize, sum: i64, unit: Option<f32>| {
        let o = filter_of(&g, i);
        let per = |x: f32| unit.map_or(x, |unit| x / unit);
        let bias = bias.as_ref().map_or(0.0, |bias| per(bias[o]));
        let v = (sum as i32) as f32 * per(layer.input.scale * layer.scales[o]) + bias;
        match &residual {
            Some((r, q)) => v + (f32::from(r[i]) - f32::from(q.zero_point)) * per(q.scale),
            None => v,
        }
    };
    let sums = sums(layer)?.to_vec::<i64>()?.into_iter().enumerate();
    match layer.output {
        Output::F32 => {
            let limit = |v: f32| if layer.relu && v < 0.0 { 0.0 } else { v };
            Tensor::from_vec(g.output_shape(), sums.map(|(i, s)| limit(real(i, s, None))).collect())
        }
        Output::U8(q) => {
            let lowest = if layer.relu { q.zero_point } else { 0 };
            let bytes = sums.map(|(i, s)| to_byte(real(i, s, Some(q.scale)), q.zero_point, lowest)).collect();
            Tensor::from_vec::<u8>(g.output_shape(), bytes)
        }
    }
}

/// `round(v) + zero_point`, limited to `lowest..=255`.
fn to_byte(v: f32, zero_point: u8, lowest: u8) -> u8 {
    // Not `clamp`, which keeps NaN.
    (v.round_ties_even() + f32::from(zero_point)).max(f32::from(lowest)).min(255.0) as u8
}

/// `round(x / scale) + zero_point`, limited to `0..=255`.
pub fn quantize(x: &[f32], q: Quantization) -> Vec<u8> {
    x.iter().map(|x| to_byte(x / q.scale, q.zero_point, 0)).collect()
}

/// `(q - zero_point) * scale`
pub fn dequantize(x: &[u8], q: Quantization) -> Vec<f32> {
    x.iter().map(|x| (f32::from(*x) - f32::from(q.zero_point)) * q.scale).collect()
}

/// `round((a - a_zero) * (a_scale / y_scale) + (b - b_zero) * (b_scale / y_scale)) + y_zero`, limited to `0..=255`, from `y_zero` on with `relu`.
pub fn add(terms: [(&[u8], Quantization); 2], y: Quantization, relu: bool) -> Vec<u8> {
    let [(a, of_a), (b, of_b)] = terms;
    let part = |x: u8, q: Quantization| (f32::from(x) - f32::from(q.zero_point)) * (q.scale / y.scale);
    let lowest = if relu { y.zero_point } else { 0 };
    a.iter().zip(b).map(|(a, b)| to_byte(part(*a, of_a) + part(*b, of_b), y.zero_point, lowest)).collect()
}

/// Maximum (`None`) or mean of each window, with the zero point in the border of a mean that counts it, row-major.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn pool(x: &Tensor, params: &PoolParams, mean_with_zero_point: Option<u8>) -> Result<Tensor> {
    let windows = Windows::new("naive", x.shape(), params)?;
    let [height, width] = windows.input;
    let values = x.to_vec::<u8>()?;
    let mut out = Vec::new();
    for plane in values.chunks_exact((height * width).max(1)) {
        windows.each_output(|row, column| {
            let rows = windows.span(0, row);
            let seen = rows.flat_map(|r| windows.span(1, column).map(move |c| plane[r * width + c]));
            out.push(match mean_with_zero_point {
                None => seen.max().unwrap_or(0),
                Some(zero) => {
                    let seen: Vec<i64> = seen.map(i64::from).collect();
                    let border = windows.divisor(row, column) - seen.len();
                    let sum = seen.iter().sum::<i64>() + border as i64 * i64::from(zero);
                    (sum as f32 / windows.divisor(row, column) as f32).round_ties_even() as u8
                }
            });
        });
    }
    Tensor::from_vec(windows.output_shape(), out)
}

/// The mean of each plane as a real number, `(Σ q - zero_point) * (scale / pixels)`, `[N, C]`.
///
/// # Errors
/// `x` is not u8 `[N, C, H, W]`.
pub fn global_mean(x: &Tensor, q: Quantization) -> Result<Tensor> {
    let pixels = x.shape()[2] * x.shape()[3];
    let values = x.to_vec::<u8>()?;
    let sum = |plane: &[u8]| plane.iter().map(|x| i64::from(*x) - i64::from(q.zero_point)).sum::<i64>() as f32;
    let means = values.chunks_exact(pixels.max(1)).map(|plane| sum(plane) * (q.scale / pixels as f32)).collect();
    Tensor::from_vec([x.shape()[0], x.shape()[1]], means)
}
