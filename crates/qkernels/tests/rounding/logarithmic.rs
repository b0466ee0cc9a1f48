//! Logarithmic codes.

use super::common::{ARRANGEMENTS, arranged, values};
use super::*;
use qkernels::par;
use qkernels::rounding::{Groups, Logarithmic};
use qtensor::Error;

#[test]
fn published_vector() {
    // 16 levels below 8192, so the smallest is 0.25.
    let expected = |x: i32| match x.abs() {
        0 => None,
        1 => Some(2),
        2 => Some(3),
        3..=5 => Some(4),
        6..=11 => Some(5),
        12..=23 => Some(6),
        24..=31 => Some(7),
        _ => Some(15),
    };
    let inputs: Vec<i32> = (-31..=31).chain([-8192]).collect();
    let x = Tensor::from_vec([inputs.len()], inputs.iter().map(|x| *x as f32).collect()).unwrap();
    let quantizer = Logarithmic::choose(&x, Groups::Tensor, Logarithmic::levels_of_bits(4)).unwrap();
    let found = quantizer.quantize(&x, Rounding::Nearest).unwrap();
    let real = quantizer.dequantize(&found).unwrap().to_vec::<f32>().unwrap();
    for ((x, code), real) in inputs.iter().zip(codes(&found)).zip(real) {
        assert_eq!(code.abs() - 1, expected(*x).unwrap_or(-1), "of {x}");
        assert_eq!(f64::from(real), expected(*x).map_or(0.0, |k| f64::from(x.signum()) * 0.25 * 2f64.powi(k)));
    }
}

/// The code of `x` by the formula in f64.
fn code(x: f64, maximum: f64, levels: u8, noise: Option<f64>) -> i32 {
    let y = (x.abs() / maximum).min(1.0) * 2f64.powi(i32::from(levels) - 1);
    let magnitude = if y < 1.0 {
        i32::from(noise.is_some_and(|u| y >= u))
    } else {
        let k = y.log2().floor() as i32;
        k + 1 + i32::from(y / 2f64.powi(k) - 1.0 >= noise.unwrap_or(0.5))
    };
    if x < 0.0 { -magnitude } else { magnitude }
}

#[test]
fn codes_and_values_follow_the_formula() {
    for (levels, scale) in [(1, 1.0), (7, 3.0), (16, 1e-30), (16, 1e38), (127, 2.0), (127, 1e-25)] {
        for how in 0..ARRANGEMENTS {
            let x = arranged(&values(&[3, 4, 5, 31], 2, scale), how);
            for groups in [Groups::Tensor, Groups::Channels] {
                let quantizer = Logarithmic::choose(&x, groups, levels).unwrap();
                for rounding in [Rounding::Nearest, Rounding::Stochastic(key(2))] {
                    let found = quantizer.quantize(&x, rounding).unwrap();
                    let real = quantizer.dequantize(&found).unwrap();
                    let mut ordered = real.empty_like();
                    ordered.copy_from(&x).unwrap();
                    let memory = [&ordered, &real].map(|t| t.memory::<f32>().unwrap());
                    for (place, found) in codes(&found).into_iter().enumerate() {
                        let group = place / 620 * usize::from(quantizer.maxima().len() > 1);
                        let maximum = f64::from(quantizer.maxima()[group]);
                        let of = |x: f64| code(x, maximum, levels, noise(rounding, place));
                        let x = f64::from(memory[0][place]);
                        let near = [x, x * (1.0 - 3e-7), x * (1.0 + 3e-7)];
                        assert!(near.iter().any(|x| of(*x) == found), "{x} became {found}");
                        let value = maximum * 2f64.powi(found.abs() - i32::from(levels)) * f64::from(found.signum());
                        assert_eq!(memory[1][place], value as f32);
                    }
                }
            }
        }
    }
}

#[test]
fn magnitude_and_threads_do_not_matter() {
    let x = values(&[40_000], 1, 1.0);
    let run = |power: i32, threads: usize| {
        let scaled = x.to_vec::<f32>().unwrap().iter().map(|x| x * 2f32.powi(power)).collect();
        let x = Tensor::from_vec([40_000], scaled).unwrap();
        par::with_threads(threads, || {
            let quantizer = Logarithmic::choose(&x, Groups::Tensor, 16).unwrap();
            codes(&quantizer.quantize(&x, Rounding::Stochastic(key(1))).unwrap())
        })
        .unwrap()
    };
    let expected = run(0, 1);
    assert!(
        [(-100, 1), (120, 1), (0, 2), (0, 3), (0, 4)]
            .into_iter()
            .all(|(power, threads)| run(power, threads) == expected)
    );
}

#[test]
fn zeros_nothing_and_refusals() {
    for shape in [&[5][..], &[0], &[2, 0]] {
        let x = Tensor::zeros(shape, DType::F32).unwrap();
        let quantizer = Logarithmic::choose(&x, Groups::Tensor, 127).unwrap();
        let found = quantizer.quantize(&x, Rounding::Stochastic(key(0))).unwrap();
        assert!(codes(&found).iter().all(|q| *q == 0));
        assert_eq!(quantizer.dequantize(&found).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
    }
    for levels in [0, 128, 255] {
        assert!(matches!(Logarithmic::new(levels, Groups::Tensor, vec![1.0]), Err(Error::Argument { .. })));
    }
    assert!([f32::NAN, -1.0, f32::INFINITY].into_iter().all(|m| Logarithmic::new(4, Groups::Tensor, vec![m]).is_err()));
    let quantizer = Logarithmic::new(4, Groups::Tensor, vec![1.0]).unwrap();
    let message =
        quantizer.quantize(&Tensor::from_vec([2], vec![0.0, f32::NAN]).unwrap(), Rounding::Nearest).unwrap_err();
    assert!(message.to_string().contains("[1]"));
    assert!(matches!(quantizer.dequantize(&Tensor::scalar(1u8)), Err(Error::DType { .. })));
    let rows = Logarithmic::new(4, Groups::Channels, vec![1.0; 3]).unwrap();
    assert!(matches!(rows.quantize(&values(&[4, 2], 1, 1.0), Rounding::Nearest), Err(Error::Shape { .. })));
    // Any byte has a value, the lowest too.
    let all = Tensor::from_vec([256], (-128..=127).map(|q| q as i8).collect()).unwrap();
    let real = quantizer.dequantize(&all).unwrap().to_vec::<f32>().unwrap();
    assert!(real.windows(2).all(|pair| pair[0] <= pair[1]) && real[128] == 0.0 && real[132] == 1.0);
}
