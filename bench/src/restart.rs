//! `restart`: `kill -9` under load, and the time until the server is ready and lists are live again. Also each phase alone, in
//! this process on the same directory: opening the store, reading the inputs, deriving the views.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kindred_dataflow::restore;
use kindred_dataflow::update::Update;
use kindred_log::EventLog;
use kindred_log::embedded::EmbeddedLog;
use kindred_model::Semantics;
use kindred_store::ViewReader;
use kindred_store::embedded::EmbeddedStore;
use serde::Serialize;

use crate::dataflow::{Engine, run as run_dataflow};
use crate::options::{Product, quick};
use crate::plot::Panel;
use crate::post::{self, Pace, Poster, Reader, Traffic};
use crate::progress;
use crate::replay::plan_parameters;
use crate::report::{Report, Target, number};
use crate::server::{Preloaded, also_bought_alone};
use crate::synthetic::Plan;
use crate::usage::thread_cpu;

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// How often the server is killed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub kills: u32,
    /// Events a second that are posted when the kill comes
    #[arg(long, default_value_t = 1_000.0)]
    pub rate: f64,
    /// Duration of the load.
    #[arg(skip = Duration::from_secs(3))]
    pub load: Duration,
    /// No other view than also_bought
    #[arg(long)]
    pub also_bought_only: bool,
    /// The product.
    #[command(flatten)]
    pub product: Product,
}

quick!(|options| {
    options.plan.quicken();
    options.kills = 1;
    options.load = Duration::from_secs(1);
});

/// One restart, since the start of the process.
#[derive(Clone, Copy, Debug, Serialize)]
struct Restart {
    answers_s: f64,
    ready_s: f64,
    /// A newly posted event is in its list.
    live_s: f64,
    rss_bytes: u64,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    name: &'static str,
    wall_s: f64,
    cpu_s: f64,
}

/// Runs the measurement.
///
/// # Errors
/// When the server does not start, ends by itself, or has lost an acknowledged event.
pub async fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new(if options.also_bought_only { "restart-also-bought-only" } else { "restart" });
    plan_parameters(&mut report, &options.plan);
    report.parameter("kills", options.kills);
    report.parameter("rate_per_second", options.rate);
    report.parameter("also_bought_only", options.also_bought_only);
    let binary = options.product.binary()?;
    let settings = if options.also_bought_only { also_bought_alone() } else { Vec::new() };
    let preloaded = Preloaded::make(&binary, &options.plan, None, settings, options.product.within.as_deref())?;

    let bar = progress::bar("kill -9 and restart", options.kills.into());
    bar.tick();
    let mut restarts = Vec::new();
    let mut pairs = None;
    let mut traffic = Traffic::purchases(&options.plan, 1);
    let mut server = preloaded.serve(&binary).await?;
    for _ in 0..options.kills {
        let (endpoint, kill_at) = (server.endpoint.clone(), options.load);
        let pace = Pace { rate: options.rate, batch: 1, lasting: kill_at * 10, sample_each: 0, connections: 8 };
        let load = tokio::spawn(async move { post::run(&endpoint, traffic, pace, Arc::default()).await });
        tokio::time::sleep(kill_at).await;
        ensure!(!load.is_finished(), "the load ended before the kill: {:?}", load.await);
        server.kill()?;
        // The kill cuts its connections: no failure.
        ensure!(load.await.context("the load generator panicked")?.is_err(), "the load went on after the kill");

        traffic = Traffic::purchases(&Plan { seed: options.plan.seed + 1 + restarts.len() as u64, events: 0, ..options.plan }, 1);
        let batch = traffic.next_batch();
        let began = Instant::now();
        server = preloaded.serve(&binary).await?;
        let position = Poster::open(&server.endpoint).await?.post(&batch).await?;
        Reader::open(&server.endpoint).await?.list_at(&batch.item, &position).await?;
        restarts.push(Restart {
            answers_s: server.started.answers.as_secs_f64(),
            ready_s: server.started.ready.as_secs_f64(),
            live_s: began.elapsed().as_secs_f64(),
            rss_bytes: server.process().rss_bytes().unwrap_or(0),
        });
        let status = server.endpoint.json("/v1/admin/status").await?;
        pairs = find_number(&status, "pairs").filter(|pairs| *pairs > 0.0);
        bar.inc(1);
    }
    bar.finish_and_clear();
    server.kill()?;
    let phases = phases(&preloaded, options.also_bought_only)?;
    tell(&mut report, &restarts, pairs, &phases, options)?;
    Ok(report)
}

/// The number under a name, at any depth.
fn find_number(value: &serde_json::Value, name: &str) -> Option<f64> {
    match value {
        serde_json::Value::Object(fields) => fields
            .get(name)
            .and_then(serde_json::Value::as_f64)
            .or_else(|| fields.values().find_map(|field| find_number(field, name))),
        serde_json::Value::Array(items) => items.iter().find_map(|item| find_number(item, name)),
        _ => None,
    }
}

/// Runs each phase on the directory, without other users.
fn phases(preloaded: &Preloaded, also_bought_only: bool) -> Result<Vec<Phase>> {
    let mut phases = Vec::new();
    let mut timed = |name: &'static str, began: Instant, cpu: Duration| {
        let wall_s = began.elapsed().as_secs_f64();
        phases.push(Phase { name, wall_s, cpu_s: (thread_cpu() - cpu).as_secs_f64() });
    };
    let (began, cpu) = (Instant::now(), thread_cpu());
    let log = EmbeddedLog::open(&preloaded.data().join("log")).context("could not open the log")?;
    timed("open the log", began, cpu);
    ensure!(!log.identity().is_empty(), "the log has no identity");
    let (began, cpu) = (Instant::now(), thread_cpu());
    let store = EmbeddedStore::open(&preloaded.data().join("store")).context("could not open the store")?;
    timed("open the store", began, cpu);
    let (began, cpu) = (Instant::now(), thread_cpu());
    let mut updates: Vec<Update> = Vec::new();
    let snapshot = store.snapshot()?;
    restore(&*snapshot.rows, (0, 1), &Semantics::default(), &mut |update| updates.push(update))?;
    timed("read the inputs", began, cpu);
    let records = updates.len();
    ensure!(records > 0, "the store holds no inputs");
    let engine = if also_bought_only { Engine::also_bought_alone() } else { Engine::all_views() };
    let cost = run_dataflow(engine, move |job| job.updates(updates));
    phases.push(Phase { name: "derive the views", wall_s: cost.wall.as_secs_f64(), cpu_s: cost.cpu.as_secs_f64() });
    Ok(phases)
}

fn tell(report: &mut Report, restarts: &[Restart], pairs: Option<f64>, phases: &[Phase], options: &Options) -> Result<()> {
    let worst = |of: fn(&Restart) -> f64| restarts.iter().map(of).fold(0.0, f64::max);
    let state = number(options.plan.events as f64);
    report.measure(
        format!("kill -9 to live lists, state of {state} events"),
        worst(|r| r.live_s),
        "s",
        Some(Target::AtMost(5.0)),
    );
    report.note(format!("the slowest of {}; live: an event posted after it is shown in its list", restarts.len()));
    report.measure("kill -9 to ready", worst(|r| r.ready_s), "s", None);
    report.measure("kill -9 to the first answer", worst(|r| r.answers_s), "s", None);
    let rss = worst(|r| r.rss_bytes as f64);
    report.measure("memory of the server", rss / 1e6, "MB", None);
    match (pairs, options.also_bought_only) {
        (Some(pairs), true) => {
            report.measure("server with also_bought alone", rss / pairs, "bytes/pair", Some(Target::AtMost(50.0)));
            report.note(format!("{} directed pairs", number(pairs)));
        }
        (Some(pairs), false) => report.measure("server with all views", rss / pairs, "bytes/pair", None),
        (None, _) => report.not_measured("memory a pair", "bytes/pair", None, "the server's status names no pairs"),
    }
    let header = ["phase by itself", "wall, s", "CPU of its thread, s"];
    let rows = phases.iter().map(|phase| vec![phase.name.to_owned(), number(phase.wall_s), number(phase.cpu_s)]);
    report.table("what a restart does, in this process", &header, rows.collect());
    let rows = restarts.iter().zip(1..).map(|(restart, n): (&Restart, u32)| {
        vec![
            n.to_string(),
            number(restart.answers_s),
            number(restart.ready_s),
            number(restart.live_s),
            number(restart.rss_bytes as f64 / 1e6),
        ]
    });
    report.table("restarts after kill -9", &["restart", "answers, s", "ready, s", "live, s", "memory, MB"], rows.collect());
    let mut panel = Panel::bars(format!("Restart with the state of {state} events"), "seconds").with_target(5.0);
    for phase in phases {
        panel = panel.with_bar(format!("{} (by itself)", phase.name), phase.wall_s);
    }
    panel = panel.with_bar("kill -9 to ready", worst(|r| r.ready_s)).with_bar("kill -9 to live lists", worst(|r| r.live_s));
    report.plot(panel);
    report.detail("restarts", restarts)?;
    report.detail("phases", phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_wherever_it_stands() {
        let status = serde_json::json!({"state": "running", "pipeline": {"pairs": 12, "owners": 3}});
        assert_eq!(find_number(&status, "pairs"), Some(12.0));
        assert_eq!(find_number(&status, "none"), None);
    }
}
