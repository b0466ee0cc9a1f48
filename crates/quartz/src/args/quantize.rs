//! The grammar of `quantize`.

use super::{DataRoot, Output};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    after_help = "Without an experiment the most recent trained run is quantized; with one, its newest run, which is trained first where there is none.
Several bits or scalars make a grid, of which the best network is kept. The same command goes on with a grid that was stopped or killed.

Examples:
  quartz quantize --bits 4
  quartz quantize --run runs/cifar-resnet-1 --bits 1.58,2,3,4 --method gpfq --alphabet-scalar 1:6 --set 'quantize.radius=\"median\"'
  quartz quantize experiments/gpfq_mnist.toml"
)]
pub(crate) struct Quantize {
    /// An experiment file, whose section quantize says how
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) experiment: Option<PathBuf>,
    /// The run to quantize [default: the most recent one]
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<PathBuf>,
    /// A checkpoint to quantize instead of the best one of a run
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Bits of a weight, 1.58 for ternary: a number, several, or a range such as 2:4
    #[arg(long, value_name = "B,…")]
    pub(crate) bits: Option<String>,
    /// Factor of the alphabet's radius: a number, several, or a range such as 1:6 or 1:2:0.25
    #[arg(long, value_name = "C,…")]
    pub(crate) alphabet_scalar: Option<String>,
    /// How characters are chosen, see `list quantizers`
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// Choose the bits of each layer among --bits by how much the answers depend on it, under --budget, --max-size or --max-drop
    #[arg(long)]
    pub(crate) mixed: bool,
    /// With --mixed: bits of a weight, as a mean over all
    #[arg(long, value_name = "B,…", requires = "mixed")]
    pub(crate) budget: Option<String>,
    /// With --mixed: most bytes of all weights, such as 100KiB
    #[arg(long, value_name = "SIZE", requires = "mixed")]
    pub(crate) max_size: Option<String>,
    /// With --mixed: most percentage points of accuracy to lose; the smallest such network is taken
    #[arg(long, value_name = "POINTS", requires = "mixed")]
    pub(crate) max_drop: Option<f64>,
    /// Quantize the inputs of layers too, in so many bits: 8 runs on integer kernels
    #[arg(long, value_name = "B")]
    pub(crate) activation_bits: Option<usize>,
    /// Training images to calibrate with
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,
    /// Layers to quantize, * for any characters [default: all]
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub(crate) layers: Vec<String>,
    /// Layers to leave as they are
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub(crate) skip: Vec<String>,
    /// Set another key of the experiment, as in quantize.radius=\"median\" (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Folder of the quantized network's run [default: runs/NAME-METHOD-N]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Say what would be done (layers, alphabets, memory, networks), but do not do it
    #[arg(long)]
    pub(crate) check: bool,
    /// Most images for the curve of accuracies by number of quantized layers; 0 for none
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) curve_images: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}
