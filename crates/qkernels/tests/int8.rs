//! Quantized kernels against nested loops, equal to the bit: shapes around the edges of tiles, strides, borders, groups, zero points, endings, threads.

use qkernels::i8::{self, Operands, Output, PackedWeights, Quantization};
use qkernels::naive::conv;
use qkernels::naive::int8::{self as naive, Layer};
use qkernels::par;
use qkernels::pool::PoolParams;
use qkernels::{Activation, Conv2dParams, isa};
use qtensor::{DType, Tensor};

/// Pseudo-random numbers of 32 bits.
fn numbers(count: usize, salt: u64) -> impl Iterator<Item = u32> {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    })
}

fn bytes(shape: &[usize], salt: u64) -> Tensor {
    let values = numbers(shape.iter().product(), salt).map(|x| x.to_le_bytes()[3]).collect();
    Tensor::from_vec::<u8>(shape, values).unwrap()
}

fn weights(shape: &[usize], salt: u64) -> Tensor {
    let values = numbers(shape.iter().product(), salt).map(|x| x.to_le_bytes()[3] as i8).collect();
    Tensor::from_vec::<i8>(shape, values).unwrap()
}

fn reals(count: usize, salt: u64, scale: f32) -> Vec<f32> {
    numbers(count, salt).map(|x| (x as f32 / u32::MAX as f32 - 0.5) * scale).collect()
}

/// The bits of a result in logical order.
fn bits(x: &Tensor) -> Vec<u32> {
    match x.dtype() {
        DType::U8 => x.to_vec::<u8>().unwrap().into_iter().map(u32::from).collect(),
        _ => x.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect(),
    }
}

/// Batch, input channels, height, width, filters, kernel height and width.
type Shape = [usize; 7];

const STRIDE_1: Conv2dParams =
    Conv2dParams { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1, winograd: true };

/// A number that gives results of a sensible size: the square root of what a filter sums.
fn step(w: &Tensor) -> f32 {
    let depth = w.numel() / w.shape()[0].max(1);
    0.02 * (depth.max(1) as f32).sqrt() * 75.0 * 75.0 * 0.01 / 64.0
}

/// Compares every ending of one convolution.
#[track_caller]
fn check(shape: Shape, params: Conv2dParams, zero_points: [u8; 3]) {
    let [batch, channels, height, width, filters, kernel_height, kernel_width] = shape;
    let x = bytes(&[batch, height, width, channels], 1).permute(&[0, 3, 1, 2]).unwrap();
    let w = weights(&[filters, channels / params.groups, kernel_height, kernel_width], 2);
    let scales: Vec<f32> = reals(filters, 3, 0.01).iter().map(|s| 0.01 + s).collect();
    let packed = PackedWeights::filters(&w, &scales, &params).unwrap();
    let [of_x, of_y, of_r] = zero_points;
    let input = Quantization { scale: 0.02, zero_point: of_x };
    let y = Quantization { scale: step(&w), zero_point: of_y };
    let real_bias = Tensor::from_vec([filters], reals(filters, 4, 3.0)).unwrap();
    let whole_bias = Tensor::from_vec([filters], numbers(filters, 5).map(|b| b as i32 >> 14).collect()).unwrap();
    let layer = |bias, residual, relu, output| Layer {
        x: &x,
        input,
        w: &w,
        scales: &scales,
        params,
        bias,
        residual,
        relu,
        output,
    };
    let plain = naive::conv2d(&layer(None, None, false, Output::F32)).unwrap();
    let r = bytes(plain.shape(), 6).to_channels_last();
    let residual = (&r, Quantization { scale: 1.3 * y.scale, zero_point: of_r });
    let row_major = x.contiguous();
    for (bias, residual, relu, output) in [
        (None, None, false, Output::F32),
        (Some(&real_bias), Some(residual), true, Output::F32),
        (Some(&whole_bias), None, false, Output::U8(y)),
        (Some(&real_bias), None, true, Output::U8(y)),
        (Some(&real_bias), Some(residual), true, Output::U8(y)),
        (None, Some(residual), false, Output::U8(y)),
    ] {
        let expected = naive::conv2d(&layer(bias, residual, relu, output)).unwrap();
        let x = if relu { &row_major } else { &x };
        let operands = Operands { x, input, weights: &packed, bias, residual, relu, output };
        let found = i8::conv2d(&operands).unwrap();
        assert_eq!(found.shape(), expected.shape());
        assert_eq!(found.dtype(), output.dtype_of_results());
        assert!(found.layout().is_channels_last());
        let differ = bits(&found).iter().zip(bits(&expected)).filter(|(a, b)| **a != *b).count();
        assert_eq!(
            differ,
            0,
            "{shape:?}, {params:?}, {zero_points:?}, relu {relu}, {output:?} on {}: {differ} of {} differ",
            isa::current().name(),
            found.numel()
        );
    }
}

trait Results {
    fn dtype_of_results(self) -> DType;
}

impl Results for Output {
    fn dtype_of_results(self) -> DType {
        match self {
            Output::U8(_) => DType::U8,
            Output::F32 => DType::F32,
        }
    }
}

#[test]
fn filters_and_pixels_around_every_edge_of_a_tile() {
    for filters in [1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 65] {
        check([1, 5, 4, 5, filters, 3, 3], Conv2dParams { padding: [1; 2], ..STRIDE_1 }, [7, 0, 128]);
    }
    for width in 1..=30 {
        check([1, 4, 1, width, 18, 1, 1], STRIDE_1, [3, 5, 9]);
    }
}

#[test]
fn channels_of_any_number_and_images_of_three() {
    for channels in 1..=18 {
        check([2, channels, 6, 5, 10, 3, 3], Conv2dParams { padding: [1; 2], ..STRIDE_1 }, [128, 0, 0]);
        check([2, channels, 3, 3, 10, 1, 1], STRIDE_1, [128, 3, 0]);
    }
    check([2, 3, 23, 19, 40, 7, 7], Conv2dParams { padding: [3; 2], stride: [2; 2], ..STRIDE_1 }, [0, 0, 0]);
    check([3, 3, 32, 32, 16, 3, 3], Conv2dParams { padding: [1; 2], ..STRIDE_1 }, [128, 0, 0]);
}

#[test]
fn strides_borders_and_dilations() {
    for stride in [[1, 1], [2, 2], [1, 3], [3, 2]] {
        for padding in [[0, 0], [1, 1], [2, 0], [0, 3]] {
            for dilation in [[1, 1], [2, 1], [1, 2], [2, 3]] {
                let params = Conv2dParams { stride, padding, dilation, ..STRIDE_1 };
                check([2, 6, 9, 11, 9, 3, 3], params, [7, 128, 7]);
                check([1, 8, 9, 8, 20, 2, 1], params, [0, 0, 0]);
            }
        }
    }
    // Rows and columns that no kernel sees, and a kernel that sees the border alone.
    check([2, 4, 7, 7, 5, 1, 1], Conv2dParams { stride: [4, 3], padding: [2, 3], ..STRIDE_1 }, [9, 0, 0]);
}

#[test]
fn groups_and_depthwise() {
    for (groups, channels, filters) in [(2, 6, 4), (3, 12, 51), (4, 16, 80), (5, 5, 10), (2, 64, 66), (7, 14, 7)] {
        let params = Conv2dParams { groups, padding: [1; 2], ..STRIDE_1 };
        check([2, channels, 5, 6, filters, 3, 3], params, [7, 0, 128]);
        check([1, channels, 4, 4, filters, 1, 1], Conv2dParams { groups, ..STRIDE_1 }, [7, 0, 128]);
    }
    for channels in [2, 7, 8, 16, 17, 40] {
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2)] {
            let (stride, dilation) = ([stride; 2], [dilation; 2]);
            let params = Conv2dParams { groups: channels, padding: [1; 2], stride, dilation, winograd: true };
            check([2, channels, 9, 11, channels, 3, 3], params, [7, 0, 128]);
            check([1, channels, 9, 9, channels, 5, 4], Conv2dParams { padding: [0; 2], ..params }, [255, 0, 128]);
        }
    }
    // So many taps that f32 could not hold their sums.
    let params = Conv2dParams { groups: 3, ..STRIDE_1 };
    check([1, 3, 25, 26, 3, 24, 24], params, [128, 0, 0]);
}

#[test]
fn wide_and_deep_layers() {
    check([2, 64, 8, 9, 64, 3, 3], Conv2dParams { padding: [1; 2], ..STRIDE_1 }, [0, 0, 0]);
    check([1, 96, 10, 7, 40, 3, 3], Conv2dParams { padding: [1; 2], ..STRIDE_1 }, [128, 3, 7]);
    check([3, 32, 4, 4, 33, 3, 3], Conv2dParams { padding: [0, 1], ..STRIDE_1 }, [7, 0, 128]);
    check([1, 32, 30, 33, 16, 3, 3], Conv2dParams { padding: [1, 2], ..STRIDE_1 }, [255, 255, 255]);
    check([1, 64, 12, 13, 32, 3, 3], Conv2dParams { padding: [1; 2], winograd: false, ..STRIDE_1 }, [1, 0, 0]);
    check([1, 300, 5, 5, 70, 1, 1], STRIDE_1, [128, 0, 0]);
}

#[test]
fn empty_tensors() {
    check([0, 3, 4, 4, 5, 3, 3], STRIDE_1, [1, 2, 3]);
    check([2, 0, 4, 4, 5, 3, 3], STRIDE_1, [1, 2, 3]);
    check([2, 3, 4, 4, 0, 3, 3], STRIDE_1, [1, 2, 3]);
}

#[test]
fn matrices() {
    for [m, k, n] in
        [[1, 1, 1], [5, 9, 17], [12, 64, 32], [13, 65, 33], [25, 130, 64], [200, 31, 7], [3, 1000, 100], [13, 4096, 35]]
    {
        let (x, w) = (bytes(&[m, k], 1), weights(&[n, k], 2));
        let scales = vec![0.013; n];
        let packed = PackedWeights::matrix(&w, &[0.013]).unwrap();
        let input = Quantization { scale: 0.02, zero_point: 128 };
        let output = Output::U8(Quantization { scale: step(&w), zero_point: 100 });
        let bias = Tensor::from_vec([n], reals(n, 4, 3.0)).unwrap();
        let r = bytes(&[m, n], 9);
        let of_r = Quantization { scale: 0.4, zero_point: 7 };
        let image = |x: &Tensor| x.reshape([x.shape()[0], x.shape()[1], 1, 1]).unwrap();
        let layer = Layer {
            x: &image(&x),
            input,
            w: &image(&w),
            scales: &scales,
            params: STRIDE_1,
            bias: Some(&bias),
            residual: Some((&image(&r), of_r)),
            relu: false,
            output,
        };
        let expected = bits(&naive::conv2d(&layer).unwrap());
        // A transposed operand, too.
        for x in [x.clone(), x.t().unwrap().contiguous().t().unwrap()] {
            let residual = Some((&r, of_r));
            let operands =
                Operands { x: &x, input, weights: &packed, bias: Some(&bias), residual, relu: false, output };
            let found = i8::matmul(&operands).unwrap();
            assert_eq!(found.shape(), [m, n]);
            assert_eq!(bits(&found), expected, "{m}×{k}×{n}");
        }
    }
}

#[test]
fn extreme_values_do_not_saturate() {
    for value in [-128i8, 127] {
        for (channels, kernel, side) in [(4, 1, 5), (7000, 1, 5), (32, 3, 9), (2048, 3, 5), (96, 3, 14), (128, 3, 14)] {
            let x = Tensor::full::<u8>([1, channels, side, side], 255).unwrap();
            let w = Tensor::full::<i8>([17, channels, kernel, kernel], value).unwrap();
            let packed = PackedWeights::filters(&w, &[1.0], &STRIDE_1).unwrap();
            let input = Quantization { scale: 1.0, zero_point: 0 };
            let (bias, residual, relu, output) = (None, None, false, Output::F32);
            let operands = Operands { x: &x, input, weights: &packed, bias, residual, relu, output };
            let expected = (255 * i32::from(value) * (channels * kernel * kernel) as i32) as f32;
            assert!(i8::conv2d(&operands).unwrap().to_vec::<f32>().unwrap().iter().all(|y| *y == expected));
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let cases: [(Shape, usize); 4] = [
        ([3, 64, 17, 18, 70, 3, 3], 1),
        ([4, 3, 33, 31, 40, 5, 5], 1),
        ([4, 48, 21, 20, 48, 3, 3], 48),
        ([3, 40, 30, 7, 200, 1, 1], 1),
    ];
    for ([n, c, h, w, o, kh, kw], groups) in cases {
        let x = bytes(&[n, c, h, w], 1);
        let params = Conv2dParams { padding: [kh / 2, kw / 2], groups, ..STRIDE_1 };
        let packed = PackedWeights::filters(&weights(&[o, c / groups, kh, kw], 2), &[0.01], &params).unwrap();
        let input = Quantization { scale: 0.02, zero_point: 3 };
        let (bias, residual, relu, output) = (None, None, false, Output::F32);
        let operands = Operands { x: &x, input, weights: &packed, bias, residual, relu, output };
        let runs: Vec<_> =
            (1..=4).map(|t| par::with_threads(t, || bits(&i8::conv2d(&operands).unwrap())).unwrap()).collect();
        assert!(runs.iter().all(|run| *run == runs[0]));
    }
}

#[test]
fn quantized_and_back() {
    for (shape, zero_point) in [(&[3, 5, 7, 3][..], 0), (&[2, 17], 7), (&[70_001], 128), (&[0, 3], 1)] {
        let mut values = reals(shape.iter().product(), 8, 9.0);
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.075, 0.125, -0.025, 1e30];
        values.iter_mut().zip(odd).for_each(|(value, odd)| *value = odd);
        let q = Quantization { scale: 0.05, zero_point };
        let x = Tensor::from_vec(shape, values.clone()).unwrap();
        let y = i8::quantize(&x, q).unwrap();
        let expected = naive::quantize(&values, q);
        assert_eq!(y.to_vec::<u8>().unwrap(), expected);
        let back = i8::dequantize(&y, q).unwrap();
        assert_eq!(back.to_vec::<f32>().unwrap(), naive::dequantize(&expected, q));
        for (value, back) in values.iter().zip(back.to_vec::<f32>().unwrap()) {
            let inside = (0.0..=255.0).contains(&(value / q.scale + f32::from(zero_point)));
            assert!(!inside || (value - back).abs() <= 0.5001 * q.scale, "{value} became {back}");
        }
    }
}

#[test]
fn sums_of_bytes() {
    let of = |scale, zero_point| Quantization { scale, zero_point };
    for (shape, relu) in [(&[2, 5, 7, 3][..], false), (&[3, 21], true), (&[70_001], true)] {
        let (a, b) = (bytes(shape, 1), bytes(shape, 2));
        let (of_a, of_b, y) = (of(0.02, 128), of(0.03, 7), of(0.037, 60));
        let found = i8::add([(&a, of_a), (&b, of_b)], y, relu).unwrap();
        let (a, b) = (a.to_vec::<u8>().unwrap(), b.to_vec::<u8>().unwrap());
        assert_eq!(found.to_vec::<u8>().unwrap(), naive::add([(&a, of_a), (&b, of_b)], y, relu));
    }
}

#[test]
fn pools() {
    for (channels, kernel, stride, padding, ceil_mode) in
        [(3, 2, 2, 0, false), (16, 3, 2, 1, false), (33, 3, 1, 1, true), (70, 2, 2, 1, true), (5, 4, 3, 2, true)]
    {
        for count_include_pad in [false, true] {
            let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
            let params = PoolParams { kernel, stride, padding, ceil_mode, count_include_pad };
            let x = bytes(&[2, channels, 9, 8], 3);
            let found = i8::max_pool2d(&x, &params).unwrap();
            assert_eq!(bits(&found), bits(&naive::pool(&x, &params, None).unwrap()));
            let found = i8::avg_pool2d(&x, &params, 9).unwrap();
            assert_eq!(bits(&found), bits(&naive::pool(&x, &params, Some(9)).unwrap()));
        }
        let x = bytes(&[3, channels, 7, 5], 4);
        let q = Quantization { scale: 0.07, zero_point: 7 };
        assert_eq!(bits(&i8::global_avg_pool2d(&x, q).unwrap()), bits(&naive::global_mean(&x, q).unwrap()));
    }
}

#[test]
fn results_stand_for_those_of_real_numbers() {
    let params = Conv2dParams { padding: [1; 2], ..STRIDE_1 };
    let (x, w) = (bytes(&[2, 32, 9, 8], 1), weights(&[24, 32, 3, 3], 2));
    let input = Quantization { scale: 0.02, zero_point: 128 };
    let y = Quantization { scale: 0.5, zero_point: 120 };
    let scales = reals(24, 3, 0.01);
    let bias = Tensor::from_vec([24], reals(24, 4, 9.0)).unwrap();
    let packed = PackedWeights::filters(&w, &scales, &params).unwrap();
    let (residual, relu, output) = (None, false, Output::U8(y));
    let operands = Operands { x: &x, input, weights: &packed, bias: Some(&bias), residual, relu, output };
    let found = i8::dequantize(&i8::conv2d(&operands).unwrap(), y).unwrap().to_vec::<f32>().unwrap();
    let mut real = w.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap();
    real.chunks_exact_mut(32 * 9).zip(&scales).for_each(|(w, scale)| w.iter_mut().for_each(|w| *w *= scale));
    let real = Tensor::from_vec(w.shape(), real).unwrap();
    let x = i8::dequantize(&x, input).unwrap();
    let expected = conv::conv2d(&x, &real, Some(&bias), &params, Activation::None).unwrap().to_vec::<f64>().unwrap();
    let range = f64::from(y.scale) * -120.0..=f64::from(y.scale) * 135.0;
    let inside: Vec<_> = found.iter().zip(&expected).filter(|(_, e)| range.contains(e)).collect();
    assert!(inside.len() > found.len() / 2);
    assert!(inside.iter().all(|(f, e)| (f64::from(**f) - **e).abs() <= 0.501 * f64::from(y.scale)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, w) = (bytes(&[1, 4, 5, 5], 1), weights(&[6, 4, 3, 3], 2));
    let packed = PackedWeights::filters(&w, &[0.1], &STRIDE_1).unwrap();
    let q = Quantization { scale: 0.1, zero_point: 0 };
    let good =
        Operands { x: &x, input: q, weights: &packed, bias: None, residual: None, relu: false, output: Output::U8(q) };
    assert!(i8::conv2d(&good).is_ok());
    let floats = x.to_dtype(DType::F32).unwrap();
    let (short, other) = (Tensor::zeros([5], DType::F32).unwrap(), Tensor::zeros([6], DType::F64).unwrap());
    let r = bytes(&[1, 6, 5, 5], 1);
    let zero = Quantization { scale: 0.0, zero_point: 0 };
    let nan = Quantization { scale: f32::NAN, zero_point: 0 };
    for bad in [
        Operands { x: &floats, ..good },
        Operands { x: &bytes(&[1, 3, 5, 5], 1), ..good },
        Operands { x: &bytes(&[1, 4, 2, 5], 1), ..good },
        Operands { x: &bytes(&[4, 4], 1), ..good },
        Operands { bias: Some(&short), ..good },
        Operands { bias: Some(&other), ..good },
        Operands { residual: Some((&r, q)), ..good },
        Operands { input: zero, ..good },
        Operands { output: Output::U8(nan), ..good },
    ] {
        assert!(i8::conv2d(&bad).is_err());
    }
    assert!(i8::matmul(&good).is_err());
    assert!(i8::matmul(&Operands { x: &bytes(&[3, 4], 1), ..good }).is_err(), "filters are no matrix");
    let matrix = PackedWeights::matrix(&weights(&[6, 4], 2), &[0.1]).unwrap();
    assert!(i8::matmul(&Operands { x: &bytes(&[3, 5], 1), weights: &matrix, ..good }).is_err());
    assert!(PackedWeights::matrix(&w, &[0.1]).is_err());
    assert!(PackedWeights::matrix(&bytes(&[6, 4], 1), &[0.1]).is_err());
    assert!(PackedWeights::filters(&w, &[0.1; 5], &STRIDE_1).is_err());
    assert!(PackedWeights::filters(&w, &[f32::INFINITY], &STRIDE_1).is_err());
    assert!(PackedWeights::filters(&w, &[0.1], &Conv2dParams { groups: 4, ..STRIDE_1 }).is_err());
    assert!(PackedWeights::matrix(&Tensor::zeros([2, 65_794], DType::I8).unwrap(), &[0.1]).is_err());
    assert!(i8::quantize(&x, q).is_err() && i8::dequantize(&floats, q).is_err());
    assert!(i8::add([(&x, q), (&r, q)], q, false).is_err());
    assert!(i8::max_pool2d(&floats, &PoolParams::new(2)).is_err());
    let far = Conv2dParams { padding: [usize::MAX / 64; 2], stride: [usize::MAX / 64; 2], ..STRIDE_1 };
    let far = PackedWeights::filters(&w, &[0.1], &far).unwrap();
    assert!(i8::conv2d(&Operands { weights: &far, ..good }).is_err());
}
