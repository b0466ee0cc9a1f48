//! What forward pass and input gradient have in common: every output pixel is a sum of taps over source pixels at fixed offsets.
//!
//! Along one axis the output pixels fall into phases: `first, first + step, …`, all of which use the same taps. Output pixel `i` of a phase reads the
//! source at `i * source_step + offset + origin` for each tap. The forward pass has one phase. The input gradient of a convolution of stride `s` has `s`
//! phases (the sub-pixel decomposition of a transposed convolution): each uses only the kernel taps that can reach it, so no product with an inserted zero is formed.

use super::Geometry;

/// One kernel position and where the source pixel for it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    /// Index along the kernel.
    pub(super) kernel: usize,
    /// Distance from the phase's moving source position.
    pub(super) offset: usize,
}

/// Output pixels `first, first + step, …` along one axis.
#[derive(Clone, Debug)]
pub(super) struct AxisPhase {
    pub(super) first: usize,
    pub(super) count: usize,
    /// Ordered by offset.
    pub(super) taps: Vec<Tap>,
}

/// The correlation along one axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) phases: Vec<AxisPhase>,
    /// Distance of the output pixels of a phase.
    pub(super) step: usize,
    /// Source position of offset 0 for the first output; negative where it lies in the padding.
    pub(super) origin: isize,
    /// One more than the largest offset of all taps.
    pub(super) reach: usize,
    pub(super) source_step: usize,
    /// Pixels of the source.
    pub(super) source: usize,
    /// Pixels of the output.
    pub(super) output: usize,
}

impl Axis {
    /// The source position that a tap of output `i` of a phase reads, unless it lies in the padding.
    #[inline(always)]
    pub(super) fn source_of(&self, i: usize, tap: &Tap) -> Option<usize> {
        let position = self.origin + (i * self.source_step + tap.offset) as isize;
        usize::try_from(position).ok().filter(|position| *position < self.source)
    }

    fn forward(g: &Geometry, axis: usize) -> Axis {
        let taps: Vec<Tap> = (0..g.kernel[axis]).map(|k| Tap { kernel: k, offset: k * g.dilation[axis] }).collect();
        Axis {
            reach: taps.last().map_or(1, |t| t.offset + 1),
            phases: vec![AxisPhase { first: 0, count: g.out[axis], taps }],
            step: 1,
            origin: -(g.padding[axis] as isize),
            source_step: g.stride[axis],
            source: g.input[axis],
            output: g.out[axis],
        }
    }

    fn input_grad(g: &Geometry, axis: usize) -> Axis {
        let (stride, padding) = (g.stride[axis] as isize, g.padding[axis] as isize);
        // Input pixel `first + stride * i` meets kernel tap `k` at output `i + shift` where the stride divides the distance.
        let shift = |first: usize, k: usize| {
            let distance = first as isize + padding - (k * g.dilation[axis]) as isize;
            (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
        };
        let firsts = 0..g.stride[axis].min(g.input[axis]);
        let pairs = |first| (0..g.kernel[axis]).filter_map(move |k| Some((k, shift(first, k)?)));
        let origin = firsts.clone().flat_map(pairs).map(|(_, e)| e).min().unwrap_or(0);
        let last = firsts.clone().flat_map(pairs).map(|(_, e)| e).max().unwrap_or(0);
        let phases = firsts.map(|first| {
            let mut taps: Vec<Tap> =
                pairs(first).map(|(kernel, e)| Tap { kernel, offset: (e - origin) as usize }).collect();
            taps.sort_by_key(|tap| tap.offset);
            AxisPhase { first, count: (g.input[axis] - first).div_ceil(g.stride[axis]), taps }
        });
        Axis {
            phases: phases.collect(),
            step: g.stride[axis],
            origin,
            reach: (last - origin) as usize + 1,
            source_step: 1,
            source: g.out[axis],
            output: g.input[axis],
        }
    }

    /// The most output pixels of a phase.
    pub(super) fn longest(&self) -> usize {
        self.phases.iter().map(|p| p.count).max().unwrap_or(0)
    }

    /// Source pixels that `outputs` neighbouring outputs of every phase read.
    pub(super) fn span(&self, outputs: usize) -> usize {
        outputs.saturating_sub(1) * self.source_step + self.reach
    }

    /// Whether no output reads outside the source.
    pub(super) fn is_inside(&self) -> bool {
        self.origin >= 0 && self.origin as usize + self.span(self.longest()) <= self.source
    }
}

/// A sum over taps in two dimensions, from `source_channels` to `channels` in each of `groups`.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Channels of a group that are summed over.
    pub(super) source_channels: usize,
    /// Channels of a group that are written.
    pub(super) channels: usize,
    pub(super) rows: Axis,
    pub(super) columns: Axis,
}

impl Plan {
    /// `x` to `y`.
    pub(super) fn forward(g: &Geometry) -> Plan {
        Plan {
            batch: g.batch,
            groups: g.groups,
            source_channels: g.channels / g.groups,
            channels: g.filters / g.groups,
            rows: Axis::forward(g, 0),
            columns: Axis::forward(g, 1),
        }
    }

    /// `dy` to `dx`.
    pub(super) fn input_grad(g: &Geometry) -> Plan {
        Plan {
            batch: g.batch,
            groups: g.groups,
            source_channels: g.filters / g.groups,
            channels: g.channels / g.groups,
            rows: Axis::input_grad(g, 0),
            columns: Axis::input_grad(g, 1),
        }
    }

    /// Pairs of a row phase and a column phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&AxisPhase, &AxisPhase)> {
        self.rows.phases.iter().flat_map(|rows| self.columns.phases.iter().map(move |columns| (rows, columns)))
    }
}
