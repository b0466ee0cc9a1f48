//! The one place of this crate with `unsafe`: aligned memory that is always initialised.

use crate::pool;
use std::alloc::{Layout as Allocation, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

/// Alignment of every buffer in bytes: a cache line and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// What is asked of the allocator. Every allocator grants it to all memory, so zeros come straight from the operating system and large memory that nobody
/// touches costs nothing; for a wider alignment it would have to write them.
const GRANTED: usize = align_of::<usize>();

/// Zeroed memory of the allocator, freed when the last block in it is gone.
struct Mapping {
    start: NonNull<u8>,
    allocation: Allocation,
}

/// An aligned block of initialised bytes: a mapping or a part of one, which no other block overlaps.
pub(crate) struct Block {
    /// Within `mapping`, to all of whose bytes its provenance extends.
    start: NonNull<u8>,
    bytes: usize,
    mapping: Arc<Mapping>,
}

// SAFETY: a mapping is an allocation that any thread may free; its memory is reached through blocks only.
unsafe impl Send for Mapping {}
// SAFETY: a shared mapping is looked at only to tell it from others.
unsafe impl Sync for Mapping {}
// SAFETY: a block owns its bytes, which are plain; shared access goes through `&self`, exclusive access through `&mut self`.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: allocated in `Block::try_new` with this layout, and no block is left that could reach it.
        unsafe { dealloc(self.start.as_ptr(), self.allocation) }
    }
}

impl Block {
    /// Zeroed memory of a multiple of [`ALIGNMENT`] bytes, at least one.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::try_new(bytes).unwrap_or_else(|| {
            handle_alloc_error(
                Allocation::from_size_align(bytes, ALIGNMENT).expect("a checked shape fits the address space"),
            )
        })
    }

    /// As [`new`](Self::new), or `None` where the allocator has no such memory.
    pub(crate) fn try_new(bytes: usize) -> Option<Self> {
        assert!(bytes > 0 && bytes.is_multiple_of(ALIGNMENT), "block of {bytes} bytes");
        let allocation = Allocation::from_size_align(bytes.checked_add(ALIGNMENT - GRANTED)?, GRANTED).ok()?;
        // SAFETY: the size is not zero.
        let all = NonNull::new(unsafe { alloc_zeroed(allocation) })?;
        let mapping = Arc::new(Mapping { start: all, allocation });
        let skipped = all.as_ptr().addr().next_multiple_of(ALIGNMENT) - all.as_ptr().addr();
        // SAFETY: the memory is aligned to `GRANTED`, so at most `ALIGNMENT - GRANTED` bytes are skipped, and `bytes` are left behind them.
        let start = unsafe { all.add(skipped) };
        Some(Block { start, bytes, mapping })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Where the block starts; blocks of one mapping stand in the order of their addresses.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    /// The first `bytes` bytes, and the rest where there is any.
    pub(crate) fn split(self, bytes: usize) -> (Self, Option<Self>) {
        assert!(bytes > 0 && bytes.is_multiple_of(ALIGNMENT) && bytes <= self.bytes, "{bytes} of {} bytes", self.bytes);
        if bytes == self.bytes {
            return (self, None);
        }
        // SAFETY: less than the length of this block, whose bytes are in one allocation.
        let start = unsafe { self.start.add(bytes) };
        let rest = Block { start, bytes: self.bytes - bytes, mapping: self.mapping.clone() };
        (Block { bytes, ..self }, Some(rest))
    }

    /// Whether `next` begins where this block ends, in the same mapping.
    pub(crate) fn touches(&self, next: &Self) -> bool {
        self.address() + self.bytes == next.address() && Arc::ptr_eq(&self.mapping, &next.mapping)
    }

    /// This block and the one that it [touches](Self::touches) as one.
    pub(crate) fn join(self, next: Self) -> Self {
        assert!(self.touches(&next), "blocks that are not neighbours");
        Block { bytes: self.bytes + next.bytes, ..self }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` initialised bytes start at `start`, they live as long as the mapping, and no other block has them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

/// A block on loan from the pool, to which it returns when dropped.
pub(crate) struct Buffer {
    block: Option<Block>,
    used: usize,
}

impl Buffer {
    /// At least `bytes` bytes of unspecified but initialised content.
    pub(crate) fn new(bytes: usize) -> Self {
        Buffer { block: Some(pool::take(bytes)), used: bytes }
    }

    /// Bytes that the buffer occupies, its rounding included.
    pub(crate) fn capacity(&self) -> usize {
        self.block.as_ref().map_or(0, Block::len)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block.as_ref().expect("present until dropped").bytes()[..self.used]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block.as_mut().expect("present until dropped").bytes_mut()[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            pool::give(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_block_own_their_bytes_and_become_the_block_again() {
        let whole = Block::new(4 * ALIGNMENT);
        let start = whole.address();
        assert!(start.is_multiple_of(ALIGNMENT));
        let (mut first, rest) = whole.split(ALIGNMENT);
        let mut rest = rest.unwrap();
        first.bytes_mut().fill(1);
        rest.bytes_mut().fill(2);
        assert_eq!((first.address(), first.len(), rest.address(), rest.len()), (start, 64, start + 64, 192));
        assert!(first.touches(&rest) && !rest.touches(&first));
        let whole = first.join(rest);
        assert_eq!(whole.len(), 4 * ALIGNMENT);
        assert!(whole.bytes()[..64].iter().all(|b| *b == 1) && whole.bytes()[64..].iter().all(|b| *b == 2));
        assert!(whole.split(4 * ALIGNMENT).1.is_none());
    }

    #[test]
    fn a_part_outlives_the_other() {
        let (first, rest) = Block::new(1 << 20).split(ALIGNMENT);
        drop(first);
        let mut rest = rest.unwrap();
        assert!(rest.bytes().iter().all(|b| *b == 0), "new memory is zero");
        rest.bytes_mut().fill(3);
        assert!(rest.bytes().iter().all(|b| *b == 3));
    }

    #[test]
    #[should_panic(expected = "not neighbours")]
    fn blocks_of_two_mappings_do_not_join() {
        let _ = Block::new(ALIGNMENT).join(Block::new(ALIGNMENT));
    }
}
