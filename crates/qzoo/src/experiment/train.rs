//! `[train]`: how long, in what batches, with which loss and safeguards.

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::named::named_enum;
use qkernels::cast::to_bf16;
use qtensor::{DType, Tensor};

named_enum! {
    /// The numbers that a training pass computes with.
    Precision {
        F32 = "f32", "single precision throughout";
        Bf16 = "bf16", "activations and products in bf16, sums in f32; parameters, their gradients and the statistics of batch normalisation stay f32";
    }
}

impl Precision {
    /// Images as a training pass takes them: what the first layer gets decides for those behind it.
    ///
    /// # Errors
    /// Images that are not f32.
    pub fn of_images(self, images: &Tensor) -> qtensor::Result<Tensor> {
        match self {
            Precision::Bf16 if images.dtype() == DType::F32 => to_bf16(images),
            _ => Ok(images.clone()),
        }
    }
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Passes over the training set, 1 to 1000000. Default 10.
    pub epochs: usize,
    /// Images a forward and backward pass, 1 to 65536. Default 128.
    pub batch_size: usize,
    /// The numbers of a training pass; evaluation is always in f32. Default `f32`.
    pub precision: Precision,
    /// Images a forward pass in evaluation, 1 to 65536. Default 256.
    pub eval_batch_size: usize,
    /// Share of the target's probability spread evenly over all classes, in [0, 1). Default 0.
    pub label_smoothing: f64,
    /// Scale gradients down to this global L2 norm; 0 = off. Default 0.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights that evaluation then uses, in [0, 1); 0 = off. Default 0.
    pub ema_decay: f64,
    /// Batches whose gradients are averaged before one update, 1 to 65536. Default 1.
    pub accumulate: usize,
    /// Stop after this many epochs without a better accuracy; 0 = off. Default 0.
    pub early_stop: usize,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            epochs: 10,
            batch_size: 128,
            precision: Precision::F32,
            eval_batch_size: 256,
            label_smoothing: 0.0,
            clip_norm: 0.0,
            ema_decay: 0.0,
            accumulate: 1,
            early_stop: 0,
        }
    }
}

impl Train {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.whole("epochs", self.epochs, 1, 1_000_000);
        checker.whole("batch_size", self.batch_size, 1, 65536);
        checker.whole("eval_batch_size", self.eval_batch_size, 1, 65536);
        checker.share("label_smoothing", self.label_smoothing);
        checker.not_negative("clip_norm", self.clip_norm);
        checker.share("ema_decay", self.ema_decay);
        checker.whole("accumulate", self.accumulate, 1, 65536);
    }
}
