//! Combinations of projections in f32 against the same in f64.

mod common;

use common::{ARRANGEMENTS, arranged, assert_close, assert_same_for_any_threads, f64s, values};
use qkernels::Activation;
use qkernels::quadratic::{
    Normalised, NormalisedGrad, Rule, combine, combine_grad, combine_normalised, combine_normalised_again,
    combine_normalised_grad, normalise,
};
use qtensor::{Result, Tensor};

/// Shapes of a result: images, vectors, channels that fill no vector, more than one piece of work, nothing.
const SHAPES: [&[usize]; 5] = [&[3, 5, 4, 3], &[7, 33], &[4, 16, 9, 9], &[40, 24, 12, 12], &[0, 4, 2, 2]];

fn joined(rule: Rule, shape: &[usize], salt: usize) -> Tensor {
    let mut joined = shape.to_vec();
    joined[0] *= rule.parts();
    values(&joined, salt, 1.5)
}

#[test]
fn plain_combinations() -> Result<()> {
    for (rule, shape) in Rule::ALL.iter().flat_map(|rule| SHAPES.map(|shape| (*rule, shape))) {
        let (z, residual, dy) = (joined(rule, shape, 1), values(shape, 2, 1.0), values(shape, 3, 1.0));
        let exact = combine(rule, &f64s(&z), Some(&f64s(&residual)), Activation::Relu)?;
        let exact_grad = combine_grad(rule, f64s(&z), &f64s(&dy))?;
        for how in 0..ARRANGEMENTS {
            if shape[0] == 0 && how > 2 {
                continue;
            }
            let (z, residual, dy) =
                (arranged(&z, how), arranged(&residual, (how + 1) % 3), arranged(&dy, (how + 2) % 3));
            assert_close(&combine(rule, &z, Some(&residual), Activation::Relu)?, &exact, 1e-6, 1e-6);
            let kept = z.clone();
            assert_close(&combine_grad(rule, z, &dy)?, &exact_grad, 1e-6, 1e-6);
            assert_close(&kept, &f64s(&joined(rule, shape, 1)), 0.0, 0.0);
        }
    }
    Ok(())
}

#[test]
fn normalised_combinations() -> Result<()> {
    for (rule, shape) in Rule::ALL.iter().flat_map(|rule| SHAPES[..4].iter().map(|shape| (*rule, *shape))) {
        let (z, dy) = (joined(rule, shape, 1), values(shape, 3, 1.0));
        let by_channel = [rule.parts(), shape[1]];
        let (gamma, beta) = (values(&by_channel, 4, 1.0), values(&by_channel, 5, 1.0));
        let (z64, gamma64, beta64) = (f64s(&z), f64s(&gamma), f64s(&beta));
        let exact =
            combine_normalised(Normalised { rule, z: &z64, gamma: &gamma64, beta: &beta64, eps: 1e-5, moments: None })?;
        let expected = combine_normalised_grad(NormalisedGrad {
            rule,
            z: z64,
            dy: &f64s(&dy),
            gamma: &gamma64,
            beta: &beta64,
            mean: &exact.mean,
            inv_std: &exact.inv_std,
            is_normalised: false,
        })?;
        let from_normalised = combine_normalised_grad(NormalisedGrad {
            rule,
            z: normalise(rule, &f64s(&z), [&exact.mean, &exact.inv_std])?,
            dy: &f64s(&dy),
            gamma: &gamma64,
            beta: &beta64,
            mean: &exact.mean,
            inv_std: &exact.inv_std,
            is_normalised: true,
        })?;
        for (found, expected) in [(&from_normalised.dz, &expected.dz), (&from_normalised.dgamma, &expected.dgamma)] {
            let (found, expected) = (found.to_vec::<f64>()?, expected.to_vec::<f64>()?);
            assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() <= 1e-10 * (1.0 + e.abs())));
        }
        for how in 0..ARRANGEMENTS {
            let (z, dy) = (arranged(&z, how), arranged(&dy, (how + 1) % 3));
            let out =
                combine_normalised(Normalised { rule, z: &z, gamma: &gamma, beta: &beta, eps: 1e-5, moments: None })?;
            assert_close(&out.mean, &exact.mean, 1e-5, 1e-6);
            assert_close(&out.var, &exact.var, 1e-5, 1e-6);
            assert_close(&out.y, &exact.y, 1e-4, 1e-5);
            let again = combine_normalised_again(rule, &z, [&gamma, &beta], [&out.mean, &out.inv_std])?;
            assert_eq!(again.to_vec::<f32>()?, out.y.to_vec::<f32>()?);
            let (mean, inv_std) = (&out.mean, &out.inv_std);
            let is_normalised = how == 1;
            let z = if is_normalised { normalise(rule, &z, [mean, inv_std])? } else { z };
            let arguments =
                NormalisedGrad { rule, z, dy: &dy, gamma: &gamma, beta: &beta, mean, inv_std, is_normalised };
            let found = combine_normalised_grad(arguments)?;
            let largest = |t: &Tensor| t.to_vec::<f64>().unwrap().iter().fold(1.0f64, |m, x| m.max(x.abs()));
            assert_close(&found.dz, &expected.dz, 1e-4, 1e-5 * largest(&expected.dz));
            assert_close(&found.dgamma, &expected.dgamma, 1e-4, 1e-5 * largest(&expected.dgamma));
            assert_close(&found.dbeta, &expected.dbeta, 1e-4, 1e-5 * largest(&expected.dbeta));
        }
    }
    Ok(())
}

#[test]
fn bits_do_not_depend_on_threads() {
    let rule = Rule::ProductAndSum;
    let (z, dy) = (joined(rule, &[40, 24, 12, 12], 1), values(&[40, 24, 12, 12], 2, 1.0));
    let (gamma, beta) = (values(&[3, 24], 4, 1.0), values(&[3, 24], 5, 1.0));
    assert_same_for_any_threads(|| {
        let out = combine_normalised(Normalised { rule, z: &z, gamma: &gamma, beta: &beta, eps: 1e-5, moments: None })
            .unwrap();
        let (mean, inv_std) = (&out.mean, &out.inv_std);
        let (z, is_normalised) = (z.clone(), false);
        let arguments = NormalisedGrad { rule, z, dy: &dy, gamma: &gamma, beta: &beta, mean, inv_std, is_normalised };
        let found = combine_normalised_grad(arguments).unwrap();
        vec![out.y, found.dz, found.dgamma, found.dbeta]
    });
}

#[test]
fn what_does_not_fit_is_an_error() -> Result<()> {
    let (z, gamma) = (values(&[4, 3, 2, 2], 1, 1.0), values(&[2, 3], 2, 1.0));
    let rule = Rule::Product;
    assert!(combine(Rule::ProductAndSum, &z, None, Activation::None).is_err(), "four images are not three parts");
    assert!(combine(rule, &z, Some(&z), Activation::None).is_err());
    assert!(combine(rule, &f64s(&z), Some(&values(&[2, 3, 2, 2], 1, 1.0)), Activation::None).is_err());
    assert!(combine(rule, &Tensor::scalar(1.0f32), None, Activation::None).is_err());
    assert!(combine_grad(rule, z.clone(), &z).is_err());
    let narrow = values(&[2, 2], 2, 1.0);
    assert!(
        combine_normalised(Normalised { rule, z: &z, gamma: &gamma, beta: &narrow, eps: 1e-5, moments: None }).is_err()
    );
    let none = Tensor::zeros([0, 3, 2, 2], qtensor::DType::F32)?;
    assert!(
        combine_normalised(Normalised { rule, z: &none, gamma: &gamma, beta: &gamma, eps: 1e-5, moments: None })
            .is_err()
    );
    Ok(())
}
