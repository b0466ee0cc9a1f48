//! The choice of weights to keep, by exact counts.
//!
//! Every weight has a rank: its magnitude, or a random number. Those of the lowest rank become zero; of equal ranks those that stand later do, so that the choice is
//! the same everywhere. The highest of each output always stays: an output without weights would give the same for all images, and no gradient
//! would ever bring it back to life.

use crate::{Error, Result};

/// Ranks of weights, output by output.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranked {
    ranks: Vec<u32>,
    /// Number of weights of each output.
    rows: Vec<usize>,
}

/// The rank of a weight that stays whatever happens, above those of all numbers.
const HIGHEST: u32 = u32::MAX;

impl Ranked {
    /// Adds outputs with `row` weights each.
    pub(super) fn add(&mut self, ranks: &[u32], row: usize) {
        self.ranks.extend_from_slice(ranks);
        self.rows.extend(std::iter::repeat_n(row, ranks.len().checked_div(row).unwrap_or(0)));
    }

    /// Whether each weight is kept if the share `sparsity` of all, rounded to whole weights, becomes zero, but for the highest of each output.
    ///
    /// # Errors
    /// More weights than 32 bits count.
    pub(super) fn keep(mut self, sparsity: f64) -> Result<Vec<bool>> {
        let count = self.ranks.len();
        if u32::try_from(count).is_err() {
            return Err(Error::Config(format!("{count} weights are too many to be compared with each other")));
        }
        let wanted = (sparsity.clamp(0.0, 1.0) * count as f64).round() as usize;
        let zeros = wanted.min(count - self.rows.len());
        if zeros == 0 {
            return Ok(vec![true; count]);
        }
        let mut first = 0;
        for row in &self.rows {
            // There are no empty rows.
            let best = (first..first + row).max_by_key(|place| order(self.ranks[*place], *place)).unwrap_or(first);
            self.ranks[best] = HIGHEST;
            first += row;
        }
        let mut keys: Vec<u64> = self.ranks.iter().enumerate().map(|(place, rank)| order(*rank, place)).collect();
        let (_, lowest_kept, _) = keys.select_nth_unstable(zeros);
        let lowest_kept = *lowest_kept;
        Ok(self.ranks.iter().enumerate().map(|(place, rank)| order(*rank, place) >= lowest_kept).collect())
    }

    /// Whether each weight is kept if `n` of every `m` consecutive ones of an output are; of fewer than `m` at its end too.
    pub(super) fn keep_in_groups(&self, [n, m]: [usize; 2]) -> Vec<bool> {
        let mut kept = vec![false; self.ranks.len()];
        let mut first = 0;
        for row in &self.rows {
            for start in (first..first + row).step_by(m.max(1)) {
                let mut group: Vec<usize> = (start..(start + m).min(first + row)).collect();
                group.sort_unstable_by_key(|place| std::cmp::Reverse(order(self.ranks[*place], *place)));
                group.iter().take(n).for_each(|place| kept[*place] = true);
            }
            first += row;
        }
        kept
    }
}

/// The place of a weight among all, different for each: lower ones become zero first.
fn order(rank: u32, place: usize) -> u64 {
    u64::from(rank) << 32 | u64::from(u32::MAX - place as u32)
}
