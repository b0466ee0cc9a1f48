//! bf16 against the definition: conversions bit by bit, products against f64.

mod common;

use common::{arranged, assert_same_for_any_threads, values};
use proptest::prelude::*;
use qkernels::{Activation, Gemm, cast, matmul, naive};
use qtensor::{DType, Result, Tensor, bf16};

fn rounded(shape: [usize; 2], salt: usize) -> Result<Tensor> {
    cast::to_bf16(&values(&shape, salt, 1.0))
}

#[test]
fn casts_round_to_the_nearest_even_and_keep_nan() -> Result<()> {
    // Every pattern of the upper half with lower halves around the ties.
    for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
        let x: Vec<f32> = (0..=0xffffu32).map(|high| f32::from_bits(high << 16 | low)).collect();
        let found = cast::to_bf16(&Tensor::from_vec([x.len()], x.clone())?)?;
        for (x, found) in x.iter().zip(found.to_vec::<bf16>()?) {
            let expected = bf16::from_f32(*x);
            assert!(found == expected || found.is_nan() && x.is_nan(), "{x:e} gave {found}, not {expected}");
        }
        let wide = cast::from_bf16(&found)?;
        for (wide, found) in wide.to_vec::<f32>()?.iter().zip(found.to_vec::<bf16>()?) {
            assert_eq!(wide.to_bits(), u32::from(found.to_bits()) << 16);
        }
    }
    Ok(())
}

#[test]
fn casts_keep_the_order_in_memory() -> Result<()> {
    for length in [0, 1, 15, 16, 33] {
        let x = values(&[2, 3, 5, length], 3, 9.0);
        for how in 0..common::ARRANGEMENTS {
            let x = if length == 0 { x.clone() } else { arranged(&x, how) };
            let half = cast::to_bf16(&x)?;
            assert_eq!(
                half.to_dtype(DType::F32)?.to_vec::<f32>()?,
                x.to_dtype(DType::BF16)?.to_dtype(DType::F32)?.to_vec::<f32>()?
            );
            assert!(!x.layout().is_dense() || half.strides() == x.strides());
        }
    }
    assert!(cast::to_bf16(&Tensor::zeros([2], DType::F64)?).is_err());
    assert!(cast::from_bf16(&Tensor::zeros([2], DType::F32)?).is_err());
    Ok(())
}

/// Compares with the naive product in f64 within a unit of f32 for each term, and of bf16 for the result where that is bf16.
fn check(gemm: &Gemm, old: &Tensor) -> Result<()> {
    let expected = naive::gemm::gemm(gemm, Some(old))?.to_vec::<f64>()?;
    let k = gemm.a.shape()[1] as f64;
    for (dtype, unit) in [(DType::F32, 0.0), (DType::BF16, 0.5 / 128.0)] {
        let mut out = old.to_dtype(dtype)?;
        gemm.run_into(&mut out)?;
        for (found, expected) in out.to_dtype(DType::F64)?.to_vec::<f64>()?.iter().zip(&expected) {
            let bound = (k + 4.0) * (k + 4.0) * f64::from(f32::EPSILON) + unit * expected.abs();
            assert!((found - expected).abs() <= bound, "{found} instead of {expected}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn products_agree_with_f64(m in 1usize..70, k in 1usize..70, n in 1usize..70, how in 0usize..4, odd in 0usize..3, beta in prop::bool::ANY) {
        let a = if how & 1 == 0 { rounded([m, k], 1)? } else { rounded([k, m], 1)?.t()? };
        let b = if how & 2 == 0 { rounded([k, n], 2)? } else { rounded([n, k], 2)?.t()? };
        // Windows: rows that do not start or end with a whole pair.
        let a = if odd == 1 { rounded([m, k + 3], 1)?.slice(1, 1..k + 1)? } else { a };
        let b = if odd == 2 { rounded([n, 2 * k], 1)?.slice_step(1, 0..2 * k, 2)?.t()? } else { b };
        let (bias, old) = (values(&[n], 7, 1.0), values(&[m, n], 9, 1.0).to_dtype(DType::BF16)?.to_dtype(DType::F32)?);
        let gemm = Gemm { alpha: 0.5, beta: if beta { -1.0 } else { 0.0 }, bias: Some(&bias), activation: Activation::Relu, ..Gemm::new(&a, &b) };
        check(&gemm, &old)?;
    }
}

#[test]
fn long_and_wide_products() -> Result<()> {
    for [m, k, n] in [[33, 2600, 40], [300, 1300, 290], [1, 64, 500], [500, 63, 1]] {
        let (a, b) = (rounded([m, k], 1)?, rounded([n, k], 2)?.t()?);
        check(&Gemm::new(&a, &b), &Tensor::zeros([m, n], DType::F32)?)?;
    }
    Ok(())
}

#[test]
fn bits_do_not_depend_on_threads() -> Result<()> {
    let (a, b) = (rounded([300, 700], 1)?, rounded([700, 300], 2)?);
    assert_same_for_any_threads(|| vec![cast::from_bf16(&matmul(&a, &b).unwrap()).unwrap()]);
    Ok(())
}

#[test]
fn types_that_do_not_fit_are_errors() -> Result<()> {
    let (a, b) = (rounded([2, 3], 1)?, rounded([3, 2], 2)?);
    let wide = cast::from_bf16(&a)?;
    assert!(matmul(&wide, &b).is_err());
    assert!(Gemm::new(&wide, &cast::from_bf16(&b)?).run_into(&mut Tensor::zeros([2, 2], DType::BF16)?).is_err());
    let bias = cast::to_bf16(&values(&[2], 1, 1.0))?;
    assert!(Gemm { bias: Some(&bias), ..Gemm::new(&a, &b) }.run().is_err());
    Ok(())
}
