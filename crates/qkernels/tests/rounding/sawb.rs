//! The constants of [`Sawb`], derived: the clips with the least mean square error of densities, and the two constants that fit them best.

use super::*;
use qkernels::rounding::{Clip, Format, Groups, Quantizer, Sawb, Statistics};

/// A density of magnitudes, as points of equal weight in `x`.
struct Density {
    x: Vec<f64>,
    p: Vec<f64>,
}

impl Density {
    fn new(from: f64, to: f64, density: impl Fn(f64) -> f64) -> Self {
        const POINTS: usize = 40_000;
        let x: Vec<f64> = (0..POINTS).map(|i| from + (to - from) * (i as f64 + 0.5) / POINTS as f64).collect();
        let p: Vec<f64> = x.iter().map(|x| density(*x)).collect();
        let total: f64 = p.iter().sum();
        Density { x, p: p.iter().map(|p| p / total).collect() }
    }

    fn mean(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.x.iter().zip(&self.p).map(|(x, p)| of(*x) * p).sum()
    }

    fn rms(&self) -> f64 {
        self.mean(|x| x * x).sqrt()
    }

    fn error(&self, clip: f64, steps: f64) -> f64 {
        let step = clip / steps;
        self.mean(|x| (x - (x / step).round().min(steps) * step).powi(2))
    }

    /// The clip with the least error: the best of a grid, then of a grid around it.
    fn best_clip(&self, steps: f64) -> f64 {
        let largest = self.x[self.x.len() - 1].min(12.0 * self.rms());
        let (mut best, mut width) = (largest / 2.0, largest / 2.0);
        for _ in 0..3 {
            let candidates = (-40..=40).map(|i| best + width * f64::from(i) / 40.0).filter(|c| *c > 0.05 * width);
            let errors = candidates.map(|clip| (clip, self.error(clip, steps)));
            best = errors.reduce(|a, b| if b.1 < a.1 { b } else { a }).unwrap().0;
            width /= 20.0;
        }
        best
    }
}

fn normal(x: f64) -> f64 {
    (-x * x / 2.0).exp()
}

fn dense() -> Vec<Density> {
    vec![Density::new(0.0, 7.0, normal), Density::new(0.0, 25.0, |x| (-x).exp()), Density::new(0.0, 1.0, |_| 1.0)]
}

/// Gaussian magnitudes above the threshold that prunes 80, 90, 95, 98 and 99 %.
fn magnitude_pruned() -> Vec<Density> {
    [1.281_552, 1.644_854, 1.959_964, 2.326_348, 2.575_829].map(|t| Density::new(t, t + 6.0, normal)).into()
}

/// Least squares of `clip / rms = c1 − c2 · mean / rms`.
fn fit(densities: &[Density], steps: f64) -> Sawb {
    let points: Vec<[f64; 2]> =
        densities.iter().map(|d| [d.mean(|x| x) / d.rms(), d.best_clip(steps) / d.rms()]).collect();
    let count = points.len() as f64;
    let [x, y] = [0, 1].map(|i| points.iter().map(|p| p[i]).sum::<f64>() / count);
    let covariance: f64 = points.iter().map(|p| (p[0] - x) * (p[1] - y)).sum();
    let slope = covariance / points.iter().map(|p| (p[0] - x).powi(2)).sum::<f64>();
    Sawb { rms: y - slope * x, magnitude: -slope }
}

#[test]
fn constants_are_least_squares_fits() {
    let cases = [
        (dense(), 127.0, Sawb::DENSE),
        (magnitude_pruned(), 127.0, Sawb::PRUNED),
        (dense(), 255.0, Sawb::NON_NEGATIVE),
    ];
    for (densities, steps, constants) in cases {
        let found = fit(&densities, steps);
        // The least error is so flat in the clip that the grid of the search shows in the third digit.
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 0.02;
        assert!(
            close(found.rms, constants.rms) && close(found.magnitude, constants.magnitude),
            "{found:?} {constants:?}"
        );
        for density in &densities {
            let clip = constants.rms * density.rms() - constants.magnitude * density.mean(|x| x);
            let best = density.error(density.best_clip(steps), steps);
            let largest = density.x[density.x.len() - 1];
            // What the constants are used with: nothing above the largest value, and nothing of flat values that are never negative.
            let is_flat = steps == 255.0 && density.mean(|x| x) > 0.81 * density.rms();
            let error = density.error(if is_flat { largest } else { clip.min(largest) }, steps);
            assert!(error <= 1.35 * best, "{error} with clip {clip}, {best} is possible");
        }
    }
}

#[test]
fn the_data_choose_the_constants() {
    let uniform = stream(1).uniform_tensor([20_000], -2.0, 2.0).unwrap();
    let laplace = Tensor::from_vec(
        [20_000],
        uniform.to_vec::<f32>().unwrap().iter().map(|x| x.signum() * (1.0 - x.abs() / 2.0).max(1e-6).ln()).collect(),
    )
    .unwrap();
    let normal = gaussian(&[20_000], 2);
    let chosen = |x: &Tensor, format| Sawb::fitted(format, &Statistics::of(x, &Groups::Tensor).unwrap()[0]);
    for (x, expected, non_negative) in [
        (&normal, Sawb::DENSE, Some(Sawb::NON_NEGATIVE)),
        (&laplace, Sawb::DENSE, Some(Sawb::NON_NEGATIVE)),
        (&uniform, Sawb::PRUNED, None),
        (&pruned(100_000, 0.9), Sawb::PRUNED, None),
        (&pruned(100_000, 0.5), Sawb::PRUNED, None),
    ] {
        assert_eq!((chosen(x, Format::Signed), chosen(x, Format::Unsigned)), (Some(expected), non_negative));
        for format in [Format::Signed, Format::Unsigned] {
            let magnitudes = x.to_vec::<f32>().unwrap().iter().map(|x| x.abs()).collect();
            let x = if format == Format::Signed { x.clone() } else { Tensor::from_vec(x.shape(), magnitudes).unwrap() };
            let error = |clip: Clip| {
                let quantizer = Quantizer::choose(&x, Groups::Tensor, format, clip).unwrap();
                relative_error(&quantizer.dequantize(&quantizer.quantize(&x, Rounding::Nearest).unwrap()).unwrap(), &x)
            };
            let (sawb, best) = (error(Clip::Sawb), error(Clip::Mse));
            assert!(sawb < 1.25 * best, "{format:?}: {sawb}, {best} is possible");
        }
    }
}
