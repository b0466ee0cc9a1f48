//! Large buffers side by side in a few wide mappings: what waits is joined with its neighbours and cut to the size of the next request.
//!
//! A request takes the lowest place that has room. So long-lived tensors gather at the low end, what a training step needs besides lies above them, and the
//! memory that was ever touched ends little above the most that was in use at once. A step that repeats the requests of the one before finds the same
//! places again and touches nothing new. A request of exactly the size of a block that has just come back takes that one, whose memory is in the caches:
//! the pieces of a kernel take and return the same scratch memory a thousand times a step.

use crate::storage::Block;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

/// Bytes of address space that a mapping reserves; the operating system gives memory to what is touched of them.
const RESERVED: usize = 256 << 20;

/// Blocks that are kept whole for a while: some for each thread of a kernel.
const RECENT: usize = 8;

/// All mappings of large buffers, oldest first.
pub(crate) struct Space {
    regions: Vec<Region>,
    /// Blocks that came back last, the latest at the end; their regions still count them as lent.
    recent: Vec<Block>,
    waiting: usize,
}

/// One mapping.
struct Region {
    addresses: Range<usize>,
    /// Parts that were used and wait, by address; no two touch.
    gaps: BTreeMap<usize, Block>,
    /// The end, which was never used.
    fresh: Option<Block>,
    /// Bytes that are neither in gaps nor fresh.
    lent: usize,
}

impl Space {
    pub(crate) const fn new() -> Self {
        Space { regions: Vec::new(), recent: Vec::new(), waiting: 0 }
    }

    /// Bytes that were used before and wait to be used again.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A block of exactly `bytes` bytes, a multiple of the alignment: what waits before what is fresh, and that before a new mapping.
    pub(crate) fn take(&mut self, bytes: usize) -> Block {
        if let Some(place) = self.recent.iter().rposition(|block| block.len() == bytes) {
            self.waiting -= bytes;
            return self.recent.remove(place);
        }
        self.settle(0);
        if let Some(block) = self.regions.iter_mut().find_map(|region| region.take_gap(bytes)) {
            self.waiting -= bytes;
            return block;
        }
        if let Some((block, waited)) = self.regions.iter_mut().find_map(|region| region.take_fresh(bytes)) {
            self.waiting -= waited;
            return block;
        }
        let mut region = Region::new(bytes);
        let (block, _) = region.take_fresh(bytes).expect("a new region has room for what it is made for");
        self.regions.push(region);
        block
    }

    /// Takes back a block that [`take`](Self::take) gave.
    pub(crate) fn give(&mut self, block: Block) {
        self.waiting += block.len();
        self.recent.push(block);
        self.settle(RECENT);
    }

    /// Joins the blocks that came back first with their neighbours, so that `kept` stay whole.
    fn settle(&mut self, kept: usize) {
        for block in self.recent.drain(..self.recent.len().saturating_sub(kept)) {
            let region = self.regions.iter_mut().find(|region| region.addresses.contains(&block.address()));
            region.expect("a region stays while a block of it is lent").give(block);
        }
    }

    /// Gives mappings of which nothing is in use back to the operating system.
    pub(crate) fn trim(&mut self) {
        self.settle(0);
        self.regions.retain(|region| region.lent > 0);
        self.waiting = self.regions.iter().flat_map(|region| region.gaps.values()).map(Block::len).sum();
    }
}

impl Region {
    /// A mapping that holds a block of `bytes`; of just this size where the system refuses to reserve more.
    fn new(bytes: usize) -> Self {
        let block = Block::try_new(bytes.max(RESERVED)).unwrap_or_else(|| Block::new(bytes));
        let addresses = block.address()..block.address() + block.len();
        Region { addresses, gaps: BTreeMap::new(), fresh: Some(block), lent: 0 }
    }

    /// From the lowest gap that is large enough. There is at most one more gap than buffers in use, so looking at each in turn is quick.
    fn take_gap(&mut self, bytes: usize) -> Option<Block> {
        let place = *self.gaps.iter().find(|(_, gap)| gap.len() >= bytes)?.0;
        let (block, rest) = self.gaps.remove(&place)?.split(bytes);
        if let Some(rest) = rest {
            self.gaps.insert(rest.address(), rest);
        }
        self.lent += bytes;
        Some(block)
    }

    /// From the fresh end, together with a gap in front of it that is too small alone; and how much of the block had waited.
    fn take_fresh(&mut self, bytes: usize) -> Option<(Block, usize)> {
        let fresh = self.fresh.as_ref()?;
        let last = self.gaps.last_entry().filter(|gap| gap.get().touches(fresh));
        let waited = last.as_ref().map_or(0, |gap| gap.get().len());
        if waited + fresh.len() < bytes {
            return None;
        }
        let fresh = self.fresh.take()?;
        let all = match last {
            Some(gap) => gap.remove().join(fresh),
            None => fresh,
        };
        let (block, rest) = all.split(bytes);
        self.fresh = rest;
        self.lent += bytes;
        Some((block, waited))
    }

    fn give(&mut self, mut block: Block) {
        self.lent -= block.len();
        if let Some((_, before)) = self.gaps.range(..block.address()).next_back()
            && before.touches(&block)
            && let Entry::Occupied(before) = self.gaps.entry(before.address())
        {
            block = before.remove().join(block);
        }
        if let Entry::Occupied(after) = self.gaps.entry(block.address() + block.len()) {
            block = block.join(after.remove());
        }
        self.gaps.insert(block.address(), block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::philox4x32;
    use crate::storage::ALIGNMENT;

    const SIZE: usize = 16 * ALIGNMENT;

    /// Bytes of each region up to its fresh end.
    fn touched(space: &Space) -> Vec<usize> {
        let fresh = |region: &Region| region.fresh.as_ref().map_or(0, Block::len);
        space.regions.iter().map(|region| region.addresses.len() - fresh(region)).collect()
    }

    #[test]
    fn neighbours_that_wait_become_one_gap() {
        let mut space = Space::new();
        let [a, b, c, d] = [SIZE; 4].map(|bytes| space.take(bytes));
        let start = a.address();
        assert_eq!(space.waiting(), 0, "what was never used does not wait");
        [a, c, b].into_iter().for_each(|block| space.give(block));
        space.settle(0);
        assert_eq!((space.waiting(), space.regions[0].gaps.len()), (3 * SIZE, 1));
        let all = space.take(3 * SIZE);
        assert_eq!((all.address(), all.len(), space.waiting()), (start, 3 * SIZE, 0));
        assert_eq!(d.address(), start + 3 * SIZE);
        assert_eq!(touched(&space), [4 * SIZE]);
    }

    #[test]
    fn a_request_takes_the_lowest_place_with_room_and_leaves_the_rest() {
        let mut space = Space::new();
        let [small, wall, large, end] = [SIZE, SIZE, 8 * SIZE, SIZE].map(|bytes| space.take(bytes));
        let places = [small.address(), large.address()];
        space.give(small);
        space.give(large);
        space.settle(0);
        let b = space.take(2 * SIZE);
        let a = space.take(SIZE);
        let c = space.take(SIZE);
        assert_eq!([a.address(), b.address(), c.address()], [places[0], places[1], places[1] + 2 * SIZE]);
        assert_eq!((space.waiting(), touched(&space)), (5 * SIZE, vec![11 * SIZE]));
        drop((wall, end));
    }

    #[test]
    fn the_latest_block_of_the_size_comes_first() {
        let mut space = Space::new();
        let [a, b, c] = [SIZE, SIZE, 2 * SIZE].map(|bytes| space.take(bytes));
        let [start, second] = [a.address(), b.address()];
        [a, b, c].into_iter().for_each(|block| space.give(block));
        let b = space.take(SIZE);
        assert_eq!((b.address(), space.waiting()), (second, 3 * SIZE));
        space.give(b);
        let all = space.take(4 * SIZE);
        assert_eq!((all.address(), space.waiting()), (start, 0), "for another size they are joined");
    }

    #[test]
    fn only_the_latest_stay_whole() {
        let mut space = Space::new();
        let blocks: Vec<Block> = (0..RECENT + 2).map(|_| space.take(SIZE)).collect();
        blocks.into_iter().for_each(|block| space.give(block));
        assert_eq!((space.recent.len(), space.regions[0].gaps.len()), (RECENT, 1));
        assert_eq!(space.regions[0].lent, RECENT * SIZE);
        assert_eq!(space.waiting(), (RECENT + 2) * SIZE);
    }

    #[test]
    fn the_last_gap_grows_into_what_is_fresh() {
        let mut space = Space::new();
        let a = space.take(2 * SIZE);
        let start = a.address();
        space.give(a);
        let b = space.take(3 * SIZE);
        assert_eq!((b.address(), space.waiting(), touched(&space)), (start, 0, vec![3 * SIZE]));
    }

    #[test]
    fn a_mapping_goes_back_when_nothing_in_it_is_in_use() {
        let mut space = Space::new();
        let a = space.take(SIZE);
        let wide = space.take(RESERVED + SIZE);
        assert_eq!(touched(&space), [SIZE, RESERVED + SIZE], "too wide for the first mapping");
        let b = space.take(SIZE);
        assert!(space.regions[0].addresses.contains(&b.address()), "the oldest mapping with room");
        space.give(wide);
        space.give(a);
        space.trim();
        assert_eq!((touched(&space), space.waiting()), (vec![2 * SIZE], SIZE));
        space.give(b);
        space.trim();
        assert_eq!((touched(&space), space.waiting()), (vec![], 0));
    }

    /// Random requests: blocks keep what was written to them, the counts are true, and a repeated step touches nothing new.
    #[test]
    fn repeated_steps_need_no_new_memory() {
        let mut space = Space::new();
        let random = |i: u32, salt: u32| philox4x32([i, 0, 0, 0], [salt, 7])[0] as usize;
        let lasting: Vec<Block> = (0..20).map(|i| space.take((1 + random(i, 1) % 40) * ALIGNMENT)).collect();
        let kept: usize = lasting.iter().map(Block::len).sum();
        let mut after = Vec::new();
        for _ in 0..3 {
            let mut lent: Vec<(Block, u8)> = Vec::new();
            for i in 0..400 {
                if i % 5 < 3 {
                    let mut block = space.take((1 + random(i, 2) % 300) * ALIGNMENT);
                    block.bytes_mut().fill(i as u8);
                    lent.push((block, i as u8));
                } else {
                    let (mut block, written) = lent.swap_remove(random(i, 3) % lent.len());
                    assert!(block.bytes_mut().iter().all(|byte| *byte == written), "another block lies over this one");
                    space.give(block);
                }
                let bytes = kept + lent.iter().map(|(block, _)| block.len()).sum::<usize>();
                assert_eq!(space.waiting() + bytes, touched(&space)[0]);
            }
            lent.into_iter().for_each(|(block, _)| space.give(block));
            space.settle(0);
            after.push(touched(&space));
        }
        assert!(after.iter().all(|touched| *touched == after[0]), "{after:?}");
        assert_eq!(space.regions[0].gaps.len(), 1, "all that waits lies behind what lasts");
        drop(lasting);
    }
}
