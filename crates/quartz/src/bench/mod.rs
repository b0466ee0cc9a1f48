//! `bench`: speeds of kernels and whole steps, in the form of PyTorch's figures, so that a comparison can match them row by row.

mod conv;
mod gemm;
mod linear;
mod memory;
mod process;
mod qlinear;
mod quantize;
mod sparse;
mod steps;
mod timing;

use crate::args::{Bench, Benchmark, Shape};
use crate::failure::Failure;
use serde::Serialize;
use serde_json::{Map, Value};

/// The networks of `infer` and `train`.
pub(crate) use steps::NETWORKS;

/// Where rows go, and what every measurement needs.
pub(crate) struct Bencher {
    json: bool,
    repeat: u32,
    peak_gflops: f64,
}

impl Bencher {
    /// The median time of one call in seconds.
    fn time<E>(&self, work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
        timing::median(self.repeat, work)
    }

    /// The median of each of the times that a call measures of its parts, in seconds.
    fn times<const N: usize, E>(&self, work: impl FnMut() -> Result<[f64; N], E>) -> Result<[f64; N], E> {
        timing::medians(self.repeat, work)
    }

    /// Prints a row: the fields that name it, then what was measured.
    fn row(&self, key: impl Serialize, measured: &[(&str, f64)]) -> Result<(), Failure> {
        self.row_with(key, measured, &[])
    }

    /// As [`row`](Self::row), with `notes` that only people read: rows of the peer's figures have no such fields.
    fn row_with(&self, key: impl Serialize, measured: &[(&str, f64)], notes: &[(&str, f64)]) -> Result<(), Failure> {
        let Value::Object(mut row) = serde_json::to_value(key)? else { return Ok(()) };
        for (name, value) in measured.iter().chain(notes.iter().filter(|_| !self.json)) {
            row.insert((*name).to_string(), Value::from(*value));
        }
        if self.json {
            println!("{}", Value::Object(row))
        } else {
            println!("{}", line(&row))
        }
        Ok(())
    }

    /// The share of the measured peak that a rate in GFLOP/s is.
    fn of_peak(&self, gflops: f64) -> f64 {
        gflops / self.peak_gflops
    }
}

fn line(row: &Map<String, Value>) -> String {
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) if name == "bench" => format!("{text:12}"),
        Value::String(text) => format!("{name}={text}"),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            match name.as_str() {
                name if name.ends_with("seconds") => {
                    format!("{} {:.3} ms", name.trim_end_matches("seconds").trim_end_matches('_'), number * 1e3)
                }
                name if name.ends_with("_error") => format!("{name} {number:.4}"),
                name if name.ends_with("of_peak") => format!("{name} {:.1} %", number * 100.0),
                "bytes" => format!("{:.1} MiB", number / 1024.0 / 1024.0),
                "sparsity" => format!("{name} {number}"),
                name => format!("{name} {number:.1}"),
            }
        }
        value => format!("{name}={value}"),
    };
    row.iter().map(field).collect::<Vec<_>>().join("  ")
}

/// Runs the benchmarks that were asked for.
pub(crate) fn run(arguments: &Bench) -> Result<(), Failure> {
    if arguments.in_this_process {
        return memory::measure(arguments);
    }
    let standard = [Benchmark::Gemm, Benchmark::Conv, Benchmark::Linear, Benchmark::Infer, Benchmark::Train];
    let what = if arguments.what.is_empty() { &standard[..] } else { &arguments.what[..] };
    let peak_gflops = qkernels::peak::multiply_add_peak(qkernels::par::threads())?;
    let bencher = Bencher { json: arguments.json, repeat: arguments.repeat, peak_gflops };
    let environment = serde_json::json!({
        "bench": "environment",
        "version": env!("CARGO_PKG_VERSION"),
        "isa": qkernels::isa::current().name(),
        "threads": qkernels::par::threads(),
    });
    bencher.row(environment, &[("peak_gflops", peak_gflops)])?;
    for benchmark in what {
        let shapes = &arguments.shapes;
        match benchmark {
            Benchmark::Gemm => gemm::run(&bencher, &of_length::<3>(shapes))?,
            Benchmark::Conv => conv::run(&bencher, &of_length::<8>(shapes), arguments.explain)?,
            Benchmark::Linear => linear::run(&bencher, &of_length::<3>(shapes))?,
            Benchmark::Qlinear => qlinear::run(&bencher, &of_length::<3>(shapes))?,
            Benchmark::Quantize => quantize::run(&bencher, &of_length::<3>(shapes))?,
            Benchmark::Sparse => sparse::run(&bencher, arguments)?,
            Benchmark::Infer => steps::infer(&bencher, arguments)?,
            Benchmark::Train => steps::train(&bencher, arguments)?,
            Benchmark::Memory => memory::run(&bencher, arguments)?,
            Benchmark::Peak => {
                let key = serde_json::json!({"bench": "peak", "threads": qkernels::par::threads()});
                bencher.row(key, &[("gflops", peak_gflops)])?;
            }
        }
    }
    Ok(())
}

fn of_length<const N: usize>(shapes: &[Shape]) -> Vec<[usize; N]> {
    shapes.iter().filter_map(|shape| shape.0[..].try_into().ok()).collect()
}
