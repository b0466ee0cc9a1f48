//! Forward pass and input gradient: blocks of tiles are transformed, multiplied with the filters at each point, and transformed back, all near the cache.
//!
//! In bf16 transforms and sums are in f32, the values at the points are rounded, and their products taken in pairs of channels.
//!
//! Several correlations of equal sizes may share the work: `targets` of one source share its transform, and `sources` of one target share the way back.

use super::ahead::{Ahead, Rows};
use super::filters::{Filters, Packed, Panel, Size};
use super::multiply::Multiply;
use super::patches::{Of, Patches, Sum};
use super::tiling::{Blocks, Tiles, point_step};
use super::transform::{Form, PATCH, POINTS, both_axes, output, unrolled};
use crate::Activation;
use crate::conv::measure::Region;
use crate::conv::stage::{Images, Scratch};
use crate::isa::{Isa, IsaId, Kernel, Stored, dispatch_on};
use crate::norm::moments::Piece;
use crate::par::{self, SharedOut};
use qtensor::Result;
use std::marker::PhantomData;
use std::ops::Range;

/// Correlations, and what happens to their results.
pub(super) struct Correlation<'a, T, F> {
    pub(super) form: PhantomData<F>,
    pub(super) batch: usize,
    /// Channels-last.
    pub(super) sources: Vec<Images<'a, T>>,
    pub(super) source_channels: usize,
    /// Height and width of a source.
    pub(super) source: [usize; 2],
    /// Where the taps of the first output begin; negative in the padding.
    pub(super) origin: [isize; 2],
    /// For each target one of each source.
    pub(super) filters: Vec<Filters<'a>>,
    /// Channels, height and width of a target.
    pub(super) channels: usize,
    pub(super) output: [usize; 2],
    /// One for each target: a value for each channel, or none.
    pub(super) biases: Vec<Option<&'a [f32]>>,
    pub(super) ending: Ending<'a, T>,
    /// Whether means and variances of the results are taken.
    pub(super) is_measured: bool,
}

/// What happens to a sum and its bias before they are stored.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Ending<'a, T = f32> {
    /// Added: values in the order of the only target.
    pub(in crate::conv) residual: Option<&'a [T]>,
    /// Applied last.
    pub(in crate::conv) activation: Activation,
}

impl<T> Default for Ending<'_, T> {
    fn default() -> Self {
        Ending { residual: None, activation: Activation::None }
    }
}

impl<T: Stored, F: Form> Correlation<'_, T, F> {
    /// Writes the results, channels-last, to whole outputs, one for each bias. Returns what their tiles tell, if that is wanted: of all targets, one after
    /// the other.
    ///
    /// # Errors
    /// A size overflows.
    pub(super) fn run(&self, isa: IsaId, outs: &[SharedOut<T>]) -> Result<Vec<Piece>> {
        let size = Size {
            targets: self.biases.len(),
            channels: self.channels,
            sources: self.sources.len(),
            source_channels: self.source_channels,
            in_word: T::IN_WORD,
        };
        let panels = size.panels(isa.lanes());
        let tiles = Tiles::new(self.batch, self.output, F::TILE);
        let row = size.row(isa.lanes());
        let blocks = Blocks::new(tiles.count, row, &panels, isa.lanes());
        let shares = blocks.shares.len();
        let blocks_of_tiles = tiles.count.div_ceil(blocks.tiles);
        // Filters that serve one block of tiles alone are transformed where they are used: all of them may be larger than any cache.
        let all = match blocks_of_tiles > 1 || shares == 1 {
            true => {
                Some(Packed::new::<T, F>(&self.filters, size, &panels, isa, |count, task| par::for_each(count, task))?)
            }
            false => None,
        };
        let pieces = par::map(blocks_of_tiles * shares, |task| {
            let (first, share) = (task / shares * blocks.tiles, task % shares);
            let own = all.is_none().then(|| {
                let panels = &panels[blocks.shares[share].clone()];
                let here = |count: usize, task: &(dyn Fn(usize) + Sync)| (0..count).for_each(task);
                Packed::new::<T, F>(&self.filters, size, panels, isa, here).expect("smaller than the results")
            });
            let Some(packed) = all.as_ref().or(own.as_ref()) else { return Vec::new() };
            let task = Task {
                work: self,
                packed,
                tiles,
                row,
                range: first..(first + blocks.tiles).min(tiles.count),
                panels: if own.is_some() { &packed.panels } else { &packed.panels[blocks.shares[share].clone()] },
                group: blocks.group,
                outs,
            };
            dispatch_on(isa, task)
        });
        Ok(pieces.into_iter().flatten().collect())
    }
}

/// A block of tiles and some panels.
struct Task<'a, T, F> {
    work: &'a Correlation<'a, T, F>,
    packed: &'a Packed,
    tiles: Tiles,
    row: usize,
    range: Range<usize>,
    panels: &'a [Panel],
    group: usize,
    outs: &'a [SharedOut<T>],
}

impl<T: Stored, F: Form> Kernel for Task<'_, T, F> {
    type Output = Vec<Piece>;
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<Piece> {
        let Task { work, packed, row, .. } = self;
        let count = self.range.len();
        let step = point_step(count, row);
        let width = |panels: &[Panel]| panels.iter().map(|p| p.vectors * I::LANES).sum::<usize>();
        let values = packed.buffer.memory::<f32>().expect("fresh memory of this type");
        let widest = self.panels.chunks(self.group).map(width).max().unwrap_or(0);
        let mut scratch = Scratch::new();
        let memory = scratch.take(POINTS * (step + point_step(count, widest)));
        let (inputs, products) = memory.split_at_mut(POINTS * step);
        for (s, images) in work.sources.iter().enumerate() {
            isa.outline(Patches::<T, F> {
                form: PhantomData,
                images: *images,
                channels: 0..work.source_channels,
                size: work.source,
                origin: work.origin,
                tiles: self.tiles,
                range: self.range.clone(),
                to: inputs[s * (row / work.sources.len())..].as_mut_ptr(),
                row,
                point_step: step,
                of: Of::Inputs,
                sum: Sum::Channels,
            });
        }
        let mut ahead = self.ahead();
        let runs = if work.is_measured { self.runs() } else { Vec::new() };
        let mut pieces = Vec::new();
        for panels in self.panels.chunks(self.group) {
            let width = width(panels);
            let products_step = point_step(count, width);
            isa.outline(Products::<T> {
                of: PhantomData,
                packed,
                values,
                panels,
                tiles: count,
                inputs,
                row,
                step,
                products: products.as_mut_ptr(),
                width,
                products_step,
                ahead: std::mem::take(&mut ahead),
            });
            isa.outline(Outputs {
                work,
                panels,
                tiles: self.tiles,
                range: self.range.clone(),
                products,
                width,
                step: products_step,
                outs: self.outs,
            });
            for panel in panels.iter().filter(|_| work.is_measured) {
                pieces.push(isa.outline(Region {
                    memory: self.outs[panel.target],
                    runs: &runs,
                    pixel: work.channels,
                    channels: panel.lanes.clone(),
                    first: panel.target * work.channels,
                }));
            }
        }
        pieces
    }
}

impl<T: Stored, F: Form> Task<'_, T, F> {
    /// The pixels of the outputs of these tiles.
    fn runs(&self) -> Vec<Range<usize>> {
        let [height, width] = self.work.output;
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut start = self.range.start;
        while start < self.range.end {
            let [n, row, column] = self.tiles.place(start);
            let end = self.range.end.min(start + self.tiles.columns - column);
            let columns = column * F::TILE..width.min((column + end - start) * F::TILE);
            for row in row * F::TILE..height.min((row + 1) * F::TILE) {
                let line = (n * height + row) * width;
                runs.push(line + columns.start..line + columns.end);
            }
            start = end;
        }
        runs
    }

    /// What is needed after the products: the places of the outputs, and the sources of the next tiles, with which the same thread mostly goes on.
    fn ahead(&self) -> Ahead {
        let work = self.work;
        let mut ahead = Ahead::default();
        if !Ahead::has_room(self.packed.buffer.numel()) {
            return ahead;
        }
        if self.panels.len() <= self.group {
            let [height, width] = work.output;
            let row = width * work.channels;
            for out in self.outs {
                // SAFETY: only an address.
                let start = unsafe { out.at(0) }.cast_const();
                let rows = Rows { start, steps: [height * row, row], height, first: 0, length: F::TILE };
                ahead.add(rows, self.tiles, self.range.clone(), F::TILE);
            }
        }
        let next = self.range.end..(self.range.end + self.range.len()).min(self.tiles.count);
        for images in &work.sources {
            ahead.add(images.rows(work.source[0], work.origin[0], PATCH), self.tiles, next.clone(), F::TILE);
        }
        ahead
    }
}

/// All products of a block of tiles with a group of panels.
struct Products<'a, T> {
    of: PhantomData<T>,
    packed: &'a Packed,
    values: &'a [f32],
    panels: &'a [Panel],
    tiles: usize,
    inputs: &'a [f32],
    row: usize,
    step: usize,
    products: *mut f32,
    width: usize,
    products_step: usize,
    ahead: Ahead,
}

impl<T: Stored> Kernel for Products<'_, T> {
    type Output = ();
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for point in 0..POINTS {
            self.ahead.fetch(isa, point, POINTS);
            let mut lane = 0;
            for panel in self.panels {
                let multiply = Multiply {
                    a: self.inputs[point * self.step..].as_ptr(),
                    a_step: self.row,
                    rows: self.tiles,
                    depth: self.packed.depth,
                    b: self.values[self.packed.point(panel, point)..].as_ptr(),
                    c: self.products.wrapping_add(point * self.products_step + lane),
                    c_step: self.width,
                };
                // SAFETY: the inputs hold a row for each tile at each point, the panel a row of its lanes for each channel, the products
                // a row for each tile at each point, in which each panel has its lanes.
                unsafe {
                    match panel.vectors {
                        1 => multiply.run::<I, T, 1>(isa),
                        _ => multiply.run::<I, T, 2>(isa),
                    }
                }
                lane += panel.vectors * I::LANES;
            }
        }
    }
}

/// The way back: products to outputs, with bias and activation.
struct Outputs<'a, T, F> {
    work: &'a Correlation<'a, T, F>,
    panels: &'a [Panel],
    tiles: Tiles,
    range: Range<usize>,
    products: &'a [f32],
    width: usize,
    step: usize,
    outs: &'a [SharedOut<T>],
}

impl<T: Stored, F: Form> Kernel for Outputs<'_, T, F> {
    type Output = ();
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [height, width] = self.work.output;
        let channels = self.work.channels;
        let Ending { residual, activation } = self.work.ending;
        for (t, [n, row, column]) in self.tiles.places(self.range.clone()).enumerate() {
            let (row, column) = (row * F::TILE, column * F::TILE);
            let rows = F::TILE.min(height - row);
            let columns = F::TILE.min(width - column);
            let is_whole = rows == F::TILE && columns == F::TILE;
            let place = ((n * height + row) * width + column) * channels;
            let mut from = t * self.width;
            for panel in self.panels {
                let bias = self.work.biases[panel.target];
                for first in panel.lanes.clone().step_by(I::LANES) {
                    let count = I::LANES.min(panel.lanes.end - first);
                    let back = Back {
                        from: self.products[from..].as_ptr(),
                        step: self.step,
                        bias: bias.map_or(isa.zero(), |b| isa.load_part(&b[first..first + count])),
                        residual: residual.map_or(std::ptr::null(), |r| r[place + first..].as_ptr()),
                        activation,
                        // SAFETY: the pixel and its channel lie in the target.
                        to: unsafe { self.outs[panel.target].at(place + first) },
                        steps: [width * channels, channels],
                        size: [rows, columns],
                        count,
                    };
                    // SAFETY: the products hold all points of the tile; tasks differ in their tiles or panels.
                    unsafe {
                        if is_whole && count == I::LANES {
                            back.run::<I, F, true>(isa);
                        } else {
                            back.run::<I, F, false>(isa);
                        }
                    }
                    from += I::LANES;
                }
            }
        }
    }
}

/// A vector of channels of one tile.
struct Back<V, T> {
    from: *const f32,
    step: usize,
    bias: V,
    /// Values that belong to those at `to`, or null.
    residual: *const T,
    activation: Activation,
    to: *mut T,
    /// Elements to the next row and the next pixel of the output.
    steps: [usize; 2],
    /// Rows and columns that exist.
    size: [usize; 2],
    /// Channels that exist.
    count: usize,
}

impl<V: Copy, T: Stored> Back<V, T> {
    /// # Safety
    /// All points must be readable, all pixels and channels that exist writable, those of the residual readable; the whole tile where `WHOLE`.
    #[inline(always)]
    unsafe fn run<I: Isa<F32 = V>, F: Form, const WHOLE: bool>(&self, isa: I) {
        // SAFETY: the caller's promise.
        unsafe {
            both_axes!(
                isa,
                output::<I, F>,
                [PATCH, F::TILE],
                |row, column| isa.load_at(self.from.add((row * PATCH + column) * self.step)),
                |row, column, x| self.put::<I, WHOLE>(isa, row, column, x)
            );
        }
    }
    /// Finishes and stores a pixel.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn put<I: Isa<F32 = V>, const WHOLE: bool>(&self, isa: I, row: usize, column: usize, x: V) {
        if !WHOLE && (row >= self.size[0] || column >= self.size[1]) {
            return;
        }
        let at = row * self.steps[0] + column * self.steps[1];
        let to = self.to.wrapping_add(at);
        let mut x = isa.add(x, self.bias);
        // SAFETY: the caller's promise.
        unsafe {
            if !self.residual.is_null() {
                let residual = self.residual.add(at);
                x = isa
                    .add(x, if WHOLE { T::load_at(isa, residual) } else { T::load_part_at(isa, residual, self.count) });
            }
            let x = self.activation.apply_vector(isa, x);
            if WHOLE { T::store_at(isa, to, x) } else { T::store_part_at(isa, to, self.count, x) }
        }
    }
}
