//! Scalar definitions of the elementwise operations.

use crate::elementwise::{BinaryOp, UnaryOp};

impl UnaryOp {
    /// The function at `x`.
    pub fn value(self, x: f64) -> f64 {
        match self {
            UnaryOp::Neg => -x,
            UnaryOp::Abs => x.abs(),
            UnaryOp::Square => x * x,
            UnaryOp::Sqrt => x.sqrt(),
            UnaryOp::Recip => 1.0 / x,
            UnaryOp::Exp => x.exp(),
            UnaryOp::Log => x.ln(),
            UnaryOp::Tanh => x.tanh(),
            UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            UnaryOp::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            UnaryOp::Relu6 => x.clamp(0.0, 6.0),
            UnaryOp::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
        }
    }

    /// The derivative, from the input or the output of the function as [`saves`](UnaryOp::saves) says.
    pub fn derivative(self, saved: f64) -> f64 {
        match self {
            UnaryOp::Neg => -1.0,
            UnaryOp::Abs => {
                if saved > 0.0 {
                    1.0
                } else if saved < 0.0 {
                    -1.0
                } else {
                    saved
                }
            }
            UnaryOp::Square => 2.0 * saved,
            UnaryOp::Sqrt => 0.5 / saved,
            UnaryOp::Recip => -saved * saved,
            UnaryOp::Exp => saved,
            UnaryOp::Log => 1.0 / saved,
            UnaryOp::Tanh => 1.0 - saved * saved,
            UnaryOp::Sigmoid => saved * (1.0 - saved),
            UnaryOp::Relu => f64::from(u8::from(saved > 0.0)),
            UnaryOp::Relu6 => f64::from(u8::from(saved > 0.0 && saved < 6.0)),
            UnaryOp::LeakyRelu(slope) => {
                if saved > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
        }
    }
}

impl BinaryOp {
    /// The function at `(a, b)`.
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::Max => {
                if a.is_nan() || a > b {
                    a
                } else {
                    b
                }
            }
            BinaryOp::Min => {
                if a.is_nan() || a < b {
                    a
                } else {
                    b
                }
            }
        }
    }

    /// The two partial derivatives at `(a, b)`; where maximum or minimum tie, both get one half.
    pub fn derivatives(self, a: f64, b: f64) -> [f64; 2] {
        let share = |first: bool| {
            if a == b {
                [0.5, 0.5]
            } else if first {
                [1.0, 0.0]
            } else {
                [0.0, 1.0]
            }
        };
        match self {
            BinaryOp::Add => [1.0, 1.0],
            BinaryOp::Sub => [1.0, -1.0],
            BinaryOp::Mul => [b, a],
            BinaryOp::Div => [1.0 / b, -a / (b * b)],
            BinaryOp::Max => share(a > b),
            BinaryOp::Min => share(a < b),
        }
    }
}
