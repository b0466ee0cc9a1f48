use super::{Budget, Change, Importance, Size};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One network of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Its number; 0 is the full network.
    pub number: usize,
    /// Its layers in one line.
    pub layers: String,
    /// What it costs.
    pub size: Size,
    /// What makes it differ from the network of the round before.
    pub changes: Vec<Change>,
    /// Accuracy of its best epoch by which the search judges, as a fraction: on held-out images where there are such, else on test images.
    pub accuracy: f64,
    /// Accuracy on the test images in the same epoch, as a fraction.
    pub test_top1: f64,
    /// The table of its layers, where they were measured.
    pub importance: Option<Importance>,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The limits of parameters and multiplications are kept.
    BudgetMet,
    /// The last network lost more accuracy than allowed; the answer is the one before.
    AccuracyLimit,
    /// No further layer can be removed or shrunk.
    NothingLeft,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::BudgetMet => "the budget is met",
            Ended::AccuracyLimit => "the last network lost more accuracy than max_drop allows",
            Ended::NothingLeft => "no further layer can be removed or shrunk",
        })
    }
}

/// What a search came to: `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// Name of the experiment.
    pub name: String,
    /// What accuracies are of: `validation_top1` or `test_top1`.
    pub metric: String,
    /// The limits in numbers.
    pub budget: Budget,
    /// Percentage points of accuracy that may be lost, where that is limited.
    pub max_drop: Option<f64>,
    /// All networks, the full one first.
    pub rounds: Vec<Round>,
    /// Number of the round that is the answer.
    pub answer: usize,
    /// Whether the answer keeps all limits.
    pub met: bool,
    /// Why the search ended.
    pub ended: Ended,
}

impl SearchResult {
    /// Percentage points of accuracy that a round's network lost against the full one; negative where it is better.
    pub fn points_lost(&self, round: &Round) -> f64 {
        100.0 * (self.rounds[0].accuracy - round.accuracy)
    }
}
