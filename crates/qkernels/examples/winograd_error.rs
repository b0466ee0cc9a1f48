//! Prints the rounding errors of 3×3 convolutions, by Winograd's algorithm and directly, against f64: the figures of `docs/numerics.md`.
//!
//! Images, filters and gradients are normal numbers. The first figure is the largest error over the largest result, the second the root of the mean square
//! of the errors over that of the results.

use qkernels::{Activation, Conv2dParams, conv2d, conv2d_input_grad, conv2d_weight_grad};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

/// Batch, channels and side of square images.
const SHAPES: [[usize; 3]; 5] = [[8, 16, 32], [8, 64, 16], [4, 128, 16], [4, 256, 8], [8, 512, 4]];

fn main() -> Result<()> {
    for [n, c, side] in SHAPES {
        let (x, dy, w) = (normal(&[n, c, side, side], 0)?, normal(&[n, c, side, side], 1)?, normal(&[c, c, 3, 3], 2)?);
        let [x64, dy64, w64] = [&x, &dy, &w].map(|t| t.to_dtype(DType::F64));
        let exact = all(&x64?, &dy64?, &w64?, true)?;
        for (name, winograd) in [("Winograd", true), ("direct", false)] {
            let errors: Result<Vec<String>> =
                all(&x, &dy, &w, winograd)?.iter().zip(&exact).map(|(found, exact)| error(found, exact)).collect();
            println!("{c:3} channels at {side:2}×{side:2}, {name:8}: {}", errors?.join("   "));
        }
    }
    Ok(())
}

fn normal(shape: &[usize], index: u64) -> Result<Tensor> {
    Stream::new(StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index }).normal_tensor(shape, 0.0, 1.0)
}

/// Output, input gradient and weight gradient.
fn all(x: &Tensor, dy: &Tensor, w: &Tensor, winograd: bool) -> Result<[Tensor; 3]> {
    let params = Conv2dParams { padding: [1, 1], winograd, ..Default::default() };
    Ok([
        conv2d(x, w, None, &params, Activation::None)?,
        conv2d_input_grad(dy, w, x.shape(), &params)?,
        conv2d_weight_grad(x, dy, w.shape(), &params)?,
    ])
}

fn error(found: &Tensor, exact: &Tensor) -> Result<String> {
    let found = found.to_dtype(DType::F64)?.to_vec::<f64>()?;
    let exact = exact.to_vec::<f64>()?;
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let differences = || found.iter().zip(&exact).map(|(a, b)| (a - b).abs());
    let largest = differences().fold(0.0, f64::max) / exact.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let mean = (square(&mut differences()) / square(&mut exact.iter().copied())).sqrt();
    Ok(format!("{largest:.1e} {mean:.1e}"))
}
