//! Every tile of every instruction set against plain sums, with segments, strides, partial tiles and epilogues.

use super::*;
use crate::isa::{available, dispatch_on};

/// Small whole numbers, so that every order of summation gives the same bits.
fn number(i: usize) -> f32 {
    ((i * 2654435761) >> 7 & 7) as f32 - 3.0
}

struct AllTiles;

impl Kernel for AllTiles {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (vectors, list) in TileShape::table::<I>().iter().enumerate().map(|(v, list)| (v + 1, list)) {
            for &rows in *list {
                let width = vectors * I::LANES;
                for columns in [1, I::LANES - 1, width - 1, width] {
                    for wanted in [rows, rows / 2 + 1] {
                        one(isa, TileShape { rows, vectors }, wanted.min(rows), columns.clamp(1, width));
                    }
                }
            }
        }
    }
}

/// Three segments of depth 5, rows of A 40 apart and steps of 2, rows of B with a gap, against sums by definition.
#[inline(always)]
fn one<I: Isa>(isa: I, shape: TileShape, wanted: usize, columns: usize) {
    const SEGMENTS: usize = 3;
    const DEPTH: usize = 5;
    let (width, gap) = (shape.vectors * I::LANES, shape.vectors * I::LANES + 3);
    let a: Vec<f32> = (0..shape.rows * 40).map(number).collect();
    let b: Vec<f32> = (0..SEGMENTS * DEPTH * gap).map(|i| number(i + 77)).collect();
    let bias: Vec<f32> = (0..columns).map(number).collect();
    let old: Vec<f32> = (0..shape.rows * gap).map(|i| number(i + 5)).collect();
    let activation = Activation::Relu;
    for epilogue in [Epilogue::STORE, Epilogue { alpha: 2.0, beta: -1.0, bias: bias.as_ptr(), activation }] {
        let start = |s: usize, row: usize| row.min(wanted - 1) * 40 + 12 * s;
        let pointers: Vec<*const f32> =
            (0..SEGMENTS * shape.rows).map(|i| a[start(i / shape.rows, i % shape.rows)..].as_ptr()).collect();
        let mut c = old.clone();
        let base = c.as_mut_ptr();
        let c_rows: Vec<*mut f32> = (0..wanted).map(|row| base.wrapping_add(row * gap)).collect();
        let tile =
            Tile { a: &pointers, a_step: 2, depth: DEPTH, b: b.as_ptr(), b_step: gap, c: &c_rows, columns, epilogue };
        // SAFETY: the buffers above have room for all rows, segments and columns.
        unsafe { run(isa, shape, &tile) };
        for (i, found) in c.iter().enumerate() {
            let (row, column) = (i / gap, i % gap);
            if row >= wanted || column >= columns {
                assert_eq!(*found, old[i], "{shape:?} wrote outside of its {wanted} rows and {columns} columns");
                continue;
            }
            let mut sum = 0.0;
            for s in 0..SEGMENTS {
                for k in 0..DEPTH {
                    sum += a[start(s, row) + 2 * k] * b[(s * DEPTH + k) * gap + column];
                }
            }
            let expected = if epilogue.beta == 0.0 { sum } else { (2.0 * sum - old[i] + bias[column]).max(0.0) };
            assert_eq!(*found, expected, "{shape:?} of width {width}, row {row}, column {column}");
        }
    }
}

#[test]
fn every_tile_of_every_instruction_set() {
    available().for_each(|id| dispatch_on(id, AllTiles));
}
