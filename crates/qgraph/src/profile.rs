use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

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

/// What all runs of one op in one pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassCost {
    /// Number of runs.
    pub calls: usize,
    /// Their time.
    pub time: Duration,
    /// Multiplications with an addition in their products, as [`Op::multiply_adds`](crate::Op::multiply_adds) counts them.
    pub multiply_adds: u64,
    /// Bytes of the tensors that came in and went out; what an op reads twice counts once.
    pub bytes: u64,
}

impl AddAssign for PassCost {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.time += other.time;
        self.multiply_adds += other.multiply_adds;
        self.bytes += other.bytes;
    }
}

/// The cost of one op in one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpCost {
    /// The scope in which the op was applied; empty outside any scope.
    pub scope: String,
    /// The op's name.
    pub op: &'static str,
    /// All forward runs.
    pub forward: PassCost,
    /// All backward runs.
    pub backward: PassCost,
    /// All forwards that were run again in the backward pass.
    pub recompute: PassCost,
}

/// A stopwatch and meter for every op of the tapes that it is given to: a cheap handle, whose clones share the figures.
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
    rows: Vec<OpCost>,
    place: HashMap<(String, &'static str), usize>,
}

impl Profile {
    /// Without figures.
    pub fn new() -> Self {
        Self::default()
    }

    /// The figures so far, in the order in which the ops first ran.
    pub fn rows(&self) -> Vec<OpCost> {
        self.lock().rows.clone()
    }

    /// Starts again without figures.
    pub fn clear(&self) {
        *self.lock() = Table::default();
    }

    pub(crate) fn add(&self, scope: &str, op: &'static str, pass: Pass, cost: PassCost) {
        let mut table = self.lock();
        let next = table.rows.len();
        let place = *table.place.entry((scope.to_string(), op)).or_insert(next);
        if place == next {
            table.rows.push(OpCost { scope: scope.to_string(), op, ..OpCost::default() });
        }
        let row = &mut table.rows[place];
        *match pass {
            Pass::Forward => &mut row.forward,
            Pass::Backward => &mut row.backward,
            Pass::Recompute => &mut row.recompute,
        } += cost;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
