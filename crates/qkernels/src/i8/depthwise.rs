//! One filter a channel: vectors of channels, a product for each tap. Sums of so few products are whole numbers that f32 holds exactly, so they are taken in f32.

use super::ending::Ending;
use super::tile::Run;
use crate::isa::{Isa, Kernel};

/// A band of output pixels by some vectors of channels.
pub(super) struct Depthwise<'a> {
    pub(super) ending: &'a Ending<'a>,
    /// For each tap a value for each of `lanes` channels.
    pub(super) taps: &'a [f32],
    pub(super) lanes: usize,
    /// First channel and vectors of each panel.
    pub(super) panels: &'a [(usize, usize)],
    /// Whole vectors of channels are readable at each place under each run.
    pub(super) source: &'a [u8],
    /// Where each tap lies.
    pub(super) runs: &'a [Run],
    /// Where the kernel of each output begins, and the number of the output.
    pub(super) places: &'a [usize],
    pub(super) pixels: &'a [usize],
    /// For kernels of three neighbouring columns and outputs side by side the bytes from one to the next.
    pub(super) near: Option<usize>,
}

/// Outputs that are summed at a time.
const AT_ONCE: usize = 8;

impl Kernel for Depthwise<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for &(first, vectors) in self.panels {
            for v in 0..vectors {
                let lane = first + v * I::LANES;
                let (mut places, mut pixels) = (self.places, self.pixels);
                while let (Some((now, later)), Some((here, after))) =
                    (places.split_first_chunk::<AT_ONCE>(), pixels.split_first_chunk())
                {
                    self.pixels(isa, now, here, lane);
                    (places, pixels) = (later, after);
                }
                for (place, pixel) in places.iter().zip(pixels) {
                    self.pixels(isa, &[*place], &[*pixel], lane);
                }
            }
        }
    }
}

impl Depthwise<'_> {
    /// The outputs of some pixels for a vector of channels.
    #[inline(always)]
    fn pixels<I: Isa, const P: usize>(&self, isa: I, places: &[usize; P], pixels: &[usize; P], lane: usize) {
        let mut sums = [isa.zero(); P];
        match self.near {
            // Each pixel is converted once for three outputs, if there are registers for all of them.
            Some(step) if I::REGISTERS >= 32 && P == AT_ONCE && places[P - 1] - places[0] == (P - 1) * step => {
                for (runs, taps) in self.runs.chunks_exact(3).zip(self.taps.chunks_exact(3 * self.lanes)) {
                    let place = places[0] + runs[0].offset + lane;
                    let row: [I::F32; AT_ONCE + 2] = std::array::from_fn(|i| self.load(isa, place + i * step));
                    for tap in 0..3 {
                        let weights = isa.load(&taps[tap * self.lanes + lane..]);
                        for (sum, x) in sums.iter_mut().zip(&row[tap..]) {
                            *sum = isa.fma(*x, weights, *sum);
                        }
                    }
                }
            }
            _ => {
                for (run, taps) in self.runs.iter().zip(self.taps.chunks_exact(self.lanes)) {
                    let weights = isa.load(&taps[lane..]);
                    for (sum, place) in sums.iter_mut().zip(places) {
                        *sum = isa.fma(self.load(isa, place + run.offset + lane), weights, *sum);
                    }
                }
            }
        }
        let mut whole = [[isa.splat_i32(0)]; P];
        for (whole, sum) in whole.iter_mut().zip(sums) {
            whole[0] = isa.to_i32(sum);
        }
        // SAFETY: the pixels lie in the output, and no other task has these channels of them.
        unsafe { self.ending.apply(isa, &whole, pixels, lane) };
    }

    /// A vector of channels under a tap of an output.
    #[inline(always)]
    fn load<I: Isa>(&self, isa: I, place: usize) -> I::F32 {
        // SAFETY: `source` holds whole vectors of channels under each tap.
        unsafe { isa.load_u8_at(self.source.as_ptr().add(place)) }
    }
}
