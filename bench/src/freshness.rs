//! `freshness`: from when a post of an event is due until the list that shows it is served, in an open loop over HTTP, on the
//! binary that users run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kindred_model::Topic;
use serde::Serialize;
use serde_json::Value;

use crate::options::{Running, quick};
use crate::plot::Panel;
use crate::post::{self, Batch, Pace, Posted, Poster, Reader, Traffic};
use crate::progress;
use crate::replay::plan_parameters;
use crate::report::{PERCENTILES, Report, Target, curve, latencies, number, percentile_row, quantile_ms, record};
use crate::server::{Endpoint, Preloaded, Server};
use crate::synthetic::{BEGINS_MS, Mix, Plan};
use crate::usage::{Process, difference};

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// Events a second [default: 1000, or 10000 with --sustained]
    #[arg(long)]
    pub rate: Option<f64>,
    /// Events a request [default: 1, or 100 with --sustained]
    #[arg(long)]
    pub batch: Option<usize>,
    /// How long, in seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// How long, in minutes, with --sustained
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// New pairs, beside the running load
    #[arg(long, conflicts_with = "sustained")]
    pub pair_trial: bool,
    /// How many pairs
    #[arg(long, default_value_t = 100)]
    pub trials: u64,
    /// The whole product's mix, for minutes
    #[arg(long)]
    pub sustained: bool,
    /// Connections
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// One in this many requests is followed to its list [default: 10, or 5 with --sustained]
    #[arg(long)]
    pub sample_each: Option<u64>,
    /// A smoke run.
    #[arg(skip)]
    pub quick: bool,
    /// The server.
    #[command(flatten)]
    pub running: Running,
}

quick!(|options| {
    options.plan.quicken();
    (options.trials, options.quick) = (5, true);
});

/// New members a trial, who all take both items.
const TAKERS: u64 = 50;

impl Options {
    fn pace(&self) -> Pace {
        let (rate, batch, sample_each) = if self.sustained { (10_000.0, 100, 5) } else { (1_000.0, 1, 10) };
        let seconds = if self.sustained { self.minutes * 60 } else { self.seconds };
        Pace {
            rate: self.rate.unwrap_or(rate),
            batch: self.batch.unwrap_or(batch),
            lasting: Duration::from_secs(if self.quick { 3 } else { seconds }),
            sample_each: self.sample_each.unwrap_or(sample_each),
            connections: self.connections,
        }
    }
}

/// The server under test: our own, or a running one.
struct Subject {
    endpoint: Endpoint,
    own: Option<(Server, Preloaded)>,
}

impl Subject {
    fn process(&self) -> Option<Process> {
        self.own.as_ref().map(|(server, _)| server.process())
    }
}

/// Runs the measurement.
///
/// # Errors
/// When the server does not start, or an event is not accepted or not shown.
pub async fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new(match (options.sustained, options.pair_trial) {
        (true, _) => "freshness-sustained",
        (_, true) => "freshness-pair-trial",
        _ => "freshness",
    });
    let pace = options.pace();
    plan_parameters(&mut report, &options.plan);
    report.parameter("rate_per_second", pace.rate);
    report.parameter("events_a_request", pace.batch);
    report.parameter("seconds", pace.lasting.as_secs_f64());
    report.parameter("connections", pace.connections);
    let (endpoint, own) = options.running.or_own(&options.plan).await?;
    let subject = Subject { endpoint, own };
    match (options.sustained, options.pair_trial) {
        (true, _) => sustained(&mut report, &subject, options).await?,
        (_, true) => pair_trial(&mut report, &subject, options).await?,
        _ => steady(&mut report, &subject, options).await?,
    }
    Ok(report)
}

/// Resource use of the server.
#[derive(Default, Serialize)]
struct ServerUse {
    /// CPU seconds by thread.
    cpu_s: std::collections::BTreeMap<String, f64>,
    /// Memory at the end.
    rss_bytes: u64,
    /// (seconds, MB).
    rss_over_time: Vec<(f64, f64)>,
}

/// Posts in an open loop with a progress bar, and samples the server.
async fn posting(subject: &Subject, traffic: Traffic, pace: Pace, name: &'static str) -> Result<(Posted, ServerUse)> {
    let before = subject.process().map(Process::cpu_by_thread).unwrap_or_default();
    let bar = progress::bar(name, pace.lasting.as_secs());
    let running = tokio::spawn({
        let endpoint = subject.endpoint.clone();
        async move { post::run(&endpoint, traffic, pace, Arc::new(AtomicBool::new(false))).await }
    });
    let began = Instant::now();
    let mut used = ServerUse::default();
    while !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bar.set_position(began.elapsed().as_secs().min(pace.lasting.as_secs()));
        if let Some(process) = subject.process() {
            used.rss_over_time.push((began.elapsed().as_secs_f64(), process.rss_bytes().unwrap_or(0) as f64 / 1e6));
        }
    }
    bar.finish_and_clear();
    let posted = running.await.context("the load generator panicked")??;
    if let Some(process) = subject.process() {
        let cpu = difference(&before, &process.cpu_by_thread());
        used.cpu_s = cpu.into_iter().map(|(name, cpu)| (name, cpu.as_secs_f64())).collect();
        used.rss_bytes = process.rss_bytes().unwrap_or(0);
    }
    Ok((posted, used))
}

/// Load before a measurement: caches fill, connections open.
const WARM_UP: Duration = Duration::from_secs(2);

async fn steady(report: &mut Report, subject: &Subject, options: &Options) -> Result<()> {
    let pace = options.pace();
    let warm_up = Pace { lasting: WARM_UP.min(pace.lasting), ..pace };
    // Another seed, so that the measured events are new.
    let other = Plan { seed: options.plan.seed + 1, events: 0, ..options.plan };
    post::run(&subject.endpoint, Traffic::purchases(&other, pace.batch), warm_up, Arc::default()).await?;
    let (posted, used) = posting(subject, Traffic::purchases(&options.plan, pace.batch), pace, "posting by the clock").await?;
    let rate = number(pace.rate);
    for (name, quantile, most) in
        [("p50", 0.5, Some(10.0)), ("p90", 0.9, None), ("p99", 0.99, Some(30.0)), ("p99.9", 0.999, None)]
    {
        let target = most.map(Target::AtMost);
        report.measure(format!("event to list at {rate}/s, {name}"), quantile_ms(&posted.shown, quantile), "ms", target);
    }
    report.measure(format!("event to list at {rate}/s, max"), posted.shown.max() as f64 / 1e6, "ms", None);
    tell_posted(report, &posted, &used)?;
    let panel = Panel::percentiles(format!("Freshness at {rate} events/s"));
    let panel = panel.with_series("event to list", curve(&posted.shown)).with_series("post to 202", curve(&posted.accepted));
    report.plot(panel);
    report.plot(over_time("Freshness over time", &posted, pace).with_target(30.0));
    Ok(())
}

/// Worst and median of each interval.
fn over_time(title: impl Into<String>, posted: &Posted, pace: Pace) -> Panel {
    let each = (pace.lasting.as_secs_f64() / 120.0).max(1.0);
    let pieces = pieces(&posted.over_time, each);
    Panel::lines(title, "seconds", "ms")
        .with_series(format!("worst of each {} s", number(each)), pieces.iter().map(|(at, worst, _)| (*at, *worst)).collect())
        .with_series("median", pieces.iter().map(|(at, _, median)| (*at, *median)).collect())
}

fn tell_posted(report: &mut Report, posted: &Posted, used: &ServerUse) -> Result<()> {
    report.measure("events accepted", posted.per_second(), "events/s", None);
    report.table(
        "by the clock: from when a request was due",
        &PERCENTILES,
        vec![percentile_row("post to 202", &posted.accepted), percentile_row("event to list", &posted.shown)],
    );
    report.histogram("accepted", &posted.accepted);
    report.histogram("shown", &posted.shown);
    if !used.cpu_s.is_empty() {
        let total: f64 = used.cpu_s.values().sum();
        report.measure("server", total / posted.took.as_secs_f64(), "cores", None);
        report.measure("server's memory", used.rss_bytes as f64 / 1e6, "MB", None);
    }
    report.detail("server", used)?;
    report.detail("reads_repeated", posted.repeated)
}

/// Freshness by interval: (seconds, worst in ms, median).
fn pieces(over_time: &[(f64, f64)], seconds: f64) -> Vec<(f64, f64, f64)> {
    let mut pieces = Vec::new();
    for piece in over_time.chunk_by(|a, b| (a.0 / seconds).floor() == (b.0 / seconds).floor()) {
        let mut latencies: Vec<f64> = piece.iter().map(|(_, ms)| *ms).collect();
        latencies.sort_by(f64::total_cmp);
        let begin = (piece[0].0 / seconds).floor() * seconds;
        pieces.push((begin, *latencies.last().expect("a chunk is not empty"), latencies[latencies.len() / 2]));
    }
    pieces
}

async fn sustained(report: &mut Report, subject: &Subject, options: &Options) -> Result<()> {
    let pace = options.pace();
    let traffic = Traffic::whole(&options.plan, Mix::usual(), pace.batch);
    let (posted, used) = posting(subject, traffic, pace, "posting the whole mix").await?;
    let minutes = number(pace.lasting.as_secs_f64() / 60.0);
    report.measure(
        format!("freshness over {minutes} min, max"),
        posted.shown.max() as f64 / 1e6,
        "ms",
        Some(Target::AtMost(1_000.0)),
    );
    report.measure("freshness, p50", quantile_ms(&posted.shown, 0.5), "ms", None);
    report.measure("freshness, p99", quantile_ms(&posted.shown, 0.99), "ms", None);
    // The last requests are answered after the end: allow one per cent.
    let target = Target::AtLeast(pace.rate * 0.99);
    report.measure("events accepted, against those asked for", posted.per_second(), "events/s", Some(target));
    tell_posted(report, &posted, &used)?;
    let title = format!("Freshness at {} events/s in batches of {}", number(pace.rate), pace.batch);
    report.plot(over_time(title, &posted, pace).with_target(1_000.0));
    if used.rss_over_time.len() > 1 {
        report.plot(Panel::lines("Memory of the server", "seconds", "MB").with_series("RSS", used.rss_over_time.clone()));
    }
    Ok(())
}

/// The outcome of one trial.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// From the post until both lists are served.
    took: Duration,
    /// Whether each is first in the other's list.
    first: bool,
}

/// A trial succeeds within this time.
const TRIAL_LIMIT: Duration = Duration::from_millis(100);
/// The pause between trials.
const TRIAL_GAP: Duration = Duration::from_millis(150);

async fn pair_trial(report: &mut Report, subject: &Subject, options: &Options) -> Result<()> {
    report.parameter("trials", options.trials);
    report.parameter("takers", TAKERS);
    let pace = options.pace();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (endpoint, stop) = (subject.endpoint.clone(), Arc::clone(&stop));
        let traffic = Traffic::purchases(&options.plan, pace.batch);
        // Stopped when the trials are over.
        let pace = Pace { lasting: Duration::from_secs(86_400), ..pace };
        async move { post::run(&endpoint, traffic, pace, stop).await }
    });
    tokio::time::sleep(WARM_UP.min(pace.lasting)).await;
    let trials = run_trials(subject, options, &load).await;
    stop.store(true, Ordering::Relaxed);
    let posted = load.await.context("the load generator panicked")??;
    let trials = trials?;

    let mut histogram = latencies();
    trials.iter().for_each(|trial| record(&mut histogram, trial.took));
    let succeeded = trials.iter().filter(|trial| trial.first && trial.took <= TRIAL_LIMIT).count() as f64;
    let wanted = options.trials as f64;
    report.measure(
        format!("of {} pairs, first in each other's list within {} ms", options.trials, TRIAL_LIMIT.as_millis()),
        succeeded,
        "pairs",
        Some(Target::AtLeast(wanted)),
    );
    report.measure("slowest pair", histogram.max() as f64 / 1e6, "ms", None);
    report.measure("running load", posted.per_second(), "events/s", None);
    report.table(
        format!("{TAKERS} new members take X and Y, which nobody had, in one request"),
        &PERCENTILES,
        vec![percentile_row("post to both lists", &histogram), percentile_row("running load: post to 202", &posted.accepted)],
    );
    report.histogram("both-lists", &histogram);
    let points = trials.iter().zip(1..).map(|(trial, n)| (f64::from(n), trial.took.as_secs_f64() * 1e3)).collect();
    report.plot(
        Panel::lines("From posting a new pair to both lists that show it", "trial", "ms")
            .with_series("trials", points)
            .with_target(TRIAL_LIMIT.as_secs_f64() * 1e3),
    );
    Ok(())
}

async fn run_trials(subject: &Subject, options: &Options, load: &tokio::task::JoinHandle<Result<Posted>>) -> Result<Vec<Trial>> {
    let mut poster = Poster::open(&subject.endpoint).await?;
    let mut readers = (Reader::open(&subject.endpoint).await?, Reader::open(&subject.endpoint).await?);
    let bar = progress::bar("trials of new pairs", options.trials);
    // Distinguishes the trials of runs on the same server.
    let run = std::process::id();
    let mut trials = Vec::new();
    for n in 0..options.trials {
        if load.is_finished() {
            // Its error is reported.
            break;
        }
        let (x, y) = (format!("trial-{run}-{n}-x"), format!("trial-{run}-{n}-y"));
        let batch = trial_batch(&x, &y, n, TAKERS);
        let began = Instant::now();
        let position = poster.post(&batch).await?;
        let (of_x, of_y) = tokio::try_join!(readers.0.list_at(&x, &position), readers.1.list_at(&y, &position))?;
        let took = began.elapsed();
        trials.push(Trial { took, first: first_of(&of_x.0)? == Some(y) && first_of(&of_y.0)? == Some(x) });
        bar.inc(1);
        tokio::time::sleep(TRIAL_GAP).await;
    }
    bar.finish_and_clear();
    Ok(trials)
}

/// Both items, taken by each of the new members.
fn trial_batch(x: &str, y: &str, trial: u64, takers: u64) -> Batch {
    let at = kindred_model::EventTime(BEGINS_MS + i64::try_from(trial).unwrap_or(0) * 1_000);
    let mut body = Vec::new();
    for taker in 0..takers {
        for item in [x, y] {
            let line = format!(r#"{{"member":"{x}-{taker}","kind":"purchase","item":"{item}","at":"{at}"}}"#);
            body.extend_from_slice(line.as_bytes());
            body.push(b'\n');
        }
    }
    let records = usize::try_from(takers).unwrap_or(0) * 2;
    Batch { topic: Topic::Interactions, body, records, item: x.to_owned() }
}

/// The first item of a list.
fn first_of(list: &[u8]) -> Result<Option<String>> {
    let list: Value = serde_json::from_slice(list).context("a list is no JSON")?;
    Ok(list["items"][0]["item"].as_str().map(ToOwned::to_owned))
}

#[cfg(test)]
mod tests {
    use kindred_model::Record;
    use kindred_model::records::Rules;

    use super::*;

    /// The plot shows the worst of each interval: a spike must not be averaged away.
    #[test]
    fn pieces_keep_the_worst() {
        let over_time = [(0.0, 1.0), (0.5, 9.0), (0.9, 2.0), (1.1, 3.0), (4.2, 5.0)];
        assert_eq!(pieces(&over_time, 1.0), [(0.0, 9.0, 2.0), (1.0, 3.0, 3.0), (4.0, 5.0, 5.0)]);
    }

    #[test]
    fn a_trial_is_of_new_members_who_all_take_both() {
        let batch = trial_batch("x", "y", 3, 50);
        let lines: Vec<&[u8]> = batch.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
        assert_eq!((lines.len(), batch.records), (100, 100));
        let mut owners = std::collections::BTreeMap::new();
        for line in lines {
            let Record::Interaction(interaction) = Record::decode(Topic::Interactions, line, &Rules::default()).unwrap() else {
                panic!("no interaction");
            };
            *owners.entry(interaction.owner).or_insert(0) += 1;
        }
        assert!(owners.len() == 50 && owners.values().all(|items| *items == 2));
        assert_eq!(first_of(br#"{"items":[{"item":"y"},{"item":"z"}]}"#).unwrap().as_deref(), Some("y"));
        assert_eq!(first_of(br#"{"items":[]}"#).unwrap(), None);
    }
}
