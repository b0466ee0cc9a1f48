//! Filters, packed for the register tile: for each panel of lanes, one vector row for each summed value in the order in which the tile meets them.

use super::Geometry;
use super::plan::Plan;
use crate::par;
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// Weights as a correlation sees them, in elements of their buffer.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    buffer: &'a [f32],
    offset: usize,
    /// To the next group.
    group: usize,
    /// To the next channel that the correlation writes.
    lane: usize,
    /// To the next channel that it sums over.
    sum: usize,
    /// To the next kernel row and column.
    tap: [usize; 2],
}

impl<'a> Weights<'a> {
    /// For the forward pass: lanes are filters.
    pub(super) fn forward(w: &'a Tensor, g: &Geometry) -> Result<Self> {
        let s = w.strides();
        let group = g.filters / g.groups * s[0];
        Ok(Weights {
            buffer: w.buffer_slice()?,
            offset: w.layout().offset(),
            group,
            lane: s[0],
            sum: s[1],
            tap: [s[2], s[3]],
        })
    }

    /// For the input gradient: lanes are input channels, the sum runs over filters.
    pub(super) fn input_grad(w: &'a Tensor, g: &Geometry) -> Result<Self> {
        let forward = Self::forward(w, g)?;
        Ok(Weights { lane: forward.sum, sum: forward.lane, ..forward })
    }
}

impl Weights<'_> {
    /// The weight of a group from channel `sum` to channel `lane`.
    pub(super) fn at(&self, group: usize, lane: usize, sum: usize, [row, column]: [usize; 2]) -> f32 {
        let place = group * self.group + lane * self.lane + sum * self.sum + row * self.tap[0] + column * self.tap[1];
        self.buffer[self.offset + place]
    }
}

/// All panels of all groups and phases in one buffer.
pub(super) struct Packed {
    pub(super) buffer: Tensor,
    /// Start of each phase, of which each group takes `sums * lanes` elements.
    phases: Vec<Phase>,
    /// Channels of a group, rounded up to whole vectors.
    lanes: usize,
}

struct Phase {
    start: usize,
    /// Values that are summed: taps by channels.
    sums: usize,
    taps: Vec<[usize; 2]>,
}

impl Packed {
    /// Packs `w` in panels of `width` lanes (the last of a group may be narrower: whole vectors of `vector` lanes), channels in blocks of `block`.
    ///
    /// # Errors
    /// The size overflows.
    pub(super) fn new(w: Weights, plan: &Plan, [width, vector]: [usize; 2], block: usize) -> Result<Packed> {
        let lanes = plan.channels.next_multiple_of(vector);
        let mut end = 0;
        let phases: Vec<Phase> = plan
            .phases()
            .map(|(rows, columns)| {
                let pairs = rows.taps.iter().flat_map(|r| columns.taps.iter().map(|c| [r.kernel, c.kernel]));
                let taps: Vec<[usize; 2]> = pairs.collect();
                let phase = Phase { start: end, sums: taps.len() * plan.source_channels, taps };
                end += phase.sums * lanes * plan.groups;
                phase
            })
            .collect();
        let mut buffer = Tensor::empty([end], DType::F32)?;
        let mut rest = buffer.memory_mut::<f32>()?;
        let mut panels = Vec::new();
        for phase in &phases {
            for group in 0..plan.groups {
                for first in (0..lanes).step_by(width) {
                    let wide = width.min(lanes - first);
                    let (panel, after) = rest.split_at_mut(phase.sums * wide);
                    rest = after;
                    panels.push((panel, Panel { phase, group, lanes: first..(first + wide).min(plan.channels), wide }));
                }
            }
        }
        let at_once = (1 << 16) / (phases[0].sums * width).max(1) + 1;
        par::for_each_chunk(&mut panels, at_once, |_, panels| {
            for (to, panel) in panels {
                pack(w, plan.source_channels, block, panel, to);
            }
        });
        Ok(Packed { buffer, phases, lanes })
    }

    /// Start of the panel of a group that begins at lane `first`.
    pub(super) fn panel(&self, phase: usize, group: usize, first: usize) -> usize {
        let phase = &self.phases[phase];
        phase.start + phase.sums * (group * self.lanes + first)
    }
}

struct Panel<'a> {
    phase: &'a Phase,
    group: usize,
    lanes: Range<usize>,
    wide: usize,
}

/// Rows of a panel: blocks of channels, within them taps, within them channels.
fn pack(w: Weights, channels: usize, block: usize, panel: &Panel, to: &mut [f32]) {
    let Panel { phase, group, lanes, wide } = panel;
    if lanes.len() < *wide {
        to.fill(0.0);
    }
    let from = &w.buffer[w.offset + group * w.group + lanes.start * w.lane..];
    let taps: Vec<usize> = phase.taps.iter().map(|[row, column]| row * w.tap[0] + column * w.tap[1]).collect();
    let mut place = 0;
    for start in (0..channels).step_by(block) {
        let depth = block.min(channels - start);
        let to = &mut to[place..place + taps.len() * depth * wide];
        place += to.len();
        let mut copy = |lane: usize, c: usize| {
            let from = &from[lane * w.lane + (start + c) * w.sum..];
            for (t, tap) in taps.iter().enumerate() {
                to[(t * depth + c) * wide + lane] = from[*tap];
            }
        };
        // The axis that is closer in memory runs inside; blocks keep the written lines in cache.
        if w.lane < w.sum {
            (0..depth).for_each(|c| (0..lanes.len()).for_each(|lane| copy(lane, c)));
        } else {
            const NEAR: usize = 16;
            for near in (0..depth).step_by(NEAR) {
                let near = near..(near + NEAR).min(depth);
                (0..lanes.len()).for_each(|lane| near.clone().for_each(|c| copy(lane, c)));
            }
        }
    }
}
