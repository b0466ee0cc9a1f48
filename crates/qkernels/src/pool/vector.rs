//! Pooling of f32 images that are channels-last in memory: all loops run over the channels of one place.
//!
//! The inner loops are plain arithmetic on slices inside a kernel, where the compiler may use all its instructions.

use super::Windows;
use crate::isa::{Isa, Kernel, Stored, dispatch};
use crate::par;

/// Output values that one thread takes at a time.
const PIECE: usize = 16 * 1024;

/// The place of a maximum in its window.
pub(super) trait Place: Copy + PartialEq + Send + Sync {
    /// As long as it fits.
    fn of(place: usize) -> Self;
}

impl Place for u8 {
    #[inline(always)]
    fn of(place: usize) -> Self {
        place as u8
    }
}

impl Place for i32 {
    #[inline(always)]
    fn of(place: usize) -> Self {
        place as i32
    }
}

/// Maxima and their places.
pub(super) fn max_pool<T: Stored, P: Place>(x: &[T], w: &Windows, y: &mut [T], places: &mut [P]) {
    let row = w.output[1] * w.channels;
    if row == 0 {
        return;
    }
    let mut rows: Vec<(&mut [T], &mut [P])> = y.chunks_mut(row).zip(places.chunks_mut(row)).collect();
    let together = (PIECE / row).max(1);
    par::for_each_chunk(&mut rows, together, |i, part| {
        for (j, (y, places)) in part.iter_mut().enumerate() {
            let (image, index) = image_and_row(w, i * together + j);
            dispatch(MaxRow { x: image_of(x, w, image), w, row: index, y, places });
        }
    });
}

fn image_and_row(w: &Windows, row: usize) -> (usize, usize) {
    (row / w.output[0], row % w.output[0])
}

fn image_of<'a, T>(x: &'a [T], w: &Windows, image: usize) -> &'a [T] {
    let size = w.input[0] * w.input[1] * w.channels;
    &x[image * size..(image + 1) * size]
}

struct MaxRow<'a, T, P> {
    x: &'a [T],
    w: &'a Windows,
    row: usize,
    y: &'a mut [T],
    places: &'a mut [P],
}

impl<T: Stored, P: Place> Kernel for MaxRow<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (w, channels) = (self.w, self.w.channels);
        let rows = w.span(0, self.row);
        let outputs = self.y.chunks_exact_mut(channels).zip(self.places.chunks_exact_mut(channels));
        for (column, (y, places)) in outputs.enumerate() {
            let columns = w.span(1, column);
            y.fill(T::nearest(f32::NEG_INFINITY));
            places.fill(P::of(w.place([self.row, column], [rows.start, columns.start])));
            for r in rows.clone() {
                for c in columns.clone() {
                    let place = P::of(w.place([self.row, column], [r, c]));
                    let x = &self.x[(r * w.input[1] + c) * channels..][..channels];
                    for ((y, at), x) in y.iter_mut().zip(places.iter_mut()).zip(x) {
                        let take = x.wide() > y.wide() || x.wide().is_nan();
                        *y = if take { *x } else { *y };
                        *at = if take { place } else { *at };
                    }
                }
            }
        }
    }
}

/// Each output's gradient at the place of its maximum.
pub(super) fn max_pool_grad<T: Stored, P: Place>(dy: &[T], places: &[P], w: &Windows, dx: &mut [T]) {
    let size = w.input[0] * w.input[1] * w.channels;
    let outputs = w.output[0] * w.output[1] * w.channels;
    if size == 0 {
        return;
    }
    par::for_each_chunk(dx, size, |image, dx| {
        let range = image * outputs..(image + 1) * outputs;
        dispatch(MaxGradImage { dy: &dy[range.clone()], places: &places[range], w, dx });
    });
}

struct MaxGradImage<'a, T, P> {
    dy: &'a [T],
    places: &'a [P],
    w: &'a Windows,
    dx: &'a mut [T],
}

impl<T: Stored, P: Place> Kernel for MaxGradImage<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (w, channels) = (self.w, self.w.channels);
        self.dx.fill(T::default());
        let outputs = self.dy.chunks_exact(channels).zip(self.places.chunks_exact(channels));
        for (i, (dy, places)) in outputs.enumerate() {
            let (row, column) = (i / w.output[1], i % w.output[1]);
            for r in w.span(0, row) {
                for c in w.span(1, column) {
                    let place = P::of(w.place([row, column], [r, c]));
                    let dx = &mut self.dx[(r * w.input[1] + c) * channels..][..channels];
                    // Every place of the window is looked at, so that neighbours go through vectors together.
                    for ((dx, dy), at) in dx.iter_mut().zip(dy).zip(places) {
                        let share = if *at == place { dy.wide() } else { 0.0 };
                        *dx = T::nearest(dx.wide() + share);
                    }
                }
            }
        }
    }
}

/// Means of the windows.
pub(super) fn avg_pool(x: &[f32], w: &Windows, y: &mut [f32]) {
    let row = w.output[1] * w.channels;
    if row == 0 {
        return;
    }
    let together = (PIECE / row).max(1);
    par::for_each_chunk(y, together * row, |i, part| {
        for (j, y) in part.chunks_exact_mut(row).enumerate() {
            let (image, index) = image_and_row(w, i * together + j);
            dispatch(MeanRow { x: image_of(x, w, image), w, row: index, y });
        }
    });
}

struct MeanRow<'a> {
    x: &'a [f32],
    w: &'a Windows,
    row: usize,
    y: &'a mut [f32],
}

impl Kernel for MeanRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (w, channels) = (self.w, self.w.channels);
        for (column, y) in self.y.chunks_exact_mut(channels).enumerate() {
            y.fill(0.0);
            for r in w.span(0, self.row) {
                for c in w.span(1, column) {
                    let place = r * w.input[1] + c;
                    let x = &self.x[place * channels..(place + 1) * channels];
                    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
                }
            }
            let share = 1.0 / w.divisor(self.row, column) as f32;
            y.iter_mut().for_each(|y| *y *= share);
        }
    }
}

/// Each output's gradient shared by its window.
pub(super) fn avg_pool_grad(dy: &[f32], w: &Windows, dx: &mut [f32]) {
    let size = w.input[0] * w.input[1] * w.channels;
    let outputs = w.output[0] * w.output[1] * w.channels;
    if size == 0 {
        return;
    }
    par::for_each_chunk(dx, size, |image, dx| {
        dispatch(ShareImage { dy: &dy[image * outputs..(image + 1) * outputs], w, dx });
    });
}

struct ShareImage<'a> {
    dy: &'a [f32],
    w: &'a Windows,
    dx: &'a mut [f32],
}

impl Kernel for ShareImage<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (w, channels) = (self.w, self.w.channels);
        self.dx.fill(0.0);
        for (i, dy) in self.dy.chunks_exact(channels).enumerate() {
            let (row, column) = (i / w.output[1], i % w.output[1]);
            let share = 1.0 / w.divisor(row, column) as f32;
            for r in w.span(0, row) {
                for c in w.span(1, column) {
                    let place = r * w.input[1] + c;
                    let dx = &mut self.dx[place * channels..(place + 1) * channels];
                    dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy * share);
                }
            }
        }
    }
}

/// Places whose running sum is taken at once: rounding grows with these and not with the image.
const BLOCK: usize = 64;

/// The mean over all places of each image.
pub(super) fn mean_of_places(x: &[f32], channels: usize, places: usize, y: &mut [f32]) {
    if channels * places == 0 {
        return y.fill(f32::NAN);
    }
    let together = (PIECE / (channels * places)).max(1);
    par::for_each_chunk(y, together * channels, |i, y| {
        let first = i * together * channels * places;
        dispatch(MeanImages { x: &x[first..first + y.len() * places], channels, places, y });
    });
}

struct MeanImages<'a> {
    x: &'a [f32],
    channels: usize,
    places: usize,
    y: &'a mut [f32],
}

impl Kernel for MeanImages<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let channels = self.channels;
        let share = 1.0 / self.places as f32;
        let mut sums = vec![0.0f32; channels];
        let images = self.x.chunks_exact(self.places * channels);
        for (x, y) in images.zip(self.y.chunks_exact_mut(channels)) {
            y.fill(0.0);
            for block in x.chunks(BLOCK * channels) {
                sums.fill(0.0);
                for row in block.chunks_exact(channels) {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                y.iter_mut().zip(&sums).for_each(|(y, sum)| *y += sum);
            }
            y.iter_mut().for_each(|y| *y *= share);
        }
    }
}

/// `dy · share` at every place of each image.
pub(super) fn spread(dy: &[f32], channels: usize, places: usize, share: f32, dx: &mut [f32]) {
    if channels * places == 0 {
        return;
    }
    par::for_each_chunk(dx, channels * places, |image, dx| {
        let dy = &dy[image * channels..(image + 1) * channels];
        for dx in dx.chunks_exact_mut(channels) {
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy * share);
        }
    });
}
