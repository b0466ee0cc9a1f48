//! f32 reductions against the f64 path, in all memory orders.

mod common;

use common::*;
use proptest::prelude::*;
use qkernels::reduce::*;
use qtensor::{DType, Error, Tensor};

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(0usize..6, 0..5),
        (1usize..300).prop_map(|n| vec![n]),
        (1usize..200, 1usize..100).prop_map(|(a, b)| vec![a, b]),
        (1usize..4, 1usize..40, 1usize..9, 1usize..9).prop_map(|(n, c, h, w)| vec![n, c, h, w]),
        Just(vec![700, 67]),
        Just(vec![3, 1100]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_any_axes(shape in shapes(), how in 0..ARRANGEMENTS, mask: u8, keep: bool) {
        let x = arranged(&values(&shape, 1, 3.0), how);
        let axes: Vec<usize> = (0..shape.len()).filter(|a| mask >> a & 1 == 1).collect();
        let count = axes.iter().map(|a| shape[*a]).product::<usize>() as f64;
        assert_close(&sum(&x, &axes, keep).unwrap(), &sum(&f64s(&x), &axes, keep).unwrap(), 1e-6, 4e-6 * (1.0 + count).sqrt());
        assert_close(&mean(&x, &axes, keep).unwrap(), &mean(&f64s(&x), &axes, keep).unwrap(), 1e-6, 4e-6);
        assert_close(&max(&x, &axes, keep).unwrap(), &max(&f64s(&x), &axes, keep).unwrap(), 0.0, 0.0);
    }

    #[test]
    fn to_a_shape(shape in shapes(), how in 0..ARRANGEMENTS, mask: u8, drop in 0usize..3) {
        let x = arranged(&values(&shape, 1, 3.0), how);
        let target: Vec<usize> = shape.iter().enumerate().map(|(a, d)| if mask >> a & 1 == 1 { 1 } else { *d }).skip(drop).collect();
        assert_close(&sum_to(&x, &target).unwrap(), &sum_to(&f64s(&x), &target).unwrap(), 1e-6, 4e-6 * (1.0 + x.numel() as f64).sqrt());
    }

    #[test]
    fn to_one_number(shape in shapes(), how in 0..ARRANGEMENTS, other in 0..ARRANGEMENTS) {
        let (x, y) = (arranged(&values(&shape, 1, 3.0), how), arranged(&values(&shape, 8, 2.0), other));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + x.numel() as f64);
        prop_assert!(close(dot(&x, &y).unwrap(), dot(&f64s(&x), &f64s(&y)).unwrap()));
        prop_assert!(close(norm2(&x).unwrap(), norm2(&f64s(&x)).unwrap()));
        prop_assert!(all_finite(&x).unwrap());
        if x.rank() > 0 && *x.shape().last().unwrap() > 0 {
            let (found, expected) = (argmax_last(&x).unwrap(), argmax_last(&f64s(&x)).unwrap());
            prop_assert_eq!(found.to_vec::<i64>().unwrap(), expected.to_vec::<i64>().unwrap());
            prop_assert_eq!(found.shape().dims(), &x.shape()[..x.rank() - 1]);
        }
    }

    #[test]
    fn one_bad_value_is_found(length in 1usize..70_000, place: prop::sample::Index, which in 0usize..3) {
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][which];
        let mut x = values(&[length], 1, f32::MAX);
        x.memory_mut::<f32>().unwrap()[place.index(length)] = bad;
        prop_assert!(!all_finite(&x).unwrap());
        let largest = max(&x, &[0], false).unwrap().item().unwrap();
        let expected = [f64::NAN, f64::INFINITY, if length == 1 { f64::NEG_INFINITY } else { largest }][which];
        prop_assert!(largest == expected || (largest.is_nan() && expected.is_nan()));
    }
}

#[test]
fn long_sums_stay_accurate() {
    // A running f32 sum of these would stop growing at 2²⁴.
    let ones = Tensor::full([3 << 23], 1.0f32).unwrap();
    assert_eq!(sum(&ones, &[0], false).unwrap().item().unwrap(), f64::from(3 << 23));
    let rows = values(&[400_000, 5], 1, 1.0);
    let expected = sum(&f64s(&rows), &[0], false).unwrap();
    assert_close(&sum(&rows, &[0], false).unwrap(), &expected, 1e-6, 1e-3);
}

#[test]
fn memory_order_of_what_stays() {
    let x = values(&[2, 5, 3, 4], 1, 1.0).to_channels_last();
    let y = sum(&x, &[0], false).unwrap();
    assert_eq!(y.shape(), [5, 3, 4]);
    assert_eq!(y.strides(), [1, 20, 5]);
}

#[test]
fn argmax_prefers_the_first_and_nan() {
    let x = Tensor::from_vec([3, 3], vec![1.0f32, 2.0, 2.0, f32::NAN, 9.0, f32::NAN, -3.0, -2.0, -1.0]).unwrap();
    assert_eq!(argmax_last(&x).unwrap().to_vec::<i64>().unwrap(), [1, 0, 2]);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let x = values(&[9, 24, 40, 41], 5, 3.0);
    let last = x.to_channels_last();
    assert_same_for_any_threads(|| {
        let total = |x: &Tensor, axes: &[usize]| sum(x, axes, false).unwrap();
        let scalars = vec![dot(&x, &last).unwrap() as f32, norm2(&x).unwrap() as f32];
        vec![
            total(&x, &[0, 2, 3]),
            total(&last, &[0, 2, 3]),
            total(&last, &[2, 3]),
            total(&x, &[0, 1, 2, 3]),
            Tensor::from_vec([2], scalars).unwrap(),
        ]
    });
}

#[test]
fn errors() {
    let x = values(&[2, 3], 1, 1.0);
    assert!(matches!(sum(&x, &[2], false), Err(Error::Shape { op: "sum", .. })));
    assert!(matches!(mean(&x, &[0, 0], false), Err(Error::Shape { op: "mean", .. })));
    assert!(matches!(mean(&x, &[7], false), Err(Error::Shape { op: "mean", .. })));
    assert!(matches!(sum_to(&x, &[2]), Err(Error::Shape { op: "sum_to", .. })));
    assert!(argmax_last(&Tensor::scalar(1.0f32)).is_err());
    assert!(argmax_last(&Tensor::zeros([3, 0], DType::F32).unwrap()).is_err());
    let whole = Tensor::zeros([2], DType::I64).unwrap();
    assert!(matches!(sum(&whole, &[0], false), Err(Error::DType { op: "sum", .. })));
    assert!(all_finite(&whole).is_err());
}
