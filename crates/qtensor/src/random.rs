//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A [`Stream`] is named by (seed, purpose, epoch, index), and its n-th value is a pure function of that name and n. So the order of
//! samples, augmentation, dropout and stochastic rounding do not depend on threads, and a resumed run needs no saved state.

use crate::{Result, Tensor};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of Philox4x32-10: four random words from a counter and a key.
#[inline]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(x0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(x2);
        (x0, x1, x2, x3) = ((p1 >> 32) as u32 ^ x1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ x3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [x0, x1, x2, x3]
}

/// What random numbers are drawn for; streams of different purposes never share values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Initial weights; the index is the position of the parameter.
    Init = 1,
    /// The order of samples in an epoch.
    Shuffle = 2,
    /// Augmentation of a sample; the index is the sample's.
    Augment = 3,
    /// Dropout masks; the index is the layer's call in a step.
    Dropout = 4,
    /// Mixing of samples in a batch.
    Mixup = 5,
    /// Stochastic rounding.
    Rounding = 6,
    /// Generated data sets; the index is the sample's.
    Data = 7,
    /// Splits of a data set.
    Split = 8,
    /// Tests, checks and tools.
    Test = 9,
    /// Weights that are set to zero; the index is the parameter's.
    Mask = 10,
}

/// The name of a stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// The seed of the experiment.
    pub seed: u64,
    /// What the numbers are for.
    pub purpose: Purpose,
    /// Epoch, or step, or 0.
    pub epoch: u32,
    /// Sample, layer or parameter; values up to 2^56 are told apart.
    pub index: u64,
}

impl StreamKey {
    /// Block `number` of the stream: its values `4 · number` to `4 · number + 3`. Kernels take many blocks side by side.
    #[inline(always)]
    pub fn block(self, number: u32) -> [u32; 4] {
        philox4x32(self.counter(number), self.philox_key())
    }

    #[inline(always)]
    fn counter(self, number: u32) -> [u32; 4] {
        let purpose = (self.purpose as u32) << 24;
        [number, self.index as u32, self.epoch, purpose | ((self.index >> 32) as u32 & 0x00ff_ffff)]
    }

    #[inline(always)]
    fn philox_key(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }
}

/// A sequence of random numbers that depends on its [`StreamKey`] only.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of that name, at its start.
    pub fn new(key: StreamKey) -> Self {
        Stream { key: key.philox_key(), counter: key.counter(0), block: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in `[low, high)`.
    pub fn uniform_in(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Standard normal, by Box and Muller's transform; each call takes two words.
    pub fn normal(&mut self) -> f32 {
        // In (0, 1], so that the logarithm is finite.
        let u = (f64::from(self.next_u32()) + 1.0) * (1.0 / 4_294_967_296.0);
        let v = f64::from(self.next_u32()) * (std::f64::consts::TAU / 4_294_967_296.0);
        ((-2.0 * u.ln()).sqrt() * v.cos()) as f32
    }

    /// Uniform in `0..bound` without bias (Lemire's multiplication with rejection); 0 where `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// The numbers `0..length` in random order (Fisher and Yates).
    pub fn permutation(&mut self, length: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..length).collect();
        for i in (1..length).rev() {
            order.swap(i as usize, self.below(i + 1) as usize);
        }
        order
    }

    /// A row-major f32 tensor uniform in `[low, high)`.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn uniform_tensor(&mut self, shape: impl AsRef<[usize]>, low: f32, high: f32) -> Result<Tensor> {
        Tensor::from_fn(shape, || self.uniform_in(low, high))
    }

    /// A row-major f32 tensor of normal values.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn normal_tensor(&mut self, shape: impl AsRef<[usize]>, mean: f32, deviation: f32) -> Result<Tensor> {
        Tensor::from_fn(shape, || mean + deviation * self.normal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors that the authors publish with their library (Random123, `kat_vectors`).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn stream(index: u64) -> Stream {
        Stream::new(StreamKey { seed: 7, purpose: Purpose::Test, epoch: 3, index })
    }

    #[test]
    fn blocks_are_the_stream() {
        let key = StreamKey { seed: 3 << 40, purpose: Purpose::Rounding, epoch: 5, index: 9 << 33 };
        let mut s = Stream::new(key);
        for number in 0..5 {
            assert_eq!(key.block(number), [(); 4].map(|()| s.next_u32()));
        }
    }

    #[test]
    fn streams_differ_in_every_part_of_their_name() {
        let base = StreamKey { seed: 1, purpose: Purpose::Init, epoch: 0, index: 0 };
        let others = [
            StreamKey { seed: 2, ..base },
            StreamKey { seed: 1 << 32 | 1, ..base },
            StreamKey { purpose: Purpose::Shuffle, ..base },
            StreamKey { epoch: 1, ..base },
            StreamKey { index: 1, ..base },
            StreamKey { index: 1 << 40, ..base },
        ];
        let first = Stream::new(base).next_u64();
        assert!(others.iter().all(|k| Stream::new(*k).next_u64() != first));
    }

    #[test]
    fn moments() {
        let mut s = stream(0);
        let n = 200_000;
        let (mut sum, mut square) = (0.0f64, 0.0f64);
        for _ in 0..n {
            let x = f64::from(s.normal());
            sum += x;
            square += x * x;
        }
        assert!((sum / f64::from(n)).abs() < 0.01 && (square / f64::from(n) - 1.0).abs() < 0.015);
        let mean = (0..n).map(|_| f64::from(s.uniform())).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.003);
    }

    #[test]
    fn permutations_are_complete_and_below_is_even() {
        let mut order = stream(1).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        let mut counts = [0; 6];
        let mut s = stream(2);
        (0..60_000).for_each(|_| counts[s.below(6) as usize] += 1);
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
    }
}
