//! The caching buffer pool: a buffer that is dropped waits here for the next request of its size class.
//!
//! A training step asks for the same sizes over and over; taking them from the pool avoids a fresh mapping and a page fault for
//! every 4 KiB of every activation. Size classes are eight to the octave, so at most an eighth of a buffer is unused.

use crate::storage::{ALIGNMENT, Block};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CACHED: AtomicUsize = AtomicUsize::new(0);
static FREE: LazyLock<Mutex<HashMap<usize, Vec<Block>>>> = LazyLock::new(Mutex::default);

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

fn free() -> MutexGuard<'static, HashMap<usize, Vec<Block>>> {
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
    let waiting = free().get_mut(&size).and_then(Vec::pop);
    let block = match waiting {
        Some(block) => {
            CACHED.fetch_sub(size, Relaxed);
            block
        }
        None => Block::new(size),
    };
    let live = LIVE.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(live, Relaxed);
    poison(block)
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
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..4096).chain((1 << 20) - 3..(1 << 20) + 70_000) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGNMENT));
            assert!(class - bytes <= (bytes / 8).max(ALIGNMENT), "{bytes} -> {class}");
            assert_eq!(size_class(class), class);
        }
    }
}
