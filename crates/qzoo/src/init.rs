//! Initial values of parameters, named and scaled as in PyTorch's `torch.nn.init`.
//!
//! Every parameter draws from its own [`Stream`], so its values depend on the seed and on its position in the model only.

use qtensor::random::Stream;
use qtensor::{Error, Result, Tensor};

/// Which side of a layer keeps the variance of its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanMode {
    /// Inputs of one output: the forward signal.
    FanIn,
    /// Outputs of one input: the backward signal.
    FanOut,
}

/// The nonlinearity behind a layer, which sets the recommended gain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nonlinearity {
    /// None, a sigmoid or a softmax: gain 1.
    Linear,
    /// Gain 5/3.
    Tanh,
    /// Gain √2.
    Relu,
    /// Gain √(2 / (1 + slope²)).
    LeakyRelu(f64),
}

impl Nonlinearity {
    /// The factor by which the weights grow to make up for the nonlinearity (`torch.nn.init.calculate_gain`).
    pub fn gain(self) -> f64 {
        match self {
            Nonlinearity::Linear => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
            Nonlinearity::Relu => std::f64::consts::SQRT_2,
            Nonlinearity::LeakyRelu(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
        }
    }
}

/// A rule for initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// The same value everywhere.
    Constant(f64),
    /// Uniform in `[low, high)`.
    Uniform {
        /// Least value.
        low: f64,
        /// Bound above.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        deviation: f64,
    },
    /// Normal, drawn again until it lies in `[low, high]`.
    TruncatedNormal {
        /// Mean of the whole distribution.
        mean: f64,
        /// Standard deviation of the whole distribution.
        deviation: f64,
        /// Least value.
        low: f64,
        /// Greatest value.
        high: f64,
    },
    /// Glorot and Bengio (2010): uniform in ± gain · √(6 / (fan in + fan out)).
    XavierUniform {
        /// Factor on the deviation.
        gain: f64,
    },
    /// Glorot and Bengio (2010): normal of deviation gain · √(2 / (fan in + fan out)).
    XavierNormal {
        /// Factor on the deviation.
        gain: f64,
    },
    /// He et al. (2015): uniform in ± gain · √(3 / fan).
    KaimingUniform {
        /// Which fan.
        mode: FanMode,
        /// What follows the layer.
        nonlinearity: Nonlinearity,
    },
    /// He et al. (2015): normal of deviation gain / √fan.
    KaimingNormal {
        /// Which fan.
        mode: FanMode,
        /// What follows the layer.
        nonlinearity: Nonlinearity,
    },
    /// Saxe et al. (2013): orthonormal rows or columns, whichever are fewer, times the gain.
    Orthogonal {
        /// Factor on all values.
        gain: f64,
    },
}

impl Init {
    /// What PyTorch gives the weights of a linear or convolutional layer by itself: uniform in ± 1 / √(fan in).
    pub const LAYER_DEFAULT: Init =
        Init::KaimingUniform { mode: FanMode::FanIn, nonlinearity: Nonlinearity::LeakyRelu(SQRT_5) };

    /// The convolutions of the ImageNet residual networks: normal, fan out, ReLU.
    pub const RESNET: Init = Init::KaimingNormal { mode: FanMode::FanOut, nonlinearity: Nonlinearity::Relu };

    /// What PyTorch gives the bias of such a layer: uniform in ± 1 / √(fan in of its weights).
    pub fn bias_default(fan_in: usize) -> Init {
        let bound = if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() };
        Init::Uniform { low: -bound, high: bound }
    }

    /// A tensor of that shape, drawn from `stream`.
    ///
    /// # Errors
    /// The shape has no fans where the rule needs them (rank below 2), or the rule's own numbers make no distribution.
    pub fn draw(&self, shape: &[usize], stream: &mut Stream) -> Result<Tensor> {
        match *self {
            Init::Constant(value) => Tensor::full(shape, value as f32),
            Init::Uniform { low, high } => stream.uniform_tensor(shape, low as f32, high as f32),
            Init::Normal { mean, deviation } => stream.normal_tensor(shape, mean as f32, deviation as f32),
            Init::TruncatedNormal { .. } => self.truncated_normal(shape, stream),
            Init::XavierUniform { gain } => symmetric(shape, gain * (6.0 / fan_sum(shape)?).sqrt(), stream),
            Init::XavierNormal { gain } => centred(shape, gain * (2.0 / fan_sum(shape)?).sqrt(), stream),
            Init::KaimingUniform { mode, nonlinearity } => {
                symmetric(shape, nonlinearity.gain() * (3.0 / fan(shape, mode)?).sqrt(), stream)
            }
            Init::KaimingNormal { mode, nonlinearity } => {
                centred(shape, nonlinearity.gain() / fan(shape, mode)?.sqrt(), stream)
            }
            Init::Orthogonal { gain } => orthogonal(shape, gain, stream),
        }
    }

    fn truncated_normal(&self, shape: &[usize], stream: &mut Stream) -> Result<Tensor> {
        let Init::TruncatedNormal { mean, deviation, low, high } = *self else {
            return Err(Error::argument("init", "not a truncated normal"));
        };
        // An interval around the mean and not too narrow keeps the share of accepted draws above a few percent.
        if !(low <= mean && mean <= high && high - low >= 0.1 * deviation && deviation > 0.0) {
            return Err(Error::argument(
                "init",
                format!(
                    "a normal of mean {mean} and deviation {deviation} cannot be cut to [{low}, {high}]: \
                     the interval must hold the mean and span a tenth of the deviation"
                ),
            ));
        }
        let (mean, deviation, low, high) = (mean as f32, deviation as f32, low as f32, high as f32);
        Tensor::from_fn(shape, || {
            loop {
                let value = mean + deviation * stream.normal();
                if (low..=high).contains(&value) {
                    return value;
                }
            }
        })
    }
}

const SQRT_5: f64 = 2.236_067_977_499_79;

/// Inputs of one output and outputs of one input for weights `[out, in, kernel…]`.
///
/// # Errors
/// Rank below 2.
pub fn fans(shape: &[usize]) -> Result<(usize, usize)> {
    if shape.len() < 2 {
        return Err(Error::shape("init", format!("fans need weights of rank 2 or more, not {shape:?}")));
    }
    let field: usize = shape[2..].iter().product();
    Ok((shape[1] * field, shape[0] * field))
}

fn fan(shape: &[usize], mode: FanMode) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    Ok(match mode {
        FanMode::FanIn => fan_in as f64,
        FanMode::FanOut => fan_out as f64,
    }
    .max(1.0))
}

fn fan_sum(shape: &[usize]) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    Ok(((fan_in + fan_out) as f64).max(1.0))
}

fn symmetric(shape: &[usize], bound: f64, stream: &mut Stream) -> Result<Tensor> {
    stream.uniform_tensor(shape, -bound as f32, bound as f32)
}

fn centred(shape: &[usize], deviation: f64, stream: &mut Stream) -> Result<Tensor> {
    stream.normal_tensor(shape, 0.0, deviation as f32)
}

/// Gram and Schmidt's process on normal vectors: the Q of a QR factorisation whose R has a positive diagonal.
fn orthogonal(shape: &[usize], gain: f64, stream: &mut Stream) -> Result<Tensor> {
    fans(shape)?;
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut vector: Vec<f64> = (0..length).map(|_| f64::from(stream.normal())).collect();
        // A second sweep removes what rounding left of the earlier directions.
        for _ in 0..2 {
            for other in &vectors {
                let share: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(a, b)| *a -= share * b);
            }
        }
        let norm = vector.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-9 {
            vector.iter_mut().for_each(|a| *a /= norm);
            vectors.push(vector);
        }
    }
    let mut values = vec![0.0f32; rows * columns];
    for (i, vector) in vectors.iter().enumerate() {
        for (j, value) in vector.iter().enumerate() {
            let place = if rows <= columns { i * columns + j } else { j * columns + i };
            values[place] = (gain * value) as f32;
        }
    }
    Tensor::from_vec(shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtensor::random::{Purpose, StreamKey};

    fn draw(init: Init, shape: &[usize]) -> Vec<f32> {
        let mut stream = Stream::new(StreamKey { seed: 3, purpose: Purpose::Test, epoch: 0, index: 0 });
        init.draw(shape, &mut stream).unwrap().to_vec().unwrap()
    }

    fn assert_uniform(init: Init, shape: &[usize], bound: f64) {
        let values = draw(init, shape);
        let largest = values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        assert!(largest <= bound * (1.0 + 1e-6) && largest > 0.99 * bound, "{init:?}: {largest} against {bound}");
        assert_deviation(&values, bound / 3f64.sqrt());
    }

    fn assert_deviation(values: &[f32], expected: f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        assert!((variance.sqrt() / expected - 1.0).abs() < 0.03, "{} against {expected}", variance.sqrt());
        assert!(mean.abs() < 0.05 * expected);
    }

    #[test]
    fn bounds_and_deviations_follow_the_fans() {
        let shape = [32, 16, 3, 3];
        let (fan_in, fan_out) = (144.0f64, 288.0f64);
        let relu = Nonlinearity::Relu;
        assert_eq!(fans(&shape).unwrap(), (144, 288));
        assert_uniform(Init::LAYER_DEFAULT, &shape, 1.0 / fan_in.sqrt());
        assert_uniform(Init::XavierUniform { gain: 2.0 }, &shape, 2.0 * (6.0 / (fan_in + fan_out)).sqrt());
        let kaiming = Init::KaimingUniform { mode: FanMode::FanOut, nonlinearity: relu };
        assert_uniform(kaiming, &shape, (6.0 / fan_out).sqrt());
        assert_deviation(&draw(Init::RESNET, &shape), (2.0 / fan_out).sqrt());
        let tanh = Init::KaimingNormal { mode: FanMode::FanIn, nonlinearity: Nonlinearity::Tanh };
        assert_deviation(&draw(tanh, &shape), 5.0 / 3.0 / fan_in.sqrt());
        assert_deviation(&draw(Init::XavierNormal { gain: 1.0 }, &shape), (2.0 / (fan_in + fan_out)).sqrt());
        assert_uniform(Init::bias_default(100), &[5000], 0.1);
        assert_deviation(&draw(Init::Normal { mean: 0.0, deviation: 0.01 }, &[9000]), 0.01);
        assert_eq!(draw(Init::Constant(1.5), &[3]), [1.5; 3]);
    }

    #[test]
    fn truncated_normals_stay_inside() {
        let init = Init::TruncatedNormal { mean: 0.0, deviation: 1.0, low: -2.0, high: 2.0 };
        let values = draw(init, &[20_000]);
        assert!(values.iter().all(|v| v.abs() <= 2.0) && values.iter().any(|v| v.abs() > 1.9));
        // The deviation of a standard normal cut at ±2.
        assert_deviation(&values, 0.879_625);
        let outside = Init::TruncatedNormal { mean: 0.0, deviation: 1.0, low: 5.0, high: 6.0 };
        let mut stream = Stream::new(StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 });
        assert!(outside.draw(&[2], &mut stream).is_err());
    }

    #[test]
    fn orthogonal_rows_and_columns() {
        for shape in [[6, 10], [10, 6], [7, 7]] {
            let values = draw(Init::Orthogonal { gain: 2.0 }, &shape);
            let [rows, columns] = shape;
            let at = |i: usize, j: usize| {
                let place = if rows <= columns { i * columns + j } else { j * columns + i };
                f64::from(values[place])
            };
            let (count, length) = (rows.min(columns), rows.max(columns));
            for a in 0..count {
                for b in 0..count {
                    let product: f64 = (0..length).map(|j| at(a, j) * at(b, j)).sum();
                    let expected = if a == b { 4.0 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-5, "{shape:?} {a} {b}: {product}");
                }
            }
        }
    }

    #[test]
    fn rank_one_weights_have_no_fans() {
        let mut stream = Stream::new(StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 });
        assert!(Init::XavierUniform { gain: 1.0 }.draw(&[4], &mut stream).is_err());
    }
}
