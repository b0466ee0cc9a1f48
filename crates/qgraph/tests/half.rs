//! Networks in bf16: types and shapes of gradients, and their distance from those in f32.

mod common;

use common::{assert_close, dropout_key, normal};
use qgraph::kernels::cast::{from_bf16, to_bf16};
use qgraph::ops::{BatchNorm, Linear};
use qgraph::{Activation, Conv2dParams, DType, PoolParams, Result, Tape, Tensor, Var};

fn single(shape: &[usize], index: u64) -> Tensor {
    normal(shape, index).to_dtype(DType::F32).unwrap()
}

/// A small network with a branch: ops that take bf16, ops that do not, and a sum of gradients.
fn network(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let params = Conv2dParams { padding: [1; 2], ..Default::default() };
    let norm = BatchNorm { eps: 1e-5, key: Some(0), activation: Activation::Relu };
    let y = tape.conv2d(x, &p[0], None, params)?;
    let y = tape.batch_norm(norm, &y, &p[1], &p[2])?;
    let branch = tape.sigmoid(&y)?;
    let branch = tape.dropout(&branch, 0.25, dropout_key(1))?;
    let y = tape.mul(&y, &branch)?;
    let y = tape.max_pool2d(&y, PoolParams::new(2))?;
    let features = tape.reshape(&y, [x.shape()[0], 16 * 4 * 4])?;
    let hidden = tape.linear_with(Linear { activation: Activation::Relu }, &features, &p[3], Some(&p[4]))?;
    let logits = tape.linear(&hidden, &p[5], None)?;
    let labels = Tensor::from_vec([x.shape()[0]], (0..x.shape()[0] as i64).map(|i| i % 3).collect())?;
    tape.cross_entropy(&logits, &labels, 0.0)
}

fn parameters() -> Vec<Tensor> {
    let shapes: [&[usize]; 6] = [&[16, 8, 3, 3], &[16], &[16], &[12, 256], &[12], &[3, 12]];
    let scales = [0.2, 1.0, 0.5, 0.1, 0.5, 0.5];
    let scaled = |(i, scale): (usize, &f64)| {
        qgraph::kernels::elementwise::scale(&single(shapes[i], 10 + i as u64), *scale).unwrap()
    };
    scales.iter().enumerate().map(scaled).collect()
}

/// The loss, and the gradients of the images and of all parameters.
fn gradients(images: &Tensor) -> Result<(f64, Vec<Tensor>)> {
    let mut tape = Tape::new().check_finite();
    let x = tape.leaf(images.clone());
    let p: Vec<Var> = parameters().into_iter().map(|value| tape.leaf(value)).collect();
    let loss = network(&mut tape, &x, &p)?;
    assert_eq!(loss.value().dtype(), DType::F32, "a loss is f32");
    let value = loss.value().item()?;
    let mut found = tape.backward(&loss)?;
    let all = std::iter::once(&x).chain(&p).map(|leaf| found.take(leaf).expect("the loss depends on every leaf"));
    Ok((value, all.collect()))
}

#[test]
fn gradients_have_the_types_of_their_leaves_and_are_near_those_of_f32() -> Result<()> {
    let images = to_bf16(&single(&[6, 8, 8, 8], 1))?;
    let (loss, found) = gradients(&images)?;
    let (expected_loss, expected) = gradients(&from_bf16(&images)?)?;
    assert!((loss - expected_loss).abs() < 0.02 * expected_loss, "{loss} and {expected_loss}");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.dtype(), if i == 0 { DType::BF16 } else { DType::F32 });
        // Each value passes a few roundings of 2⁻⁹, and ReLU and pooling may choose otherwise.
        let distance = relative_distance(found, expected);
        assert!(distance < 0.1, "leaf {i}: {distance}");
        assert!(distance > 1e-6, "leaf {i} was not computed in bf16");
    }
    Ok(())
}

/// ‖a - b‖ / ‖b‖
fn relative_distance(a: &Tensor, b: &Tensor) -> f64 {
    let f64s = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
    let (a, b) = (f64s(a), f64s(b));
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// Sums of many values leave bf16, views and maxima stay exact, and broadcasting is undone.
#[test]
fn sums_widen_and_broadcasts_are_summed() -> Result<()> {
    let mut tape = Tape::new();
    let x = tape.leaf(to_bf16(&single(&[4, 8], 1))?);
    let row = tape.leaf(to_bf16(&single(&[8], 2))?);
    let sum = tape.add(&x, &row)?;
    assert_eq!(sum.dtype(), DType::BF16);
    let total = tape.sum_all(&sum)?;
    assert_eq!(total.dtype(), DType::F32);
    let found = tape.backward(&total)?;
    for (leaf, expected) in [(&x, 1.0f32), (&row, 4.0)] {
        let gradient = found.get(leaf).unwrap();
        assert_eq!(gradient.dtype(), DType::BF16);
        assert_close(gradient, &Tensor::full(leaf.shape(), expected)?, 0.0);
    }
    Ok(())
}

/// What a network in bf16 keeps for its backward pass is little more than half of what f32 keeps.
#[test]
fn activations_take_half_the_memory() -> Result<()> {
    let kept = |images: &Tensor| -> Result<usize> {
        let mut tape = Tape::new();
        let values = parameters();
        let p: Vec<Var> = values.iter().map(|value| tape.leaf(value.clone())).collect();
        let params = Conv2dParams { padding: [1; 2], ..Default::default() };
        let norm = BatchNorm { eps: 1e-5, key: None, activation: Activation::Relu };
        let y = tape.conv2d(&Var::constant(images.clone()), &p[0], None, params)?;
        let y = tape.batch_norm(norm, &y, &p[1], &p[2])?;
        let _pooled = tape.max_pool2d(&y, PoolParams::new(2))?;
        drop(y);
        Ok(tape.retained_except(values.iter().chain([images])).bytes())
    };
    let images = single(&[6, 8, 32, 32], 1);
    let (narrow, wide) = (kept(&to_bf16(&images)?)?, kept(&images)?);
    // Convolution outputs halve, the i32 places of the maxima stay.
    let places = 6 * 16 * 16 * 16 * 4;
    let slack = 1 << 12;
    assert!(2 * (narrow - places) <= wide - places + slack, "{narrow} of {wide}");
    Ok(())
}
