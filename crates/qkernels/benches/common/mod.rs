//! What the benchmarks share: a run for each instruction set, short measurements, and shares of the machine's peak.

#![allow(dead_code, reason = "each benchmark uses a part")]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use qkernels::{isa, par, peak};
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the benchmarks with the instruction set that `QUARTZ_ISA` names, or once with each that the CPU has: a process chooses only once.
pub(crate) fn run(benches: fn(&mut Criterion)) {
    if std::env::var_os("QUARTZ_ISA").is_some() {
        let criterion = Criterion::default().warm_up_time(Duration::from_millis(100));
        let mut criterion =
            criterion.measurement_time(Duration::from_millis(300)).sample_size(10).configure_from_args();
        benches(&mut criterion);
        criterion.final_summary();
        return;
    }
    let program = std::env::current_exe().expect("a running program has a path");
    for id in isa::available() {
        let status = Command::new(&program).args(std::env::args_os().skip(1)).env("QUARTZ_ISA", id.name()).status();
        assert!(status.is_ok_and(|status| status.success()), "the benchmarks with {} failed", id.name());
    }
}

/// A group that is named after the instruction set, with the peak of its arithmetic.
pub(crate) struct Rates<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    peak: f64,
}

impl<'a> Rates<'a> {
    /// `name/instruction set`. Throughput counts operations, so that 1 Gelem/s is 1 GFLOP/s.
    pub(crate) fn new(criterion: &'a mut Criterion, name: &str) -> Self {
        let peak = peak::multiply_add_peak(par::threads()).expect("threads for a measurement");
        let isa = isa::current().name();
        println!("{name}: {isa}, {} threads, multiply-add peak {peak:.0} GFLOP/s", par::threads());
        let mut group = criterion.benchmark_group(format!("{name}/{isa}"));
        group.sampling_mode(SamplingMode::Flat);
        Rates { group, peak }
    }

    /// Measures `work` of so many operations, then prints its best rate and the share of the peak. Returns its best time in seconds, infinite where the
    /// command line leaves it out.
    pub(crate) fn bench<R>(&mut self, name: &str, operations: usize, mut work: impl FnMut() -> R) -> f64 {
        let mut best = f64::INFINITY;
        self.group.throughput(Throughput::Elements(operations as u64));
        self.group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                for _ in 0..count {
                    black_box(work());
                }
                let time = start.elapsed();
                best = best.min(time.as_secs_f64() / count as f64);
                time
            });
        });
        if best.is_finite() {
            let rate = operations as f64 / best / 1e9;
            println!("{:24}best:  {rate:.1} GFLOP/s, {:.1} % of the peak", "", 100.0 * rate / self.peak);
        }
        best
    }
}
