//! Models: short builders that read like their papers' tables, and what all models can do.

mod cifar_cnn;
mod cifar_resnet;
mod folded;
mod mlp;
mod mnist_cnn;
mod mobilenet;
mod model;
mod plan;
pub(crate) mod resnet;
mod small_cnn;
pub(crate) mod vgg;

#[cfg(test)]
mod start_tests;
#[cfg(test)]
mod tests;

pub use folded::Folded;
pub use model::Model;
