//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, reason = "each test file includes this one and uses its part")]

use qgraph::check::GradientCheck;
use qgraph::random::{Purpose, Stream, StreamKey};
use qgraph::{Context, Op, Result, Saved, Tape, Tensor, Var, Vjp};

/// Random numbers of a test.
pub fn stream(index: u64) -> Stream {
    Stream::new(StreamKey { seed: 11, purpose: Purpose::Test, epoch: 0, index })
}

/// A key for the dropout of a test.
pub fn dropout_key(index: u64) -> StreamKey {
    StreamKey { seed: 3, purpose: Purpose::Dropout, epoch: 0, index }
}

/// Normal values in f64, row-major.
pub fn normal(shape: &[usize], index: u64) -> Tensor {
    let mut stream = stream(index);
    Tensor::from_fn(shape, || f64::from(stream.normal())).unwrap()
}

/// Values of `0.3..1.5` in f64: away from the poles of a logarithm or a quotient.
pub fn positive(shape: &[usize], index: u64) -> Tensor {
    let mut stream = stream(index);
    Tensor::from_fn(shape, || 0.3 + 1.2 * f64::from(stream.uniform())).unwrap()
}

/// Distinct values in f64 in random order, 0.11 apart and never nearer to 0 than 0.05: no kink within the steps of a gradient check.
pub fn distinct(shape: &[usize], index: u64) -> Tensor {
    let count: usize = shape.iter().product();
    let order = stream(index).permutation(count as u32);
    let values = order.iter().map(|i| 0.11 * (f64::from(*i) - (count / 2) as f64) + 0.053).collect();
    Tensor::from_vec(shape, values).unwrap()
}

/// The same values behind other strides: row-major, with gaps, with the axes reversed in memory, and channels-last for images.
pub fn layouts(x: &Tensor) -> Vec<Tensor> {
    let rank = x.rank();
    let mut all = vec![x.contiguous()];
    if rank == 0 {
        return all;
    }
    let reversed: Vec<usize> = (0..rank).rev().collect();
    all.push(x.permute(&reversed).unwrap().contiguous().permute(&reversed).unwrap());
    let last = rank - 1;
    let width = x.shape()[last];
    let padded = Tensor::concatenate(&[x.clone(), x.clone()], last).unwrap();
    all.push(padded.slice(last, width..2 * width).unwrap());
    if rank == 4 {
        all.push(x.to_channels_last());
    }
    all
}

/// Checks the gradient of `f` at `inputs`, with every layout of every input in turn.
#[track_caller]
pub fn check(inputs: &[Tensor], f: impl Fn(&mut Tape, &[Var]) -> Result<Var>) {
    for which in 0..inputs.len() {
        for view in layouts(&inputs[which]) {
            let mut these = inputs.to_vec();
            these[which] = view;
            let checked = GradientCheck::default().run(&these, &f).unwrap();
            assert!(checked.worst() <= 1e-6, "input {which} as {:?}: {checked:?}", these[which]);
        }
    }
}

/// Checks that the values agree to `tolerance`, relative to the largest.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.shape(), b.shape());
    let to_vec = |t: &Tensor| t.to_dtype(qgraph::DType::F64).unwrap().to_vec::<f64>().unwrap();
    let (a, b) = (to_vec(a), to_vec(b));
    let largest = a.iter().fold(1e-12, |m: f64, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "element {i}: {a} and {b}");
    }
}

/// An op that passes its input on and whose rule gives whatever the test wants.
#[derive(Clone, Debug)]
pub struct Odd {
    pub gradients: Vec<Option<Tensor>>,
}

impl Vjp for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn vjp(&self, _: Saved, _: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(self.gradients.clone())
    }
}

impl Op for Odd {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        Ok(x[0].clone())
    }
}
