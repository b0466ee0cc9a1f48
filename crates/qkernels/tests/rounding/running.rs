//! Ranges from earlier steps.

use super::*;
use qkernels::rounding::{Clip, Format, Groups, Order, Quantizer, RunningRange, Statistics};

/// The tensor of a step: its magnitude drifts.
fn step(i: u64) -> Tensor {
    let scale = 1.0 + 0.1 * i as f32;
    stream(i).normal_tensor([33, 8, 5, 4], 0.2, scale).unwrap()
}

#[test]
fn averages_follow_the_formula_in_one_pass() {
    for (format, clip) in [
        (Format::Signed, Clip::AbsMax),
        (Format::Unsigned, Clip::AbsMax),
        (Format::Offset, Clip::Sawb),
        (Format::Signed, Clip::Dither(0.1)),
        (Format::AffineU8, Clip::AbsMax),
    ] {
        let (decay, margin) = (0.9, 1.25);
        let mut running = RunningRange::new(format, clip, decay, margin).unwrap();
        assert_eq!(running.quantizer(), None);
        let mut average: Option<[f64; 6]> = None;
        for i in 0..6 {
            let x = step(i);
            let s = Statistics::of(&x, &Groups::Tensor).unwrap()[0];
            let [nonzero, sum, squares, magnitudes] =
                [s.nonzero, s.sum, s.sum_of_squares, s.sum_of_magnitudes].map(|sum| sum / s.count);
            let new = [nonzero, s.min, s.max, sum, squares, magnitudes];
            let before = average;
            average = Some(before.map_or(new, |old| std::array::from_fn(|i| decay * old[i] + (1.0 - decay) * new[i])));
            let expected = running.quantizer();
            let order = if i % 2 == 0 { Order::Same } else { Order::BatchInnermost };
            let rounding = Rounding::Stochastic(key(i));
            let (found, quantizer) = running.quantize(&x, rounding, order).unwrap();
            if let Some(expected) = expected {
                assert_eq!(quantizer, expected);
            }
            let plain = match order {
                Order::Same => quantizer.quantize(&x, rounding).unwrap(),
                Order::BatchInnermost => quantizer.quantize_batch_innermost(&x, rounding).unwrap(),
            };
            assert_eq!(codes(&found), codes(&plain));
            for (found, expected) in running.state().unwrap().iter().zip(average.unwrap()) {
                assert!((found - expected).abs() <= 1e-12 * (1.0 + expected.abs()));
            }
            // The range is that of the averages before this step, or of the first step itself.
            let [_, min, max, mean, square, _] = before.unwrap_or(new);
            let scale = f64::from(quantizer.scales()[0]);
            let expected = match (format, clip) {
                (Format::AffineU8, _) => margin * (max - min) / 255.0,
                (Format::Unsigned, _) => margin * max.max(-min) / 255.0,
                (_, Clip::AbsMax) => margin * max.max(-min) / 127.0,
                (_, Clip::Dither(step)) => margin * step * (square - mean * mean).sqrt(),
                _ => scale,
            };
            assert!((scale / expected - 1.0).abs() < 1e-6, "{format:?} {clip:?}: {scale} instead of {expected}");
        }
    }
}

#[test]
fn steady_data_get_the_range_of_a_choice() {
    let x = step(1);
    for clip in [Clip::AbsMax, Clip::Sawb, Clip::Dither(0.2)] {
        let mut running = RunningRange::new(Format::Signed, clip, 0.99, 1.0).unwrap();
        for _ in 0..4 {
            running.quantize(&x, Rounding::Nearest, Order::Same).unwrap();
        }
        let chosen = Quantizer::choose(&x, Groups::Tensor, Format::Signed, clip).unwrap();
        let scale = running.quantizer().unwrap().scales()[0];
        assert!((scale / chosen.scales()[0] - 1.0).abs() < 1e-6);
    }
}

#[test]
fn a_restored_range_goes_on_with_the_same_bits() {
    let new = || RunningRange::new(Format::Signed, Clip::Sawb, 0.9, 1.0).unwrap();
    let mut whole = new();
    let mut restored = new();
    restored.restore(new().state()).unwrap();
    for i in 0..5 {
        let (expected, _) = whole.quantize(&step(i), Rounding::Stochastic(key(i)), Order::Same).unwrap();
        let (found, _) = restored.quantize(&step(i), Rounding::Stochastic(key(i)), Order::Same).unwrap();
        assert_eq!(codes(&found), codes(&expected));
        let state = restored.state();
        restored = new();
        restored.restore(state).unwrap();
    }
    assert_eq!(restored, whole);
    for bad in [
        [f64::NAN, 0.0, 0.0, 0.0, 0.0, 0.0],
        [2.0, 0.0, 1.0, 0.0, 1.0, 1.0],
        [1.0, 1.0, 0.0, 0.0, 1.0, 1.0],
        [1.0, 0.0, 1.0, 0.0, -1.0, 1.0],
    ] {
        assert!(restored.restore(Some(bad)).is_err());
    }
}

#[test]
fn empty_steps_and_refusals() {
    let mut running = RunningRange::new(Format::Signed, Clip::AbsMax, 0.9, 1.0).unwrap();
    let nothing = Tensor::zeros([0, 3, 2, 2], DType::F32).unwrap();
    let (found, quantizer) = running.quantize(&nothing, Rounding::Nearest, Order::BatchInnermost).unwrap();
    assert_eq!((found.shape().dims(), quantizer.scales(), running.state()), (&[3, 2, 2, 0][..], &[1.0][..], None));
    running.quantize(&step(1), Rounding::Nearest, Order::Same).unwrap();
    let before = running.clone();
    running.quantize(&nothing, Rounding::Nearest, Order::Same).unwrap();
    let mut bad = step(2);
    bad.memory_mut::<f32>().unwrap()[7] = f32::NAN;
    assert!(running.quantize(&bad, Rounding::Nearest, Order::BatchInnermost).is_err());
    // Neither nothing nor a refused tensor changes the averages.
    assert_eq!(running, before);
    for clip in [Clip::Mse, Clip::Percentile(99.0), Clip::Dither(-1.0)] {
        assert!(RunningRange::new(Format::Signed, clip, 0.9, 1.0).is_err());
    }
    for (decay, margin) in [(1.0, 1.0), (-0.1, 1.0), (f64::NAN, 1.0), (0.9, 0.5), (0.9, f64::INFINITY)] {
        assert!(RunningRange::new(Format::Signed, Clip::AbsMax, decay, margin).is_err());
    }
}
