//! Stochastic rounding: the expectation is the value, the variance is that of a coin, and the error is small.

use super::*;
use qkernels::rounding::{Clip, Format, Groups, Logarithmic, Quantizer};

/// Draws for each value.
const DRAWS: usize = 60_000;

/// Mean and variance of the rounded values of each of `values`, drawn in several steps of training.
fn moments(values: &[f32], quantize: impl Fn(&Tensor, Rounding) -> Tensor) -> Vec<[f64; 2]> {
    const STEPS: usize = 3;
    let x = Tensor::from_slice([1, values.len()], values).unwrap().expand([DRAWS / STEPS, values.len()]).unwrap();
    let mut sums = vec![[0.0; 2]; values.len()];
    for step in 0..STEPS {
        let rounding = Rounding::Stochastic(StreamKey { epoch: step as u32, ..key(5) });
        let rounded = quantize(&x, rounding).to_vec::<f32>().unwrap();
        for (i, y) in rounded.into_iter().enumerate() {
            // Around the value itself, so that nothing is lost.
            let error = f64::from(y) - f64::from(values[i % values.len()]);
            sums[i % values.len()][0] += error;
            sums[i % values.len()][1] += error * error;
        }
    }
    let draws = DRAWS as f64;
    sums.iter().map(|[sum, square]| [sum / draws, square / draws - (sum / draws).powi(2)]).collect()
}

/// Checks an unbiased choice between `lower` and `upper` for each value.
#[track_caller]
fn check(values: &[f32], neighbours: impl Fn(f64) -> [f64; 2], quantize: impl Fn(&Tensor, Rounding) -> Tensor) {
    for (x, [bias, variance]) in values.iter().zip(moments(values, quantize)) {
        let x = f64::from(*x);
        let [lower, upper] = neighbours(x);
        // At a code it is 0, but for the rounding of the code itself.
        let expected = ((x - lower) * (upper - x)).max(0.0);
        // Chances are multiples of 2^-16.
        let grain = (upper - lower) / 131_072.0;
        let standard_error = (expected / DRAWS as f64).sqrt();
        assert!(
            bias.abs() <= 5.0 * standard_error + 1.01 * grain,
            "{x} becomes {bias} more; the standard error is {standard_error}"
        );
        let spread = (upper - lower).powi(2) * 5.0 / (DRAWS as f64).sqrt();
        assert!((variance - expected).abs() <= 0.5 * spread, "{x} has variance {variance} instead of {expected}");
    }
}

#[test]
fn equally_spaced_codes_are_unbiased() {
    let values = [
        0.0, 0.1, -0.1, 0.499, 0.5, -0.5, 0.97, 1.0, -1.0, 3.3, -7.75, 63.4, -63.6, 126.01, -126.9, 127.0, -127.0,
        1e-3, -1e-3,
    ];
    for (format, scale) in [(Format::Signed, 1.0f32), (Format::Signed, 3e-9), (Format::Offset, 0.7)] {
        let values = values.map(|x| x * scale);
        let quantizer = Quantizer::new(format, Groups::Tensor, vec![scale]).unwrap();
        let step = f64::from(scale);
        let neighbours = |x: f64| [(x / step).floor() * step, ((x / step).floor() + 1.0).min(127.0) * step];
        let quantize = |x: &Tensor, rounding| quantizer.dequantize(&quantizer.quantize(x, rounding).unwrap()).unwrap();
        check(&values, neighbours, quantize);
    }
    let values = [0.0f32, 0.3, 1.5, 77.77, 200.2, 254.9, 255.0];
    let quantizer = Quantizer::new(Format::Unsigned, Groups::Tensor, vec![1.0]).unwrap();
    check(
        &values,
        |x| [x.floor(), (x.floor() + 1.0).min(255.0)],
        |x, rounding| quantizer.dequantize(&quantizer.quantize(x, rounding).unwrap()).unwrap(),
    );
    let affine =
        Quantizer::new(Format::AffineU8, Groups::Tensor, vec![0.5]).unwrap().with_zero_points(vec![20]).unwrap();
    check(
        &[-10.0, -9.9, -0.2, 0.0, 0.3, 60.6, 117.4],
        |x| [(2.0 * x).floor() / 2.0, ((2.0 * x).floor() + 1.0) / 2.0],
        |x, rounding| affine.dequantize(&affine.quantize(x, rounding).unwrap()).unwrap(),
    );
}

#[test]
fn dither_is_unbiased_within_its_range() {
    let x = gaussian(&[2000], 9);
    let quantizer = Quantizer::choose(&x, Groups::Tensor, Format::Signed, Clip::Dither(1.0)).unwrap();
    let step = f64::from(quantizer.scales()[0]);
    check(
        &x.to_vec::<f32>().unwrap()[..30],
        |x| [(x / step).floor() * step, ((x / step).floor() + 1.0) * step],
        |x, rounding| quantizer.dequantize(&quantizer.quantize(x, rounding).unwrap()).unwrap(),
    );
}

#[test]
fn logarithmic_codes_are_unbiased_even_below_the_smallest() {
    for (bits, maximum) in [(3, 6.0f32), (4, 1.0), (4, 3e-20), (8, 1.0), (8, 2.5e30)] {
        let levels = Logarithmic::levels_of_bits(bits);
        let quantizer = Logarithmic::new(levels, Groups::Tensor, vec![maximum]).unwrap();
        let smallest = f64::from(maximum) * 2f64.powi(1 - i32::from(levels));
        let shares = [1.0, 0.99, 0.75, -0.75, 0.5, 0.3, -0.26, 0.1, 0.011, -0.009];
        let below = [0.0, 1.0, 1.7, -1.1, 0.9, 0.5, -0.5, 0.01, -0.3];
        let values: Vec<f32> = shares
            .iter()
            .map(|x| (x * f64::from(maximum)) as f32)
            .chain(below.iter().map(|x| (x * smallest) as f32))
            .filter(|x| *x == 0.0 || x.abs() > 1e-36)
            .collect();
        let neighbours = |x: f64| {
            let magnitude = x.abs() / smallest;
            let lower = if magnitude < 1.0 { 0.0 } else { 2f64.powi(magnitude.log2().floor() as i32) };
            let upper = (lower * 2.0).clamp(1.0, f64::from(maximum) / smallest);
            let [a, b] = [lower * smallest * x.signum(), upper * smallest * x.signum()];
            [a.min(b), a.max(b)]
        };
        check(&values, neighbours, |x, rounding| {
            quantizer.dequantize(&quantizer.quantize(x, rounding).unwrap()).unwrap()
        });
    }
}

#[test]
fn gradients_have_small_errors() {
    let (dy, w) = (gaussian(&[256, 300], 1), gaussian(&[300, 64], 2));
    let exact = qkernels::matmul(&dy, &w).unwrap();
    let error = |format: Format, groups: Groups, clip: Clip, rounding: Rounding| {
        let quantizer = Quantizer::choose(&dy, groups, format, clip).unwrap();
        let back = quantizer.dequantize(&quantizer.quantize(&dy, rounding).unwrap()).unwrap();
        [relative_error(&back, &dy), relative_error(&qkernels::matmul(&back, &w).unwrap(), &exact)]
    };
    let stochastic = Rounding::Stochastic(key(3));
    for format in [Format::Signed, Format::Offset, Format::AffineI8] {
        for groups in [Groups::Tensor, Groups::Channels] {
            let [values, products] = error(format, groups, Clip::AbsMax, stochastic);
            assert!(values < 0.05 && products < 0.05, "{format:?}: {values} {products}");
        }
    }
    // A step of one deviation costs what theory says: √(1/6).
    let [values, _] = error(Format::Signed, Groups::Tensor, Clip::Dither(1.0), stochastic);
    assert!((values - 0.41).abs() < 0.02, "{values}");
}

#[test]
fn noise_differs_in_every_part_of_its_name() {
    let x = Tensor::full([4096], 0.5f32).unwrap();
    let quantizer = Quantizer::new(Format::Signed, Groups::Tensor, vec![1.0]).unwrap();
    let drawn = |key: StreamKey| codes(&quantizer.quantize(&x, Rounding::Stochastic(key)).unwrap());
    let base = key(0);
    let others = [
        StreamKey { seed: 12, ..base },
        StreamKey { purpose: Purpose::Dropout, ..base },
        StreamKey { epoch: 4, ..base },
        StreamKey { index: 1, ..base },
    ];
    let first = drawn(base);
    assert_eq!(drawn(base), first);
    for other in others {
        // As often equal as two coins.
        let equal = drawn(other).iter().zip(&first).filter(|(a, b)| a == b).count();
        assert!((1850..2250).contains(&equal), "{equal}");
    }
    let distance =
        |by: usize| first.iter().zip(&first[by..]).filter(|(a, b)| a == b).count() as f64 / (4096 - by) as f64;
    assert!((1..200).all(|by| (distance(by) - 0.5).abs() < 0.05));
}
