//! Sparse training: which weights are left, and where their layers run on sparse kernels.

mod decision;
mod site;
mod swap;
mod trial;

pub use decision::{Decision, Kernels, SwapTable, Timing};
pub use site::{Site, sites};
pub use swap::{Swap, SwapOptions};
