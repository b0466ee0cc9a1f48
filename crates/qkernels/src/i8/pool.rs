//! Pooling of u8 images, channels-last.

use super::operands::Quantization;
use crate::isa::{self, Isa, Kernel};
use crate::par;
use crate::pool::{PoolParams, Windows};
use qtensor::{DType, Error, Result, Tensor};

/// The largest value of each window, `[N, C, OH, OW]`; the border never counts, and the scale stays.
///
/// # Errors
/// See [`Windows::new`]; a type other than u8.
pub fn max_pool2d(x: &Tensor, params: &PoolParams) -> Result<Tensor> {
    pool("i8::max_pool2d", x, params, Of::Maximum)
}

/// The mean of each window, `round(f32(Σ q) / f32(divisor))`, to nearest and ties to even; places of the border count as `zero_point` where `params` counts them. The scale stays.
///
/// # Errors
/// See [`Windows::new`]; a type other than u8; a window of more than 8 million places.
pub fn avg_pool2d(x: &Tensor, params: &PoolParams, zero_point: u8) -> Result<Tensor> {
    pool("i8::avg_pool2d", x, params, Of::Mean(i32::from(zero_point)))
}

/// Bytes of which the sum fits an i32.
const MOST_BYTES: usize = i32::MAX as usize / 255;

#[derive(Clone, Copy)]
enum Of {
    Maximum,
    /// With what places of the border count as.
    Mean(i32),
}

fn pool(op: &'static str, x: &Tensor, params: &PoolParams, of: Of) -> Result<Tensor> {
    let windows = Windows::new(op, x.shape(), params)?;
    if x.dtype() != DType::U8 {
        return Err(Error::DType { op, expected: DType::U8, found: x.dtype() });
    }
    if params.kernel[0].saturating_mul(params.kernel[1]) > MOST_BYTES {
        return Err(Error::argument(op, format!("a window of {:?}; at most {MOST_BYTES} places", params.kernel)));
    }
    let mut y = Tensor::empty_channels_last(windows.output_shape(), DType::U8)?;
    let x = x.to_channels_last();
    let row = windows.output[1] * windows.channels;
    if y.numel() > 0 {
        let images = x.memory::<u8>()?;
        par::for_each_chunk(y.memory_mut()?, row, |index, out| {
            isa::dispatch(Row { windows: &windows, images, of, index, out });
        });
    }
    Ok(y)
}

/// A row of the output. The loops over channels are plain: the compiler makes vectors of them.
struct Row<'a> {
    windows: &'a Windows,
    images: &'a [u8],
    of: Of,
    /// Its number among the rows of all images.
    index: usize,
    out: &'a mut [u8],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let Row { windows, images, of, index, out } = self;
        let (channels, [height, width]) = (windows.channels, windows.input);
        let (image, row) = (index / windows.output[0], index % windows.output[0]);
        let mut sums = vec![0i32; channels];
        for (column, out) in out.chunks_exact_mut(channels).enumerate() {
            out.fill(0);
            sums.fill(0);
            for h in windows.span(0, row) {
                for w in windows.span(1, column) {
                    let from = &images[((image * height + h) * width + w) * channels..][..channels];
                    match of {
                        Of::Maximum => out.iter_mut().zip(from).for_each(|(out, x)| *out = (*out).max(*x)),
                        Of::Mean(_) => sums.iter_mut().zip(from).for_each(|(sum, x)| *sum += i32::from(*x)),
                    }
                }
            }
            if let Of::Mean(zero_point) = of {
                let divisor = windows.divisor(row, column);
                let border = divisor - windows.span(0, row).len() * windows.span(1, column).len();
                for (out, sum) in out.iter_mut().zip(&sums) {
                    let mean = (sum + border as i32 * zero_point) as f32 / divisor as f32;
                    *out = mean.round_ties_even() as u8;
                }
            }
        }
    }
}

/// The mean of each plane as a real number, `f32(Σ (q - zero_point)) * (scale / f32(pixels))`, `[N, C]`.
///
/// # Errors
/// `x` is not u8 `[N, C, H, W]`, a plane has no or more than 8 million pixels, or the scale is not positive.
pub fn global_avg_pool2d(x: &Tensor, input: Quantization) -> Result<Tensor> {
    let op = "i8::global_avg_pool2d";
    let Ok([images, channels, height, width]) = <[usize; 4]>::try_from(&x.shape()[..]) else {
        return Err(Error::shape(op, format!("images must be [N, C, H, W], found {}", x.shape())));
    };
    if x.dtype() != DType::U8 {
        return Err(Error::DType { op, expected: DType::U8, found: x.dtype() });
    }
    input.check(op, "input")?;
    let pixels = height * width;
    if pixels == 0 || pixels > MOST_BYTES {
        return Err(Error::shape(op, format!("planes of 1 to {MOST_BYTES} pixels, found {}", x.shape())));
    }
    let mut y = Tensor::empty([images, channels], DType::F32)?;
    let x = x.to_channels_last();
    let planes = x.memory::<u8>()?;
    par::for_each_chunk(y.memory_mut()?, channels.max(1), |image, means| {
        isa::dispatch(Means { pixels: &planes[image * pixels * channels..][..pixels * channels], input, means });
    });
    Ok(y)
}

/// The means of one image.
struct Means<'a> {
    pixels: &'a [u8],
    input: Quantization,
    means: &'a mut [f32],
}

impl Kernel for Means<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let channels = self.means.len();
        let mut sums = vec![0i32; channels];
        let count = self.pixels.len() / channels;
        for pixel in self.pixels.chunks_exact(channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += i32::from(*x));
        }
        let zero = count as i32 * i32::from(self.input.zero_point);
        let factor = self.input.scale / count as f32;
        self.means.iter_mut().zip(sums).for_each(|(mean, sum)| *mean = (sum - zero) as f32 * factor);
    }
}
