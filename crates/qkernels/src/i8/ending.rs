//! What happens to the sums of a product before they are stored: the arithmetic that the module's documentation defines.

use super::operands::{Operands, Output, Quantization};
use super::round::{ToBytes, load};
use crate::isa::Isa;
use crate::par::SharedOut;
use qtensor::{DType, Result, Tensor};

/// Tables of one value for each lane of the packed filters, and where results go.
pub(super) struct Ending<'a> {
    /// What is added to the sum of products: the integer bias less the zero point times the sum of the weights.
    offsets: Vec<i32>,
    multipliers: Vec<f32>,
    biases: Vec<f32>,
    residual: Option<Residual<'a>>,
    relu: bool,
    to: To,
    /// Channels of a pixel of the output.
    channels: usize,
    /// For each vector of the tables its first channel, and how many of its lanes are channels.
    vectors: Vec<[usize; 2]>,
}

struct Residual<'a> {
    values: &'a [u8],
    zero_point: f32,
    factor: f32,
}

#[derive(Clone, Copy)]
enum To {
    Bytes { memory: SharedOut<u8>, bytes: ToBytes },
    Floats { memory: SharedOut<f32> },
}

impl<'a> Ending<'a> {
    /// The tables of `operands`, which were checked, for an output with channels-last memory. `residual` is that of the operands, channels-last.
    ///
    /// # Errors
    /// An element type that does not fit.
    pub(super) fn new(operands: &Operands, residual: Option<&'a Tensor>, out: &mut Tensor) -> Result<Self> {
        let weights = operands.weights;
        let scales = weights.scales();
        let target = match operands.output {
            Output::U8(quantization) => quantization.scale,
            Output::F32 => 1.0,
        };
        let factor = |scale: f32| match operands.output {
            Output::U8(_) => operands.input.scale * scale / target,
            Output::F32 => operands.input.scale * scale,
        };
        let bias = operands.bias.map(Tensor::contiguous);
        let integers = bias.as_ref().filter(|b| b.dtype() == DType::I32).map(|b| b.as_slice::<i32>()).transpose()?;
        let reals = bias.as_ref().filter(|b| b.dtype() == DType::F32).map(|b| b.as_slice::<f32>()).transpose()?;
        let real = |value: f32| match operands.output {
            Output::U8(_) => value / target,
            Output::F32 => value,
        };
        let zero = i32::from(operands.input.zero_point);
        let filters = scales.len();
        let offset = |o: usize| {
            let correction = zero.wrapping_mul(weights.sums()[o]);
            integers.map_or(0, |bias| bias[o]).wrapping_sub(correction)
        };
        let residual = match (residual, operands.residual) {
            (Some(values), Some((_, Quantization { scale, zero_point }))) => Some(Residual {
                values: values.memory::<u8>()?,
                zero_point: f32::from(zero_point),
                factor: real(scale),
            }),
            _ => None,
        };
        let to = match operands.output {
            Output::U8(q) => {
                To::Bytes { memory: SharedOut::new(out.memory_mut::<u8>()?), bytes: ToBytes::new(q, operands.relu) }
            }
            Output::F32 => To::Floats { memory: SharedOut::new(out.memory_mut::<f32>()?) },
        };
        Ok(Ending {
            offsets: weights.spread((0..filters).map(offset)),
            multipliers: weights.spread(scales.iter().map(|scale| factor(*scale))),
            biases: weights.spread((0..filters).map(|o| reals.map_or(0.0, |bias| real(bias[o])))),
            residual,
            relu: operands.relu,
            to,
            channels: filters,
            vectors: weights.vectors(),
        })
    }

    /// Finishes and stores sums of consecutive lanes from `lane` on, of one pixel a row.
    ///
    /// # Safety
    /// Each pixel must lie in the output, where no other thread uses these lanes; `lane` must lie in the tables, at the start of a vector.
    #[inline(always)]
    pub(super) unsafe fn apply<I: Isa, const V: usize>(
        &self,
        isa: I,
        sums: &[[I::I32; V]],
        pixels: &[usize],
        lane: usize,
    ) {
        for v in 0..V {
            let lane = lane + v * I::LANES;
            // SAFETY: the tables have whole vectors.
            let (offset, multiplier, bias) = unsafe {
                (
                    isa.load_i32_at(self.offsets.as_ptr().add(lane)),
                    isa.load_at(self.multipliers.as_ptr().add(lane)),
                    isa.load_at(self.biases.as_ptr().add(lane)),
                )
            };
            let [channel, count] = self.vectors[lane / I::LANES];
            let scaled = |sum| isa.add(isa.mul(isa.to_f32(isa.add_i32(sum, offset)), multiplier), bias);
            // SAFETY: the caller's promise, as in `finish`.
            unsafe {
                match (self.to, &self.residual) {
                    // The common case, without a choice in the loop.
                    (To::Bytes { memory, bytes }, None) if count == I::LANES => {
                        for (sums, pixel) in sums.iter().zip(pixels) {
                            let to = memory.at(pixel * self.channels + channel);
                            isa.store_as_u8_at(to, bytes.apply(isa, scaled(sums[v])));
                        }
                    }
                    _ => {
                        for (sums, pixel) in sums.iter().zip(pixels) {
                            self.finish(isa, scaled(sums[v]), pixel * self.channels + channel, count);
                        }
                    }
                }
            }
        }
    }

    /// Adds the residual, rounds where the output is of bytes, and stores `count` lanes.
    ///
    /// # Safety
    /// As [`apply`](Self::apply).
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, isa: I, mut x: I::F32, place: usize, count: usize) {
        if let Some(Residual { values, zero_point, factor }) = self.residual {
            // SAFETY: the residual has the shape and the order of the output.
            let r = unsafe { load(isa, values.as_ptr().add(place), count) };
            x = isa.add(x, isa.mul(isa.sub(r, isa.splat(zero_point)), isa.splat(factor)));
        }
        // SAFETY: the caller's promise.
        unsafe {
            match self.to {
                To::Bytes { memory, bytes } => bytes.store(isa, memory.at(place), count, x),
                To::Floats { memory } => {
                    if self.relu {
                        x = isa.relu(x);
                    }
                    let to = memory.at(place);
                    if count == I::LANES { isa.store_at(to, x) } else { isa.store_part_at(to, count, x) }
                }
            }
        }
    }
}
