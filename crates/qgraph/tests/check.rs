//! The gradient checker finds what is wrong.

mod common;

use common::normal;
use qgraph::check::{Checked, GradientCheck};
use qgraph::{Context, Op, Record, Result, Saved, Tensor, Vjp, kernels};

/// `x²` with a choice of mistakes.
#[derive(Clone, Copy, Debug)]
enum Square {
    Right,
    /// The derivative is off by this factor.
    Factor(f64),
    /// One element of the gradient is wrong.
    OneElement,
    /// One element of the gradient is NaN.
    OneNan,
    /// The value depends on the strides of the input.
    ReadsStrides,
    /// The gradient depends on which inputs need one.
    ReadsNeeds,
}

impl Vjp for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let x = saved.take()?.to_vec::<f64>()?;
        let mut dx: Vec<f64> = x.iter().zip(dy.to_vec::<f64>()?).map(|(x, dy)| 2.0 * x * dy).collect();
        match self {
            Square::Factor(factor) => dx.iter_mut().for_each(|g| *g *= factor),
            Square::OneElement => dx[17] += 0.01,
            Square::OneNan => dx[17] = f64::NAN,
            Square::ReadsNeeds if !needs[1] => dx[17] = 0.0,
            _ => {}
        }
        Ok(vec![Some(Tensor::from_vec(dy.shape(), dx)?), Some(dy)])
    }
}

impl Op for Square {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let y = kernels::binary(kernels::BinaryOp::Mul, &x[0], &x[0])?;
        let y = kernels::binary(kernels::BinaryOp::Add, &y, &x[1])?;
        let flat = matches!(self, Square::ReadsStrides) && x[0].as_slice::<f64>().is_err();
        Ok(if flat { kernels::elementwise::scale(&y, 1.01)? } else { y })
    }
}

fn run(op: Square) -> Checked {
    let inputs = [normal(&[30, 40], 1).t().unwrap(), normal(&[40, 30], 2)];
    GradientCheck::default().run(&inputs, |tape, x| tape.apply(op, &[&x[0], &x[1]])).unwrap()
}

#[test]
fn a_right_gradient_passes() {
    assert!(run(Square::Right).worst() < 1e-8);
}

#[test]
fn wrong_gradients_fail() {
    for op in [Square::Factor(1.0 + 1e-5), Square::Factor(-1.0), Square::OneElement] {
        let checked = run(op);
        assert!(checked.relative_error > 2e-6, "{op:?}: {checked:?}");
        assert!(checked.consistency_error < 1e-12);
    }
}

#[test]
fn nan_is_the_worst() {
    assert!(run(Square::OneNan).worst().is_nan());
}

#[test]
fn inconsistent_ops_fail() {
    for op in [Square::ReadsStrides, Square::ReadsNeeds] {
        assert!(run(op).consistency_error > 1e-4, "{op:?}");
    }
}
