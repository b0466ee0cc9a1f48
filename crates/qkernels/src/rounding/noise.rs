//! Uniform noise for stochastic rounding: a function of a key and of the place of an element alone.

use qtensor::random::StreamKey;

/// Elements whose noise is drawn at once.
pub(super) const GROUP: usize = 128;
const LANES: usize = 16;

/// How a number between two codes becomes one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    /// Up with the probability that makes the expectation exact: its part above the lower code, in steps of 2^-16.
    ///
    /// The noise of the element at place `e` of the result's memory is `(h + ½) / 2^16`, where `h` is the low half, for `e / 64` even, or the high half of word
    /// `e / 16 % 4` of block `16 · (e / 128) + e % 16` of the stream of that name; all divisions are rounded down. It repeats after 2^35 elements.
    Stochastic(StreamKey),
}

impl Rounding {
    pub(super) fn noise(self) -> Option<Noise> {
        match self {
            Rounding::Nearest => None,
            Rounding::Stochastic(key) => Some(Noise { key, drawn: None, values: [0.0; GROUP] }),
        }
    }
}

/// The noise of one group of elements at a time.
pub(super) struct Noise {
    key: StreamKey,
    drawn: Option<u64>,
    values: [f32; GROUP],
}

impl Noise {
    /// The noise of the elements from `GROUP * group` on.
    #[inline(always)]
    pub(super) fn of(&mut self, group: u64) -> &[f32; GROUP] {
        if self.drawn != Some(group) {
            self.draw(group);
            self.drawn = Some(group);
        }
        &self.values
    }

    #[inline(always)]
    fn draw(&mut self, group: u64) {
        // Blocks side by side, which the compiler turns into vectors.
        let (key, first) = (self.key, (group as u32).wrapping_mul(LANES as u32));
        let mut words = [[0u32; LANES]; 4];
        let [a, b, c, d] = &mut words;
        for (lane, (((a, b), c), d)) in (0..).zip(a.iter_mut().zip(b).zip(c).zip(d)) {
            [*a, *b, *c, *d] = key.block(first.wrapping_add(lane));
        }
        let (low, high) = self.values.split_at_mut(GROUP / 2);
        for (i, word) in words.as_flattened().iter().enumerate() {
            low[i] = unit(word & 0xffff);
            high[i] = unit(word >> 16);
        }
    }
}

/// `(h + ½) / 2^16` for 16 bits, exactly: the bits behind the point of a number from 1 to 2.
#[inline(always)]
fn unit(h: u32) -> f32 {
    f32::from_bits(0x3f80_0000 | h << 7 | 1 << 6) - 1.0
}
