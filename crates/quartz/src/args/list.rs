//! The grammar of `list`.

use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
pub(crate) struct List {
    /// What to list
    #[arg(value_enum)]
    pub(crate) what: Listed,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Models,
    Neurons,
    Datasets,
    Optimizers,
    Schedules,
    Initializers,
    Activations,
    Modes,
    Maskings,
    Reductions,
    Quantizers,
    Alphabets,
    Radii,
    ConvModes,
    Orders,
    Sparsities,
    Ranges,
    Compats,
}
