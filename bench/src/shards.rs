//! `shards`: how evenly pairs and pair updates fall to the workers. Counted, not timed: the same log gives the same figures.

use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use kindred_dataflow::build;
use kindred_dataflow::update::{OutputFn, Stats};
use serde::Serialize;

use crate::dataflow::{Engine, Fact};
use crate::progress;
use crate::report::{Report, Target, number};
use crate::synthetic::{Plan, purchases};

/// What to count.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log.
    pub plan: Plan,
    /// Events beyond the log that are fed live.
    pub live: usize,
    /// Events of a live epoch.
    pub epoch: usize,
}

impl Options {
    /// The measurement that the targets are about.
    pub fn full(plan: Plan) -> Self {
        Self { plan, live: 200_000, epoch: 1_000 }
    }

    /// A smoke run within seconds.
    pub fn quick() -> Self {
        Self { plan: Plan::QUICK, live: 2_000, epoch: 100 }
    }
}

/// Workers, and the most that the busiest may hold or do of an even share.
const WORKERS: [(usize, f64); 3] = [(2, 1.25), (4, 1.25), (8, 1.5)];

#[derive(Serialize)]
struct Counted {
    workers: usize,
    pairs: Vec<u64>,
    updates: Vec<u64>,
}

/// Counts for each number of workers.
///
/// # Errors
/// When the workers cannot be started, or a figure cannot be kept.
pub fn run_shards(options: &Options) -> Result<Report> {
    let mut report = Report::new("shards");
    crate::replay::plan_parameters(&mut report, &options.plan);
    report.parameter("live_events", options.live);
    let bar = progress::bar("pairs by worker", WORKERS.len() as u64);
    bar.tick();
    let facts: Vec<Fact> = purchases(&options.plan).take(options.plan.events + options.live).map(Fact::from).collect();
    let facts = Arc::new(facts);
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for (workers, most) in WORKERS {
        let counted = count(workers, Arc::clone(&facts), options)?;
        for (what, of) in [("pairs held", &counted.pairs), ("pair updates of live epochs", &counted.updates)] {
            let busiest = of.iter().max().copied().unwrap_or(0) as f64;
            let even = of.iter().sum::<u64>() as f64 / workers as f64;
            let name = format!("{what} by the busiest of {workers} workers");
            report.measure(name, busiest / even.max(1.0), "times the even share", Some(Target::AtMost(most)));
            let shares = of.iter().map(|&count| number(count as f64)).collect::<Vec<_>>().join("  ");
            rows.push(vec![workers.to_string(), what.to_owned(), shares]);
        }
        counts.push(counted);
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.table("also_bought, by worker", &["workers", "what", "of each"], rows);
    report.detail("counts", counts)?;
    Ok(report)
}

fn count(workers: usize, facts: Arc<Vec<Fact>>, options: &Options) -> Result<Counted> {
    let Engine::Product(semantics) = Engine::also_bought_alone() else { unreachable!("the product's engine") };
    let stats: Vec<Arc<Stats>> = (0..workers).map(|_| Arc::default()).collect();
    let by_worker = stats.clone();
    let before = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&before);
    let (bulk, each) = (options.plan.events, options.epoch);
    let output: OutputFn = Arc::new(drop);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut dataflow = build(worker, &semantics, &by_worker[worker.index()], &output);
        let (first, live) = facts.split_at(bulk);
        let epochs = std::iter::once(first).chain(live.chunks(each));
        for (epoch, facts) in (0..).zip(epochs) {
            if worker.index() == 0 {
                for fact in facts {
                    dataflow.send(fact.update());
                }
            }
            dataflow.advance_to(epoch + 1);
            while !dataflow.has_passed(epoch) {
                worker.step_or_park(None);
            }
            if worker.index() == 0 && epoch == 0 {
                let updates = by_worker.iter().map(|stats| Stats::get(&stats.pair_updates)).collect();
                *noted.lock().expect("nobody panicked with it") = updates;
            }
        }
    });
    for result in guards.map_err(|reason| anyhow!(reason))?.join() {
        result.map_err(|reason| anyhow!(reason))?;
    }
    let before: Vec<u64> = before.lock().expect("nobody panicked with it").clone();
    let now = stats.iter().map(|stats| Stats::get(&stats.pair_updates));
    Ok(Counted {
        workers,
        pairs: stats.iter().map(|stats| Stats::get(&stats.pairs)).collect(),
        updates: now.zip(before).map(|(now, before)| now - before).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the figures would be of other work than that of one worker.
    #[test]
    fn the_workers_hold_together_what_one_holds() {
        let options = Options::quick();
        let facts: Vec<Fact> = purchases(&options.plan).take(options.plan.events + options.live).map(Fact::from).collect();
        let facts = Arc::new(facts);
        let one = count(1, Arc::clone(&facts), &options).unwrap();
        let four = count(4, facts, &options).unwrap();
        assert!(one.pairs[0] > 0 && one.updates[0] > 0);
        assert_eq!(four.pairs.iter().sum::<u64>(), one.pairs[0]);
        assert_eq!(four.updates.iter().sum::<u64>(), one.updates[0]);
    }
}
