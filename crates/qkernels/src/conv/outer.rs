//! The register tile of the weight gradient: sums of outer products over pixels.
//!
//! Both operands have their channels consecutive at every pixel, so nothing is packed: one side is read as vectors, the other is broadcast.

use super::stage::Steps;
use crate::isa::Isa;

/// Values of one side at a pixel, consecutive in memory, and their place in the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Distance from the position of the pixel.
    pub(super) offset: usize,
    pub(super) length: usize,
    /// Row or lane of the result that belongs to the first value.
    pub(super) place: usize,
}

/// One operand: where pixel (0, 0) of image 0 is, and how to walk on.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) start: *const f32,
    pub(super) steps: Steps,
    pub(super) segments: &'a [Segment],
}

/// `result[row][lane] (+)= Σ rows(pixel)[row] * lanes(pixel)[lane]` over all pixels.
#[derive(Clone, Copy)]
pub(super) struct Outer<'a> {
    /// The side that is broadcast.
    pub(super) rows: Side<'a>,
    /// The side that is read as vectors.
    pub(super) lanes: Side<'a>,
    /// Images, rows and columns of the pixels.
    pub(super) pixels: [usize; 3],
    pub(super) result: *mut f32,
    /// Lanes of a row of the result.
    pub(super) width: usize,
    /// Whether the result holds a sum to continue.
    pub(super) resume: bool,
}

/// Rows and lanes of one tile.
#[derive(Clone, Copy)]
struct Corner {
    rows: *const f32,
    lanes: *const f32,
    result: *mut f32,
    /// Lanes of the last vector that exist.
    last: usize,
}

/// Computes all tiles.
///
/// # Safety
/// Every segment at every pixel must be readable, the result writable and used by nobody else.
#[inline(always)]
pub(super) unsafe fn outer<I: Isa>(isa: I, work: &Outer) {
    for lanes in work.lanes.segments {
        let mut done = 0;
        while done < lanes.length {
            let left = lanes.length - done;
            let vectors = vectors_at_once(left / I::LANES, I::REGISTERS);
            // SAFETY: inside the segment.
            let from = unsafe { work.lanes.start.add(lanes.offset + done) };
            let place = lanes.place + done;
            // SAFETY: the caller's promise.
            unsafe {
                match vectors {
                    0 => column::<I, 1, true>(isa, work, from, [place, left]),
                    1 => column::<I, 1, false>(isa, work, from, [place, I::LANES]),
                    2 => column::<I, 2, false>(isa, work, from, [place, I::LANES]),
                    3 => column::<I, 3, false>(isa, work, from, [place, I::LANES]),
                    _ => column::<I, 4, false>(isa, work, from, [place, I::LANES]),
                }
            }
            done += if vectors == 0 { left } else { vectors * I::LANES };
        }
    }
}

/// How many of the vectors that are left a tile takes: three by eight rows is the best shape of 32 registers, two by six of 16.
#[inline(always)]
fn vectors_at_once(left: usize, registers: usize) -> usize {
    match left {
        _ if registers < 32 => left.min(2),
        4 => 4,
        _ => left.min(3),
    }
}

/// All rows of `V` vectors of lanes.
///
/// # Safety
/// As [`outer`].
#[inline(always)]
unsafe fn column<I: Isa, const V: usize, const PART: bool>(
    isa: I,
    work: &Outer,
    lanes: *const f32,
    [place, last]: [usize; 2],
) {
    for rows in work.rows.segments {
        let mut done = 0;
        macro_rules! tiles {
            ($($count:literal)*) => {$(
                while rows.length - done >= $count {
                    // SAFETY: inside the segment and the result.
                    let corner = unsafe { Corner {
                        rows: work.rows.start.add(rows.offset + done),
                        lanes,
                        result: work.result.add((rows.place + done) * work.width + place),
                        last,
                    } };
                    // SAFETY: the caller's promise.
                    unsafe { tile::<I, $count, V, PART>(isa, work, corner) };
                    done += $count;
                }
            )*};
        }
        if I::REGISTERS < 32 {
            tiles!(6 4 2 1);
        } else if V == 1 {
            tiles!(16 9 4 2 1);
        } else if V == 2 {
            tiles!(12 8 4 2 1);
        } else if V == 3 {
            tiles!(8 4 2 1);
        } else {
            tiles!(6 4 2 1);
        }
    }
}

/// # Safety
/// As [`outer`].
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const V: usize, const PART: bool>(isa: I, work: &Outer, corner: Corner) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut start = [[isa.zero(); V]; R];
        if work.resume {
            for (r, sums) in start.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load::<I, PART>(isa, corner.result.add(r * work.width + v * I::LANES), corner.last);
                }
            }
        }
        let sums = accumulate::<I, R, V, PART>(isa, work, corner, start);
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = corner.result.add(r * work.width + v * I::LANES);
                if PART {
                    isa.store_part_at(to, corner.last, *sum);
                } else {
                    isa.store_at(to, *sum);
                }
            }
        }
    }
}

/// The products; by value, so that the sums stay in registers.
///
/// # Safety
/// As [`outer`].
#[inline(always)]
unsafe fn accumulate<I: Isa, const R: usize, const V: usize, const PART: bool>(
    isa: I,
    work: &Outer,
    corner: Corner,
    mut sums: [[I::F32; V]; R],
) -> [[I::F32; V]; R] {
    let [images, height, width] = work.pixels;
    let (row_steps, lane_steps) = (work.rows.steps, work.lanes.steps);
    // SAFETY: the caller's promise.
    unsafe {
        for n in 0..images {
            for h in 0..height {
                let mut rows = corner.rows.add(n * row_steps.image + h * row_steps.row);
                let mut lanes = corner.lanes.add(n * lane_steps.image + h * lane_steps.row);
                for _ in 0..width {
                    let mut vectors = [isa.zero(); V];
                    for (v, vector) in vectors.iter_mut().enumerate() {
                        *vector = load::<I, PART>(isa, lanes.add(v * I::LANES), corner.last);
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = isa.splat(*rows.add(r));
                        for (sum, vector) in sums.iter_mut().zip(&vectors) {
                            *sum = isa.fma(x, *vector, *sum);
                        }
                    }
                    rows = rows.wrapping_add(row_steps.pixel);
                    lanes = lanes.wrapping_add(lane_steps.pixel);
                }
            }
        }
    }
    sums
}

/// A vector, or its first `count` lanes.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn load<I: Isa, const PART: bool>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe { if PART { isa.load_part_at(from, count) } else { isa.load_at(from) } }
}
