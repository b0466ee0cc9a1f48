//! Codes with the batch innermost in memory, from values in any order: both in one pass.

use super::groups::{Groups, not_finite};
use super::noise::Rounding;
use super::pass::{Look, Run, bytes_mut};
use super::quantizer::{Quantizer, Steps};
use super::statistics::{Lanes, Statistics};
use crate::isa::{Isa, Kernel, dispatch};
use crate::{layout, par};
use qtensor::{DType, Error, Result, Tensor};
use std::ops::Range;

const OP: &str = "quantize_batch_innermost";
/// Values that one thread takes at a time, about.
const JOB: usize = 64 * 1024;
/// Features that are staged together: some cache lines of values side by side, and whole vectors of every instruction set.
const TILE: usize = 128;
/// Values of one feature that are staged together, about: a tile of them stays in the second-level cache.
const DEPTH: usize = 128;

impl Quantizer {
    /// The codes of a tensor `[N, …]` of any strides, f32 or bf16, for example images `[N, C, H, W]`, as a row-major tensor `[…, N]`: rows of `N` bytes, one for each feature. Row-major and channels-last
    /// values are transposed in blocks; other orders work, more slowly. Only a quantizer with one scale can do this.
    ///
    /// # Errors
    /// Another element type, a scalar, more than one group, or a value that is infinite or not a number: the message says where.
    pub fn quantize_batch_innermost(&self, x: &Tensor, rounding: Rounding) -> Result<Tensor> {
        Ok(self.to_batch_innermost(x, rounding, Look::Finite)?.0)
    }

    /// As [`quantize_batch_innermost`](Self::quantize_batch_innermost), with the statistics of the values from the same pass.
    ///
    /// # Errors
    /// As [`quantize_batch_innermost`](Self::quantize_batch_innermost).
    pub fn quantize_batch_innermost_and_measure(&self, x: &Tensor, rounding: Rounding) -> Result<(Tensor, Statistics)> {
        self.to_batch_innermost(x, rounding, Look::Statistics)
    }

    fn to_batch_innermost(&self, x: &Tensor, rounding: Rounding, look: Look) -> Result<(Tensor, Statistics)> {
        if x.dtype() == DType::BF16 && !layout::is_batch_innermost(x) {
            return self.to_batch_innermost(&layout::to_batch_innermost(x)?, rounding, look);
        }
        if !matches!(x.dtype(), DType::F32 | DType::BF16) {
            return Err(Error::DType { op: OP, expected: DType::F32, found: x.dtype() });
        }
        if *self.groups() != Groups::Tensor || self.scales().len() != 1 {
            return Err(Error::argument(OP, format!("{} scales; only a whole tensor has one", self.scales().len())));
        }
        if x.rank() == 0 {
            return Err(Error::shape(OP, "a scalar has no batch axis"));
        }
        let moved: Vec<usize> = (1..x.rank()).chain([0]).collect();
        let moved = x.permute(&moved)?;
        if moved.layout().is_contiguous() {
            // Only a value can be refused here, whose place is that in `x`.
            let (codes, statistics) = self.quantize_looking(&moved, rounding, look).map_err(|_| not_finite(OP, x))?;
            return Ok((codes, statistics.into_iter().next().unwrap_or_default()));
        }
        let mut codes = Tensor::empty(moved.shape(), self.format().dtype())?;
        let walk = Walk::of(x);
        let values = &x.buffer_slice::<f32>()?[x.layout().offset()..];
        let mut jobs = walk.jobs(bytes_mut(&mut codes)?);
        let seen = par::map_chunks(&mut jobs, 1, |_, jobs| {
            let all = jobs
                .iter_mut()
                .map(|job| dispatch(Transposed { job, values, walk: &walk, steps: self.steps(0), rounding, look }));
            all.fold((Statistics::default(), true), |(sum, finite), (part, other)| (sum.join(&part), finite & other))
        });
        if seen.iter().any(|(_, finite)| !finite) {
            return Err(not_finite(OP, x));
        }
        Ok((codes, seen.iter().fold(Statistics::default(), |sum, (part, _)| sum.join(part))))
    }
}

#[derive(Clone, Copy)]
struct Axis {
    length: usize,
    step: usize,
}

/// The values as `[batch, outer, feature, inner]`, where features are the axis that is fastest in memory, and the codes as `[outer, feature, inner, batch]`.
struct Walk {
    batch: Axis,
    feature: Axis,
    /// Where each outer and each inner index starts in memory.
    outer: Vec<usize>,
    inner: Vec<usize>,
}

impl Walk {
    fn of(x: &Tensor) -> Self {
        let mut axes: Vec<Axis> = Vec::new();
        let all = x.shape().iter().zip(x.strides()).map(|(length, step)| Axis { length: *length, step: *step });
        for axis in all.skip(1).filter(|axis| axis.length != 1) {
            match axes.last_mut() {
                Some(last) if last.step == axis.step * axis.length => {
                    *last = Axis { length: last.length * axis.length, step: axis.step };
                }
                _ => axes.push(axis),
            }
        }
        let fastest = (0..axes.len()).min_by_key(|i| axes[*i].step);
        let (before, after) = fastest.map_or((&axes[..], &axes[..]), |i| (&axes[..i], &axes[i + 1..]));
        Walk {
            batch: Axis { length: x.shape()[0], step: x.strides()[0] },
            feature: fastest.map_or(Axis { length: 1, step: 1 }, |i| axes[i]),
            outer: starts(before),
            inner: starts(after),
        }
    }

    /// Cuts the codes into shares of the work, which depend on the shape alone.
    fn jobs<'a>(&self, codes: &'a mut [u8]) -> Vec<Job<'a>> {
        let (batch, features, inner) = (self.batch.length, self.feature.length, self.inner.len());
        let mut jobs = Vec::new();
        for (outer, slab) in codes.chunks_mut(features * inner * batch).enumerate() {
            if inner == 1 {
                let count = JOB.div_ceil(batch).next_multiple_of(TILE);
                for (i, rows) in slab.chunks_mut(count * batch).enumerate() {
                    let features = i * count..i * count + rows.len() / batch;
                    jobs.push(Job { outer, features, inner: 0..1, rows: Rows::Together(rows) });
                }
                continue;
            }
            let count = (JOB / (TILE * batch)).clamp(1, inner);
            for (i, rows) in slab.chunks_mut(TILE * inner * batch).enumerate() {
                let mut rows: Vec<&mut [u8]> = rows.chunks_mut(inner * batch).collect();
                let features = i * TILE..i * TILE + rows.len();
                for start in (0..inner).step_by(count) {
                    let range = start..inner.min(start + count);
                    let take = |row: &mut &'a mut [u8]| {
                        let (taken, rest) = std::mem::take(row).split_at_mut(range.len() * batch);
                        *row = rest;
                        taken
                    };
                    let rows = Rows::Apart(rows.iter_mut().map(take).collect());
                    jobs.push(Job { outer, features: features.clone(), inner: range, rows });
                }
            }
        }
        jobs
    }
}

/// Where each index of some axes, the last one fastest, starts in memory.
fn starts(axes: &[Axis]) -> Vec<usize> {
    axes.iter().fold(vec![0], |starts, axis| {
        starts.iter().flat_map(|start| (0..axis.length).map(move |i| start + i * axis.step)).collect()
    })
}

/// One share of the work: the codes of some features at some inner indices.
struct Job<'a> {
    outer: usize,
    features: Range<usize>,
    inner: Range<usize>,
    rows: Rows<'a>,
}

/// The codes of each feature: of one inner index, one after the other, or in slices of their own.
enum Rows<'a> {
    Together(&'a mut [u8]),
    Apart(Vec<&'a mut [u8]>),
}

struct Transposed<'a, 'b> {
    job: &'a mut Job<'b>,
    values: &'a [f32],
    walk: &'a Walk,
    steps: Steps,
    rounding: Rounding,
    look: Look,
}

/// What is staged: features, inner indices and samples.
struct Block {
    features: Range<usize>,
    inner: Range<usize>,
    samples: Range<usize>,
}

impl Kernel for Transposed<'_, '_> {
    type Output = (Statistics, bool);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (Statistics, bool) {
        let Transposed { job, values, walk, steps, rounding, look } = self;
        let batch = walk.batch.length;
        let depth = batch.min(DEPTH);
        let together = (DEPTH / depth).clamp(1, job.inner.len());
        let mut stage = vec![0.0f32; TILE * depth * together];
        let mut noise = rounding.noise();
        let (mut statistics, mut finite) = (Lanes::new(), true);
        for feature in job.features.clone().step_by(TILE) {
            for inner in job.inner.clone().step_by(together) {
                for sample in (0..batch).step_by(depth) {
                    let block = Block {
                        features: feature..job.features.end.min(feature + TILE),
                        inner: inner..job.inner.end.min(inner + together),
                        samples: sample..batch.min(sample + depth),
                    };
                    let length = block.inner.len() * block.samples.len();
                    walk.stage(isa, values, job.outer, &block, &mut stage);
                    // Rows that follow one another are one run.
                    let is_run = length == batch && matches!(job.rows, Rows::Together(_));
                    let runs = if is_run { 1 } else { block.features.len() };
                    let length = if is_run { length * block.features.len() } else { length };
                    for run in 0..runs {
                        let from = &stage[run * length..(run + 1) * length];
                        let row = feature + run - job.features.start;
                        let to = match &mut job.rows {
                            Rows::Together(rows) => &mut rows[row * batch + sample..][..length],
                            Rows::Apart(rows) => &mut rows[row][(inner - job.inner.start) * batch + sample..][..length],
                        };
                        if look == Look::Statistics {
                            statistics.add(from);
                        }
                        let place = (job.outer * walk.feature.length + feature + run) * walk.inner.len() + inner;
                        let first = (place * batch + sample) as u64;
                        finite &= Run { from, to, first, code: steps, noise: noise.as_mut() }.run(isa);
                    }
                }
            }
        }
        (statistics.total(), finite)
    }
}

impl Walk {
    /// Copies the values of a block to `stage`: for each feature its inner indices, and for each of those its samples.
    #[inline(always)]
    fn stage<I: Isa>(&self, isa: I, values: &[f32], outer: usize, block: &Block, stage: &mut [f32]) {
        let (samples, features) = (block.samples.len(), block.features.len());
        let length = block.inner.len() * samples;
        for (i, inner) in block.inner.clone().enumerate() {
            let start = self.outer[outer] + self.inner[inner] + block.features.start * self.feature.step;
            let from = &values[start + block.samples.start * self.batch.step..];
            let to = &mut stage[i * samples..];
            if self.batch.step == 1 {
                for feature in 0..features {
                    let from = &from[feature * self.feature.step..][..samples];
                    to[feature * length..][..samples].copy_from_slice(from);
                }
                continue;
            }
            // Whole blocks of vectors, then what is left of features and of samples.
            let whole = |count: usize| if self.feature.step == 1 { count / I::LANES * I::LANES } else { 0 };
            for sample in (0..whole(samples)).step_by(I::LANES) {
                let from = &from[sample * self.batch.step..];
                for feature in (0..whole(features)).step_by(I::LANES) {
                    isa.transpose(&from[feature..], self.batch.step, &mut to[feature * length + sample..], length);
                }
            }
            for sample in 0..samples {
                let from = &from[sample * self.batch.step..];
                let first = if sample < whole(samples) { whole(features) } else { 0 };
                for feature in first..features {
                    to[feature * length + sample] = from[feature * self.feature.step];
                }
            }
        }
    }
}
