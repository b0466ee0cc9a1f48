use super::{unix_seconds, utc};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// Where and how a run was made: `env.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// State of the git repository of the working folder, where there is one.
    pub git: Option<GitState>,
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Logical processors that this process may use.
    pub cpus: usize,
    /// Operating system and architecture.
    pub platform: String,
    /// Instruction set of the kernels.
    pub isa: String,
    /// Threads of the kernels.
    pub threads: usize,
    /// Seed of the experiment.
    pub seed: u64,
    /// Where the data root came from: `--data`, `QUARTZ_DATA` or `default`.
    pub data_root: String,
    /// The command line.
    pub arguments: Vec<String>,
    /// When the process started, in UTC.
    pub started: String,
    /// The environments of earlier processes that this run was continued from, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Environment>,
}

/// A revision of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit.
    pub revision: String,
    /// Whether tracked files differ from it.
    pub dirty: bool,
}

/// What [`Environment::collect`] cannot find out by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Instruction set of the kernels.
    pub isa: String,
    /// Threads of the kernels.
    pub threads: usize,
    /// Seed of the experiment.
    pub seed: u64,
    /// Where the data root came from.
    pub data_root: String,
    /// The command line.
    pub arguments: Vec<String>,
}

impl Environment {
    /// Looks around. What cannot be found out is left empty; nothing here fails.
    pub fn collect(surroundings: Surroundings) -> Self {
        let Surroundings { isa, threads, seed, data_root, arguments } = surroundings;
        Environment {
            version: env!("CARGO_PKG_VERSION").into(),
            git: git_state(Path::new(".")),
            cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu_name(&text)),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            isa,
            threads,
            seed,
            data_root,
            arguments,
            started: utc(unix_seconds()),
            before: Vec::new(),
        }
    }

    /// This environment as the continuation of a run that was made in `earlier`.
    pub fn continuing(mut self, mut earlier: Environment) -> Self {
        self.before = std::mem::take(&mut earlier.before);
        self.before.push(earlier);
        self
    }
}

/// The processor's name in the text of `/proc/cpuinfo`.
fn cpu_name(text: &str) -> Option<String> {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key && !value.trim().is_empty()).then(|| value.trim().to_string())
        })
    };
    ["model name", "Hardware", "Model", "uarch"].into_iter().find_map(value)
}

fn git_state(folder: &Path) -> Option<GitState> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let revision = git(&["rev-parse", "HEAD"])?;
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(GitState { revision, dirty })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found_in_both_common_forms() {
        let intel = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.00GHz\n";
        assert_eq!(cpu_name(intel).as_deref(), Some("Some CPU @ 2.00GHz"));
        assert_eq!(cpu_name("processor : 0\nBogoMIPS : 50\n\nModel : Some Board\n").as_deref(), Some("Some Board"));
        assert_eq!(cpu_name("model name :\nno colon"), None);
    }

    #[test]
    fn collecting_needs_nothing() {
        let environment = Environment::collect(Surroundings { threads: 3, ..Surroundings::default() });
        assert_eq!(environment.threads, 3);
        assert!(environment.cpus >= 1 && !environment.version.is_empty());
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(git_state(&elsewhere.path().join("absent")), None);
    }

    #[test]
    fn continuations_are_listed_oldest_first() {
        let named = |name: &str| Environment { version: name.into(), ..Environment::default() };
        let third = named("3").continuing(named("2").continuing(named("1")));
        let order: Vec<_> = third.before.iter().map(|e| e.version.as_str()).collect();
        assert_eq!(order, ["1", "2"]);
        assert!(third.before.iter().all(|e| e.before.is_empty()));
    }
}
