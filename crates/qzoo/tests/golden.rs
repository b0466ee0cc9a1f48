//! Optimizers, schedules and whole training curves against PyTorch's. `cargo xtask golden` writes the reference files.

use qgraph::{Tape, Tensor, Var};
use qzoo::checkpoint::safetensors;
use qzoo::experiment::{
    self, Adadelta, Adam, AdamW, Anneal, Cosine, CosineRestarts, ModelName, MultiStep, OneCycle, Optim, Poly, Rule,
    ScheduleUnit, Sgd, Shape, Step,
};
use qzoo::models::Model;
use qzoo::nn::{Leaves, Parameter, ParameterKind, Parameters, Phase};
use qzoo::optim::Optimizer;
use qzoo::schedule::Schedule;
use serde_json::Value;
use std::path::Path;

fn assert_close(what: &str, ours: f64, expected: f64, tolerance: f64) {
    assert!((ours - expected).abs() <= tolerance, "{what}: {ours} instead of {expected}");
}

#[test]
fn optimizers_take_pytorch_s_steps() {
    let bytes = include_bytes!("golden/optim.safetensors");
    let file = safetensors::parse(bytes, Path::new("optim.safetensors")).unwrap();
    let tensor = |name: &str| file.get(name).unwrap_or_else(|| panic!("no {name} in the reference file"));
    let cases: Value = serde_json::from_str(&file.metadata["cases"]).unwrap();
    for (name, options) in cases.as_object().unwrap() {
        let number = |key: &str| options[key].as_f64().unwrap_or_default();
        let betas = || [0, 1].map(|i| options["betas"][i].as_f64().unwrap());
        let rule = match name.split('-').next().unwrap() {
            "sgd" => {
                let nesterov = options["nesterov"].as_bool().unwrap_or(false);
                Rule::Sgd(Sgd { momentum: number("momentum"), dampening: number("dampening"), nesterov })
            }
            "adam" => Rule::Adam(Adam { betas: betas(), eps: number("eps") }),
            "adamw" => Rule::AdamW(AdamW { betas: betas(), eps: number("eps") }),
            "adadelta" => Rule::Adadelta(Adadelta { rho: number("rho"), eps: number("eps") }),
            other => panic!("the reference file has an optimizer without a rule here: {other}"),
        };
        let config = Optim { rule, lr: number("lr"), weight_decay: number("weight_decay"), ..Optim::default() };
        let mut parameters = Parameters::default();
        parameters.push(Parameter { name: "p".into(), value: tensor("start").clone(), kind: ParameterKind::Weight });
        let mut optimizer = Optimizer::new(&config, &parameters);
        for step in 0..tensor("gradients").shape()[0] {
            let gradient = tensor("gradients").select(0, step).unwrap().contiguous();
            optimizer.step(&mut parameters, vec![Some(gradient)], 1.0).unwrap();
            let ours = parameters.parameters()[0].value.to_vec::<f32>().unwrap();
            let expected = tensor(name).select(0, step).unwrap().to_vec::<f32>().unwrap();
            for (a, b) in ours.iter().zip(&expected) {
                assert_close(
                    &format!("{name}, step {step}"),
                    f64::from(*a),
                    f64::from(*b),
                    2e-6 * (1.0 + f64::from(b.abs())),
                );
            }
        }
    }
}

#[test]
fn schedules_give_pytorch_s_rates() {
    let reference: Value = serde_json::from_str(include_str!("golden/schedules.json")).unwrap();
    let (lr, steps) = (reference["lr"].as_f64().unwrap(), reference["steps"].as_u64().unwrap());
    let one_cycle = |pct_start, div_factor, final_div_factor, anneal| {
        Shape::OneCycle(OneCycle { pct_start, div_factor, final_div_factor, anneal })
    };
    let cases = [
        ("step", Shape::Step(Step { step_size: 7, gamma: 0.5 })),
        ("multi_step", Shape::MultiStep(MultiStep { milestones: vec![5, 12, 30], gamma: 0.1 })),
        ("cosine", Shape::Cosine(Cosine { final_lr: 0.001 })),
        ("cosine_restarts", Shape::CosineRestarts(CosineRestarts { period: 8, period_factor: 2, final_lr: 0.001 })),
        ("poly", Shape::Poly(Poly { power: 0.9, final_lr: 0.0 })),
        ("one_cycle", one_cycle(0.3, 25.0, 1e4, Anneal::Cosine)),
        ("one_cycle_linear", one_cycle(0.25, 10.0, 100.0, Anneal::Linear)),
    ];
    assert_eq!(cases.len(), reference["rates"].as_object().unwrap().len());
    for (name, shape) in cases {
        // With one step an epoch, both units count alike.
        for unit in [ScheduleUnit::Step, ScheduleUnit::Epoch] {
            let config = experiment::Schedule { shape: shape.clone(), unit, warmup_epochs: 0.0, warmup_start: 0.0 };
            let schedule = Schedule::new(&config, lr, 1, steps);
            for step in 0..steps {
                let expected = reference["rates"][name][step as usize].as_f64().unwrap();
                assert_close(&format!("{name}, step {step}"), schedule.lr(step), expected, 1e-9);
            }
        }
    }
}

/// The numbers in [-1, 1) that both sides derive from a name; see `xtask/golden/curves.py`.
fn values(name: &str, count: usize) -> Vec<f64> {
    let salt = crc32fast::hash(name.as_bytes());
    let hash = |i: u32| {
        let x = i.wrapping_mul(2_654_435_761).wrapping_add(salt);
        let x = (x ^ (x >> 15)).wrapping_mul(739_982_445);
        (x ^ (x >> 12)).wrapping_mul(695_872_825)
    };
    (0..count as u32).map(|i| f64::from(hash(i) >> 16) / 32_768.0 - 1.0).collect()
}

fn images(name: &str, shape: [usize; 4]) -> Tensor {
    let values = values(name, shape.iter().product());
    Tensor::from_vec(shape, values.iter().map(|v| *v as f32).collect()).unwrap()
}

/// Sets the weights by the formula of the reference: scaled by the fan-in, norm scales around 1.
fn set_weights(model: &mut Model) {
    for index in 0..model.parameters().parameters().len() {
        let parameter = &model.parameters().parameters()[index];
        let shape = parameter.value.shape().to_vec();
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let (scale, shift) = match parameter.kind {
            ParameterKind::NormScale => (0.1, 1.0),
            _ if shape.len() == 1 => (0.1, 0.0),
            _ => (1.0 / fan_in.sqrt(), 0.0),
        };
        let values = values(&parameter.name, parameter.value.numel());
        let values = values.iter().map(|v| (v * scale + shift) as f32).collect();
        *model.parameters_mut().parameter_mut(index) = Tensor::from_vec(&shape, values).unwrap();
    }
}

fn check_curve(name: &str, config: &experiment::Model, input: [usize; 3]) {
    let reference: Value = serde_json::from_str(include_str!("golden/curves.json")).unwrap();
    let (batch, curve) = (reference["batch"].as_u64().unwrap() as usize, &reference[name]);
    let [c, h, w] = input;
    let mut model = Model::build(config, input, 10, 0).unwrap();
    set_weights(&mut model);
    let rule = Rule::Sgd(Sgd { momentum: 0.9, dampening: 0.0, nesterov: true });
    let optim = Optim { rule, lr: curve["lr"].as_f64().unwrap(), weight_decay: 5e-4, ..Optim::default() };
    let mut optimizer = Optimizer::new(&optim, model.parameters());
    let labels = Tensor::from_vec([batch], (0..batch as i64).map(|i| i * 7 % 10).collect()).unwrap();
    for (step, expected) in curve["losses"].as_array().unwrap().iter().enumerate() {
        let x = Var::constant(images(&format!("batch{}", step % 4), [batch, c, h, w]));
        let mut tape = Tape::new();
        let leaves = Leaves::on(&mut tape, model.parameters());
        let logits = model.forward(&mut tape, &leaves, &x, Phase::Train { seed: 0, step: step as u64 }).unwrap();
        let loss = tape.cross_entropy(&logits, &labels, 0.0).unwrap();
        assert_close(
            &format!("{name}, loss of step {step}"),
            loss.value().item().unwrap(),
            expected.as_f64().unwrap(),
            1e-3,
        );
        let effects = tape.take_effects();
        let gradients = leaves.into_gradients(tape.backward(&loss).unwrap());
        optimizer.step(model.parameters_mut(), gradients, 1.0).unwrap();
        model.apply(&effects).unwrap();
    }
    // Evaluation sees the trained weights and the running statistics.
    let logits = model.infer(&images("evaluation", [2, c, h, w])).unwrap().to_vec::<f32>().unwrap();
    for (ours, expected) in logits.iter().zip(curve["logits"].as_array().unwrap()) {
        assert_close(&format!("{name}, logits after training"), f64::from(*ours), expected.as_f64().unwrap(), 5e-3);
    }
}

#[test]
fn resnet20_learns_as_in_pytorch() {
    let config = experiment::Model { name: ModelName::ResNet20, ..Default::default() };
    check_curve("resnet20", &config, [3, 32, 32]);
}

#[test]
fn the_mlp_learns_as_in_pytorch() {
    let config = experiment::Model { name: ModelName::Mlp, widths: vec![500, 300], ..Default::default() };
    check_curve("mlp", &config, [1, 28, 28]);
}
