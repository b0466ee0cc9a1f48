//! Prints the rounding errors of 3×3 and 5×5 convolutions, by Winograd's algorithm, directly, and by Winograd's algorithm in bf16, against f64: the figures of `docs/numerics.md`.
//!
//! Images, filters and gradients are normal numbers. The first figure is the largest error over the largest result, the second the root of the mean square
//! of the errors over that of the results.

use qkernels::{Activation, Conv2dParams, conv2d, conv2d_input_grad, conv2d_weight_grad};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

/// Batch, channels and side of square images.
const SHAPES: [[usize; 3]; 5] = [[8, 16, 32], [8, 64, 16], [4, 128, 16], [4, 256, 8], [8, 512, 4]];

fn main() -> Result<()> {
    for (kernel, [n, c, side]) in [3, 5].into_iter().flat_map(|kernel| SHAPES.map(|shape| (kernel, shape))) {
        // Values that bf16 holds exactly, so that all three see the same ones.
        let image = |index| normal(&[n, c, side, side], index)?.to_dtype(DType::BF16);
        let (x, dy, w) = (image(0)?, image(1)?, normal(&[c, c, kernel, kernel], 2)?);
        let exact = all([&x, &dy], &w, DType::F64, true)?;
        for (name, dtype, winograd) in
            [("Winograd", DType::F32, true), ("direct", DType::F32, false), ("Winograd in bf16", DType::BF16, true)]
        {
            let found = all([&x, &dy], &w, dtype, winograd)?;
            let errors: Result<Vec<String>> =
                found.iter().zip(&exact).map(|(found, exact)| error(found, exact)).collect();
            println!("{kernel}×{kernel}, {c:3} channels at {side:2}×{side:2}, {name:16}: {}", errors?.join("   "));
        }
    }
    Ok(())
}

fn normal(shape: &[usize], index: u64) -> Result<Tensor> {
    Stream::new(StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index }).normal_tensor(shape, 0.0, 1.0)
}

/// Output, input gradient and weight gradient, with images of a type.
fn all(images: [&Tensor; 2], w: &Tensor, dtype: DType, winograd: bool) -> Result<[Tensor; 3]> {
    let params = Conv2dParams { padding: [w.shape()[2] / 2; 2], winograd, ..Default::default() };
    let [x, dy] = images.map(|t| t.to_dtype(dtype));
    let (x, dy, w) = (x?, dy?, w.to_dtype(dtype.of_parameters())?);
    Ok([
        conv2d(&x, &w, None, &params, Activation::None)?,
        conv2d_input_grad(&dy, &w, x.shape(), &params)?,
        conv2d_weight_grad(&x, &dy, w.shape(), &params)?,
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
