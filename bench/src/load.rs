//! `load`: reads of lists. Throughput beside a bare warp server that serves the same bytes from memory; and latency in an open
//! loop, alone and during ingestion.
//!
//! Both servers are processes of their own, driven by the same generator in turns of one run, so that neither has the quieter
//! machine.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use warp::Filter;

use crate::http::{Connection, get};
use crate::options::{Running, quick, seconds};
use crate::pace::{closed_loop, open_loop};
use crate::plot::Panel;
use crate::post::{self, Pace, Traffic};
use crate::progress;
use crate::replay::plan_parameters;
use crate::report::{PERCENTILES, Report, Target, curve, number, percentile_row, quantile_ms};
use crate::server::Endpoint;
use crate::stats::median;
use crate::synthetic::{Plan, item_id, popular_items};
use crate::usage::Process;

/// Items of a list, as a storefront shows them.
const LIST_ITEMS: usize = 20;
/// Prepared requests, sent in turn.
const REQUESTS: usize = 8_192;

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// Connections
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Turns of each server at full speed
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub turn: Duration,
    /// Reads a second, open loop
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    /// Seconds of the open loop
    #[arg(long = "seconds", default_value = "30", value_parser = seconds)]
    pub lasting: Duration,
    /// Events a second ingested meanwhile, in the second part
    #[arg(long, default_value_t = 1_000.0)]
    pub ingest: f64,
    /// The server.
    #[command(flatten)]
    pub running: Running,
}

quick!(|options| {
    options.plan.quicken();
    options.rounds = 1;
    (options.turn, options.lasting) = (Duration::from_secs(1), Duration::from_secs(1));
});

/// Serves one body from memory under every path of a list: the limit of warp on this machine.
///
/// # Errors
/// When the file of the body cannot be read, or no address can be bound.
pub async fn bare_warp(body: &Path) -> Result<()> {
    let read = std::fs::read(body).with_context(|| format!("could not read {}", body.display()))?;
    let body = bytes::Bytes::from(read);
    let route = warp::path!("v1" / "items" / String / "similar").and(warp::get()).map(move |_item| {
        let response = warp::http::Response::builder().header("content-type", "application/json; charset=utf-8");
        response.body(body.clone()).expect("a valid response")
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("could not listen")?;
    println!("{}", listener.local_addr()?);
    warp::serve(route).incoming(listener).run().await;
    Ok(())
}

/// The command that runs this program as the bare server.
pub const BARE_COMMAND: &str = "bare-warp";

/// A bare server in its own process. Dropping it kills it.
struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(body: &[u8]) -> Result<Self> {
        let file = tempfile::NamedTempFile::new().context("could not make a temporary file")?;
        std::fs::write(file.path(), body)?;
        let program = std::env::current_exe().context("could not find this program")?;
        let mut child = Command::new(program).arg(BARE_COMMAND).arg("--body").arg(file.path()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let address = line.trim().parse();
        if address.is_err() {
            child.kill().ok();
            child.wait().ok();
        }
        Ok(Self { child, address: address.with_context(|| format!("the bare server said {line:?}"))? })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs the measurement.
///
/// # Errors
/// When a server does not start, or an answer is not 200.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(options.rounds > 0 && options.connections > 0, "at least one round and one connection");
    let mut report = Report::new("load");
    plan_parameters(&mut report, &options.plan);
    report.parameter("connections", options.connections);
    report.parameter("rounds", options.rounds);
    report.parameter("seconds_a_turn", options.turn.as_secs_f64());
    report.parameter("rate_per_second", options.rate);
    report.parameter("seconds_by_the_clock", options.lasting.as_secs_f64());
    report.parameter("ingested_per_second", options.ingest);
    let (endpoint, _own) = options.running.or_own(&options.plan).await?;
    let body = sample_body(&endpoint).await?;
    report.parameter("body_bytes", body.len());
    let bare = Bare::start(&body)?;
    let requests = |address: SocketAddr| {
        let items = popular_items(&options.plan, 77).take(REQUESTS);
        Arc::new(items.map(|item| get(&list_path(item), address, Some(&endpoint.key))).collect::<Vec<_>>())
    };
    let (ours, theirs) = (requests(endpoint.address), requests(bare.address));
    full_speed(&mut report, options, (endpoint.address, &ours), (bare.address, &theirs)).await?;
    by_the_clock(&mut report, options, &endpoint, &ours).await?;
    Ok(report)
}

/// The list of an item.
pub(crate) fn list_path(item: u32) -> String {
    format!("/v1/items/{}/similar?limit={LIST_ITEMS}", item_id(item))
}

/// The list of the most popular item, which must have the measured length.
async fn sample_body(endpoint: &Endpoint) -> Result<Vec<u8>> {
    let mut connection =
        Connection::open(endpoint.address).await.with_context(|| format!("could not connect to {}", endpoint.address))?;
    let response = connection.exchange(&get(&list_path(0), endpoint.address, Some(&endpoint.key))).await?;
    let shown = String::from_utf8_lossy(response.body).into_owned();
    ensure!(response.status == 200, "the list of the most popular item answered {}: {shown}", response.status);
    let list: Value = serde_json::from_str(&shown).context("a list is no JSON")?;
    let items = list["items"].as_array().map_or(0, Vec::len);
    ensure!(
        items == LIST_ITEMS,
        "the list of the most popular item has {items} items and not {LIST_ITEMS}: preload a larger log"
    );
    Ok(response.body.to_vec())
}

type Driven<'a> = (SocketAddr, &'a Arc<Vec<Vec<u8>>>);

async fn full_speed(report: &mut Report, options: &Options, ours: Driven<'_>, theirs: Driven<'_>) -> Result<()> {
    let bar = progress::bar("full speed, in turns", 2 * options.rounds as u64);
    bar.tick();
    let warm_up = options.turn.min(Duration::from_secs(1));
    let (mut rounds, mut rows) = (Vec::new(), Vec::new());
    for (address, requests) in [theirs, ours] {
        closed_loop(address, Arc::clone(requests), options.connections, warm_up).await?;
    }
    for round in 1..=options.rounds {
        let mut rates = Vec::new();
        for (name, (address, requests)) in [("bare warp", theirs), ("kindred", ours)] {
            let cpu = Process::Own.cpu();
            let reads = closed_loop(address, Arc::clone(requests), options.connections, options.turn).await?;
            reads.check(name)?;
            let generator = (Process::Own.cpu() - cpu).as_secs_f64() / reads.took.as_secs_f64();
            rows.push(vec![
                format!("{round}, {name}"),
                number(reads.per_second()),
                number(quantile_ms(&reads.latencies, 0.5)),
                number(quantile_ms(&reads.latencies, 0.99)),
                number(generator),
            ]);
            rates.push(reads.per_second());
            bar.inc(1);
        }
        rounds.push((rates[0], rates[1]));
    }
    bar.finish_and_clear();
    let median_of = |value: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let (bare, kindred) = (median_of(|(bare, _)| *bare), median_of(|(_, ours)| *ours));
    let ratio = median_of(|(bare, ours)| ours / bare);
    report.measure("GET similar, of what bare warp does with the same body", ratio, "times", Some(Target::AtLeast(0.7)));
    report.measure("GET similar at full speed", kindred, "requests/s", None);
    report.measure("bare warp at full speed", bare, "requests/s", None);
    let header = ["round", "requests/s", "p50, ms", "p99, ms", "generator, cores"];
    report.table(format!("full speed, {} connections", options.connections), &header, rows);
    let panel = Panel::bars(format!("GET similar, {LIST_ITEMS} items, {} connections", options.connections), "requests/s");
    report.plot(panel.with_bar("bare warp, same body", bare).with_bar("kindred", kindred).with_target(bare * 0.7));
    report.detail("rounds", rounds.iter().map(|(bare, ours)| json!({ "bare": bare, "kindred": ours })).collect::<Vec<_>>())
}

async fn by_the_clock(report: &mut Report, options: &Options, endpoint: &Endpoint, requests: &Arc<Vec<Vec<u8>>>) -> Result<()> {
    let bar = progress::bar("by the clock", 2);
    bar.tick();
    let read = || open_loop(endpoint.address, Arc::clone(requests), options.connections, options.rate, options.lasting);
    let alone = read().await?;
    alone.check("the server alone")?;
    bar.inc(1);

    let stop = Arc::new(AtomicBool::new(false));
    let ingest = tokio::spawn({
        let (endpoint, stop) = (endpoint.clone(), Arc::clone(&stop));
        let traffic = Traffic::purchases(&options.plan, 1);
        let lasting = Duration::from_secs(86_400);
        let pace = Pace { rate: options.ingest, batch: 1, lasting, sample_each: 0, connections: 16 };
        async move { post::run(&endpoint, traffic, pace, stop).await }
    });
    tokio::time::sleep(options.lasting.min(Duration::from_secs(2))).await;
    let meanwhile = read().await;
    stop.store(true, Ordering::Relaxed);
    let posted = ingest.await.context("the load generator panicked")??;
    let meanwhile = meanwhile?;
    meanwhile.check("the server while events are taken in")?;
    bar.finish_and_clear();

    let (rate, ingested) = (number(options.rate), number(options.ingest));
    report.measure(format!("GET similar at {rate}/s, p50"), quantile_ms(&alone.latencies, 0.5), "ms", None);
    report.measure(format!("GET similar at {rate}/s, p99"), quantile_ms(&alone.latencies, 0.99), "ms", Some(Target::AtMost(1.4)));
    let name = format!("GET similar at {rate}/s, p99, with {ingested} events/s taken in");
    report.measure(name, quantile_ms(&meanwhile.latencies, 0.99), "ms", Some(Target::AtMost(3.0)));
    report.measure("events taken in meanwhile", posted.per_second(), "events/s", None);
    report.table(
        "by the clock: from when a request was due",
        &PERCENTILES,
        vec![
            percentile_row("alone", &alone.latencies),
            percentile_row(&format!("with {ingested} events/s"), &meanwhile.latencies),
            percentile_row("those events, post to 202", &posted.accepted),
        ],
    );
    report.histogram("alone", &alone.latencies);
    report.histogram("with-ingest", &meanwhile.latencies);
    let panel = Panel::percentiles(format!("GET similar at {rate} requests/s"));
    let panel = panel.with_series("alone", curve(&alone.latencies));
    report.plot(panel.with_series(format!("with {ingested} events/s taken in"), curve(&meanwhile.latencies)).with_target(1.4));
    Ok(())
}
