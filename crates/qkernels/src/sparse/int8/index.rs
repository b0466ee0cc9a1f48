//! The lists of a layer in fours, for sums of bytes.

use super::super::plan::Plan;
use super::super::transposed::Entries;
use super::super::walk::{Direction, List, Walk};
use crate::par;
use qtensor::{Error, Result};
use std::sync::Arc;

/// The most terms whose sum surely fits 32 bits: products of a u8 and a code of at most 127.
const MOST: usize = i32::MAX as usize / (255 * 127);

/// The items of a list by fours: where a channel's number is no multiple, its last item is repeated with the weight 0.
#[derive(Clone, Debug)]
pub(super) struct Quads {
    /// The first four of each target channel, and the end of the last.
    pub(super) starts: Vec<usize>,
    /// As in the list.
    pub(super) offsets: Vec<[u32; 4]>,
    /// The place of each item's code; one past the last code for the weight 0.
    pub(super) places: Vec<[u32; 4]>,
}

/// One direction.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// For each weight, in the order of the target channels, the place of its value.
    pub(super) order: Vec<u32>,
    /// The first weight of each target channel in that order, and the end of the last.
    pub(super) starts: Arc<[usize]>,
    /// For each list of the walk.
    pub(super) lists: Vec<Quads>,
}

/// Both directions.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(super) forward: Side,
    pub(super) input_grad: Side,
}

impl Index {
    /// # Errors
    /// A channel has more weights than a sum of 32 bits holds.
    pub(super) fn new(plan: &Plan) -> Result<Index> {
        let side = |walk, direction| Side::new(&Entries::new(&plan.pattern, &plan.geometry, direction), walk);
        Ok(Index {
            forward: side(&plan.forward, Direction::Forward)?,
            input_grad: side(&plan.input_grad, Direction::InputGrad)?,
        })
    }
}

impl Side {
    fn new(entries: &Entries, walk: &Walk) -> Result<Side> {
        let most = entries.starts.windows(2).map(|range| range[1] - range[0]).max().unwrap_or(0);
        if most > MOST {
            let message = format!("a channel sums {most} weights; sums of bytes in 32 bits hold {MOST}");
            return Err(Error::argument("sparse bytes", message));
        }
        let order: Vec<u32> = entries.entries.iter().map(|entry| entry.position).collect();
        let mut rank = vec![0; order.len()];
        (0..).zip(&order).for_each(|(place, position)| rank[*position as usize] = place);
        let lists = par::map(walk.lists.len(), |i| Quads::new(&walk.lists[i], &rank));
        Ok(Side { order, starts: entries.starts.as_slice().into(), lists })
    }
}

impl Quads {
    /// `rank` has for each value the place of its code.
    fn new(list: &List, rank: &[u32]) -> Quads {
        let quads = list.starts.windows(2).map(|range| (range[1] - range[0]).div_ceil(4)).sum();
        let mut found = Quads {
            starts: Vec::with_capacity(list.starts.len()),
            offsets: Vec::with_capacity(quads),
            places: Vec::with_capacity(quads),
        };
        found.starts.push(0);
        let none = rank.len() as u32;
        for range in list.starts.windows(2) {
            let (offsets, positions) = (&list.offsets[range[0]..range[1]], &list.positions[range[0]..range[1]]);
            for (offsets, positions) in offsets.chunks(4).zip(positions.chunks(4)) {
                let last = offsets[offsets.len() - 1];
                found.offsets.push(std::array::from_fn(|i| offsets.get(i).copied().unwrap_or(last)));
                let place = |i: usize| positions.get(i).map_or(none, |position| rank[*position as usize]);
                found.places.push(std::array::from_fn(place));
            }
            found.starts.push(found.offsets.len());
        }
        found
    }
}
