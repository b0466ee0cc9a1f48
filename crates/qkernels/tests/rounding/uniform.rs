//! Equally spaced codes.

use super::common::{ARRANGEMENTS, arranged, values};
use super::*;
use qkernels::par;
use qkernels::rounding::{Clip, Format, Groups, Logarithmic, Quantizer};
use qtensor::Error;
use std::sync::Arc;

const FORMATS: [Format; 5] = [Format::Signed, Format::Unsigned, Format::Offset, Format::AffineI8, Format::AffineU8];

/// Every code of a tensor against the formula. `group` gives that of an index in memory.
#[track_caller]
fn check(quantizer: &Quantizer, x: &Tensor, rounding: Rounding, group: impl Fn(usize) -> usize) {
    let found = quantizer.quantize(x, rounding).unwrap();
    assert_eq!(found.dtype(), quantizer.format().dtype());
    assert_eq!(found.shape(), x.shape());
    let real = quantizer.dequantize(&found).unwrap();
    assert_eq!(real.strides(), found.strides());
    let limits = quantizer.format().range();
    // The values in the order of the codes' memory.
    let mut ordered = real.empty_like();
    ordered.copy_from(x).unwrap();
    let (x, real) = (ordered.memory::<f32>().unwrap(), real.memory::<f32>().unwrap());
    for (place, code) in codes(&found).into_iter().enumerate() {
        let (scale, zero) = (quantizer.scales()[group(place)], quantizer.zero_points()[group(place)]);
        let y = f64::from(x[place]) / f64::from(scale);
        assert!((limits[0]..=limits[1]).contains(&code));
        assert_code(code - zero, y, limits.map(|l| l - zero), noise(rounding, place));
        assert_eq!(f64::from(real[place]), f64::from((f64::from(scale) * f64::from(code - zero)) as f32));
    }
}

#[test]
fn codes_follow_the_formula_in_every_order_of_memory() {
    for shape in [&[2, 5, 6, 7][..], &[3, 129], &[1000], &[]] {
        for how in 0..ARRANGEMENTS {
            let x = arranged(&values(shape, 3, 2.5), how);
            for format in FORMATS {
                for clip in [Clip::AbsMax, Clip::Percentile(90.0)] {
                    let quantizer = Quantizer::choose(&x, Groups::Tensor, format, clip).unwrap();
                    check(&quantizer, &x, Rounding::Nearest, |_| 0);
                    check(&quantizer, &x, Rounding::Stochastic(key(1)), |_| 0);
                }
            }
        }
    }
}

#[test]
fn channels_and_rows_have_scales_of_their_own() {
    for how in 0..ARRANGEMENTS {
        let x = arranged(&values(&[6, 5, 3, 11], 3, 2.5), how);
        for format in FORMATS {
            let quantizer = Quantizer::choose(&x, Groups::Channels, format, Clip::AbsMax).unwrap();
            assert_eq!(quantizer.scales().len(), 6);
            check(&quantizer, &x, Rounding::Nearest, |place| place / 165);
            check(&quantizer, &x, Rounding::Stochastic(key(2)), |place| place / 165);
        }
    }
    // Rows of a sparse matrix: some are empty, and some are longer than one thread's share.
    let starts = [0, 0, 3, 3, 200, 50_200, 90_000, 90_000];
    let x = values(&[90_000], 9, 4.0);
    let rows = Groups::Rows(Arc::from(starts));
    let quantizer = Quantizer::choose(&x, rows, Format::Signed, Clip::Mse).unwrap();
    assert_eq!((quantizer.scales().len(), quantizer.scales()[0], quantizer.scales()[6]), (7, 1.0, 1.0));
    let row = |place: usize| starts.partition_point(|start| *start <= place) - 1;
    check(&quantizer, &x, Rounding::Nearest, row);
    check(&quantizer, &x, Rounding::Stochastic(key(4)), row);
}

#[test]
fn magnitude_does_not_matter() {
    let x = values(&[3000], 1, 1.0);
    let scaled = |power: i32| {
        Tensor::from_vec([3000], x.to_vec::<f32>().unwrap().iter().map(|x| x * 2f32.powi(power)).collect())
    };
    for clip in [Clip::AbsMax, Clip::Percentile(99.0), Clip::Mse, Clip::Sawb, Clip::Dither(0.05)] {
        let quantized = |power: i32| {
            let x = scaled(power).unwrap();
            let quantizer = Quantizer::choose(&x, Groups::Tensor, Format::Signed, clip).unwrap();
            codes(&quantizer.quantize(&x, Rounding::Nearest).unwrap())
        };
        let (expected, tiny, huge) = (quantized(0), quantized(-100), quantized(120));
        assert!(expected.iter().any(|q| q.abs() > 20));
        // Powers of two change no digit, but the least error is found by comparing sums.
        assert!(expected == tiny && expected == huge, "{clip:?}");
    }
    // The smallest subnormal and the largest number keep their signs and zeros.
    for extreme in [f32::from_bits(1), f32::MAX] {
        let x = Tensor::from_vec([3], vec![-extreme, 0.0, extreme]).unwrap();
        let quantizer = Quantizer::choose(&x, Groups::Tensor, Format::Signed, Clip::AbsMax).unwrap();
        let codes = codes(&quantizer.quantize(&x, Rounding::Nearest).unwrap());
        assert_eq!((codes[1], codes[0]), (0, -codes[2]));
        assert!(extreme < 1.0 || codes[2] == 127);
    }
}

#[test]
fn zeros_and_nothing() {
    for format in FORMATS {
        for clip in [Clip::AbsMax, Clip::Percentile(50.0), Clip::Mse, Clip::Sawb] {
            for shape in [&[40][..], &[0], &[3, 0, 2]] {
                let x = Tensor::zeros(shape, DType::F32).unwrap();
                let quantizer = Quantizer::choose(&x, Groups::Tensor, format, clip).unwrap();
                assert_eq!(quantizer.scales(), [1.0]);
                let found = quantizer.quantize(&x, Rounding::Stochastic(key(0))).unwrap();
                assert!(codes(&found).iter().all(|q| *q == quantizer.zero_points()[0]));
                assert_eq!(quantizer.dequantize(&found).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
            }
        }
    }
}

#[test]
fn affine_codes_keep_zero_and_use_all_codes() {
    let mut random = stream(2);
    for [low, high] in [[-0.3, 2.0], [1.0, 3.0], [-7.0, -2.0], [-1e-30, 3e-30]] {
        let x = random.uniform_tensor([5000], low, high).unwrap();
        for format in [Format::AffineI8, Format::AffineU8] {
            let quantizer = Quantizer::choose(&x, Groups::Tensor, format, Clip::AbsMax).unwrap();
            let [scale, width] = [quantizer.scales()[0], high.max(0.0) - low.min(0.0)];
            assert!((scale * 255.0 / width - 1.0).abs() < 0.01);
            let zero = Tensor::zeros([1], DType::F32).unwrap();
            let back = |x: &Tensor| quantizer.dequantize(&quantizer.quantize(x, Rounding::Nearest).unwrap()).unwrap();
            assert_eq!(back(&zero).item().unwrap(), 0.0);
            for (x, y) in x.to_vec::<f32>().unwrap().iter().zip(back(&x).to_vec::<f32>().unwrap()) {
                // The zero point is rounded too.
                assert!((x - y).abs() <= 1.001 * scale);
            }
        }
    }
}

#[test]
fn the_straight_through_rule_stops_at_the_range() {
    for how in 0..ARRANGEMENTS {
        let x = arranged(&values(&[4, 3, 5, 7], 6, 2.0), how);
        let dy = arranged(&values(&[4, 3, 5, 7], 8, 1.0), how + 1);
        for (format, groups) in [
            (Format::Signed, Groups::Tensor),
            (Format::Unsigned, Groups::Channels),
            (Format::AffineU8, Groups::Channels),
        ] {
            let quantizer = Quantizer::choose(&x, groups, format, Clip::Percentile(70.0)).unwrap();
            let dx = quantizer.gradient(&x, &dy).unwrap().to_vec::<f32>().unwrap();
            let mask = quantizer.clip_mask(&x).unwrap().to_vec::<u8>().unwrap();
            let (x, dy) = (x.to_vec::<f32>().unwrap(), dy.to_vec::<f32>().unwrap());
            let mut passed = 0;
            for i in 0..x.len() {
                let group = i / 105 * usize::from(quantizer.scales().len() > 1);
                let zero = quantizer.zero_points()[group];
                let [lowest, highest] = format.range().map(|code| f64::from(code - zero));
                let y = f64::from(x[i]) / f64::from(quantizer.scales()[group]);
                let passes = y >= lowest - 0.5 && y <= highest + 0.5;
                assert_eq!((mask[i], dx[i]), (u8::from(passes), if passes { dy[i] } else { 0.0 }));
                passed += usize::from(passes);
            }
            assert!(passed > x.len() / 5 && passed < x.len());
        }
    }
    let x = values(&[999], 1, 3.0);
    let all = Quantizer::choose(&x, Groups::Tensor, Format::Signed, Clip::AbsMax).unwrap();
    assert!(all.clip_mask(&x).unwrap().to_vec::<u8>().unwrap().iter().all(|passes| *passes == 1));
}

#[test]
fn the_same_for_any_number_of_threads() {
    let x = values(&[3, 50_001], 2, 1.0);
    let run = |threads: usize| {
        par::with_threads(threads, || {
            let quantizer = Quantizer::choose(&x, Groups::Channels, Format::Signed, Clip::Mse).unwrap();
            let (found, statistics) = quantizer.quantize_and_measure(&x, Rounding::Stochastic(key(7))).unwrap();
            (quantizer, codes(&found), statistics)
        })
        .unwrap()
    };
    let expected = run(1);
    assert!((2..=4).all(|threads| run(threads) == expected));
}

#[test]
fn refusals_say_why() {
    let mut x = values(&[4, 100, 100], 1, 1.0);
    let quantizer = Quantizer::choose(&x, Groups::Tensor, Format::Signed, Clip::AbsMax).unwrap();
    for (bad, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        x.memory_mut::<f32>().unwrap()[2 * 10_000 + 17 * 100 + 5] = bad;
        let errors = [
            Quantizer::choose(&x, Groups::Channels, Format::Signed, Clip::AbsMax).map(|_| ()),
            quantizer.quantize(&x, Rounding::Nearest).map(|_| ()),
            quantizer.quantize(&x, Rounding::Stochastic(key(0))).map(|_| ()),
            quantizer.quantize_and_measure(&x, Rounding::Nearest).map(|_| ()),
            quantizer.quantize_batch_innermost(&x, Rounding::Nearest).map(|_| ()),
            quantizer.quantize_batch_innermost(&arranged(&x, 2), Rounding::Nearest).map(|_| ()),
        ];
        for error in errors {
            let message = error.unwrap_err().to_string();
            assert!(message.contains("[2, 17, 5]") && message.contains(name), "{message}");
        }
    }
    let x = values(&[4, 6], 1, 1.0);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        assert!(matches!(Quantizer::new(Format::Signed, Groups::Tensor, vec![scale]), Err(Error::Argument { .. })));
    }
    let channels = Quantizer::new(Format::Signed, Groups::Channels, vec![1.0; 5]).unwrap();
    assert!(matches!(channels.quantize(&x, Rounding::Nearest), Err(Error::Shape { .. })));
    assert!(channels.quantize_batch_innermost(&x, Rounding::Nearest).is_err());
    assert!(channels.quantize(&Tensor::scalar(1.0f32), Rounding::Nearest).is_err());
    assert!(matches!(quantizer.quantize(&Tensor::scalar(1i64), Rounding::Nearest), Err(Error::DType { .. })));
    assert!(matches!(quantizer.dequantize(&Tensor::scalar(1u8)), Err(Error::DType { .. })));
    let rows = |starts: &[usize]| {
        Quantizer::choose(&values(&[6], 1, 1.0), Groups::Rows(Arc::from(starts)), Format::Signed, Clip::AbsMax)
    };
    assert!(
        rows(&[0, 2, 6]).is_ok()
            && rows(&[0, 2, 5]).is_err()
            && rows(&[1, 6]).is_err()
            && rows(&[0, 4, 2, 6]).is_err()
            && rows(&[]).is_err()
    );
    for clip in [Clip::Percentile(0.0), Clip::Percentile(100.1), Clip::Dither(0.0), Clip::Dither(f64::NAN)] {
        assert!(Quantizer::choose(&x, Groups::Tensor, Format::Signed, clip).is_err());
    }
    assert!(Quantizer::choose(&x, Groups::Tensor, Format::AffineU8, Clip::Dither(1.0)).is_err());
    let affine = || Quantizer::new(Format::AffineU8, Groups::Tensor, vec![1.0]).unwrap();
    assert!(affine().with_zero_points(vec![255]).is_ok() && affine().with_zero_points(vec![256]).is_err());
    assert!(affine().with_zero_points(vec![]).is_err() && quantizer.with_zero_points(vec![0]).is_err());
}

/// Codes, ranges and statistics of everything that a process makes, in a few bits.
fn digest() -> u64 {
    let x = values(&[37, 40, 7, 6], 2, 3.0);
    let mut bits: Vec<u64> = Vec::new();
    for clip in [Clip::AbsMax, Clip::Percentile(99.0), Clip::Mse, Clip::Sawb, Clip::Dither(0.1)] {
        for format in [Format::Signed, Format::Unsigned] {
            let quantizer = Quantizer::choose(&x, Groups::Channels, format, clip).unwrap();
            let (found, statistics) = quantizer.quantize_and_measure(&x, Rounding::Stochastic(key(1))).unwrap();
            let real = quantizer.gradient(&x, &quantizer.dequantize(&found).unwrap()).unwrap();
            bits.extend(quantizer.scales().iter().map(|s| u64::from(s.to_bits())));
            bits.extend(codes(&found).iter().map(|q| *q as u64));
            bits.extend(real.to_vec::<f32>().unwrap().iter().map(|x| u64::from(x.to_bits())));
            bits.extend(statistics.iter().flat_map(|s| [s.min, s.max, s.sum, s.sum_of_squares].map(f64::to_bits)));
        }
    }
    let whole = Quantizer::choose(&x, Groups::Tensor, Format::Signed, Clip::AbsMax).unwrap();
    let (found, statistics) = whole.quantize_batch_innermost_and_measure(&x, Rounding::Stochastic(key(2))).unwrap();
    bits.extend(codes(&found).iter().map(|q| *q as u64).chain([statistics.sum.to_bits()]));
    let powers = Logarithmic::choose(&x, Groups::Tensor, 16).unwrap();
    bits.extend(codes(&powers.quantize(&x, Rounding::Stochastic(key(3))).unwrap()).iter().map(|q| *q as u64));
    bits.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, x| (hash ^ x).wrapping_mul(0x100_0000_01b3).rotate_left(5))
}

#[test]
fn the_same_bits_on_every_instruction_set() {
    // A process has one instruction set, so this test starts itself with each.
    const CHILD: &str = "QUARTZ_TEST_PRINTS_DIGEST";
    let expected = format!("digest {:016x}", digest());
    if std::env::var_os(CHILD).is_some() {
        println!("{expected}");
        return;
    }
    for id in qkernels::isa::available() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "uniform::the_same_bits_on_every_instruction_set", "--nocapture"])
            .env("QUARTZ_ISA", id.name())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&child.stdout);
        assert!(printed.contains(&expected), "{} differs: {printed}", id.name());
    }
}
