//! `doctor`: what this machine offers.

use crate::args::Doctor;
use crate::failure::Failure;
use qkernels::{isa, par, peak};
use qzoo::run::{Environment, Surroundings};
use serde_json::json;

/// Prints processor, instruction sets, threads, measured peak and the data sets that are here.
pub(crate) fn run(arguments: &Doctor) -> Result<(), Failure> {
    let environment = Environment::collect(Surroundings {
        isa: isa::current().name().into(),
        threads: par::threads(),
        ..Surroundings::default()
    });
    let available: Vec<&str> = isa::available().map(isa::IsaId::name).collect();
    let (one, all) = (peak::multiply_add_peak(1)?, peak::multiply_add_peak(par::threads())?);
    let root = qzoo::data::data_root(arguments.root.data.as_deref());
    let sets = qzoo::data::list(&root)?;
    if arguments.json {
        let sets: serde_json::Map<_, _> =
            sets.iter().map(|set| (set.manifest.name.clone(), json!(super::data::word(&set.presence)))).collect();
        let all = json!({
            "version": environment.version, "cpu": environment.cpu, "cpus": environment.cpus, "platform": environment.platform,
            "isa": environment.isa, "available_isas": available, "threads": environment.threads,
            "peak_gflops_one_thread": one, "peak_gflops": all, "data_root": root, "data": sets,
        });
        println!("{all}");
        return Ok(());
    }
    let line = |name: &str, value: &str| println!("{name:<18} {value}");
    line("version", &environment.version);
    line("processor", environment.cpu.as_deref().unwrap_or("unknown"));
    line("platform", &environment.platform);
    line("processors", &environment.cpus.to_string());
    line("threads", &environment.threads.to_string());
    line("instruction sets", &format!("{} (in use: {})", available.join(", "), environment.isa));
    line("f32 peak", &format!("{one:.0} GFLOP/s with one thread, {all:.0} with {}", environment.threads));
    line("data root", &root.display().to_string());
    for set in &sets {
        line("", &format!("{:<14} {}", set.manifest.name, super::data::word(&set.presence)));
    }
    Ok(())
}
