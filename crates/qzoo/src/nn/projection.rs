use super::pool::{Windows, windows};
use super::{Builder, Context, ParameterKind, marks};
use crate::init::{Init, fans};
use qgraph::ops::{Conv2d as Conv2dOp, Linear as LinearOp, LinearMap, Sees};
use qgraph::{Error, Result, Tape, Var};
use qkernels::{Activation as Epilogue, Conv2dParams};
use qtensor::random::Purpose;

/// A linear map of feature vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearConfig {
    /// Features of the input.
    pub inputs: usize,
    /// Features of the output.
    pub outputs: usize,
}

/// A linear map of image patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Side of the square window.
    pub kernel: usize,
    /// Rows and columns from one window to the next.
    pub stride: usize,
    /// Rows and columns of zeros on each side.
    pub padding: usize,
    /// Groups of channels that do not see each other; `inputs` for a depthwise convolution.
    pub groups: usize,
}

impl Conv2dConfig {
    /// A window of side 3 with a border of 1: the size stays at stride 1.
    pub fn three(inputs: usize, outputs: usize, stride: usize) -> Self {
        Conv2dConfig { inputs, outputs, kernel: 3, stride, padding: 1, groups: 1 }
    }

    /// A window of side 1.
    pub fn one(inputs: usize, outputs: usize, stride: usize) -> Self {
        Conv2dConfig { inputs, outputs, kernel: 1, stride, padding: 0, groups: 1 }
    }

    fn params(&self) -> Conv2dParams {
        Conv2dParams {
            stride: [self.stride; 2],
            padding: [self.padding; 2],
            groups: self.groups,
            ..Conv2dParams::default()
        }
    }
}

/// The two kinds of linear map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Of `[N, features]`.
    Linear(LinearConfig),
    /// Of `[N, C, H, W]`.
    Conv2d(Conv2dConfig),
}

impl Map {
    /// Shape of the weights.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Map::Linear(map) => vec![map.outputs, map.inputs],
            Map::Conv2d(map) => vec![map.outputs, map.inputs / map.groups, map.kernel, map.kernel],
        }
    }

    /// Shape of the weights of a projection that sees that much: the upper triangles of quadratic forms for pairs.
    pub fn weight_shape_of(&self, sees: Sees) -> Vec<usize> {
        let shape = self.weight_shape();
        let seen: usize = shape[1..].iter().product();
        if sees == Sees::Pairs { vec![shape[0], seen * (seen + 1) / 2] } else { shape }
    }

    /// Features or channels of the output.
    pub fn outputs(&self) -> usize {
        match self {
            Map::Linear(map) => map.outputs,
            Map::Conv2d(map) => map.outputs,
        }
    }

    /// Shape of one output for an input of shape `[features]` or `[C, H, W]`.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn output(&self, input: &[usize]) -> Result<Vec<usize>> {
        let (inputs, outputs) = match self {
            Map::Linear(map) if input.len() == 1 => (map.inputs, vec![map.outputs]),
            Map::Linear(_) => return Err(Error::shape("linear", format!("expected a vector, found {input:?}"))),
            Map::Conv2d(map) => {
                let Conv2dParams { stride, padding, dilation, .. } = map.params();
                let window = Windows { kernel: [map.kernel; 2], stride, padding, dilation };
                (map.inputs, windows("conv2d", input, map.outputs, window)?)
            }
        };
        if input[0] != inputs {
            return Err(Error::shape("projection", format!("expected {inputs} channels, found {input:?}")));
        }
        Ok(outputs)
    }
}

/// What a model says about one of its projections.
#[derive(Clone, Copy, Debug)]
pub struct ProjectionConfig<'a> {
    /// Name within the builder's path.
    pub name: &'a str,
    /// The map.
    pub map: Map,
    /// Whether a bias is added.
    pub bias: bool,
    /// Initial weights.
    pub weight_init: Init,
    /// What it is given; all products of pairs only within a quadratic neuron.
    pub sees: Sees,
    /// Initial bias; `None` for PyTorch's default, uniform in ± 1 / √(fan in).
    pub bias_init: Option<Init>,
}

impl<'a> ProjectionConfig<'a> {
    /// With a bias, and PyTorch's default values.
    pub fn new(name: &'a str, map: Map) -> Self {
        ProjectionConfig { name, map, bias: true, weight_init: Init::LAYER_DEFAULT, sees: Sees::Input, bias_init: None }
    }
}

/// Builds a projection: the one place through which every linear and convolutional layer of every model goes.
///
/// # Errors
/// Sizes of 0, groups that do not divide the channels, or an initial value that does not fit.
pub fn projection(builder: &mut Builder<'_>, config: ProjectionConfig<'_>) -> Result<Projection> {
    if let Map::Conv2d(map) = config.map {
        let divides = map.groups > 0 && map.inputs % map.groups == 0 && map.outputs % map.groups == 0;
        if !divides || map.kernel == 0 || map.stride == 0 {
            let message = format!("{map:?} has a size of 0 or groups that do not divide the channels");
            return Err(Error::argument("conv2d", message));
        }
    }
    let shape = config.map.weight_shape_of(config.sees);
    let winograd = builder.winograd();
    let mut scope = builder.scope(config.name);
    let weight = scope.parameter("weight", &shape, ParameterKind::Weight, config.weight_init)?;
    let bias = if config.bias {
        let init = config.bias_init.unwrap_or(Init::bias_default(fans(&shape)?.0));
        Some(scope.parameter("bias", &[config.map.outputs()], ParameterKind::Bias, init)?)
    } else {
        None
    };
    Ok(Projection { name: config.name.to_string(), map: config.map, sees: config.sees, weight, bias, winograd })
}

/// A linear map with its weights.
#[derive(Clone, Debug)]
pub struct Projection {
    name: String,
    map: Map,
    sees: Sees,
    weight: usize,
    bias: Option<usize>,
    winograd: bool,
}

impl Projection {
    /// `epilogue(weight · x + bias)`.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, epilogue: Epilogue, context: &Context) -> Result<Var> {
        let bias = self.bias.map(|bias| context.parameter(bias)).transpose()?;
        self.forward_with_bias(tape, x, epilogue, bias, context)
    }

    /// `weight · x + bias` for a normalisation, which in training needs to know its mean and variance.
    ///
    /// # Errors
    /// The input does not fit.
    pub(crate) fn forward_to_norm(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        let bias = self.bias.map(|bias| context.parameter(bias)).transpose()?;
        self.apply(tape, x, (Epilogue::None, context.training()), bias, context)
    }

    /// `epilogue(weight · x + bias)` with a bias of another place.
    ///
    /// # Errors
    /// The input or the bias does not fit.
    pub(crate) fn forward_with_bias(
        &self,
        tape: &mut Tape,
        x: &Var,
        epilogue: Epilogue,
        bias: Option<&Var>,
        context: &Context,
    ) -> Result<Var> {
        self.apply(tape, x, (epilogue, false), bias, context)
    }

    fn apply(
        &self,
        tape: &mut Tape,
        x: &Var,
        (activation, measures): (Epilogue, bool),
        bias: Option<&Var>,
        context: &Context,
    ) -> Result<Var> {
        let weight = context.parameter(self.weight)?;
        tape.scope(&self.name, |tape| {
            tape.mark(marks::INPUT, x);
            let given = context.given(self.weight);
            if let Some(given) = given
                && let Some(y) = given.integers(x, activation, bias)?
            {
                return Ok(y);
            }
            if let Some(sparse) = context.sparse(self.weight) {
                let noise = context.noise(Purpose::Rounding, self.weight);
                return sparse.forward(tape, [x, weight], bias, activation, noise);
            }
            let rounded = given.map(|given| given.rounded(x)).transpose()?;
            let x = rounded.as_ref().unwrap_or(x);
            match self.map {
                Map::Linear(_) => tape.linear_with(LinearOp { activation }, x, weight, bias),
                Map::Conv2d(map) => {
                    let params = Conv2dParams { winograd: self.winograd, ..map.params() };
                    tape.conv2d_with(Conv2dOp { params, activation, measures }, x, weight, bias)
                }
            }
        })
    }

    /// `epilogue(weight · x + bias + residual)` in one pass; `None` where no kernel does that.
    ///
    /// # Errors
    /// The input, the bias or the residual does not fit.
    pub(crate) fn forward_with_residual(
        &self,
        tape: &mut Tape,
        x: &Var,
        epilogue: Epilogue,
        [bias, residual]: [Option<&Var>; 2],
        context: &Context,
    ) -> Result<Option<Var>> {
        let (Map::Conv2d(map), Some(residual), None) = (self.map, residual, context.given(self.weight)) else {
            return Ok(None);
        };
        if context.sparse(self.weight).is_some() {
            return Ok(None);
        }
        let weight = context.parameter(self.weight)?;
        let params = Conv2dParams { winograd: self.winograd, ..map.params() };
        let op = Conv2dOp { params, activation: epilogue, measures: false };
        tape.scope(&self.name, |tape| {
            tape.mark(marks::INPUT, x);
            tape.conv2d_add(op, x, weight, bias, residual)
        })
        .map(Some)
    }

    /// The map for [`qgraph::ops::Projections`].
    pub(crate) fn linear_map(&self) -> LinearMap {
        match self.map {
            Map::Linear(_) => LinearMap::Dense,
            Map::Conv2d(map) => LinearMap::Conv2d {
                params: Conv2dParams { winograd: self.winograd, ..map.params() },
                kernel: [map.kernel; 2],
            },
        }
    }

    /// Its name within the scope of its parent.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The map.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// What it is given.
    pub fn sees(&self) -> Sees {
        self.sees
    }

    /// The steps of the convolution, where it is one.
    pub(crate) fn conv_params(&self) -> Option<Conv2dParams> {
        match self.map {
            Map::Linear(_) => None,
            Map::Conv2d(map) => Some(Conv2dParams { winograd: self.winograd, ..map.params() }),
        }
    }

    /// Position of the weights in the model's list.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Position of the bias in the model's list.
    pub fn bias(&self) -> Option<usize> {
        self.bias
    }

    /// Number of learnt values.
    pub fn parameters(&self) -> usize {
        self.map.weight_shape_of(self.sees).iter().product::<usize>()
            + if self.bias.is_some() { self.map.outputs() } else { 0 }
    }

    /// Multiplications with an addition for one output of the given shape.
    pub fn macs(&self, output: &[usize]) -> u64 {
        let positions: usize = output[1..].iter().product();
        let shape = self.map.weight_shape();
        let seen = shape[1..].iter().map(|d| *d as u64).product::<u64>();
        // A quadratic form of n values takes n products for each of them, and n more.
        let each = if self.sees == Sees::Pairs { seen * (seen + 1) } else { seen };
        shape[0] as u64 * each * positions as u64
    }

    /// Its name in a summary.
    pub fn kind(&self) -> String {
        let kind = match self.map {
            Map::Linear(map) => format!("linear {} -> {}", map.inputs, map.outputs),
            Map::Conv2d(map) => {
                let mut kind = format!("conv {0}x{0} {1} -> {2}", map.kernel, map.inputs, map.outputs);
                if map.stride != 1 {
                    kind += &format!(", stride {}", map.stride);
                }
                if map.groups != 1 {
                    kind += &format!(", groups {}", map.groups);
                }
                kind
            }
        };
        match self.sees {
            Sees::Input => kind,
            Sees::Square => kind + " of squares",
            Sees::Pairs => kind + " of pairs",
        }
    }
}
