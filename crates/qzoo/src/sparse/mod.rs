//! Sparse networks: which weights are made zero, how they stay so in training, and where layers train on sparse kernels.
//!
//! Weights stay dense f32 tensors among the [`Parameters`](crate::nn::Parameters), so that whatever reads them needs to know nothing of sparsity. Beside every
//! pruned one there is a mask of the weights that are left, in [`Masks`]. A [`Sparsifier`] draws masks from weights by the `[sparse]` section of an experiment;
//! [`Phases`] say before which epochs of a training that happens, and a [`Pruner`] does it.
//!
//! A [`Swap`] measures the passes of each pruned layer on dense and on sparse kernels, and gives those for which it pays [sparse ones](crate::nn::SparseLayer): its [`SwapTable`] says what was
//! measured, what was chosen and why.

mod chain;
mod decision;
mod finetune;
mod layers;
mod masks;
mod phases;
mod pruner;
mod select;
mod site;
mod sparsifier;
mod swap;
mod table;
mod trial;

pub use decision::{Decision, Kernels, SwapTable, Timing};
pub use finetune::{
    BEGINNING, FINETUNING, FinetuneOptions, FinetuneTable, FinetuneWatch, Variant, VariantResult, beginning, finetune,
    variants,
};
pub use layers::{PrunableLayer, layers};
pub use masks::Masks;
pub use phases::{Change, Phases};
pub use pruner::Pruner;
pub use site::{Site, images, sites};
pub use sparsifier::{Sparsifier, prune};
pub use swap::{Swap, SwapOptions};
pub use table::LayerSparsity;

#[cfg(test)]
mod tests;
