//! The reference numbers are those of `torch.optim.lr_scheduler` (PyTorch 2.9.1) at a base rate of 0.1 unless given.

use super::*;

const NO_WARM_UP: WarmUp = WarmUp { epochs: 0.0, start: 0.0 };

fn by_epoch(form: Form, epochs: u64) -> Schedule {
    Schedule::new(form, Unit::Epoch, NO_WARM_UP, 7, epochs)
}

/// Compares the rate in the middle of each listed epoch of seven steps.
fn assert_epochs(form: Form, epochs: u64, expected: &[(u64, f64)]) {
    let schedule = by_epoch(form.clone(), epochs);
    for &(epoch, rate) in expected {
        for step in [epoch * 7, epoch * 7 + 3, epoch * 7 + 6] {
            assert_close(schedule.lr(0.1, step), rate, &form, step);
        }
    }
    // With one step an epoch, both units are the same thing.
    let schedule = Schedule::new(form.clone(), Unit::Step, NO_WARM_UP, 1, epochs);
    expected.iter().for_each(|&(step, rate)| assert_close(schedule.lr(0.1, step), rate, &form, step));
}

fn assert_close(found: f64, expected: f64, form: &Form, step: u64) {
    assert!((found - expected).abs() < 1e-11 + 1e-10 * expected, "{form:?} at {step}: {found} against {expected}");
}

#[test]
fn constant_step_and_multi_step() {
    assert_epochs(Form::Constant, 5, &[(0, 0.1), (4, 0.1), (9, 0.1)]);
    let step = Form::Step { every: 3.0, gamma: 0.5 };
    assert_epochs(step, 10, &[(0, 0.1), (2, 0.1), (3, 0.05), (5, 0.05), (6, 0.025), (9, 0.0125)]);
    let multi = Form::MultiStep { milestones: vec![2.0, 5.0], gamma: 0.1 };
    assert_epochs(multi, 8, &[(0, 0.1), (1, 0.1), (2, 0.01), (4, 0.01), (5, 0.001), (7, 0.001)]);
}

#[test]
fn cosine() {
    let expected =
        [(0, 0.1), (1, 0.0993905728595), (5, 0.0855017856687), (10, 0.0505), (19, 0.00160942714054), (30, 1e-3)];
    assert_epochs(Form::Cosine { final_lr: 1e-3 }, 20, &expected);
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
    assert_epochs(Form::CosineRestarts { first: 4.0, factor: 2.0, final_lr: 1e-3 }, 60, &expected);
    let expected = [(0, 0.1), (1, 0.075), (2, 0.025), (3, 0.1), (4, 0.075), (5, 0.025), (6, 0.1), (7, 0.075)];
    assert_epochs(Form::CosineRestarts { first: 3.0, factor: 1.0, final_lr: 0.0 }, 8, &expected);
}

#[test]
fn restarts_begin_exactly_where_the_series_says() {
    for factor in [2.0f64, 3.0, 4.0] {
        let schedule = by_epoch(Form::CosineRestarts { first: 3.0, factor, final_lr: 0.0 }, 100_000);
        let (mut start, mut length) = (0.0, 3.0);
        for _ in 0..9 {
            assert_eq!(schedule.lr(0.1, start as u64 * 7), 0.1, "start of a cycle at {start}, factor {factor}");
            start += length;
            assert!(schedule.lr(0.1, (start as u64 - 1) * 7) < 0.03, "end of a cycle at {start}, factor {factor}");
            length *= factor;
        }
    }
}

#[test]
fn poly() {
    let expected = [(0, 0.1), (1, 0.081), (5, 0.025), (9, 0.001)];
    assert_epochs(Form::Poly { power: 2.0, final_lr: 0.0 }, 10, &expected);
}

#[test]
fn one_cycle() {
    let form = Form::OneCycle { rise: 0.3, start_divisor: 25.0, final_divisor: 1e4 };
    let schedule = Schedule::new(form.clone(), Unit::Step, NO_WARM_UP, 10, 5);
    let expected = [
        (0, 0.004),
        (1, 0.00520346021527),
        (7, 0.052),
        (14, 0.1),
        (15, 0.0997987155049),
        (30, 0.0567118364442),
        (49, 4e-7),
    ];
    expected.iter().for_each(|&(step, rate)| assert_close(schedule.lr(0.1, step), rate, &form, step));
    let form = Form::OneCycle { rise: 0.25, start_divisor: 10.0, final_divisor: 100.0 };
    let schedule = Schedule::new(form.clone(), Unit::Step, NO_WARM_UP, 11, 3);
    let expected = [
        (0, 0.03),
        (1, 0.0424773183444),
        (4, 0.186840569535),
        (7, 0.299208624216),
        (8, 0.299321467598),
        (20, 0.143019849914),
        (32, 0.0003),
    ];
    expected.iter().for_each(|&(step, rate)| assert_close(schedule.lr(0.3, step), rate, &form, step));
}

/// `SequentialLR` of `LinearLR(0.2, 1.0, 5)` and `CosineAnnealingLR(15, 1e-3)`.
#[test]
fn warm_up_then_cosine() {
    let form = Form::Cosine { final_lr: 1e-3 };
    let warm_up = WarmUp { epochs: 1.0, start: 0.2 };
    let schedule = Schedule::new(form.clone(), Unit::Step, warm_up, 5, 4);
    let expected = [
        (0, 0.02),
        (1, 0.036),
        (4, 0.084),
        (5, 0.1),
        (6, 0.0989183062363),
        (12, 0.0556741589317),
        (19, 0.00208169376368),
    ];
    expected.iter().for_each(|&(step, rate)| assert_close(schedule.lr(0.1, step), rate, &form, step));
}

#[test]
fn warm_up_by_step_before_epochs() {
    let warm_up = WarmUp { epochs: 2.0, start: 0.0 };
    let schedule = Schedule::new(Form::Cosine { final_lr: 0.0 }, Unit::Epoch, warm_up, 4, 6);
    assert_eq!(schedule.lr(0.8, 0), 0.0);
    assert_eq!(schedule.lr(0.8, 4), 0.4);
    assert_eq!(schedule.lr(0.8, 8), 0.8);
    assert_eq!(schedule.lr(0.8, 11), 0.8);
    assert!((schedule.lr(0.8, 16) - 0.4).abs() < 1e-12);
}

#[test]
fn every_form_stays_finite_at_the_edges() {
    let forms = [
        Form::Constant,
        Form::Step { every: 0.5, gamma: 0.1 },
        Form::MultiStep { milestones: vec![], gamma: 0.1 },
        Form::Cosine { final_lr: 0.0 },
        Form::CosineRestarts { first: 1.0, factor: 1.5, final_lr: 0.0 },
        Form::Poly { power: 0.9, final_lr: 0.0 },
        Form::OneCycle { rise: 0.0, start_divisor: 25.0, final_divisor: 1e4 },
        Form::OneCycle { rise: 1.0, start_divisor: 25.0, final_divisor: 1e4 },
    ];
    for form in forms {
        for (epochs, warm) in [(1, 0.0), (1, 1.0), (3, 0.5), (2, 5.0)] {
            for unit in [Unit::Step, Unit::Epoch] {
                let warm_up = WarmUp { epochs: warm, start: 0.1 };
                let schedule = Schedule::new(form.clone(), unit, warm_up, 1, epochs);
                for step in 0..20 {
                    let rate = schedule.lr(0.1, step);
                    assert!((0.0..=0.1 + 1e-12).contains(&rate), "{form:?} {unit:?} {epochs} {warm} at {step}: {rate}");
                }
            }
        }
    }
}
