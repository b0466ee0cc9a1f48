//! Filters at the points.

use super::transform::{LIMIT, PATCH, POINTS, filter};
use crate::conv::Conv2dParams;
use crate::par;
use qtensor::{DType, Result, Tensor};
use std::sync::OnceLock;

/// Filters that fit the algorithm, which are transformed when they are first used so.
pub(in crate::i8) struct Points {
    /// i8 `[O, C, 3, 3]`, row-major.
    filters: Tensor,
    packed: OnceLock<Tensor>,
}

impl Points {
    /// `w` is row-major `[O, C/groups, KH, KW]`. `None` where the algorithm does not apply, or where 25 bits might not hold a sum of products.
    pub(in crate::i8) fn of(w: &Tensor, params: &Conv2dParams) -> Option<Points> {
        let is_possible = w.rank() == 4
            && w.shape()[2..] == [3, 3]
            && params.stride == [1; 2]
            && params.dilation == [1; 2]
            && params.groups == 1
            && params.winograd;
        let depth = w.numel() / w.shape()[0].max(1);
        let values = w.as_slice::<i8>().ok().filter(|_| is_possible && depth > 0)?;
        let fits = values.chunks_exact(depth).all(|filter| {
            let sum = |negative: bool| {
                let part = filter.iter().filter(|w| (**w < 0) == negative);
                part.map(|w| i64::from(w.unsigned_abs())).sum::<i64>()
            };
            255 * sum(true).max(sum(false)) < LIMIT
        });
        fits.then(|| Points { filters: w.clone(), packed: OnceLock::new() })
    }

    pub(super) fn channels(&self) -> usize {
        self.filters.shape()[1]
    }

    /// For each panel (first lane and vectors), point by point, for each pair of channels a word for each lane.
    ///
    /// # Errors
    /// The size overflows.
    pub(super) fn packed(&self, panels: &[(usize, usize)], vector: usize) -> Result<&Tensor> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let pairs = self.channels() / 2;
        let vectors: usize = panels.iter().map(|(_, vectors)| vectors).sum();
        let mut packed = Tensor::zeros([vectors, POINTS, pairs, vector], DType::I32)?;
        let values = self.filters.as_slice::<i8>()?;
        let mut rest = packed.memory_mut::<i32>()?;
        let mut parts = Vec::new();
        for &(first, vectors) in panels {
            let (panel, after) = rest.split_at_mut(vectors * POINTS * pairs * vector);
            rest = after;
            parts.push((first, vectors * vector, panel));
        }
        let filters = self.filters.shape()[0];
        par::for_each_chunk(&mut parts, 1, |_, part| {
            for (first, width, panel) in part {
                for lane in 0..(*width).min(filters - *first) {
                    let filter = &values[(*first + lane) * pairs * 18..][..pairs * 18];
                    for (pair, taps) in filter.chunks_exact(18).enumerate() {
                        let (low, high) = (at_points(&taps[..9]), at_points(&taps[9..]));
                        for point in 0..POINTS {
                            let word = u32::from(low[point] as u16) | u32::from(high[point] as u16) << 16;
                            panel[(point * pairs + pair) * *width + lane] = word as i32;
                        }
                    }
                }
            }
        });
        Ok(self.packed.get_or_init(|| packed))
    }
}

/// Nine taps, row by row, at all points; none is larger than 6272.
fn at_points(taps: &[i8]) -> [i16; POINTS] {
    let tap = |row: usize, column: usize| i16::from(taps[3 * row + column]);
    let columns = [0, 1, 2].map(|column| filter([tap(0, column), tap(1, column), tap(2, column)]));
    let mut points = [0; POINTS];
    for row in 0..PATCH {
        let line = filter([columns[0][row], columns[1][row], columns[2][row]]);
        points[row * PATCH..(row + 1) * PATCH].copy_from_slice(&line);
    }
    points
}
