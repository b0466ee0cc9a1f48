use super::Context;
use qgraph::{Result, Tape, Var};
use qtensor::random::Purpose;

/// Dropout (Srivastava et al., 2014): in training each value is 0 with some probability, and the others are scaled up.
#[derive(Clone, Debug)]
pub struct Dropout {
    probability: f64,
    /// Tells the noise of one dropout layer from that of another.
    number: usize,
}

impl Dropout {
    /// A layer with that probability of a zero; `number` must differ among the dropout layers of a model.
    pub fn new(probability: f64, number: usize) -> Self {
        Dropout { probability, number }
    }

    /// `x` with some values dropped in training, `x` itself otherwise.
    ///
    /// # Errors
    /// A probability outside `0..=1`.
    pub fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        match context.noise(Purpose::Dropout, self.number) {
            Some(key) => tape.dropout(x, self.probability, key),
            None => Ok(x.clone()),
        }
    }

    /// Probability of a zero.
    pub fn probability(&self) -> f64 {
        self.probability
    }
}
