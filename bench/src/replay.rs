//! `replay`: the cost of the views. `also_bought` alone beside alternatives; with `--all-views` everything from a file to durable
//! rows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use kindred_dataflow::update::Stats;
use kindred_model::{Semantics, Topic};
use serde::{Deserialize, Serialize};

use crate::dataflow::{Cost, Engine, Fact, run};
use crate::options::{Product, quick};
use crate::plot::Panel;
use crate::progress;
use crate::report::{Report, Target, latencies, number, percentile_row, record};
use crate::scipy;
use crate::server::{Finished, Preloaded};
use crate::synthetic::{Mix, Plan, purchases};
use crate::usage::{Process, disk_bytes};

/// Events per live epoch.
const EPOCHS: [usize; 2] = [1_000, 100];

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// From NDJSON files to durable rows of all views, by `kindred import`
    #[arg(long)]
    pub all_views: bool,
    /// With --all-views: the whole product's log too
    #[arg(long, requires = "all_views")]
    pub whole: bool,
    /// Events fed live beyond the log, for each epoch size.
    #[arg(skip = [200_000, 100_000])]
    pub live: [usize; 2],
    /// CPU limit of the reference for each epoch size.
    #[arg(skip = Duration::from_secs(20))]
    pub reference_live: Duration,
    /// The product.
    #[command(flatten)]
    pub product: Product,
}

quick!(|options| {
    options.plan.quicken();
    options.live = [2_000, 500];
    options.reference_live = Duration::from_millis(500);
});

/// Runs the measurement.
///
/// # Errors
/// Those of [`run_also_bought`] and [`run_all_views`].
pub fn run_replay(options: &Options) -> Result<Report> {
    if options.all_views { run_all_views(options) } else { run_also_bought(options) }
}

/// The cost of one engine.
struct Taken {
    name: &'static str,
    bulk: Cost,
    live: Vec<(Cost, Histogram<u64>)>,
    pairs: u64,
    bytes: u64,
    lists_changed: u64,
}

/// Measures `also_bought` alone.
///
/// # Errors
/// When scipy's batch fails or counts other pairs, or the memory of a process cannot be read.
pub fn run_also_bought(options: &Options) -> Result<Report> {
    let plan = &options.plan;
    let mut report = Report::new("replay");
    plan_parameters(&mut report, plan);
    report.parameter("live_events", options.live.as_slice());

    let steps = progress::bar("also_bought alone", 5);
    steps.tick();
    let total = plan.events + options.live.iter().sum::<usize>();
    let facts: std::sync::Arc<Vec<Fact>> = std::sync::Arc::new(purchases(plan).take(total).map(Fact::from).collect());
    let engines = [
        ("kindred, from decoded records to rows", Engine::also_bought_alone()),
        ("kindred, the operators alone", Engine::Operators),
        ("plain differential", Engine::Reference),
    ];
    let mut taken = Vec::new();
    for (name, engine) in engines {
        let most = if engine == Engine::Reference { options.reference_live } else { Duration::MAX };
        let (facts, bulk, live) = (std::sync::Arc::clone(&facts), plan.events, options.live);
        taken.push(run(engine, move |job| {
            let bulk_cost = job.epoch(facts[..bulk].iter().copied());
            let lists_before = Stats::get(&job.stats.lists_changed);
            let (mut from, mut of_live) = (bulk, Vec::new());
            for (each, events) in EPOCHS.into_iter().zip(live) {
                let mut histogram = latencies();
                let cost = job.epochs(&facts[from..from + events], each, most, |cost| record(&mut histogram, cost.wall));
                from += events;
                of_live.push((cost, histogram));
            }
            Taken {
                name,
                bulk: bulk_cost,
                live: of_live,
                pairs: Stats::get(&job.stats.pairs),
                bytes: Stats::get(&job.stats.similarity_bytes),
                lists_changed: Stats::get(&job.stats.lists_changed) - lists_before,
            }
        }));
        steps.inc(1);
    }
    drop(facts);
    let settings = Semantics::default().views.also_bought;
    let batch = scipy::batch(purchases(plan).take(plan.events), settings.window, settings.top)?;
    steps.inc(1);
    let memory = memory_in_child(plan)?;
    steps.finish_and_clear();
    if let Some(batch) = &batch {
        ensure!(
            batch.pairs == memory.pairs,
            "scipy finds {} directed pairs and kindred {}: one of them is wrong, so the figures mean nothing",
            batch.pairs,
            memory.pairs
        );
    }
    tell(&mut report, &taken, batch.as_ref(), &memory)?;
    Ok(report)
}

/// Adds the plan to a report.
pub fn plan_parameters(report: &mut Report, plan: &Plan) {
    report.parameter("members", plan.members);
    report.parameter("items", plan.items);
    report.parameter("events", plan.events);
    report.parameter("seed", plan.seed);
}

fn tell(report: &mut Report, taken: &[Taken], batch: Option<&scipy::Batch>, memory: &Memory) -> Result<()> {
    let (ours, operators) = (&taken[0], &taken[1]);
    let scipy_cpu = batch.map(|batch| batch.total_cpu_s);
    let note = if batch.is_some() { "target: scipy's batch of the same log, in this run" } else { scipy::NOT_RUN };
    for (name, of) in [("from facts to lists, as scipy does", operators), ("from records to rows, inputs merged", ours)] {
        let name = format!("also_bought, the log in one epoch, {name}");
        report.measure(name, of.bulk.cpu.as_secs_f64(), "CPU s", scipy_cpu.map(Target::AtMost));
        report.note(note);
    }
    for (each, (cost, _)) in EPOCHS.iter().zip(&ours.live) {
        let name = format!("also_bought live, {} events an epoch, from records to rows", number(*each as f64));
        report.measure(name, cost.events_per_cpu_second(), "events/CPU s", Some(Target::AtLeast(30_000.0)));
    }
    report.measure("similarity state", memory.bytes as f64 / memory.pairs as f64, "bytes/pair", Some(Target::AtMost(12.0)));
    report.note(format!("{} directed pairs", number(memory.pairs as f64)));
    let rss = memory.rss as f64 / memory.pairs as f64;
    report.measure("process with also_bought alone", rss, "bytes/pair", Some(Target::AtMost(50.0)));
    report.note("dataflow and names in a process by themselves; `restart --also-bought-only` measures the whole server");
    match scipy_cpu {
        Some(cpu) => {
            report.measure("rebuilding every list each second, by scipy", cpu, "CPU s each", None);
            report.note("an event is shown after that at the earliest, and no other list is kept meanwhile");
        }
        None => report.not_measured("rebuilding every list each second, by scipy", "CPU s each", None, scipy::NOT_RUN),
    }
    report.measure("lists changed by a live event", ours.lists_changed as f64 / live_events(ours), "lists/event", None);

    let header = ["engine", "log in one epoch, CPU s", "live 1,000/epoch, events/CPU s", "live 100/epoch, events/CPU s"];
    let mut rows: Vec<Vec<String>> = taken
        .iter()
        .map(|taken| {
            let mut row = vec![taken.name.to_owned(), number(taken.bulk.cpu.as_secs_f64())];
            row.extend(taken.live.iter().map(|(cost, _)| number(cost.events_per_cpu_second())));
            row
        })
        .collect();
    rows.push(match batch {
        Some(batch) => vec!["scipy, batch".to_owned(), number(batch.total_cpu_s), "-".to_owned(), "-".to_owned()],
        None => vec!["scipy, batch".to_owned(), scipy::NOT_RUN.to_owned(), String::new(), String::new()],
    });
    report.table("also_bought alone", &header, rows);
    let mut epochs = Vec::new();
    for taken in taken {
        for (each, (_, histogram)) in EPOCHS.iter().zip(&taken.live) {
            epochs.push(percentile_row(&format!("{}, {}/epoch", taken.name, number(*each as f64)), histogram));
        }
    }
    let mut header = crate::report::PERCENTILES;
    header[0] = "an epoch, ms";
    report.table("time of an epoch", &header, epochs);
    for (each, (_, histogram)) in EPOCHS.iter().zip(&ours.live) {
        report.histogram(format!("epochs-of-{each}"), histogram);
    }

    let mut bulk = Panel::bars("The log in one epoch", "CPU s (less is better)");
    for taken in taken {
        bulk = bulk.with_bar(taken.name, taken.bulk.cpu.as_secs_f64());
    }
    if let Some(cpu) = scipy_cpu {
        bulk = bulk.with_bar("scipy, batch", cpu).with_target(cpu);
    }
    report.plot(bulk);
    for (n, each) in EPOCHS.iter().enumerate() {
        let title = format!("Live, {} events an epoch", number(*each as f64));
        let mut live = Panel::bars(title, "events/CPU s (more is better)").with_target(30_000.0);
        for taken in taken {
            live = live.with_bar(taken.name, taken.live[n].0.events_per_cpu_second());
        }
        report.plot(live);
    }
    report.detail("memory", memory)?;
    report.detail("scipy", batch)?;
    report.detail("operators", serde_json::json!({ "pairs": ours.pairs, "similarity_bytes": ours.bytes }))?;
    Ok(())
}

fn live_events(taken: &Taken) -> f64 {
    taken.live.iter().map(|(cost, _)| cost.events).sum::<usize>() as f64
}

/// Memory of a process that holds only `also_bought`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Directed pairs held.
    pub pairs: u64,
    /// Bytes of rows and lists, by the operators' metrics.
    pub bytes: u64,
    /// Resident bytes of the process, once all is applied.
    pub rss: u64,
    /// Peak resident bytes.
    pub peak_rss: u64,
}

/// Applies the log and measures the memory. For a process of its own: see `memory_in_child`.
pub fn memory(plan: &Plan) -> Memory {
    let plan = *plan;
    run(Engine::also_bought_alone(), move |job| {
        job.epoch(purchases(&plan).take(plan.events).map(Fact::from));
        let process = Process::Own;
        Memory {
            pairs: Stats::get(&job.stats.pairs),
            bytes: Stats::get(&job.stats.similarity_bytes),
            rss: process.rss_bytes().unwrap_or(0),
            peak_rss: process.peak_rss_bytes().unwrap_or(0),
        }
    })
}

/// The command with which `memory_in_child` runs this program.
pub const MEMORY_COMMAND: &str = "dataflow-memory";

/// [`memory`] in a child process, so that this one's memory does not count. In other programs (tests) it runs in this process,
/// and the figure is too high.
fn memory_in_child(plan: &Plan) -> Result<Memory> {
    let program = std::env::current_exe().context("could not find this program")?;
    if program.file_stem().is_none_or(|name| name != "kindred-bench") {
        return Ok(memory(plan));
    }
    let mut command = std::process::Command::new(program);
    command.arg(MEMORY_COMMAND).args(plan.arguments());
    let output = command.output().context("could not run this program for its memory")?;
    ensure!(
        output.status.success(),
        "measuring memory ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("could not read the figures of memory")
}

/// Measures `kindred import` from NDJSON files to durable rows of all views, in a new directory.
///
/// # Errors
/// When the binary is missing or an import fails.
pub fn run_all_views(options: &Options) -> Result<Report> {
    let (plan, within) = (&options.plan, options.product.within.as_deref());
    let mut report = Report::new("replay-all-views");
    plan_parameters(&mut report, plan);
    report.parameter("whole_mix", options.whole);
    let binary = options.product.binary()?;
    let mut logs = vec![("the purchases alone", Preloaded::make(&binary, plan, None, Vec::new(), within)?)];
    if options.whole {
        logs.push(("the whole product's mix", Preloaded::make(&binary, plan, Some(Mix::usual()), Vec::new(), within)?));
    }
    let mut panel = Panel::bars("From a file to durable rows of all views", "records/s (more is better)").with_target(80_000.0);
    let (mut rows, mut stages) = (Vec::new(), Vec::new());
    for (name, preloaded) in &logs {
        for import in &preloaded.imports {
            let Finished { wall, cpu, peak_rss, .. } = &import.finished;
            let per_second = import.records as f64 / wall.as_secs_f64();
            let cpu_s: f64 = cpu.values().map(Duration::as_secs_f64).sum();
            let of = format!("{name}: {}", import.topic);
            rows.push(vec![
                of.clone(),
                number(import.records as f64),
                number(wall.as_secs_f64()),
                number(per_second),
                number(cpu_s),
                number(*peak_rss as f64 / 1e6),
            ]);
            for (thread, cpu) in cpu.iter().filter(|(_, cpu)| **cpu >= Duration::from_millis(10)) {
                stages.push(vec![
                    of.clone(),
                    thread.clone(),
                    number(cpu.as_secs_f64()),
                    number(cpu.as_secs_f64() / wall.as_secs_f64()),
                ]);
            }
            // With fewer records the start of the process dominates.
            if import.records >= 100_000 {
                panel = panel.with_bar(&of, per_second);
            }
            if import.topic == Topic::Interactions {
                let target = (*name == logs[0].0).then_some(Target::AtLeast(80_000.0));
                report.measure(format!("from file to durable rows, {name}"), per_second, "events/s", target);
                let disk = disk_bytes(&preloaded.data()) as f64 / import.records as f64;
                report.measure(format!("disk of log and store, {name}"), disk, "bytes/event", None);
            }
        }
    }
    let header = ["log", "records", "wall, s", "records/s", "CPU, s", "peak memory, MB"];
    report.table("kindred import, until the views are durable", &header, rows);
    report.table("stages: CPU by thread", &["log", "thread", "CPU, s", "of the wall"], stages);
    if logs[0].1.imports.iter().any(|import| import.records >= 100_000) {
        report.plot(panel);
    }
    report.detail("imports", logs.iter().map(|(name, preloaded)| (name, &preloaded.imports)).collect::<Vec<_>>())?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command runs end to end with all its figures, whatever their values.
    #[test]
    fn a_quick_replay_reports_every_figure() {
        let plan = Plan { members: 300, items: 200, events: 5_000, seed: 7 };
        let product = Product { binary: None, within: None };
        let (live, reference_live) = ([1_000, 200], Duration::from_millis(200));
        let report = run_replay(&Options { plan, all_views: false, whole: false, live, reference_live, product }).unwrap();
        for part in
            ["the log in one epoch", "1,000 events an epoch", "100 events an epoch", "similarity state", "plain differential"]
        {
            assert!(report.text().contains(part), "{part:?} is missing:\n{}", report.text());
        }
        for measure in report.measures() {
            let plausible = measure.value.is_none_or(|value| value > 0.0 && value.is_finite());
            assert!(plausible, "{} is {:?}", measure.name, measure.value);
        }
    }
}
