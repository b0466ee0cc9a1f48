//! The convolutions that benchmarks and comparisons measure.

/// Layers of the usual small networks: batch, input channels, output channels, height = width, kernel, stride, padding, groups.
pub const STANDARD: [[usize; 8]; 12] = [
    [128, 3, 16, 32, 3, 1, 1, 1],
    [128, 16, 16, 32, 3, 1, 1, 1],
    [128, 16, 32, 32, 3, 2, 1, 1],
    [128, 32, 32, 16, 3, 1, 1, 1],
    [128, 64, 64, 8, 3, 1, 1, 1],
    [64, 64, 64, 32, 3, 1, 1, 1],
    [64, 128, 128, 16, 3, 1, 1, 1],
    [64, 256, 256, 8, 3, 1, 1, 1],
    [64, 512, 512, 4, 3, 1, 1, 1],
    [128, 64, 128, 16, 1, 2, 0, 1],
    [64, 128, 128, 16, 3, 1, 1, 128],
    [8, 64, 64, 56, 3, 1, 1, 1],
];
