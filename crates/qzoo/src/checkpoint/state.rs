use crate::data::ImageShape;
use crate::quantize::PackedState;
use qtensor::Tensor;
use serde::{Deserialize, Serialize};

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Everything that is needed to go on training to the bit.
    Training,
    /// Parameters and buffers for evaluation.
    Weights,
}

/// How far a run has come. Counting begins at 0; everything before the position is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epochs completed.
    pub epoch: u64,
    /// Optimizer steps completed in the current epoch.
    pub step_in_epoch: u64,
    /// Optimizer steps completed since the start of the run.
    pub step: u64,
}

/// Sums over the current epoch's training batches so far; exact, so that a resumed epoch reports what an undisturbed one would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningTotals {
    /// Images seen.
    pub images: u64,
    /// Sum over images of the loss.
    pub loss: f64,
    /// Sum over images of being right; with mixed labels a right answer counts its share.
    pub correct: f64,
}

/// The figures of one completed epoch. Accuracies are fractions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Optimizer steps since the start of the run.
    pub step: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Training accuracy, as seen while the weights changed.
    pub train_top1: f64,
    /// Mean loss on the test images.
    pub test_loss: f64,
    /// Top-1 accuracy on the test images.
    pub test_top1: f64,
    /// Top-5 accuracy on the test images.
    pub test_top5: f64,
    /// Mean loss on the held-out images, where some are held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Top-1 accuracy on the held-out images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_top1: Option<f64>,
    /// Share of the weights of pruned layers that masks hold at zero, where the experiment is a sparse one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
}

/// The best epoch so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// What was compared: `test_top1` or `validation_top1`.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// The epoch, from 1.
    pub epoch: u64,
    /// Top-1 accuracy on the test images in that epoch.
    pub test_top1: f64,
    /// The share of zeros that the phases of a sparse experiment wanted in that epoch: a sparser epoch is better than every denser one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
}

/// What pixels in [0, 1] are put through before a network sees them, channel by channel: `(pixel - mean) / std`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted first.
    pub mean: Vec<f64>,
    /// Divided by then.
    pub std: Vec<f64>,
}

impl Normalization {
    /// Planes of bytes as the `[1, C, H, W]` that a network takes; a channel that is not described stays in [0, 1].
    ///
    /// # Errors
    /// Not as many bytes as an image of that shape has.
    pub fn apply(&self, planes: &[u8], shape: ImageShape) -> qtensor::Result<Tensor> {
        let mut values = Vec::with_capacity(planes.len());
        let channel = |list: &[f64], c: usize, otherwise: f32| list.get(c).map_or(otherwise, |value| *value as f32);
        for (c, plane) in planes.chunks_exact(shape.plane().max(1)).enumerate() {
            let (mean, std) = (channel(&self.mean, c, 0.0), channel(&self.std, c, 1.0));
            values.extend(plane.iter().map(|byte| (f32::from(*byte) / 255.0 - mean) / std));
        }
        Ok(Tensor::from_vec([1, shape.channels, shape.height, shape.width], values)?.to_channels_last())
    }
}

/// The state of a run beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What the checkpoint is for.
    pub purpose: Purpose,
    /// The resolved experiment as TOML.
    pub experiment: String,
    /// Names of the classes, in the order of the outputs.
    pub classes: Vec<String>,
    /// Images of the data that trained it: channels, height, width.
    pub image_shape: [usize; 3],
    /// What the images are put through.
    pub normalization: Normalization,
    /// The limit on the batches of a pass, where there is one.
    pub limit_batches: Option<u64>,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// How far the run has come.
    pub position: Position,
    /// Sums over the current epoch.
    pub totals: RunningTotals,
    /// Completed epochs.
    pub history: Vec<EpochRecord>,
    /// The best epoch so far.
    pub best: Option<Best>,
    /// Lines of `metrics.jsonl` that belong to the run up to here.
    pub metric_lines: u64,
    /// Whether the run is over: all epochs done, or stopped early.
    pub finished: bool,
    /// Which weights are stored as characters of an alphabet, where some are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<PackedState>,
}

impl State {
    /// Size of the images that trained the network.
    pub fn shape(&self) -> ImageShape {
        let [channels, height, width] = self.image_shape;
        ImageShape { channels, height, width }
    }
}
