//! The command line of the bench: `cargo run --release -p kindred-bench -- COMMAND`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use kindred_bench::options::Measurement;
use kindred_bench::synthetic::Plan;
use kindred_bench::{
    freshness, generate, growth, load, members, replay, restart, search, services, shards, sign_in, soak, timing,
};

/// The allocator of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "kindred-bench",
    version,
    about = "Measures what Kindred promises: a command a promise",
    long_about = "Measures what Kindred promises. Every command prints a table with the targets, and leaves JSON, an SVG plot and \
                  HdrHistogram logs in bench/results/<date>-<machine>/, with the machine and the commit beside the figures.\n\n\
                  Build both programs first: cargo build --release --workspace. Let nothing else run meanwhile.",
    max_term_width = 120
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the seeded synthetic log as NDJSON, a file a topic
    Generate(generate::Options),
    /// CPU time and memory of also_bought beside scipy and plain differential; or from a file to durable rows
    Replay(Measurement<replay::Options>),
    /// From posting an event to the list that shows it
    Freshness(Measurement<freshness::Options>),
    /// Reads of lists: at full speed beside bare warp, and by the clock
    Load(Measurement<load::Options>),
    /// kill -9, and how long until lists are live again
    Restart(Measurement<restart::Options>),
    /// Cost of an event as the log grows
    Growth(Measurement<growth::Options>),
    /// A million epochs of orders, refunds, cancellations and erasures: whether figures, rows and memory stay right
    Soak(Measurement<soak::Options>),
    /// Sign-ins at full speed beside the bare password hash, and lists meanwhile
    SignIn(Measurement<sign_in::Options>),
    /// The cost of sign-in, search and token checks with a million members
    Members(Measurement<members::Options>),
    /// Latency of member search among a million members, over HTTP
    Search(Measurement<search::Options>),
    /// Whether response times reveal that an account exists
    Timing(Measurement<timing::Options>),
    /// How evenly pairs and pair updates are distributed over the workers: counted, not timed
    Shards(Measurement<shards::Options>),
    /// The pipeline between Kafka and a CQL database beside the embedded one (`deploy/local/up` starts both services)
    Services(Measurement<services::Options>),
    /// The memory of also_bought in a process by itself; `replay` runs it
    #[command(name = replay::MEMORY_COMMAND, hide = true)]
    DataflowMemory(Plan),
    /// One process of several of `shards`, which runs it
    #[command(name = shards::PROCESS_COMMAND, hide = true)]
    ShardsProcess {
        #[command(flatten)]
        options: shards::Options,
        /// Workers of each process
        #[arg(long)]
        workers: usize,
        /// Which process this is
        #[arg(long)]
        process: usize,
        /// Where the processes listen
        #[arg(long, value_delimiter = ',')]
        hosts: Vec<String>,
    },
    /// A warp server that hands out one body; `load` runs it
    #[command(name = load::BARE_COMMAND, hide = true)]
    BareWarp {
        /// The body
        #[arg(long)]
        body: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Generate(options) => {
            for (topic, (path, count)) in generate::run(&options)? {
                println!("{topic}: {count} records in {}", path.display());
            }
            Ok(())
        }
        Command::Replay(measured) => measured.run(replay::run_replay),
        Command::Freshness(measured) => measured.run(|options| client()?.block_on(freshness::run(options))),
        Command::Load(measured) => measured.run(|options| client()?.block_on(load::run(options))),
        Command::Restart(measured) => measured.run(|options| client()?.block_on(restart::run(options))),
        Command::Growth(measured) => measured.run(growth::run_growth),
        Command::Soak(measured) => measured.run(soak::run_soak),
        Command::SignIn(measured) => measured.run(|options| client()?.block_on(sign_in::run(options))),
        Command::Members(measured) => measured.run(|options| every_core()?.block_on(members::run(options))),
        Command::Search(measured) => measured.run(|options| client()?.block_on(search::run(options))),
        Command::Timing(measured) => measured.run(|options| client()?.block_on(timing::run(options))),
        Command::Shards(measured) => measured.run(shards::run_shards),
        Command::Services(measured) => measured.run(|options| client()?.block_on(services::run_services(options))),
        Command::DataflowMemory(plan) => {
            println!("{}", serde_json::to_string(&replay::memory(&plan))?);
            Ok(())
        }
        Command::ShardsProcess { options, workers, process, hosts } => {
            println!("{}", serde_json::to_string(&shards::count_process(&options, process, workers, &hosts)?)?);
            Ok(())
        }
        Command::BareWarp { body } => every_core()?.block_on(load::bare_warp(&body)),
    }
}

/// One thread for the load generator; the server has the other cores.
fn client() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("bench-client").enable_all().build().context("could not start the load generator")
}

fn every_core() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use kindred_bench::options::Options;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_quick_run_is_small_unless_a_log_was_asked_for() {
        let parse = |args: &[&str]| match Cli::parse_from(["kindred-bench", "load"].iter().chain(args)).command {
            Command::Load(Measurement { mut options, .. }) => {
                options.quicken();
                options
            }
            _ => unreachable!(),
        };
        assert_eq!((parse(&["--quick"]).plan, parse(&["--quick"]).rounds), (Plan::QUICK, 1));
        assert_eq!(parse(&["--quick", "--events", "30000"]).plan.events, 30_000);
        assert!(Cli::try_parse_from(["kindred-bench", "load", "--url", "http://127.0.0.1:1"]).is_err(), "a URL needs a key");
    }
}
