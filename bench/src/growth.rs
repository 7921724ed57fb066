//! `growth`: the cost of an event while the log grows, with a growing catalog and with a fixed one.

use std::time::Duration;

use anyhow::{Result, ensure};
use kindred_dataflow::update::Stats;
use serde::Serialize;

use crate::dataflow::{Engine, Fact, run};
use crate::options::{at_least_one, quick};
use crate::plot::Panel;
use crate::progress;
use crate::report::{Report, Target, number};
use crate::synthetic::{Plan, purchases};
use crate::usage::Process;

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Sizes of the log in millions of events, smallest first
    #[arg(long, value_delimiter = ',', default_value = "1,2,5,10", value_parser = millions)]
    pub sizes: Vec<usize>,
    /// Events fed live at each size
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one())]
    pub live: usize,
    /// Events of a live epoch
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one())]
    pub epoch: usize,
    /// The same seed gives the same logs
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

quick!(|options| {
    options.sizes = vec![10_000, 20_000];
    (options.live, options.epoch) = (1_000, 100);
});

fn millions(text: &str) -> Result<usize, String> {
    let millions = text.parse().ok().filter(|millions| *millions > 0.0 && f64::is_finite(*millions));
    millions.map(|millions| (millions * 1e6) as usize).ok_or_else(|| "a number of millions above 0 is accepted".to_owned())
}

#[derive(Serialize)]
struct Step {
    catalog: &'static str,
    events: usize,
    members: u32,
    items: u32,
    pairs: u64,
    bulk_cpu_us_per_event: f64,
    live_cpu_us_per_event: f64,
    similarity_bytes_per_pair: f64,
    process_rss_bytes: u64,
}

/// Measures cost per event at each size.
///
/// # Errors
/// When a figure cannot be kept.
pub fn run_growth(options: &Options) -> Result<Report> {
    ensure!(options.sizes.len() >= 2 && options.sizes.is_sorted(), "at least two sizes, the smallest first");
    let mut report = Report::new("growth");
    report.parameter("sizes", options.sizes.as_slice());
    report.parameter("live_events", options.live);
    report.parameter("events_an_epoch", options.epoch);
    report.parameter("seed", options.seed);
    let bar = progress::bar("cost per event as the log grows", 2 * options.sizes.len() as u64);
    bar.tick();
    let unchanged = Plan::scaled_to(options.sizes[0], options.seed).items;
    let mut steps = Vec::new();
    for (catalog, items) in [("growing", None), ("unchanged", Some(unchanged))] {
        for &events in &options.sizes {
            let scaled = Plan::scaled_to(events, options.seed);
            let plan = Plan { items: items.unwrap_or(scaled.items), ..scaled };
            steps.push(step(catalog, plan, options));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    tell(&mut report, &steps, options)?;
    Ok(report)
}

fn step(catalog: &'static str, plan: Plan, options: &Options) -> Step {
    let (live, epoch) = (options.live, options.epoch);
    run(Engine::also_bought_alone(), move |job| {
        let mut log = purchases(&plan);
        // Facts are drawn and interned outside of the measured time, in parts to save memory.
        let mut bulk = crate::dataflow::Cost::default();
        let mut left = plan.events;
        while left > 0 {
            let facts: Vec<Fact> = log.by_ref().take(left.min(2_000_000)).map(Fact::from).collect();
            left -= facts.len();
            bulk += job.epoch(facts);
        }
        let facts: Vec<Fact> = log.take(live).map(Fact::from).collect();
        let cost = job.epochs(&facts, epoch, Duration::MAX, |_| {});
        let micros = |cost: crate::dataflow::Cost| cost.cpu.as_secs_f64() * 1e6 / cost.events as f64;
        let pairs = Stats::get(&job.stats.pairs);
        Step {
            catalog,
            events: plan.events,
            members: plan.members,
            items: plan.items,
            pairs,
            bulk_cpu_us_per_event: micros(bulk),
            live_cpu_us_per_event: micros(cost),
            similarity_bytes_per_pair: Stats::get(&job.stats.similarity_bytes) as f64 / pairs.max(1) as f64,
            process_rss_bytes: Process::Own.rss_bytes().unwrap_or(0),
        }
    })
}

fn tell(report: &mut Report, steps: &[Step], options: &Options) -> Result<()> {
    let millions = |events: usize| number(events as f64 / 1e6);
    let mut panel = Panel::lines("CPU of the dataflow for a live event", "events in the log, M", "µs");
    for (catalog, most) in [("growing", 2.0), ("unchanged", 1.3)] {
        let of: Vec<&Step> = steps.iter().filter(|step| step.catalog == catalog).collect();
        let (Some(first), Some(last)) = (of.first(), of.last()) else { continue };
        let name =
            format!("cost at {} M events to that at {} M, catalog {catalog}", millions(last.events), millions(first.events));
        let ratio = last.live_cpu_us_per_event / first.live_cpu_us_per_event;
        report.measure(name, ratio, "times", Some(Target::AtMost(most)));
        let points = of.iter().map(|step| (step.events as f64 / 1e6, step.live_cpu_us_per_event)).collect();
        panel = panel.with_series(format!("catalog {catalog}"), points);
    }
    report.plot(panel);
    let header = ["catalog", "events, M", "members", "items", "pairs", "live, CPU µs/event", "bulk, CPU µs/event", "bytes/pair"];
    let rows = steps.iter().map(|step| {
        vec![
            step.catalog.to_owned(),
            millions(step.events),
            number(f64::from(step.members)),
            number(f64::from(step.items)),
            number(step.pairs as f64),
            number(step.live_cpu_us_per_event),
            number(step.bulk_cpu_us_per_event),
            number(step.similarity_bytes_per_pair),
        ]
    });
    let title = format!("also_bought alone, live epochs of {} events", number(options.epoch as f64));
    report.table(title, &header, rows.collect());
    report.detail("steps", steps)
}
