use super::{Builder, Context, ParameterKind};
use crate::experiment::ActivationName;
use crate::init::Init;
use qgraph::{Result, Tape, Var};
use qkernels::Activation as Epilogue;

/// The elementwise nonlinearity behind a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x`, or `slope · x` where negative.
    LeakyRelu {
        /// The factor of negative values.
        slope: f32,
    },
    /// As leaky ReLU with a learnt slope (He et al., 2015).
    Prelu {
        /// Position of the parameter of shape `[1]`.
        slope: usize,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
}

impl Activation {
    /// The activation of that name; `path` names the parameter of one that learns.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn build(builder: &mut Builder<'_>, path: &str, name: ActivationName) -> Result<Self> {
        Ok(match name {
            ActivationName::Relu => Activation::Relu,
            ActivationName::Relu6 => Activation::Relu6,
            ActivationName::LeakyRelu => Activation::LeakyRelu { slope: 0.01 },
            ActivationName::Tanh => Activation::Tanh,
            ActivationName::Sigmoid => Activation::Sigmoid,
            ActivationName::Prelu => {
                let mut scope = builder.scope(path);
                let slope = scope.parameter("weight", &[1], ParameterKind::Slope, Init::Constant(0.25))?;
                Activation::Prelu { slope }
            }
        })
    }

    /// The form that a kernel applies in the pass that produces its result; `None` for those that need a pass of their own.
    pub fn epilogue(self) -> Option<Epilogue> {
        match self {
            Activation::Identity => Some(Epilogue::None),
            Activation::Relu => Some(Epilogue::Relu),
            Activation::Relu6 => Some(Epilogue::Relu6),
            Activation::LeakyRelu { slope } => Some(Epilogue::LeakyRelu(slope)),
            Activation::Prelu { .. } | Activation::Tanh | Activation::Sigmoid => None,
        }
    }

    /// The activation of `x`, in a pass of its own.
    ///
    /// # Errors
    /// `x` is not of a floating type.
    pub fn forward(self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        match self {
            Activation::Identity => Ok(x.clone()),
            Activation::Relu => tape.relu(x),
            Activation::Relu6 => tape.relu6(x),
            Activation::LeakyRelu { slope } => tape.leaky_relu(x, f64::from(slope)),
            Activation::Prelu { slope } => tape.prelu(x, context.parameter(slope)?),
            Activation::Tanh => tape.tanh(x),
            Activation::Sigmoid => tape.sigmoid(x),
        }
    }

    /// Its name in a summary; empty for none.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "",
            Activation::Relu => "relu",
            Activation::Relu6 => "relu6",
            Activation::LeakyRelu { .. } => "leaky_relu",
            Activation::Prelu { .. } => "prelu",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
        }
    }

    /// Number of learnt values.
    pub fn parameters(self) -> usize {
        usize::from(matches!(self, Activation::Prelu { .. }))
    }
}
