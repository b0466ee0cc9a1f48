//! Layers between sparse ones keep the batch innermost in memory, forwards and backwards, and compute what they compute in other orders.

mod common;

use common::normal;
use qgraph::ops::BatchNorm;
use qgraph::{DType, Result, Tape, Tensor, Var};
use qkernels::Activation;
use qkernels::pool::PoolParams;
use qkernels::sparse::{is_batch_innermost, to_batch_innermost};

/// What one run gives: results of the layers, then gradients of the images, of the residual and of the parameters.
struct Run {
    results: Vec<Tensor>,
    gradients: Vec<Tensor>,
}

/// A residual block's end and a small classifier.
fn run(x: Tensor, skip: Tensor) -> Result<Run> {
    let parameter = |shape: &[usize], index: u64| Ok::<_, qgraph::Error>(normal(shape, index).to_dtype(DType::F32)?);
    let mut tape = Tape::new();
    let (x, skip) = (tape.leaf(x), tape.leaf(skip));
    let [gamma, beta] = [tape.leaf(parameter(&[6], 3)?), tape.leaf(parameter(&[6], 4)?)];
    let (w, bias) = (tape.leaf(parameter(&[5, 6], 5)?), tape.leaf(parameter(&[5], 6)?));
    let op = BatchNorm { eps: 1e-5, key: None, activation: Activation::Relu };
    let first = tape.apply(op, &[&x, &gamma, &beta, &skip])?;
    let second = tape.batch_norm(BatchNorm { activation: Activation::None, ..op }, &first, &gamma, &beta)?;
    let active = tape.relu(&second)?;
    let added = tape.add(&active, &skip)?;
    let pooled = tape.max_pool2d(&added, PoolParams::new(2))?;
    let mean = tape.avg_pool2d(&pooled, PoolParams::new(2))?;
    let global = tape.global_avg_pool2d(&mean)?;
    let last = tape.avg_pool2d(&mean, PoolParams::new(2))?;
    let flat = tape.flatten(&last)?;
    assert_eq!(flat.value().buffer_id(), last.value().buffer_id(), "a view");
    let joined = tape.add(&global, &flat)?;
    let y = tape.linear(&joined, &w, Some(&bias))?;
    let square = tape.mul(&y, &y)?;
    let loss = tape.sum_all(&square)?;
    let results = [&first, &second, &active, &added, &pooled, &mean, &global, &last, &flat, &joined];
    let results = results.into_iter().map(|var| var.value().clone()).collect();
    let gradients = tape.backward(&loss)?;
    let of = |leaf: &Var| gradients.get(leaf).expect("a leaf").clone();
    Ok(Run { results, gradients: [&x, &skip, &gamma, &beta, &w, &bias].map(of).to_vec() })
}

#[test]
fn layers_keep_the_order_of_memory() -> Result<()> {
    for batch in [3, 33] {
        let x = normal(&[batch, 6, 8, 9], 1).to_dtype(DType::F32)?;
        let skip = normal(&[batch, 6, 8, 9], 2).to_dtype(DType::F32)?;
        let expected = run(x.to_channels_last(), skip.to_channels_last())?;
        // A residual may come from a dense layer.
        for skip in [to_batch_innermost(&skip)?, skip.to_channels_last()] {
            let found = run(to_batch_innermost(&x)?, skip)?;
            assert!(found.results.iter().all(is_batch_innermost));
            assert!(found.gradients[..2].iter().all(is_batch_innermost));
            let pairs = found.results.iter().zip(&expected.results);
            for (found, expected) in pairs.chain(found.gradients.iter().zip(&expected.gradients)) {
                let (found, expected) = (found.to_vec::<f32>()?, expected.to_vec::<f32>()?);
                let size = expected.iter().fold(1.0f32, |size, x| size.max(x.abs()));
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-4 * size));
            }
        }
    }
    Ok(())
}
