//! Whole networks: a forward pass, and a training step with its update.

use super::process::minor_faults;
use super::{Bencher, gemm::normal};
use crate::args::Bench;
use crate::failure::Failure;
use qgraph::{Tape, Tensor, Var};
use qkernels::par;
use qzoo::experiment::Precision::{self, F32};
use qzoo::experiment::{
    self, Backward, BackwardMode, ModelName, NeuronName, Optim, Quantize, QuantizerName, Rule, Sgd,
};
use qzoo::models::Model;
use qzoo::nn::{Leaves, Phase};
use qzoo::optim::Optimizer;
use qzoo::quantize::{Quantizer, Recipe};
use qzoo::train::{CalibrationImages, Silent};
use serde::Serialize;

/// A network as the peer's figures name it.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    model: ModelName,
    neuron: NeuronName,
    input: [usize; 3],
    pub(super) batch: usize,
    pub(super) precision: Precision,
    pub(super) backward: BackwardMode,
}

/// How a training step is computed, where it is not as usual: rows of usual steps have the key of the peer's.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Variant {
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backward: Option<&'static str>,
}

/// Steps over which page faults are counted.
const COUNTED: u64 = 8;

/// Their names.
pub(crate) const NETWORKS: [&str; 5] = ["mnist_mlp", "resnet20", "resnet32", "qresnet14", "vgg13"];

const SUBJECTS: [Subject; 5] = [
    Subject { input: [1, 28, 28], ..Subject::new(NETWORKS[0], ModelName::Mlp) },
    Subject::new(NETWORKS[1], ModelName::ResNet20),
    Subject::new(NETWORKS[2], ModelName::ResNet32),
    Subject { neuron: NeuronName::Ours, ..Subject::new(NETWORKS[3], ModelName::ResNet14) },
    Subject { batch: 64, ..Subject::new(NETWORKS[4], ModelName::Vgg13) },
];

impl Subject {
    const fn new(name: &'static str, model: ModelName) -> Self {
        Subject {
            name,
            model,
            neuron: NeuronName::Linear,
            input: [3, 32, 32],
            batch: 128,
            precision: F32,
            backward: BackwardMode::Symbolic,
        }
    }
}

/// The networks that were asked for, with each of the batches that were asked for.
pub(super) fn subjects(arguments: &Bench) -> impl Iterator<Item = Subject> {
    let wanted =
        |subject: &&Subject| arguments.models.is_empty() || arguments.models.iter().any(|name| name == subject.name);
    SUBJECTS.iter().filter(wanted).flat_map(move |subject| {
        let own = [subject.batch];
        let given: Vec<usize> = arguments.batches.iter().map(|batch| *batch as usize).collect();
        let batches = if given.is_empty() { own.to_vec() } else { given };
        let Bench { precision, backward, .. } = *arguments;
        batches.into_iter().map(move |batch| Subject { batch, precision, backward, ..*subject })
    })
}

#[derive(Serialize)]
struct Key {
    bench: &'static str,
    model: &'static str,
    batch: usize,
    parameters: usize,
    #[serde(flatten)]
    variant: Variant,
}

impl Subject {
    pub(super) fn variant(&self) -> Variant {
        Variant {
            precision: Some(self.precision.name()).filter(|_| self.precision != F32),
            backward: Some(self.backward.name()).filter(|_| self.backward != BackwardMode::Symbolic),
        }
    }

    fn build(&self) -> Result<(Model, Tensor), Failure> {
        let config =
            experiment::Model { name: self.model, neuron: self.neuron, widths: vec![500, 300], ..Default::default() };
        let mut model = Model::build(&config, self.input, 10, 0)?;
        model.set_backward(&Backward { mode: self.backward, ..Backward::default() })?;
        let [c, h, w] = self.input;
        Ok((model, normal([self.batch, c, h, w])?.to_channels_last()))
    }

    fn report(
        &self,
        bencher: &Bencher,
        bench: &'static str,
        (seconds, faults): (f64, Option<f64>),
        model: &Model,
    ) -> Result<(), Failure> {
        let macs: u64 = model.summary()?.iter().map(|row| row.macs).sum();
        // A step computes each product three times: forward, gradient of the input, gradient of the weights.
        let passes = if bench == "train_step" { 3.0 } else { 1.0 };
        let gflops = 2.0 * passes * (macs * self.batch as u64) as f64 / seconds / 1e9;
        let parameters: usize = model.parameters().parameters().iter().map(|p| p.value.numel()).sum();
        let measured =
            [("seconds", seconds), ("images_per_s", self.batch as f64 / seconds), ("of_peak", bencher.of_peak(gflops))];
        let variant = if bench == "train_step" { self.variant() } else { Variant::default() };
        let notes: Vec<(&str, f64)> = faults.map(|faults| ("faults_a_step", faults)).into_iter().collect();
        bencher.row_with(Key { bench, model: self.name, batch: self.batch, parameters, variant }, &measured, &notes)
    }
}

/// A row for the forward pass of each network.
pub(super) fn infer(bencher: &Bencher, arguments: &Bench) -> Result<(), Failure> {
    for subject in subjects(arguments) {
        let (mut model, images) = subject.build()?;
        if arguments.quantized {
            model = eight_bits(&model, &images)?;
        }
        let folded = model.folded()?;
        let seconds = par::install(|| bencher.time(|| folded.infer(&images).map(drop)))?;
        let name = if arguments.quantized { "infer_quantized" } else { "infer" };
        subject.report(bencher, name, (seconds, None), &model)?;
    }
    Ok(())
}

/// A network with weights and inputs of its layers in 8 bits, each weight rounded by itself.
fn eight_bits(model: &Model, images: &Tensor) -> Result<Model, Failure> {
    let settings = Quantize { method: QuantizerName::Msq, activation_bits: Some(8), ..Quantize::default() };
    let images = CalibrationImages::of(vec![images.clone()])?;
    let mut quantizer = Quantizer::new(model, &settings, 0, images)?;
    let quantized = quantizer.quantize(&Recipe::uniform(8.0, 1.0), &mut Silent)?;
    let quantized = quantized.ok_or_else(|| Failure::from(qzoo::Error::Config("nothing was quantized".into())))?;
    Ok(quantized.model(model)?)
}

/// A row for the training step of each network: forward, backward and an SGD update with momentum and decay.
pub(super) fn train(bencher: &Bencher, arguments: &Bench) -> Result<(), Failure> {
    for subject in subjects(arguments) {
        let mut training = Training::new(&subject)?;
        let (seconds, faults) = par::install(|| -> Result<_, qgraph::Error> {
            let seconds = bencher.time(|| training.step())?;
            let before = minor_faults();
            (0..COUNTED).try_for_each(|_| training.step())?;
            let faults = minor_faults().zip(before).map(|(now, before)| (now - before) as f64 / COUNTED as f64);
            Ok((seconds, faults))
        })?;
        subject.report(bencher, "train_step", (seconds, faults), &training.model)?;
    }
    Ok(())
}

/// A network in training on one batch.
pub(super) struct Training {
    model: Model,
    images: Tensor,
    precision: Precision,
    labels: Tensor,
    optimizer: Optimizer,
    steps: u64,
}

impl Training {
    pub(super) fn new(subject: &Subject) -> Result<Self, Failure> {
        let (model, images) = subject.build()?;
        let rule = Rule::Sgd(Sgd { momentum: 0.9, nesterov: true, ..Sgd::default() });
        let config = Optim { rule, lr: 0.1, weight_decay: 5e-4, ..Optim::default() };
        let optimizer = Optimizer::new(&config, model.parameters());
        let labels: Vec<i64> = (0..subject.batch as i64).map(|i| i * 7 % 10).collect();
        let labels = Tensor::from_vec([subject.batch], labels)?;
        Ok(Training { model, images, precision: subject.precision, labels, optimizer, steps: 0 })
    }

    /// Forward, backward, update.
    pub(super) fn step(&mut self) -> Result<(), qgraph::Error> {
        let mut tape = Tape::new();
        let leaves = Leaves::on(&mut tape, self.model.parameters());
        let phase = Phase::Train { seed: 0, step: self.steps };
        let images = Var::constant(self.precision.of_images(&self.images)?);
        let logits = self.model.forward(&mut tape, &leaves, &images, phase)?;
        let loss = tape.cross_entropy(&logits, &self.labels, 0.0)?;
        drop(logits);
        let effects = tape.take_effects();
        let gradients = leaves.into_gradients(tape.backward(&loss)?);
        self.optimizer.step(self.model.parameters_mut(), gradients, 1.0)?;
        self.model.apply(&effects)?;
        self.steps += 1;
        Ok(())
    }
}
