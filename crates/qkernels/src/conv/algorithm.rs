//! The choice of algorithm and of block sizes by shape: the one place to extend when there are more ways to convolve.
//!
//! Nothing here depends on the number of threads, so that results do not either.

use super::plan::Plan;
use super::{Geometry, cost, grouped, thin_grad, winograd};
use crate::isa::IsaId;

/// Ways to compute a convolution or one of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Textbook loops: nothing to compute, degenerate sizes, or f64.
    Loops,
    /// One filter a channel: vectors of channels, no sum over them.
    Depthwise,
    /// Groups of 2, 4 or 8 channels: vectors of whole groups, a sum for each rotation of a group.
    Grouped,
    /// Implicit GEMM: a matrix product whose left operand is addressed in the image instead of being copied out of it.
    Direct,
    /// The input gradient where the input has few channels: kernel columns share the lanes of a vector with them.
    ThinGrad,
    /// A 1×1 convolution of stride 1 as one matrix product.
    Pointwise,
    /// Tiles of 4×4 outputs of 3×3 kernels, with a quarter of the multiplications, or of 2×2 outputs of 5×5 kernels, with a good third.
    Winograd,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The output from input and weights.
    Forward,
    /// The gradient with respect to the input.
    InputGrad,
    /// The gradient with respect to the weights.
    WeightGrad,
}

impl Algorithm {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Loops => "loops",
            Algorithm::Depthwise => "depthwise",
            Algorithm::Grouped => "grouped",
            Algorithm::Direct => "direct",
            Algorithm::ThinGrad => "thin",
            Algorithm::Pointwise => "1x1 as gemm",
            Algorithm::Winograd => "winograd",
        }
    }

    /// The cheapest for a shape and images of which `in_word` numbers take 32 bits, by [`cost::estimate`].
    pub(super) fn choose(g: &Geometry, direction: Direction, in_word: usize) -> Self {
        let lanes = crate::isa::current().lanes();
        let cost = |algorithm: &Algorithm| cost::estimate(*algorithm, g, direction, lanes, in_word);
        let candidates = Self::candidates(g, direction);
        candidates.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(Algorithm::Loops)
    }

    /// All that fit a shape, at least one.
    pub(super) fn candidates(g: &Geometry, direction: Direction) -> Vec<Algorithm> {
        let sizes = [g.batch, g.channels, g.filters, g.input[0], g.input[1], g.out[0], g.out[1]];
        // An image that is almost all padding is not worth a copy that may not fit into memory.
        let span = |axis: usize| {
            ((g.out[axis].saturating_sub(1)) * g.stride[axis])
                .saturating_add((g.kernel[axis] - 1) * g.dilation[axis] + 1)
        };
        let pixels = (g.input[0] * g.input[1]).max(g.out[0] * g.out[1]);
        let is_padding = span(0).saturating_mul(span(1)) > pixels.saturating_mul(4).max(PADDED_PIXELS);
        if sizes.contains(&0) || is_padding {
            return vec![Algorithm::Loops];
        }
        if g.groups == g.channels && g.groups == g.filters && g.groups > 1 {
            return vec![Algorithm::Depthwise];
        }
        let is_pointwise = g.kernel == [1; 2] && g.stride == [1; 2] && g.padding == [0; 2] && g.groups == 1;
        let lanes = crate::isa::current().lanes();
        let is_thin =
            g.groups == 1 && g.kernel[1] > 1 && (g.channels * g.kernel[1]).div_ceil(lanes) <= thin_grad::MOST_VECTORS;
        let mut all = vec![Algorithm::Direct];
        if is_thin && direction == Direction::InputGrad {
            all.push(Algorithm::ThinGrad);
        }
        if g.groups > 1 && grouped::fits(g.channels / g.groups, g.filters / g.groups, lanes) {
            all.push(Algorithm::Grouped);
        }
        if is_pointwise {
            all.push(Algorithm::Pointwise);
        }
        if g.winograd && winograd::is_safe(g) {
            all.push(Algorithm::Winograd);
        }
        all
    }
}

/// Pixels of a padded image that are staged whatever the share of the padding.
const PADDED_PIXELS: usize = 1 << 16;
/// Bytes of a panel's rows that a tile sweeps at once: they stream from the second-level cache, because a longer sweep saves more at both ends of a tile.
const PANEL_BYTES: usize = 96 << 10;
/// Bytes of a staged band: a part of a second-level cache.
const BAND_BYTES: usize = 256 << 10;
/// Output values of a band of a depthwise convolution: a part of a second-level cache.
const DEPTHWISE_VALUES: usize = 32 << 10;
/// Tasks that keep a few threads evenly busy.
const TASKS: usize = 24;

/// Block sizes of a correlation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Lanes of a vector.
    pub(super) vector: usize,
    /// Lanes of a panel: one to three vectors.
    pub(super) width: usize,
    /// Values of a panel column that are summed between two visits of an output pixel.
    pub(super) sums: usize,
    /// Source channels that are staged together.
    pub(super) channels: usize,
    /// Images of a band.
    pub(super) images: usize,
    /// Output rows of a phase in a band.
    pub(super) rows: usize,
    /// Lanes of a task, a multiple of `width`.
    pub(super) lanes: usize,
}

impl Blocks {
    /// For a correlation on an instruction set.
    pub(super) fn of(plan: &Plan, isa: IsaId) -> Blocks {
        let vector = isa.lanes();
        let width = vector * panel_vectors(plan.channels.div_ceil(vector));
        let channels = even_piece(plan.source_channels, 128).next_multiple_of(16).min(plan.source_channels);
        let (height, row) = (plan.rows.longest(), plan.columns.longest());
        let phases = plan.rows.phases.len() * plan.columns.phases.len();
        let bands = |pixels: usize| {
            let pixels = (pixels / phases).max(1);
            let rows = even_piece(height, (pixels / row).max(1));
            let source = plan.rows.span(rows) * plan.columns.span(row) * channels * 4;
            let images = (pixels / (height * row)).min(BAND_BYTES / source).clamp(1, plan.batch);
            (even_piece(plan.batch, images), rows)
        };
        let count = |(images, rows): (usize, usize)| plan.batch.div_ceil(images) * height.div_ceil(rows);
        let mut pixels = 384;
        while pixels > 48 && count(bands(pixels)) < TASKS {
            pixels /= 2;
        }
        // Filters are split before bands get so small that a panel is hardly used again.
        let mut lanes = plan.channels.next_multiple_of(width);
        let many = 256.min(lanes);
        if lanes >= 4 * width && count(bands(pixels)) * lanes.div_ceil(many) < 2 * TASKS {
            lanes = many.min(even_piece(lanes, lanes.div_ceil(2))).next_multiple_of(width).max(4 * width).min(lanes);
            pixels = 256;
        }
        let (images, rows) = bands(pixels);
        Blocks { vector, width, sums: PANEL_BYTES / (4 * width), channels, images, rows, lanes }
    }
}

/// Vectors of a panel: two, or three where two would leave one alone.
fn panel_vectors(vectors: usize) -> usize {
    match vectors {
        1 => 1,
        _ if vectors.is_multiple_of(3) && !vectors.is_multiple_of(2) => 3,
        _ => 2,
    }
}

/// Block sizes of a weight gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradBlocks {
    /// Input channels of a task.
    pub(super) channels: usize,
    /// Filters of a task.
    pub(super) filters: usize,
    /// Images of a band.
    pub(super) images: usize,
    /// Output rows of a band.
    pub(super) rows: usize,
    /// Independent sums over parts of the batch and its rows, added in order at the end.
    pub(super) sums: usize,
    /// Whether vectors run along the input's channels (and kernel columns) and filters are broadcast, or the other way around.
    pub(super) lanes_are_inputs: bool,
}

impl GradBlocks {
    /// For a shape of `plan`, the forward correlation, on an instruction set.
    pub(super) fn of(plan: &Plan, isa: IsaId) -> GradBlocks {
        let vector = isa.lanes();
        let channels = even_piece(plan.source_channels, 64).next_multiple_of(16).min(plan.source_channels);
        let filters = even_piece(plan.channels, 128).next_multiple_of(16).min(plan.channels);
        let (height, row) = (plan.rows.output, plan.columns.output);
        let rows = even_piece(height, (160 / row).max(1));
        let images = even_piece(plan.batch, (160 / (height * row)).clamp(1, plan.batch));
        let bands = height.div_ceil(rows) * plan.batch.div_ceil(images);
        let blocks = plan.groups * plan.source_channels.div_ceil(channels) * plan.channels.div_ceil(filters);
        let (kernel_rows, kernel_columns) = (plan.rows.phases[0].taps.len(), plan.columns.phases[0].taps.len());
        let is_run = plan.columns.phases[0].taps.last().is_none_or(|last| last.offset + 1 == kernel_columns);
        let (runs, run) =
            if is_run { (kernel_rows, kernel_columns * channels) } else { (kernel_rows * kernel_columns, channels) };
        let inputs_as_lanes = runs * run.next_multiple_of(vector) * filters;
        let filters_as_lanes = runs * run * filters.next_multiple_of(vector);
        GradBlocks {
            channels,
            filters,
            images,
            rows,
            sums: TASKS.div_ceil(blocks).min(bands),
            lanes_are_inputs: inputs_as_lanes <= filters_as_lanes,
        }
    }
}

/// Block sizes of a depthwise convolution and its gradients.
#[derive(Clone, Copy, Debug)]
pub(super) struct DepthwiseBlocks {
    /// Channels of a task.
    pub(super) channels: usize,
    /// Images of a band.
    pub(super) images: usize,
    /// Output rows of a phase in a band.
    pub(super) rows: usize,
}

impl DepthwiseBlocks {
    /// For a correlation with one channel a group.
    pub(super) fn of(plan: &Plan) -> DepthwiseBlocks {
        Self::of_channels(plan, plan.groups)
    }

    /// For a correlation with few channels a group, of that many in all.
    pub(super) fn of_channels(plan: &Plan, channels: usize) -> DepthwiseBlocks {
        let channels = even_piece(channels, 256).next_multiple_of(16).min(channels);
        let (height, row) = (plan.rows.longest(), plan.columns.longest());
        let pixels = (DEPTHWISE_VALUES / channels).max(1);
        let rows = even_piece(height, (pixels / row).max(1));
        let images = even_piece(plan.batch, (pixels / (height * row)).clamp(1, plan.batch));
        DepthwiseBlocks { channels, images, rows }
    }

    /// Independent sums of a weight gradient over that many bands, for a number of channels.
    pub(super) fn sums(&self, channels: usize, bands: usize) -> usize {
        TASKS.div_ceil(channels.div_ceil(self.channels)).min(bands)
    }
}

/// The size of equal pieces of `length`, none larger than `most`.
pub(crate) fn even_piece(length: usize, most: usize) -> usize {
    length.div_ceil(length.div_ceil(most.max(1)).max(1)).max(1)
}
