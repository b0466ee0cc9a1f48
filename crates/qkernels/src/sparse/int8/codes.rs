//! Inputs and gradients as bytes.

use super::super::order::Order;
use crate::rounding::{Format, Groups, Quantizer, Rounding};
use qtensor::{DType, Error, Result, Shape, Tensor};

const OP: &str = "sparse byte codes";

/// A tensor `[N, …]` as u8 codes with one scale: a value is `scale · (code − zero point)`. In memory they lie in the order of the plan that takes them.
#[derive(Clone, Debug)]
pub struct ByteCodes {
    /// u8, contiguous, in that order.
    codes: Tensor,
    order: Order,
    /// Of the tensor.
    shape: Shape,
    scale: f32,
    zero_point: u8,
}

impl ByteCodes {
    /// The codes of a tensor `[N, …]` of any strides, f32 or bf16, for plans that work in that order.
    ///
    /// # Errors
    /// A quantizer with more than one scale, or of a format other than [`Format::Unsigned`] and [`Format::Offset`]; another element type; a value that is infinite or not a number.
    pub fn quantize(x: &Tensor, quantizer: &Quantizer, rounding: Rounding, order: Order) -> Result<Self> {
        Self::check_quantizer(quantizer)?;
        Self::new(order.quantize(x, quantizer, rounding)?, quantizer, order)
    }

    /// From what [`codes`](Self::codes) gave, or [`Quantizer::quantize_batch_innermost`] in that order, [`Quantizer::quantize`] of row-major values in the other: u8, which are copied where they are
    /// not contiguous.
    ///
    /// # Errors
    /// Codes that are not u8, or a scalar; a quantizer with more than one scale, or of a format other than [`Format::Unsigned`] and [`Format::Offset`].
    pub fn new(codes: Tensor, quantizer: &Quantizer, order: Order) -> Result<Self> {
        let (scale, zero_point) = Self::check_quantizer(quantizer)?;
        if codes.dtype() != DType::U8 {
            return Err(Error::DType { op: OP, expected: DType::U8, found: codes.dtype() });
        }
        if codes.rank() == 0 {
            return Err(Error::shape(OP, "a scalar has no batch axis"));
        }
        let shape = *order.viewed(&codes)?.shape();
        Ok(ByteCodes { shape, codes: codes.contiguous(), order, scale, zero_point })
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

    /// u8, contiguous: of shape `[…, N]` with the batch innermost, else of that of the tensor.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// The codes for a plan that works in that order.
    ///
    /// # Errors
    /// They lie in the other.
    pub(super) fn in_order(&self, op: &'static str, order: Order) -> Result<&[u8]> {
        if self.order != order {
            let message = format!("codes in the order {:?} do not fit a plan that works in {order:?}", self.order);
            return Err(Error::argument(op, message));
        }
        self.codes.as_slice()
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
