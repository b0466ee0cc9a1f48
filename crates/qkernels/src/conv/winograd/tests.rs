//! Against textbook loops in f64, on every instruction set, whatever the choice of algorithm would be for such shapes.

use super::{Ending, Filtering, Forward, forward, input_grad, weight_grad};
use crate::conv::{Conv2dParams, Geometry};
use crate::isa::Stored;
use crate::{Activation, isa, naive};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor, bf16};

/// Sizes: batch, channels, filters, height, width, padding of rows and of columns.
type Sizes = [usize; 7];

const RELU: Ending = Ending { residual: None, activation: Activation::Relu };

struct Case {
    geometry: Geometry,
    params: Conv2dParams,
    x: Tensor,
    dy: Tensor,
    w: Vec<Tensor>,
    bias: Tensor,
}

fn uniform(index: u64, shape: &[usize]) -> Result<Tensor> {
    Stream::new(StreamKey { seed: 3, purpose: Purpose::Test, epoch: 0, index }).uniform_tensor(shape, -1.0, 1.0)
}

impl Case {
    /// With a border that grows with the kernel, so that it fits the image.
    fn new([n, c, o, h, w, ph, pw]: Sizes, kernel: usize) -> Result<Case> {
        let params = Conv2dParams { padding: [ph, pw].map(|p| p + kernel / 2 - 1), ..Default::default() };
        let x = uniform(0, &[n, c, h, w])?;
        let geometry = Geometry::new("test", x.shape(), &[o, c, kernel, kernel], &params)?;
        Ok(Case {
            x: x.to_channels_last(),
            dy: uniform(1, &geometry.output_shape())?,
            w: (2..4).map(|i| uniform(i, &[o, c, kernel, kernel])).collect::<Result<_>>()?,
            bias: uniform(4, &[o])?,
            geometry,
            params,
        })
    }
}

fn f64s(x: &Tensor) -> Result<Vec<f64>> {
    x.to_dtype(DType::F64)?.to_vec::<f64>()
}

/// The largest difference, relative to the largest expected magnitude.
fn error(found: &Tensor, expected: &Tensor) -> Result<f64> {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (f64s(found)?, f64s(expected)?);
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    Ok(found.iter().zip(&expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest.max(1e-30))
}

/// What the error of a sum over `channels` may be. It grows with the root of their number, and so does the largest result.
fn bound(channels: usize) -> f64 {
    1.5e-6 + 2.5e-7 * (channels as f64).sqrt()
}

/// What the error in bf16 may be: values at the points are rounded to 8 bits, which the way back adds up to about 1.3 % of the root mean square of a result: a few times
/// that where it is the worst of thousands.
const HALF: f64 = 0.05;

fn check(sizes: Sizes) -> Result<()> {
    for kernel in [3, 5] {
        check_of::<f32>(sizes, kernel, bound)?;
        check_of::<bf16>(sizes, kernel, |_| HALF)?;
    }
    Ok(())
}

/// A forward pass without statistics.
fn of<'a, T>(projections: &'a [Filtering<'a>], ending: Ending<'a, T>, is_joined: bool) -> Forward<'a, T> {
    Forward { projections, ending, is_joined, is_measured: false }
}

fn check_of<T: Stored>(sizes: Sizes, kernel: usize, bound: impl Fn(usize) -> f64) -> Result<()> {
    let mut case = Case::new(sizes, kernel)?;
    (case.x, case.dy) = (case.x.to_dtype(T::DTYPE)?.to_channels_last(), case.dy.to_dtype(T::DTYPE)?);
    let (g, p) = (&case.geometry, &case.params);
    let bias = case.bias.as_slice::<f32>()?;
    let expected = naive::conv::conv2d(&case.x, &case.w[0], Some(&case.bias), p, Activation::LeakyRelu(0.1))?;
    let expected_dw = naive::conv::conv2d_weight_grad(&case.x, &case.dy, case.w[0].shape(), p)?;
    let expected_dx = naive::conv::conv2d_input_grad(&case.dy, &case.w[0], case.x.shape(), p)?;
    let leaky = Ending::<T> { residual: None, activation: Activation::LeakyRelu(0.1) };
    for isa in isa::available() {
        let y = forward(g, &case.x, &of(&[(&case.w[0], Some(bias))], leaky, false), isa)?.0;
        assert!(y[0].layout().is_channels_last() && y[0].dtype() == T::DTYPE);
        let found = error(&y[0], &expected)?;
        assert!(found < bound(g.channels), "forward, {isa:?}, kernel {kernel}, {sizes:?}: {found:e}");
        let dx = input_grad::<T>(g, &[(&case.dy, &case.w[0])], isa)?;
        assert!(dx.layout().is_channels_last() && dx.dtype() == T::DTYPE);
        let found = error(&dx, &expected_dx)?;
        assert!(found < bound(g.filters), "input gradient, {isa:?}, kernel {kernel}, {sizes:?}: {found:e}");
        let dw = weight_grad::<T>(g, &case.x, &[&case.dy], isa)?;
        let found = error(&dw[0], &expected_dw)?;
        assert!(
            found < bound(g.batch * g.out[0] * g.out[1]),
            "weight gradient, {isa:?}, kernel {kernel}, {sizes:?}: {found:e}"
        );
    }
    Ok(())
}

/// Images of 1 to 7 rows and columns with any padding, and numbers of channels on both sides of a vector's length.
#[test]
fn small_images_and_any_channels() -> Result<()> {
    let channels = [1, 2, 3, 8, 9, 16, 17, 24, 31, 33, 48, 64, 70];
    for height in 1..=7 {
        for width in 1..=7 {
            let i = height * 7 + width;
            let padding = [i % 3, (i / 2) % 3];
            let padding = [padding[0].max((4 - height.min(3)) / 2), padding[1].max((4 - width.min(3)) / 2)];
            check([1 + i % 3, channels[i % 13], channels[(i * 5 + 3) % 13], height, width, padding[0], padding[1]])?;
        }
    }
    Ok(())
}

/// Sizes that cross the blocks of tiles, panels and chunks of filters.
#[test]
fn larger_images_and_padding() -> Result<()> {
    for sizes in
        [[3, 16, 16, 33, 30, 1, 1], [1, 70, 150, 9, 10, 1, 0], [2, 130, 40, 12, 13, 3, 5], [9, 32, 32, 16, 16, 1, 1]]
    {
        check(sizes)?;
    }
    Ok(())
}

/// Several projections of one input give the bits of single ones; their input gradients are added, their weight gradients are apart.
#[test]
fn stacked_projections() -> Result<()> {
    for (sizes, kernel) in [([2, 16, 24, 9, 8, 1, 1], 3), ([1, 20, 40, 6, 5, 1, 0], 3), ([2, 16, 24, 9, 8, 1, 1], 5)] {
        let case = Case::new(sizes, kernel)?;
        let (g, w) = (&case.geometry, &case.w);
        let bias = case.bias.as_slice::<f32>()?;
        for isa in isa::available() {
            let both = forward(g, &case.x, &of(&[(&w[0], None), (&w[1], Some(bias))], RELU, false), isa)?.0;
            for (i, bias) in [None, Some(bias)].into_iter().enumerate() {
                let one = forward(g, &case.x, &of(&[(&w[i], bias)], RELU, false), isa)?.0;
                assert_eq!(both[i].to_vec::<f32>()?, one[0].to_vec::<f32>()?, "{isa:?}");
            }
            let joined = forward(g, &case.x, &of(&[(&w[0], None), (&w[1], Some(bias))], RELU, true), isa)?.0;
            assert_eq!(joined[0].to_vec::<f32>()?, Tensor::concatenate(&both, 0)?.to_vec::<f32>()?, "{isa:?}");
            let dws = weight_grad::<f32>(g, &case.x, &[&case.dy, &both[0], &both[1]], isa)?;
            for (dw, dy) in dws.iter().zip([&case.dy, &both[0], &both[1]]) {
                let expected = naive::conv::conv2d_weight_grad(&case.x, dy, w[0].shape(), &case.params)?;
                let found = error(dw, &expected)?;
                assert!(found < bound(g.batch * g.out[0] * g.out[1]), "{isa:?}: {found:e}");
            }
            let sum = input_grad::<f32>(g, &[(&case.dy, &w[0]), (&case.dy, &w[1])], isa)?;
            let parts = w.iter().map(|w| naive::conv::conv2d_input_grad(&case.dy, w, case.x.shape(), &case.params));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            let expected: Vec<f64> = f64s(&parts[0])?.iter().zip(f64s(&parts[1])?).map(|(a, b)| a + b).collect();
            let found = error(&sum, &Tensor::from_vec(case.x.shape(), expected)?)?;
            assert!(found < bound(2 * g.filters), "{isa:?}: {found:e}");
        }
    }
    Ok(())
}
