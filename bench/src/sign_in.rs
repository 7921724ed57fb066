//! `sign-in`: throughput of sign-ins beside the bare password hash on as many threads; and the latency of lists while sign-ins
//! run at that limit.
//!
//! ```text
//! turns:        argon2 alone, a thread a core │ POST /v1/sessions in a closed loop        │ argon2 alone …
//! open loop:    GET similar alone             │ GET similar while sign-ins run
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use argon2::password_hash::PasswordHasher;
use kindred_members::PasswordConfig;
use serde::Serialize;
use serde_json::json;

use crate::http::{get, post};
use crate::load::list_path;
use crate::options::{Product, quick, seconds};
use crate::pace::{Reads, closed_loop, open_loop};
use crate::people::{self, PASSWORD};
use crate::plot::Panel;
use crate::progress;
use crate::replay::plan_parameters;
use crate::report::{PERCENTILES, Report, Target, curve, number, percentile_row, quantile_ms};
use crate::server::Preloaded;
use crate::stats::median;
use crate::synthetic::{Plan, popular_items};
use crate::usage::{Process, difference, thread_cpu};

/// Prepared requests for lists, sent in turn.
const REQUESTS: usize = 8_192;
/// Connections of the open loop of reads.
const READERS: usize = 32;

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// Members who sign in, in turn
    #[arg(long, default_value_t = 2_000)]
    pub accounts: u32,
    /// Concurrent sign-ins, at most 59, the limit of an address
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Turns of the bare hash and of sign-in
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub turn: Duration,
    /// Reads of lists a second, open loop
    #[arg(long, default_value_t = 1_000.0)]
    pub rate: f64,
    /// Seconds of the open loop
    #[arg(long = "seconds", default_value = "30", value_parser = seconds)]
    pub lasting: Duration,
    /// The product.
    #[command(flatten)]
    pub product: Product,
}

quick!(|options| {
    options.plan.quicken();
    (options.accounts, options.rounds) = (100, 1);
    (options.turn, options.lasting) = (Duration::from_secs(1), Duration::from_secs(1));
});

/// Runs the measurement.
///
/// # Errors
/// When the server does not start, or an answer is not 2xx.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(options.rounds > 0 && options.connections > 0, "at least one round and one connection");
    // An attempt in progress counts as a failure: five an account, sixty an address (docs/design/0008-sign-in.md).
    ensure!(options.connections <= 59 && options.accounts as usize >= options.connections, "at most 59 at once, each another's");
    let mut report = Report::new("sign-in");
    plan_parameters(&mut report, &options.plan);
    report.parameter("accounts", options.accounts);
    report.parameter("connections", options.connections);
    report.parameter("rounds", options.rounds);
    report.parameter("seconds_a_turn", options.turn.as_secs_f64());
    report.parameter("rate_per_second", options.rate);
    report.parameter("seconds_by_the_clock", options.lasting.as_secs_f64());
    let binary = options.product.binary()?;
    let preloaded = Preloaded::make(&binary, &options.plan, None, Vec::new(), options.product.within.as_deref())?;
    people::fill(&preloaded.data(), options.accounts).await?;
    let server = preloaded.serve(&binary).await?;
    let (address, key) = (server.endpoint.address, &server.endpoint.key);
    let sign_ins: Vec<_> = (0..options.accounts)
        .map(|number| {
            let form = json!({ "account": people::username(number), "password": PASSWORD }).to_string();
            post("/v1/sessions", address, None, "application/json", form.as_bytes())
        })
        .collect();
    let sign_ins = Arc::new(sign_ins);
    let lists = popular_items(&options.plan, 77).take(REQUESTS).map(|item| get(&list_path(item), address, Some(key)));
    let lists = Arc::new(lists.collect::<Vec<_>>());

    let turn = || closed_loop(address, Arc::clone(&sign_ins), options.connections, options.turn);
    full_speed(&mut report, options, server.process(), turn).await?;

    let bar = progress::bar("lists by the clock", 2);
    bar.tick();
    let read = || open_loop(address, Arc::clone(&lists), READERS, options.rate, options.lasting);
    let alone = read().await?;
    alone.check("lists")?;
    bar.inc(1);
    let before = Duration::from_secs(1).min(options.turn);
    let limit = tokio::spawn(closed_loop(address, sign_ins, options.connections, before + options.lasting));
    tokio::time::sleep(before).await;
    let meanwhile = read().await?;
    let limit = limit.await.context("the load generator panicked")??;
    meanwhile.check("lists while members sign in")?;
    limit.check("sign-ins while lists are read")?;
    bar.finish_and_clear();

    let rate = number(options.rate);
    report.measure(format!("GET similar at {rate}/s, p99"), quantile_ms(&alone.latencies, 0.99), "ms", None);
    let name = format!("GET similar at {rate}/s, p99, while sign-ins run at their limit");
    report.measure(name, quantile_ms(&meanwhile.latencies, 0.99), "ms", Some(Target::AtMost(10.0)));
    report.measure("sign-ins meanwhile", limit.per_second(), "sign-ins/s", None);
    let rows = vec![
        percentile_row("lists, alone", &alone.latencies),
        percentile_row("lists, while members sign in", &meanwhile.latencies),
        percentile_row("those sign-ins", &limit.latencies),
    ];
    report.table("by the clock: from when a request was due", &PERCENTILES, rows);
    report.histogram("lists-alone", &alone.latencies);
    report.histogram("lists-meanwhile", &meanwhile.latencies);
    report.histogram("sign-ins-meanwhile", &limit.latencies);
    let panel = Panel::percentiles(format!("GET similar at {rate} requests/s")).with_series("alone", curve(&alone.latencies));
    report.plot(panel.with_series("while sign-ins run at their limit", curve(&meanwhile.latencies)).with_target(10.0));
    Ok(report)
}

async fn full_speed<Turn>(report: &mut Report, options: &Options, server: Process, turn: impl Fn() -> Turn) -> Result<()>
where
    Turn: Future<Output = Result<Reads>>,
{
    let bar = progress::bar("hashes and sign-ins, in turns", 2 * options.rounds as u64);
    bar.tick();
    turn().await?.check("sign-ins")?; // The first of each browser and address writes more.
    let (mut rows, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let lasting = options.turn;
        let bare = tokio::task::spawn_blocking(move || bare_hashes(lasting)).await.context("the bare hash panicked")??;
        bar.inc(1);
        let (cpu, cpu_of_server) = (Process::Own.cpu(), server.cpu_by_thread());
        let sign_ins = turn().await?;
        sign_ins.check("sign-ins")?;
        let generator = (Process::Own.cpu() - cpu).as_secs_f64() / sign_ins.took.as_secs_f64();
        let cpu_of_server: Duration = difference(&cpu_of_server, &server.cpu_by_thread()).values().sum();
        let cpu_ms = cpu_of_server.as_secs_f64() * 1e3 / sign_ins.latencies.len() as f64;
        let ours = Rate { per_second: sign_ins.per_second(), cpu_ms };
        bar.inc(1);
        rows.push(vec![
            round.to_string(),
            number(bare.per_second),
            number(ours.per_second),
            number(bare.cpu_ms),
            number(ours.cpu_ms),
            number(quantile_ms(&sign_ins.latencies, 0.5)),
            number(quantile_ms(&sign_ins.latencies, 0.99)),
            number(generator),
        ]);
        rounds.push((bare, ours));
    }
    bar.finish_and_clear();
    let median_of = |value: fn(&(Rate, Rate)) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let bare = median_of(|(bare, _)| bare.per_second);
    let of_bound = median_of(|(bare, ours)| ours.per_second / bare.per_second);
    report.measure("sign-ins, of what argon2 alone does", of_bound, "times", Some(Target::AtLeast(0.8)));
    // Independent of other programs' use of the cores.
    let of_cpu = median_of(|(bare, ours)| bare.cpu_ms / ours.cpu_ms);
    report.measure("CPU of argon2 alone, of the server's for a sign-in", of_cpu, "times", Some(Target::AtLeast(0.8)));
    let ours = median_of(|(_, ours)| ours.per_second);
    report.measure("sign-ins at full speed", ours, "sign-ins/s", None);
    report.measure("argon2 alone, on every core", bare, "hashes/s", None);
    let header = [
        "round",
        "argon2 alone, /s",
        "sign-ins/s",
        "argon2 alone, CPU ms",
        "sign-in, CPU ms",
        "p50, ms",
        "p99, ms",
        "generator, cores",
    ];
    report.table(format!("full speed, {} sign-ins at once", options.connections), &header, rows);
    let panel = Panel::bars("argon2id, 19 MiB, two passes", "a second").with_bar("argon2 alone", bare);
    report.plot(panel.with_bar("sign-ins", ours).with_target(bare * 0.8));
    report.detail("rounds", rounds.iter().map(|(bare, ours)| json!({ "bare": bare, "sign_ins": ours })).collect::<Vec<_>>())
}

/// A rate and its cost.
#[derive(Clone, Copy, Serialize)]
struct Rate {
    per_second: f64,
    /// For each.
    cpu_ms: f64,
}

/// Argon2 with the product's settings, one thread a core: the upper bound of sign-in.
fn bare_hashes(lasting: Duration) -> Result<Rate> {
    let argon = people::argon(&PasswordConfig::default())?;
    let hashed = AtomicU64::new(0);
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let worked = std::thread::scope(|scope| {
        let work = || {
            while began.elapsed() < lasting {
                argon.hash_password(PASSWORD.as_bytes()).map_err(|error| anyhow::anyhow!("could not hash: {error}"))?;
                hashed.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(thread_cpu())
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("hashing does not panic")).sum::<Result<Duration>>()
    });
    let (cpu, hashed) = (worked?, hashed.load(Ordering::Relaxed) as f64);
    Ok(Rate { per_second: hashed / began.elapsed().as_secs_f64(), cpu_ms: cpu.as_secs_f64() * 1e3 / hashed })
}
