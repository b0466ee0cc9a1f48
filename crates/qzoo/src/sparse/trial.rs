//! The time of a layer's forward and backward pass on each kind of kernels.

use super::decision::{Kernels, Timing};
use super::site::Site;
use crate::Result;
use crate::experiment::Precision;
use crate::nn::{Map, SparseLayer};
use qgraph::ops::{Conv2d, Linear};
use qgraph::{Tape, Tensor, Var};
use qkernels::Activation;
use qkernels::sparse::{to_batch_innermost, to_channels_last};
use qtensor::random::{Purpose, Stream, StreamKey};
use std::time::{Duration, Instant};

/// Rounds that are measured at least, after one that warms up.
const ROUNDS: usize = 3;
/// Candidates that take so many times as long as the fastest are measured once: nothing will come of them.
const HOPELESS: f64 = 2.0;
/// More rounds are measured until this has passed: short layers need more of them.
const BUDGET: Duration = Duration::from_millis(150);

/// The operands of a layer, in the memory order of dense kernels.
pub(super) struct Trial<'a> {
    site: &'a Site,
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    noise: StreamKey,
}

/// Between which layers one runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbours {
    /// On kernels of the same kind, with the batch innermost.
    Alike,
    /// On dense ones.
    Dense,
}

impl<'a> Trial<'a> {
    /// Random values of that precision, none of them negative for the inputs, as behind a ReLU.
    pub(super) fn new(site: &'a Site, weight: &Tensor, output: &[usize], precision: Precision) -> Result<Self> {
        let key = |index| StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index };
        let random = |shape: &[usize], index| Stream::new(key(index)).normal_tensor(shape, 0.0, 1.0);
        let x = qkernels::elementwise::unary(qkernels::elementwise::UnaryOp::Relu, &random(&site.input, 1)?)?;
        let dy = random(output, 2)?;
        let (x, dy) = (precision.of_images(&to_channels_last(&x)?)?, precision.of_images(&to_channels_last(&dy)?)?);
        Ok(Trial { site, weight: weight.clone(), x, dy, noise: StreamKey { purpose: Purpose::Rounding, ..key(3) } })
    }

    /// The best time of each of the candidates, which take turns.
    pub(super) fn time(&self, candidates: &[(Kernels, Option<SparseLayer>)]) -> Result<Vec<Timing>> {
        let innermost = [to_batch_innermost(&self.x)?, to_batch_innermost(&self.dy)?];
        let mut best = vec![[f64::INFINITY; 2]; candidates.len()];
        let start = Instant::now();
        let mut round = 0;
        while round <= ROUNDS || start.elapsed() < BUDGET {
            let fastest = best.iter().flatten().copied().fold(f64::INFINITY, f64::min);
            for ((kernels, layer), best) in candidates.iter().zip(&mut best) {
                let is_hopeless = round > 1 && best[0].min(best[1]) > HOPELESS * fastest;
                if is_hopeless && *kernels != Kernels::Dense {
                    continue;
                }
                for (neighbours, best) in [Neighbours::Alike, Neighbours::Dense].into_iter().zip(best) {
                    if neighbours == Neighbours::Alike && !kernels.is_innermost() {
                        continue;
                    }
                    let start = Instant::now();
                    self.pass(layer.as_ref(), neighbours, &innermost)?;
                    if round > 0 {
                        *best = best.min(start.elapsed().as_secs_f64());
                    }
                }
            }
            round += 1;
        }
        let timing = |((kernels, _), [within, alone]): (&(Kernels, _), [f64; 2])| {
            let within = if kernels.is_innermost() { within } else { alone };
            Timing { kernels: *kernels, within, alone }
        };
        Ok(candidates.iter().zip(best).map(timing).collect())
    }

    /// A forward and a backward pass.
    fn pass(&self, layer: Option<&SparseLayer>, neighbours: Neighbours, innermost: &[Tensor; 2]) -> Result<()> {
        let is_chain = neighbours == Neighbours::Alike;
        let [x, dy] = if is_chain { innermost.clone() } else { [self.x.clone(), self.dy.clone()] };
        let mut tape = Tape::new();
        let (x, w) = (tape.leaf(x), tape.leaf(self.weight.clone()));
        let y = self.forward(&mut tape, layer, [&x, &w])?;
        if !is_chain {
            std::hint::black_box(to_channels_last(y.value())?);
        }
        let mut gradients = tape.backward_from(&y, dy)?;
        if let Some(dx) = gradients.take(&x).filter(|_| !is_chain) {
            std::hint::black_box(to_channels_last(&dx)?);
        }
        Ok(())
    }

    fn forward(&self, tape: &mut Tape, layer: Option<&SparseLayer>, [x, w]: [&Var; 2]) -> Result<Var> {
        let y = match (layer, self.site.projection.map()) {
            (Some(layer), _) => layer.forward(tape, [x, w], None, Activation::None, Some(self.noise)),
            (None, Map::Linear(_)) => tape.linear_with(Linear::default(), x, w, None),
            (None, Map::Conv2d(_)) => {
                let params = self.site.projection.conv_params().unwrap_or_default();
                tape.conv2d_with(Conv2d { params, ..Conv2d::default() }, x, w, None)
            }
        };
        Ok(y?)
    }
}
