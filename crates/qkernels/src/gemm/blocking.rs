//! How a product is cut: into blocks of `k` that fit the caches, and into jobs for the threads.
//!
//! The cut along `k` decides the order of summation, so it depends on nothing but `k`. The jobs depend on the shape and on the size of the
//! second-level cache, never on the number of threads.

use std::sync::OnceLock;

/// The longest run of `k` that stays in registers. Longer ones are cut evenly; the parts are added in `C`.
const LONGEST_DEPTH: usize = 640;
/// Multiply-adds of a job that is worth handing to another thread.
const JOB: usize = 1 << 21;
/// Enough jobs to keep some threads evenly busy with a product of common size.
const COMMON_JOBS: usize = 16;
/// Multiply-adds of a job in a large product.
const LARGE_JOB: usize = 1 << 29;
/// Columns of a job at most, so that `C` and what is read of `A` for it do not crowd `B` out of the cache.
const MOST_COLUMNS: usize = 256;
/// Rows from which on it costs little that each job packs `B` for itself.
pub(super) const MANY_ROWS: usize = 256;
/// Rows from which on it costs nothing.
const MOST_ROWS: usize = 1024;
/// Panels from which on it costs little that each job reads `A` for itself.
const MANY_PANELS: usize = 4;

/// The cut of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocking {
    /// Length of a block in `k`; the last may be shorter.
    pub(super) depth: usize,
    /// Rows of `C` of a job.
    pub(super) rows: usize,
    /// Columns of `C` of a job, a multiple of the panel width.
    pub(super) columns: usize,
}

/// The size of a product and of the panels that it is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// Columns of a panel of `B`.
    pub(super) panel: usize,
    /// Rows of the tallest tile.
    pub(super) tile: usize,
}

/// Cuts `length` into equal parts of at most `longest`, each a multiple of `unit`.
fn even(length: usize, longest: usize, unit: usize) -> usize {
    let parts = length.div_ceil(longest).max(1);
    length.div_ceil(parts).next_multiple_of(unit).max(unit)
}

impl Blocking {
    pub(super) fn new(size: Size) -> Self {
        let Size { m, k, n, panel, tile } = size;
        let depth = even(k, LONGEST_DEPTH, 8);
        // Half of the cache for a job's columns of B; the rest for what streams through.
        let fitting = second_level_cache() / 2 / (depth * std::mem::size_of::<f32>());
        let mut columns = even(n, (fitting / panel * panel).clamp(panel, MOST_COLUMNS), panel);
        let mut rows = m;
        let work = m.saturating_mul(n).saturating_mul(k);
        let wanted = (work / JOB).clamp(1, COMMON_JOBS).max(work / LARGE_JOB);
        loop {
            let jobs = m.div_ceil(rows) * n.div_ceil(columns);
            if jobs >= wanted {
                break;
            }
            // From the cheapest cut to the dearest: low jobs share the packing of B, which must be finished before they start.
            if rows > MOST_ROWS || rows >= 2 * MANY_ROWS && columns <= MANY_PANELS * panel {
                rows = even(rows, rows.div_ceil(2), tile);
            } else if columns > panel {
                columns = even(columns, columns.div_ceil(2), panel);
            } else if rows > 2 * tile && 4 * jobs < wanted {
                rows = even(rows, rows.div_ceil(2), tile);
            } else {
                break;
            }
        }
        Blocking { depth, rows, columns }
    }
}

/// Bytes of one core's second-level cache, as the operating system tells; 512 KiB where it does not.
fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok();
        let kib = size.as_deref().and_then(|text| text.trim().strip_suffix('K')).and_then(|kib| kib.parse().ok());
        kib.map_or(512 << 10, |kib: usize| kib.clamp(128, 4096) << 10)
    })
}

/// Cuts rows into tiles of at most `tallest`: pairs of start and length. A last tile too low to hide the latency of additions
/// (fewer than `lowest` rows) shares evenly with the one before.
pub(super) fn row_tiles(rows: usize, tallest: usize, lowest: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = rows - start;
        if left == 0 {
            return None;
        }
        let low_rest = left > tallest && left < tallest + lowest.min(tallest);
        let length = if low_rest { left.div_ceil(2) } else { left.min(tallest) };
        start += length;
        Some((start - length, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_rows_once() {
        for tallest in [1, 2, 4, 6, 14, 28] {
            for rows in 0..200 {
                let mut next = 0;
                for (start, length) in row_tiles(rows, tallest, 4) {
                    assert_eq!(start, next);
                    assert!(length > 0 && length <= tallest);
                    next += length;
                }
                assert_eq!(next, rows);
            }
        }
    }

    #[test]
    fn the_cut_of_k_depends_on_k_alone() {
        for k in [0, 1, 7, 640, 641, 1000, 5000] {
            let depth = |m, n, panel| Blocking::new(Size { m, k, n, panel, tile: 14 }).depth;
            let expected = depth(1, 1, 32);
            for (m, n, panel) in [(1000, 1000, 32), (3, 100_000, 16), (100_000, 3, 8)] {
                assert_eq!(depth(m, n, panel), expected);
            }
            assert!((8..=LONGEST_DEPTH).contains(&expected));
        }
    }
}
