//! One file a command.

pub(crate) mod analyze;
pub(crate) mod autobuild;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod list;
mod memory;
pub(crate) mod predict;
mod profile;
pub(crate) mod quantize;
pub(crate) mod report;
pub(crate) mod signals;
mod source;
pub(crate) mod sparsify;
pub(crate) mod summary;
pub(crate) mod train;
