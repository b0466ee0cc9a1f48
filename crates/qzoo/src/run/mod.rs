//! The folder of a run: everything that a person or a report wants to know about it afterwards.
//!
//! | file | holds |
//! |---|---|
//! | `config.resolved.toml` | the experiment with every default filled in |
//! | `env.json` | program, revision, CPU, instruction set, threads, seed, arguments |
//! | `metrics.jsonl` | one line an epoch and every so many steps |
//! | `events.out.tfevents.*` | the same for TensorBoard |
//! | `log.txt` | what the run said |
//! | `checkpoints/` | `last`, `best` and earlier ones |
//! | `evaluation.json`, `profile.json`, `result.json` | final accuracy by class with samples, time and memory by layer, totals |
//! | `memory.json` | memory and time by layer in each backward mode |
//! | `sparsity.json` | the pruned layers, where the experiment is a sparse one |
//! | `lock` | keeps a second writer out |

mod clock;
mod environment;
mod error;
mod folder;
mod lock;
mod log;
mod memory;
mod metrics;
mod reader;
mod results;
pub mod tensorboard;

pub use clock::{unix_seconds, utc};
pub use environment::{Environment, GitState, Surroundings};
pub use error::RunError;
pub use folder::{RunFolder, latest, latest_where};
pub use log::LogFile;
pub use memory::{LayerMemory, LayerMode, MemoryPlan, MemoryProfile, ModeTotal};
pub use metrics::{EpochLine, Metrics, MetricsFile, Record, StepLine, read_metrics};
pub use reader::RunReader;
pub(crate) use reader::read_json;
pub use results::{ClassResult, EvaluationReport, LayerCost, PassCost, Profile, RunResult, Sample};

/// `Result` with [`RunError`].
pub type Result<T, E = RunError> = std::result::Result<T, E>;
