//! Codes with the batch innermost.

use super::common::{ARRANGEMENTS, arranged, values};
use super::*;
use qkernels::par;
use qkernels::rounding::{Clip, Format, Groups, Quantizer, Statistics};

const SHAPES: [&[usize]; 12] = [
    &[64, 16, 4, 4],
    &[65, 33, 3, 5],
    &[1, 20, 3, 3],
    &[3, 64, 9, 1],
    &[100, 40, 2, 2],
    &[700, 17, 2, 1],
    &[530, 3, 4, 4],
    &[128, 300],
    &[37, 1],
    &[5],
    &[16, 2, 3, 2, 18],
    &[4, 0, 2, 2],
];

#[test]
fn as_codes_of_the_transposed_tensor() {
    for shape in SHAPES {
        let plain = values(shape, 4, 3.0);
        let quantizer = Quantizer::choose(&plain, Groups::Tensor, Format::Signed, Clip::Percentile(99.0)).unwrap();
        let axes: Vec<usize> = (1..shape.len()).chain([0]).collect();
        let transposed = plain.permute(&axes).unwrap().contiguous();
        for rounding in [Rounding::Nearest, Rounding::Stochastic(key(9))] {
            // In row-major order places are those of the batch-innermost codes.
            let expected = quantizer.quantize(&transposed, rounding).unwrap();
            for how in 0..ARRANGEMENTS {
                let x = arranged(&plain, how);
                let (found, statistics) = quantizer.quantize_batch_innermost_and_measure(&x, rounding).unwrap();
                assert_eq!(found.shape(), expected.shape());
                assert!(found.layout().is_contiguous());
                assert!(codes(&found) == codes(&expected), "{shape:?} in order {how}");
                let same = quantizer.quantize_batch_innermost(&x, rounding).unwrap();
                assert!(codes(&same) == codes(&expected));
                assert_statistics(&statistics, &plain);
            }
        }
    }
}

/// Statistics against plain sums.
#[track_caller]
fn assert_statistics(found: &Statistics, x: &Tensor) {
    let x: Vec<f64> = x.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * (x.len() as f64 + b.abs()), "{a} instead of {b}");
    assert_eq!(found.count, x.len() as f64);
    assert_eq!(found.nonzero, x.iter().filter(|x| **x != 0.0).count() as f64);
    assert_eq!(found.min, x.iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(found.max, x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    close(found.sum, x.iter().sum());
    close(found.sum_of_squares, x.iter().map(|x| x * x).sum());
    close(found.sum_of_magnitudes, x.iter().map(|x| x.abs()).sum());
}

#[test]
fn other_formats() {
    let x = values(&[70, 20, 3, 3], 4, 3.0).to_channels_last();
    let transposed = x.permute(&[1, 2, 3, 0]).unwrap().contiguous();
    for format in [Format::Unsigned, Format::Offset, Format::AffineU8, Format::AffineI8] {
        let quantizer = Quantizer::choose(&x, Groups::Tensor, format, Clip::AbsMax).unwrap();
        let found = quantizer.quantize_batch_innermost(&x, Rounding::Nearest).unwrap();
        assert_eq!(codes(&found), codes(&quantizer.quantize(&transposed, Rounding::Nearest).unwrap()));
        let back = quantizer.dequantize(&found).unwrap();
        let expected = quantizer.dequantize(&quantizer.quantize(&x, Rounding::Nearest).unwrap()).unwrap();
        assert_eq!(back.permute(&[3, 0, 1, 2]).unwrap().to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    }
}

#[test]
fn repeated_values_and_slices_of_batches() {
    let quantizer = Quantizer::new(Format::Signed, Groups::Tensor, vec![0.02]).unwrap();
    let one = values(&[1, 40, 3, 3], 4, 3.0);
    let inner = values(&[40, 3, 3, 70], 4, 3.0).permute(&[3, 0, 1, 2]).unwrap();
    for x in [
        one.expand([70, 40, 3, 3]).unwrap(),
        one.to_channels_last().expand([70, 40, 3, 3]).unwrap(),
        values(&[70, 1, 3, 3], 4, 3.0).expand([70, 40, 3, 3]).unwrap(),
        inner.slice(0, 7..40).unwrap(),
        inner.slice_step(0, 1..70, 3).unwrap().slice(1, 2..33).unwrap(),
    ] {
        let expected = quantizer.quantize(&x.permute(&[1, 2, 3, 0]).unwrap().contiguous(), Rounding::Nearest).unwrap();
        assert!(codes(&quantizer.quantize_batch_innermost(&x, Rounding::Nearest).unwrap()) == codes(&expected));
    }
}

#[test]
fn the_same_for_any_number_of_threads() {
    let plain = values(&[96, 40, 11, 10], 4, 3.0);
    for x in [plain.to_channels_last(), plain] {
        let run = |threads: usize| {
            par::with_threads(threads, || {
                let quantizer = Quantizer::choose(&x, Groups::Tensor, Format::Signed, Clip::Sawb).unwrap();
                let rounding = Rounding::Stochastic(key(7));
                let (found, statistics) = quantizer.quantize_batch_innermost_and_measure(&x, rounding).unwrap();
                (codes(&found), statistics)
            })
            .unwrap()
        };
        let expected = run(1);
        assert!((2..=4).all(|threads| run(threads) == expected));
    }
    assert!(
        Quantizer::new(Format::Signed, Groups::Tensor, vec![1.0])
            .unwrap()
            .quantize_batch_innermost(&Tensor::scalar(1.0f32), Rounding::Nearest)
            .is_err()
    );
}

#[test]
fn statistics_of_groups() {
    let x = values(&[5, 40_000], 8, 2.0);
    for (channel, found) in Statistics::of(&x, &Groups::Channels).unwrap().iter().enumerate() {
        assert_statistics(found, &x.select(0, channel).unwrap());
    }
    let mut sparse = values(&[999], 8, 2.0);
    sparse.memory_mut::<f32>().unwrap().iter_mut().step_by(3).for_each(|x| *x = 0.0);
    assert_statistics(&Statistics::of(&sparse, &Groups::Tensor).unwrap()[0], &sparse);
    // A constant has no deviation, however its sums are rounded.
    let constant = Statistics::of(&Tensor::full([1000], 0.1f32).unwrap(), &Groups::Tensor).unwrap()[0];
    assert_eq!(constant.deviation(), 0.0);
    let deviation = Statistics::of(&gaussian(&[200_000], 3), &Groups::Tensor).unwrap()[0].deviation();
    assert!((deviation - 1.0).abs() < 0.01);
}
