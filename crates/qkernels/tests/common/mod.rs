//! Shared by the kernel tests: tensors in every memory order, and comparison with the f64 path.

#![allow(dead_code, reason = "each test binary uses a part")]

use qkernels::sparse::to_batch_innermost;
use qtensor::{DType, Tensor};

/// Smooth pseudo-random f32 values within `±scale`.
pub(crate) fn values(shape: &[usize], salt: usize, scale: f32) -> Tensor {
    let mut i = salt as f64;
    Tensor::from_fn(shape, || {
        i += 1.0;
        scale * (((i * 12.9898).sin() * 43758.5453).fract() as f32)
    })
    .unwrap()
}

/// The ways in which [`arranged`] can lay out a tensor.
pub(crate) const ARRANGEMENTS: usize = 6;

/// The same elements in another memory order: row-major, channels-last, axes reversed, a slice of something larger, every second one of a wider axis, the batch innermost.
pub(crate) fn arranged(x: &Tensor, how: usize) -> Tensor {
    let wide = |axis: usize, factor: usize| {
        let mut dims = x.shape().to_vec();
        dims[axis] = dims[axis] * factor + 3;
        Tensor::full(dims, f32::NAN).unwrap()
    };
    let fill = |parent: Tensor, pick: &dyn Fn(&Tensor) -> Tensor| {
        // Writing through a view would copy it, so the parent is assembled value by value.
        let view = pick(&parent);
        let mut memory = parent.to_vec::<f32>().unwrap();
        let places = view.layout();
        let mut index = vec![0; x.rank()];
        for value in x.to_vec::<f32>().unwrap() {
            memory[places.index(&index).unwrap()] = value;
            for axis in (0..x.rank()).rev() {
                index[axis] += 1;
                if index[axis] < x.shape()[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        pick(&Tensor::from_vec(parent.shape(), memory).unwrap())
    };
    match how % ARRANGEMENTS {
        1 => x.to_channels_last(),
        2 => {
            let back: Vec<usize> = (0..x.rank()).rev().collect();
            x.permute(&back).unwrap().contiguous().permute(&back).unwrap()
        }
        3 if x.rank() > 0 => {
            let end = x.shape()[x.rank() - 1] + 2;
            fill(wide(x.rank() - 1, 1), &|p| p.slice(x.rank() - 1, 2..end).unwrap())
        }
        4 if x.rank() > 0 => {
            let end = 2 * x.shape()[0];
            fill(wide(0, 2), &|p| p.slice_step(0, 0..end, 2).unwrap())
        }
        5 => to_batch_innermost(x).unwrap(),
        _ => x.contiguous(),
    }
}

/// In f64.
pub(crate) fn f64s(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F64).unwrap()
}

/// Checks shape and values, `|found - expected| <= relative · |expected| + absolute`; NaN and infinities must agree.
#[track_caller]
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, relative: f64, absolute: f64) {
    assert_eq!(found.shape(), expected.shape());
    assert_eq!(found.dtype(), DType::F32);
    let expected = f64s(expected).to_vec::<f64>().unwrap();
    for (i, (f, e)) in found.to_vec::<f32>().unwrap().into_iter().zip(expected).enumerate() {
        let f = f64::from(f);
        let equal = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= relative * e.abs() + absolute;
        assert!(equal, "element {i} of {}: {f} instead of {e}", found.shape());
    }
}

/// The bits of the elements in logical order.
pub(crate) fn bits(x: &Tensor) -> Vec<u32> {
    x.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Runs `work` with 1 to 4 threads and checks that the bits agree.
#[track_caller]
pub(crate) fn assert_same_for_any_threads(work: impl Fn() -> Vec<Tensor> + Send + Sync) {
    let runs: Vec<Vec<Vec<u32>>> = (1..=4)
        .map(|threads| qkernels::par::with_threads(threads, || work().iter().map(bits).collect()).unwrap())
        .collect();
    for (threads, run) in runs.iter().enumerate() {
        assert!(*run == runs[0], "{} threads give other bits than one", threads + 1);
    }
}
