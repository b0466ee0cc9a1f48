//! Running cargo and other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Runs a program in the workspace's folder, its output passing through; an error where it cannot start or fails.
pub(crate) fn run(program: &str, arguments: &[String], environment: &[(&str, &str)]) -> Result<(), String> {
    let line = format!("{program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed: {status}")) }
}

/// Runs cargo with the words of `line` as arguments.
pub(crate) fn run_cargo(line: &str, environment: &[(&str, &str)]) -> Result<(), String> {
    let arguments: Vec<String> = line.split_whitespace().map(String::from).collect();
    run(&cargo(), &arguments, environment)
}

/// Replaces this process by a release build of the command line, so that signals and the exit code are its own. The caller's folder is kept.
pub(crate) fn become_quartz(arguments: &[String]) -> ExitCode {
    let manifest = root().join("Cargo.toml");
    let mut command = Command::new(cargo());
    command.args(["run", "--release", "--package", "quartz", "--bin", "quartz", "--manifest-path"]);
    command.arg(manifest).arg("--").args(arguments);
    replace(command)
}

#[cfg(unix)]
fn replace(mut command: Command) -> ExitCode {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    eprintln!("error: cannot run cargo: {error}");
    ExitCode::FAILURE
}

#[cfg(not(unix))]
fn replace(mut command: Command) -> ExitCode {
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
