//! What a convolution costs by each algorithm: the model behind the choice.
//!
//! A cost is a time on one core of a nominal machine: vector multiply-adds over the share of the peak that the algorithm's inner loop reaches, plus bytes over the
//! bandwidth of the cache they mostly come from. The shares were fitted to measurements (`quartz bench conv --explain` prints both); only their proportions matter.

use super::algorithm::{Algorithm, Direction};
use super::plan::Plan;
use super::{Geometry, winograd};

/// Vector multiply-adds a nanosecond: two a cycle at 4 GHz.
const MULTIPLY_ADDS: f64 = 8.0;
/// Bytes a nanosecond that one core copies from a far cache.
const BANDWIDTH: f64 = 30.0;
/// Multiply-adds in whose time a register tile starts and ends, for each vector that it writes.
const TILE: f64 = 12.0;

/// The share of the peak that Winograd's products reach.
const WINOGRAD: f64 = 0.68;

/// The share of the peak that large matrix products reach.
const POINTWISE: f64 = 0.92;

/// Nanoseconds on one core, for vectors of `lanes` and images of which `in_word` numbers take 32 bits.
pub(super) fn estimate(algorithm: Algorithm, g: &Geometry, direction: Direction, lanes: usize, in_word: usize) -> f64 {
    let products_of_pairs = matches!(algorithm, Algorithm::Winograd | Algorithm::Pointwise);
    if in_word > 1 && !products_of_pairs {
        // The images become f32 and the result bf16 again.
        let values = g.input_shape().iter().product::<usize>() + g.output_shape().iter().product::<usize>();
        return estimate(algorithm, g, direction, lanes, 1) + 6.0 * values as f64 / BANDWIDTH;
    }
    let plan = if direction == Direction::InputGrad { Plan::input_grad(g) } else { Plan::forward(g) };
    let images = 4.0 / in_word as f64
        * (g.input_shape().iter().product::<usize>() + g.output_shape().iter().product::<usize>()) as f64;
    let weights = 4.0 * g.weights_shape().iter().product::<usize>() as f64;
    let traffic = images / BANDWIDTH;
    match (algorithm, direction) {
        (Algorithm::Loops, _) => f64::from(u32::MAX) * weights.max(1.0) * images.max(1.0),
        (Algorithm::Depthwise, _) => {
            sums(&plan) * (g.channels as f64 / lanes as f64).ceil() / (0.7 * MULTIPLY_ADDS) + traffic
        }
        (Algorithm::Grouped, _) => {
            let vectors = (g.channels as f64 / lanes as f64).ceil() * (g.channels / g.groups) as f64;
            sums(&plan) * vectors / (0.5 * MULTIPLY_ADDS) + traffic + 8.0 * weights / BANDWIDTH
        }
        (Algorithm::Direct | Algorithm::ThinGrad, Direction::WeightGrad) | (Algorithm::Direct, _) => {
            let direct = Direct::of(&plan, direction, lanes);
            // The source is staged with its padding, and the weights are packed with strides.
            let staged = if g.kernel == [1; 2] { 0.0 } else { 0.5 };
            direct.vectors / (direct.share * MULTIPLY_ADDS) + (1.0 + staged) * traffic + 4.0 * weights / BANDWIDTH
        }
        (Algorithm::ThinGrad, _) => {
            let vectors = (g.channels * g.kernel[1]).div_ceil(lanes);
            let rows: usize = plan.rows.phases.iter().map(|p| p.count * p.taps.len()).sum();
            let pixels = (g.batch * g.out[1] * vectors) as f64;
            let products = pixels * (rows as f64 * g.filters as f64 + g.input[0] as f64 * TILE);
            let collected = (g.batch * g.input[0] * g.input[1] * g.kernel[1]) as f64 / g.stride[1] as f64;
            products / (share(vectors) * MULTIPLY_ADDS) + collected + traffic + 4.0 * weights / BANDWIDTH
        }
        (Algorithm::Winograd, _) => winograd::cost(g, in_word) / lanes as f64 / (WINOGRAD * MULTIPLY_ADDS) + traffic,
        (Algorithm::Pointwise, _) => {
            let pixels = g.batch * g.out[0] * g.out[1];
            // The weight gradient packs both operands, the others read the images where they are but write through a buffer of sums.
            let ([m, k, n], passes) = match direction {
                Direction::Forward => ([pixels, g.channels, g.filters], 2.5),
                Direction::InputGrad => ([pixels, g.filters, g.channels], 2.5),
                Direction::WeightGrad => ([g.filters, pixels, g.channels], 3.0),
            };
            let columns = n.div_ceil(lanes);
            m as f64 * (k * columns) as f64 / (in_word as f64 * POINTWISE * MULTIPLY_ADDS) + passes * traffic
        }
    }
}

/// Products of one channel with one channel, without lanes.
fn sums(plan: &Plan) -> f64 {
    let phases = plan.phases();
    phases.map(|(r, c)| (plan.batch * r.count * c.count * r.taps.len() * c.taps.len()) as f64).sum()
}

/// The share of the peak of a register tile of that many vectors: with one, each multiply-add needs a load of its own.
fn share(vectors: usize) -> f64 {
    if vectors == 1 { 0.75 } else { 0.85 }
}

/// The work of the direct algorithm.
struct Direct {
    /// Vector multiply-adds.
    vectors: f64,
    share: f64,
}

impl Direct {
    fn of(plan: &Plan, direction: Direction, lanes: usize) -> Direct {
        let groups = plan.groups as f64;
        let (source, channels) = (plan.source_channels, plan.channels);
        if direction == Direction::WeightGrad {
            let taps = plan.columns.phases[0].taps.len();
            let filters_as_lanes = (source * channels.div_ceil(lanes)) as f64;
            let inputs_as_lanes = channels as f64 * ((taps * source).div_ceil(lanes) as f64 / taps as f64);
            return Direct { vectors: groups * sums(plan) * filters_as_lanes.min(inputs_as_lanes), share: 0.85 };
        }
        let vectors = channels.div_ceil(lanes);
        let outputs = (plan.batch * plan.rows.output * plan.columns.output) as f64;
        let products = sums(plan) * source as f64 + outputs * TILE;
        Direct { vectors: groups * products * vectors as f64, share: share(vectors) }
    }
}
