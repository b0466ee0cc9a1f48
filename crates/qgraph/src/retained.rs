use crate::Tape;
use crate::tape::Node;
use qtensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes that one op of one scope keeps for its backward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedBy {
    /// The scope in which the op was applied; empty outside any scope.
    pub scope: String,
    /// The op's name.
    pub op: &'static str,
    /// Number of buffers.
    pub buffers: usize,
    /// Their bytes: whole buffers, since a view keeps the whole of its buffer alive.
    pub bytes: usize,
}

/// What a tape keeps alive, each buffer counted once, with the op that saved it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// One row for each pair of scope and op that keeps something, in the order of computation.
    pub rows: Vec<RetainedBy>,
}

impl Retained {
    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// Buffers of all rows.
    pub fn buffers(&self) -> usize {
        self.rows.iter().map(|row| row.buffers).sum()
    }

    /// Bytes that ops of this name keep, in all scopes.
    pub fn bytes_of(&self, op: &str) -> usize {
        self.rows.iter().filter(|row| row.op == op).map(|row| row.bytes).sum()
    }
}

impl Tape {
    /// Everything that the recorded ops keep alive, parameters and inputs included.
    pub fn retained(&self) -> Retained {
        self.retained_except([])
    }

    /// As [`retained`](Self::retained), without the buffers of `held_elsewhere`: parameters and inputs that live anyway.
    pub fn retained_except<'a>(&self, held_elsewhere: impl IntoIterator<Item = &'a Tensor>) -> Retained {
        let mut seen: HashSet<usize> = held_elsewhere.into_iter().map(Tensor::buffer_id).collect();
        let mut retained = Retained::default();
        let mut places: HashMap<(Arc<str>, &'static str), usize> = HashMap::new();
        for node in &self.nodes {
            let Node::Op(node) = node else { continue };
            for tensor in node.saved.iter().filter(|tensor| seen.insert(tensor.buffer_id())) {
                let op = node.rule.name();
                let place = *places.entry((node.scope.clone(), op)).or_insert_with(|| {
                    retained.rows.push(RetainedBy { scope: node.scope.to_string(), op, buffers: 0, bytes: 0 });
                    retained.rows.len() - 1
                });
                retained.rows[place].buffers += 1;
                retained.rows[place].bytes += tensor.buffer_bytes();
            }
        }
        retained
    }
}
