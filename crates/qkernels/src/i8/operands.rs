//! What a quantized layer takes and gives.

use super::weights::PackedWeights;
use qtensor::{DType, Error, Result, Shape, Tensor};

/// What the bytes of a tensor stand for: `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    /// The step from one number to the next: positive and finite.
    pub scale: f32,
    /// The number that stands for 0: 0 for data that are never negative, 128 for symmetric ones.
    pub zero_point: u8,
}

impl Quantization {
    /// Refuses a scale that is not positive and finite.
    ///
    /// # Errors
    /// As said; the message names `op` and `what`.
    pub(super) fn check(self, op: &'static str, what: &str) -> Result<()> {
        if self.scale > 0.0 && self.scale.is_finite() {
            return Ok(());
        }
        Err(Error::argument(op, format!("the scale of the {what} must be positive and finite, found {}", self.scale)))
    }
}

/// What a layer gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// Bytes for the next layer.
    U8(Quantization),
    /// Real numbers: the last layer, or one with f32 layers behind it.
    F32,
}

impl Output {
    pub(super) fn dtype(self) -> DType {
        match self {
            Output::U8(_) => DType::U8,
            Output::F32 => DType::F32,
        }
    }
}

/// A quantized layer and its input.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    /// u8: images `[N, C, H, W]` of any strides, channels-last ones in place, or a matrix `[M, K]`.
    pub x: &'a Tensor,
    /// What the bytes of `x` stand for.
    pub input: Quantization,
    /// Filters or a matrix, with how they are applied.
    pub weights: &'a PackedWeights,
    /// One value for each filter: f32 in the units of the real result, or i32 in steps of the sums, `input.scale * scale of the filter`.
    pub bias: Option<&'a Tensor>,
    /// u8 of the shape of the result, added before the ReLU.
    pub residual: Option<(&'a Tensor, Quantization)>,
    /// Whether negative results become 0.
    pub relu: bool,
    /// What is returned.
    pub output: Output,
}

impl Operands<'_> {
    /// Checks everything but the shape of `x` against a result of that shape.
    ///
    /// # Errors
    /// Element types, scales or shapes that do not fit.
    pub(super) fn check(&self, op: &'static str, result: &[usize]) -> Result<()> {
        let of_type = |x: &Tensor, expected: DType| match x.dtype() == expected {
            true => Ok(()),
            false => Err(Error::DType { op, expected, found: x.dtype() }),
        };
        of_type(self.x, DType::U8)?;
        self.input.check(op, "input")?;
        if let Output::U8(quantization) = self.output {
            quantization.check(op, "output")?;
        }
        if let Some(bias) = self.bias {
            let filters = self.weights.scales().len();
            if bias.shape() != [filters] {
                return Err(Error::shape(op, format!("a bias of {} for {filters} filters", bias.shape())));
            }
            if bias.dtype() != DType::I32 {
                of_type(bias, DType::F32)?;
            }
        }
        if let Some((residual, quantization)) = self.residual {
            of_type(residual, DType::U8)?;
            quantization.check(op, "residual")?;
            if residual.shape() != result {
                let result = Shape::new(result)?;
                return Err(Error::shape(op, format!("a residual of {} for a result of {result}", residual.shape())));
            }
        }
        Ok(())
    }
}
