use super::Projection;
use qgraph::{Result, Var};
use qkernels::Activation as Epilogue;
use qkernels::i8::{self, Operands, Output, PackedWeights, Quantization};
use qtensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How the input of a projection becomes small whole numbers: `round(x / scale) + zero_point`, to nearest and ties to even, limited to `0..=levels`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputGrid {
    /// Step and number of 0.
    pub quantization: Quantization,
    /// The largest number: 255 for 8 bits.
    pub levels: u8,
}

impl InputGrid {
    /// The numbers, u8.
    ///
    /// # Errors
    /// Another element type than f32.
    pub fn bytes(&self, x: &Tensor) -> Result<Tensor> {
        let mut bytes = i8::quantize(x, self.quantization)?;
        if self.levels < u8::MAX {
            bytes.memory_mut::<u8>()?.iter_mut().for_each(|byte| *byte = (*byte).min(self.levels));
        }
        Ok(bytes)
    }

    /// What the numbers stand for, f32.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn round(&self, x: &Tensor) -> Result<Tensor> {
        Ok(i8::dequantize(&self.bytes(x)?, self.quantization)?)
    }
}

/// Weights as whole numbers of a unit.
#[derive(Clone, Debug)]
pub struct Codes {
    /// i8, in the shape of the weights.
    pub values: Tensor,
    /// One for each output.
    pub units: Vec<f32>,
}

impl Codes {
    /// The weights for integer kernels, each output times its factor.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn pack(&self, projection: &Projection, factors: Option<&[f64]>) -> Result<PackedWeights> {
        let factor = |i: usize| factors.and_then(|factors| factors.get(i)).copied().unwrap_or(1.0);
        let scales = self.units.iter().enumerate().map(|(i, unit)| (f64::from(*unit) * factor(i)) as f32);
        let scales: Vec<f32> = scales.collect();
        Ok(match projection.conv_params() {
            Some(params) => PackedWeights::filters(&self.values, &scales, &params)?,
            None => PackedWeights::matrix(&self.values, &scales)?,
        })
    }
}

/// What an inference does with the input of a projection.
#[derive(Clone)]
pub struct Given {
    /// How it is rounded.
    pub grid: InputGrid,
    /// The weights as whole numbers, where they are such.
    pub codes: Option<Arc<Codes>>,
    /// The weights packed for integer kernels, which then take the place of those in f32.
    pub weights: Option<Arc<PackedWeights>>,
    /// The grid of the only reader of the result, which takes it in bytes of that grid; `None` where the result is f32.
    pub result: Option<Quantization>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("grid", &self.grid)
            .field("integers", &self.weights.is_some())
            .finish_non_exhaustive()
    }
}

/// A bias in whole products of numbers of the input and of the weights, `round(bias / product)`, to nearest and ties to even: the form that integer kernels of every
/// runtime take. `None` where a value does not fit i32.
pub(crate) fn whole_bias(bias: &[f32], products: &[f32]) -> Option<Vec<i32>> {
    let codes = bias.iter().zip(products).map(|(bias, product)| {
        let code = (f64::from(*bias) / f64::from(*product)).round_ties_even();
        (code.abs() <= f64::from(i32::MAX)).then_some(code as i32)
    });
    codes.collect()
}

/// The projections whose inputs are quantized, by the position of their weights.
pub type Inputs = BTreeMap<usize, Given>;

impl Given {
    /// With weights that were read, before they are packed.
    pub(crate) fn new(grid: InputGrid, codes: Option<Arc<Codes>>) -> Self {
        Given { grid, codes, weights: None, result: None }
    }

    /// The input as the f32 kernels take it.
    pub(super) fn rounded(&self, x: &Var) -> Result<Var> {
        Ok(Var::constant(self.grid.round(x.value())?))
    }

    /// Whether integer kernels compute `epilogue(weights · x + bias)`.
    pub(super) fn runs_on_integers(&self, epilogue: Epilogue) -> bool {
        self.weights.is_some() && matches!(epilogue, Epilogue::None | Epilogue::Relu)
    }

    /// The bias in whole products, or as it is where it is too large for that.
    fn bias(&self, weights: &PackedWeights, bias: &Tensor) -> Result<Tensor> {
        let (values, scale) = (bias.to_vec::<f32>()?, self.grid.quantization.scale);
        let products: Vec<f32> = weights.scales().iter().cycle().take(values.len()).map(|s| s * scale).collect();
        Ok(match whole_bias(&values, &products) {
            Some(codes) => Tensor::from_vec([codes.len()], codes)?,
            None => bias.clone(),
        })
    }

    /// `epilogue(weights · x + bias)` on integer kernels, from an input in f32 or in bytes of the grid; `None` where they cannot do that.
    pub(super) fn integers(&self, x: &Var, epilogue: Epilogue, bias: Option<&Var>) -> Result<Option<Var>> {
        let Some(weights) = self.weights.as_ref().filter(|_| self.runs_on_integers(epilogue)) else { return Ok(None) };
        let bytes = if x.value().dtype() == DType::U8 { x.value().clone() } else { self.grid.bytes(x.value())? };
        let bias = bias.map(|bias| self.bias(weights, bias.value())).transpose()?;
        let operands = Operands {
            x: &bytes,
            input: self.grid.quantization,
            weights,
            bias: bias.as_ref(),
            residual: None,
            relu: epilogue == Epilogue::Relu,
            output: self.result.map_or(Output::F32, Output::U8),
        };
        let y = if bytes.rank() == 2 { i8::matmul(&operands)? } else { i8::conv2d(&operands)? };
        Ok(Some(Var::constant(y)))
    }
}
