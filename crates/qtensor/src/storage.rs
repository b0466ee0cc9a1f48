//! The one place of this crate with `unsafe`: aligned memory that is always initialised.

use crate::pool;
use std::alloc::{Layout as Allocation, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of every buffer in bytes: a cache line and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// An aligned block of initialised bytes.
pub(crate) struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block owns its memory and is plain bytes; shared access goes through `&self`, exclusive access through `&mut self`.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Zeroed memory of a multiple of [`ALIGNMENT`] bytes, at least one.
    pub(crate) fn new(bytes: usize) -> Self {
        assert!(bytes > 0 && bytes.is_multiple_of(ALIGNMENT), "block of {bytes} bytes");
        let allocation = Allocation::from_size_align(bytes, ALIGNMENT).expect("a checked shape fits the address space");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(allocation) };
        Block { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(allocation)), bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` initialised bytes start at `start`, and they live as long as the block.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let allocation = Allocation::from_size_align(self.bytes, ALIGNMENT).expect("checked when allocated");
        // SAFETY: allocated in `new` with the same size and alignment.
        unsafe { dealloc(self.start.as_ptr(), allocation) }
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
