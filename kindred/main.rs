//! The binary `kindred`: parses the command line, runs the command, tells what went wrong.

use std::process::ExitCode;

use clap::Parser;
use kindred::cli::Cli;
use kindred::failure::{exit, report};

/// The dataflow makes and drops many small rows, on one thread and on another: what this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kindred_telemetry::end_on_panic(i32::from(exit::FAILED));
    let cli = Cli::parse();
    ExitCode::from(kindred::run(cli).unwrap_or_else(|error| report(&error)))
}
