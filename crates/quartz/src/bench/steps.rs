//! Whole networks: a forward pass, and a training step with its update.

use super::{Bencher, gemm::normal};
use crate::failure::Failure;
use qgraph::{Tape, Tensor, Var};
use qzoo::experiment::{self, ModelName, Optim, Rule, Sgd};
use qzoo::models::Model;
use qzoo::nn::{Leaves, Phase};
use qzoo::optim::Optimizer;
use serde::Serialize;

/// A network as the peer's figures name it.
struct Subject {
    name: &'static str,
    model: ModelName,
    input: [usize; 3],
    batch: usize,
}

const SUBJECTS: [Subject; 4] = [
    Subject { name: "mnist_mlp", model: ModelName::Mlp, input: [1, 28, 28], batch: 128 },
    Subject { name: "resnet20", model: ModelName::ResNet20, input: [3, 32, 32], batch: 128 },
    Subject { name: "resnet32", model: ModelName::ResNet32, input: [3, 32, 32], batch: 128 },
    Subject { name: "vgg13", model: ModelName::Vgg13, input: [3, 32, 32], batch: 64 },
];

#[derive(Serialize)]
struct Key {
    bench: &'static str,
    model: &'static str,
    batch: usize,
    parameters: usize,
}

impl Subject {
    fn build(&self) -> Result<(Model, Tensor), Failure> {
        let config = experiment::Model { name: self.model, widths: vec![500, 300], ..Default::default() };
        let model = Model::build(&config, self.input, 10, 0)?;
        let [c, h, w] = self.input;
        Ok((model, normal([self.batch, c, h, w])?.to_channels_last()))
    }

    fn report(&self, bencher: &Bencher, bench: &'static str, seconds: f64, model: &Model) -> Result<(), Failure> {
        let macs: u64 = model.summary()?.iter().map(|row| row.macs).sum();
        // A step computes each product three times: forward, gradient of the input, gradient of the weights.
        let passes = if bench == "train_step" { 3.0 } else { 1.0 };
        let gflops = 2.0 * passes * (macs * self.batch as u64) as f64 / seconds / 1e9;
        let parameters: usize = model.parameters().parameters().iter().map(|p| p.value.numel()).sum();
        let measured =
            [("seconds", seconds), ("images_per_s", self.batch as f64 / seconds), ("of_peak", bencher.of_peak(gflops))];
        bencher.row(Key { bench, model: self.name, batch: self.batch, parameters }, &measured)
    }
}

/// A row for the forward pass of each network.
pub(super) fn infer(bencher: &Bencher) -> Result<(), Failure> {
    for subject in &SUBJECTS {
        let (model, images) = subject.build()?;
        let seconds = bencher.time(|| model.infer(&images).map(drop))?;
        subject.report(bencher, "infer", seconds, &model)?;
    }
    Ok(())
}

/// A row for the training step of each network: forward, backward and an SGD update with momentum and decay.
pub(super) fn train(bencher: &Bencher) -> Result<(), Failure> {
    for subject in &SUBJECTS {
        let (mut model, images) = subject.build()?;
        let rule = Rule::Sgd(Sgd { momentum: 0.9, nesterov: true, ..Sgd::default() });
        let config = Optim { rule, lr: 0.1, weight_decay: 5e-4, ..Optim::default() };
        let mut optimizer = Optimizer::new(&config, model.parameters());
        let labels: Vec<i64> = (0..subject.batch as i64).map(|i| i * 7 % 10).collect();
        let labels = Tensor::from_vec([subject.batch], labels)?;
        let mut step = 0;
        let seconds = bencher.time(|| -> Result<(), qgraph::Error> {
            let mut tape = Tape::new();
            let leaves = Leaves::on(&mut tape, model.parameters());
            let logits =
                model.forward(&mut tape, &leaves, &Var::constant(images.clone()), Phase::Train { seed: 0, step })?;
            let loss = tape.cross_entropy(&logits, &labels, 0.0)?;
            drop(logits);
            let effects = tape.take_effects();
            let gradients = leaves.into_gradients(tape.backward(&loss)?);
            optimizer.step(model.parameters_mut(), gradients, 1.0)?;
            model.apply(&effects)?;
            step += 1;
            Ok(())
        })?;
        subject.report(bencher, "train_step", seconds, &model)?;
    }
    Ok(())
}
