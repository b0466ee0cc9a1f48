//! Dropout.

use crate::random::{Stream, StreamKey};
use crate::{Context, Error, Op, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::{BinaryOp, binary};
use qtensor::{DType, Element, Tensor};

/// Zeroes each element with some probability and scales the others so that the expectation stays (Srivastava et al., 2014).
///
/// The mask is a function of `key` and of the logical position of the element. So a rerun draws the same mask, and the backward
/// pass draws it again: nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of a zero, in `0..=1`.
    pub probability: f64,
    /// Names the mask: a different one for every layer and every step.
    pub key: StreamKey,
}

impl Dropout {
    /// 0 or `1 / (1 - p)` for each element of `like`, in its type and memory order.
    fn mask(&self, like: &Tensor) -> Result<Tensor> {
        match like.dtype() {
            DType::F32 => self.mask_of::<f32>(like),
            DType::F64 => self.mask_of::<f64>(like),
            found => Err(qtensor::Error::DType { op: "dropout", expected: DType::F32, found }.into()),
        }
    }

    fn mask_of<T: Element>(&self, like: &Tensor) -> Result<Tensor> {
        let mut random = Stream::new(self.key);
        let (zero, kept) = (T::from_f64(0.0), T::from_f64(1.0 / (1.0 - self.probability)));
        let mut draw = || if f64::from(random.uniform()) < self.probability { zero } else { kept };
        let mut mask = like.empty_like();
        let row_major = Tensor::from_fn(like.shape(), &mut draw)?;
        if mask.layout().is_contiguous() {
            return Ok(row_major);
        }
        mask.copy_from(&row_major)?;
        Ok(mask)
    }
}

impl Vjp for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn vjp(&self, _: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(binary(BinaryOp::Mul, &dy, &self.mask(&dy)?)?)])
    }
}

impl Op for Dropout {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(Error::argument("dropout", format!("probability {} is outside 0..=1", self.probability)));
        }
        Ok(binary(BinaryOp::Mul, x, &self.mask(x)?)?)
    }
}

impl Tape {
    /// Zeroes elements with the given probability, and scales the others by `1 / (1 - probability)`: see [`Dropout`].
    ///
    /// # Errors
    /// A probability outside `0..=1`, or a type that is neither f32 nor f64.
    pub fn dropout(&mut self, x: &Var, probability: f64, key: StreamKey) -> Result<Var> {
        if probability == 0.0 {
            return Ok(x.clone());
        }
        self.apply(Dropout { probability, key }, &[x])
    }
}
