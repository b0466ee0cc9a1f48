//! Sparse networks: which weights are made zero, and how they stay so in training.
//!
//! Weights stay dense f32 tensors among the [`Parameters`](crate::nn::Parameters), so that whatever reads them needs to know nothing of sparsity. Beside every
//! pruned one there is a mask of the weights that are left, in [`Masks`]. A [`Sparsifier`] draws masks from weights by the `[sparse]` section of an experiment;
//! [`Phases`] say before which epochs of a training that happens, and a [`Pruner`] does it.

mod layers;
mod masks;
mod phases;
mod pruner;
mod select;
mod sparsifier;
mod table;

pub use layers::{PrunableLayer, layers};
pub use masks::Masks;
pub use phases::{Change, Phases};
pub use pruner::Pruner;
pub use sparsifier::{Sparsifier, prune};
pub use table::LayerSparsity;

#[cfg(test)]
mod tests;
