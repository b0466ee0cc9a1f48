//! Where in an image activations are strong.

use crate::Result;
use qtensor::Tensor;
use serde::Serialize;

/// A part of an image, in shares of its width and height.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Lower edge.
    pub bottom: f64,
}

impl Window {
    /// The middle half of the width and of the height: a quarter of the area. Stands for the object where nobody says where it is.
    pub const CENTRE: Window = Window { left: 0.25, top: 0.25, right: 0.75, bottom: 0.75 };

    /// Share of the image that it covers: the share of the energy of a map without structure.
    pub fn area(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

/// How the energy of a map, the sum of its squares, is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Energy {
    /// Share inside the window; cells that it cuts count by the part inside.
    pub share: f64,
    /// Centre of mass from left (0) to right (1).
    pub x: f64,
    /// Centre of mass from top (0) to bottom (1).
    pub y: f64,
}

/// The spread of `squares`, sums of squares row by row, `width` of them a row; `None` where all are 0 or some are not finite.
pub fn energy(squares: &[f64], width: usize, window: &Window) -> Option<Energy> {
    let width = width.max(1);
    let height = squares.len() / width;
    // The part of cell `i` of `n` that lies between two shares.
    let inside = |i: usize, n: usize, low: f64, high: f64| {
        let n = n as f64;
        let (from, to) = (low * n, high * n);
        (to.min(i as f64 + 1.0) - from.max(i as f64)).clamp(0.0, 1.0)
    };
    let (mut total, mut part, mut x, mut y) = (0.0, 0.0, 0.0, 0.0);
    for (row, line) in squares.chunks_exact(width).enumerate() {
        let in_row = inside(row, height, window.top, window.bottom);
        for (column, square) in line.iter().enumerate() {
            total += square;
            part += square * in_row * inside(column, width, window.left, window.right);
            x += square * (column as f64 + 0.5);
            y += square * (row as f64 + 0.5);
        }
    }
    let is_sound = total > 0.0 && total.is_finite();
    is_sound.then(|| Energy { share: part / total, x: x / total / width as f64, y: y / total / height as f64 })
}

/// The squares of each image of `[N, C, H, W]`, summed over the channels, row by row.
pub(super) fn squares(images: &Tensor) -> Result<Vec<Vec<f64>>> {
    let &[count, channels, height, width] = images.shape().dims() else { return Ok(Vec::new()) };
    let (plane, values) = (height * width, images.to_vec::<f32>()?);
    let mut all = vec![vec![0.0; plane]; count];
    for (place, values) in values.chunks_exact(plane.max(1)).enumerate() {
        let sums = &mut all[place / channels.max(1)];
        sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_without_structure_has_the_share_of_the_area() {
        for (height, width) in [(4, 4), (5, 7), (1, 1), (3, 2)] {
            let flat = energy(&vec![2.0; height * width], width, &Window::CENTRE).unwrap();
            assert!((flat.share - 0.25).abs() < 1e-12, "{height} x {width}: {flat:?}");
            assert!((flat.x - 0.5).abs() < 1e-12 && (flat.y - 0.5).abs() < 1e-12);
        }
    }

    #[test]
    fn a_single_spot_is_found() {
        // Row 1, column 2 of 4 x 4: its centre is at (2.5, 1.5) / 4, inside the middle.
        let mut squares = vec![0.0; 16];
        squares[6] = 9.0;
        assert_eq!(energy(&squares, 4, &Window::CENTRE), Some(Energy { share: 1.0, x: 0.625, y: 0.375 }));
        // A second one of a third of its energy in the corner.
        squares[0] = 3.0;
        let both = energy(&squares, 4, &Window::CENTRE).unwrap();
        assert!((both.share - 0.75).abs() < 1e-12);
        assert!((both.x - (0.75 * 0.625 + 0.25 * 0.125)).abs() < 1e-12, "{both:?}");
        let left = Window { left: 0.0, top: 0.0, right: 0.5, bottom: 1.0 };
        assert!((energy(&squares, 4, &left).unwrap().share - 0.25).abs() < 1e-12);
    }

    #[test]
    fn nothing_has_no_centre() {
        assert_eq!(energy(&[0.0; 4], 2, &Window::CENTRE), None);
        assert_eq!(energy(&[], 3, &Window::CENTRE), None);
        assert_eq!(energy(&[f64::INFINITY, 1.0], 2, &Window::CENTRE), None);
    }
}
