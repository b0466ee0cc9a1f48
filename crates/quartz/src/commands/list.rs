//! `list`: what an experiment file may name.

use crate::args::{List, Listed};
use crate::failure::Failure;
use qzoo::experiment::{
    ActivationName, AlphabetName, BackwardMode, Compat, ConvMode, Dataset, FeatureOrder, InitName, Masking, ModelName,
    NeuronName, OptimName, QuantizerName, RadiusName, RangeName, ReductionName, ScheduleName, Sparsity,
};
use qzoo::nn::Neuron;

/// Prints every name with its description.
pub(crate) fn run(arguments: &List) -> Result<(), Failure> {
    let entries = match arguments.what {
        Listed::Models => ModelName::ENTRIES,
        Listed::Neurons => NeuronName::ENTRIES,
        Listed::Datasets => Dataset::ENTRIES,
        Listed::Optimizers => OptimName::ENTRIES,
        Listed::Schedules => ScheduleName::ENTRIES,
        Listed::Initializers => InitName::ENTRIES,
        Listed::Activations => ActivationName::ENTRIES,
        Listed::Modes => BackwardMode::ENTRIES,
        Listed::Maskings => Masking::ENTRIES,
        Listed::Reductions => ReductionName::ENTRIES,
        Listed::Quantizers => QuantizerName::ENTRIES,
        Listed::Alphabets => AlphabetName::ENTRIES,
        Listed::Radii => RadiusName::ENTRIES,
        Listed::ConvModes => ConvMode::ENTRIES,
        Listed::Orders => FeatureOrder::ENTRIES,
        Listed::Sparsities => Sparsity::ENTRIES,
        Listed::Ranges => RangeName::ENTRIES,
        Listed::Compats => Compat::ENTRIES,
    };
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    if arguments.what == Listed::Neurons {
        return neurons(width);
    }
    for entry in entries {
        println!("{:width$}  {}", entry.name, entry.description);
    }
    Ok(())
}

/// Each neuron with its factors of parameters and multiplications against a first-order one.
fn neurons(width: usize) -> Result<(), Failure> {
    let factors = |name: &NeuronName| Neuron::of(*name, None).map_or(["1".into(), "1".into()], |n| n.factors());
    println!(
        "{:width$}  {:15}  {:5}  formula and source; n is the number of values that a filter sees",
        "name", "parameters", "MACs"
    );
    for (name, entry) in NeuronName::ALL.iter().zip(NeuronName::ENTRIES) {
        let [parameters, macs] = factors(name);
        println!("{:width$}  {parameters:15}  {macs:5}  {}", entry.name, entry.description);
    }
    Ok(())
}
