//! The exponential moving average of a model's weights, which evaluates better than the last weights do.

use crate::nn::Parameters;
use qkernels::update::Updates;
use qtensor::{Error, Result};

/// A second set of all parameters and buffers that follows the trained one slowly.
#[derive(Clone, Debug)]
pub struct Ema {
    decay: f64,
    updates: u64,
    average: Parameters,
}

impl Ema {
    /// An average that starts at the current values.
    ///
    /// # Errors
    /// `decay` is not in `[0, 1)`.
    pub fn new(decay: f64, parameters: &Parameters) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::argument("ema", format!("the decay must be in [0, 1), not {decay}")));
        }
        Ok(Ema { decay, updates: 0, average: parameters.clone() })
    }

    /// Takes in the values after an optimizer step: `average += (1 - d) · (value - average)`.
    ///
    /// The decay `d` warms up as `(1 + t) / (10 + t)` at the update number `t`, so that the average forgets the initial values.
    /// Running statistics are averaged like parameters; counters are copied.
    ///
    /// # Errors
    /// `parameters` are not those of the same model.
    pub fn update(&mut self, parameters: &Parameters) -> Result<()> {
        let same = self.average.named().map(|(name, _)| name).eq(parameters.named().map(|(name, _)| name));
        if !same {
            return Err(Error::argument("ema", "the parameters are not those of the averaged model"));
        }
        self.updates += 1;
        let weight = 1.0 - self.current_decay();
        let mut updates = Updates::new();
        for (average, parameter) in self.average.values_mut().zip(parameters.parameters()) {
            updates.lerp(average, &parameter.value, weight)?;
        }
        updates.run();
        for (i, buffer) in parameters.buffers().iter().enumerate() {
            if buffer.value.dtype().is_float() {
                qkernels::update::lerp(self.average.buffer_mut(i), &buffer.value, weight)?;
            } else {
                *self.average.buffer_mut(i) = buffer.value.clone();
            }
        }
        Ok(())
    }

    /// The decay of the last update.
    pub fn current_decay(&self) -> f64 {
        let t = self.updates as f64;
        self.decay.min((1.0 + t) / (10.0 + t))
    }

    /// The averaged values.
    pub fn parameters(&self) -> &Parameters {
        &self.average
    }

    /// The averaged values, to be set from a checkpoint.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.average
    }

    /// Number of updates so far, which a checkpoint must keep.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Sets the number of updates, from a checkpoint.
    pub fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Buffer, Parameter, ParameterKind};
    use qtensor::Tensor;

    fn parameters(value: f32, steps: i64) -> Parameters {
        let mut parameters = Parameters::default();
        let tensor = |v| Tensor::full([3], v).unwrap();
        parameters.push(Parameter { name: "w".into(), value: tensor(value), kind: ParameterKind::Weight });
        parameters.push_buffer(Buffer { name: "running_mean".into(), value: tensor(2.0 * value) });
        parameters.push_buffer(Buffer { name: "num_batches_tracked".into(), value: Tensor::scalar(steps) });
        parameters
    }

    #[test]
    fn follows_with_a_growing_decay() {
        let mut ema = Ema::new(0.5, &parameters(0.0, 0)).unwrap();
        let mut expected = 0.0;
        for t in 1..30 {
            let value = (t as f32).sin();
            ema.update(&parameters(value, t)).unwrap();
            let decay = f64::min(0.5, (1 + t) as f64 / (10 + t) as f64);
            assert_eq!(ema.current_decay(), decay);
            expected = decay * expected + (1.0 - decay) * f64::from(value);
            let average = ema.parameters();
            assert!((f64::from(average.get("w").unwrap().to_vec::<f32>().unwrap()[1]) - expected).abs() < 1e-6);
            let mean = average.get("running_mean").unwrap().to_vec::<f32>().unwrap()[2];
            assert!((f64::from(mean) - 2.0 * expected).abs() < 1e-6);
            assert_eq!(average.get("num_batches_tracked").unwrap().item().unwrap(), t as f64);
        }
        assert_eq!(ema.updates(), 29);
    }

    #[test]
    fn refuses_other_models_and_decays() {
        let mut ema = Ema::new(0.9, &parameters(0.0, 0)).unwrap();
        assert!(ema.update(&Parameters::default()).is_err());
        assert!(Ema::new(1.0, &parameters(0.0, 0)).is_err());
        assert!(Ema::new(f64::NAN, &parameters(0.0, 0)).is_err());
    }
}
