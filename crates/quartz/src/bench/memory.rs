//! Peak memory of training steps, taken as PyTorch's figures are: what the process held at most during three steps, less what it held with
//! model, batch and optimizer ready. Each network runs in a process of its own, since a maximum cannot be taken back.

use super::Bencher;
use super::process::status;
use super::steps::{Subject, Training, Variant, subjects};
use crate::args::Bench;
use crate::failure::Failure;
use qkernels::gemm::matmul;
use serde::Serialize;
use std::process::{Command, Stdio};

/// Steps that are looked at, the first of which allocates most.
const STEPS: usize = 3;
/// Sides of a product that starts the threads before memory is looked at.
const WARM_UP: [usize; 2] = [256, 256];

#[derive(Serialize)]
struct Key {
    bench: &'static str,
    model: &'static str,
    batch: usize,
    #[serde(flatten)]
    variant: Variant,
}

/// A row for each network.
pub(super) fn run(bencher: &Bencher, arguments: &Bench) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let threads = qkernels::par::threads().to_string();
    for subject in subjects(arguments) {
        let Subject { name, batch, precision, backward, .. } = subject;
        let child = Command::new(&program)
            .args(["bench", "memory", "--in-this-process", "--threads", &threads])
            .args(["--model", name, "--batch", &batch.to_string(), "--precision", precision.name()])
            .args(["--backward", backward.name()])
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8_lossy(&child.stdout);
        let Ok(bytes) = text.trim().parse::<u64>() else {
            return Err(Failure::usage(format!(
                "bench memory: the process for {name} told no bytes but {:?}",
                text.trim()
            )));
        };
        let key = Key { bench: "step_memory", model: name, batch, variant: subject.variant() };
        bencher.row(key, &[("bytes", bytes as f64)])?;
    }
    Ok(())
}

/// Prints the bytes of one network: this process is its own.
pub(super) fn measure(arguments: &Bench) -> Result<(), Failure> {
    let Some(subject) = subjects(arguments).next() else {
        return Err(Failure::usage("bench memory: no such network"));
    };
    let mut training = Training::new(&subject)?;
    let square = super::gemm::normal(WARM_UP)?;
    matmul(&square, &square)?;
    let unknown = || Failure::usage("bench memory needs /proc/self/status, which only Linux has");
    let before = status("VmRSS:").ok_or_else(unknown)?;
    qkernels::par::install(|| (0..STEPS).try_for_each(|_| training.step()))?;
    println!("{}", status("VmHWM:").ok_or_else(unknown)?.saturating_sub(before));
    Ok(())
}
