//! One axis of a layer: which taps of the kernel meet which source places.

use super::walk::Direction;
use crate::conv::Geometry;

/// A tap of the kernel that has a source at some target places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    /// Its place in the kernel.
    pub(super) kernel: usize,
    /// Source places from the base of the target place.
    pub(super) step: isize,
}

/// Neighbouring target places with the same taps, whose bases are neighbours too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first target place.
    pub(super) first: usize,
    /// Their number.
    pub(super) count: usize,
    /// The source place from which the taps of the first count.
    pub(super) base: usize,
    /// Its taps, as an index of [`Axis::classes`].
    pub(super) class: usize,
}

/// The target places of an axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// The sets of taps that occur: one in the interior, some more at the borders or for each phase of a stride.
    pub(super) classes: Vec<Vec<Tap>>,
    pub(super) runs: Vec<Run>,
}

impl Axis {
    /// Axis 0 (rows) or 1 (columns) of a layer.
    pub(super) fn new(g: &Geometry, axis: usize, direction: Direction) -> Axis {
        let (stride, padding, dilation) = (g.stride[axis], g.padding[axis] as isize, g.dilation[axis]);
        let [target, source] = match direction {
            Direction::Forward => [g.out[axis], g.input[axis]],
            Direction::InputGrad => [g.input[axis], g.out[axis]],
        };
        let mut found = Axis { classes: Vec::new(), runs: Vec::new() };
        for place in 0..target {
            // Forward: input = output · stride + tap · dilation - padding. For the gradient the same, solved for the output, where that is whole.
            let (base, phase) = match direction {
                Direction::Forward => (place * stride, 0),
                Direction::InputGrad => (place / stride, place % stride),
            };
            let tap = |kernel: usize| {
                let reach = (kernel * dilation) as isize;
                let step = match direction {
                    Direction::Forward => Some(reach - padding),
                    Direction::InputGrad => {
                        let distance = phase as isize + padding - reach;
                        (distance.rem_euclid(stride as isize) == 0).then(|| distance.div_euclid(stride as isize))
                    }
                };
                let inside = |step: &isize| base.checked_add_signed(*step).is_some_and(|at| at < source);
                step.filter(inside).map(|step| Tap { kernel, step })
            };
            found.push(place, base, (0..g.kernel[axis]).filter_map(tap).collect());
        }
        found
    }

    /// Adds the next target place.
    fn push(&mut self, place: usize, base: usize, taps: Vec<Tap>) {
        let class = self.classes.iter().position(|known| *known == taps).unwrap_or_else(|| {
            self.classes.push(taps);
            self.classes.len() - 1
        });
        match self.runs.last_mut() {
            Some(run) if run.class == class && run.base + run.count == base => run.count += 1,
            _ => self.runs.push(Run { first: place, count: 1, base, class }),
        }
    }

    /// The lowest step of a tap, and how many source places all of them span.
    pub(super) fn reach(&self) -> (isize, usize) {
        let steps = self.classes.iter().flatten().map(|tap| tap.step);
        let lowest = steps.clone().min().unwrap_or(0);
        (lowest, (steps.max().unwrap_or(0) - lowest) as usize + 1)
    }

    /// Every target place with the base and the class of its taps.
    pub(super) fn places(&self) -> Vec<Run> {
        let single = |run: &Run, i: usize| Run { first: run.first + i, count: 1, base: run.base + i, class: run.class };
        self.runs.iter().flat_map(|run| (0..run.count).map(move |i| single(run, i))).collect()
    }
}
