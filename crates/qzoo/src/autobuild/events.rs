use super::{Change, Importance, Round, Size};
use crate::train::{Observer, Score, Silent};

/// Something that happened in a search. What happens within a training comes as an [`Event`](crate::train::Event).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SearchEvent<'a> {
    /// A network is about to be trained, or was before.
    Network {
        /// Number of the round; 0 is the full network.
        number: usize,
        /// Its layers in one line.
        layers: &'a str,
        /// What it costs.
        size: Size,
        /// What makes it differ from the network of the round before.
        changes: &'a [Change],
    },
    /// A network is trained.
    Trained(&'a Round),
    /// An accuracy was measured.
    Measured {
        /// The masked layer; `None` for the whole network.
        layer: Option<&'a str>,
        /// Number of the draw, from 0.
        draw: usize,
        /// Right answers.
        score: Score,
        /// Accuracies measured.
        done: usize,
        /// Accuracies in all.
        total: usize,
    },
    /// All layers of a network are measured.
    Table(&'a Importance),
}

/// Watches a search and the trainings within.
pub trait Watch: Observer {
    /// Something happened. The search waits until this returns.
    fn search(&mut self, event: &SearchEvent<'_>);
}

impl Watch for Silent {
    fn search(&mut self, _event: &SearchEvent<'_>) {}
}
