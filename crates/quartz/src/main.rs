//! The command line of the Quartz engine.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod commands;
mod failure;
mod format;
mod progress;
mod report;

use args::{Cli, Command};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Warnings of the libraries, such as a data file that ends early.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .without_time()
        .with_target(false)
        .init();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("error: {failure}");
            failure.code()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    if let Some(threads) = cli.threads {
        qkernels::par::set_threads(threads)?;
    }
    qkernels::isa::chosen().map_err(|error| Failure::usage(error.to_string()))?;
    match &cli.command {
        Command::Train(arguments) => commands::train::run(arguments),
        Command::Eval(arguments) => commands::eval::run(arguments),
        Command::Predict(arguments) => commands::predict::run(arguments),
        Command::Analyze(arguments) => commands::analyze::run(arguments),
        Command::Import(arguments) => commands::import::run(arguments),
        Command::Export(arguments) => commands::export::run(arguments),
        Command::Summary(arguments) => commands::summary::run(arguments),
        Command::Report(arguments) => commands::report::run(arguments),
        Command::Autobuild(arguments) => commands::autobuild::run(arguments),
        Command::Quantize(arguments) => commands::quantize::run(arguments),
        Command::Sparsify(arguments) => commands::sparsify::run(arguments),
        Command::List(arguments) => commands::list::run(arguments),
        Command::Data(arguments) => commands::data::run(arguments),
        Command::Doctor(arguments) => commands::doctor::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
    }
}
