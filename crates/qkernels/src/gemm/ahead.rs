//! Addresses that a tile asks for while it computes, because the tiles after it need them.

/// The most addresses: one for each [`STEPS_AHEAD`](super::tile::STEPS_AHEAD) steps of the longest `k`.
const MOST: usize = 160;
/// f32 of a cache line.
pub(super) const LINE: usize = 16;

/// A list of addresses. What does not fit is left out.
pub(super) struct Ahead {
    addresses: [*const f32; MOST],
    count: usize,
}

impl Ahead {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Ahead { addresses: [std::ptr::null(); MOST], count: 0 }
    }

    /// The line `offset` elements behind `start`.
    #[inline(always)]
    pub(super) fn line(&mut self, start: *const f32, offset: usize) {
        if self.count < MOST {
            self.addresses[self.count] = start.wrapping_add(offset);
            self.count += 1;
        }
    }

    /// The lines of a range, counted from `start`.
    #[inline(always)]
    pub(super) fn lines(&mut self, start: *const f32, lines: std::ops::Range<usize>) {
        for line in lines {
            self.line(start, line * LINE);
        }
    }

    pub(super) fn addresses(&self) -> &[*const f32] {
        &self.addresses[..self.count]
    }
}
