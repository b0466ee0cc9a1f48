//! Convolutions: the forward pass, and both gradients together.

use super::{Bencher, gemm::normal};
use crate::failure::Failure;
use qkernels::Activation;
use qkernels::conv::shapes::STANDARD;
use qkernels::conv::{Algorithm, Conv2dParams, Direction, Operands};
use qkernels::conv::{conv2d, conv2d_input_grad, conv2d_weight_grad, explain, run_with};
use serde::Serialize;

#[derive(Clone, Copy, Serialize)]
struct Key {
    bench: &'static str,
    n: usize,
    c: usize,
    k: usize,
    hw: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    groups: usize,
}

/// A row for each shape, or for each algorithm that fits it; the standard shapes where none is given.
pub(super) fn run(bencher: &Bencher, shapes: &[[usize; 8]], explain: bool) -> Result<(), Failure> {
    let shapes = if shapes.is_empty() { &STANDARD[..] } else { shapes };
    for &[n, c, k, hw, kernel, stride, pad, groups] in shapes {
        if groups == 0 || stride == 0 || c % groups != 0 || k % groups != 0 {
            return Err(Failure::usage(format!(
                "--shape: {c} and {k} channels do not fit {groups} groups and stride {stride}"
            )));
        }
        let params = Conv2dParams { stride: [stride; 2], padding: [pad; 2], groups, ..Default::default() };
        let x = normal([n, c, hw, hw])?.to_channels_last();
        let w = normal([k, c / groups, kernel, kernel])?;
        let y = conv2d(&x, &w, None, &params, Activation::None)?;
        let dy = normal(y.shape())?.to_channels_last();
        let key = Key { bench: "conv_f32", n, c, k, hw, kernel, stride, pad, groups };
        if explain {
            compare(bencher, &key, &params, Operands { x: &x, w: &w, dy: &dy })?;
            continue;
        }
        let forward = bencher.time(|| conv2d(&x, &w, None, &params, Activation::None).map(drop))?;
        let backward = bencher.time(|| {
            conv2d_input_grad(&dy, &w, x.shape(), &params)?;
            conv2d_weight_grad(&x, &dy, w.shape(), &params).map(drop)
        })?;
        let gflop = 2.0 * (y.numel() * (c / groups) * kernel * kernel) as f64 / 1e9;
        let measured = [
            ("fwd_seconds", forward),
            ("fwd_gflops", gflop / forward),
            ("bwd_seconds", backward),
            ("bwd_gflops", 2.0 * gflop / backward),
            ("of_peak", bencher.of_peak(3.0 * gflop / (forward + backward))),
        ];
        bencher.row(key, &measured)?;
    }
    Ok(())
}

/// A row for each direction and algorithm.
#[derive(Serialize)]
struct Comparison {
    #[serde(flatten)]
    key: Key,
    direction: &'static str,
    algorithm: &'static str,
    chosen: bool,
}

/// Every algorithm that fits: its estimate on one core of a nominal machine, of which only the order means something, and its time on all threads.
fn compare(bencher: &Bencher, key: &Key, params: &Conv2dParams, operands: Operands) -> Result<(), Failure> {
    if !bencher.json {
        let Key { n, c, k, hw, kernel, stride, pad, groups, .. } = key;
        println!(
            "batch {n}, channels {c} to {k}, image {hw}×{hw}, kernel {kernel}, stride {stride}, padding {pad}, groups {groups}"
        );
    }
    for explanation in explain(params, operands.x.shape(), operands.w.shape())? {
        let direction = match explanation.direction {
            Direction::Forward => "forward",
            Direction::InputGrad => "input gradient",
            Direction::WeightGrad => "weight gradient",
        };
        for candidate in explanation.candidates {
            let algorithm = candidate.algorithm;
            let chosen = algorithm == explanation.choice;
            // Textbook loops take minutes, and only fit where nothing else does.
            let measured = match algorithm {
                Algorithm::Loops => None,
                _ => Some(bencher.time(|| run_with(algorithm, explanation.direction, operands, params).map(drop))?),
            };
            if bencher.json {
                let row = Comparison {
                    key: Key { bench: "conv_choice", ..*key },
                    direction,
                    algorithm: algorithm.name(),
                    chosen,
                };
                let measured = measured.map(|seconds| ("seconds", seconds));
                let fields: Vec<_> =
                    std::iter::once(("estimate_seconds", candidate.estimate)).chain(measured).collect();
                bencher.row(row, &fields)?;
            } else {
                let measured =
                    measured.map_or("not measured".to_string(), |seconds| format!("{:9.3} ms", seconds * 1e3));
                println!(
                    "  {direction:15}  {:12}  estimate {:9.3} ms  measured {measured}{}",
                    algorithm.name(),
                    candidate.estimate * 1e3,
                    if chosen { "  chosen" } else { "" }
                );
            }
        }
    }
    Ok(())
}
