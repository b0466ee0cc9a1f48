use super::activations::{Activations, Network};
use super::alphabet::{Alphabet, alphabet};
use super::data::{Collection, Data, Pair, Seen};
use super::fold;
use super::layers::{Group, Site, Stage, check_patterns, sites, stages};
use super::measure::{Measured, measure};
use super::method::{Chosen, Method, Problem};
use super::mixed::{Choice, Sensitivity};
use super::packed::{Packed, PackedInput, inputs};
use super::result::{Form, LayerResult};
use crate::Result;
use crate::experiment::Quantize;
use crate::models::Model;
use crate::nn::{Inputs, Leaves, Parameters, Sees};
use crate::train::{CalibrationImages, Evaluator, Silent};
use qgraph::Error;
use qkernels::feedback::{Grid, Mode};
use qkernels::gram::{self, GramMatrices};
use qkernels::softmax::log_softmax;
use qtensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Quantizes one network again and again: what does not depend on the alphabet is computed once.
#[derive(Debug)]
pub struct Quantizer {
    model: Model,
    settings: Quantize,
    seed: u64,
    images: CalibrationImages,
    /// What the original network gives the first of the stages that are quantized, as many as the budget keeps.
    analog: Vec<Activations>,
    /// The Gram matrices of the first layer, whose inputs are always the same.
    first: Option<(gram::Inputs, GramMatrices)>,
}

/// What one network of a grid is made by.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Bits of a weight, where its layer has none of its own.
    pub bits: f64,
    /// Factor of the radii.
    pub alphabet_scalar: f64,
    /// Bits of layers by their full names; the patterns of the settings stand behind them.
    pub layers: BTreeMap<String, f64>,
}

impl Recipe {
    /// The same bits for all layers.
    pub fn uniform(bits: f64, alphabet_scalar: f64) -> Self {
        Recipe { bits, alphabet_scalar, layers: BTreeMap::new() }
    }
}

/// A quantized network.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// All parameters and buffers, quantized weights as f32.
    pub parameters: Parameters,
    /// The characters of each quantized tensor of weights.
    pub packed: Vec<Packed>,
    /// What became of each layer.
    pub layers: Vec<LayerResult>,
    /// Layers that were left as they are although they were chosen, with the reason.
    pub left: Vec<(String, String)>,
}

impl Quantized {
    /// What the network does with the inputs of its quantized projections.
    ///
    /// # Errors
    /// None for a network that was quantized here.
    pub fn inputs(&self) -> Result<Inputs> {
        let position = |name: &str| self.parameters.parameters().iter().position(|parameter| parameter.name == name);
        Ok(inputs(&self.packed, position)?)
    }

    /// The quantized network.
    ///
    /// # Errors
    /// `model` is another one than was quantized.
    pub fn model(&self, model: &Model) -> Result<Model> {
        let mut model = model.clone();
        for (name, value) in self.parameters.named() {
            model.parameters_mut().set(name, value)?;
        }
        model.set_inputs(self.inputs()?);
        Ok(model)
    }

    fn network<'a>(&self, stages: &'a [Stage<'a>]) -> Result<Network<'a>> {
        Ok(Network { stages, leaves: Leaves::constant(&self.parameters), inputs: Arc::new(self.inputs()?) })
    }
}

/// Hears how a quantization comes along, and may end it.
pub trait Progress {
    /// A layer is done; false ends the quantization.
    fn layer(&mut self, done: usize, total: usize, result: &LayerResult) -> bool;
}

impl Progress for Silent {
    fn layer(&mut self, _: usize, _: usize, _: &LayerResult) -> bool {
        true
    }
}

impl Quantizer {
    /// A quantizer of a trained network.
    ///
    /// # Errors
    /// Patterns that match no layer, or normalisations that cannot be folded where the settings want it.
    pub fn new(model: &Model, settings: &Quantize, seed: u64, images: CalibrationImages) -> Result<Self> {
        let mut model = model.clone();
        check_patterns(settings, &stages(&model))?;
        if settings.fold {
            fold::fold(&mut model)?;
        }
        Ok(Quantizer { model, settings: settings.clone(), seed, images, analog: Vec::new(), first: None })
    }

    /// The network that is quantized, normalisations folded where the settings say so.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Every weight rounded by itself, without data.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn round(&self, recipe: &Recipe) -> Result<Parameters> {
        let mut parameters = self.model.parameters().clone();
        let (stages, method) = (stages(&self.model), self.method());
        for site in sites(&stages).filter(|site| site.projection.sees() != Sees::Pairs) {
            let Some(bits) = site.bits(&self.settings, recipe) else { continue };
            let rounded = self.rounded(&method, site, bits, recipe.alphabet_scalar)?;
            set(&mut parameters, site, &rounded.characters)?;
        }
        Ok(parameters)
    }

    /// The weights of a layer, each rounded by itself.
    fn rounded(&self, method: &Method, site: &Site, bits: f64, scalar: f64) -> Result<Chosen> {
        let (alphabet, grid) = self.alphabet(site, bits, scalar)?;
        Ok(method.round(&rows_of(&self.model, site)?, grid, alphabet.mode(method.ties()))?)
    }

    /// What the answers to some calibration images lose when one layer alone is rounded to each number of bits; `None` where `go_on` said no.
    ///
    /// # Errors
    /// Weights that are not finite, or images that cannot be read.
    pub fn sensitivities(
        &mut self,
        bits: &[f64],
        alphabet_scalar: f64,
        mut go_on: impl FnMut(&Sensitivity) -> bool,
    ) -> Result<Option<Vec<Sensitivity>>> {
        let images = self.images.batch(0)?;
        let images = images.slice(0, 0..images.shape()[0].min(SENSED))?.copy();
        let (model, method) = (self.model.clone(), self.method());
        let stages = stages(&model);
        let original = log_softmax(&model.infer(&images)?)?.to_vec::<f32>()?;
        let mut bits = bits.to_vec();
        bits.sort_by(f64::total_cmp);
        let mut found = Vec::new();
        let recipe = Recipe::uniform(bits[0], alphabet_scalar);
        for site in sites(&stages).filter(|site| site.projection.sees() != Sees::Pairs) {
            if site.bits(&self.settings, &recipe).is_none() {
                continue;
            }
            let mut choices = Vec::new();
            let own = site.own_bits(&self.settings);
            for bits in own.as_ref().map_or(bits.as_slice(), std::slice::from_ref) {
                let rounded = self.rounded(&method, site, *bits, alphabet_scalar)?;
                let mut parameters = model.parameters().clone();
                set(&mut parameters, site, &rounded.characters)?;
                let answers = log_softmax(&model.infer_with(&parameters, &images)?)?.to_vec::<f32>()?;
                let divergence =
                    original.iter().zip(answers).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q)).sum::<f64>();
                let divergence = divergence.max(0.0) / images.shape()[0] as f64;
                choices.push(Choice { bits: *bits, characters: rounded.grid.levels().len(), divergence });
            }
            let weights = model.parameters().parameters()[site.projection.weight()].value.numel();
            found.push(Sensitivity { name: site.name.clone(), weights, choices });
            if !go_on(&found[found.len() - 1]) {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// Quantizes the network with an alphabet of that many bits; `None` where `progress` ended it.
    ///
    /// # Errors
    /// Values that are not finite, matrices that do not fit the memory, or images that cannot be read.
    pub fn quantize(&mut self, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Option<Quantized>> {
        let model = self.model.clone();
        let stages = stages(&model);
        let is_chosen = |site: &&Site| site.bits(&self.settings, recipe).is_some();
        let total = sites(&stages).filter(is_chosen).count();
        // Where both networks stop: whatever lies between is passed at once.
        let is_stop =
            |stage: &usize| stages[*stage].groups.iter().flat_map(|group| &group.sites).any(|site| is_chosen(&site));
        let stops: Vec<usize> = (0..stages.len()).filter(is_stop).collect();
        let original =
            Network { stages: &stages, leaves: Leaves::constant(model.parameters()), inputs: Arc::default() };
        let mut quantized = Quantized {
            parameters: model.parameters().clone(),
            packed: Vec::new(),
            layers: Vec::new(),
            left: Vec::new(),
        };
        if self.analog.is_empty() {
            let mut first = Activations::begin(&mut self.images, self.settings.memory_bytes() / FRONTIER)?;
            first.advance(stops.first().copied().unwrap_or(0), &original, &mut self.images)?;
            self.analog.push(first);
        }
        let mut analog = self.analog[0].clone();
        let mut mine = analog.clone();
        for (place, &number) in stops.iter().enumerate() {
            let before = quantized.layers.len();
            for group in &stages[number].groups {
                let network = quantized.network(&stages)?;
                let changed = if group.is_first { before } else { quantized.layers.len() };
                // A rounded input is another one even in the first layer.
                let are_same = changed == 0 && self.settings.activation_bits.is_none();
                let pair = Pair { analog: (&original, &analog), quantized: (&network, &mine), are_same };
                let outcomes = self.group((number, group), &pair, recipe, &mut quantized.left)?;
                for (site, outcome) in outcomes {
                    set(&mut quantized.parameters, &site, &outcome.characters)?;
                    if self.settings.bias_correction {
                        fold::correct_bias(&mut quantized.parameters, &self.model, &site, &outcome.mean_error)?;
                    }
                    let shape = site.projection.map().weight_shape();
                    let name = format!("{}.weight", site.name);
                    let mut packed = Packed::new(&name, &shape, site.groups(), (&outcome.characters, &outcome.grid))?;
                    packed.about.input = outcome.input;
                    quantized.packed.push(packed);
                    let goes_on = progress.layer(quantized.layers.len() + 1, total, &outcome.result);
                    quantized.layers.push(outcome.result);
                    if !goes_on {
                        return Ok(None);
                    }
                }
            }
            if let Some(&stop) = stops.get(place + 1) {
                let next = self.next_analog((place + 1, stop), &analog, &original)?;
                if quantized.layers.is_empty() {
                    mine = next.clone();
                } else {
                    let network = quantized.network(&stages)?;
                    mine.advance(stop, &network, &mut self.images)?;
                }
                analog = next;
            }
        }
        Ok(Some(quantized))
    }

    /// Measures the running statistics of batch norms anew with these parameters, on calibration images.
    ///
    /// # Errors
    /// Images that cannot be read.
    pub fn recalibrate(&mut self, evaluator: &Evaluator, parameters: &mut Parameters) -> Result<()> {
        *parameters = self.images.recalibrate(evaluator, parameters, self.settings.recalibrate)?;
        Ok(())
    }

    /// What stage `stop`, the one of number `place` that is quantized, is given in the original network.
    fn next_analog(
        &mut self,
        (place, stop): (usize, usize),
        analog: &Activations,
        original: &Network<'_>,
    ) -> Result<Activations> {
        if let Some(kept) = self.analog.get(place) {
            return Ok(kept.clone());
        }
        let mut next = analog.clone();
        next.advance(stop, original, &mut self.images)?;
        let bytes: u64 = self.analog.iter().skip(1).chain([&next]).map(Activations::bytes).sum();
        if self.reuses() && self.analog.len() == place && bytes <= self.settings.memory_bytes() / REUSE {
            self.analog.push(next.clone());
        }
        Ok(next)
    }

    /// Whether more than one network will be made.
    fn reuses(&self) -> bool {
        let Quantize { bits, alphabet_scalar, mixed, budget, max_drop, .. } = &self.settings;
        let networks = match mixed {
            true if max_drop.is_some() => 2,
            true => budget.as_ref().map_or(1, |budget| budget.as_slice().len()),
            false => bits.as_slice().len(),
        };
        networks * alphabet_scalar.as_slice().len() > 1
    }

    fn method(&self) -> Method {
        let Quantize { method: name, compat, order, damping, sweeps, .. } = self.settings;
        Method { name, compat, order, damping, sweeps, seed: self.seed }
    }

    fn alphabet(&self, site: &Site, bits: f64, scalar: f64) -> Result<(Alphabet, Grid)> {
        let Quantize { alphabet: name, radius, per_output, percentile, sparsity, threshold, .. } = self.settings;
        let settings = Alphabet { name, bits, radius, per_output, percentile, scalar, sparsity, threshold };
        let weights = rows_of(&self.model, site)?;
        let of_layer = |error: Error| Error::argument("quantize", format!("{}: {error}", site.name));
        let grid = alphabet(&settings, &weights.to_vec::<f32>()?, weights.shape()[0]).map_err(of_layer)?;
        Ok((settings, grid))
    }

    /// Chooses the characters of the projections of a group.
    fn group(
        &mut self,
        (stage, group): (usize, &Group),
        pair: &Pair<'_>,
        recipe: &Recipe,
        left: &mut Vec<(String, String)>,
    ) -> Result<Vec<(Site, Outcome)>> {
        let start = Instant::now();
        let chosen = group.sites.iter().filter_map(|site| Some((site, site.bits(&self.settings, recipe)?)));
        let chosen: Vec<(&Site, f64)> = chosen.collect();
        let Some((first, _)) = chosen.first() else { return Ok(Vec::new()) };
        if group.sees == Sees::Pairs {
            let reason = "is a full quadratic form, whose inputs are all products of pairs";
            left.extend(chosen.iter().map(|(site, _)| (site.name.clone(), reason.to_string())));
            return Ok(Vec::new());
        }
        let method = self.method();
        let collection = Collection {
            inputs: first.inputs(&self.settings, self.seed, group.number),
            settings: &self.settings,
            memory: self.settings.memory_bytes(),
            neurons: chosen.iter().map(|(site, _)| site.projection.map().outputs()).sum(),
        };
        let kept = self.first.take().filter(|(inputs, _)| group.number == 0 && *inputs == collection.inputs);
        let seen = pair.collect((stage, group), &method, &collection, &mut self.images, kept.map(|(_, gram)| gram))?;
        let collected = start.elapsed().as_secs_f64() / chosen.len() as f64;
        let mut outcomes = Vec::new();
        for (i, (site, bits)) in chosen.into_iter().enumerate() {
            let start = Instant::now();
            let (alphabet, grid) = self.alphabet(site, bits, recipe.alphabet_scalar)?;
            let weights = rows_of(&self.model, site)?;
            let mode = alphabet.mode(method.ties());
            let alone = method.round(&weights, grid.clone(), mode)?.characters;
            let alone = measure(site, &weights, &alone, &seen.originals())?.relative_error;
            let layer = group.number << 4 | i as u32;
            let chosen = of_blocks(
                &method,
                &Work { site, weights: &weights, seen: &seen, inputs: collection.inputs, grid, mode, layer },
            )?;
            let measured = measure(site, &weights, &chosen.characters, &seen.sample)?;
            let seconds = collected + start.elapsed().as_secs_f64();
            let outcome = outcome(site, bits, (chosen, &seen.data), (measured, alone), seconds)?;
            outcomes.push((site.clone(), Outcome { input: seen.input, ..outcome }));
        }
        if let (Data::Gram(gram), 0, true) = (seen.data, group.number, self.reuses()) {
            self.first = Some((collection.inputs, gram));
        }
        Ok(outcomes)
    }
}

/// Images that sensitivities are measured on.
const SENSED: usize = 512;
/// Shares of the memory budget: for the frontier of each network, and for inputs of the original one that later networks need again.
const FRONTIER: u64 = 4;
const REUSE: u64 = 2;

/// What became of a matrix of weights.
struct Outcome {
    /// `[outputs, inputs]`
    characters: Tensor,
    grid: Grid,
    mean_error: Vec<f64>,
    input: Option<PackedInput>,
    result: LayerResult,
}

fn outcome(
    site: &Site,
    bits: f64,
    (chosen, data): (Chosen, &Data),
    (measured, msq_error): (Measured, f64),
    seconds: f64,
) -> Result<Outcome> {
    let Chosen { characters, grid } = chosen;
    let values = characters.to_vec::<f32>()?;
    let row = characters.shape()[1];
    let level = |i: usize, value: f32| grid.level_of(i / row, value);
    let levels: BTreeSet<_> = values.iter().enumerate().map(|(i, value)| level(i, *value)).collect();
    let zeros = values.iter().filter(|value| **value == 0.0).count();
    let largest = |neuron: usize| (0..grid.levels().len()).map(|i| grid.character(neuron, i).abs()).fold(0.0, f32::max);
    let units = grid.units().len();
    let result = LayerResult {
        name: site.name.clone(),
        weights: values.len(),
        bits,
        characters: grid.levels().len(),
        distinct: levels.len(),
        zeros: zeros as f64 / values.len().max(1) as f64,
        radius: (0..units).map(|i| f64::from(largest(i))).sum::<f64>() / units as f64,
        relative_error: measured.relative_error,
        msq_error,
        // A layer without any error has no finite one, and JSON knows no infinity.
        sqnr: -20.0 * measured.relative_error.max(1e-15).log10(),
        form: match data {
            Data::None => Form::Weights,
            Data::Gram(_) => Form::Gram,
            Data::Rows(_) => Form::Data,
        },
        seconds,
    };
    Ok(Outcome { characters, grid, mean_error: measured.mean_error, input: None, result })
}

/// A matrix of weights with what a method needs to choose its characters.
struct Work<'a> {
    site: &'a Site,
    /// `[outputs, inputs]`
    weights: &'a Tensor,
    seen: &'a Seen,
    inputs: gram::Inputs,
    grid: Grid,
    mode: Mode,
    layer: u32,
}

/// The characters of all blocks of neurons that see the same inputs.
fn of_blocks(method: &Method, work: &Work<'_>) -> Result<Chosen> {
    let [outputs, row] = [work.weights.shape()[0], work.weights.shape()[1]];
    let gram = match &work.seen.data {
        Data::None => return Ok(method.round(work.weights, work.grid.clone(), work.mode)?),
        Data::Rows([quantized, analog]) => {
            return Ok(method.walk([quantized, analog], work.weights, work.grid.clone(), (work.mode, work.layer))?);
        }
        Data::Gram(gram) => gram,
    };
    let mut all = vec![0.0f32; outputs * row];
    let mut units = vec![0.0f32; outputs];
    let size = gram.size();
    for block in 0..gram.blocks() {
        let (rows, columns) = work.site.neurons(&work.inputs, block);
        let weights = work.weights.slice(0, rows.clone())?.slice(1, columns.clone())?.contiguous();
        let h = Tensor::from_slice([size, size], gram.h(block))?;
        let c = if gram.is_of_two() { Tensor::from_slice([size, size], gram.c(block))? } else { h.clone() };
        let grid = of_rows(&work.grid, rows.clone())?;
        let layer = work.layer << 12 ^ block as u32;
        let problem = Problem { weights: &weights, h: &h, c: &c, grid, mode: work.mode, layer };
        let in_block = |error| Error::argument("quantize", format!("{}, block {block}: {error}", work.site.name));
        let chosen = method.choose(&problem).map_err(in_block)?;
        let characters = chosen.characters.to_vec::<f32>()?;
        for (i, values) in rows.clone().zip(characters.chunks_exact(columns.len())) {
            all[i * row + columns.start..][..columns.len()].copy_from_slice(values);
            let units_here = chosen.grid.units();
            units[i] = units_here[if units_here.len() == 1 { 0 } else { i - rows.start }];
        }
    }
    // One unit for all stays one.
    let first = units[0];
    let grid = if units.iter().all(|unit| *unit == first) {
        work.grid.with_units(vec![first])?
    } else {
        work.grid.with_units(units)?
    };
    Ok(Chosen { characters: Tensor::from_vec([outputs, row], all)?, grid })
}

/// The alphabet of some neurons.
fn of_rows(grid: &Grid, rows: Range<usize>) -> Result<Grid> {
    let some = |values: &[f32]| if values.len() == 1 { values.to_vec() } else { values[rows.clone()].to_vec() };
    Ok(Grid::new(grid.levels().to_vec(), some(grid.units()))?.with_zero_points(some(grid.zero_points()))?)
}

/// The weights of a projection, `[outputs, inputs]`.
fn rows_of(model: &Model, site: &Site) -> Result<Tensor> {
    let weights = &model.parameters().parameters()[site.projection.weight()].value;
    let outputs = site.projection.map().outputs();
    Ok(weights.contiguous().reshape([outputs, weights.numel() / outputs.max(1)])?)
}

/// Puts characters `[outputs, inputs]` in the place of a projection's weights.
fn set(parameters: &mut Parameters, site: &Site, characters: &Tensor) -> Result<()> {
    let parameter = &parameters.parameters()[site.projection.weight()];
    let (name, shape) = (parameter.name.clone(), *parameter.value.shape());
    Ok(parameters.set(&name, &characters.reshape(shape)?)?)
}
