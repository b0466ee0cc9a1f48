//! Convolutions: the forward pass, and both gradients together.

use super::{Bencher, gemm::normal};
use crate::failure::Failure;
use qkernels::Activation;
use qkernels::conv::shapes::STANDARD;
use qkernels::conv::{Conv2dParams, conv2d, conv2d_input_grad, conv2d_weight_grad};
use serde::Serialize;

#[derive(Serialize)]
struct Key {
    bench: &'static str,
    n: usize,
    c: usize,
    k: usize,
    hw: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    groups: usize,
}

/// A row for each shape; the standard ones where none is given.
pub(super) fn run(bencher: &Bencher, shapes: &[[usize; 8]]) -> Result<(), Failure> {
    let shapes = if shapes.is_empty() { &STANDARD[..] } else { shapes };
    for &[n, c, k, hw, kernel, stride, pad, groups] in shapes {
        if groups == 0 || stride == 0 || c % groups != 0 || k % groups != 0 {
            return Err(Failure::usage(format!(
                "--shape: {c} and {k} channels do not fit {groups} groups and stride {stride}"
            )));
        }
        let params = Conv2dParams { stride: [stride; 2], padding: [pad; 2], groups, ..Default::default() };
        let x = normal([n, c, hw, hw])?.to_channels_last();
        let w = normal([k, c / groups, kernel, kernel])?;
        let y = conv2d(&x, &w, None, &params, Activation::None)?;
        let dy = normal(y.shape())?.to_channels_last();
        let forward = bencher.time(|| conv2d(&x, &w, None, &params, Activation::None).map(drop))?;
        let backward = bencher.time(|| {
            conv2d_input_grad(&dy, &w, x.shape(), &params)?;
            conv2d_weight_grad(&x, &dy, w.shape(), &params).map(drop)
        })?;
        let gflop = 2.0 * (y.numel() * (c / groups) * kernel * kernel) as f64 / 1e9;
        let measured = [
            ("fwd_seconds", forward),
            ("fwd_gflops", gflop / forward),
            ("bwd_seconds", backward),
            ("bwd_gflops", 2.0 * gflop / backward),
            ("of_peak", bencher.of_peak(3.0 * gflop / (forward + backward))),
        ];
        bencher.row(Key { bench: "conv_f32", n, c, k, hw, kernel, stride, pad, groups }, &measured)?;
    }
    Ok(())
}
