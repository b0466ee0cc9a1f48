//! Which elements share a scale.

use crate::elementwise::operands::dense;
use qtensor::{DType, Error, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Which elements of a tensor share a scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All.
    Tensor,
    /// Those of one index of axis 0: an output channel of dense weights.
    Channels,
    /// Those of one row of a sparse matrix, for the vector of its values: row `i` is `starts[i]..starts[i + 1]`. The first start is 0 and the last is the number of values.
    Rows(Arc<[usize]>),
}

/// A tensor without gaps in memory whose groups are runs of it.
pub(super) struct Grouped {
    pub(super) x: Tensor,
    /// Where each group starts, and the number of elements.
    pub(super) starts: Vec<usize>,
}

impl Groups {
    /// The groups of an f32 tensor, which is copied where it has gaps or, for channels, where axis 0 is not the slowest in memory.
    ///
    /// # Errors
    /// Another element type; channels of a scalar; rows that do not ascend from 0 to the number of values of a vector.
    pub(super) fn of(&self, op: &'static str, x: &Tensor) -> Result<Grouped> {
        if x.dtype() != DType::F32 {
            return Err(Error::DType { op, expected: DType::F32, found: x.dtype() });
        }
        self.of_any(op, x)
    }

    /// As [`of`](Self::of), for f32 and bf16.
    pub(super) fn of_floats(&self, op: &'static str, x: &Tensor) -> Result<Grouped> {
        if x.dtype() == DType::BF16 { self.of_any(op, x) } else { self.of(op, x) }
    }

    /// As [`of`](Self::of), for any element type.
    pub(super) fn of_any(&self, op: &'static str, x: &Tensor) -> Result<Grouped> {
        let count = x.numel();
        match self {
            Groups::Tensor => Ok(Grouped { x: dense(x), starts: vec![0, count] }),
            Groups::Channels => {
                let Some(channels) = x.shape().first().copied() else {
                    return Err(Error::shape(op, "a scalar has no channels"));
                };
                let length = count.checked_div(channels).unwrap_or(0);
                let is_slowest = x.layout().is_dense() && (channels <= 1 || x.strides()[0] == length);
                let x = if is_slowest { x.clone() } else { x.contiguous() };
                Ok(Grouped { x, starts: (0..=channels).map(|c| c * length).collect() })
            }
            Groups::Rows(starts) => {
                let ends = [starts.first(), starts.last()] == [Some(&0), Some(&count)];
                if x.rank() != 1 || !ends || starts.windows(2).any(|pair| pair[0] > pair[1]) {
                    let message = format!(
                        "rows must ascend from 0 to the length of a vector, found a tensor of shape {}",
                        x.shape()
                    );
                    return Err(Error::shape(op, message));
                }
                Ok(Grouped { x: dense(x), starts: starts.to_vec() })
            }
        }
    }
}

impl Grouped {
    /// Number of groups.
    pub(super) fn count(&self) -> usize {
        self.starts.len() - 1
    }
}

/// The parts of `range` that lie in one group each: the group and the part.
pub(super) fn parts(starts: &[usize], range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
    let first = starts.partition_point(|start| *start <= range.start).saturating_sub(1);
    let groups = starts.windows(2).enumerate().skip(first);
    groups
        .take_while(move |(_, pair)| pair[0] < range.end)
        .map(move |(group, pair)| (group, pair[0].max(range.start)..pair[1].min(range.end)))
        .filter(|(_, part)| !part.is_empty())
}

/// The error that names the first element that is infinite or not a number.
pub(super) fn not_finite(op: &'static str, x: &Tensor) -> Error {
    let values = x.to_vec::<f32>().unwrap_or_default();
    let Some(place) = values.iter().position(|x| !x.is_finite()) else {
        return Error::argument(op, "an element is infinite or not a number");
    };
    let mut index = vec![0; x.rank()];
    let mut rest = place;
    for (index, length) in index.iter_mut().zip(x.shape().iter()).rev() {
        *index = rest % length;
        rest /= length;
    }
    let message =
        format!("element {index:?} of shape {} is {}; only finite values have codes", x.shape(), values[place]);
    Error::argument(op, message)
}
