//! All checks, cheapest first. The first failure ends the run.

use crate::{house, shell};
use std::time::Instant;

type Stage = (&'static str, fn() -> Result<(), String>);

const STAGES: &[Stage] = &[
    ("formatting", || shell::run_cargo("fmt --all --check", &[])),
    ("crate edges and unsafe code", house::check),
    ("lints", || shell::run_cargo("clippy --workspace --all-targets --locked -- -D warnings", &[])),
    ("lints without default features", || {
        shell::run_cargo("clippy --package qtensor --package qzoo --no-default-features --locked -- -D warnings", &[])
    }),
    ("tests", || test(&[])),
    ("documentation", || shell::run_cargo("doc --workspace --no-deps --locked", &[("RUSTDOCFLAGS", "-D warnings")])),
];

/// Runs every stage.
pub(crate) fn run() -> Result<(), String> {
    let start = Instant::now();
    for (name, stage) in STAGES {
        eprintln!("== {name}");
        let begin = Instant::now();
        stage().map_err(|message| format!("{name}: {message}"))?;
        eprintln!("== {name}: passed in {:.0} s", begin.elapsed().as_secs_f64());
    }
    eprintln!("all stages passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The seed of the property tests, so that a failure repeats. Set the variable to another number to search elsewhere.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20");

/// All tests of the workspace, and the kernels' once more for every other instruction set of this CPU.
pub(crate) fn test(arguments: &[String]) -> Result<(), String> {
    let seed: &[_] = if std::env::var_os(PROPERTY_SEED.0).is_some() { &[] } else { &[PROPERTY_SEED] };
    shell::run_cargo(&format!("test --workspace --locked {}", arguments.join(" ")), seed)?;
    // As parts of the workspace: alone, the package would be built again with the features that it needs itself. Its unit tests try every instruction set anyway.
    let kernels: String = kernel_tests()?.iter().map(|name| format!("--test {name} ")).collect();
    for isa in instruction_sets().iter().skip(1) {
        eprintln!("== kernels with QUARTZ_ISA={isa}");
        let line = format!("test --workspace --locked {kernels}{}", arguments.join(" "));
        shell::run_cargo(&line, &[seed, &[("QUARTZ_ISA", isa)]].concat())?;
    }
    Ok(())
}

/// The integration tests of the kernels.
fn kernel_tests() -> Result<Vec<String>, String> {
    let folder = shell::root().join("crates/qkernels/tests");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let sources = files.filter(|file| file.extension().is_some_and(|e| e == "rs"));
    let mut names: Vec<String> =
        sources.filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// The names that `QUARTZ_ISA` takes on this CPU, best first, in the order of the kernels' table.
fn instruction_sets() -> Vec<&'static str> {
    let mut names = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma");
        if avx512 && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bf16") {
            names.push("avx512vnni");
        }
        if avx512 {
            names.push("avx512");
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            names.push("avx2");
        }
    }
    if cfg!(target_arch = "aarch64") {
        names.push("neon");
    }
    names.push("portable");
    names
}
