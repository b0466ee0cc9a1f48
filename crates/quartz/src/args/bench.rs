//! The grammar of `bench`.

use super::one_of;
use clap::{Args, ValueEnum};
use qzoo::experiment::{BackwardMode, Precision};
use serde::Serialize;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  quartz bench gemm conv --json --threads 2
  quartz bench conv --shape 128,16,16,32,3,1,1,1     # n,c,k,hw,kernel,stride,pad,groups
  quartz bench gemm --shape 64,576,16384             # m,k,n
  quartz bench train --model resnet20 --batch 32 --batch 512
  quartz bench sparse --sparsity 0.9,0.95 --mask magnitude --threads 2")]
pub(crate) struct Bench {
    /// What to measure [default: all but qlinear, quantize, sparse, memory and peak]
    #[arg(value_enum)]
    pub(crate) what: Vec<Benchmark>,
    /// Print the bytes of one network alone, measured in this process: how `bench memory` calls itself
    #[arg(long, hide = true)]
    pub(crate) in_this_process: bool,
    /// Measure this shape instead of the standard ones (repeatable): m,k,n for gemm; samples,inputs,outputs for quantize; n,c,k,hw,kernel,stride,pad,groups for conv and sparse; n,i,o for linear, qlinear and sparse
    #[arg(long = "shape", value_name = "N,N,…", value_parser = shape)]
    pub(crate) shapes: Vec<Shape>,
    /// Only this network, in infer and train (repeatable)
    #[arg(long = "model", value_name = "NAME", value_parser = crate::bench::NETWORKS)]
    pub(crate) models: Vec<String>,
    /// Shares of zeros, in sparse [default: 0.8,0.9,0.95,0.98,0.99]
    #[arg(long, value_name = "S,…", value_delimiter = ',', value_parser = share)]
    pub(crate) sparsity: Vec<f64>,
    /// Which weights are zero, in sparse
    #[arg(long, value_enum, default_value_t = MaskKind::Magnitude)]
    pub(crate) mask: MaskKind,
    /// Memory order in which sparse kernels work, in sparse
    #[arg(long, value_enum, default_value_t = OrderKind::Batch)]
    pub(crate) order: OrderKind,
    /// Images in a batch, in infer, train and the layers of ResNet-18 of sparse, instead of the network's own number (repeatable)
    #[arg(long = "batch", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) batches: Vec<u32>,
    /// The numbers of a training pass, in train and memory
    #[arg(long, value_name = "NAME", default_value = "f32", value_parser = one_of::<Precision>(Precision::NAMES))]
    pub(crate) precision: Precision,
    /// The backward mode of all layers, in train and memory
    #[arg(long, value_name = "MODE", default_value = "symbolic", value_parser = one_of::<BackwardMode>(MODES))]
    pub(crate) backward: BackwardMode,
    /// Weights and inputs of layers in 8 bits, on integer kernels, in infer
    #[arg(long)]
    pub(crate) quantized: bool,
    /// Timed repetitions, of which the median counts: more of what is done in less than a fifth of a second
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) repeat: u32,
    /// For each convolution: the algorithms that fit it, what each is estimated to cost, what it takes, and which is chosen, instead of the speeds
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print JSON lines on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// The numbers of a `--shape`.
#[derive(Clone, Debug)]
pub(crate) struct Shape(pub(crate) Vec<usize>);

fn shape(text: &str) -> Result<Shape, String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    match numbers {
        Ok(numbers) if matches!(numbers.len(), 3 | 8) => Ok(Shape(numbers)),
        _ => Err("three or eight whole numbers separated by commas are needed".into()),
    }
}

/// Which weights of a measured layer are zero.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MaskKind {
    /// the smallest
    Magnitude,
    /// some
    Random,
}

/// The memory order of sparse kernels.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderKind {
    /// with the batch innermost
    Batch,
    /// along rows of pixels, sample by sample
    Rows,
}

impl From<OrderKind> for qkernels::sparse::Order {
    fn from(kind: OrderKind) -> Self {
        match kind {
            OrderKind::Batch => Self::BatchInnermost,
            OrderKind::Rows => Self::RowMajor,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 up to but not including 1 is needed".into()),
    }
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Benchmark {
    /// f32 matrix products
    Gemm,
    /// f32 convolutions, forward and both gradients
    Conv,
    /// fully connected layers, forward and both gradients
    Linear,
    /// fully connected layers on integers, inputs quantized as they come, and in bf16
    Qlinear,
    /// greedy path-following quantization of dense layers, once each
    Quantize,
    /// layers with few weights on dense kernels, and on sparse ones in f32 and in bytes
    Sparse,
    /// whole networks, forward only
    Infer,
    /// whole training steps
    Train,
    /// most memory that training steps take, each network in a process of its own
    Memory,
    /// fused-multiply-add peak of this machine
    Peak,
}

/// The backward modes that a step can be measured in: what `auto` chooses depends on a run.
const MODES: &[&str] = &["ad", "symbolic", "symbolic_normalised", "symbolic_recompute", "recompute"];
