//! The auto-builder (Xu et al., 2022): from a first-order network to a quadratic one with fewer or narrower layers.
//!
//! 1. Every layer becomes the chosen quadratic neuron, and the network is trained, or a trained run is taken.
//! 2. A part of each layer is set to zero ([`Mask`]), and the accuracy that is lost is measured, for several draws.
//! 3. `RI = P_M · P_W / δ` says how much a layer costs for what the network needs it ([`importance()`]).
//! 4. Layers of high RI are left out or shrink until a budget is met ([`reduce()`]); the smaller network is an experiment of its own, and is trained.
//!
//! 2 to 4 may be repeated. [`Search`] does all of it in a folder, and goes on there after an interruption:
//!
//! | file | holds |
//! |---|---|
//! | `search.toml`, `search.json` | the experiment with its `[autobuild]`, and the run that the search began with |
//! | `round-N/experiment.toml` | the network of a round: 0 is the full one |
//! | `round-N/run/` | its training |
//! | `round-N/measurements.json` | the accuracies so far |
//! | `round-N/importance.json` | the table of its layers |
//! | `reduced.toml` | the experiment of the answer |
//! | `result.json` | all rounds and the answer |

mod blueprint;
mod events;
mod importance;
mod mask;
mod measure;
mod plan;
mod reduce;
mod result;
mod search;

pub use blueprint::{Blueprint, Part, parts};
pub use events::{SearchEvent, Watch};
pub use importance::{Importance, LayerImportance, Share, importance, shares};
pub use mask::Mask;
pub use plan::{Images, Plan};
pub use reduce::{Budget, Change, Reduced, Rules, Size, reduce};
pub use result::{Ended, Round, SearchResult};
pub use search::{Search, SearchOptions};

/// Whether something of that name is the layer or a part of it.
fn belongs(name: &str, layer: &str) -> bool {
    name.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
