//! `shards`: how evenly pairs and pair updates are distributed over the workers of one process or two. Counted, not timed:
//! deterministic.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use kindred_dataflow::build;
use kindred_dataflow::update::{OutputFn, Stats};
use serde::{Deserialize, Serialize};

use crate::dataflow::{Engine, Fact};
use crate::options::{at_least_one, quick};
use crate::progress;
use crate::report::{Report, Target, number};
use crate::synthetic::{Plan, purchases};

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// Events fed live beyond the log
    #[arg(long, default_value_t = 200_000)]
    pub live: usize,
    /// Events of a live epoch
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one())]
    pub epoch: usize,
}

quick!(|options| {
    options.plan.quicken();
    (options.live, options.epoch) = (2_000, 100);
});

/// Processes, workers of each, and the highest load of a worker relative to an even share.
const LAYOUTS: [(usize, usize, f64); 4] = [(1, 2, 1.25), (1, 4, 1.25), (2, 2, 1.25), (1, 8, 1.5)];

/// The command of one process of several.
pub const PROCESS_COMMAND: &str = "shards-process";

#[derive(Serialize)]
struct Counted {
    processes: usize,
    workers: usize,
    pairs: Vec<u64>,
    updates: Vec<u64>,
}

/// The counts of each worker of a process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Pairs held at the end.
    pub pairs: Vec<u64>,
    /// Pair updates since the first event.
    pub updates: Vec<u64>,
}

/// Counts for each layout.
///
/// # Errors
/// When workers or processes do not start, or a figure cannot be kept.
pub fn run_shards(options: &Options) -> Result<Report> {
    let mut report = Report::new("shards");
    crate::replay::plan_parameters(&mut report, &options.plan);
    report.parameter("live_events", options.live);
    let bar = progress::bar("pairs by worker", LAYOUTS.len() as u64);
    bar.tick();
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for (processes, each, most) in LAYOUTS {
        let workers = processes * each;
        // The live epochs are the total less the bulk.
        let bulk = Options { live: 0, ..options.clone() };
        let (all, bulk) = (count(processes, each, options)?, count(processes, each, &bulk)?);
        let updates: Vec<u64> = all.updates.iter().zip(&bulk.updates).map(|(all, bulk)| all - bulk).collect();
        for (what, of) in [("pairs held", &all.pairs), ("pair updates of live epochs", &updates)] {
            let busiest = of.iter().max().copied().unwrap_or(0) as f64;
            let even = of.iter().sum::<u64>() as f64 / workers as f64;
            let over = if processes == 1 { String::new() } else { format!(" over {processes} processes") };
            let name = format!("{what} by the busiest of {workers} workers{over}");
            report.measure(name, busiest / even.max(1.0), "times the even share", Some(Target::AtMost(most)));
            let shares = of.iter().map(|&count| number(count as f64)).collect::<Vec<_>>().join("  ");
            rows.push(vec![format!("{processes} × {each}"), what.to_owned(), shares]);
        }
        counts.push(Counted { processes, workers, pairs: all.pairs, updates });
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.table("also_bought, by worker", &["processes × workers", "what", "of each"], rows);
    report.detail("counts", counts)?;
    Ok(report)
}

fn count(processes: usize, workers: usize, options: &Options) -> Result<Counts> {
    if processes == 1 {
        return count_here(options, timely::Config::process(workers));
    }
    let program = std::env::current_exe().context("could not find this program")?;
    ensure!(program.file_stem().is_some_and(|name| name == "kindred-bench"), "several processes are of kindred-bench alone");
    // Free now; bound again at once.
    let free: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let hosts: Vec<String> = free.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect::<Result<_>>()?;
    drop(free);
    let start = |process: usize| {
        let mut command = Command::new(&program);
        command.arg(PROCESS_COMMAND).args(options.plan.arguments());
        command.args(["--live", &options.live.to_string(), "--epoch", &options.epoch.to_string()]);
        command.args(["--workers", &workers.to_string(), "--process", &process.to_string(), "--hosts", &hosts.join(",")]);
        command.stdout(Stdio::piped()).spawn().context("could not start a process")
    };
    let children = (0..processes).map(start).collect::<Result<Vec<_>>>()?;
    let mut counts = Counts::default();
    for child in children {
        let output = child.wait_with_output().context("could not wait for a process")?;
        ensure!(output.status.success(), "a process ended with {}", output.status);
        // Timely prints to the same output that processes have connected.
        let last = output.stdout.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let of: Counts = serde_json::from_slice(last).context("could not read what a process counted")?;
        counts.pairs.extend(of.pairs);
        counts.updates.extend(of.updates);
    }
    Ok(counts)
}

/// Counts the workers of one process of several.
///
/// # Errors
/// When the others cannot be reached.
pub fn count_process(options: &Options, process: usize, workers: usize, hosts: &[String]) -> Result<Counts> {
    let communication = timely::CommunicationConfig::Cluster {
        threads: workers,
        process,
        addresses: hosts.to_vec(),
        report: false,
        zerocopy: false,
    };
    count_here(options, timely::Config { communication, worker: timely::WorkerConfig::default() })
}

fn count_here(options: &Options, config: timely::Config) -> Result<Counts> {
    let Engine::Product(semantics) = Engine::also_bought_alone() else { unreachable!("the product's engine") };
    let (plan, live, each) = (options.plan, options.live, options.epoch);
    let output: OutputFn = Arc::new(drop);
    let guards = timely::execute(config, move |worker| {
        let stats: Arc<Stats> = Arc::default();
        let mut dataflow = build(worker, &semantics, &stats, &output);
        let first = worker.index() == 0;
        let mut facts = first.then(|| purchases(&plan).map(Fact::from)).into_iter().flatten();
        let epochs = 1 + live.div_ceil(each) as u64;
        for epoch in 0..epochs {
            let many = if epoch == 0 { plan.events } else { each.min(live - (epoch as usize - 1) * each) };
            for fact in facts.by_ref().take(many) {
                dataflow.send(fact.update());
            }
            dataflow.advance_to(epoch + 1);
            while !dataflow.has_passed(epoch) {
                worker.step_or_park(None);
            }
        }
        (Stats::get(&stats.pairs), Stats::get(&stats.pair_updates))
    });
    let mut counts = Counts::default();
    for result in guards.map_err(|reason| anyhow!(reason))?.join() {
        let (pairs, updates) = result.map_err(|reason| anyhow!(reason))?;
        counts.pairs.push(pairs);
        counts.updates.push(updates);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the figures would be of other work than one worker's.
    #[test]
    fn the_workers_hold_together_what_one_holds() {
        let options = Options { plan: Plan::QUICK, live: 2_000, epoch: 100 };
        let one = count(1, 1, &options).unwrap();
        let four = count(1, 4, &options).unwrap();
        assert!(one.pairs[0] > 0 && one.updates[0] > 0);
        assert_eq!(four.pairs.iter().sum::<u64>(), one.pairs[0]);
        assert_eq!(four.updates.iter().sum::<u64>(), one.updates[0]);
    }
}
