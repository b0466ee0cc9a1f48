use super::{FileFormat, How};

/// What an import did: `import.json` in the folder of the run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImportReport {
    /// The file.
    pub file: String,
    /// Its format.
    pub format: FileFormat,
    /// What stood before the names in the file.
    pub prefix: String,
    /// Tensors that were taken over, in the order of the model.
    pub matched: Vec<Matched>,
    /// Counters of the model that the file does not have; they begin at 0.
    pub initial: Vec<String>,
    /// Biases that the model lacks, taken exactly into the running means of the batch normalisations behind them.
    pub absorbed: Vec<Absorbed>,
    /// Other tensors of the network in the file that the model lacks.
    pub dropped: Vec<Dropped>,
    /// Number of tensors elsewhere in the file, such as those of an optimizer, which are not looked at.
    pub elsewhere: usize,
    /// Learnt values that were taken over.
    pub parameters: usize,
    /// Numbers, texts and truth values of the file, such as its accuracy.
    pub values: serde_json::Map<String, serde_json::Value>,
}

impl ImportReport {
    /// Tensors that were matched by order: a guess.
    pub fn guessed(&self) -> impl Iterator<Item = &Matched> {
        self.matched.iter().filter(|tensor| tensor.by == How::Order)
    }
}

/// A tensor that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Matched {
    /// Its name in the model.
    pub name: String,
    /// Its name in the file.
    pub from: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// How it was found.
    pub by: How,
}

/// A bias before a batch normalisation, which takes it off again with the mean.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Absorbed {
    /// Its name in the file.
    pub name: String,
    /// The running means from which it was subtracted.
    pub into: Vec<String>,
    /// The largest absolute value in it.
    pub largest: f64,
}

/// A tensor of the file that the model lacks.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Dropped {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The largest absolute value in it; 0 where it is empty.
    pub largest: f64,
}
