use crate::train::Score;
use serde::{Deserialize, Serialize};

/// How the characters of a layer were computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// From the weights alone.
    Weights,
    /// From Gram matrices.
    Gram,
    /// From the data themselves.
    Data,
}

impl Form {
    /// As tables and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Form::Weights => "weights",
            Form::Gram => "gram",
            Form::Data => "data",
        }
    }
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerResult {
    /// Its full name, as `layer1.0.conv1`.
    pub name: String,
    /// Number of its weights.
    pub weights: usize,
    /// Bits of a weight.
    pub bits: f64,
    /// Characters of the alphabet.
    pub characters: usize,
    /// Characters that occur.
    pub distinct: usize,
    /// Share of weights that are 0.
    pub zeros: f64,
    /// The largest character, as a mean over the neurons.
    pub radius: f64,
    /// `‖X w - X~ q‖ / ‖X w‖` over some calibration images: with all errors of the layers before it.
    pub relative_error: f64,
    /// `‖X w - X q‖ / ‖X w‖` over the same images, where `q` is `w` rounded by itself: what the layer alone would lose.
    pub msq_error: f64,
    /// The relative error in decibels: `20 log10(‖X w‖ / ‖X w - X~ q‖)`, at most 300.
    pub sqnr: f64,
    /// The way.
    pub form: Form,
    /// Seconds that it took, calibration included.
    pub seconds: f64,
}

/// One network of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Bits of its weights, where no layer has its own.
    pub bits: f64,
    /// Factor of its radii.
    pub alphabet_scalar: f64,
    /// Right answers on the images that networks are compared on.
    pub score: Score,
    /// Those of the network whose weights were rounded one by one.
    pub msq: Score,
    /// Seconds of the quantization, evaluations left out.
    pub seconds: f64,
    /// Bytes of all parameters and statistics, quantized ones packed.
    pub size_bytes: u64,
    /// What became of each layer.
    pub layers: Vec<LayerResult>,
    /// Layers that were left as they are although they were chosen, with the reason.
    pub left: Vec<(String, String)>,
}

impl Point {
    /// Bits of a weight, as a mean over all that are quantized.
    pub fn mean_bits(&self) -> f64 {
        let weights: usize = self.layers.iter().map(|layer| layer.weights).sum();
        self.layers.iter().map(|layer| layer.bits * layer.weights as f64).sum::<f64>() / weights.max(1) as f64
    }
}

/// Accuracies on test images, as fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of right answers.
    pub top1: f64,
    /// Share of images whose class is among the five likeliest.
    pub top5: f64,
    /// Test images.
    pub images: u64,
}

/// What a search came to: `quantization.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// Name of the experiment.
    pub name: String,
    /// The checkpoint that was quantized.
    pub run: String,
    /// The method.
    pub method: String,
    /// The images that networks are compared on: `validation` or `test`.
    pub split: String,
    /// Calibration images that were asked for.
    pub samples: usize,
    /// Right answers of the original network on them.
    pub analog: Score,
    /// The original network on the test images.
    pub analog_test: Accuracy,
    /// The network whose weights were rounded one by one, with the best point's alphabet.
    pub msq_test: Accuracy,
    /// The best network.
    pub test: Accuracy,
    /// Bytes of the original network's parameters and statistics.
    pub size_before: u64,
    /// Number of the best point.
    pub best: usize,
    /// All points, in the order of the grid.
    pub points: Vec<Point>,
}
