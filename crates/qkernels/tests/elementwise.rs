//! Elementwise f32 kernels against the f64 path, in all memory orders.

mod common;

use common::*;
use proptest::prelude::*;
use qkernels::elementwise::*;
use qtensor::{DType, Error, Tensor};

const UNARY: [UnaryOp; 13] = [
    UnaryOp::Neg,
    UnaryOp::Abs,
    UnaryOp::Square,
    UnaryOp::Sqrt,
    UnaryOp::Recip,
    UnaryOp::Exp,
    UnaryOp::Log,
    UnaryOp::Tanh,
    UnaryOp::Sigmoid,
    UnaryOp::Relu,
    UnaryOp::Relu6,
    UnaryOp::LeakyRelu(0.01),
    UnaryOp::LeakyRelu(-0.5),
];
const BINARY: [BinaryOp; 6] =
    [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Max, BinaryOp::Min];

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(0usize..40, 1),
        prop::collection::vec(0usize..9, 2),
        prop::collection::vec(1usize..20, 2),
        (1usize..4, 1usize..20, 1usize..6, 1usize..6).prop_map(|(n, c, h, w)| vec![n, c, h, w]),
        Just(vec![]),
        Just(vec![33_000]),
    ]
}

/// A shape that broadcasts to `shape`: some axes 1, some leading axes missing.
fn narrowed(shape: &[usize], mask: u8, drop: usize) -> Vec<usize> {
    let dims = shape.iter().enumerate().map(|(i, d)| if mask >> i & 1 == 1 { 1 } else { *d });
    dims.skip(drop.min(shape.len())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unary_and_gradient(shape in shapes(), how in 0..ARRANGEMENTS, other in 0..ARRANGEMENTS, scale in prop::sample::select(vec![0.1f32, 3.0, 20.0])) {
        let x = arranged(&values(&shape, 1, scale), how);
        let dy = arranged(&values(&shape, 77, 1.0), other);
        for op in UNARY {
            let (y, expected) = (unary(op, &x).unwrap(), unary(op, &f64s(&x)).unwrap());
            assert_close(&y, &expected, 4e-7, 0.0);
            if x.layout().is_dense() {
                prop_assert_eq!(y.layout().strides(), x.layout().strides());
            }
            let mut z = x.copy();
            unary_assign(op, &mut z).unwrap();
            prop_assert_eq!(bits(&z), bits(&y));
            let saved = match op.saves() {
                Saves::Nothing => &dy,
                Saves::Input => &x,
                Saves::Output => &y,
            };
            let dx = unary_grad(op, saved, &dy).unwrap();
            assert_close(&dx, &unary_grad(op, &f64s(saved), &f64s(&dy)).unwrap(), 1e-6, 1e-6);
            let mut over = dy.copy();
            unary_grad_assign(op, saved, &mut over).unwrap();
            prop_assert_eq!(bits(&over), bits(&dx));
        }
    }

    #[test]
    fn binary_and_gradient(shape in shapes(), how in 0..ARRANGEMENTS, other in 0..ARRANGEMENTS, masks in any::<(u8, u8)>(), drop in 0usize..3, swap: bool) {
        let left = values(&narrowed(&shape, masks.0 & masks.1, 0), 1, 3.0);
        let right = values(&narrowed(&shape, masks.1, drop), 99, 2.0);
        let (mut a, mut b) = (arranged(&left, how), arranged(&right, other));
        if swap {
            std::mem::swap(&mut a, &mut b);
        }
        for op in BINARY {
            let y = binary(op, &a, &b).unwrap();
            assert_close(&y, &binary(op, &f64s(&a), &f64s(&b)).unwrap(), 2e-7, 0.0);
            let dy = arranged(&values(y.shape(), 5, 1.0), how);
            let found = binary_grad(op, &a, &b, &dy, [true, true]).unwrap();
            let expected = binary_grad(op, &f64s(&a), &f64s(&b), &f64s(&dy), [true, true]).unwrap();
            for ((found, expected), operand) in found.iter().zip(&expected).zip([&a, &b]) {
                let (found, expected) = (found.as_ref().unwrap(), expected.as_ref().unwrap());
                prop_assert_eq!(found.shape(), operand.shape());
                let largest = f64s(expected).to_vec::<f64>().unwrap().iter().fold(0.0f64, |m, v| m.max(v.abs()));
                assert_close(found, expected, 1e-5, 2e-6 * largest + 2e-5);
            }
        }
        let y = add_relu(&a, &b).unwrap();
        assert_close(&y, &add_relu(&f64s(&a), &f64s(&b)).unwrap(), 2e-7, 1e-6);
        if a.numel() >= b.numel() && b.expand(a.shape()).is_ok() {
            let (mut sum, mut expected) = (a.copy(), f64s(&a));
            let shared = sum.clone();
            axpy(-0.75, &b, &mut sum).unwrap();
            axpy(-0.75, &f64s(&b), &mut expected).unwrap();
            assert_close(&sum, &expected, 2e-7, 1e-6);
            prop_assert_eq!(bits(&shared), bits(&a), "a shared buffer changed");
            drop_and_add(&a, &b);
        }
    }

    #[test]
    fn prelu_and_gradient(n in 0usize..4, c in 1usize..35, side in 1usize..5, how in 0..ARRANGEMENTS, one: bool) {
        let x = arranged(&values(&[n, c, side, side], 3, 2.0), how);
        let dy = arranged(&values(&[n, c, side, side], 31, 2.0), how + 1);
        let slope = values(&[if one { 1 } else { c }], 13, 0.5);
        assert_close(&prelu(&x, &slope).unwrap(), &prelu(&f64s(&x), &f64s(&slope)).unwrap(), 2e-7, 0.0);
        let (dx, dslope) = prelu_grad(&x, &slope, &dy).unwrap();
        let (ex, eslope) = prelu_grad(&f64s(&x), &f64s(&slope), &f64s(&dy)).unwrap();
        assert_close(&dx, &ex, 2e-7, 0.0);
        assert_close(&dslope, &eslope, 1e-5, 1e-4);
    }

    #[test]
    fn scaling(shape in shapes(), how in 0..ARRANGEMENTS, factor in -3.0f64..3.0) {
        let x = arranged(&values(&shape, 1, 3.0), how);
        let y = scale(&x, factor).unwrap();
        assert_close(&y, &scale(&f64s(&x), factor).unwrap(), 2e-7, 0.0);
        let mut z = x.copy();
        scale_assign(&mut z, factor).unwrap();
        prop_assert_eq!(bits(&z), bits(&y));
        assert_close(&add_scalar(&x, factor).unwrap(), &add_scalar(&f64s(&x), factor).unwrap(), 1e-6, 1e-6);
    }
}

/// `a += b` on a unique buffer, which must stay where it is.
fn drop_and_add(a: &Tensor, b: &Tensor) {
    let mut sum = a.copy();
    let buffer = sum.buffer_id();
    add_assign(&mut sum, b).unwrap();
    assert_eq!(sum.buffer_id(), buffer, "a unique buffer was replaced");
    assert_close(&sum, &binary(BinaryOp::Add, &f64s(a), &f64s(b)).unwrap(), 2e-7, 1e-6);
}

#[test]
fn special_values() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, f32::MAX, f32::MIN];
    let x = Tensor::from_slice([11], &special).unwrap();
    for op in UNARY {
        let y = unary(op, &x).unwrap();
        let expected = unary(op, &f64s(&x)).unwrap().to_dtype(DType::F32).unwrap();
        assert_close(&y, &expected, 4e-7, 0.0);
    }
    let a = x.reshape([11, 1]).unwrap();
    for op in BINARY {
        let y = binary(op, &a, &x).unwrap();
        let expected = binary(op, &f64s(&a), &f64s(&x)).unwrap().to_dtype(DType::F32).unwrap();
        assert_close(&y, &expected, 2e-7, 0.0);
    }
}

#[test]
fn expanded_operands_and_aliasing() {
    let row = values(&[1, 5], 3, 1.0);
    let wide = row.expand([4, 5]).unwrap();
    assert_close(&unary(UnaryOp::Exp, &wide).unwrap(), &unary(UnaryOp::Exp, &f64s(&wide)).unwrap(), 3e-7, 0.0);
    let twice = binary(BinaryOp::Mul, &wide, &wide).unwrap();
    assert_close(&twice, &binary(BinaryOp::Mul, &f64s(&wide), &f64s(&wide)).unwrap(), 2e-7, 0.0);
    let mut sum = row.clone();
    add_assign(&mut sum, &row).unwrap();
    assert_close(&sum, &scale(&f64s(&row), 2.0).unwrap(), 0.0, 0.0);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let (x, b) = (values(&[7, 24, 40, 41], 5, 3.0).to_channels_last(), values(&[24, 1, 1], 9, 1.0));
    assert_same_for_any_threads(|| {
        let y = unary(UnaryOp::Sigmoid, &x).unwrap();
        let z = binary(BinaryOp::Mul, &y, &b).unwrap();
        let [da, db] = binary_grad(BinaryOp::Div, &x, &b, &z, [true, true]).unwrap();
        vec![y, z, da.unwrap(), db.unwrap()]
    });
}

#[test]
fn errors() {
    let (a, b) = (values(&[2, 3], 1, 1.0), values(&[4], 1, 1.0));
    assert!(matches!(binary(BinaryOp::Add, &a, &b), Err(Error::Shape { op: "add", .. })));
    assert!(matches!(binary(BinaryOp::Add, &a, &f64s(&a)), Err(Error::DType { op: "add", .. })));
    let whole = Tensor::zeros([2], DType::I32).unwrap();
    assert!(matches!(unary(UnaryOp::Relu, &whole), Err(Error::DType { op: "relu", .. })));
    assert!(matches!(scale(&whole, 2.0), Err(Error::DType { op: "scale", .. })));
    assert!(axpy(1.0, &a, &mut b.clone()).is_err());
    assert!(unary_grad(UnaryOp::Relu, &a, &b).is_err());
    assert!(prelu(&a, &b).is_err());
}
