use super::block::Block;
use super::recursion::{accumulate, fits, keep_lower};
use super::{PANEL, Rounding, Rule};
use crate::{Gemm, par};
use qtensor::{DType, Error, Result, Tensor};
use std::ops::Range;

/// Features of a block: wide enough for the products to run at the speed of matrix products.
const BLOCK: usize = 128;

/// GPFQ on the data themselves: it keeps the error `u = Σ (w_j X_j - q_j X~_j)` of all samples so far instead of the matrices `H` and `C`, and takes
/// `6 m N` operations a neuron for `m` samples, where they take `2 N²` and `m N²` once.
///
/// The error stays small, so that f32 is enough; data in f64 are computed in f64.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// Inputs `X~` of the quantized network, `[samples, N]`, f32 or f64.
    pub quantized: &'a Tensor,
    /// Inputs `X` of the original network, of the same shape and type; `None` where they are the same.
    pub analog: Option<&'a Tensor>,
    /// What happens at features without data.
    pub rule: Rule,
}

/// What a walk gives.
#[derive(Clone, Debug)]
pub struct Walked {
    /// f32, `[neurons, N]`.
    pub characters: Tensor,
    /// `‖X w - X~ q‖²` of each neuron.
    pub squared_errors: Vec<f64>,
}

/// What the blocks of features know of each other, for all neurons.
struct Products {
    /// `X~ᵀ X~` of the block.
    feedback: Vec<f64>,
    divisors: Vec<f64>,
    /// The lower triangle of `X~ᵀ X` of the block, in the type of the data.
    target: Tensor,
    own: Vec<f64>,
}

impl Walk<'_> {
    /// The characters for weights `[neurons, N]` of the type of the data.
    ///
    /// # Errors
    /// Shapes or element types that do not fit, or data that are not finite.
    pub fn quantize(&self, weights: &Tensor, rounding: &Rounding) -> Result<Walked> {
        let (&[samples, features], &[neurons, of_neuron]) = (&self.quantized.shape()[..], &weights.shape()[..]) else {
            let message = format!("data {} and weights {} must be matrices", self.quantized.shape(), weights.shape());
            return Err(Error::shape("feedback", message));
        };
        if of_neuron != features {
            let message = format!("neurons of {of_neuron} weights for data of {features} features");
            return Err(Error::shape("feedback", message));
        }
        let dtype = self.quantized.dtype();
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::DType { op: "feedback", expected: DType::F32, found: dtype });
        }
        fits("the weights", weights, [neurons, features], dtype)?;
        if let Some(analog) = self.analog {
            fits("the data of the original network", analog, [samples, features], dtype)?;
        }
        rounding.grid.check(neurons)?;
        let blocks = features.div_ceil(BLOCK);
        let rows = |i: usize| i * BLOCK..((i + 1) * BLOCK).min(features);
        let products = par::map(blocks, |i| self.products(rows(i))).into_iter().collect::<Result<Vec<_>>>()?;
        let mut characters = Tensor::empty([neurons, features], DType::F32)?;
        if characters.numel() == 0 {
            return Ok(Walked { characters, squared_errors: vec![0.0; neurons] });
        }
        let panels = par::map_chunks(characters.memory_mut::<f32>()?, PANEL * features, |i, out| {
            let neurons = i * PANEL..((i + 1) * PANEL).min(neurons);
            let mut error = Tensor::zeros([samples, neurons.len()], dtype)?;
            for (i, products) in products.iter().enumerate() {
                let mut panel = Panel { walk: self, products, neurons: neurons.clone(), features: rows(i) };
                panel.step(weights, &mut error, rounding, out)?;
            }
            squared_columns(&error)
        });
        let squared_errors = panels.into_iter().collect::<Result<Vec<_>>>()?.concat();
        Ok(Walked { characters, squared_errors })
    }

    fn products(&self, features: Range<usize>) -> Result<Products> {
        let quantized = self.quantized.slice(1, features.clone())?;
        let transposed = quantized.t()?;
        let feedback = Gemm::new(&transposed, &quantized).run()?;
        let mut target = match self.analog {
            Some(analog) => Gemm::new(&transposed, &analog.slice(1, features.clone())?).run()?,
            None => feedback.copy(),
        };
        keep_lower(&mut target)?;
        let diagonal = |matrix: &Tensor| -> Result<Vec<f64>> {
            let values = matrix.to_dtype(DType::F64)?.to_vec::<f64>()?;
            Ok(values.into_iter().step_by(features.len() + 1).collect())
        };
        let (divisors, own) = (diagonal(&feedback)?, diagonal(&target)?);
        if let Some(t) = divisors.iter().chain(&own).position(|d| !d.is_finite()) {
            let message =
                format!("the data of feature {} are infinite or not numbers", features.start + t % features.len());
            return Err(Error::argument("feedback", message));
        }
        Ok(Products { feedback: feedback.to_dtype(DType::F64)?.to_vec()?, divisors, target, own })
    }
}

/// A block of features for a panel of neurons.
struct Panel<'a> {
    walk: &'a Walk<'a>,
    products: &'a Products,
    neurons: Range<usize>,
    features: Range<usize>,
}

impl Panel<'_> {
    /// Chooses the characters of the block, writes them to their columns of `out`, and takes them into the error.
    fn step(&mut self, weights: &Tensor, error: &mut Tensor, rounding: &Rounding, out: &mut [f32]) -> Result<()> {
        let (features, neurons) = (self.features.clone(), self.neurons.clone());
        let quantized = self.walk.quantized.slice(1, features.clone())?;
        let weights = weights.slice(0, neurons.clone())?.slice(1, features.clone())?.t()?.contiguous();
        let mut s = Gemm::new(&quantized.t()?, error).run()?;
        accumulate(&mut s, 1.0, &self.products.target, &weights)?;
        let mut q = Tensor::zeros([features.len(), neurons.len()], DType::F64)?;
        let block = Block {
            feature: features.start,
            neuron: neurons.start,
            features: features.len(),
            neurons: neurons.len(),
            feedback: Some(&self.products.feedback),
            divisors: Some(&self.products.divisors),
            own: Some(&self.products.own),
            rule: self.walk.rule,
        };
        let mut arguments = s.to_dtype(DType::F64)?.contiguous();
        let exact = weights.to_dtype(DType::F64)?;
        drop(s);
        block.run(arguments.memory_mut()?, exact.memory()?, q.memory_mut()?, rounding, false);
        let characters = q.to_dtype(weights.dtype())?;
        match self.walk.analog {
            Some(analog) => {
                accumulate(error, 1.0, &analog.slice(1, features.clone())?, &weights)?;
                accumulate(error, -1.0, &quantized, &characters)?;
            }
            None => accumulate(error, 1.0, &quantized, &crate::binary(crate::BinaryOp::Sub, &weights, &characters)?)?,
        }
        let (q, all) = (q.memory::<f64>()?, self.walk.quantized.shape()[1]);
        for (j, row) in out.chunks_exact_mut(all).enumerate() {
            let row = &mut row[features.clone()];
            row.iter_mut().enumerate().for_each(|(t, out)| *out = q[t * neurons.len() + j] as f32);
        }
        Ok(())
    }
}

/// The sum of squares of each column.
fn squared_columns(error: &Tensor) -> Result<Vec<f64>> {
    let columns = error.shape()[1];
    let mut sums = vec![0.0; columns];
    for row in error.to_dtype(DType::F64)?.memory::<f64>()?.chunks_exact(columns) {
        sums.iter_mut().zip(row).for_each(|(sum, u)| *sum += u * u);
    }
    Ok(sums)
}
