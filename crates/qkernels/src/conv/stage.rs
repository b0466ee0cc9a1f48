//! A band of the source, copied once into a small dense buffer with its padding in place.
//!
//! The copy costs a few percent of the products that it feeds. In exchange the kernels know no borders, read from the nearest cache with short strides, and
//! take inputs of any strides.

use super::plan::Axis;
use crate::isa::Isa;
use qtensor::{DType, Element, Result, Tensor};

/// A rank-4 tensor as the kernels read it: elements to the next image, channel, row, pixel.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, T = f32> {
    buffer: &'a [T],
    offset: usize,
    pub(super) strides: [usize; 4],
}

impl<'a, T: Element> Images<'a, T> {
    /// A view of `x`, which has four axes and elements.
    pub(super) fn new(x: &'a Tensor) -> Result<Self> {
        let mut strides = [0; 4];
        strides.copy_from_slice(x.strides());
        Ok(Images { buffer: x.buffer_slice()?, offset: x.layout().offset(), strides })
    }

    /// Address of the first element.
    pub(super) fn start(&self) -> *const T {
        self.buffer[self.offset..].as_ptr()
    }
}

/// Where a kernel finds the pixels of a band: the steps between images, rows and pixels, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) pixel: usize,
}

/// A part of the source: images, staged rows, and channels.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) images: std::ops::Range<usize>,
    /// The source row of the first staged row; negative in the padding.
    pub(super) first_row: isize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: std::ops::Range<usize>,
}

impl Band {
    /// The steps of the staged copy, and its size.
    pub(super) fn layout(&self) -> (Steps, usize) {
        let pixel = self.channels.len();
        let row = pixel * self.columns;
        let image = row * self.rows;
        (Steps { image, row, pixel }, image * self.images.len())
    }
}

/// Reused memory for bands: it comes from the buffer pool, so that a steady state touches no fresh page.
pub(super) struct Scratch(Option<Tensor>);

impl Scratch {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Scratch(None)
    }

    /// At least `size` values of unspecified content.
    pub(super) fn take(&mut self, size: usize) -> &mut [f32] {
        if self.0.as_ref().is_none_or(|t| t.numel() < size) {
            self.0 = Tensor::empty([size], DType::F32).ok();
        }
        let memory = self.0.as_mut().and_then(|t| t.memory_mut::<f32>().ok());
        memory.expect("the choice of algorithm bounds the size of a band")
    }
}

/// Copies `band` of `x` to `to`, zeros where it leaves the image.
///
/// # Panics
/// `to` is smaller than the band's layout, or images or channels of the band leave the tensor.
#[inline(always)]
pub(super) fn stage<I: Isa>(isa: I, x: Images, band: &Band, [rows, columns]: [&Axis; 2], to: &mut [f32]) {
    let (steps, size) = band.layout();
    let left = columns.origin.min(0).unsigned_abs().min(band.columns);
    let first = columns.origin.max(0) as usize;
    let present = columns.source.saturating_sub(first).min(band.columns - left);
    let [n_step, c_step, h_step, w_step] = x.strides;
    for (n, image) in band.images.clone().zip(to[..size].chunks_exact_mut(steps.image.max(1))) {
        for (r, row) in image.chunks_exact_mut(steps.row.max(1)).enumerate() {
            let h = band.first_row + r as isize;
            if h < 0 || h as usize >= rows.source || present == 0 {
                row.fill(0.0);
                continue;
            }
            row[..left * steps.pixel].fill(0.0);
            row[(left + present) * steps.pixel..].fill(0.0);
            let row = &mut row[left * steps.pixel..(left + present) * steps.pixel];
            let from = &x.buffer
                [x.offset + n * n_step + h as usize * h_step + first * w_step + band.channels.start * c_step..];
            copy_row(isa, from, [w_step, c_step], row, steps.pixel);
        }
    }
}

/// Copies pixels of `channels` values each to consecutive places.
#[inline(always)]
fn copy_row<I: Isa>(isa: I, from: &[f32], [w_step, c_step]: [usize; 2], to: &mut [f32], channels: usize) {
    if c_step == 1 && w_step == channels {
        to.copy_from_slice(&from[..to.len()]);
    } else if c_step == 1 {
        for (w, pixel) in to.chunks_exact_mut(channels).enumerate() {
            let from = &from[w * w_step..w * w_step + channels];
            let mut parts = pixel.chunks_exact_mut(I::LANES);
            let mut c = 0;
            for part in parts.by_ref() {
                isa.store(part, isa.load(&from[c..]));
                c += I::LANES;
            }
            let rest = parts.into_remainder();
            isa.store_part(rest, isa.load_part(&from[c..]));
        }
    } else {
        // A transposition: blocks of channels keep the written lines in cache.
        const BLOCK: usize = 16;
        for start in (0..channels).step_by(BLOCK) {
            for (w, pixel) in to.chunks_exact_mut(channels).enumerate() {
                let end = (start + BLOCK).min(channels);
                for (c, value) in pixel[start..end].iter_mut().enumerate() {
                    *value = from[w * w_step + (start + c) * c_step];
                }
            }
        }
    }
}
