use serde::{Deserialize, Serialize};

/// The final evaluation with what a report shows of it: `evaluation.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// The images: `test` or `validation`.
    pub split: String,
    /// The checkpoint that was evaluated: `best` or `last`.
    pub checkpoint: String,
    /// Images evaluated.
    pub images: u64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Top-1 accuracy, a fraction.
    pub top1: f64,
    /// Top-5 accuracy, a fraction.
    pub top5: f64,
    /// Each class's part, in the order of the network's outputs.
    pub classes: Vec<ClassResult>,
    /// Counts by true class (row) and predicted class (column).
    pub confusion: Vec<Vec<u64>>,
    /// Some images with their predictions: wrong ones and right ones.
    pub samples: Vec<Sample>,
}

/// One class's part of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Its name.
    pub name: String,
    /// Images of it.
    pub images: u64,
    /// Share of them that was recognised; absent where there are none.
    pub recall: Option<f64>,
    /// Share of the images taken for it that are of it; absent where none was.
    pub precision: Option<f64>,
}

/// One image with its prediction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Position in the split.
    pub index: u64,
    /// The true class.
    pub label: usize,
    /// The predicted class.
    pub predicted: usize,
    /// Probability given to the predicted class.
    pub probability: f64,
    /// Probability given to the true class.
    pub label_probability: f64,
}

/// Time and memory of one training step, medians of a few: `profile.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Images in the step.
    pub batch: usize,
    /// Steps measured.
    pub steps: usize,
    /// The multiply-add peak of the machine with the threads in use, measured beside the steps, in GFLOP/s.
    pub peak_gflops: f64,
    /// Seconds of the forward pass with the loss.
    pub forward_seconds: f64,
    /// Seconds of the backward pass.
    pub backward_seconds: f64,
    /// Seconds of the optimizer.
    pub update_seconds: f64,
    /// Bytes kept between forward and backward pass, each buffer once.
    pub retained_bytes: u64,
    /// The most bytes in tensors at any moment of the step.
    pub peak_bytes: u64,
    /// By layer, in the order of the forward pass.
    pub layers: Vec<LayerCost>,
}

/// One layer's part of a [`Profile`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerCost {
    /// Its name, as in the parameters.
    pub name: String,
    /// The forward pass.
    pub forward: PassCost,
    /// The backward pass, with forwards that are run again in it.
    pub backward: PassCost,
    /// Bytes that it keeps for its backward pass.
    pub retained_bytes: u64,
}

/// What one pass through a layer costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassCost {
    /// Time.
    pub seconds: f64,
    /// Multiplications with an addition, as the textbook counts them, whatever the algorithm.
    pub multiply_adds: u64,
    /// Bytes of the tensors that its ops take and give.
    pub bytes: u64,
}

impl PassCost {
    /// Two floating-point operations a multiplication with an addition, in 10⁹ a second; 0 where nothing is multiplied. An algorithm with
    /// fewer multiplications than the textbook's can exceed the peak of the machine.
    pub fn gflops(&self) -> f64 {
        if self.multiply_adds == 0 { 0.0 } else { 2.0 * self.multiply_adds as f64 / self.seconds / 1e9 }
    }
}

/// The totals of a run: `result.json`, and what `--json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The folder of the run.
    pub run: String,
    /// Epochs completed.
    pub epochs: u64,
    /// Top-1 accuracy on the test images of the best epoch, a fraction.
    pub best_top1: Option<f64>,
    /// Top-1 accuracy on the test images of the last epoch, a fraction.
    pub last_top1: Option<f64>,
    /// Mean loss on the test images after the last epoch.
    pub test_loss: Option<f64>,
    /// Training images a second, without evaluation.
    pub images_per_s: f64,
    /// The most bytes in tensors at any moment.
    pub peak_bytes: u64,
    /// Seconds from start to end of this process's part of the run.
    pub seconds: f64,
    /// SHA-256 of the last parameters and buffers.
    pub weights_sha256: String,
}
