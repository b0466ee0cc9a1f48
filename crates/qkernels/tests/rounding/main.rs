//! Quantizers for training against their formulas in f64, published vectors, and what chance should give.

mod batch_innermost;
mod clips;
#[path = "../common/mod.rs"]
mod common;
mod halves;
mod logarithmic;
mod running;
mod sawb;
mod unbiased;
mod uniform;

use qkernels::rounding::Rounding;
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};

fn key(index: u64) -> StreamKey {
    StreamKey { seed: 11, purpose: Purpose::Rounding, epoch: 3, index }
}

fn stream(index: u64) -> Stream {
    Stream::new(StreamKey { seed: 5, purpose: Purpose::Test, epoch: 0, index })
}

/// Gaussian values of deviation 1.
fn gaussian(shape: &[usize], index: u64) -> Tensor {
    stream(index).normal_tensor(shape, 0.0, 1.0).unwrap()
}

/// What is left of so many Gaussian values when a share of them is pruned by magnitude.
fn pruned(count: usize, share: f64) -> Tensor {
    let mut values = gaussian(&[count], 77).to_vec::<f32>().unwrap();
    values.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let left = values.split_off((share * count as f64) as usize);
    Tensor::from_slice([left.len()], &left).unwrap()
}

/// `‖a − b‖ / ‖b‖`
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(&b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (error / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

/// Codes in the order of memory.
fn codes(x: &Tensor) -> Vec<i32> {
    match x.dtype() {
        DType::I8 => x.memory::<i8>().unwrap().iter().map(|q| i32::from(*q)).collect(),
        _ => x.memory::<u8>().unwrap().iter().map(|q| i32::from(*q)).collect(),
    }
}

/// The noise of the element at a place of the result's memory, as [`Rounding::Stochastic`] documents it.
fn noise(rounding: Rounding, place: usize) -> Option<f64> {
    let Rounding::Stochastic(key) = rounding else { return None };
    let word = key.block((16 * (place / 128) + place % 16) as u32)[place / 16 % 4];
    let half = if (place / 64).is_multiple_of(2) { word & 0xffff } else { word >> 16 };
    Some((f64::from(half) + 0.5) / 65536.0)
}

/// Checks a code of `y` steps from 0, within limits, allowing either neighbour where f32 may decide otherwise than f64.
#[track_caller]
fn assert_code(found: i32, y: f64, limits: [i32; 2], noise: Option<f64>) {
    let y = y.clamp(f64::from(limits[0]), f64::from(limits[1]));
    let doubt = 4e-7 * y.abs().max(1.0);
    let lower = y.floor();
    let up = |y: f64| match noise {
        None => (y - y.floor() > 0.5 || (y - y.floor() == 0.5 && y.floor() % 2.0 != 0.0)) as i32 + y.floor() as i32,
        Some(u) => y.floor() as i32 + i32::from(y - y.floor() >= u),
    };
    let fits = [y, y - doubt, y + doubt].iter().any(|y| up(*y) == found);
    assert!(fits, "{y} between {lower} and the next became {found} with noise {noise:?}");
}
