use super::network::{Lesson, Network};
use super::recorder::Recorder;
use super::trainer::Trainer;
use crate::Result;
use crate::experiment::{self, Arithmetic, Int8Gradients, Int8Range, Precision, Sparse};
use crate::nn::SparseLayers;
use crate::run::read_json;
use crate::sparse::{Kernels, Masks, Swap, SwapOptions, SwapTable};
use qgraph::ops::{GradientCodes, SparseArithmetic, SparseInt8};
use qkernels::rounding::Clip;
use qtensor::Tensor;
use std::time::Instant;

/// The decision tables of a run, in its folder.
pub const SWAPS: &str = "kernels.json";
/// Whole steps, and evaluations of a batch, that are measured of the dense and of the swapped network, which take turns after one each that warms up.
const STEPS: usize = 3;
/// As many where the swapped network seems the slower one, although each of its layers was the faster: on a busy machine, a few steps may all have been held up.
const DOUBTED_STEPS: usize = 9;
/// How many times the dense network's step a swapped one's may take.
const TOLERANCE: f64 = 1.0;

impl Trainer {
    /// The share of weights of pruned layers that masks hold at zero; 0 for a dense network.
    pub fn zeros(&self) -> f64 {
        self.pruner.as_ref().map_or(0.0, |pruner| pruner.masks().sparsity())
    }

    /// Chooses the kernels of pruned layers where masks have changed. A table that an earlier process made for the same numbers of weights holds: sparse and dense kernels round differently,
    /// and a run that goes on should give the same bits.
    pub(super) fn swap_layers(&mut self, recorder: &mut Recorder<'_>) -> Result<()> {
        let (Some(settings), Some(pruner)) = (self.experiment.sparse.clone(), &self.pruner) else { return Ok(()) };
        let masks = pruner.masks().clone();
        if self.swapped == Some(masks.generation()) {
            return Ok(());
        }
        self.swapped = Some(masks.generation());
        if masks.is_empty() {
            self.network.model_mut().set_sparse(SparseLayers::new());
            return Ok(());
        }
        let mut swap = Swap::new(SwapOptions::new(&settings, self.experiment.train.precision));
        let path = self.folder.path().join(SWAPS);
        let mut tables = read_json::<Vec<SwapTable>>(&path)?.unwrap_or_default();
        let known = tables.iter().rev().find(|table| fits(table, &self.network, &masks)).cloned();
        let is_known = known.is_some();
        let (table, network) = self.on_first_batch(|network, lesson| {
            let pattern = |position| masks.pattern(position).map(|pattern| &**pattern);
            let mut network = network.clone();
            network.model_mut().set_sparse(SparseLayers::new());
            let mut table = match known {
                Some(table) => table,
                None => swap.decide(network.model(), lesson.images, pattern)?,
            };
            let layers = swap.layers(&table, network.model(), lesson.images, pattern)?;
            let mut swapped = network.clone();
            swapped.model_mut().set_sparse(layers);
            if !is_known && table.is_swapped() {
                let [dense, sparse] = compare([&network, &swapped], lesson)?;
                table.step = Some([dense, sparse]);
                // Layers by themselves may gain what borders between them and the rest of the step take.
                if sparse > TOLERANCE * dense {
                    table.revert(&format!("a whole step takes {:.1} ms, dense {:.1}", 1e3 * sparse, 1e3 * dense));
                    swapped = network.clone();
                }
            }
            let answers: SparseLayers =
                swapped.model().sparse().iter().map(|(position, layer)| (*position, layer.in_f32())).collect();
            let mut answering = swapped.clone();
            answering.model_mut().set_sparse_answers(answers);
            if !is_known && table.is_swapped() {
                table.evaluation = Some(compare_answers([&network, &answering], lesson.images)?);
            }
            Ok((table.clone(), if table.evaluates_sparsely() { answering } else { swapped }))
        })?;
        self.network.model_mut().take_sparse(network.model());
        if !is_known {
            for line in table.lines() {
                recorder.note(&line)?;
            }
            tables.push(table);
            self.folder.write_json(SWAPS, &tables)?;
        }
        Ok(())
    }
}

/// Whether a table was made for so many weights as the masks leave.
fn fits(table: &SwapTable, network: &Network, masks: &Masks) -> bool {
    let parameters = network.parameters().parameters();
    table.fits(|layer| {
        let position = parameters.iter().position(|p| p.name.strip_suffix(".weight") == Some(layer))?;
        Some(masks.pattern(position).map_or(parameters[position].value.numel(), |pattern| pattern.len()))
    })
}

/// The best time of a training pass of each.
fn compare(networks: [&Network; 2], lesson: &Lesson<'_>) -> Result<[f64; 2]> {
    best(networks, |network| network.learn(lesson).map(drop))
}

/// The best time of an evaluation of a batch of each.
fn compare_answers(networks: [&Network; 2], images: &Tensor) -> Result<[f64; 2]> {
    let [dense, sparse] = networks.map(Network::folded);
    best([&dense?, &sparse?], |network| Ok(network.infer(images).map(drop)?))
}

/// The best times of the dense and of the swapped one, which take turns.
fn best<T>(all: [&T; 2], pass: impl Fn(&T) -> Result<()>) -> Result<[f64; 2]> {
    let mut best = [f64::INFINITY; 2];
    for round in 0..=DOUBTED_STEPS {
        if round > STEPS && best[1] <= best[0] {
            break;
        }
        for (one, best) in all.iter().zip(&mut best) {
            let start = Instant::now();
            pass(one)?;
            if round > 0 {
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(best)
}

/// How operands become bytes.
fn int8(settings: &experiment::SparseInt8) -> SparseInt8 {
    let clip = |range| match range {
        Int8Range::AbsMax => Clip::AbsMax,
        Int8Range::Percentile => Clip::Percentile(100.0 * settings.percentile),
        Int8Range::Mse => Clip::Mse,
        Int8Range::Sawb => Clip::Sawb,
    };
    SparseInt8 {
        weights: clip(settings.weights),
        per_channel: settings.per_channel,
        inputs: clip(settings.activations),
        gradients: match settings.gradients {
            Int8Gradients::Stochastic => GradientCodes::Uniform(Clip::AbsMax),
            Int8Gradients::Dithered => GradientCodes::Uniform(Clip::Dither(1.0)),
            Int8Gradients::Luq => GradientCodes::Logarithmic,
        },
    }
}

impl SwapOptions {
    /// Of the settings of an experiment whose training computes with these numbers.
    pub fn new(settings: &Sparse, precision: Precision) -> Self {
        let kernels = match settings.arithmetic {
            Arithmetic::Dense => Vec::new(),
            Arithmetic::F32 => vec![Kernels::F32],
            Arithmetic::Int8 => vec![Kernels::Int8],
            Arithmetic::Auto => vec![Kernels::F32, Kernels::Int8],
        };
        let int8 = SparseArithmetic::Int8(int8(&settings.int8));
        SwapOptions { threshold: settings.threshold, kernels, int8, precision }
    }
}
