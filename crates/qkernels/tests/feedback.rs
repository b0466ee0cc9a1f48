//! The blocked recursions against their definitions in f64 and against published vectors.

use proptest::prelude::*;
use qkernels::feedback::{Factor, Grid, Mode, Recursion, Rounding, Rule, Target, Ties, Walk};
use qkernels::naive::feedback::{Neuron, gpfq, gptq};
use qkernels::{matmul, par};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};

/// Data, weights and an alphabet for many neurons.
struct Problem {
    samples: usize,
    features: usize,
    neurons: usize,
    analog: Vec<f64>,
    quantized: Vec<f64>,
    weights: Vec<f64>,
    rounding: Rounding,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    samples: usize,
    features: usize,
    neurons: usize,
    levels: usize,
    positive: bool,
    same: bool,
}

impl Problem {
    fn new(shape: Shape, seed: u64) -> Self {
        let Shape { samples, features, neurons, levels, positive, same } = shape;
        let mut noise = Stream::new(StreamKey { seed, purpose: Purpose::Test, epoch: 0, index: 0 });
        let mut normal = |count: usize| -> Vec<f64> { (0..count).map(|_| f64::from(noise.normal())).collect() };
        let mut analog = normal(samples * features);
        let mut quantized = normal(samples * features);
        for (x, y) in analog.iter_mut().zip(&mut quantized) {
            *y = *x + 0.2 * *y;
            if positive {
                (*x, *y) = (x.max(0.0), y.max(0.0));
            }
        }
        // A feature that is always 0, as a unit that died.
        for row in 0..samples {
            let at = row * features + features / 2;
            (analog[at], quantized[at]) = (0.0, 0.0);
        }
        if same {
            quantized = analog.clone();
        }
        let weights = normal(neurons * features);
        let units = (0..neurons).map(|j| 2.0 / (levels as f32 - 1.0) * (1.0 + j as f32 / 16.0)).collect();
        let rounding = Rounding::nearest(Grid::uniform(levels, units).unwrap());
        Problem { samples, features, neurons, analog, quantized, weights, rounding }
    }

    fn matrix(&self, values: &[f64]) -> Tensor {
        Tensor::from_slice([self.samples, self.features], values).unwrap()
    }

    fn weights(&self) -> Tensor {
        Tensor::from_slice([self.neurons, self.features], &self.weights).unwrap()
    }

    /// `H` and `C`.
    fn gram(&self) -> [Tensor; 2] {
        let seen = self.matrix(&self.quantized);
        let product = |x: &Tensor| matmul(&seen.t().unwrap(), x).unwrap();
        [product(&seen), product(&self.matrix(&self.analog))]
    }

    fn diagonal(h: &Tensor) -> Vec<f64> {
        h.to_vec::<f64>().unwrap().into_iter().step_by(h.shape()[0] + 1).collect()
    }

    fn naive(&self, rule: Rule) -> (Vec<f32>, Vec<f64>) {
        let (mut characters, mut errors) = (Vec::new(), Vec::new());
        for j in 0..self.neurons {
            let weights = &self.weights[j * self.features..(j + 1) * self.features];
            let neuron = Neuron { analog: &self.analog, quantized: &self.quantized, weights };
            let round = |t: usize, x: f64| f64::from(self.rounding.round(t, j, x));
            let (q, u) = gpfq(&neuron, rule == Rule::Lybrand2021, round);
            characters.extend(q.iter().map(|q| *q as f32));
            errors.push(u.iter().map(|u| u * u).sum());
        }
        (characters, errors)
    }

    fn by_matrices(&self, rule: Rule) -> Vec<f32> {
        let [h, c] = self.gram();
        let divisors = Self::diagonal(&h);
        let recursion = Recursion { target: Target::Lower(&c), feedback: Some(&h), divisors: Some(&divisors), rule };
        recursion.quantize(&self.weights(), &self.rounding).unwrap().to_vec().unwrap()
    }
}

const SHAPES: [Shape; 6] = [
    Shape { samples: 40, features: 96, neurons: 24, levels: 3, positive: false, same: false },
    Shape { samples: 400, features: 96, neurons: 24, levels: 16, positive: true, same: false },
    Shape { samples: 100, features: 129, neurons: 130, levels: 4, positive: true, same: false },
    Shape { samples: 60, features: 64, neurons: 3, levels: 8, positive: false, same: true },
    Shape { samples: 300, features: 260, neurons: 5, levels: 17, positive: true, same: true },
    Shape { samples: 7, features: 1, neurons: 2, levels: 3, positive: false, same: false },
];

#[test]
fn all_three_forms_choose_the_same_characters() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let problem = Problem::new(shape, i as u64);
        for rule in [Rule::Nearest, Rule::Lybrand2021] {
            let (naive, errors) = problem.naive(rule);
            assert_eq!(problem.by_matrices(rule), naive, "matrices, {shape:?}, {rule:?}");
            let (quantized, analog) = (problem.matrix(&problem.quantized), problem.matrix(&problem.analog));
            let walk = Walk { quantized: &quantized, analog: (!shape.same).then_some(&analog), rule };
            let walked = walk.quantize(&problem.weights(), &problem.rounding).unwrap();
            assert_eq!(walked.characters.to_vec::<f32>().unwrap(), naive, "data, {shape:?}, {rule:?}");
            for (found, expected) in walked.squared_errors.iter().zip(&errors) {
                assert!((found - expected).abs() <= 1e-9 * expected.max(1.0), "{found} instead of {expected}");
            }
        }
    }
}

#[test]
fn f32_data_choose_nearly_the_same_characters() {
    let shape = Shape { samples: 700, features: 600, neurons: 40, levels: 16, positive: true, same: false };
    let problem = Problem::new(shape, 9);
    let (naive, errors) = problem.naive(Rule::Nearest);
    let narrow = |x: Tensor| x.to_dtype(DType::F32).unwrap();
    let (quantized, analog) = (narrow(problem.matrix(&problem.quantized)), narrow(problem.matrix(&problem.analog)));
    let walk = Walk { quantized: &quantized, analog: Some(&analog), rule: Rule::Nearest };
    let walked = walk.quantize(&narrow(problem.weights()), &problem.rounding).unwrap();
    let found = walked.characters.to_vec::<f32>().unwrap();
    // One other character changes those behind it, so neurons are compared by their errors, and characters where the neuron has no other.
    let differ = |j: usize| (0..600).any(|t| found[j * 600 + t] != naive[j * 600 + t]);
    let others = (0..40).filter(|j| differ(*j)).count();
    assert!(others <= 8, "{others} of 40 neurons have other characters");
    for (j, (found, expected)) in walked.squared_errors.iter().zip(&errors).enumerate() {
        let tolerance = if differ(j) { 0.3 } else { 1e-3 };
        assert!((found - expected).abs() <= tolerance * expected, "neuron {j}: {found} instead of {expected}");
    }
}

/// A problem of the size of a layer: rounding errors of the forms turn a character here and there, and hardly change what the neurons give.
#[test]
fn forms_agree_on_large_problems() {
    let shape = Shape { samples: 2500, features: 1200, neurons: 48, levels: 16, positive: true, same: false };
    let problem = Problem::new(shape, 10);
    let (naive, errors) = problem.naive(Rule::Nearest);
    let [quantized, analog] = [&problem.quantized, &problem.analog].map(|x| problem.matrix(x));
    let walk = |dtype: DType| {
        let [quantized, analog, weights] =
            [quantized.clone(), analog.clone(), problem.weights()].map(|x| x.to_dtype(dtype).unwrap());
        let walk = Walk { quantized: &quantized, analog: Some(&analog), rule: Rule::Nearest };
        walk.quantize(&weights, &problem.rounding).unwrap().characters.to_vec::<f32>().unwrap()
    };
    // What the neurons give with other characters, beside what they should give.
    let error = |found: &[f32]| -> f64 {
        let difference = |j: usize| -> Vec<f64> {
            let row = j * shape.features..(j + 1) * shape.features;
            (0..shape.samples)
                .map(|i| {
                    let data = &problem.quantized[i * shape.features..(i + 1) * shape.features];
                    data.iter().zip(&found[row.clone()]).map(|(x, q)| x * f64::from(*q)).sum()
                })
                .collect()
        };
        let original = |j: usize| -> Vec<f64> {
            let row = j * shape.features..(j + 1) * shape.features;
            problem
                .analog
                .chunks(shape.features)
                .map(|x| x.iter().zip(&problem.weights[row.clone()]).map(|(x, w)| x * w).sum())
                .collect()
        };
        let of = |j: usize| -> f64 { difference(j).iter().zip(original(j)).map(|(a, b)| (a - b).powi(2)).sum() };
        (0..shape.neurons).map(of).sum::<f64>().sqrt()
    };
    let expected = errors.iter().sum::<f64>().sqrt();
    for (form, found) in [
        ("matrices", problem.by_matrices(Rule::Nearest)),
        ("f64 data", walk(DType::F64)),
        ("f32 data", walk(DType::F32)),
    ] {
        let equal = found.iter().zip(&naive).filter(|(a, b)| a == b).count() as f64 / naive.len() as f64;
        assert!(equal >= 0.999, "{form}: {equal} of the characters are equal");
        let error = error(&found);
        assert!((error - expected).abs() <= 1e-3 * expected, "{form}: error {error}, not {expected}");
    }
}

#[test]
fn gptq_is_the_recursion_of_the_factor() {
    for (i, shape) in SHAPES.into_iter().enumerate().filter(|(_, shape)| (2..=130).contains(&shape.features)) {
        let problem = Problem::new(shape, 20 + i as u64);
        let [h, _] = problem.gram();
        let damping = 0.01 * Problem::diagonal(&h).iter().sum::<f64>() / shape.features as f64;
        let values = h.to_vec::<f64>().unwrap();
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        let reversed = Tensor::from_vec([shape.features; 2], reversed).unwrap();
        let feedback = Factor::new(&reversed, damping).unwrap().feedback().unwrap();
        // E w = w + F w.
        let mut target = feedback.to_vec::<f64>().unwrap();
        target.iter_mut().step_by(shape.features + 1).for_each(|x| *x = 1.0);
        let target = Tensor::from_vec([shape.features; 2], target).unwrap();
        let recursion = Recursion {
            target: Target::Lower(&target),
            feedback: Some(&feedback),
            divisors: None,
            rule: Rule::Nearest,
        };
        let found = recursion.quantize(&problem.weights(), &problem.rounding).unwrap().to_vec::<f32>().unwrap();
        // The definition inverts a matrix for each weight, so a few neurons must do.
        for j in (0..shape.neurons).step_by(9) {
            let weights = &problem.weights[j * shape.features..(j + 1) * shape.features];
            let round = |t: usize, x: f64| f64::from(problem.rounding.round(t, j, x));
            let expected: Vec<f32> = gptq(&values, damping, weights, round).iter().map(|q| *q as f32).collect();
            assert_eq!(found[j * shape.features..(j + 1) * shape.features], expected, "{shape:?}, neuron {j}");
        }
    }
}

#[test]
fn the_factor_solves() {
    for size in [1, 5, 64, 65, 300] {
        let shape = Shape { samples: size + 20, features: size, neurons: 7, levels: 3, positive: true, same: true };
        let problem = Problem::new(shape, 3);
        let [h, _] = problem.gram();
        let damping = 0.5;
        let b = problem.weights().t().unwrap().contiguous();
        let x = Factor::new(&h, damping).unwrap().solve(&b).unwrap();
        let back = matmul(&h, &x).unwrap().to_vec::<f64>().unwrap();
        let x = x.to_vec::<f64>().unwrap();
        for (i, b) in b.to_vec::<f64>().unwrap().iter().enumerate() {
            assert!((back[i] + damping * x[i] - b).abs() < 1e-8, "size {size}, {i}: {} instead of {b}", back[i]);
        }
    }
    let zero = Tensor::zeros([3, 3], DType::F64).unwrap();
    assert!(Factor::new(&zero, 0.0).unwrap_err().to_string().contains("use more of it"));
}

#[test]
fn published_vectors() {
    // Orthogonal directions that come twice.
    let problem = Problem {
        samples: 2,
        features: 4,
        neurons: 1,
        analog: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        quantized: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        weights: vec![0.886, -0.8605, -0.2612, 0.6923],
        rounding: Rounding::nearest(Grid::uniform(3, vec![0.7764]).unwrap()),
    };
    assert_eq!(problem.by_matrices(Rule::Lybrand2021), [0.7764, -0.7764, 0.0, 0.7764]);
    assert_eq!(problem.naive(Rule::Lybrand2021).0, [0.7764, -0.7764, 0.0, 0.7764]);

    for (levels, radius, indices, error) in [
        (3, 0.8, [1, 0, 2, 2, 1], [-0.6, -0.3, 0.5]),
        (4, 0.8, [2, 0, 2, 3, 1], [-0.2, 0.5, 0.5]),
        (16, 1.2, [9, 4, 10, 13, 4], [0.0, 0.14, 0.38]),
    ] {
        let unit = if levels % 2 == 1 { 2.0 * radius / (levels - 1) as f32 } else { radius / (levels - 1) as f32 };
        let rounding = Rounding::nearest(Grid::uniform(levels as usize, vec![unit]).unwrap());
        let problem = Problem {
            samples: 3,
            features: 5,
            neurons: 1,
            analog: vec![1.0, 2.0, 0.0, 1.0, 3.0, 0.0, 1.0, 1.0, 2.0, 1.0, 2.0, 0.0, 1.0, 1.0, 0.0],
            quantized: vec![1.0, 2.0, 0.0, 1.0, 2.5, 0.0, 1.5, 1.0, 2.0, 1.0, 2.0, 0.0, 1.0, 0.5, 0.0],
            weights: vec![0.3, -0.7, 0.2, 0.9, -0.4],
            rounding,
        };
        let expected: Vec<f32> = indices.iter().map(|i| problem.rounding.grid.character(0, *i)).collect();
        assert_eq!(problem.by_matrices(Rule::Lybrand2021), expected, "{levels} levels");
        let round = |t: usize, x: f64| f64::from(problem.rounding.round(t, 0, x));
        let neuron = Neuron { analog: &problem.analog, quantized: &problem.quantized, weights: &problem.weights };
        let (_, u) = gpfq(&neuron, true, round);
        for (found, expected) in u.iter().zip(error) {
            assert!((found - expected).abs() < 1e-6, "{levels} levels: {u:?}");
        }
    }

    let third = 1.0 / 3.0f64.sqrt();
    let rows = [[1.0, 0.0, 0.0, third], [0.0, 1.0, 0.0, third], [0.0, 0.0, 1.0, -third]].concat();
    let problem = Problem {
        samples: 3,
        features: 4,
        neurons: 1,
        analog: rows.clone(),
        quantized: rows,
        weights: vec![0.5; 4],
        rounding: Rounding::nearest(Grid::uniform(3, vec![1.0]).unwrap()),
    };
    assert_eq!(problem.by_matrices(Rule::Lybrand2021), [0.0, 0.0, 0.0, 1.0], "middles go down");
}

#[test]
fn sweeps_never_raise_the_error() {
    let shape = Shape { samples: 200, features: 150, neurons: 140, levels: 4, positive: true, same: false };
    let problem = Problem::new(shape, 5);
    let [h, c] = problem.gram();
    let divisors = Problem::diagonal(&h);
    let target = matmul(&c, &problem.weights().t().unwrap()).unwrap().t().unwrap().contiguous();
    let error = |q: &[f32]| -> f64 {
        let q: Vec<f64> = q.iter().map(|q| f64::from(*q)).collect();
        let q = Tensor::from_vec([shape.neurons, shape.features], q).unwrap();
        let of = |data: &[f64], w: &Tensor| matmul(&problem.matrix(data), &w.t().unwrap()).unwrap();
        let (wanted, found) = (of(&problem.analog, &problem.weights()), of(&problem.quantized, &q));
        let (wanted, found) = (wanted.to_vec::<f64>().unwrap(), found.to_vec::<f64>().unwrap());
        wanted.iter().zip(found).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let mut characters = problem.by_matrices(Rule::Nearest);
    let mut last = error(&characters);
    let recursion = Recursion {
        target: Target::Given(&target),
        feedback: Some(&h),
        divisors: Some(&divisors),
        rule: Rule::Nearest,
    };
    for sweep in 0..4 {
        let start = Tensor::from_slice([shape.neurons, shape.features], &characters).unwrap();
        characters = recursion.sweep(&problem.weights(), &start, &problem.rounding).unwrap().to_vec().unwrap();
        let now = error(&characters);
        assert!(now <= last * (1.0 + 1e-12), "sweep {sweep}: {now} after {last}");
        assert!(sweep > 0 || now < 0.99 * last, "the first sweep gains nothing: {now} after {last}");
        last = now;
    }
}

#[test]
fn threads_and_the_order_of_neurons_change_nothing() {
    let shape = Shape { samples: 120, features: 200, neurons: 300, levels: 4, positive: true, same: false };
    let problem = Problem::new(shape, 6);
    let one = par::with_threads(1, || problem.by_matrices(Rule::Nearest)).unwrap();
    let (quantized, analog) = (problem.matrix(&problem.quantized), problem.matrix(&problem.analog));
    let narrow = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
    let (quantized, analog, weights) = (narrow(&quantized), narrow(&analog), narrow(&problem.weights()));
    let walk = || {
        let walk = Walk { quantized: &quantized, analog: Some(&analog), rule: Rule::Nearest };
        let walked = walk.quantize(&weights, &problem.rounding).unwrap();
        (walked.characters.to_vec::<f32>().unwrap(), walked.squared_errors)
    };
    let walked = par::with_threads(1, walk).unwrap();
    for threads in 2..=4 {
        assert_eq!(
            par::with_threads(threads, || problem.by_matrices(Rule::Nearest)).unwrap(),
            one,
            "{threads} threads"
        );
        assert_eq!(par::with_threads(threads, walk).unwrap(), walked, "{threads} threads");
    }
}

#[test]
fn data_that_are_not_finite_are_refused() {
    let shape = Shape { samples: 9, features: 4, neurons: 2, levels: 3, positive: true, same: false };
    let mut problem = Problem::new(shape, 7);
    problem.quantized[5] = f64::NAN;
    let [h, c] = problem.gram();
    let divisors = Problem::diagonal(&h);
    let recursion =
        Recursion { target: Target::Lower(&c), feedback: Some(&h), divisors: Some(&divisors), rule: Rule::Nearest };
    let message = recursion.quantize(&problem.weights(), &problem.rounding).unwrap_err().to_string();
    assert!(message.contains("feature 1"), "{message}");
    let (quantized, analog) = (problem.matrix(&problem.quantized), problem.matrix(&problem.analog));
    let walk = Walk { quantized: &quantized, analog: Some(&analog), rule: Rule::Nearest };
    assert!(walk.quantize(&problem.weights(), &problem.rounding).is_err());
}

#[test]
fn stochastic_characters_have_the_right_mean() {
    let grid = Grid::uniform(5, vec![0.5]).unwrap();
    let of = |seed, x| {
        let rounding = Rounding { grid: grid.clone(), mode: Mode::Stochastic { seed, layer: 3, pass: 0 } };
        (0..4000).map(|t| f64::from(rounding.round(t, 1, x))).sum::<f64>() / 4000.0
    };
    for x in [-0.9, -0.2, 0.0, 0.3, 0.77] {
        // Six standard deviations of the mean of 4,000 draws between neighbours at a distance of 0.5.
        assert!((of(0, x) - x).abs() < 6.0 * 0.25 / 4000f64.sqrt(), "{x}: {}", of(0, x));
        assert!(x == 0.0 || of(0, x) != of(1, x), "another seed gives other characters");
    }
    assert_eq!((of(0, 3.0), of(0, -3.0)), (1.0, -1.0), "clipped");
}

#[test]
fn thresholds_make_zeros() {
    let grid = Grid::uniform(9, vec![0.25]).unwrap();
    let soft = Rounding { grid: grid.clone(), mode: Mode::Soft { threshold: 0.3 } };
    assert_eq!([0.3, -0.42, 0.43, 0.6, -0.9, 9.0].map(|x| soft.round(0, 0, x)), [0.0, 0.0, 0.25, 0.25, -0.5, 1.0]);
    // Levels 0 and ± (threshold + k · step), in units of 0.25.
    let levels: Vec<f32> = vec![-4.0, -3.0, -2.0, 0.0, 2.0, 3.0, 4.0];
    let grid = Grid::new(levels, vec![0.25]).unwrap();
    let hard = Rounding { grid, mode: Mode::Hard { threshold: 0.5 } };
    assert_eq!([0.5, -0.5, 0.51, 0.7, -0.9, -3.0].map(|x| hard.round(0, 0, x)), [0.0, 0.0, 0.5, 0.75, -1.0, -1.0]);
}

#[test]
fn ties_and_zero_points() {
    let ternary = Grid::uniform(3, vec![1.0]).unwrap();
    for (ties, expected) in [(Ties::Down, [0.0, -1.0]), (Ties::Up, [1.0, 0.0])] {
        let rounding = Rounding { grid: ternary.clone(), mode: Mode::Nearest(ties) };
        assert_eq!([0.5, -0.5].map(|x| rounding.round(0, 0, x)), expected);
    }
    let asymmetric = Grid::new((0..4).map(|i| i as f32).collect(), vec![0.5, 1.0]).unwrap();
    let asymmetric = asymmetric.with_zero_points(vec![1.0, 3.0]).unwrap();
    let rounding = Rounding::nearest(asymmetric);
    assert_eq!([-9.0, -0.3, 0.1, 0.6, 9.0].map(|x| rounding.round(0, 0, x)), [-0.5, -0.5, 0.0, 0.5, 1.0]);
    assert_eq!([-9.0, -0.3, 9.0].map(|x| rounding.round(0, 1, x)), [-3.0, 0.0, 0.0]);
    assert_eq!(rounding.grid.level_of(1, -2.0), Some(1));
    assert_eq!(rounding.grid.level_of(1, -2.5), None);
}

proptest! {
    /// The closed form is the arg min over all characters, the lower one of two equals.
    #[test]
    fn nearest_is_the_arg_min(levels in 1usize..20, unit in 0.01f32..3.0, x in -10.0f64..10.0, mends in any::<bool>()) {
        let mut list = Grid::uniform(levels, vec![unit]).unwrap().levels().to_vec();
        if mends && levels % 2 == 0 {
            list.insert(levels / 2, 0.0);
        }
        let grid = Grid::new(list.clone(), vec![unit]).unwrap();
        let found = Rounding::nearest(grid.clone()).round(0, 0, x);
        let distance = |c: f64| (c * f64::from(unit) - x).abs();
        let best = list.iter().map(|level| distance(f64::from(*level))).fold(f64::INFINITY, f64::min);
        prop_assert!((f64::from(found) - x).abs() <= best + 1e-5 * f64::from(unit));
        prop_assert_eq!(grid.level_of(0, found).map(|i| grid.character(0, i)), Some(found));
    }

    /// Weights that are characters stay, where both networks see the same.
    #[test]
    fn characters_stay(seed in 0u64..1000) {
        let shape = Shape { samples: 30, features: 20, neurons: 3, levels: 4, positive: true, same: true };
        let mut problem = Problem::new(shape, seed);
        for j in 0..3 {
            for t in 0..20 {
                let x = problem.weights[j * 20 + t];
                problem.weights[j * 20 + t] = f64::from(problem.rounding.round(t, j, x));
            }
        }
        let found = problem.by_matrices(Rule::Nearest);
        for (i, (found, w)) in found.iter().zip(&problem.weights).enumerate() {
            // The feature without data says nothing of its weight.
            prop_assert!(i % 20 == 10 || f64::from(*found) == *w);
        }
    }
}
