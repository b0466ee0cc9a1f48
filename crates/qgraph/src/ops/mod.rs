//! The primitives, one file a family. Each is a method of [`Tape`](crate::Tape), and a public type where its settings deserve one.

mod shape;

pub use shape::{Concatenate, Permute, Reshape, Slice};
