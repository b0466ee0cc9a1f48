use std::fmt;
use std::path::PathBuf;

/// Where training stopped making sense: a loss, a gradient or a weight that is infinite or not a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Number of the optimizer step since the start of the run, from 1.
    pub step: u64,
    /// The first value that went wrong, with its layer.
    pub what: String,
    /// Loss of the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global L2 norm of the step's gradient; absent where it was not reached.
    pub grad_norm: Option<f64>,
    /// The last good checkpoint, where there is one.
    pub checkpoint: Option<PathBuf>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Divergence { epoch, step, what, loss, lr, .. } = self;
        write!(f, "training diverged in step {step} (epoch {epoch}): {what}; loss {loss}, learning rate {lr}")?;
        if let Some(norm) = self.grad_norm {
            write!(f, ", gradient norm {norm}")?;
        }
        write!(f, "; try a lower optim.lr, a warm-up or train.clip_norm")?;
        match &self.checkpoint {
            Some(path) => write!(f, "; the last good checkpoint is {}", path.display()),
            None => write!(f, "; no checkpoint had been saved yet"),
        }
    }
}

impl std::error::Error for Divergence {}
