//! The statistics of a network at one checkpoint.

use super::energy::{Energy, Window, energy, squares};
use super::statistics::{Accumulator, Statistics};
use super::watch::{Sink, Watch};
use super::{LayerInfo, OUTPUT};
use crate::data::{self, Batch, DataError, Dataset, Loader, LoaderOptions, Split};
use crate::experiment::{Backward, BackwardMode};
use crate::models::Model;
use crate::nn::{Leaves, ParameterKind, Phase, marks};
use crate::train::{Evaluator, Event, Observer, StopFlag};
use crate::{Error, Result};
use qgraph::{Pass, Tape, Var};
use qkernels::par;
use qtensor::Tensor;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Most images of a pass: recorded ops keep several tensors for each.
const BATCH: usize = 64;

/// A trained network to be looked into.
#[derive(Debug)]
pub struct Analyzer {
    evaluator: Evaluator,
    model: Model,
    layers: Vec<LayerInfo>,
}

/// On what statistics are taken.
#[derive(Clone, Debug)]
pub struct SamplesOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// The images' split.
    pub split: Split,
    /// How many images, spread evenly over the split; at least 2.
    pub samples: usize,
    /// Where the object is taken to be.
    pub window: Window,
    /// Set by another thread to stop.
    pub stop: StopFlag,
}

/// A network at one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointReport {
    /// The file.
    pub path: PathBuf,
    /// Completed epochs.
    pub epoch: u64,
    /// Completed optimizer steps.
    pub step: u64,
    /// Images that were looked at.
    pub samples: usize,
    /// Their mean loss in training passes.
    pub loss: f64,
    /// Every unit, in the order of the parameters.
    pub layers: Vec<LayerReport>,
}

/// A unit of the network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// What it is.
    #[serde(flatten)]
    pub layer: LayerInfo,
    /// RMS of the second-order part over that of the linear part; `None` where it has not both.
    pub ratio: Option<f64>,
    /// Its result, then for a quadratic neuron the neuron's own result, its parts and its branches.
    pub places: Vec<PlaceReport>,
    /// Its matrices of weights, as they are numbered.
    pub weights: Vec<WeightReport>,
}

impl LayerReport {
    /// The figures of a place.
    pub fn place(&self, name: &str) -> Option<&PlaceReport> {
        self.places.iter().find(|place| place.place == name)
    }
}

/// One value of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlaceReport {
    /// [`OUTPUT`] or a name of [`marks`].
    pub place: String,
    /// Shape for one image.
    pub shape: Vec<usize>,
    /// Activations.
    pub values: Statistics,
    /// Gradients of the loss of each image; `None` for the parts of a neuron, whose gradient is that of the neuron.
    pub gradients: Option<Statistics>,
    /// Mean over the images of where the squares are; `None` where there is no image or nothing but zeros.
    pub energy: Option<Energy>,
}

/// A matrix of weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightReport {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Statistics,
    /// The gradient of the mean loss over all images.
    pub gradients: Statistics,
    /// L2 norm of the weights.
    pub norm: f64,
    /// L2 norm of the gradient.
    pub gradient_norm: f64,
}

impl Analyzer {
    /// Reads a network from the folder of a run (its best checkpoint) or from a checkpoint.
    ///
    /// # Errors
    /// As [`Evaluator::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let evaluator = Evaluator::open(path)?;
        let mut model = evaluator.model().clone();
        model.set_backward(&Backward { mode: BackwardMode::Ad, ..Backward::default() })?;
        let layers = LayerInfo::of(&model);
        Ok(Analyzer { evaluator, model, layers })
    }

    /// The network with its experiment and its state.
    pub fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    /// The network as it is looked at.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Its units.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// The statistics of all layers; `None` where it was stopped.
    ///
    /// # Errors
    /// The data cannot be had or are not those of the training, or fewer than 2 images are wanted.
    pub fn statistics(
        &self,
        options: &SamplesOptions,
        observer: &mut dyn Observer,
    ) -> Result<Option<CheckpointReport>> {
        let samples = self.samples(options)?;
        let count = samples.len();
        // Batches of about one size: a batch normalisation needs more than one image.
        let size = count.div_ceil(count.div_ceil(BATCH));
        let normalize = self.evaluator.experiment().data.normalize;
        let loader = Loader::new(samples, LoaderOptions { normalize, ..LoaderOptions::evaluation(size) })?;
        let tally = Tally {
            layers: vec![Vec::new(); self.layers.len()],
            infos: self.layers.clone(),
            batch: 0,
            window: options.window,
        };
        let watch = Watch::new(&self.layers, tally);
        let mut gradients: Vec<Vec<f64>> = Vec::new();
        let mut loss = 0.0;
        let total = loader.batches() as u64;
        for (step, batch) in (0u64..).zip(loader.epoch(0, 0)?) {
            let batch = batch?;
            let images = batch.labels.numel();
            watch.with(|tally| tally.batch = images)?;
            let (batch_loss, batch_gradients) = par::install(|| self.pass(&watch, &batch, step))?;
            let share = images as f64 / count as f64;
            loss += share * batch_loss;
            add_gradients(&mut gradients, &batch_gradients, share)?;
            observer.event(&Event::Evaluating { split: "analysed", done: step + 1, total });
            if options.stop.is_set() {
                return Ok(None);
            }
        }
        let places = watch.with(|tally| tally.finish())?;
        let layers = self.layers.iter().zip(places).map(|(layer, places)| self.layer(layer, places, &gradients));
        let position = self.evaluator.state().position;
        Ok(Some(CheckpointReport {
            path: self.evaluator.path().to_path_buf(),
            epoch: position.epoch,
            step: position.step,
            samples: count,
            loss,
            layers: layers.collect::<Result<_>>()?,
        }))
    }

    /// The images that are looked at.
    fn samples(&self, options: &SamplesOptions) -> Result<Dataset> {
        let experiment = self.evaluator.experiment();
        let dataset = match options.split {
            Split::Test => data::open_test(&experiment.data, &options.data_root)?,
            Split::Train => data::open(&experiment.data, &options.data_root, experiment.seed)?.train,
        };
        self.evaluator.expect_same_data(dataset.info())?;
        let count = options.samples.min(dataset.len());
        if count < 2 {
            return Err(Error::Config(format!("statistics need at least 2 images, here are {count}")));
        }
        let indices: Vec<u32> = (0..count).map(|i| (i * dataset.len() / count) as u32).collect();
        dataset.subset(&indices).map_err(|error: DataError| error.into())
    }

    /// A training pass: the mean loss and the gradients of the parameters.
    fn pass(&self, watch: &Watch<Tally>, batch: &Batch, step: u64) -> Result<(f64, Vec<Option<Tensor>>)> {
        let mut tape = Tape::new().probe(&watch.probe());
        let leaves = Leaves::on(&mut tape, self.model.parameters());
        let phase = Phase::Train { seed: self.evaluator.experiment().seed, step };
        let logits = self.model.forward(&mut tape, &leaves, &Var::constant(batch.images.clone()), phase)?;
        let loss = tape.cross_entropy(&logits, &batch.labels, 0.0)?;
        let value = loss.value().item()?;
        Ok((value, leaves.into_gradients(tape.backward(&loss)?)))
    }

    fn layer(&self, layer: &LayerInfo, places: Vec<PlaceReport>, gradients: &[Vec<f64>]) -> Result<LayerReport> {
        let prefix = format!("{}.", layer.name);
        let mut weights = Vec::new();
        for (parameter, gradient) in self.model.parameters().parameters().iter().zip(gradients) {
            if parameter.kind == ParameterKind::Weight && parameter.name.starts_with(&prefix) {
                let (mut values, mut slopes) = (Accumulator::new(None), Accumulator::new(None));
                values.add(&parameter.value, 1.0)?;
                let gradient: Vec<f32> = gradient.iter().map(|x| *x as f32).collect();
                slopes.add(&Tensor::from_vec([gradient.len()], gradient)?, 1.0)?;
                let (values, gradients) = (values.finish(), slopes.finish());
                let norm = |s: &Statistics| s.rms * (s.count as f64).sqrt();
                let (norm, gradient_norm) = (norm(&values), norm(&gradients));
                weights.push(WeightReport { name: parameter.name.clone(), values, gradients, norm, gradient_norm });
            }
        }
        let rms = |name: &str| places.iter().find(|place| place.place == name).map(|place| place.values.rms);
        let ratio = match (rms(marks::SECOND_ORDER), rms(marks::LINEAR)) {
            (Some(second), Some(linear)) if linear > 0.0 => Some(second / linear),
            _ => None,
        };
        Ok(LayerReport { layer: layer.clone(), ratio, places, weights })
    }
}

/// Adds a share of the gradients of a batch.
fn add_gradients(sums: &mut Vec<Vec<f64>>, gradients: &[Option<Tensor>], share: f64) -> Result<()> {
    sums.resize(gradients.len(), Vec::new());
    for (sum, gradient) in sums.iter_mut().zip(gradients) {
        let Some(gradient) = gradient else { continue };
        let values = gradient.to_vec::<f32>()?;
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += share * f64::from(x));
    }
    Ok(())
}

/// The places of all layers so far.
#[derive(Debug)]
struct Tally {
    layers: Vec<Vec<Place>>,
    infos: Vec<LayerInfo>,
    /// Images of the batch at hand.
    batch: usize,
    window: Window,
}

#[derive(Clone, Debug)]
struct Place {
    name: String,
    shape: Vec<usize>,
    values: Accumulator,
    gradients: Option<Accumulator>,
    /// Sums over the images that have energy, and their number.
    energy: (Energy, usize),
}

impl Sink for Tally {
    fn take(&mut self, layer: usize, name: &str, pass: Pass, tensor: &Tensor) -> Result<()> {
        let places = &mut self.layers[layer];
        let index = match places.iter().position(|place| place.name == name) {
            Some(index) => index,
            None => {
                let values = Accumulator::new(self.infos[layer].bounds.filter(|_| name == OUTPUT));
                let shape = tensor.shape().iter().skip(1).copied().collect();
                places.push(Place { name: name.into(), shape, values, gradients: None, energy: Default::default() });
                places.len() - 1
            }
        };
        let place = &mut places[index];
        if pass != Pass::Forward {
            // The loss is the mean over the batch.
            return place.gradients.get_or_insert_default().add(tensor, self.batch as f32);
        }
        place.values.add(tensor, 1.0)?;
        for image in squares(tensor)? {
            if let Some(found) = energy(&image, tensor.shape()[3], &self.window) {
                let (sum, count) = &mut place.energy;
                *sum = Energy { share: sum.share + found.share, x: sum.x + found.x, y: sum.y + found.y };
                *count += 1;
            }
        }
        Ok(())
    }
}

impl Tally {
    fn finish(&self) -> Vec<Vec<PlaceReport>> {
        let rank = |place: &Place| match place.name.as_str() {
            OUTPUT => 0,
            marks::NEURON => 1,
            marks::SECOND_ORDER => 2,
            marks::LINEAR => 3,
            _ => 4,
        };
        let report = |place: &Place| {
            let (sum, count) = place.energy;
            let mean = |sum: f64| sum / count as f64;
            PlaceReport {
                place: place.name.clone(),
                shape: place.shape.clone(),
                values: place.values.finish(),
                gradients: place.gradients.as_ref().map(Accumulator::finish),
                energy: (count > 0).then(|| Energy { share: mean(sum.share), x: mean(sum.x), y: mean(sum.y) }),
            }
        };
        let of_layer = |places: &Vec<Place>| {
            let mut places: Vec<&Place> = places.iter().collect();
            places.sort_by_key(|place| rank(place));
            places.into_iter().map(report).collect()
        };
        self.layers.iter().map(of_layer).collect()
    }
}
