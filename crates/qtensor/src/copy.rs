//! Copies between any two layouts of one shape.

use crate::{Element, Layout, MAX_RANK};

/// Copies every element of `from` to the same logical place of `to`. The layouts have equal shapes and fit their slices.
pub(crate) fn copy_strided<T: Element>(source: &[T], from: &Layout, target: &mut [T], to: &Layout) {
    if from.shape().numel() == 0 {
        return;
    }
    let axes = merged_axes(from, to);
    let (inner, outer) =
        axes.split_first().map_or((Axis { length: 1, from: 1, to: 1 }, &[][..]), |(a, rest)| (*a, rest));
    // The second axis is walked in blocks, so that a transposition touches each cache line a few times in a row.
    let (second, outer) =
        outer.split_first().map_or((Axis { length: 1, from: 0, to: 0 }, &[][..]), |(a, rest)| (*a, rest));
    let mut index = [0usize; MAX_RANK];
    let (mut at_from, mut at_to) = (from.offset(), to.offset());
    loop {
        copy_plane(&source[at_from..], &mut target[at_to..], inner, second);
        let mut level = 0;
        loop {
            let Some(axis) = outer.get(level) else { return };
            index[level] += 1;
            at_from += axis.from;
            at_to += axis.to;
            if index[level] < axis.length {
                break;
            }
            at_from -= axis.from * axis.length;
            at_to -= axis.to * axis.length;
            index[level] = 0;
            level += 1;
        }
    }
}

#[derive(Clone, Copy)]
struct Axis {
    length: usize,
    from: usize,
    to: usize,
}

/// Axes longer than 1, fastest in the target first, neighbours joined where both layouts run through them without a gap.
fn merged_axes(from: &Layout, to: &Layout) -> Vec<Axis> {
    let mut axes: Vec<Axis> = (0..from.shape().rank())
        .filter(|&a| from.shape()[a] != 1)
        .map(|a| Axis { length: from.shape()[a], from: from.strides()[a], to: to.strides()[a] })
        .collect();
    axes.sort_by_key(|a| (a.to, a.from));
    let mut merged: Vec<Axis> = Vec::with_capacity(axes.len());
    for axis in axes {
        match merged.last_mut() {
            Some(last) if axis.from == last.from * last.length && axis.to == last.to * last.length => {
                last.length *= axis.length
            }
            _ => merged.push(axis),
        }
    }
    // Transpositions go faster when the second axis is the one that is fastest in the source.
    if let Some(best) = (1..merged.len()).min_by_key(|&i| merged[i].from) {
        merged.swap(1, best);
    }
    merged
}

fn copy_plane<T: Element>(source: &[T], target: &mut [T], inner: Axis, second: Axis) {
    if inner.from == 1 && inner.to == 1 {
        for j in 0..second.length {
            let (s, t) = (j * second.from, j * second.to);
            target[t..t + inner.length].copy_from_slice(&source[s..s + inner.length]);
        }
        return;
    }
    const BLOCK: usize = 16;
    for start in (0..inner.length).step_by(BLOCK) {
        let end = (start + BLOCK).min(inner.length);
        for j in 0..second.length {
            let (s, t) = (j * second.from, j * second.to);
            for i in start..end {
                target[t + i * inner.to] = source[s + i * inner.from];
            }
        }
    }
}

/// Converts element by element.
pub(crate) fn convert<From: Element, To: Element>(source: &[From], target: &mut [To]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to = To::from_f64(from.to_f64());
    }
}
