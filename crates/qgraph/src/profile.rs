use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// In which pass an op ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The forward pass.
    Forward,
    /// The backward pass.
    Backward,
    /// A forward that is run again within the backward pass.
    Recompute,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::Recompute => "recompute",
        })
    }
}

/// Times of one op in one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpTime {
    /// The scope in which the op was applied; empty outside any scope.
    pub scope: String,
    /// The op's name.
    pub op: &'static str,
    /// Number of forward runs.
    pub calls: usize,
    /// Time of all forward runs.
    pub forward: Duration,
    /// Time of all backward runs.
    pub backward: Duration,
    /// Time of all forwards that were run again in the backward pass.
    pub recompute: Duration,
}

/// A stopwatch for every op of the tapes that it is given to: a cheap handle, whose clones share the figures.
///
/// ```
/// # use qgraph::{Profile, Tape, Tensor};
/// let profile = Profile::new();
/// let mut tape = Tape::new().profile(&profile);
/// let x = tape.leaf(Tensor::scalar(2.0f32));
/// let y = tape.scope("head", |tape| tape.reshape(&x, [1]))?;
/// tape.backward(&y)?;
/// assert_eq!(profile.rows()[0].scope, "head");
/// # Ok::<(), qgraph::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Profile {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    rows: Vec<OpTime>,
    place: HashMap<(String, &'static str), usize>,
}

impl Profile {
    /// Without figures.
    pub fn new() -> Self {
        Self::default()
    }

    /// The figures so far, in the order in which the ops first ran.
    pub fn rows(&self) -> Vec<OpTime> {
        self.lock().rows.clone()
    }

    /// Starts again without figures.
    pub fn clear(&self) {
        *self.lock() = Table::default();
    }

    pub(crate) fn add(&self, scope: &str, op: &'static str, pass: Pass, since: Instant) {
        let time = since.elapsed();
        let mut table = self.lock();
        let next = table.rows.len();
        let place = *table.place.entry((scope.to_string(), op)).or_insert(next);
        if place == next {
            table.rows.push(OpTime { scope: scope.to_string(), op, ..OpTime::default() });
        }
        let row = &mut table.rows[place];
        match pass {
            Pass::Forward => {
                row.calls += 1;
                row.forward += time;
            }
            Pass::Backward => row.backward += time,
            Pass::Recompute => row.recompute += time,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
