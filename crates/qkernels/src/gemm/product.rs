//! The product of f32 matrices: packing, jobs for the threads, and the loops around the register tiles.

use super::blocking::{Blocking, MANY_ROWS, Size, row_tiles};
use super::matrix::Matrix;
use super::pack::{Pack, packed_length};
use super::rows::{Rows, collide};
use super::strips::Strips;
use super::tile::{Epilogue, Tile, TileShape, run_with};
use crate::Activation;
use crate::isa::{Isa, Kernel};
use crate::par::{self, SharedOut};
use qtensor::{DType, Tensor};
use std::ops::Range;

/// Vectors of a full panel of `B`.
pub(super) const PANEL_VECTORS: usize = 2;

/// The fewest panels that pay for a copy of the rows that they read.
const COPYING: usize = 2;

/// A checked product with something to compute. With `DOT` each number of `A` and `B` is a pair of bf16, consecutive in `k`.
pub(super) struct Product<'a, const DOT: bool> {
    pub(super) a: Matrix<'a>,
    pub(super) b: Matrix<'a>,
    /// `C`, row-major, its rows `b.columns` apart.
    pub(super) c: &'a mut [f32],
    pub(super) alpha: f32,
    pub(super) beta: f32,
    /// One number a column.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

/// What all jobs share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: SharedOut<f32>,
    alpha: f32,
    beta: f32,
    bias: Option<&'a [f32]>,
    activation: Activation,
    blocking: Blocking,
    /// `A` in strips, where a tile would read its rows from too many places.
    packed_a: Option<PackedA<'a>>,
    /// Whether the rows of a tile are copied next to each other first.
    copy_rows: bool,
    /// All of `B`, block of `k` after block, where several jobs need the same columns.
    packed_b: Option<&'a [f32]>,
}

/// `A` in strips of `height` rows that start `step` elements apart.
#[derive(Clone, Copy)]
struct PackedA<'a> {
    strips: &'a [f32],
    height: usize,
    step: usize,
}

/// Scratch memory from the pool.
pub(super) fn scratch(length: usize) -> Tensor {
    Tensor::empty([length.max(1)], DType::F32).expect("packed operands are hardly larger than the operands")
}

pub(super) fn memory(scratch: &mut Tensor) -> &mut [f32] {
    scratch.memory_mut().expect("fresh memory of this type")
}

impl<const DOT: bool> Kernel for Product<'_, DOT> {
    type Output = ();
    const DOT_PRODUCTS: bool = DOT;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Product { a, b, c, alpha, beta, bias, activation } = self;
        let (m, k, n) = (a.rows, a.columns, b.columns);
        let panel = PANEL_VECTORS * I::LANES;
        let tile = TileShape::tallest::<I>(PANEL_VECTORS).rows;
        let blocking = Blocking::new(Size { m, k, n, panel, tile });
        let (row_jobs, column_jobs) = (m.div_ceil(blocking.rows), n.div_ceil(blocking.columns));

        // Rows of A that run across cache lines are worth packing if more than one panel reads them.
        let pack_a = a.column_step != 1 && n > panel && k > 1;
        let pack_b = row_jobs > 1 && blocking.rows < MANY_ROWS;
        let strips = Strips { source: a, height: tile };
        let mut space_a = pack_a.then(|| scratch(strips.count() * strips.step()));
        let mut space_b = pack_b.then(|| scratch(packed_length(n, k, I::LANES)));
        if pack_a || pack_b {
            let packing = Packing {
                strips,
                b,
                depth: blocking.depth,
                to_a: space_a.as_mut().map(|t| SharedOut::new(memory(t))),
                to_b: space_b.as_mut().map(|t| SharedOut::new(memory(t))),
            };
            let groups = packing.groups();
            par::for_each(groups[0] + groups[1], |group| isa.outline(PackGroup { packing: &packing, groups, group }));
        }
        let packed_a = space_a.as_ref().map(|t| PackedA {
            strips: t.memory().expect("fresh memory of this type"),
            height: tile,
            step: strips.step(),
        });
        let packed_b = space_b.as_ref().map(|t| t.memory().expect("fresh memory of this type"));
        let shared = Shared {
            a,
            b,
            c: SharedOut::new(c),
            alpha,
            beta,
            bias,
            activation,
            blocking,
            packed_a,
            copy_rows: !pack_a && k >= I::LANES && collide(a.row_step) && blocking.columns >= COPYING * panel,
            packed_b,
        };
        par::for_each(row_jobs * column_jobs, |job| {
            let (row, column) = (job % row_jobs * blocking.rows, job / row_jobs * blocking.columns);
            isa.outline(Job::<DOT> {
                shared: &shared,
                rows: row..(row + blocking.rows).min(m),
                columns: column..(column + blocking.columns).min(n),
            })
        });
    }
}

/// Whole operands to be packed in groups of panels.
pub(super) struct Packing<'a> {
    pub(super) strips: Strips<'a>,
    pub(super) b: Matrix<'a>,
    pub(super) depth: usize,
    pub(super) to_a: Option<SharedOut<f32>>,
    pub(super) to_b: Option<SharedOut<f32>>,
}

/// Columns of a group: enough to read runs of some cache lines from each row.
const GROUP: usize = 128;
/// Strips of a group.
const GROUP_STRIPS: usize = 8;

impl Packing<'_> {
    /// Groups of `A` and of `B`.
    pub(super) fn groups(&self) -> [usize; 2] {
        let of_a = self.to_a.map_or(0, |_| self.strips.count().div_ceil(GROUP_STRIPS));
        let of_b = self.to_b.map_or(0, |_| self.b.columns.div_ceil(GROUP) * self.b.rows.div_ceil(self.depth));
        [of_a, of_b]
    }
}

/// One group of panels, the groups of `A` first.
pub(super) struct PackGroup<'a> {
    pub(super) packing: &'a Packing<'a>,
    pub(super) groups: [usize; 2],
    pub(super) group: usize,
}

impl Kernel for PackGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let &Packing { strips, b, depth, to_a, to_b } = self.packing;
        let k = b.rows;
        if let (Some(to), true) = (to_a, self.group < self.groups[0]) {
            let first = self.group * GROUP_STRIPS;
            // SAFETY: strips before these take `step` elements each; every group writes its own strips.
            unsafe { strips.run(isa, first..(first + GROUP_STRIPS).min(strips.count()), to.at(first * strips.step())) };
        } else if let Some(to) = to_b {
            let in_block = b.columns.div_ceil(GROUP);
            let (block, group) = ((self.group - self.groups[0]) / in_block, (self.group - self.groups[0]) % in_block);
            let rows = block * depth..((block + 1) * depth).min(k);
            let columns = group * GROUP..((group + 1) * GROUP).min(b.columns);
            let start = packed_b_start::<I>(b.columns, &rows, columns.start);
            // SAFETY: as above.
            unsafe { Pack { source: b, rows, columns, panel: PANEL_VECTORS * I::LANES }.run(isa, to.at(start)) };
        }
    }
}

/// Where a whole packed `B` of `n` columns holds the panel that starts with `column` of the block of `k` in `rows`.
pub(super) fn packed_b_start<I: Isa>(n: usize, rows: &Range<usize>, column: usize) -> usize {
    packed_length(n, rows.start, I::LANES) + column * rows.len()
}

/// One thread's part of `C`.
struct Job<'a, const DOT: bool> {
    shared: &'a Shared<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<const DOT: bool> Kernel for Job<'_, DOT> {
    type Output = ();
    const DOT_PRODUCTS: bool = DOT;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let shared = self.shared;
        let k = shared.a.columns;
        let depth = shared.blocking.depth;
        let mut own = match shared.packed_b {
            None => Some(scratch(packed_length(self.columns.len(), depth.min(k), I::LANES))),
            Some(_) => None,
        };
        let mut copied = shared.copy_rows.then(|| Rows::new(depth.min(k)));
        for start in (0..k.max(1)).step_by(depth) {
            let block = start..(start + depth).min(k);
            let b = match (&mut own, shared.packed_b) {
                (Some(own), _) => {
                    let to = memory(own).as_mut_ptr();
                    let (rows, columns) = (block.clone(), self.columns.clone());
                    // SAFETY: the scratch memory was sized for these columns and the deepest block.
                    unsafe { Pack { source: shared.b, rows, columns, panel: PANEL_VECTORS * I::LANES }.run(isa, to) };
                    to.cast_const()
                }
                (None, packed) => {
                    let start = packed_b_start::<I>(shared.b.columns, &block, self.columns.start);
                    packed.map_or(std::ptr::null(), |b| b.as_ptr().wrapping_add(start))
                }
            };
            self.block(isa, b, block, copied.as_mut());
        }
    }
}

impl<const DOT: bool> Job<'_, DOT> {
    /// Adds the products of one block of `k`, whose packed columns of `B` start at `b`.
    #[inline(always)]
    fn block<I: Isa>(&self, isa: I, b: *const f32, block: Range<usize>, mut copied: Option<&mut Rows>) {
        let panel = PANEL_VECTORS * I::LANES;
        let count = self.columns.len();
        // A last panel of at most one vector has tiles of its own.
        let rest = count % panel;
        let wide = if rest > 0 && rest <= I::LANES { count - rest } else { count };
        self.tiles(isa, PANEL_VECTORS, 0..wide, b, &block, copied.as_deref_mut());
        self.tiles(isa, 1, wide..count, b, &block, copied);
    }

    /// All rows by the given columns of the job, in tiles of `vectors`.
    #[inline(always)]
    fn tiles<I: Isa>(
        &self,
        isa: I,
        vectors: usize,
        columns: Range<usize>,
        b: *const f32,
        block: &Range<usize>,
        mut copied: Option<&mut Rows>,
    ) {
        if columns.is_empty() {
            return;
        }
        let shared = self.shared;
        let width = vectors * I::LANES;
        let tallest = TileShape::tallest::<I>(vectors).rows;
        let mut a_rows = [std::ptr::null::<f32>(); TileShape::MAX_ROWS];
        let mut c_rows = [std::ptr::null_mut::<f32>(); TileShape::MAX_ROWS];
        for (first, rows) in row_tiles(self.rows.len(), tallest, 8usize.div_ceil(vectors)) {
            let first = self.rows.start + first;
            let shape = TileShape::for_rows::<I>(vectors, rows);
            let mut a_step = 0;
            for (i, pointer) in a_rows[..shape.rows].iter_mut().enumerate() {
                (*pointer, a_step) = shared.row_of_a(first + i.min(rows - 1), block.start);
            }
            if let Some(copied) = &mut copied {
                // SAFETY: the rows of A have the elements of the block.
                unsafe { copied.take(isa, &mut a_rows[..shape.rows], rows, block.len()) };
            }
            for column in columns.clone().step_by(width) {
                let c_column = self.columns.start + column;
                for (i, pointer) in c_rows[..rows].iter_mut().enumerate() {
                    // SAFETY: row and column lie in `C`.
                    *pointer = unsafe { shared.c.at((first + i) * shared.b.columns + c_column) };
                }
                let tile = Tile {
                    a: &a_rows[..shape.rows],
                    a_step,
                    depth: block.len(),
                    b: b.wrapping_add(column * block.len()),
                    b_step: width,
                    c: &c_rows[..rows],
                    columns: (columns.end - column).min(width),
                    epilogue: shared.epilogue(block, c_column),
                };
                // SAFETY: the rows of A have `k` elements, the panel was packed for this block, the bias has `n` elements,
                // and no other job writes these rows and columns of C.
                unsafe { run_with::<I, DOT>(isa, shape, &tile) };
            }
        }
    }
}

impl Shared<'_> {
    /// Address of `A[row, k]` and the step to the next `k`.
    #[inline(always)]
    fn row_of_a(&self, row: usize, k: usize) -> (*const f32, usize) {
        match self.packed_a {
            Some(PackedA { strips, height, step }) => {
                (strips.as_ptr().wrapping_add(row / height * step + k * height + row % height), height)
            }
            None => (self.a.at(row, k), self.a.column_step),
        }
    }

    /// The first block of `k` takes in the old `C`, later ones add to it, the last one finishes.
    #[inline(always)]
    fn epilogue(&self, block: &Range<usize>, column: usize) -> Epilogue {
        let last = block.end == self.a.columns;
        Epilogue {
            alpha: self.alpha,
            beta: if block.start == 0 { self.beta } else { 1.0 },
            bias: self.bias.filter(|_| last).map_or(std::ptr::null(), |bias| bias.as_ptr().wrapping_add(column)),
            activation: if last { self.activation } else { Activation::None },
        }
    }
}
