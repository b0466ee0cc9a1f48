//! Mixup: convex combinations of pairs of samples (Zhang, Cissé, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization",
//! ICLR 2018).

use super::error::Result;
use qtensor::random::Stream;
use qtensor::{DType, Tensor};

/// Mixes every sample with another one of the batch, all with one weight from Beta(alpha, alpha). Returns the mixed images and the
/// probabilities of the classes, (samples, classes).
pub(super) fn mix(
    images: &Tensor,
    labels: &[i64],
    classes: usize,
    alpha: f64,
    stream: &mut Stream,
) -> Result<(Tensor, Tensor)> {
    let weight = beta(alpha, stream) as f32;
    let partners = stream.permutation(labels.len() as u32);
    let from = images.memory::<f32>()?;
    let size = from.len() / labels.len().max(1);
    let mut mixed = images.empty_like();
    for (i, to) in mixed.memory_mut::<f32>()?.chunks_exact_mut(size.max(1)).enumerate() {
        let own = &from[i * size..(i + 1) * size];
        let other = &from[partners[i] as usize * size..(partners[i] as usize + 1) * size];
        to.iter_mut().zip(own).zip(other).for_each(|((to, a), b)| *to = b + weight * (a - b));
    }
    let mut targets = Tensor::zeros([labels.len(), classes], DType::F32)?;
    for (i, row) in targets.memory_mut::<f32>()?.chunks_exact_mut(classes).enumerate() {
        row[labels[i] as usize] += weight;
        row[labels[partners[i] as usize] as usize] += 1.0 - weight;
    }
    Ok((mixed, targets))
}

/// A value of Beta(alpha, alpha), in [0, 1].
fn beta(alpha: f64, stream: &mut Stream) -> f64 {
    // As logarithms, because both gamma values may be too small for a number if alpha is small.
    let (a, b) = (log_gamma_variate(alpha, stream), log_gamma_variate(alpha, stream));
    1.0 / (1.0 + (b - a).exp())
}

/// The logarithm of a value of Gamma(shape, 1): Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 2000;
/// a shape below 1 is raised by 1 and its value multiplied by U^(1/shape).
fn log_gamma_variate(shape: f64, stream: &mut Stream) -> f64 {
    if shape < 1.0 {
        let boost = uniform(stream).ln() / shape;
        return boost + log_gamma_variate(shape + 1.0, stream);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = f64::from(stream.normal());
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && uniform(stream).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

/// Uniform in (0, 1].
fn uniform(stream: &mut Stream) -> f64 {
    (f64::from(stream.next_u32()) + 1.0) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtensor::random::{Purpose, StreamKey};

    #[test]
    fn beta_has_its_mean_and_variance() {
        for alpha in [0.05, 0.2, 1.0, 4.0] {
            let mut stream = Stream::new(StreamKey { seed: 3, purpose: Purpose::Test, epoch: 0, index: 0 });
            let n = 100_000;
            let values: Vec<f64> = (0..n).map(|_| beta(alpha, &mut stream)).collect();
            let mean = values.iter().sum::<f64>() / f64::from(n);
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
            assert!((mean - 0.5).abs() < 0.006, "alpha {alpha}: mean {mean}");
            assert!((variance - expected).abs() < 0.015 * expected + 5e-4, "alpha {alpha}: {variance}, not {expected}");
        }
    }
}
