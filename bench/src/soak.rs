//! `soak`: hours of a shop within minutes. A million epochs of orders that are placed, paid, partly refunded, cancelled and paid
//! again, of retracted interactions, and of erased members; small shops whose lists hold nearly every item, and a large one.
//! Checks figures against a recount, rows against brute force, and memory against the state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kindred_dataflow::update::{Output, OutputFn, Stats, Update};
use kindred_dataflow::{invariant, restore};
use kindred_model::records::{Record, Rules};
use kindred_model::{Semantics, Topic};
use kindred_oracle::testing::Rng;
use kindred_oracle::{Tables, first_differences, inputs, tables};
use serde::Serialize;
use serde_json::{Value, json};

use crate::dataflow::{Engine, run, run_into};
use crate::options::quick;
use crate::progress;
use crate::report::{Report, Target, number};
use crate::usage::Process;

/// The duration, and how often everything is checked.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Epochs of all shops together
    #[arg(long, default_value_t = 1_000_000)]
    pub epochs: u64,
    /// How often everything is compared within a shop
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub looks: u64,
    /// Another seed gives another history
    #[arg(long, default_value_t = 12)]
    pub seed: u64,
}

quick!(|options| (options.epochs, options.looks) = (3_000, 3));

/// A shop.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    members: u64,
    items: u64,
    /// Maximum lines of an order.
    lines: u64,
    /// Percentage of actions on an existing order.
    changes_pct: u64,
    /// Its percentage of all epochs.
    share_pct: u64,
}

const SHOPS: [Shape; 4] = [
    Shape { name: "two orders in turns", members: 2, items: 60, lines: 40, changes_pct: 98, share_pct: 15 },
    Shape { name: "a young wholesale shop", members: 30, items: 300, lines: 30, changes_pct: 30, share_pct: 15 },
    Shape { name: "a village shop", members: 400, items: 800, lines: 6, changes_pct: 25, share_pct: 35 },
    Shape { name: "a large shop", members: 40_000, items: 12_000, lines: 3, changes_pct: 15, share_pct: 35 },
];

#[derive(Serialize)]
struct Soaked {
    shop: &'static str,
    epochs: u64,
    epochs_per_second: f64,
    records: usize,
    rows: u64,
    pairs: u64,
    bytes_per_pair: f64,
    bytes_per_pair_rebuilt: f64,
    rss_bytes: u64,
}

/// Runs every shop.
///
/// # Errors
/// When a figure differs from a recount, or a row from brute force.
pub fn run_soak(options: &Options) -> Result<Report> {
    let mut report = Report::new("soak");
    report.parameter("epochs", options.epochs);
    report.parameter("looks", options.looks);
    report.parameter("seed", options.seed);
    let bar = progress::bar("epochs of churn", options.epochs);
    let mut soaked = Vec::new();
    for (shape, seed) in SHOPS.into_iter().zip(options.seed..) {
        let epochs = (options.epochs * shape.share_pct / 100).max(options.looks);
        let bar = bar.clone();
        soaked.push(soak(shape, epochs, options.looks, seed, move |done| bar.inc(done)).with_context(|| shape.name.to_owned())?);
    }
    bar.finish_and_clear();
    tell(&mut report, &soaked)?;
    Ok(report)
}

/// The events of a shop: the newest version of each order, and all others.
struct Shop {
    shape: Shape,
    rng: Rng,
    rules: Rules,
    orders: BTreeMap<u64, (u64, Value)>,
    next_order: u64,
    others: Vec<Record>,
    erased: u64,
}

impl Shop {
    fn new(shape: Shape, seed: u64, semantics: &Semantics) -> Self {
        let rng = Rng::new(seed);
        Self { shape, rng, rules: semantics.rules(), orders: BTreeMap::new(), next_order: 0, others: Vec::new(), erased: 0 }
    }

    fn decoded(&self, topic: Topic, record: &Value) -> Record {
        let bytes = record.to_string();
        Record::decode(topic, bytes.as_bytes(), &self.rules).expect("a record of this bench is valid")
    }

    fn member(&mut self) -> String {
        // Erased members do not return: a pseudonym is used once.
        format!("m{}", self.erased + self.rng.below(self.shape.members))
    }

    fn at(&mut self) -> String {
        format!("2026-{:02}-{:02}T{:02}:00:00Z", 1 + self.rng.below(6), 1 + self.rng.below(28), self.rng.below(24))
    }

    /// The events of one epoch.
    fn act(&mut self) -> Vec<Record> {
        let drawn = self.rng.below(1_000);
        let most = (self.shape.members * 4).min(20_000);
        if drawn < 2 && self.shape.members > 2 {
            let member = format!("m{}", self.erased);
            self.erased += 1;
            let erased = self.decoded(Topic::Members, &json!({ "member": member, "version": 9, "state": "erased" }));
            self.others.push(erased.clone());
            return vec![erased];
        }
        if drawn < 80 {
            let (member, at) = (self.member(), self.at());
            let item = format!("i{}", self.rng.below(self.shape.items));
            let kind = *self.rng.pick(&["view", "purchase", "cart"]);
            let mut record = json!({ "member": member, "item": item, "kind": kind, "at": at });
            if self.rng.chance(30) {
                record["retract"] = json!(true);
            }
            let record = self.decoded(Topic::Interactions, &record);
            self.others.push(record.clone());
            return vec![record];
        }
        if !self.orders.is_empty() && (self.rng.chance(self.shape.changes_pct) || self.orders.len() as u64 >= most) {
            return vec![self.change_order()];
        }
        vec![self.new_order()]
    }

    fn new_order(&mut self) -> Record {
        let (member, placed_at) = (self.member(), self.at());
        let lines = 1 + self.rng.below(self.shape.lines);
        let lines: Vec<Value> = (1..=lines)
            .map(|line| {
                let item = format!("i{}", self.rng.below(self.shape.items));
                json!({ "line": line, "item": item, "quantity": 1 + self.rng.below(3), "unit_price_minor": 100 })
            })
            .collect();
        let number = self.next_order;
        self.next_order += 1;
        let order = json!({
            "order": format!("o{number}"), "version": 1, "status": "paid", "member": member, "placed_at": placed_at,
            "currency": "EUR", "lines": lines,
        });
        let record = self.decoded(Topic::Orders, &order);
        self.orders.insert(number, (1, order));
        record
    }

    fn change_order(&mut self) -> Record {
        let from = self.rng.below(self.next_order);
        let number = *self.orders.range(from..).next().or_else(|| self.orders.iter().next()).expect("an order").0;
        let refunds = self.rng.chance(30);
        let status = *self.rng.pick(&["paid", "cancelled", "completed", "refunded", "shipped"]);
        let (version, order) = self.orders.get_mut(&number).expect("it is there");
        *version += 1;
        order["version"] = json!(*version);
        order["status"] = json!(status);
        let line = order["lines"][0].clone();
        order["refunds"] = match refunds {
            true => {
                json!([{ "refund": "r1", "line": 1, "quantity": line["quantity"], "amount_minor": 100, "at": "2026-06-01T00:00:00Z" }])
            }
            false => json!([]),
        };
        let order = order.clone();
        self.decoded(Topic::Orders, &order)
    }

    fn records(&self) -> Vec<Record> {
        let orders = self.orders.values().map(|(_, order)| self.decoded(Topic::Orders, order));
        self.others.iter().cloned().chain(orders).collect()
    }
}

fn locked(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects outputs like the sink: the newest row of each key.
fn gathered() -> (OutputFn, Arc<Mutex<Tables>>) {
    let gathered: Arc<Mutex<Tables>> = Arc::default();
    let into = Arc::clone(&gathered);
    let output: OutputFn = Arc::new(move |output| {
        if let Output::Rows { changes, .. } = output {
            let mut tables = locked(&into);
            changes.encode(&mut |table, key, row| tables.set(table, key.to_vec(), row.map(<[u8]>::to_vec)));
        }
    });
    (output, gathered)
}

fn soak(shape: Shape, epochs: u64, looks: u64, seed: u64, did: impl Fn(u64) + Send + Sync + 'static) -> Result<Soaked> {
    let (output, given) = gathered();
    run_into(Engine::all_views(), output, move |job| {
        let semantics = Semantics::default();
        let mut shop = Shop::new(shape, seed, &semantics);
        let mut took = std::time::Duration::ZERO;
        let mut bytes_per_pair_rebuilt = 0.0;
        let (mut rows, mut done) = (0, 0);
        for look in 1..=looks {
            let began = Instant::now();
            let until = epochs * look / looks;
            let first = done;
            while done < until {
                job.updates(shop.act().into_iter().map(Update::from));
                done += 1;
            }
            took += began.elapsed();
            let records = shop.records();
            let merged = inputs(records, &semantics);
            let expected = tables(&merged, &semantics);
            let differences = first_differences(&expected, &*locked(&given), 3)?;
            let told: Vec<String> = differences.iter().map(|row| format!("{} {}", row.table, row.describe_key())).collect();
            ensure!(told.is_empty(), "after {done} epochs rows are not what brute force gives: {told:?}");
            rows = expected.row_count();
            let figure = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
            let identities: usize = merged.interactions.values().map(|of| of.len()).sum();
            let (held_pairs, held_bytes) = (figure(&job.stats.pairs), figure(&job.stats.similarity_bytes));
            // The same records in one epoch of a fresh dataflow: what a restart would count.
            let fresh = rebuilt(expected);
            for (name, held, counted) in [
                ("owners", figure(&job.stats.owners), merged.interactions.len() as u64),
                ("identities", figure(&job.stats.identities), identities as u64),
                ("orders", figure(&job.stats.orders), merged.orders.len() as u64),
                ("pairs", held_pairs, figure(&fresh.pairs)),
                ("violations", invariant::violations(), 0),
            ] {
                ensure!(held == counted, "after {done} epochs the figure {name} is {held}, and {counted} are there");
            }
            let fresh_bytes = figure(&fresh.similarity_bytes);
            // Unused capacity after churn is fine; a drifting figure is not.
            ensure!(
                held_bytes * 10 >= fresh_bytes * 8 && held_bytes <= fresh_bytes.max(1 << 20) * 3,
                "after {done} epochs {held_bytes} bytes of similarity are told, a rebuild holds {fresh_bytes}"
            );
            bytes_per_pair_rebuilt = fresh_bytes as f64 / figure(&fresh.pairs).max(1) as f64;
            did(done - first);
        }
        let pairs = Stats::get(&job.stats.pairs);
        Ok(Soaked {
            shop: shape.name,
            epochs,
            epochs_per_second: epochs as f64 / took.as_secs_f64(),
            records: shop.others.len() + shop.orders.values().map(|(version, _)| *version as usize).sum::<usize>(),
            rows,
            pairs,
            bytes_per_pair: Stats::get(&job.stats.similarity_bytes) as f64 / pairs.max(1) as f64,
            bytes_per_pair_rebuilt,
            rss_bytes: Process::Own.rss_bytes().unwrap_or(0),
        })
    })
}

/// The figures of a dataflow restored from these merged inputs.
fn rebuilt(inputs: Tables) -> Arc<Stats> {
    run(Engine::all_views(), move |job| {
        let mut updates = Vec::new();
        restore(&inputs, (0, 1), &Semantics::default(), &mut |update| updates.push(update)).expect("the oracle's tables read");
        job.updates(updates);
        Arc::clone(&job.stats)
    })
}

fn tell(report: &mut Report, soaked: &[Soaked]) -> Result<()> {
    let epochs: u64 = soaked.iter().map(|shop| shop.epochs).sum();
    report.measure("epochs of churn after which every figure and every row was right", epochs as f64, "epochs", None);
    for shop in soaked {
        // A shrunken shop keeps some capacity; ignore less than a megabyte.
        let bytes = |per_pair: f64| per_pair * shop.pairs as f64;
        let name = format!("bytes after churn, to those of a rebuild or 1 MiB: {}", shop.shop);
        let times = bytes(shop.bytes_per_pair) / bytes(shop.bytes_per_pair_rebuilt).max(1_048_576.0);
        report.measure(name, times, "times", Some(Target::AtMost(2.0)));
    }
    let header = ["shop", "epochs", "epochs/s", "records", "rows", "pairs", "bytes/pair", "rebuilt", "RSS, MB"];
    let rows = soaked.iter().map(|shop| {
        vec![
            shop.shop.to_owned(),
            number(shop.epochs as f64),
            number(shop.epochs_per_second),
            number(shop.records as f64),
            number(shop.rows as f64),
            number(shop.pairs as f64),
            number(shop.bytes_per_pair),
            number(shop.bytes_per_pair_rebuilt),
            number(shop.rss_bytes as f64 / 1e6),
        ]
    });
    report.table("churn, an act an epoch, all views".to_owned(), &header, rows.collect());
    report.detail("shops", soaked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a long-running shop would lose its pipeline to a wrong figure, or show wrong lists.
    #[test]
    fn a_short_soak_holds() {
        run_soak(&Options { epochs: 3_000, looks: 3, seed: 12 }).expect("every figure and every row is right");
    }
}
