//! Weights of a foreign checkpoint for a model of this program.
//!
//! [`match_keys`] decides which tensor of the file becomes which of the model, by names or by order, and knows nothing of formats. [`import`] reads the
//! elements and checks them. [`train::begin_with`](crate::train::begin_with) makes a run of the result.

mod absorb;
mod file;
mod keys;
mod report;
mod weights;

pub use file::FileFormat;
pub use keys::{How, Key, Matching, match_keys};
pub use report::{Absorbed, Dropped, ImportReport, Matched};
pub use weights::{ImportOptions, Imported, NEGLIGIBLE, import};
