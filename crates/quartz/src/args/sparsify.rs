//! The grammar of `sparsify`.

use super::{DataRoot, Output};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    after_help = "An experiment is trained first where it has no trained run; its section sparse, with sparse.finetune, says the rest.
Every sparsity is finetuned once for each arithmetic, in a folder of its own. The same command goes on with what was stopped or killed.

Examples:
  quartz sparsify experiments/sparse_finetune_cifar.toml
  quartz sparsify runs/cifar-resnet-1 --sparsity 0.9,0.95 --global --epochs 3
  quartz sparsify runs/cifar-resnet-1 --sparsity 0.9 --check"
)]
pub(crate) struct Sparsify {
    /// An experiment file, the folder of a run or a checkpoint [default: the most recent trained run]
    #[arg(value_name = "EXPERIMENT|RUN|CHECKPOINT")]
    pub(crate) source: Option<PathBuf>,
    /// Shares of zeros
    #[arg(long, value_name = "S,…", value_delimiter = ',')]
    pub(crate) sparsity: Vec<f64>,
    /// Compare the weights of all layers with each other, not those of each layer
    #[arg(long)]
    pub(crate) global: bool,
    /// What sparse layers compute in: dense, f32, int8 or auto, several for a comparison
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) arithmetic: Vec<String>,
    /// Epochs of the finetuning
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// Learning rate of the finetuning
    #[arg(long, value_name = "LR")]
    pub(crate) lr: Option<f64>,
    /// Set another key of the experiment, as in sparse.int8.weights=\"mse\" (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Folder of the finetuning [default: runs/NAME-sparsify-N]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Prune, measure and say which layers would run on what, but train nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Stop every epoch after this many batches
    #[arg(long, value_name = "N")]
    pub(crate) limit_batches: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}
