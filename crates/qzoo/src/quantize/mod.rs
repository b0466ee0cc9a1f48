//! Post-training quantization: the weights of a trained network become characters of a small alphabet, without training.
//!
//! A [`Quantizer`] goes through the layers in their order. For each it streams the calibration images through the original network and through the network whose earlier
//! layers are quantized already, collects what the layer is given in both, and lets a method of the error-feedback family ([`qkernels::feedback`]) choose the characters.
//! A [`Search`] does so for every point of a grid and keeps the best network.
//!
//! | file | holds |
//! |---|---|
//! | `alphabet` | characters from weights |
//! | `method` | one way to choose them for each name |
//! | `layers` | what can be quantized in a model |
//! | `activations` | the images on their way through a network, kept from layer to layer within a budget |
//! | `data` | what a layer is given, as Gram matrices or as it is |
//! | `quantizer` | the walk through the layers |
//! | `mixed` | bits for each layer under a budget |
//! | `range` | grids of activations |
//! | `measure`, `fold` | what a layer loses; norms and biases |
//! | `bits`, `packed` | characters as few bits in a checkpoint |
//! | `search` | the grid, its best network, its folder |
//! | `details`, `csv` | what reports and other programs want to know of it |
//! | `plan` | what would be done, without doing it |

mod activations;
mod alphabet;
mod bits;
mod csv;
mod data;
mod details;
mod fold;
mod layers;
mod measure;
mod method;
mod mixed;
mod packed;
mod plan;
mod quantizer;
mod range;
mod result;
mod search;

pub use alphabet::{Alphabet, alphabet};
pub use bits::Storage;
pub use details::{Cumulative, Details, WeightHistograms};
pub use mixed::{Budget, Choice, Sensitivity, assign};
pub(crate) use packed::inputs;
pub use packed::{Packed, PackedInput, PackedState, PackedTensor, pack, unpack};
pub use plan::{LayerPlan, plan};
pub use quantizer::{Progress, Quantized, Quantizer, Recipe};
pub use result::{Accuracy, Form, LayerResult, Point, SearchResult};
pub use search::{DETAILS, RESULT, Search, SearchEvent, SearchOptions, Watch};
