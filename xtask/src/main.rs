//! `cargo xtask COMMAND`: the project's own chores (`ci`, `test`, `golden`), and everything else as a release build of `quartz COMMAND`.
//!
//! This program never links the engine, so that it builds in a second.

#![forbid(unsafe_code)]

mod ci;
mod house;
mod shell;

use std::process::ExitCode;

const CHORES: &str = "Chores of the checkout (everything else is passed to `quartz`):
  ci        formatting, lints, crate edges, tests on every instruction set, docs
  test      all tests: the workspace once, the kernels once for each instruction set of this CPU
  golden    write the reference files anew with PyTorch (needs `pip install torch==2.9.1 numpy safetensors`)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("ci") => ci::run(),
        Some("test") => ci::test(&arguments[1..]),
        Some("golden") => shell::run("python3", &["xtask/golden/make.py"].map(String::from), &[]),
        None | Some("help" | "--help" | "-h") => {
            eprintln!("{CHORES}\n");
            return shell::become_quartz(&["--help".to_string()]);
        }
        Some(_) => return shell::become_quartz(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
