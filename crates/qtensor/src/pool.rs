//! The caching buffer pool: a buffer that is dropped waits here for the next request that it suits.
//!
//! A training step asks for the same sizes over and over; taking them from the pool avoids a fresh mapping and a page fault for
//! every 4 KiB of every activation. A small buffer waits for a request of its size class; classes are eight to the octave, so at most an eighth of it is
//! unused. Large buffers lie side by side, are joined with their neighbours when they wait, and are cut to the byte for the next request: see `space.rs`.

use crate::space::Space;
use crate::storage::{ALIGNMENT, Block};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Waiting> = Mutex::new(Waiting::new());

/// What waits.
struct Waiting {
    /// Small blocks by their size, which is a class.
    small: BTreeMap<usize, Vec<Block>>,
    /// Bytes of the small blocks.
    cached: usize,
    medium: Space,
    large: Space,
}

/// Requests up to this size, a class, are small.
const SMALL: usize = 64 << 10;

/// Requests up to this size are medium: mostly scratch memory, which stays in the caches when it has a space of its own, where activations do not move it about.
const MEDIUM: usize = 1 << 20;

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
    let waiting = free();
    let cached = waiting.cached + waiting.medium.waiting() + waiting.large.waiting();
    Usage { live: LIVE.load(Relaxed), peak: PEAK.load(Relaxed), cached }
}

/// Starts a new measurement of the peak from what is live now.
pub fn reset_peak() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Gives waiting buffers back to the operating system: the small ones, and the large ones in whose mapping nothing is in use.
pub fn trim() {
    let mut waiting = free();
    waiting.small.clear();
    waiting.cached = 0;
    waiting.medium.trim();
    waiting.large.trim();
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
    let block = if bytes > SMALL {
        free().space(bytes).take(bytes.next_multiple_of(ALIGNMENT))
    } else {
        let size = size_class(bytes);
        let waiting = free().take_small(size);
        waiting.unwrap_or_else(|| Block::new(size))
    };
    let live = LIVE.fetch_add(block.len(), Relaxed) + block.len();
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
    LIVE.fetch_sub(block.len(), Relaxed);
    if block.len() > SMALL {
        free().space(block.len()).give(block);
    } else {
        free().give_small(block);
    }
}

impl Waiting {
    const fn new() -> Self {
        Waiting { small: BTreeMap::new(), cached: 0, medium: Space::new(), large: Space::new() }
    }

    /// Where a buffer of that size, which is not small, belongs.
    fn space(&mut self, bytes: usize) -> &mut Space {
        if bytes > MEDIUM { &mut self.large } else { &mut self.medium }
    }

    fn take_small(&mut self, size: usize) -> Option<Block> {
        let block = self.small.get_mut(&size)?.pop()?;
        self.cached -= size;
        Some(block)
    }

    fn give_small(&mut self, block: Block) {
        self.cached += block.len();
        self.small.entry(block.len()).or_default().push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_block_waits_for_its_class() {
        let mut waiting = Waiting::new();
        [4096, 2048, 4096].into_iter().for_each(|size| waiting.give_small(Block::new(size)));
        assert_eq!(waiting.cached, 10240);
        let mut take = |size| waiting.take_small(size).map(|block| block.len());
        assert_eq!([take(2048), take(2048)], [Some(2048), None]);
        assert_eq!([take(1024), take(4096)], [None, Some(4096)]);
        assert_eq!(waiting.cached, 4096);
    }

    /// What `give` tells a small block by.
    #[test]
    fn a_small_request_stays_small_in_its_class() {
        assert_eq!(size_class(SMALL), SMALL);
        assert!((1..=SMALL).all(|bytes| size_class(bytes) <= SMALL));
    }

    /// At the step from small to large.
    #[test]
    fn a_buffer_returns_to_where_it_came_from() {
        for bytes in [SMALL, SMALL + 1] {
            let block = take(bytes);
            assert!(block.len() >= bytes && block.len() < bytes + bytes / 8);
            give(block);
        }
    }

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..4096).chain((1 << 15) - 3..=1 << 16) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGNMENT));
            assert!(class - bytes <= (bytes / 8).max(ALIGNMENT), "{bytes} -> {class}");
            assert_eq!(size_class(class), class);
        }
    }
}
