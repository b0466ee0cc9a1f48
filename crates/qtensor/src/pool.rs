//! The caching buffer pool: a buffer that is dropped waits here for the next request of its size class.
//!
//! A training step asks for the same sizes over and over; taking them from the pool avoids a fresh mapping and a page fault for
//! every 4 KiB of every activation. Size classes are eight to the octave, so at most an eighth of a buffer is unused. A large request that finds none of
//! its class takes the next larger waiting buffer up to twice its size, so that scratch memory of many different sizes does not add up.

use crate::storage::{ALIGNMENT, Block};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CACHED: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Waiting> = Mutex::new(BTreeMap::new());

/// Waiting blocks by size; no list is empty for long, and an empty one counts as none.
type Waiting = BTreeMap<usize, Vec<Block>>;

/// Requests from this size on may take a larger block.
const LARGE: usize = 1 << 20;

/// Byte counters of the pool, for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in buffers that some tensor holds.
    pub live: usize,
    /// The most that `live` has been since the last [`reset_peak`].
    pub peak: usize,
    /// Bytes in buffers that wait to be used again.
    pub cached: usize,
}

/// The counters now.
pub fn usage() -> Usage {
    Usage { live: LIVE.load(Relaxed), peak: PEAK.load(Relaxed), cached: CACHED.load(Relaxed) }
}

/// Starts a new measurement of the peak from what is live now.
pub fn reset_peak() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Gives all waiting buffers back to the operating system.
pub fn trim() {
    let blocks = std::mem::take(&mut *free());
    CACHED.fetch_sub(blocks.iter().map(|(size, list)| size * list.len()).sum(), Relaxed);
}

fn free() -> MutexGuard<'static, Waiting> {
    FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The smallest class that holds `bytes`: a multiple of the alignment with at most four significant bits.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(1);
    let step = (bytes.next_power_of_two() / 16).max(ALIGNMENT);
    bytes.div_ceil(step) * step
}

pub(crate) fn take(bytes: usize) -> Block {
    let size = size_class(bytes);
    let waiting = best_fit(&mut free(), size);
    let block = match waiting {
        Some(block) => {
            CACHED.fetch_sub(block.len(), Relaxed);
            block
        }
        None => Block::new(size),
    };
    let live = LIVE.fetch_add(block.len(), Relaxed) + block.len();
    PEAK.fetch_max(live, Relaxed);
    poison(block)
}

/// The smallest waiting block for a size class, which of a large class may be up to twice as large.
fn best_fit(waiting: &mut Waiting, size: usize) -> Option<Block> {
    let most = if size >= LARGE { 2 * size } else { size };
    waiting.range_mut(size..=most).find_map(|(_, blocks)| blocks.pop())
}

/// In debug builds an unwritten buffer holds NaN in every float type, so that reading before writing shows.
fn poison(mut block: Block) -> Block {
    if cfg!(debug_assertions) {
        block.bytes_mut().fill(0xff);
    }
    block
}

pub(crate) fn give(block: Block) {
    let size = block.len();
    LIVE.fetch_sub(size, Relaxed);
    CACHED.fetch_add(size, Relaxed);
    free().entry(size).or_default().push(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_take_the_smallest_block_that_fits() {
        let mut waiting = Waiting::new();
        for size in [8 * LARGE, 2 * LARGE, 3 * LARGE, 4096, 2048] {
            waiting.entry(size).or_default().push(Block::new(size));
        }
        let mut take = |size| best_fit(&mut waiting, size).map(|block| block.len());
        assert_eq!(take(2 * LARGE), Some(2 * LARGE));
        assert_eq!(take(2 * LARGE), Some(3 * LARGE));
        assert_eq!(take(2 * LARGE), None, "the last one is more than twice as large");
        assert_eq!(take(4 * LARGE), Some(8 * LARGE));
        assert_eq!(take(1024), None, "small classes are kept apart");
        assert_eq!(take(2048), Some(2048));
    }

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..4096).chain((1 << 20) - 3..(1 << 20) + 70_000) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGNMENT));
            assert!(class - bytes <= (bytes / 8).max(ALIGNMENT), "{bytes} -> {class}");
            assert_eq!(size_class(class), class);
        }
    }
}
