//! The reference values are those of `torch.optim` (PyTorch 2.9.1), in f32, after one, three and five steps.

use super::*;
use crate::experiment::{Adadelta, Adam, AdamW, Group, Sgd};
use crate::nn::{Parameter, ParameterKind};

const START: [f32; 4] = [0.5, -1.25, 2.0, 0.1];

fn parameters(names: &[(&str, ParameterKind)]) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, kind) in names {
        let value = Tensor::from_slice([4], &START).unwrap();
        parameters.push(Parameter { name: name.to_string(), value, kind: *kind });
    }
    parameters
}

/// The gradient of step `step`: `0.1 · (i + 1) · cos(1.3 i + 0.7 step)`.
fn gradient(step: usize) -> Tensor {
    let value = |i: usize| (0.1 * (1.3 * i as f64 + 0.7 * step as f64).cos() * (i + 1) as f64) as f32;
    Tensor::from_vec([4], (0..4).map(value).collect()).unwrap()
}

fn optim(rule: Rule, lr: f64, weight_decay: f64) -> Optim {
    Optim { rule, lr, weight_decay, decay_norms_and_biases: true, quadratic_lr: 1.0, groups: Vec::new() }
}

fn assert_steps(config: Optim, expected: [[f64; 4]; 3]) {
    let mut parameters = parameters(&[("weight", ParameterKind::Weight)]);
    let mut optimizer = Optimizer::new(&config, &parameters);
    for step in 0..5 {
        optimizer.step(&mut parameters, vec![Some(gradient(step))], 1.0).unwrap();
        if step % 2 == 0 {
            let found = parameters.parameters()[0].value.to_vec::<f32>().unwrap();
            for (f, e) in found.iter().map(|f| f64::from(*f)).zip(expected[step / 2]) {
                let tolerance = 3e-7 + 1e-6 * e.abs();
                assert!(
                    (f - e).abs() <= tolerance,
                    "{config:?}, step {step}: {found:?} against {:?}",
                    expected[step / 2]
                );
            }
        }
    }
}

#[test]
fn sgd() {
    let plain = Sgd { momentum: 0.0, dampening: 0.0, nesterov: false };
    assert_steps(
        optim(Rule::Sgd(plain.clone()), 0.1, 0.0),
        [
            [0.49000001, -1.25535, 2.0257068, 0.12903729],
            [0.48065192, -1.2289456, 2.0749404, 0.11134841],
            [0.49512258, -1.1981132, 2.0562713, 0.036366273],
        ],
    );
    assert_steps(
        optim(Rule::Sgd(Sgd { momentum: 0.9, ..plain.clone() }), 0.1, 0.01),
        [
            [0.48949999, -1.2541, 2.0237067, 0.12893729],
            [0.45391133, -1.2235849, 2.134223, 0.16436435],
            [0.44083968, -1.1297306, 2.2149467, 0.062968522],
        ],
    );
    assert_steps(
        optim(Rule::Sgd(Sgd { momentum: 0.9, nesterov: true, ..plain.clone() }), 0.1, 5e-4),
        [
            [0.4809525, -1.2600462, 2.0486526, 0.15516135],
            [0.4414587, -1.2109845, 2.2051215, 0.16982813],
            [0.44716564, -1.1035193, 2.272265, 0.004472557],
        ],
    );
    assert_steps(
        optim(Rule::Sgd(Sgd { momentum: 0.8, dampening: 0.3, ..plain }), 0.05, 0.1),
        [
            [0.49250001, -1.246425, 2.0028534, 0.11401865],
            [0.47149649, -1.2175256, 2.0128412, 0.12810978],
            [0.4581154, -1.1624595, 1.9929562, 0.092355885],
        ],
    );
}

#[test]
fn adam_and_adamw() {
    assert_steps(
        optim(Rule::Adam(Adam::default()), 0.01, 0.1),
        [
            [0.49000001, -1.24, 2.01, 0.11],
            [0.47079709, -1.2214311, 2.0270734, 0.11796477],
            [0.45833877, -1.2021505, 2.0192482, 0.10801081],
        ],
    );
    assert_steps(
        optim(Rule::Adam(Adam { betas: [0.8, 0.95], eps: 1e-6 }), 0.02, 0.0),
        [
            [0.4800002, -1.2699996, 2.02, 0.11999993],
            [0.44426244, -1.2491895, 2.0594919, 0.13500613],
            [0.44137999, -1.2146227, 2.0801525, 0.11166911],
        ],
    );
    assert_steps(
        optim(Rule::AdamW(AdamW::default()), 0.01, 0.1),
        [
            [0.48950002, -1.25875, 2.0080001, 0.1099],
            [0.47029191, -1.2470143, 2.0237675, 0.11836594],
            [0.46526331, -1.2283717, 2.0318453, 0.10881807],
        ],
    );
}

#[test]
fn adadelta() {
    assert_steps(
        optim(Rule::Adadelta(Adadelta::default()), 1.0, 0.01),
        [
            [0.49683917, -1.253153, 2.0031619, 0.10316209],
            [0.49309102, -1.2436637, 2.0092027, 0.10101788],
            [0.49809545, -1.2341598, 2.0059271, 0.093220368],
        ],
    );
}

#[test]
fn groups_and_spared_kinds() {
    let names = [
        ("conv1.weight", ParameterKind::Weight),
        ("bn1.weight", ParameterKind::NormScale),
        ("fc.weight", ParameterKind::Weight),
        ("fc.bias", ParameterKind::Bias),
    ];
    let group = |pattern: &str, lr, weight_decay| Group { pattern: pattern.into(), lr, weight_decay };
    let groups = vec![group("fc.w*", Some(0.5), None), group("fc.*", None, Some(0.25))];
    let config = Optim { decay_norms_and_biases: false, groups, ..optim(Rule::Sgd(Sgd::default()), 0.1, 0.5) };
    let mut parameters = parameters(&names);
    let optimizer = Optimizer::new(&config, &parameters);
    let settings = |lr, weight_decay| Settings { lr, weight_decay };
    assert_eq!(optimizer.settings, [settings(0.1, 0.5), settings(0.1, 0.0), settings(0.5, 0.5), settings(0.1, 0.25)]);
    let mut optimizer = optimizer;
    let zero = || Some(Tensor::zeros([4], DType::F32).unwrap());
    optimizer.step(&mut parameters, vec![zero(), zero(), None, zero()], 2.0).unwrap();
    let first = |i: usize| parameters.parameters()[i].value.to_vec::<f32>().unwrap()[0];
    // p - lr · factor · decay · p
    assert_eq!([first(0), first(1), first(2), first(3)], [0.45, 0.5, 0.5, 0.475]);
}

#[test]
fn exported_state_continues_to_the_same_bits() {
    let rules = [
        Rule::Sgd(Sgd { momentum: 0.9, dampening: 0.1, nesterov: false }),
        Rule::Sgd(Sgd::default()),
        Rule::Adam(Adam::default()),
        Rule::AdamW(AdamW::default()),
        Rule::Adadelta(Adadelta::default()),
    ];
    for rule in rules {
        let config = optim(rule, 0.01, 1e-3);
        let mut parameters = parameters(&[("a", ParameterKind::Weight), ("b", ParameterKind::Bias)]);
        let mut optimizer = Optimizer::new(&config, &parameters);
        // The second parameter never has a gradient, so it has no state.
        let gradients = |step| vec![Some(gradient(step)), None];
        (0..3).for_each(|step| optimizer.step(&mut parameters, gradients(step), 1.0).unwrap());
        let (saved, mut resumed_parameters) = (optimizer.export(&parameters), parameters.clone());
        let mut resumed = Optimizer::new(&config, &parameters);
        resumed.import(&parameters, saved.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        for step in 3..6 {
            optimizer.step(&mut parameters, gradients(step), 1.0).unwrap();
            resumed.step(&mut resumed_parameters, gradients(step), 1.0).unwrap();
        }
        for (a, b) in parameters.named().zip(resumed_parameters.named()) {
            assert_eq!(a.1.to_vec::<f32>().unwrap(), b.1.to_vec::<f32>().unwrap(), "{config:?}");
        }
    }
}

#[test]
fn damaged_state_is_refused() {
    let config = optim(Rule::Adam(Adam::default()), 0.01, 0.0);
    let mut parameters = parameters(&[("a", ParameterKind::Weight)]);
    let mut optimizer = Optimizer::new(&config, &parameters);
    optimizer.step(&mut parameters, vec![Some(gradient(0))], 1.0).unwrap();
    let sound = optimizer.export(&parameters);
    assert_eq!(sound.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["step:a", "exp_avg:a", "exp_avg_sq:a"]);
    let mut cases: Vec<Vec<(String, Tensor)>> = (0..3)
        .map(|missing| sound.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, t)| t.clone()).collect())
        .collect();
    for (place, (name, value)) in [
        (1, ("exp_avg:c", sound[1].1.clone())),
        (1, ("momentum_buffer:a", sound[1].1.clone())),
        (1, ("exp_avg", sound[1].1.clone())),
        (1, ("exp_avg:a", Tensor::zeros([5], DType::F32).unwrap())),
        (0, ("step:a", Tensor::scalar(-1i64))),
        (0, ("step:a", Tensor::scalar(1.0f32))),
    ] {
        let mut case = sound.clone();
        case[place] = (name.to_string(), value);
        cases.push(case);
    }
    for case in cases {
        let tensors = case.iter().map(|(n, t)| (n.as_str(), t));
        assert!(optimizer.import(&parameters, tensors).is_err(), "{case:?}");
    }
    assert!(optimizer.step(&mut parameters, vec![], 1.0).is_err());
    assert!(optimizer.step(&mut parameters, vec![Some(Tensor::scalar(1.0f32))], 1.0).is_err());
}

#[test]
fn gradients_in_another_memory_order() {
    let config = optim(Rule::Sgd(Sgd { momentum: 0.9, dampening: 0.0, nesterov: true }), 0.1, 0.01);
    let shape = [2, 3, 2, 2];
    let value = Tensor::from_vec(shape, (0..24).map(|i| i as f32).collect()).unwrap();
    let slope = Tensor::from_vec(shape, (0..24).map(|i| (i as f32).sin()).collect()).unwrap();
    let run = |value: Tensor, slope: Tensor| {
        let mut parameters = Parameters::default();
        parameters.push(Parameter { name: "w".into(), value, kind: ParameterKind::Weight });
        let mut optimizer = Optimizer::new(&config, &parameters);
        (0..3).for_each(|_| optimizer.step(&mut parameters, vec![Some(slope.clone())], 1.0).unwrap());
        parameters.parameters()[0].value.to_vec::<f32>().unwrap()
    };
    let expected = run(value.clone(), slope.clone());
    assert_eq!(run(value.clone(), slope.to_channels_last()), expected);
    assert_eq!(run(value.to_channels_last(), slope), expected);
}

#[test]
fn clipping() {
    let gradients =
        || vec![Some(Tensor::from_slice([2], &[3.0f32, 0.0]).unwrap()), None, Some(Tensor::scalar(-4.0f32))];
    let mut clipped = gradients();
    assert_eq!(clip_by_norm(&mut clipped, 1.0).unwrap(), 5.0);
    assert!((global_norm(&clipped).unwrap() - 1.0).abs() < 1e-6);
    let values = clipped[0].as_ref().unwrap().to_vec::<f32>().unwrap();
    assert!((values[0] - 0.6).abs() < 1e-6 && values[1] == 0.0);
    let mut untouched = gradients();
    assert_eq!(clip_by_norm(&mut untouched, 6.0).unwrap(), 5.0);
    assert_eq!(untouched[2].as_ref().unwrap().item().unwrap(), -4.0);
    assert!(clip_by_norm(&mut untouched, 0.0).is_err());
    let mut infinite = vec![Some(Tensor::from_slice([2], &[f32::INFINITY, 1.0]).unwrap())];
    assert_eq!(clip_by_norm(&mut infinite, 1.0).unwrap(), f64::INFINITY);
    assert_eq!(infinite[0].as_ref().unwrap().to_vec::<f32>().unwrap()[1], 1.0);
}
