//! Values in bf16.

use super::*;
use qkernels::cast::{from_bf16, to_bf16};
use qkernels::rounding::{Clip, Format, Groups, Quantizer, Statistics};
use qkernels::sparse::to_batch_innermost;

/// Values of several blocks, of either sign or none negative, in bf16.
fn halves(is_negative_too: bool) -> Tensor {
    let x = gaussian(&[70, 3, 5, 7], 1);
    let values = x.to_vec::<f32>().unwrap().into_iter().map(|x| if is_negative_too { x } else { x.abs() });
    to_bf16(&Tensor::from_vec([70, 3, 5, 7], values.collect()).unwrap()).unwrap()
}

#[test]
fn codes_are_those_of_the_same_values_in_f32() {
    for is_negative_too in [false, true] {
        let row_major = halves(is_negative_too);
        let quantizer = Quantizer::choose_bytes(&row_major, Clip::AbsMax).unwrap();
        let expected = if is_negative_too { Format::Offset } else { Format::Unsigned };
        assert_eq!(quantizer.format(), expected);
        for x in [row_major.clone(), row_major.to_channels_last(), to_batch_innermost(&row_major).unwrap()] {
            let wide = from_bf16(&x).unwrap();
            assert_eq!(Quantizer::choose_bytes(&wide, Clip::AbsMax).unwrap(), quantizer);
            for rounding in [Rounding::Nearest, Rounding::Stochastic(key(3))] {
                let codes = |x: &Tensor| quantizer.quantize(x, rounding).unwrap().to_vec::<u8>().unwrap();
                assert_eq!(codes(&x), codes(&wide));
                let codes =
                    |x: &Tensor| quantizer.quantize_batch_innermost(x, rounding).unwrap().to_vec::<u8>().unwrap();
                assert_eq!(codes(&x), codes(&wide));
            }
        }
    }
}

#[test]
fn statistics_are_those_of_the_same_values_in_f32() {
    let x = halves(true);
    let [half, wide] = [x.clone(), from_bf16(&x).unwrap()].map(|x| Statistics::of(&x, &Groups::Tensor).unwrap()[0]);
    assert_eq!((half.count, half.nonzero, half.min, half.max), (wide.count, wide.nonzero, wide.min, wide.max));
    assert!((half.sum_of_squares - wide.sum_of_squares).abs() < 1e-9 * wide.sum_of_squares);
    assert!((half.sum - wide.sum).abs() < 1e-9 * wide.sum_of_magnitudes);
}

#[test]
fn a_half_that_is_not_finite_is_refused() {
    let mut values = vec![1.0f32; 9000];
    values[8999] = f32::INFINITY;
    let x = to_bf16(&Tensor::from_vec([9000], values).unwrap()).unwrap();
    let quantizer = Quantizer::new(Format::Signed, Groups::Tensor, vec![1.0]).unwrap();
    assert!(Statistics::of(&x, &Groups::Tensor).is_err());
    assert!(quantizer.quantize(&x, Rounding::Nearest).is_err());
}
