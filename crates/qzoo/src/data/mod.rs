//! Data sets, and the loader that turns them into batches.
//!
//! [`open`] reads what `[data]` of an experiment names; [`Loader`] makes batches of it. Order, augmentation and mixing of the samples
//! depend only on (seed, epoch, index), never on the number of worker threads or on where an epoch was resumed.
//!
//! # Adding a data set
//! One manifest, and one file only if its format is new:
//! 1. Write `datasets/NAME.toml` after the pattern of its neighbours ([`Manifest`] documents the keys) and add its line to the list in
//!    `manifest.rs`, and its name to `experiment::Dataset`.
//! 2. If no reader knows the format, write one file like `idx.rs` with `open(manifest, root, split) -> Dataset`, which reads through
//!    [`Input`] so that every refusal names file and byte, and add a variant to [`manifest::Format`] and to the match in [`read_split`].

mod archive;
mod augment;
mod batch;
pub mod cifar;
mod dataset;
mod digest;
mod error;
mod fetch;
pub mod folder;
mod http;
pub mod idx;
mod image_file;
mod input;
mod loader;
mod made;
pub mod manifest;
mod mixup;
mod open;
pub mod shapes;
pub mod tiny_imagenet;
mod verify;

pub use archive::unpack;
pub use batch::Batch;
pub use dataset::{Dataset, DatasetInfo, ImageShape, ImageSource, MemoryImages, Split};
pub use error::{DataError, Result};
pub use fetch::{Progress, fetch};
pub use image_file::{
    Framing, MOST_DECODER_BYTES, MOST_FILE_BYTES, MOST_PIXELS, decode_image, read_image, resize_planes,
};
pub use input::Input;
pub use loader::{Batches, Loader, LoaderOptions};
pub use manifest::Manifest;
pub use open::{Splits, data_root, describe, framing, open, open_test, open_test_file, read_split};
pub use verify::{FileReport, FileState, Listing, Presence, Verification, list, presence, verify};
