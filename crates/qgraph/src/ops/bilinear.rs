//! Quadratic forms of what a filter sees, `y_o = pᵀ A_o p`: the full second-order neuron (Type 1), dense and convolutional.
//!
//! `A_o` is upper triangular, since only its symmetric part counts. A convolution with filters that are 1 in one place copies out what each filter sees, and its
//! input gradient adds it up again, so every stride, padding, dilation and grouping is that of convolutions. The forms are taken one output and one block of
//! positions at a time, each as a matrix product: `y_o = Σ_i p_i · (A_oᵀ p)_i`, `dp = Σ_o dy_o (A_o + A_oᵀ) p` and `dA_o = Σ dy_o p pᵀ`.

use super::projections::LinearMap;
use crate::{Error, Result};
use qkernels::conv::{Conv2dParams, conv2d, conv2d_input_grad};
use qkernels::elementwise::{BinaryOp, add_assign, binary};
use qkernels::reduce::sum;
use qkernels::{Activation, matmul};
use qtensor::{DType, Shape, Tensor};

/// Positions of a block, whose products with one form are held at once.
const BLOCK: usize = 8192;
const OP: &str = "bilinear";

/// Shape of an output of the map but for its channels, the filters that copy, and how they are laid.
type Image = (Shape, Tensor, Conv2dParams);

/// The values that each filter sees at each position, `[positions, values]` for each group of channels.
struct Patches {
    groups: Vec<Tensor>,
    image: Option<Image>,
}

impl Patches {
    fn new(map: &LinearMap, x: &Tensor) -> Result<Self> {
        let LinearMap::Conv2d { params, kernel } = map else {
            return Ok(Patches { groups: vec![x.clone()], image: None });
        };
        if x.rank() != 4 || !x.shape()[1].is_multiple_of(params.groups.max(1)) {
            return Err(Error::shape(
                OP,
                format!("expected [N, C, H, W] with {} groups, found {}", params.groups, x.shape()),
            ));
        }
        let (channels, taps) = (x.shape()[1] / params.groups.max(1), kernel[0] * kernel[1]);
        let seen = channels * taps;
        let filters = params.groups * seen;
        // Filter `i` of a group is 1 where its value `i` is, and 0 elsewhere.
        let ones = (0..filters * seen).map(|i| if i / seen % seen == i % seen { 1.0 } else { 0.0 }).collect();
        let copy = tensor([filters, channels, kernel[0], kernel[1]], ones, x)?;
        let params = Conv2dParams { winograd: false, ..*params };
        let all = conv2d(x, &copy, None, &params, Activation::None)?;
        let (rows, shape) = (positions(&all)?, *all.shape());
        let groups = (0..params.groups).map(|g| Ok(rows.slice(1, g * seen..(g + 1) * seen)?.contiguous()));
        Ok(Patches { groups: groups.collect::<Result<_>>()?, image: Some((shape, copy, params)) })
    }

    /// `[positions, outputs]` as the map gives it.
    fn output(&self, rows: Tensor) -> Result<Tensor> {
        match &self.image {
            Some((shape, ..)) => image(&rows, shape),
            None => Ok(rows),
        }
    }

    /// The gradient of `x` from that of the values of each group.
    fn input_grad(&self, parts: Vec<Tensor>, x: &Tensor) -> Result<Tensor> {
        let rows = if parts.len() == 1 { parts[0].clone() } else { Tensor::concatenate(&parts, 1)? };
        match &self.image {
            Some((shape, copy, params)) => Ok(conv2d_input_grad(&image(&rows, shape)?, copy, x.shape(), params)?),
            None => Ok(rows),
        }
    }

    fn seen(&self) -> usize {
        self.groups.first().map_or(0, |group| group.shape()[1])
    }
}

/// `[N, C, H, W]` as `[N · H · W, C]`.
fn positions(x: &Tensor) -> Result<Tensor> {
    let rows = x.permute(&[0, 2, 3, 1])?.contiguous();
    Ok(rows.reshape([rows.numel() / x.shape()[1].max(1), x.shape()[1]])?)
}

/// The other way round, for images of that shape but for their channels.
fn image(rows: &Tensor, shape: &Shape) -> Result<Tensor> {
    let channels = rows.shape()[1];
    Ok(rows.reshape([shape[0], shape[2], shape[3], channels])?.permute(&[0, 3, 1, 2])?)
}

/// A tensor of the type of `like`.
fn tensor(shape: impl AsRef<[usize]>, values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_vec(shape.as_ref(), values)?.to_dtype(like.dtype())?)
}

/// The upper triangle of each form as rows of a matrix, `A_o[i][j]` for `i ≤ j`; or the sum of it and its transpose.
fn form(packed: &[f64], n: usize, is_symmetric: bool, like: &Tensor) -> Result<Tensor> {
    let mut full = vec![0.0; n * n];
    let mut values = packed.iter();
    for i in 0..n {
        for (j, value) in (i..n).zip(values.by_ref()) {
            full[i * n + j] += value;
            if is_symmetric {
                full[j * n + i] += value;
            }
        }
    }
    tensor([n, n], full, like)
}

/// Checked weights `[outputs, n (n + 1) / 2]` in f64.
fn packed(weights: &Tensor, patches: &Patches) -> Result<Vec<f64>> {
    let n = patches.seen();
    let pairs = n * (n + 1) / 2;
    let fits = weights.rank() == 2
        && weights.shape()[1] == pairs
        && weights.shape()[0].is_multiple_of(patches.groups.len().max(1));
    if !fits {
        let message = format!("a form of {n} values has {pairs} weights, found weights of shape {}", weights.shape());
        return Err(Error::shape(OP, message));
    }
    Ok(weights.to_dtype(DType::F64)?.to_vec()?)
}

/// `y_o = pᵀ A_o p + b_o`, `[N, out]` or `[N, O, OH, OW]`.
///
/// # Errors
/// Weights or an input that do not fit the map.
pub(super) fn bilinear(map: &LinearMap, x: &Tensor, weights: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let patches = Patches::new(map, x)?;
    let (values, n) = (packed(weights, &patches)?, patches.seen());
    let (outputs, pairs) = (weights.shape()[0], n * (n + 1) / 2);
    let in_group = outputs / patches.groups.len();
    let blocks = blocks(patches.groups[0].shape()[0]).map(|range| {
        let columns = (0..outputs).map(|o| {
            let p = patches.groups[o / in_group.max(1)].slice(0, range.clone())?;
            let form = form(&values[o * pairs..(o + 1) * pairs], n, false, x)?;
            Ok(sum(&binary(BinaryOp::Mul, &matmul(&p, &form)?, &p)?, &[1], true)?)
        });
        Ok(Tensor::concatenate(&columns.collect::<Result<Vec<_>>>()?, 1)?)
    });
    let mut y = Tensor::concatenate(&blocks.collect::<Result<Vec<_>>>()?, 0)?;
    if let Some(bias) = bias {
        y = binary(BinaryOp::Add, &y, bias)?;
    }
    patches.output(y)
}

/// The positions of each block.
fn blocks(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..rows).step_by(BLOCK).map(move |first| first..(first + BLOCK).min(rows))
}

/// The gradients of `x` and of the weights, as `wanted`.
///
/// # Errors
/// As [`bilinear`], or a gradient that does not fit.
pub(super) fn bilinear_grad(
    map: &LinearMap,
    x: &Tensor,
    weights: Option<&Tensor>,
    dy: &Tensor,
    wanted: [bool; 2],
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let patches = Patches::new(map, x)?;
    let n = patches.seen();
    let pairs = n * (n + 1) / 2;
    let dy = if dy.rank() == 4 { positions(dy)? } else { dy.clone() };
    let (rows, outputs) = (dy.shape()[0], dy.shape()[1]);
    let in_group = (outputs / patches.groups.len()).max(1);
    let values = match weights.filter(|_| wanted[0]) {
        Some(weights) => packed(weights, &patches)?,
        None => Vec::new(),
    };
    let mut dps: Vec<Vec<Tensor>> = vec![Vec::new(); patches.groups.len()];
    let mut forms: Vec<Option<Tensor>> = vec![None; outputs];
    for range in blocks(rows) {
        for (group, (seen, dps)) in patches.groups.iter().zip(&mut dps).enumerate() {
            let p = seen.slice(0, range.clone())?;
            let mut dp = p.zeros_like();
            for o in group * in_group..(group + 1) * in_group {
                let scaled = binary(BinaryOp::Mul, &p, &dy.slice(0, range.clone())?.slice(1, o..o + 1)?)?;
                if wanted[0] {
                    let symmetric = form(&values[o * pairs..(o + 1) * pairs], n, true, x)?;
                    add_assign(&mut dp, &matmul(&scaled, &symmetric)?)?;
                }
                if wanted[1] {
                    let outer = matmul(&scaled.t()?, &p)?;
                    match &mut forms[o] {
                        Some(total) => add_assign(total, &outer)?,
                        none => *none = Some(outer),
                    }
                }
            }
            dps.push(dp);
        }
    }
    let mut dw = Vec::new();
    if wanted[1] {
        for full in forms {
            let full: Vec<f64> = match full {
                Some(full) => full.to_dtype(DType::F64)?.to_vec()?,
                None => vec![0.0; n * n],
            };
            // The products of two different values count once: only the upper triangle holds their weight.
            dw.extend((0..n).flat_map(|i| (i..n).map(move |j| (i, j))).map(|(i, j)| full[i * n + j]));
        }
    }
    let dps = dps.iter().map(|blocks| Ok(Tensor::concatenate(blocks, 0)?)).collect::<Result<Vec<_>>>();
    let dx = wanted[0].then(|| patches.input_grad(dps?, x)).transpose()?;
    let dw = wanted[1].then(|| tensor([outputs, pairs], dw, x)).transpose()?;
    Ok((dx, dw))
}
