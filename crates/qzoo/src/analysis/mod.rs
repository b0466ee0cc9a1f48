//! What goes on inside a trained network: maps, statistics and energies of activations, gradients and weights.
//!
//! An [`Analyzer`] runs a network as recorded ops ([`BackwardMode::Ad`](crate::experiment::BackwardMode::Ad)), so that the parts of quadratic neurons are values of their own, and
//! looks at what the layers mark ([`marks`](crate::nn::marks)). Two kinds of pass are used:
//! - *statistics* are those of training passes: batch statistics in normalisations, dropout, gradients of the mean loss (without augmentation and label smoothing), scaled
//!   to the loss of a single image;
//! - *maps* are those of an evaluation: running statistics, no dropout.
//!
//! # The parts of a neuron
//! The second-order part is the sum of what is of the second degree in the neuron's input (`z1 · z2`, `z1²`, `W (x ∘ x)`, `xᵀ W x`), the linear part the sum of what is added to it
//! of the first degree, both before the normalisation and activation behind the neuron. `z` are projections after inner normalisation and activation where there are such. So in
//! `type2&4` both summands are second-order and there is no linear part; in `qres` the first projection is both a factor and the linear part.
//! Since the neuron is their sum, the gradient with respect to either part is that with respect to the neuron's result.

mod energy;
mod layers;
mod maps;
mod report;
mod statistics;
mod watch;

pub use energy::{Energy, Window, energy};
pub use layers::{LayerInfo, select};
pub use maps::{LayerMaps, Map, Picture};
pub use report::{Analyzer, CheckpointReport, LayerReport, PlaceReport, SamplesOptions, WeightReport};
pub use statistics::{Accumulator, Histogram, Statistics};

/// The place behind normalisation and activation of a unit; the other places are named in [`marks`](crate::nn::marks).
pub const OUTPUT: &str = "output";
