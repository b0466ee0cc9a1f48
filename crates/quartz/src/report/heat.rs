//! Activation maps as pictures.

use image::{Rgb, RgbImage};
use qzoo::analysis::Map;

type Colour = [f32; 3];

/// From nothing to the most, where no value is negative.
const RISING: [Colour; 5] =
    [[13.0, 13.0, 38.0], [30.0, 60.0, 140.0], [0.0, 140.0, 160.0], [110.0, 200.0, 90.0], [250.0, 232.0, 80.0]];
/// From the most negative over 0 to the most positive.
const DIVERGING: [Colour; 5] =
    [[0.0, 60.0, 130.0], [86.0, 180.0, 233.0], [245.0, 245.0, 245.0], [230.0, 159.0, 60.0], [150.0, 50.0, 0.0]];
/// Side to which small images are magnified before a map is laid over them.
const OVERLAY_SIDE: u32 = 128;

/// The colours of a map: from 0 to its maximum, or symmetric about 0 where it has negative values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    least: f32,
    most: f32,
}

impl Scale {
    pub(super) fn of(map: &Map) -> Self {
        let finite = map.values.iter().copied().filter(|x| x.is_finite());
        let (least, most) = finite.fold((0.0f32, 0.0f32), |(a, b), x| (a.min(x), b.max(x)));
        let reach = most.max(-least).max(f32::MIN_POSITIVE);
        if least < 0.0 { Scale { least: -reach, most: reach } } else { Scale { least: 0.0, most: reach } }
    }

    /// The ends, in words.
    pub(super) fn ends(&self) -> [f32; 2] {
        [self.least, self.most]
    }

    fn colour(&self, value: f32) -> Colour {
        if !value.is_finite() {
            return [255.0, 0.0, 255.0];
        }
        let stops = if self.least < 0.0 { &DIVERGING } else { &RISING };
        let place = ((value - self.least) / (self.most - self.least)).clamp(0.0, 1.0) * (stops.len() - 1) as f32;
        let first = (place as usize).min(stops.len() - 2);
        mix(stops[first], stops[first + 1], place - first as f32)
    }

    /// How far from 0, as a share of the largest.
    fn strength(&self, value: f32) -> f32 {
        if value.is_finite() { (value.abs() / self.most).min(1.0) } else { 1.0 }
    }
}

fn mix(a: Colour, b: Colour, share: f32) -> Colour {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * share)
}

fn pixel(colour: Colour) -> Rgb<u8> {
    Rgb(colour.map(|x| x.round().clamp(0.0, 255.0) as u8))
}

/// One pixel a value.
pub(super) fn picture(map: &Map) -> RgbImage {
    let (scale, [height, width]) = (Scale::of(map), map.size);
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        pixel(scale.colour(map.values[y as usize * width + x as usize]))
    })
}

/// The map, smoothed, over a grey copy of the image: the stronger, the more it covers.
pub(super) fn overlay(map: &Map, image: &RgbImage) -> RgbImage {
    let scale = Scale::of(map);
    let times = (OVERLAY_SIDE / image.width().max(image.height()).max(1)).max(1);
    let (width, height) = (image.width() * times, image.height() * times);
    RgbImage::from_fn(width, height, |x, y| {
        let Rgb([r, g, b]) = image.get_pixel(x / times, y / times);
        let grey = 0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b);
        let share = |i: u32, n: u32| (i as f32 + 0.5) / n as f32;
        let value = between(map, share(x, width), share(y, height));
        pixel(mix([grey; 3], scale.colour(value), 0.15 + 0.65 * scale.strength(value)))
    })
}

/// The value at a place given in shares of width and height, linear between the centres of cells.
fn between(map: &Map, x: f32, y: f32) -> f32 {
    let [height, width] = map.size;
    let along = |share: f32, n: usize| {
        let place = (share * n as f32 - 0.5).clamp(0.0, n.saturating_sub(1) as f32);
        let first = place as usize;
        (first, (first + 1).min(n.saturating_sub(1)), place - first as f32)
    };
    let ((x0, x1, dx), (y0, y1, dy)) = (along(x, width), along(y, height));
    let at = |row: usize, column: usize| map.values.get(row * width + column).copied().unwrap_or(0.0);
    let row = |row: usize| at(row, x0) * (1.0 - dx) + at(row, x1) * dx;
    row(y0) * (1.0 - dy) + row(y1) * dy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32]) -> Map {
        Map { place: "output", channel: None, size: [1, values.len()], values: values.to_vec(), energy: None }
    }

    #[test]
    fn colours_tell_signs_and_sizes() {
        let diverging = picture(&map(&[-2.0, 0.0, 1.0]));
        assert_eq!(diverging.get_pixel(0, 0), &pixel(DIVERGING[0]));
        assert_eq!(diverging.get_pixel(1, 0), &pixel(DIVERGING[2]));
        assert_eq!(diverging.get_pixel(2, 0), &pixel(DIVERGING[3]));
        let rising = picture(&map(&[0.0, 4.0, f32::NAN]));
        assert_eq!((rising.get_pixel(0, 0), rising.get_pixel(1, 0)), (&pixel(RISING[0]), &pixel(RISING[4])));
        assert_eq!(rising.get_pixel(2, 0), &Rgb([255, 0, 255]));
    }

    #[test]
    fn an_overlay_has_the_map_where_it_is_strong() {
        let image = RgbImage::from_pixel(32, 32, Rgb([100, 100, 100]));
        let over = overlay(&map(&[0.0, 0.0, 0.0, 1.0]), &image);
        assert_eq!(over.dimensions(), (128, 128));
        let [left, right] = [0, 127].map(|x| over.get_pixel(x, 64).0);
        assert!(right[0] > left[0] + 60 && right[2] < right[0], "{left:?} {right:?}");
    }

    #[test]
    fn values_between_cells_are_between_theirs() {
        let map = map(&[0.0, 2.0]);
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.0].map(|x| between(&map, x, 0.5)), [0.0, 0.0, 1.0, 2.0, 2.0]);
    }
}
