//! The command line's grammar.

mod bench;
mod list;
mod quantize;
mod sparsify;

pub(crate) use bench::{Bench, Benchmark, MaskKind, OrderKind, Shape};
pub(crate) use list::{List, Listed};
pub(crate) use quantize::Quantize;
pub(crate) use sparsify::Sparsify;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use qzoo::analysis::Window;
use qzoo::experiment::Named;
use std::path::PathBuf;

/// Trains, evaluates and inspects neural networks on CPUs.
#[derive(Parser, Debug)]
#[command(name = "quartz", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Threads that kernels use [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Train an experiment
    Train(Train),
    /// Measure the accuracy of a run or a checkpoint on the test set
    Eval(Eval),
    /// Classify images
    Predict(Predict),
    /// Look inside a trained network: activation maps, statistics of activations, gradients and weights, energy on the object
    Analyze(Analyze),
    /// Make a run of a checkpoint file of PyTorch
    Import(Import),
    /// Write a trained network for other programs: ONNX, or its weights for PyTorch
    Export(Export),
    /// Show a model layer by layer: output shape, parameters, MACs, activation bytes
    Summary(Summary),
    /// Write the HTML report of a run anew
    Report(Report),
    /// Make a quadratic network smaller by the importance of its layers, and train what is left
    Autobuild(Autobuild),
    /// Quantize the weights of a trained network
    Quantize(Quantize),
    /// Prune a trained network and train it on, on sparse kernels where they are faster
    Sparsify(Sparsify),
    /// List what an experiment file may name
    List(List),
    /// List, fetch or verify data sets
    Data(DataCommand),
    /// Show what this machine offers: CPU, instruction sets, threads, peak, data
    Doctor(Doctor),
    /// Measure kernels and whole steps
    Bench(Bench),
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=1024).contains(&n) => Ok(n),
        _ => Err("a whole number from 1 to 1024 is needed".into()),
    }
}

/// Where data sets lie, for every command that needs them.
#[derive(Args, Debug, Clone)]
pub(crate) struct DataRoot {
    /// Folder that holds the data sets [default: $QUARTZ_DATA, else datasets/data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  quartz train experiments/quickstart.toml
  quartz train experiments/cifar_resnet_short.toml --data ~/data --set optim.lr=0.05
  quartz train --resume runs/quickstart-1")]
pub(crate) struct Train {
    /// The experiment file
    #[arg(value_name = "EXPERIMENT", required_unless_present = "resume")]
    pub(crate) experiment: Option<PathBuf>,
    /// Set a key of the experiment, as in optim.lr=0.05 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Folder of the run [default: runs/NAME-N]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Seed of every random choice; overrides the experiment's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Epochs to train; overrides the experiment's
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// Go on with a run exactly where it stopped; without a folder, the newest run of the experiment
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    #[allow(clippy::option_option)]
    pub(crate) resume: Option<Option<PathBuf>>,
    /// Check the experiment and build the model, but do not train
    #[arg(long)]
    pub(crate) check: bool,
    /// Before training, measure a few steps and print time, GFLOP/s, share of the peak and bytes of every layer in both directions
    #[arg(long)]
    pub(crate) profile: bool,
    /// Stop every epoch after this many batches
    #[arg(long, value_name = "N")]
    pub(crate) limit_batches: Option<u64>,
    /// Stop and save after this many minutes
    #[arg(long, value_name = "MINUTES")]
    pub(crate) max_time: Option<f64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What a command prints.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Print one JSON object with the result on stdout at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but warnings, errors and the result
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Eval {
    /// A run's folder (its best checkpoint is taken) or a checkpoint file
    #[arg(value_name = "RUN|CHECKPOINT")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Use the images of this file, in the binary format of the experiment's data set (CIFAR only), instead of its test images
    #[arg(long, value_name = "FILE")]
    pub(crate) data_file: Option<PathBuf>,
    /// Stop after this many batches
    #[arg(long, value_name = "N")]
    pub(crate) limit_batches: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The file is read without executing anything: one that is not a plain state dict, perhaps nested in a dictionary, is refused. Names are those of
PyTorch; a prefix such as `net.` or `module.` is found by itself, and `[import]` of the experiment maps other names. The run stands before its first
step: evaluate it, classify with it, or train it on with train --resume.

Examples:
  quartz import qresnet14.pth --experiment experiments/qresnet14_published.toml
  quartz import model.safetensors --experiment my.toml --out runs/published --json"
)]
pub(crate) struct Import {
    /// What torch.save has written (.pth or .pt), in the zip or the legacy format, or a safetensors file [default: import.file of the experiment, below the data root]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The experiment whose model it is
    #[arg(long, value_name = "EXPERIMENT")]
    pub(crate) experiment: PathBuf,
    /// Set a key of the experiment (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Folder of the run [default: runs/NAME-N]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Drop tensors that the model lacks even where their values are above 1e-5
    #[arg(long)]
    pub(crate) allow_dropped: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Names, shapes and element types are those of PyTorch's state dict. In PyTorch: torch.load(FILE, weights_only=True) for pth,
safetensors.torch.load_file(FILE) for safetensors, then model.load_state_dict. An ONNX file holds the network too (opset 21): images [N, C, H, W] to logits
[N, classes], with batch norms folded; classes, mean and std are in its metadata.

Examples:
  quartz export runs/quickstart-1 --format safetensors
  quartz export runs/quickstart-1 --format pth --out model.pth
  quartz export runs/quickstart-1 --format onnx"
)]
pub(crate) struct Export {
    /// A run's folder (its best checkpoint is taken) or a checkpoint file
    #[arg(value_name = "RUN|CHECKPOINT")]
    pub(crate) run: PathBuf,
    /// Kind of file
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: ExportFormat,
    /// The file [default: export.safetensors, export.pth or export.onnx in the run's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Let the ONNX network take pixels as they are, u8 from 0 to 255, and normalise them itself
    #[arg(long)]
    pub(crate) raw_pixels: bool,
    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExportFormat {
    /// safetensors
    Safetensors,
    /// a zip file like that of torch.save
    #[value(alias = "pth-compatible")]
    Pth,
    /// the network as an ONNX graph
    Onnx,
}

#[derive(Args, Debug)]
pub(crate) struct Predict {
    /// A run's folder (its best checkpoint is taken) or a checkpoint file
    #[arg(value_name = "RUN|CHECKPOINT")]
    pub(crate) run: PathBuf,
    /// PNG or JPEG images
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// How many classes to show for each image
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub(crate) topk: usize,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Writes one HTML page. In quadratic neurons the second-order part (products, squares) and the linear part are shown apart.
Statistics are taken for every checkpoint of the run's folder ([log] keep_every keeps more of them), maps for the best.

Examples:
  quartz analyze runs/qresnet14-1 --images 0,6,12 --layers 'layer1.*' --channels 0,3
  quartz analyze runs/qresnet14-1 --with runs/resnet32-1 --json"
)]
pub(crate) struct Analyze {
    /// A run's folder or a checkpoint file
    #[arg(value_name = "RUN|CHECKPOINT")]
    pub(crate) run: PathBuf,
    /// Another run, first-order say, whose layers are shown beside those of this one
    #[arg(long, value_name = "RUN|CHECKPOINT")]
    pub(crate) with: Option<PathBuf>,
    /// Images for the maps: numbers of test images, counted from 0, or PNG and JPEG files
    #[arg(long, value_name = "N|FILE,…", value_delimiter = ',', default_value = "0,6,12")]
    pub(crate) images: Vec<String>,
    /// Layers for maps and histograms, * for any characters [default: the first, the middle and the last quadratic layer, or convolution where there is none]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) layers: Option<String>,
    /// Channels to map beside the mean over all, counted from 0
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) channels: Vec<usize>,
    /// Where the object is: left, top, right and bottom edge in shares of the image [default: 0.25,0.25,0.75,0.75]
    #[arg(long = "box", value_name = "L,T,R,B", value_parser = window)]
    pub(crate) window: Option<Window>,
    /// Images for the statistics, spread evenly over the split
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    pub(crate) samples: u32,
    /// The split of those images
    #[arg(long, value_enum, value_name = "NAME", default_value = "test")]
    pub(crate) split: SplitName,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// The page [default: analysis.html in the run's folder, or beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitName {
    /// the test images
    Test,
    /// the training images, without augmentation
    Train,
}

fn window(text: &str) -> Result<Window, String> {
    let numbers: Vec<f64> = text.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    match numbers[..] {
        [left, top, right, bottom]
            if 0.0 <= left && left < right && right <= 1.0 && 0.0 <= top && top < bottom && bottom <= 1.0 =>
        {
            Ok(Window { left, top, right, bottom })
        }
        _ => Err("four shares from 0 to 1 are needed, left below right and top below bottom".into()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct Summary {
    /// The experiment file
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) experiment: PathBuf,
    /// Set a key of the experiment (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Also measure training steps on random images: what each layer keeps for its backward pass, and the time that it takes, in each backward mode
    #[arg(long)]
    pub(crate) memory: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Report {
    /// A run's folder
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) root: DataRoot,
}

#[derive(Args, Debug)]
#[command(after_help = "The same command goes on with a search that was stopped or killed.

Examples:
  quartz autobuild experiments/autobuild_vgg.toml
  quartz autobuild experiments/autobuild_vgg.toml --run runs/qvgg-1 --set autobuild.max_macs=0.4")]
pub(crate) struct Autobuild {
    /// The experiment file, with a section for the auto-builder
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) experiment: PathBuf,
    /// Set a key of the experiment, as in autobuild.max_parameters=0.5 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Folder of the search [default: runs/NAME-autobuild]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// A run's folder or a checkpoint of the full network, to begin with instead of training one
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<PathBuf>,
    /// Check the experiment and whether its limits can be reached, but do not train
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct DataCommand {
    #[command(subcommand)]
    pub(crate) action: DataAction,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DataAction {
    /// List the data sets that are known, and which of them are here
    List(DataRoot),
    /// Download a data set from its official address
    Fetch(DataName),
    /// Check the files of a data set
    Verify(DataName),
}

#[derive(Args, Debug)]
pub(crate) struct DataName {
    /// The data set, as `data list` names it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) root: DataRoot,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) root: DataRoot,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// One of some names of an enumeration of experiments.
fn one_of<N: Named + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = N> {
    let names = PossibleValuesParser::new(names.iter().copied());
    names.try_map(|name| N::from_name(&name).ok_or_else(|| format!("{name} is not known here")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn resume_stands_with_and_without_a_run() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("quartz train x.toml --resume").is_ok());
        assert!(parse("quartz train --resume runs/x-1").is_ok());
        assert!(parse("quartz train").is_err());
    }
}
