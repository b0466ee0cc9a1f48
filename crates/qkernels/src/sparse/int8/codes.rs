//! Inputs and gradients as bytes.

use crate::rounding::{Format, Groups, Quantizer, Rounding};
use qtensor::{DType, Error, Result, Shape, Tensor};

const OP: &str = "sparse byte codes";

/// A tensor `[N, …]` as u8 codes with one scale: a value is `scale · (code − zero point)`. In memory the batch is innermost.
#[derive(Clone, Debug)]
pub struct ByteCodes {
    /// u8, row-major, of shape `[…, N]`.
    codes: Tensor,
    /// Of the tensor.
    shape: Shape,
    scale: f32,
    zero_point: u8,
}

impl ByteCodes {
    /// The codes of an f32 tensor `[N, …]` of any strides.
    ///
    /// # Errors
    /// A quantizer with more than one scale, or of a format other than [`Format::Unsigned`] and [`Format::Offset`]; another element type; a value that is infinite or not a number.
    pub fn quantize(x: &Tensor, quantizer: &Quantizer, rounding: Rounding) -> Result<Self> {
        Self::check_quantizer(quantizer)?;
        Self::new(quantizer.quantize_batch_innermost(x, rounding)?, quantizer)
    }

    /// From what [`Quantizer::quantize_batch_innermost`] gave: u8 of shape `[…, N]`, which are copied where they are not row-major.
    ///
    /// # Errors
    /// Codes that are not u8, or a scalar; a quantizer with more than one scale, or of a format other than [`Format::Unsigned`] and [`Format::Offset`].
    pub fn new(codes: Tensor, quantizer: &Quantizer) -> Result<Self> {
        let (scale, zero_point) = Self::check_quantizer(quantizer)?;
        if codes.dtype() != DType::U8 {
            return Err(Error::DType { op: OP, expected: DType::U8, found: codes.dtype() });
        }
        let Some((batch, rest)) = codes.shape().split_last() else {
            return Err(Error::shape(OP, "a scalar has no batch axis"));
        };
        let dims: Vec<usize> = std::iter::once(batch).chain(rest).copied().collect();
        Ok(ByteCodes { shape: Shape::new(&dims)?, codes: codes.contiguous(), scale, zero_point })
    }

    /// The scale and the zero point of a quantizer that will do.
    fn check_quantizer(quantizer: &Quantizer) -> Result<(f32, u8)> {
        let format = quantizer.format();
        let zero_point = match format {
            Format::Unsigned => 0,
            Format::Offset => 128,
            _ => {
                let message = format!("{format:?} codes do not fit sparse sums of bytes; take Unsigned or Offset ones");
                return Err(Error::argument(OP, message));
            }
        };
        match (quantizer.groups(), quantizer.scales()) {
            (Groups::Tensor, [scale]) => Ok((*scale, zero_point)),
            (groups, scales) => {
                let message =
                    format!("{} scales of groups {groups:?}; one for the whole tensor is needed", scales.len());
                Err(Error::argument(OP, message))
            }
        }
    }

    /// Of the tensor: `[N, …]`.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// u8, row-major, of shape `[…, N]`.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// The value of a step.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The code of 0: 0 or 128.
    pub fn zero_point(&self) -> u8 {
        self.zero_point
    }
}
