//! Activations that a kernel applies in its epilogue, before the value leaves the register.

use crate::elementwise::UnaryOp;
use crate::isa::Isa;

/// A function of each element that a product or a convolution applies to its result. NaN stays NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` where positive, `slope * x` elsewhere
    LeakyRelu(f32),
}

impl Activation {
    /// The same function as an operation on tensors; `None` for none.
    pub fn function(self) -> Option<UnaryOp> {
        match self {
            Activation::None => None,
            Activation::Relu => Some(UnaryOp::Relu),
            Activation::Relu6 => Some(UnaryOp::Relu6),
            Activation::LeakyRelu(slope) => Some(UnaryOp::LeakyRelu(f64::from(slope))),
        }
    }

    /// Of one vector.
    #[inline(always)]
    pub fn apply_vector<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        // `max` and `min` return their second operand where one is NaN, so `x` stands there.
        match self {
            Activation::None => x,
            Activation::Relu => isa.max(isa.zero(), x),
            Activation::Relu6 => isa.min(isa.splat(6.0), isa.max(isa.zero(), x)),
            Activation::LeakyRelu(slope) => isa.select(isa.gt(x, isa.zero()), x, isa.mul(x, isa.splat(slope))),
        }
    }

    /// Of one number.
    #[inline]
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Activation::None => x,
            Activation::Relu if x <= 0.0 => 0.0,
            Activation::Relu => x,
            Activation::Relu6 if x <= 0.0 => 0.0,
            Activation::Relu6 if x > 6.0 => 6.0,
            Activation::Relu6 => x,
            Activation::LeakyRelu(_) if x > 0.0 => x,
            Activation::LeakyRelu(slope) => f64::from(slope) * x,
        }
    }
}
