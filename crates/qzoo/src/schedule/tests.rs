//! The reference numbers are those of `torch.optim.lr_scheduler` (PyTorch 2.9.1) at a base rate of 0.1 unless given.

use super::*;
use crate::experiment::{Constant, Cosine, CosineRestarts, MultiStep, OneCycle, Poly, ScheduleUnit as Unit, Step};

/// Length and start of the warm-up, steps an epoch and epochs.
#[derive(Clone, Copy)]
struct Span {
    warm_up: [f64; 2],
    steps: u64,
    epochs: u64,
}

const fn span(steps: u64, epochs: u64) -> Span {
    Span { warm_up: [0.0, 0.0], steps, epochs }
}

/// A schedule for a base rate of 0.1.
fn schedule(shape: &Shape, unit: Unit, span: Span) -> Schedule {
    let [warmup_epochs, warmup_start] = span.warm_up;
    let config = experiment::Schedule { shape: shape.clone(), unit, warmup_epochs, warmup_start };
    Schedule::new(&config, 0.1, span.steps, span.epochs)
}

/// Compares the rate in each listed epoch of seven steps.
fn assert_epochs(shape: Shape, epochs: u64, expected: &[(u64, f64)]) {
    let by_epoch = schedule(&shape, Unit::Epoch, span(7, epochs));
    for &(epoch, rate) in expected {
        for step in [epoch * 7, epoch * 7 + 3, epoch * 7 + 6] {
            assert_close(by_epoch.lr(step), rate, &shape, step);
        }
    }
    // With one step an epoch, both units are the same thing.
    assert_steps(&schedule(&shape, Unit::Step, span(1, epochs)), expected);
}

fn assert_steps(schedule: &Schedule, expected: &[(u64, f64)]) {
    for &(step, rate) in expected {
        assert_close(schedule.lr(step), rate, &schedule.config.shape, step);
        assert_close(schedule.factor(step) * 0.1, rate, &schedule.config.shape, step);
    }
}

fn assert_close(found: f64, expected: f64, shape: &Shape, step: u64) {
    assert!((found - expected).abs() < 1e-11 + 1e-10 * expected, "{shape:?} at {step}: {found} against {expected}");
}

#[test]
fn constant_step_and_multi_step() {
    assert_epochs(Shape::Constant(Constant {}), 5, &[(0, 0.1), (4, 0.1), (9, 0.1)]);
    let step = Shape::Step(Step { step_size: 3, gamma: 0.5 });
    assert_epochs(step, 10, &[(0, 0.1), (2, 0.1), (3, 0.05), (5, 0.05), (6, 0.025), (9, 0.0125)]);
    let multi = Shape::MultiStep(MultiStep { milestones: vec![2, 5], gamma: 0.1 });
    assert_epochs(multi, 8, &[(0, 0.1), (1, 0.1), (2, 0.01), (4, 0.01), (5, 0.001), (7, 0.001)]);
}

#[test]
fn cosine() {
    let expected =
        [(0, 0.1), (1, 0.0993905728595), (5, 0.0855017856687), (10, 0.0505), (19, 0.00160942714054), (30, 1e-3)];
    assert_epochs(Shape::Cosine(Cosine { final_lr: 1e-3 }), 20, &expected);
}

#[test]
fn cosine_restarts() {
    let expected = [
        (0, 0.1),
        (1, 0.0855017856687),
        (3, 0.0154982143313),
        (4, 0.1),
        (5, 0.0962320368593),
        (11, 0.00476796314069),
        (12, 0.1),
        (20, 0.0505),
        (27, 0.00195112862004),
        (28, 0.1),
    ];
    let doubling = CosineRestarts { period: 4, period_factor: 2, final_lr: 1e-3 };
    assert_epochs(Shape::CosineRestarts(doubling), 60, &expected);
    let expected = [(0, 0.1), (1, 0.075), (2, 0.025), (3, 0.1), (4, 0.075), (5, 0.025), (6, 0.1), (7, 0.075)];
    let even = CosineRestarts { period: 3, period_factor: 1, final_lr: 0.0 };
    assert_epochs(Shape::CosineRestarts(even), 8, &expected);
}

#[test]
fn restarts_begin_exactly_where_the_series_says() {
    for period_factor in [2, 3, 4, 7] {
        let shape = Shape::CosineRestarts(CosineRestarts { period: 3, period_factor, final_lr: 0.0 });
        let schedule = schedule(&shape, Unit::Epoch, span(7, 1_000_000));
        let (mut start, mut length) = (0, 3);
        for _ in 0..8 {
            assert_eq!(schedule.lr(start * 7), 0.1, "start of a cycle at {start}, factor {period_factor}");
            start += length;
            assert!(schedule.lr((start - 1) * 7) < 0.03, "end of a cycle at {start}, factor {period_factor}");
            length *= period_factor as u64;
        }
    }
}

#[test]
fn poly() {
    let expected = [(0, 0.1), (1, 0.081), (5, 0.025), (9, 0.001)];
    assert_epochs(Shape::Poly(Poly { power: 2.0, final_lr: 0.0 }), 10, &expected);
}

#[test]
fn one_cycle() {
    let default = schedule(&Shape::OneCycle(OneCycle::default()), Unit::Step, span(10, 5));
    let expected = [
        (0, 0.004),
        (1, 0.00520346021527),
        (7, 0.052),
        (14, 0.1),
        (15, 0.0997987155049),
        (30, 0.0567118364442),
        (49, 4e-7),
    ];
    assert_steps(&default, &expected);
    // `OneCycleLR(max_lr=0.3, total_steps=33, pct_start=0.25, div_factor=10, final_div_factor=100)`.
    let other = OneCycle { pct_start: 0.25, div_factor: 10.0, final_div_factor: 100.0, anneal: Anneal::Cosine };
    let config = experiment::Schedule { shape: Shape::OneCycle(other), ..Default::default() };
    let other = Schedule::new(&config, 0.3, 11, 3);
    let expected = [
        (0, 0.03),
        (1, 0.0424773183444),
        (4, 0.186840569535),
        (7, 0.299208624216),
        (8, 0.299321467598),
        (20, 0.143019849914),
        (32, 0.0003),
    ];
    expected.iter().for_each(|&(step, rate)| assert_close(other.lr(step), rate, &config.shape, step));
    // The same with `anneal_strategy="linear"` and 20 steps.
    let linear = OneCycle { anneal: Anneal::Linear, ..OneCycle::default() };
    let linear = schedule(&Shape::OneCycle(linear), Unit::Step, span(10, 2));
    let expected = [(0, 0.004), (1, 0.0232), (4, 0.0808), (5, 0.1), (6, 0.0928571714286), (12, 0.0500002), (19, 4e-7)];
    assert_steps(&linear, &expected);
}

/// `SequentialLR` of `LinearLR(0.2, 1.0, 5)` and `CosineAnnealingLR(15, 1e-3)`.
#[test]
fn warm_up_then_cosine() {
    let shape = Shape::Cosine(Cosine { final_lr: 1e-3 });
    let schedule = schedule(&shape, Unit::Step, Span { warm_up: [1.0, 0.2], ..span(5, 4) });
    let expected = [
        (0, 0.02),
        (1, 0.036),
        (4, 0.084),
        (5, 0.1),
        (6, 0.0989183062363),
        (12, 0.0556741589317),
        (19, 0.00208169376368),
    ];
    assert_steps(&schedule, &expected);
}

#[test]
fn warm_up_by_step_before_epochs() {
    let shape = Shape::Cosine(Cosine { final_lr: 0.0 });
    let schedule = schedule(&shape, Unit::Epoch, Span { warm_up: [2.0, 0.0], ..span(4, 6) });
    let expected = [(0, 0.0), (2, 0.025), (4, 0.05), (8, 0.1), (11, 0.1), (16, 0.05), (19, 0.05)];
    assert_steps(&schedule, &expected);
}

#[test]
fn every_shape_stays_within_its_rates_at_the_edges() {
    let shapes = [
        Shape::Constant(Constant {}),
        Shape::Step(Step { step_size: 1, gamma: 0.1 }),
        Shape::MultiStep(MultiStep { milestones: vec![0, 1], gamma: 0.1 }),
        Shape::Cosine(Cosine { final_lr: 0.0 }),
        Shape::CosineRestarts(CosineRestarts { period: 1, period_factor: 2, final_lr: 0.0 }),
        Shape::Poly(Poly { power: 0.9, final_lr: 0.0 }),
        Shape::OneCycle(OneCycle { pct_start: 0.01, ..OneCycle::default() }),
        Shape::OneCycle(OneCycle { pct_start: 0.99, ..OneCycle::default() }),
    ];
    for shape in shapes {
        for (epochs, warm) in [(1, 0.0), (1, 1.0), (3, 0.5), (2, 5.0)] {
            for unit in [Unit::Step, Unit::Epoch] {
                let schedule = schedule(&shape, unit, Span { warm_up: [warm, 0.1], ..span(1, epochs) });
                for step in 0..20 {
                    let rate = schedule.lr(step);
                    assert!(
                        (0.0..=0.1 + 1e-12).contains(&rate),
                        "{shape:?} {unit:?} {epochs} {warm} at {step}: {rate}"
                    );
                }
            }
        }
    }
}
