use super::evaluator::Evaluator;
use crate::Result;
use crate::data::{self, read_image};
use crate::models::Folded;
use std::path::{Path, PathBuf};

/// Tells what image files show.
#[derive(Debug)]
pub struct Predictor {
    evaluator: Evaluator,
    network: Folded,
}

/// What an image shows, by the network.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Prediction {
    /// The file.
    pub image: PathBuf,
    /// The likeliest classes, likeliest first.
    pub guesses: Vec<Guess>,
}

/// One class with its probability.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Guess {
    /// Its number.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Its probability.
    pub probability: f64,
}

impl Predictor {
    /// Reads a network from the folder of a run or from a checkpoint.
    ///
    /// # Errors
    /// As [`Evaluator::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let evaluator = Evaluator::open(path)?;
        Ok(Predictor { network: evaluator.network.folded()?, evaluator })
    }

    /// The network with its experiment.
    pub fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    /// Reads a PNG or JPEG file, resizes it to the network's input, and gives the `top` likeliest classes.
    ///
    /// # Errors
    /// The file cannot be read or is no sound image.
    pub fn predict(&self, image: &Path, top: usize) -> Result<Prediction> {
        let shape = self.evaluator.state.shape();
        let pixels = read_image(image, data::framing(&self.evaluator.experiment().data, shape))?;
        let logits = self.network.infer(&self.evaluator.state.normalization.apply(&pixels, shape)?)?;
        let logarithms = qkernels::softmax::log_softmax(&logits)?.to_vec::<f32>()?;
        let mut order: Vec<usize> = (0..logarithms.len()).collect();
        order.sort_by(|a, b| logarithms[*b].total_cmp(&logarithms[*a]).then(a.cmp(b)));
        let classes = &self.evaluator.state.classes;
        let guess = |class: usize| Guess {
            class,
            name: classes.get(class).cloned().unwrap_or_default(),
            probability: f64::from(logarithms[class]).exp(),
        };
        Ok(Prediction { image: image.to_path_buf(), guesses: order.into_iter().take(top).map(guess).collect() })
    }
}
