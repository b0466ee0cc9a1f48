//! `list`: what an experiment file may name.

use crate::args::{List, Listed};
use crate::failure::Failure;
use qzoo::experiment::{
    ActivationName, BackwardMode, Dataset, InitName, Masking, ModelName, NeuronName, OptimName, ReductionName,
    ScheduleName,
};

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
    };
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    for entry in entries {
        println!("{:width$}  {}", entry.name, entry.description);
    }
    Ok(())
}
