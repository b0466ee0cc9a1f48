//! PNG and JPEG files, within limits.

use super::dataset::ImageShape;
use super::error::{DataError, Result};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// Larger files are refused.
pub const MOST_FILE_BYTES: u64 = 64 << 20;
/// Images of more pixels are refused before they are decoded.
pub const MOST_PIXELS: u64 = 50_000_000;
/// A decoder that wants more memory than this is stopped.
pub const MOST_DECODER_BYTES: u64 = 256 << 20;

/// What an image of any size becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Channels and size.
    pub shape: ImageShape,
    /// Resize the shorter side to so many pixels and cut the middle out, which keeps proportions, rather than resize the whole image to the shape.
    pub shorter_side: Option<usize>,
}

impl From<ImageShape> for Framing {
    fn from(shape: ImageShape) -> Self {
        Framing { shape, shorter_side: None }
    }
}

/// Reads the PNG or JPEG file at `path` as planes (channels, height, width), framed: colours become grey for one channel, and transparency is dropped.
///
/// # Errors
/// The file cannot be read, is neither PNG nor JPEG, is damaged or exceeds a limit of this module.
pub fn read_image(path: &Path, framing: impl Into<Framing>) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut bytes = Vec::new();
    file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(DataError::io(path, "read"))?;
    if bytes.len() as u64 > MOST_FILE_BYTES {
        return Err(DataError::unfit(path, format!("larger than {} MiB", MOST_FILE_BYTES >> 20)));
    }
    decode_image(path, &bytes, framing)
}

/// As [`read_image`], for `bytes` as if they were the file `path`.
///
/// # Errors
/// As [`read_image`].
pub fn decode_image(path: &Path, bytes: &[u8], framing: impl Into<Framing>) -> Result<Vec<u8>> {
    let Framing { shape, shorter_side } = framing.into();
    let image = decode(path, bytes)?;
    let (size, samples) = match shape.channels {
        1 => (PixelType::U8, image.into_luma8().into_raw_with_size()),
        3 => (PixelType::U8x3, image.into_rgb8().into_raw_with_size()),
        n => return Err(DataError::Argument(format!("images have 1 or 3 channels, not {n}"))),
    };
    let (width, height, samples) = samples;
    let from = InterleavedImage { width, height, pixel: size, samples: &samples };
    let resized = match shorter_side {
        Some(side) => from.middle(side, [shape.width, shape.height]),
        None => from.resize(shape.width, shape.height),
    };
    let resized = resized.map_err(|message| DataError::unfit(path, message))?;
    Ok(planes(&resized, shape.channels))
}

fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage> {
    let damaged = |error: image::ImageError| DataError::unfit(path, format!("not a sound PNG or JPEG image: {error}"));
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_DECODER_BYTES);
    let mut reader = ImageReader::new(Cursor::new(bytes));
    reader.limits(limits);
    let reader = reader.with_guessed_format().map_err(DataError::io(path, "read"))?;
    // Decoders fill in what is missing at the end; an image that is half grey is no image to learn from.
    if reader.format().is_some_and(|format| is_cut(bytes, format)) {
        return Err(DataError::damaged(path, bytes.len() as u64, "the image is cut: its end marker is missing"));
    }
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MOST_PIXELS {
        return Err(DataError::unfit(path, format!("{width}x{height} pixels; 1 to {MOST_PIXELS} are accepted")));
    }
    if decoder.total_bytes() > MOST_DECODER_BYTES {
        let message = format!("decoding takes more than {} MiB", MOST_DECODER_BYTES >> 20);
        return Err(DataError::unfit(path, message));
    }
    DynamicImage::from_decoder(decoder).map_err(damaged)
}

/// Whether the marker that ends an image is missing.
fn is_cut(bytes: &[u8], format: ImageFormat) -> bool {
    let last = |marker: &[u8]| bytes.windows(marker.len()).rposition(|window| window == marker);
    match format {
        // The end of the image must follow the start of the last scan: a thumbnail in the header has an end of its own.
        ImageFormat::Jpeg => last(&[0xff, 0xd9]).is_none_or(|end| last(&[0xff, 0xda]).is_none_or(|scan| end < scan)),
        ImageFormat::Png => last(b"\0\0\0\0IEND\xae\x42\x60\x82").is_none(),
        _ => false,
    }
}

trait IntoRawWithSize {
    fn into_raw_with_size(self) -> (usize, usize, Vec<u8>);
}

impl<P: image::Pixel<Subpixel = u8>> IntoRawWithSize for image::ImageBuffer<P, Vec<u8>> {
    fn into_raw_with_size(self) -> (usize, usize, Vec<u8>) {
        (self.width() as usize, self.height() as usize, self.into_raw())
    }
}

struct InterleavedImage<'a> {
    width: usize,
    height: usize,
    pixel: PixelType,
    samples: &'a [u8],
}

impl InterleavedImage<'_> {
    /// Bilinear with antialiasing: the filter widens with the reduction, as Pillow's does.
    fn resize(&self, width: usize, height: usize) -> Result<Vec<u8>, String> {
        if (self.width, self.height) == (width, height) {
            return Ok(self.samples.to_vec());
        }
        let from = ImageRef::new(self.width as u32, self.height as u32, self.samples, self.pixel)
            .map_err(|error| format!("cannot be resized: {error}"))?;
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels > MOST_PIXELS {
            return Err(format!("{width}x{height} pixels after resizing; at most {MOST_PIXELS} are accepted"));
        }
        let mut to = Image::new(width as u32, height as u32, self.pixel);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        Resizer::new().resize(&from, &mut to, &options).map_err(|error| format!("cannot be resized: {error}"))?;
        Ok(to.into_vec())
    }

    /// The middle of that width and height, once the shorter side has so many pixels and the longer one as many, rounded down, as proportions ask for.
    fn middle(&self, side: usize, [width, height]: [usize; 2]) -> Result<Vec<u8>, String> {
        let shorter = self.width.min(self.height).max(1);
        let [wide, high] = [self.width, self.height].map(|length| (length.saturating_mul(side) / shorter).max(1));
        if wide < width || high < height {
            return Err(format!("{wide}x{high} pixels after resizing hold no {width}x{height}"));
        }
        let resized = self.resize(wide, high)?;
        let depth = resized.len() / (wide * high);
        // Half a pixel goes to the even side, as in torchvision.
        let [left, top] = [wide - width, high - height].map(|rest| (rest as f64 / 2.0).round_ties_even() as usize);
        let row = |y: usize| &resized[((top + y) * wide + left) * depth..][..width * depth];
        Ok((0..height).flat_map(row).copied().collect())
    }
}

/// Resizes planes (channels, height, width) one by one, with the filter of [`read_image`].
///
/// # Errors
/// `from` and `to` differ in channels, or `samples` is not an image of shape `from`.
pub fn resize_planes(samples: &[u8], from: ImageShape, to: ImageShape) -> Result<Vec<u8>> {
    if from.channels != to.channels || samples.len() != from.pixels() {
        return Err(DataError::Argument(format!("cannot resize {} bytes of shape {from:?} to {to:?}", samples.len())));
    }
    let mut resized = Vec::with_capacity(to.pixels());
    for plane in samples.chunks_exact(from.plane()) {
        let plane = InterleavedImage { width: from.width, height: from.height, pixel: PixelType::U8, samples: plane };
        resized.extend(plane.resize(to.width, to.height).map_err(DataError::Argument)?);
    }
    Ok(resized)
}

/// Interleaved samples (height, width, channels) as planes (channels, height, width).
fn planes(samples: &[u8], channels: usize) -> Vec<u8> {
    (0..channels).flat_map(|channel| samples.iter().skip(channel).step_by(channels).copied()).collect()
}
