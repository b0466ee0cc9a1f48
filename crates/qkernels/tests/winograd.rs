//! Winograd's algorithm against textbook loops in f64, whatever the choice of algorithm would be for such shapes.
//! Which instruction set runs is the choice of `QUARTZ_ISA`.

use qkernels::conv::{
    Algorithm, Direction, Operands, Projection, conv2d_stacked, conv2d_stacked_input_grad, conv2d_stacked_joined,
    conv2d_stacked_weight_grad, explain, run_with,
};
use qkernels::{Activation, Conv2dParams, conv2d, naive};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

/// Sizes: batch, channels, filters, height, width, padding of rows and of columns.
type Sizes = [usize; 7];

struct Case {
    params: Conv2dParams,
    x: Tensor,
    dy: Tensor,
    w: [Tensor; 2],
    bias: Tensor,
}

fn uniform(index: u64, shape: &[usize]) -> Result<Tensor> {
    Stream::new(StreamKey { seed: 3, purpose: Purpose::Test, epoch: 0, index }).uniform_tensor(shape, -1.0, 1.0)
}

impl Case {
    /// With a border that grows with the kernel, so that it fits the image.
    fn new([n, c, o, h, w, ph, pw]: Sizes, kernel: usize) -> Result<Case> {
        let padding = [ph, pw].map(|p| p + kernel / 2 - 1);
        let out = |axis: usize| [h, w][axis] + 2 * padding[axis] + 1 - kernel;
        let filters = |index| uniform(index, &[o, c, kernel, kernel]);
        Ok(Case {
            params: Conv2dParams { padding, ..Default::default() },
            x: uniform(0, &[n, c, h, w])?.to_channels_last(),
            dy: uniform(1, &[n, o, out(0), out(1)])?,
            w: [filters(2)?, filters(3)?],
            bias: uniform(4, &[o])?,
        })
    }

    /// The same with images of that type.
    fn to_dtype(&self, dtype: DType) -> Result<Case> {
        let (x, dy) = (self.x.to_dtype(dtype)?.to_channels_last(), self.dy.to_dtype(dtype)?);
        Ok(Case { params: self.params, x, dy, w: self.w.clone(), bias: self.bias.clone() })
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
/// that where it is the worst of thousands, or where an image is so narrow that most taps see its border and results are small beside what the points hold.
const HALF: f64 = 0.06;

fn check(sizes: Sizes) -> Result<()> {
    for kernel in [3, 5] {
        let case = Case::new(sizes, kernel)?;
        check_case(&case, bound, &format!("{sizes:?}, kernel {kernel}"))?;
        check_case(&case.to_dtype(DType::BF16)?, |_| HALF, &format!("{sizes:?}, kernel {kernel}, bf16"))?;
    }
    Ok(())
}

fn check_case(case: &Case, bound: impl Fn(usize) -> f64, what: &str) -> Result<()> {
    let Case { params, x, dy, w: [w, _], .. } = case;
    let (pixels, filters) = (dy.numel() / w.shape()[0], w.shape()[0]);
    let expected = [
        (Direction::Forward, naive::conv::conv2d(x, w, None, params, Activation::None)?, x.shape()[1]),
        (Direction::InputGrad, naive::conv::conv2d_input_grad(dy, w, x.shape(), params)?, filters),
        (Direction::WeightGrad, naive::conv::conv2d_weight_grad(x, dy, w.shape(), params)?, pixels),
    ];
    for (direction, expected, length) in expected {
        let found = run_with(Algorithm::Winograd, direction, Operands { x, w, dy }, params)?;
        if direction != Direction::WeightGrad {
            assert!(found.layout().is_channels_last() && found.dtype() == x.dtype(), "{direction:?}, {what}");
        }
        let error = error(&found, &expected)?;
        assert!(error < bound(length), "{direction:?}, {what}: {error:e}");
    }
    Ok(())
}

/// Images of 1 to 7 rows and columns with any padding, and numbers of channels on both sides of a vector's length.
#[test]
fn small_images_and_any_channels() -> Result<()> {
    let channels = [8, 9, 11, 15, 16, 17, 24, 31, 32, 33, 48, 64, 70];
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
    for (sizes, kernel) in
        [([2, 32, 48, 13, 12, 1, 1], 3), ([3, 40, 70, 12, 9, 1, 0], 3), ([4, 32, 48, 16, 18, 1, 1], 5)]
    {
        let case = Case::new(sizes, kernel)?;
        let Case { params, x, dy, w, bias } = &case;
        for explanation in explain(params, x.shape(), w[0].shape())? {
            assert_eq!(explanation.choice, Algorithm::Winograd, "{sizes:?}, {:?}", explanation.direction);
        }
        let relu = Activation::Relu;
        let projections = [Projection { w: &w[0], bias: None }, Projection { w: &w[1], bias: Some(bias) }];
        let both = conv2d_stacked(x, &projections, params, relu)?;
        for (one, Projection { w, bias }) in both.iter().zip(projections) {
            assert_eq!(one.to_vec::<f32>()?, conv2d(x, w, bias, params, relu)?.to_vec::<f32>()?);
        }
        let joined = conv2d_stacked_joined(x, &projections, params, relu)?;
        assert_eq!(joined.to_vec::<f32>()?, Tensor::concatenate(&both, 0)?.to_vec::<f32>()?);
        let dys = [dy, &both[0], &both[1]];
        for (dw, dy) in conv2d_stacked_weight_grad(x, &dys, w[0].shape(), params)?.iter().zip(dys) {
            let error = error(dw, &naive::conv::conv2d_weight_grad(x, dy, w[0].shape(), params)?)?;
            assert!(error < bound(dy.numel() / w[0].shape()[0]), "{error:e}");
        }
        let sum = conv2d_stacked_input_grad(&[(dy, &w[0]), (dy, &w[1])], x.shape(), params)?;
        let part = |w| f64s(&naive::conv::conv2d_input_grad(dy, w, x.shape(), params)?);
        let expected: Vec<f64> = part(&w[0])?.iter().zip(part(&w[1])?).map(|(a, b)| a + b).collect();
        let error = error(&sum, &Tensor::from_vec(x.shape(), expected)?)?;
        assert!(error < bound(2 * w[0].shape()[0]), "{error:e}");
    }
    Ok(())
}
