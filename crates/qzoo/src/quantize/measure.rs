use super::layers::Site;
use crate::Result;
use qkernels::{Activation, Gemm, conv2d};
use qtensor::Tensor;

/// What a layer loses, over some calibration images.
pub(super) struct Measured {
    /// `‖X w - X~ q‖ / ‖X w‖`
    pub(super) relative_error: f64,
    /// The mean of `X w - X~ q` of each output.
    pub(super) mean_error: Vec<f64>,
}

/// Compares a layer's results in the two networks, biases left out. `sample` has what it is given in the quantized and in the original one.
pub(super) fn measure(site: &Site, weights: &Tensor, characters: &Tensor, sample: &[[Tensor; 2]]) -> Result<Measured> {
    let outputs = site.projection.map().outputs();
    let (mut error, mut energy, mut count) = (0.0, 0.0, 0usize);
    let mut sums = vec![0.0; outputs];
    for [quantized, analog] in sample {
        let wanted = result(site, analog, weights)?;
        let found = result(site, quantized, characters)?;
        // Channels last in memory: the outputs of one place lie beside each other.
        let (wanted, found) = (wanted.memory::<f32>()?, found.memory::<f32>()?);
        for (wanted, found) in wanted.chunks_exact(outputs).zip(found.chunks_exact(outputs)) {
            for ((wanted, found), sum) in wanted.iter().zip(found).zip(&mut sums) {
                let (wanted, difference) = (f64::from(*wanted), f64::from(*wanted) - f64::from(*found));
                error += difference * difference;
                energy += wanted * wanted;
                *sum += difference;
            }
            count += 1;
        }
    }
    let mean_error = sums.into_iter().map(|sum| sum / count.max(1) as f64).collect();
    let relative_error = if energy > 0.0 { (error / energy).sqrt() } else { 0.0 };
    Ok(Measured { relative_error, mean_error })
}

fn result(site: &Site, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    match site.projection.conv_params() {
        None => Ok(Gemm::new(x, &weights.t()?).run()?),
        Some(params) => {
            let weights = weights.reshape(site.projection.map().weight_shape())?;
            Ok(conv2d(x, &weights, None, &params, Activation::None)?.to_channels_last())
        }
    }
}
