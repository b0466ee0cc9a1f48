//! Convolution and its gradients against textbook loops in f64, for every shape of argument, and against the identities that define them.
//! Which instruction set runs is the choice of `QUARTZ_ISA`.

use proptest::prelude::*;
use qkernels::conv::{Algorithm, Direction, Operands, explain, run_with};
use qkernels::{Activation, Conv2dParams, conv2d, conv2d_add, conv2d_input_grad, conv2d_weight_grad, naive, par};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

/// Physical layouts of an argument.
#[derive(Clone, Copy, Debug)]
enum Memory {
    RowMajor,
    ChannelsLast,
    /// Every second pixel of a larger channels-last image, channels in the middle of more.
    Sliced,
    /// Width and height exchanged in memory.
    Transposed,
}

#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    groups: usize,
    /// Channels and filters of one group.
    depth: [usize; 2],
    input: [usize; 2],
    kernel: [usize; 2],
    params: Conv2dParams,
    memory: [Memory; 3],
    activation: Activation,
    bias: bool,
    seed: u64,
}

impl Case {
    fn x_shape(&self) -> [usize; 4] {
        [self.batch, self.depth[0] * self.groups, self.input[0], self.input[1]]
    }
    fn w_shape(&self) -> [usize; 4] {
        [self.depth[1] * self.groups, self.depth[0], self.kernel[0], self.kernel[1]]
    }
    fn y_shape(&self) -> [usize; 4] {
        let p = &self.params;
        let out =
            |a: usize| (self.input[a] + 2 * p.padding[a] - p.dilation[a] * (self.kernel[a] - 1) - 1) / p.stride[a] + 1;
        [self.batch, self.depth[1] * self.groups, out(0), out(1)]
    }
    fn fits(&self) -> bool {
        (0..2).all(|a| self.input[a] + 2 * self.params.padding[a] > self.params.dilation[a] * (self.kernel[a] - 1))
    }
    fn tensor(&self, index: u64, shape: [usize; 4], memory: Memory) -> Result<Tensor> {
        let mut stream = Stream::new(StreamKey { seed: self.seed, purpose: Purpose::Test, epoch: 0, index });
        let [n, c, h, w] = shape;
        Ok(match memory {
            Memory::RowMajor => stream.uniform_tensor(shape, -1.0, 1.0)?,
            Memory::ChannelsLast => stream.uniform_tensor(shape, -1.0, 1.0)?.to_channels_last(),
            Memory::Sliced => stream
                .uniform_tensor([n, c + 3, 2 * h + 1, 2 * w + 1], -1.0, 1.0)?
                .to_channels_last()
                .slice(1, 2..c + 2)?
                .slice_step(2, 1..2 * h + 1, 2)?
                .slice_step(3, 0..2 * w, 2)?,
            Memory::Transposed => stream.uniform_tensor([n, c, w, h], -1.0, 1.0)?.permute(&[0, 1, 3, 2])?,
        })
    }
    fn arguments(&self) -> Result<[Tensor; 3]> {
        Ok([
            self.tensor(0, self.x_shape(), self.memory[0])?,
            self.tensor(1, self.w_shape(), self.memory[1])?,
            self.tensor(2, self.y_shape(), self.memory[2])?,
        ])
    }
}

fn f64s(x: &Tensor) -> Result<Vec<f64>> {
    x.to_dtype(DType::F64)?.to_vec::<f64>()
}

/// The largest error of Winograd's algorithm for the few channels of these tests, relative to the largest result: docs/numerics.md.
const WINOGRAD: f64 = 3e-6;

/// As [`assert_close`], with the errors of the algorithm that is chosen for these shapes.
fn assert_chosen(what: &str, found: &Tensor, expected: &Tensor, length: usize, is_winograd: bool) -> Result<()> {
    let largest = f64s(expected)?.into_iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    assert_within(what, found, expected, length, if is_winograd { WINOGRAD * largest } else { 0.0 })
}

/// Both agree to the rounding of `length` additions, whose partial sums of products of numbers in (-1, 1) stay near the root of `length`.
fn assert_close(what: &str, found: &Tensor, expected: &Tensor, length: usize) -> Result<()> {
    assert_within(what, found, expected, length, 0.0)
}

fn assert_within(what: &str, found: &Tensor, expected: &Tensor, length: usize, slack: f64) -> Result<()> {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    assert_eq!(found.dtype(), DType::F32, "{what}");
    let bound = slack + 6e-8 * (length as f64 + 4.0) * (1.0 + (length as f64).sqrt() / 2.0);
    for (i, (a, b)) in f64s(found)?.into_iter().zip(f64s(expected)?).enumerate() {
        assert!((a - b).abs() <= bound, "{what}, element {i}: {a} instead of {b} (bound {bound})");
    }
    Ok(())
}

fn check(case: &Case) -> Result<()> {
    let [x, w, dy] = case.arguments()?;
    let p = &case.params;
    let taps = case.kernel[0] * case.kernel[1];
    let bias = if case.bias { Some(dy.slice(0, 0..0)?.shape()[1]) } else { None };
    let bias = bias
        .map(|filters| {
            Stream::new(StreamKey { seed: case.seed, purpose: Purpose::Test, epoch: 1, index: 0 }).uniform_tensor(
                [filters],
                -1.0,
                1.0,
            )
        })
        .transpose()?;
    let [forward, of_input, of_weights] =
        explain(p, x.shape(), w.shape())?.map(|explanation| explanation.choice == Algorithm::Winograd);
    let y = conv2d(&x, &w, bias.as_ref(), p, case.activation)?;
    assert!(y.layout().is_channels_last());
    assert_chosen(
        "forward",
        &y,
        &naive::conv::conv2d(&x, &w, bias.as_ref(), p, case.activation)?,
        taps * case.depth[0],
        forward,
    )?;
    let sums = f64s(&naive::conv::conv2d(&x, &w, bias.as_ref(), p, Activation::None)?)?;
    let added = sums.iter().zip(f64s(&dy)?).map(|(sum, residual)| case.activation.apply(sum + residual));
    let added = Tensor::from_vec(y.shape(), added.collect::<Vec<f64>>())?;
    let with_residual = conv2d_add(&x, &w, bias.as_ref(), &dy, p, case.activation)?;
    assert_chosen("with a residual", &with_residual, &added, taps * case.depth[0], forward)?;
    let dx = conv2d_input_grad(&dy, &w, &case.x_shape(), p)?;
    assert!(dx.layout().is_channels_last());
    assert_chosen(
        "input gradient",
        &dx,
        &naive::conv::conv2d_input_grad(&dy, &w, &case.x_shape(), p)?,
        taps * case.depth[1],
        of_input,
    )?;
    let dw = conv2d_weight_grad(&x, &dy, &case.w_shape(), p)?;
    let expected = naive::conv::conv2d_weight_grad(&x, &dy, &case.w_shape(), p)?;
    assert_chosen("weight gradient", &dw, &expected, dy.numel() / case.y_shape()[1].max(1), of_weights)?;
    check_candidates(case, [&x, &w, &dy])
}

/// Every algorithm that fits the shape, not only the chosen one. Winograd's larger errors have tests of their own.
fn check_candidates(case: &Case, [x, w, dy]: [&Tensor; 3]) -> Result<()> {
    let p = &case.params;
    let taps = case.kernel[0] * case.kernel[1];
    for explanation in explain(p, x.shape(), w.shape())? {
        assert!(explanation.candidates.iter().any(|c| c.algorithm == explanation.choice));
        let (expected, length) = match explanation.direction {
            Direction::Forward => (naive::conv::conv2d(x, w, None, p, Activation::None)?, taps * case.depth[0]),
            Direction::InputGrad => (naive::conv::conv2d_input_grad(dy, w, &case.x_shape(), p)?, taps * case.depth[1]),
            Direction::WeightGrad => {
                (naive::conv::conv2d_weight_grad(x, dy, &case.w_shape(), p)?, dy.numel() / case.y_shape()[1].max(1))
            }
        };
        for candidate in explanation.candidates {
            let found = run_with(candidate.algorithm, explanation.direction, Operands { x, w, dy }, p)?;
            if candidate.algorithm != Algorithm::Winograd {
                assert_close(candidate.algorithm.name(), &found, &expected, length)?;
            }
        }
    }
    Ok(())
}

fn memory() -> impl Strategy<Value = Memory> {
    prop_oneof![Just(Memory::RowMajor), Just(Memory::ChannelsLast), Just(Memory::Sliced), Just(Memory::Transposed)]
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Relu),
        Just(Activation::Relu6),
        Just(Activation::LeakyRelu(0.1))
    ]
}

fn channels() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 2, 3, 5, 8, 16, 17, 24, 33, 48, 65])
}

prop_compose! {
    fn case()(
        batch in 0..=3usize,
        (groups, depth) in prop_oneof![
            4 => [channels(), channels()].prop_map(|d| (1, d)),
            2 => (2..=3usize, [1..=9usize, 1..=9usize]),
            2 => (channels(), Just([1, 1])),
            1 => (2..=5usize, 1..=3usize).prop_map(|(g, m)| (g, [1, m])),
        ],
        input in [1..=11usize, 1..=13usize],
        kernel in prop_oneof![4 => [1..=3usize, 1..=3usize], 1 => [1..=5usize, 1..=5usize], 1 => Just([7, 7])],
        stride in prop_oneof![2 => Just([1, 1]), 1 => [1..=3usize, 1..=3usize]],
        padding in prop_oneof![1 => Just([1, 1]), 2 => [0..=3usize, 0..=3usize]],
        dilation in prop_oneof![2 => Just([1, 1]), 1 => [1..=3usize, 1..=3usize]],
        winograd: bool,
        memory in [memory(), memory(), memory()],
        activation in activation(),
        bias: bool,
        seed: u64,
    ) -> Case {
        let params = Conv2dParams { stride, padding, dilation, groups, winograd };
        Case { batch, groups, depth, input, kernel, params, memory, activation, bias, seed }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_loops(case in case().prop_filter("the kernel must fit", Case::fits)) {
        check(&case).unwrap();
    }

    /// The three functions are one trilinear form: <conv(x, w), dy> = <x, input_grad> = <w, weight_grad>.
    #[test]
    fn gradients_are_adjoints(case in case().prop_filter("the kernel must fit", Case::fits)) {
        let [x, w, dy] = case.arguments().unwrap();
        let p = &case.params;
        let inner = |a: &Tensor, b: &Tensor| -> f64 { f64s(a).unwrap().iter().zip(f64s(b).unwrap()).map(|(a, b)| a * b).sum() };
        let y = inner(&conv2d(&x, &w, None, p, Activation::None).unwrap(), &dy);
        let through_x = inner(&x, &conv2d_input_grad(&dy, &w, &case.x_shape(), p).unwrap());
        let through_w = inner(&w, &conv2d_weight_grad(&x, &dy, &case.w_shape(), p).unwrap());
        let bound = 1e-6 * (1.0 + dy.numel() as f64 * ((w.numel() / case.y_shape()[1]) as f64).sqrt()).sqrt() + 1e-6 * y.abs();
        prop_assert!((y - through_x).abs() <= 10.0 * bound, "{y} {through_x}");
        prop_assert!((y - through_w).abs() <= 10.0 * bound, "{y} {through_w}");
    }
}

fn plain(batch: usize, [c, o]: [usize; 2], side: usize, kernel: usize, stride: usize, groups: usize) -> Case {
    Case {
        batch,
        groups,
        depth: [c / groups, o / groups],
        input: [side; 2],
        kernel: [kernel; 2],
        params: Conv2dParams { stride: [stride; 2], padding: [kernel / 2; 2], groups, ..Default::default() },
        memory: [Memory::ChannelsLast, Memory::RowMajor, Memory::ChannelsLast],
        activation: Activation::None,
        bias: false,
        seed: 7,
    }
}

/// Sizes that cross every block boundary: many bands, blocks of channels and of filters, many chunks of images.
#[test]
fn agrees_with_loops_across_blocks() -> Result<()> {
    let cases = [
        plain(3, [16, 16], 32, 3, 1, 1),
        plain(9, [3, 16], 32, 3, 1, 1),
        plain(2, [3, 40], 33, 7, 2, 1),
        plain(5, [272, 160], 4, 3, 1, 1),
        plain(2, [130, 300], 7, 1, 1, 1),
        plain(3, [64, 128], 16, 1, 2, 1),
        plain(17, [32, 48], 9, 3, 2, 1),
        plain(3, [130, 130], 17, 3, 1, 130),
        plain(2, [96, 64], 10, 3, 1, 2),
        plain(2, [3, 20], 21, 5, 1, 1),
        plain(3, [1, 24], 14, 5, 2, 1),
        plain(5, [48, 24], 13, 1, 1, 1),
        plain(3, [20, 20], 23, 5, 1, 20),
        plain(2, [40, 40], 29, 3, 2, 40),
        plain(2, [32, 32], 15, 7, 1, 32),
    ];
    cases.iter().try_for_each(check)
}

/// The split into tiles and chunks does not depend on the number of threads, so results do not either.
#[test]
fn same_bits_for_any_number_of_threads() -> Result<()> {
    for case in [
        plain(6, [16, 24], 16, 3, 1, 1),
        plain(40, [64, 96], 4, 3, 2, 1),
        plain(9, [48, 48], 12, 3, 1, 48),
        plain(7, [3, 16], 19, 3, 1, 1),
    ] {
        let [x, w, dy] = case.arguments()?;
        let all = || -> Result<Vec<Vec<u32>>> {
            let y = conv2d(&x, &w, None, &case.params, Activation::Relu)?;
            let dx = conv2d_input_grad(&dy, &w, &case.x_shape(), &case.params)?;
            let dw = conv2d_weight_grad(&x, &dy, &case.w_shape(), &case.params)?;
            [y, dx, dw].iter().map(|t| Ok(t.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())).collect()
        };
        let one = par::with_threads(1, all)??;
        for threads in 2..=4 {
            assert!(par::with_threads(threads, all)?? == one, "{threads} threads, {case:?}");
        }
    }
    Ok(())
}

/// `scipy.signal.correlate2d(x, w, "same")` of a small example, and a bias.
#[test]
fn a_small_example() -> Result<()> {
    let x = Tensor::from_vec([1, 1, 3, 3], (1..=9).map(|v| v as f32).collect())?;
    let w = Tensor::from_vec([1, 1, 3, 3], vec![-1.0f32, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0])?;
    let params = Conv2dParams { padding: [1; 2], ..Default::default() };
    let y = conv2d(&x, &w, None, &params, Activation::None)?;
    assert_eq!(y.to_vec::<f32>()?, [13.0, 20.0, 17.0, 18.0, 24.0, 18.0, -13.0, -20.0, -17.0]);
    let bias = Tensor::from_vec([1], vec![1.0f32])?;
    let y = conv2d(&x, &w, Some(&bias), &params, Activation::Relu)?;
    assert_eq!(y.to_vec::<f32>()?, [14.0, 21.0, 18.0, 19.0, 25.0, 19.0, 0.0, 0.0, 0.0]);
    let wide = [&x, &w].map(|t| t.to_dtype(DType::F64));
    let [x, w] = wide;
    let y = conv2d(&x?, &w?, None, &params, Activation::None)?;
    assert_eq!(y.dtype(), DType::F64);
    assert_eq!(y.to_vec::<f64>()?, [13.0, 20.0, 17.0, 18.0, 24.0, 18.0, -13.0, -20.0, -17.0]);
    Ok(())
}

/// An algorithm that does not fit is refused with its name, not run.
#[test]
fn algorithms_that_do_not_fit_are_refused() -> Result<()> {
    let case = plain(1, [8, 8], 6, 3, 2, 1);
    let [x, w, dy] = case.arguments()?;
    let operands = Operands { x: &x, w: &w, dy: &dy };
    for algorithm in [Algorithm::Depthwise, Algorithm::Pointwise, Algorithm::Winograd] {
        let error = run_with(algorithm, Direction::Forward, operands, &case.params).unwrap_err();
        assert!(error.to_string().contains(algorithm.name()), "{error}");
    }
    Ok(())
}

/// Padding far larger than the image costs no memory.
#[test]
fn giant_padding() -> Result<()> {
    let x = Tensor::full([1, 2, 1, 1], 3.0f32)?;
    let w = Tensor::full([1, 2, 1, 1], 2.0f32)?;
    let params = Conv2dParams { stride: [1 << 30; 2], padding: [1 << 30; 2], ..Default::default() };
    let y = conv2d(&x, &w, None, &params, Activation::None)?;
    assert_eq!(y.to_vec::<f32>()?, [0.0, 0.0, 0.0, 0.0, 12.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(conv2d_input_grad(&y, &w, &[1, 2, 1, 1], &params)?.to_vec::<f32>()?, [24.0; 2]);
    assert_eq!(conv2d_weight_grad(&x, &y, &[1, 2, 1, 1], &params)?.to_vec::<f32>()?, [36.0; 2]);
    Ok(())
}

/// An infinity or a NaN stays in the group of channels and the window where it is.
#[test]
fn infinities_do_not_spread() -> Result<()> {
    for groups in [1, 2, 4] {
        let mut values = vec![1.0f32; 4 * 36];
        values[0] = f32::INFINITY;
        values[35] = f32::NAN;
        let x = Tensor::from_vec([1, 4, 6, 6], values)?;
        let w = Tensor::full([4, 4 / groups, 3, 3], 1.0f32)?;
        let params = Conv2dParams { padding: [1; 2], groups, ..Default::default() };
        let y = conv2d(&x, &w, None, &params, Activation::None)?.to_vec::<f32>()?;
        let touched = |i: usize| {
            let (channel, row, column) = (i / 36, i / 6 % 6, i % 6);
            channel < 4 / groups && ((row < 2 && column < 2) || (row >= 4 && column >= 4))
        };
        assert!(y.iter().enumerate().all(|(i, y)| y.is_finite() != touched(i)), "{groups} groups: {y:?}");
    }
    Ok(())
}

#[test]
fn wrong_arguments_are_values() -> Result<()> {
    let x = Tensor::zeros([2, 4, 5, 5], DType::F32)?;
    let plain = Conv2dParams::default();
    let message = |w: [usize; 4], p: &Conv2dParams| {
        conv2d(&x, &Tensor::zeros(w, DType::F32).unwrap(), None, p, Activation::None).unwrap_err().to_string()
    };
    for w in [[3, 4, 6, 1], [3, 3, 1, 1], [3, 4, 0, 1]] {
        assert!(message(w, &plain).starts_with("conv2d: input 2×4×5×5, weights 3×"), "{}", message(w, &plain));
    }
    for params in [
        Conv2dParams { stride: [0, 1], ..plain },
        Conv2dParams { dilation: [1, 0], ..plain },
        Conv2dParams { groups: 0, ..plain },
        Conv2dParams { groups: 3, ..plain },
        Conv2dParams { padding: [usize::MAX / 2, 0], ..plain },
        Conv2dParams { dilation: [usize::MAX, 1], ..plain },
    ] {
        assert!(message([4, 4, 3, 3], &params).contains("2×4×5×5"), "{params:?}");
    }
    let w = Tensor::zeros([3, 4, 3, 3], DType::F32)?;
    let dy = Tensor::zeros([2, 3, 3, 4], DType::F32)?;
    assert!(conv2d_input_grad(&dy, &w, &[2, 4, 5, 5], &plain).unwrap_err().to_string().contains("2×3×3×3"));
    assert!(conv2d_weight_grad(&x, &dy, &[3, 4, 3, 3], &plain).unwrap_err().to_string().contains("2×3×3×4"));
    let bias = Tensor::zeros([4], DType::F32)?;
    assert!(conv2d(&x, &w, Some(&bias), &plain, Activation::None).unwrap_err().to_string().contains("bias"));
    let whole = Tensor::zeros([3, 4, 3, 3], DType::I32)?;
    assert!(conv2d(&x, &whole, None, &plain, Activation::None).is_err());
    Ok(())
}
