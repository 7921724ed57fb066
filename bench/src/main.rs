//! The command line of the bench: `cargo run --release -p kindred-bench -- COMMAND`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use kindred_bench::freshness::{self, Which};
use kindred_bench::post::Pace;
use kindred_bench::report::{Report, Results};
use kindred_bench::server::Endpoint;
use kindred_bench::synthetic::{Mix, Plan};
use kindred_bench::{generate, growth, load, members, replay, restart, search, services, shards, sign_in, soak, timing};

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
    Generate(GenerateArgs),
    /// CPU time and memory of also_bought beside scipy and plain differential; or from a file to durable rows
    Replay(ReplayArgs),
    /// From posting an event to the list that shows it
    Freshness(FreshnessArgs),
    /// Reads of lists: at full speed beside bare warp, and by the clock
    Load(LoadArgs),
    /// kill -9, and how long until lists are live again
    Restart(RestartArgs),
    /// Cost of an event as the log grows
    Growth(GrowthArgs),
    /// A million epochs of orders, refunds, cancellations and erasures: whether figures, rows and memory stay right
    Soak(SoakArgs),
    /// Sign-ins at full speed beside the bare password hash, and lists meanwhile
    SignIn(SignInArgs),
    /// The cost of sign-in, search and token checks with a million members
    Members(MembersArgs),
    /// Latency of member search among a million members, over HTTP
    Search(SearchArgs),
    /// Whether response times reveal that an account exists
    Timing(TimingArgs),
    /// How evenly pairs and pair updates are distributed over the workers: counted, not timed
    Shards(CommonArgs),
    /// The pipeline between Kafka and a CQL database beside the embedded one (`deploy/local/up` starts both services)
    Services(ServicesArgs),
    /// The memory of also_bought in a process by itself; `replay` runs it
    #[command(name = replay::MEMORY_COMMAND, hide = true)]
    DataflowMemory(PlanArgs),
    /// One process of several of `shards`, which runs it
    #[command(name = shards::PROCESS_COMMAND, hide = true)]
    ShardsProcess {
        #[command(flatten)]
        plan: PlanArgs,
        /// Events fed live
        #[arg(long)]
        live: usize,
        /// Events of a live epoch
        #[arg(long)]
        epoch: usize,
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

#[derive(Args, Clone, Copy)]
struct PlanArgs {
    /// Members of the synthetic log
    #[arg(long, default_value_t = Plan::TWO_MILLION.members, help_heading = "Log")]
    members: u32,
    /// Items of the synthetic log
    #[arg(long, default_value_t = Plan::TWO_MILLION.items, help_heading = "Log")]
    items: u32,
    /// Events of the synthetic log
    #[arg(long, default_value_t = Plan::TWO_MILLION.events, help_heading = "Log")]
    events: usize,
    /// The same seed gives the same log
    #[arg(long, default_value_t = Plan::TWO_MILLION.seed, help_heading = "Log")]
    seed: u64,
}

impl PlanArgs {
    fn plan(self) -> Plan {
        Plan { members: self.members.max(1), items: self.items.max(1), events: self.events, seed: self.seed }
    }

    /// The small log for a smoke run, unless another one was asked for.
    fn plan_for(self, quick: bool) -> Plan {
        let plan = self.plan();
        if quick && plan == Plan::TWO_MILLION { Plan::QUICK } else { plan }
    }
}

#[derive(Args)]
struct CommonArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// A smoke run within seconds, on a small log: its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Where results go [default: bench/results, or a temporary folder with --quick]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

impl CommonArgs {
    fn finish(&self, report: Report) -> Result<()> {
        finish(report, self.quick, self.results.as_ref())
    }
}

/// What a command takes that needs no log.
#[derive(Args)]
struct PlainArgs {
    /// A smoke run within seconds: its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Where results go [default: bench/results, or a temporary folder with --quick]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

impl PlainArgs {
    fn finish(&self, report: Report) -> Result<()> {
        finish(report, self.quick, self.results.as_ref())
    }
}

fn finish(report: Report, quick: bool, results: Option<&PathBuf>) -> Result<()> {
    let usual = if quick { std::env::temp_dir().join("kindred-bench-quick") } else { PathBuf::from("bench/results") };
    report.finish(&Results { root: results.cloned().unwrap_or(usual) }).map(|_| ())
}

#[derive(Args)]
struct ProductArgs {
    /// The binary to run [default: `kindred` beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where to put the data [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    within: Option<PathBuf>,
}

#[derive(Args)]
struct RunningArgs {
    /// A running server instead, like http://127.0.0.1:8080; give the options of the log it holds
    #[arg(long, requires = "key")]
    url: Option<String>,
    /// Its service key
    #[arg(long, requires = "url")]
    key: Option<String>,
}

impl RunningArgs {
    fn endpoint(&self) -> Result<Option<Endpoint>> {
        self.url.as_ref().zip(self.key.as_ref()).map(|(url, key)| Endpoint::parse(url, key)).transpose()
    }
}

#[derive(Args)]
struct ServicesArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The brokers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:19092")]
    kafka: String,
    /// A node of the database
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:19042")]
    cql: String,
    /// Partitions of each topic
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// Timely workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
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
    /// A catalog of the items beside the purchases; the whole product's log always has one
    #[arg(long)]
    catalog: bool,
    /// Folder for the files
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Compress the files
    #[arg(long)]
    zstd: bool,
}

#[derive(Args)]
struct ReplayArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// From NDJSON files to durable rows of all views, by `kindred import`
    #[arg(long)]
    all_views: bool,
    /// With --all-views: the whole product's log too
    #[arg(long, requires = "all_views")]
    whole: bool,
    #[command(flatten)]
    product: ProductArgs,
}

#[derive(Args)]
struct FreshnessArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Events a second [default: 1000, or 10000 with --sustained]
    #[arg(long)]
    rate: Option<f64>,
    /// Events a request [default: 1, or 100 with --sustained]
    #[arg(long)]
    batch: Option<usize>,
    /// How long, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long, in minutes, with --sustained
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// New pairs, beside the running load
    #[arg(long, conflicts_with = "sustained")]
    pair_trial: bool,
    /// How many pairs
    #[arg(long, default_value_t = 100)]
    trials: u64,
    /// The whole product's mix, for minutes
    #[arg(long)]
    sustained: bool,
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// One in this many requests is followed to its list [default: 10, or 5 with --sustained]
    #[arg(long)]
    sample_each: Option<u64>,
    #[command(flatten)]
    product: ProductArgs,
    #[command(flatten)]
    running: RunningArgs,
}

#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Turns of each server at full speed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 5)]
    turn: u64,
    /// Reads a second, open loop
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Seconds of the open loop
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Events a second ingested meanwhile, in the second part
    #[arg(long, default_value_t = 1_000.0)]
    ingest: f64,
    #[command(flatten)]
    product: ProductArgs,
    #[command(flatten)]
    running: RunningArgs,
}

#[derive(Args)]
struct RestartArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// How often the server is killed
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Events a second that are posted when the kill comes
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// No other view than also_bought
    #[arg(long)]
    also_bought_only: bool,
    #[command(flatten)]
    product: ProductArgs,
}

#[derive(Args)]
struct GrowthArgs {
    /// Sizes of the log in millions of events, smallest first
    #[arg(long, value_delimiter = ',', default_value = "1,2,5,10")]
    sizes: Vec<f64>,
    /// Events fed live at each size
    #[arg(long, default_value_t = growth::Options::full().live)]
    live: usize,
    /// Events of a live epoch
    #[arg(long, default_value_t = growth::Options::full().epoch)]
    epoch: usize,
    /// The same seed gives the same logs
    #[arg(long, default_value_t = growth::Options::full().seed)]
    seed: u64,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Args)]
struct SoakArgs {
    /// Epochs of all shops together
    #[arg(long, default_value_t = soak::Options::full().epochs)]
    epochs: u64,
    /// How often everything is compared within a shop
    #[arg(long, default_value_t = soak::Options::full().looks, value_parser = clap::value_parser!(u64).range(1..))]
    looks: u64,
    /// Another seed gives another history
    #[arg(long, default_value_t = soak::Options::full().seed)]
    seed: u64,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Args)]
struct SignInArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Members who sign in, in turn
    #[arg(long, default_value_t = 2_000)]
    accounts: u32,
    /// Concurrent sign-ins, at most 59, the limit of an address
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Turns of the bare hash and of sign-in
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 5)]
    turn: u64,
    /// Reads of lists a second, open loop
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Seconds of the open loop
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    product: ProductArgs,
}

#[derive(Args)]
struct MembersArgs {
    #[command(flatten)]
    plain: PlainArgs,
    /// Members of the large shop; the small one has 1,000
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u32,
    /// Sessions in it, one a member
    #[arg(long, default_value_t = 100_000)]
    sessions: u32,
    /// Sign-ins timed in each shop
    #[arg(long, default_value_t = 500)]
    sign_ins: usize,
    /// Searches of each sort timed in each shop
    #[arg(long, default_value_t = 500)]
    searches: usize,
    /// Where to put the data [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    within: Option<PathBuf>,
}

#[derive(Args)]
struct SearchArgs {
    #[command(flatten)]
    plain: PlainArgs,
    /// Members of the large shop; the small one has 1,000
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u32,
    /// Turns of each kind of search and shop
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    turn: u64,
    #[command(flatten)]
    product: ProductArgs,
}

#[derive(Args)]
struct TimingArgs {
    #[command(flatten)]
    plain: PlainArgs,
    /// Attempts with known and with unknown values, of each kind
    #[arg(long, default_value_t = 1_000)]
    tries: u32,
    #[command(flatten)]
    product: ProductArgs,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Generate(args) => generate_files(args),
        Command::Replay(args) => replay_log(&args),
        Command::Freshness(args) => {
            let options = freshness_options(&args)?;
            args.common.finish(client()?.block_on(freshness::run(&options))?)
        }
        Command::Load(args) => {
            let options = load_options(&args)?;
            args.common.finish(client()?.block_on(load::run(&options))?)
        }
        Command::Restart(args) => {
            let options = restart_options(&args);
            args.common.finish(client()?.block_on(restart::run(&options))?)
        }
        Command::Growth(args) => {
            let options = if args.plain.quick { growth::Options::quick() } else { growth_options(&args)? };
            args.plain.finish(growth::run_growth(&options)?)
        }
        Command::Soak(args) => {
            let full = soak::Options { epochs: args.epochs, looks: args.looks, seed: args.seed };
            args.plain.finish(soak::run_soak(if args.plain.quick { soak::Options::quick() } else { full })?)
        }
        Command::SignIn(args) => {
            let options = sign_in_options(&args)?;
            args.common.finish(client()?.block_on(sign_in::run(&options))?)
        }
        Command::Members(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            args.plain.finish(runtime.block_on(members::run(&members_options(&args)))?)
        }
        Command::Search(args) => {
            let (quick, ProductArgs { binary, within }) = (args.plain.quick, &args.product);
            let options = search::Options {
                members: if quick { 5_000 } else { args.accounts },
                rounds: if quick { 1 } else { args.rounds },
                turn: Duration::from_secs(if quick { 1 } else { args.turn }),
                binary: binary.clone(),
                within: within.clone(),
            };
            args.plain.finish(client()?.block_on(search::run(&options))?)
        }
        Command::Timing(args) => {
            let ProductArgs { binary, within } = &args.product;
            let tries = if args.plain.quick { 20 } else { args.tries };
            let options = timing::Options { tries, binary: binary.clone(), within: within.clone() };
            args.plain.finish(client()?.block_on(timing::run(&options))?)
        }
        Command::Shards(args) => {
            let plan = args.plan.plan_for(args.quick);
            let options = if args.quick { shards::Options::quick() } else { shards::Options::full(plan) };
            args.finish(shards::run_shards(&options)?)
        }
        Command::Services(args) => {
            let plan = args.common.plan.plan_for(args.common.quick);
            let ServicesArgs { kafka, cql, partitions, workers, .. } = &args;
            let (kafka, cql) = (kafka.clone(), cql.clone());
            let options = services::Options { plan, kafka, cql, partitions: *partitions, workers: *workers };
            args.common.finish(client()?.block_on(services::run_services(&options))?)
        }
        Command::DataflowMemory(args) => {
            println!("{}", serde_json::to_string(&replay::memory(&args.plan()))?);
            Ok(())
        }
        Command::ShardsProcess { plan, live, epoch, workers, process, hosts } => {
            let options = shards::Options { plan: plan.plan(), live, epoch };
            println!("{}", serde_json::to_string(&shards::count_process(&options, process, workers, &hosts)?)?);
            Ok(())
        }
        Command::BareWarp { body } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(load::bare_warp(load::read_body(&body)?))
        }
    }
}

/// One thread for the load generator; the server has the other cores.
fn client() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("bench-client").enable_all().build().context("could not start the load generator")
}

fn generate_files(args: GenerateArgs) -> Result<()> {
    let mix = args.whole.then(|| args.kinds.unwrap_or_else(Mix::usual));
    let options = generate::Options { plan: args.plan.plan(), mix, catalog: args.catalog, out: args.out, zstd: args.zstd };
    for (topic, (path, count)) in generate::run(&options)? {
        println!("{topic}: {count} records in {}", path.display());
    }
    Ok(())
}

fn replay_log(args: &ReplayArgs) -> Result<()> {
    let plan = args.common.plan.plan_for(args.common.quick);
    let report = if args.all_views {
        let ProductArgs { binary, within } = &args.product;
        replay::run_all_views(&plan, args.whole.then(Mix::usual), binary.as_deref(), within.as_deref())?
    } else {
        let options = if args.common.quick { replay::Options::quick() } else { replay::Options::full(plan) };
        replay::run_also_bought(&replay::Options { plan, ..options })?
    };
    args.common.finish(report)
}

fn freshness_options(args: &FreshnessArgs) -> Result<freshness::Options> {
    let quick = args.common.quick;
    let which = match (args.sustained, args.pair_trial) {
        (true, _) => Which::Sustained,
        (_, true) => Which::PairTrial,
        _ => Which::Steady,
    };
    let usual = if args.sustained { (10_000.0, 100, 5) } else { (1_000.0, 1, 10) };
    let lasting = Duration::from_secs(if args.sustained { args.minutes * 60 } else { args.seconds });
    Ok(freshness::Options {
        which,
        plan: args.common.plan.plan_for(quick),
        pace: Pace {
            rate: args.rate.unwrap_or(usual.0),
            batch: args.batch.unwrap_or(usual.1),
            lasting: if quick { Duration::from_secs(3) } else { lasting },
            sample_each: args.sample_each.unwrap_or(usual.2),
            connections: args.connections,
        },
        trials: if quick { 5 } else { args.trials },
        takers: 50,
        binary: args.product.binary.clone(),
        running: args.running.endpoint()?,
        within: args.product.within.clone(),
    })
}

fn load_options(args: &LoadArgs) -> Result<load::Options> {
    let quick = args.common.quick;
    let seconds = |usual: u64| Duration::from_secs(if quick { 1 } else { usual });
    ensure!(args.rounds > 0 && args.connections > 0, "at least one round and one connection");
    Ok(load::Options {
        plan: args.common.plan.plan_for(quick),
        connections: args.connections,
        rounds: if quick { 1 } else { args.rounds },
        turn: seconds(args.turn),
        rate: args.rate,
        lasting: seconds(args.seconds),
        ingest: args.ingest,
        binary: args.product.binary.clone(),
        running: args.running.endpoint()?,
        within: args.product.within.clone(),
    })
}

fn sign_in_options(args: &SignInArgs) -> Result<sign_in::Options> {
    let quick = args.common.quick;
    let seconds = |usual: u64| Duration::from_secs(if quick { 1 } else { usual });
    ensure!(args.rounds > 0 && args.connections > 0, "at least one round and one connection");
    Ok(sign_in::Options {
        plan: args.common.plan.plan_for(quick),
        accounts: if quick { 100 } else { args.accounts },
        connections: args.connections,
        rounds: if quick { 1 } else { args.rounds },
        turn: seconds(args.turn),
        rate: args.rate,
        lasting: seconds(args.seconds),
        binary: args.product.binary.clone(),
        within: args.product.within.clone(),
    })
}

fn members_options(args: &MembersArgs) -> members::Options {
    let usual = |quick: usize, usual: usize| if args.plain.quick { quick } else { usual };
    members::Options {
        members: usual(5_000, args.accounts as usize) as u32,
        sessions: usual(1_000, args.sessions as usize) as u32,
        sign_ins: usual(10, args.sign_ins),
        searches: usual(10, args.searches),
        within: args.within.clone(),
    }
}

fn restart_options(args: &RestartArgs) -> restart::Options {
    let quick = args.common.quick;
    restart::Options {
        plan: args.common.plan.plan_for(quick),
        kills: if quick { 1 } else { args.kills.max(1) },
        rate: args.rate,
        load: Duration::from_secs(if quick { 1 } else { 3 }),
        also_bought_only: args.also_bought_only,
        binary: args.product.binary.clone(),
        within: args.product.within.clone(),
    }
}

fn growth_options(args: &GrowthArgs) -> Result<growth::Options> {
    ensure!(args.sizes.len() >= 2 && args.sizes.is_sorted(), "at least two sizes, the smallest first");
    ensure!(args.sizes.iter().all(|millions| *millions > 0.0) && args.live > 0 && args.epoch > 0, "sizes and counts are above 0");
    let sizes = args.sizes.iter().map(|millions| (millions * 1e6) as usize).collect();
    Ok(growth::Options { sizes, live: args.live, epoch: args.epoch, seed: args.seed })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_quick_run_is_small_unless_a_log_was_asked_for() {
        let parse = |args: &[&str]| match Cli::parse_from(["kindred-bench", "load"].iter().chain(args)).command {
            Command::Load(args) => load_options(&args).unwrap(),
            _ => unreachable!(),
        };
        assert_eq!(parse(&["--quick"]).plan, Plan::QUICK);
        assert_eq!(parse(&["--quick", "--events", "30000"]).plan.events, 30_000);
        assert_eq!(parse(&[]).plan, Plan::TWO_MILLION);
        assert!(Cli::try_parse_from(["kindred-bench", "load", "--url", "http://127.0.0.1:1"]).is_err(), "a URL needs a key");
    }
}
