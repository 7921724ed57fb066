//! The command line of the bench: `cargo run --release -p kindred-bench -- COMMAND`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use kindred_bench::generate;
use kindred_bench::synthetic::{Mix, Plan};

#[derive(Parser)]
#[command(name = "kindred-bench", version, about = "Measures Kindred: speed, freshness, memory", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the seeded synthetic log as NDJSON, a file a topic
    Generate(GenerateArgs),
}

#[derive(Args)]
struct PlanArgs {
    /// Members of the synthetic log
    #[arg(long, default_value_t = Plan::TWO_MILLION.members)]
    members: u32,
    /// Items of the synthetic log
    #[arg(long, default_value_t = Plan::TWO_MILLION.items)]
    items: u32,
    /// Events of the synthetic log
    #[arg(long, default_value_t = Plan::TWO_MILLION.events)]
    events: usize,
    /// The same seed gives the same log
    #[arg(long, default_value_t = Plan::TWO_MILLION.seed)]
    seed: u64,
}

impl PlanArgs {
    fn plan(&self) -> Plan {
        Plan { members: self.members, items: self.items, events: self.events, seed: self.seed }
    }
}

#[derive(Args)]
struct GenerateArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// The whole product's log: interactions of all kinds, orders with refunds, catalog and members
    #[arg(long)]
    whole: bool,
    /// Weights of the kinds in the whole product's log, like view=60,cart=10,purchase=5; a purchase becomes an order
    #[arg(long, requires = "whole")]
    kinds: Option<Mix>,
    /// Folder for the files
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Compress the files
    #[arg(long)]
    zstd: bool,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Generate(args) => {
            let mix = args.whole.then(|| args.kinds.clone().unwrap_or_else(Mix::usual));
            let options = generate::Options { plan: args.plan.plan(), mix, out: args.out, zstd: args.zstd };
            for (topic, (path, count)) in generate::run(&options)? {
                println!("{topic}: {count} records in {}", path.display());
            }
        }
    }
    Ok(())
}
