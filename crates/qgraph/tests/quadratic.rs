//! Quadratic neurons: their maps, combinations and what they keep, against the same made of elementary ops, in f64.

mod common;

use common::{check, normal};
use qgraph::kernels::quadratic::Rule;
use qgraph::ops::{BatchNorm, Combine, Keep, LinearMap, NormalisedCombine, Projections, Sees};
use qgraph::{Activation, Conv2dParams, Result, Tape, Tensor, Var};

/// An input, a map, and the shape of its weights for a first-order projection with two or four outputs.
fn maps() -> Vec<(Tensor, LinearMap, Vec<usize>)> {
    let plain = Conv2dParams::default();
    let conv = |params: Conv2dParams, kernel| LinearMap::Conv2d { params, kernel };
    vec![
        (normal(&[5, 4], 1), LinearMap::Dense, vec![2, 4]),
        (normal(&[2, 2, 4, 5], 2), conv(Conv2dParams { padding: [1, 1], ..plain }, [3, 3]), vec![2, 2, 3, 3]),
        (normal(&[2, 3, 6, 5], 3), conv(Conv2dParams { stride: [2, 1], ..plain }, [3, 2]), vec![2, 3, 3, 2]),
        (normal(&[1, 2, 6, 5], 4), conv(Conv2dParams { dilation: [2, 2], ..plain }, [2, 2]), vec![2, 2, 2, 2]),
        (
            normal(&[2, 4, 4, 4], 5),
            conv(Conv2dParams { groups: 2, padding: [1, 0], ..plain }, [2, 3]),
            vec![4, 2, 2, 3],
        ),
        (
            normal(&[2, 2, 4, 4], 6),
            conv(Conv2dParams { groups: 2, padding: [1, 1], ..plain }, [3, 3]),
            vec![2, 1, 3, 3],
        ),
    ]
}

/// The shape of the weights of a projection.
fn weights_of(shape: &[usize], sees: Sees) -> Vec<usize> {
    let n: usize = shape[1..].iter().product();
    if sees == Sees::Pairs { vec![shape[0], n * (n + 1) / 2] } else { shape.to_vec() }
}

const MIXES: [&[Sees]; 6] = [
    &[Sees::Input],
    &[Sees::Square],
    &[Sees::Pairs],
    &[Sees::Input, Sees::Input, Sees::Square],
    &[Sees::Input, Sees::Pairs],
    &[Sees::Square, Sees::Pairs],
];

#[test]
fn projections_pass_the_gradient_check() {
    for (x, map, shape) in maps() {
        for sees in MIXES {
            for bias in [false, true] {
                let mut inputs = vec![x.clone()];
                inputs.extend(sees.iter().zip(10..).map(|(sees, i)| normal(&weights_of(&shape, *sees), i)));
                inputs.extend((0..sees.len() as u64).filter(|_| bias).map(|i| normal(&shape[..1], 20 + i)));
                let op = Projections { map, sees: sees.to_vec(), bias, again: false, measures: false };
                check(&inputs, |tape, x| tape.apply(op.clone(), &x.iter().collect::<Vec<_>>()));
            }
        }
    }
}

/// One projection by elementary ops: a form of all pairs is a sum over its entries.
fn elementary(tape: &mut Tape, map: &LinearMap, sees: Sees, x: &Var, w: &Var) -> Result<Var> {
    let linear = |tape: &mut Tape, x: &Var, w: &Var| match map {
        LinearMap::Dense => tape.linear(x, w, None),
        LinearMap::Conv2d { params, .. } => tape.conv2d(x, w, None, *params),
    };
    match sees {
        Sees::Input => linear(tape, x, w),
        Sees::Square => {
            let square = tape.square(x)?;
            linear(tape, &square, w)
        }
        Sees::Pairs => {
            // What place i of a filter sees, by a filter that is 1 there.
            let (n, groups, dims) = match map {
                LinearMap::Dense => (x.shape()[1], 1, vec![x.shape()[1]]),
                LinearMap::Conv2d { params, kernel } => {
                    let channels = x.shape()[1] / params.groups;
                    (channels * kernel[0] * kernel[1], params.groups, vec![channels, kernel[0], kernel[1]])
                }
            };
            let outputs = w.shape()[0];
            let mut seen = Vec::new();
            for i in 0..n {
                let one: Vec<f64> = (0..groups * n).map(|j| if j % n == i { 1.0 } else { 0.0 }).collect();
                let shape: Vec<usize> = std::iter::once(groups).chain(dims.iter().copied()).collect();
                let filter = Var::constant(Tensor::from_vec(shape, one).unwrap());
                seen.push(linear(tape, x, &filter)?);
            }
            let mut parts = Vec::new();
            for o in 0..outputs {
                let group = o / (outputs / groups);
                let mut sum: Option<Var> = None;
                let mut place = 0;
                for i in 0..n {
                    for j in i..n {
                        let (a, b) =
                            (tape.slice(&seen[i], 1, group..group + 1)?, tape.slice(&seen[j], 1, group..group + 1)?);
                        let pair = tape.mul(&a, &b)?;
                        let row = tape.slice(w, 0, o..o + 1)?;
                        let weight = tape.slice(&row, 1, place..place + 1)?;
                        let weight = tape.reshape(&weight, vec![1; x.shape().rank()])?;
                        let term = tape.mul(&pair, &weight)?;
                        sum = Some(match sum {
                            Some(sum) => tape.add(&sum, &term)?,
                            None => term,
                        });
                        place += 1;
                    }
                }
                parts.extend(sum);
            }
            tape.concatenate(&parts.iter().collect::<Vec<_>>(), 1)
        }
    }
}

#[test]
fn projections_are_what_elementary_ops_give() {
    for (x, map, shape) in maps() {
        for sees in MIXES {
            let weights: Vec<Tensor> =
                sees.iter().zip(10..).map(|(sees, i)| normal(&weights_of(&shape, *sees), i)).collect();
            let run = |fused: bool| {
                let mut tape = Tape::new();
                let (x, w): (Var, Vec<Var>) =
                    (tape.leaf(x.clone()), weights.iter().map(|w| tape.leaf(w.clone())).collect());
                let y = if fused {
                    let op = Projections { map, sees: sees.to_vec(), bias: false, again: false, measures: false };
                    tape.projections(op, &x, &w.iter().collect::<Vec<_>>(), &[]).unwrap()
                } else {
                    let parts: Vec<Var> = sees
                        .iter()
                        .zip(&w)
                        .map(|(sees, w)| elementary(&mut tape, &map, *sees, &x, w).unwrap())
                        .collect();
                    tape.concatenate(&parts.iter().collect::<Vec<_>>(), 0).unwrap()
                };
                let dy = normal(y.shape(), 30);
                let value = y.value().clone();
                let mut found = tape.backward_from(&y, dy).unwrap();
                let gradients = std::iter::once(&x).chain(&w).map(|leaf| found.take(leaf).unwrap());
                std::iter::once(value).chain(gradients).collect::<Vec<Tensor>>()
            };
            let (fused, parts) = (run(true), run(false));
            fused.iter().zip(&parts).for_each(|(a, b)| common::assert_close(a, b, 1e-10));
        }
    }
}

/// Two neurons one behind the other: whatever is kept, the gradients are the same, and computing again keeps less.
#[test]
fn what_is_kept_changes_no_gradient() {
    let params = Conv2dParams { padding: [1, 1], ..Conv2dParams::default() };
    let map = LinearMap::Conv2d { params, kernel: [3, 3] };
    let run = |again: bool, keep: Keep, is_normalised: bool| {
        let mut tape = Tape::new();
        let leaf = |tape: &mut Tape, shape: &[usize], i| tape.leaf(normal(shape, i));
        let x = leaf(&mut tape, &[3, 4, 5, 5], 1);
        let (mut y, mut leaves) = (x.clone(), vec![x]);
        for layer in 0..2 {
            let w: Vec<Var> = (0..3).map(|i| leaf(&mut tape, &[4, 4, 3, 3], 10 + 3 * layer + i)).collect();
            let p: Vec<Var> = (0..8).map(|i| leaf(&mut tape, &[4], 20 + 8 * layer + i)).collect();
            let op = Projections {
                map,
                sees: vec![Sees::Input, Sees::Input, Sees::Square],
                bias: false,
                again,
                measures: again,
            };
            let z = tape.projections(op, &y, &w.iter().collect::<Vec<_>>(), &[]).unwrap();
            y = if is_normalised {
                let op = NormalisedCombine { rule: Rule::ProductAndSum, eps: 1e-3, keys: vec![0, 1, 2], keep };
                tape.normalised_combine(op, &z, &[&p[0], &p[1], &p[2]], &[&p[3], &p[4], &p[5]]).unwrap()
            } else {
                tape.combine(Rule::ProductAndSum, &z).unwrap()
            };
            drop(z);
            let norm = BatchNorm { eps: 1e-3, key: Some(9), activation: Activation::Relu };
            y = tape.batch_norm(norm, &y, &p[6], &p[7]).unwrap();
            leaves.extend(w);
            leaves.extend(p.into_iter().skip(if is_normalised { 0 } else { 6 }));
        }
        let retained = tape.retained_except(leaves.iter().map(Var::value)).bytes();
        let mut found = tape.backward_from(&y, normal(&[3, 4, 5, 5], 50)).unwrap();
        (leaves.iter().map(|leaf| found.take(leaf).unwrap()).collect::<Vec<Tensor>>(), retained)
    };
    for is_normalised in [false, true] {
        let (expected, stored) = run(false, Keep::Projections, is_normalised);
        let (normalised, same) = run(false, Keep::Normalised, is_normalised);
        let (again, less) = run(true, Keep::Projections, is_normalised);
        for found in [&normalised, &again] {
            for (a, b) in found.iter().zip(&expected) {
                // Gradients in front of a normalisation may cancel to nothing: the scale is that of all values, about 1.
                let difference = qgraph::kernels::binary(qgraph::kernels::BinaryOp::Sub, a, b).unwrap();
                assert!(difference.to_vec::<f64>().unwrap().iter().all(|d| d.abs() <= 1e-10));
            }
        }
        assert_eq!(stored, same);
        // The projections of both layers: three times the output each, in buffers that may be a little larger.
        let projections = 2 * 3 * 300 * 8;
        assert!((projections..projections * 11 / 10).contains(&(stored - less)), "{stored} and {less}");
    }
}

/// f32 of a width that Winograd's algorithm takes: the stack and its gradients are what single convolutions give.
#[test]
fn a_stack_agrees_with_single_convolutions() {
    let f32s = |shape: &[usize], seed| normal(shape, seed).to_dtype(qgraph::DType::F32).unwrap();
    let (x, w) = (f32s(&[2, 16, 9, 8], 1), [f32s(&[24, 16, 3, 3], 2), f32s(&[24, 16, 3, 3], 3)]);
    let params = Conv2dParams { padding: [1, 1], ..Conv2dParams::default() };
    let run = |is_stacked: bool| {
        let mut tape = Tape::new();
        let leaves = [tape.leaf(x.clone()), tape.leaf(w[0].clone()), tape.leaf(w[1].clone())];
        let [x, a, b] = &leaves;
        let (ya, yb) = if is_stacked {
            let y = tape.projections(Projections::conv2d(params, [3, 3], 2, false), x, &[a, b], &[]).unwrap();
            (tape.slice(&y, 0, 0..2).unwrap(), tape.slice(&y, 0, 2..4).unwrap())
        } else {
            (tape.conv2d(x, a, None, params).unwrap(), tape.conv2d(x, b, None, params).unwrap())
        };
        let product = tape.mul(&ya, &yb).unwrap();
        let loss = tape.sum(&product, &[0, 1, 2, 3], false).unwrap();
        let mut gradients = tape.backward(&loss).unwrap();
        leaves.map(|leaf| gradients.take(&leaf).unwrap().to_vec::<f32>().unwrap())
    };
    for (stacked, single) in run(true).iter().zip(&run(false)) {
        let largest = single.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (a, b) in stacked.iter().zip(single) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
        }
    }
}

#[test]
fn maps_that_do_not_fit_are_errors() {
    let x = || Var::constant(normal(&[2, 4], 1));
    let w = |shape: &[usize]| Var::constant(normal(shape, 2));
    let op = |sees: &[Sees], bias| Projections {
        map: LinearMap::Dense,
        sees: sees.to_vec(),
        bias,
        again: false,
        measures: false,
    };
    let mut tape = Tape::new();
    assert!(tape.projections(op(&[], false), &x(), &[], &[]).is_err());
    assert!(tape.projections(op(&[Sees::Input], true), &x(), &[&w(&[3, 4])], &[]).is_err());
    assert!(tape.projections(op(&[Sees::Pairs], false), &x(), &[&w(&[3, 9])], &[]).is_err());
    let order = [Sees::Input, Sees::Square, Sees::Input];
    assert!(tape.projections(op(&order, false), &x(), &[&w(&[3, 4]), &w(&[3, 4]), &w(&[3, 4])], &[]).is_err());
    assert!(tape.projections(op(&[Sees::Input; 2], false), &x(), &[&w(&[3, 4]), &w(&[2, 4])], &[]).is_err());
}

#[test]
fn combinations_of_projections() {
    for rule in Rule::ALL.iter().copied() {
        for shape in [&[2, 3, 2, 3][..], &[4, 3]] {
            let mut joined = shape.to_vec();
            joined[0] *= rule.parts();
            let inputs = [normal(&joined, 1), normal(shape, 2)];
            check(&inputs[..1], |tape, x| tape.combine(rule, &x[0]));
            let op = Combine { rule, activation: Activation::LeakyRelu(0.1) };
            check(&inputs, |tape, x| tape.apply(op, &[&x[0], &x[1]]));
            let mut inputs = vec![normal(&joined, 3)];
            inputs.extend((0..2 * rule.parts() as u64).map(|i| normal(&[3], 4 + i)));
            for keep in [Keep::Projections, Keep::Normalised] {
                let normalised = NormalisedCombine { rule, eps: 1e-3, keys: Vec::new(), keep };
                check(&inputs, |tape, x| {
                    let parameters: Vec<&Var> = x[1..].iter().collect();
                    let (scales, shifts) = parameters.split_at(rule.parts());
                    tape.normalised_combine(normalised.clone(), &x[0], scales, shifts)
                });
            }
        }
    }
}

/// One op for what three normalisations, a product and a sum do: the same result, gradients and effects.
#[test]
fn a_normalised_combination_is_what_its_parts_are() {
    let shape = [3, 4, 3, 2];
    let z = normal(&[9, 4, 3, 2], 1);
    let parameters: Vec<Tensor> = (0..6).map(|i| normal(&[4], 2 + i)).collect();
    let run = |fused: bool| {
        let mut tape = Tape::new();
        let (x, p): (Var, Vec<Var>) = (tape.leaf(z.clone()), parameters.iter().map(|p| tape.leaf(p.clone())).collect());
        let y = if fused {
            let op =
                NormalisedCombine { rule: Rule::ProductAndSum, eps: 1e-3, keys: vec![0, 1, 2], keep: Keep::default() };
            tape.normalised_combine(op, &x, &[&p[0], &p[1], &p[2]], &[&p[3], &p[4], &p[5]]).unwrap()
        } else {
            let mut part = |i: usize| {
                let z = tape.slice(&x, 0, i * shape[0]..(i + 1) * shape[0]).unwrap();
                let op = BatchNorm { eps: 1e-3, key: Some(i), activation: Activation::None };
                tape.batch_norm(op, &z, &p[i], &p[3 + i]).unwrap()
            };
            let (a, b, c) = (part(0), part(1), part(2));
            let product = tape.mul(&a, &b).unwrap();
            tape.add(&product, &c).unwrap()
        };
        let effects: Vec<Tensor> = tape.take_effects().into_iter().flat_map(|effect| effect.values).collect();
        let dy = normal(&shape, 20);
        let mut found = tape.backward_from(&y, dy).unwrap();
        let gradients: Vec<Tensor> = std::iter::once(&x).chain(&p).map(|leaf| found.take(leaf).unwrap()).collect();
        (y.into_value(), gradients, effects)
    };
    let ((y, gradients, effects), (expected, expected_gradients, expected_effects)) = (run(true), run(false));
    common::assert_close(&y, &expected, 1e-12);
    assert_eq!((gradients.len(), effects.len()), (7, 6));
    let all = gradients.iter().zip(&expected_gradients).chain(effects.iter().zip(&expected_effects));
    all.for_each(|(found, expected)| common::assert_close(found, expected, 1e-10));
}
