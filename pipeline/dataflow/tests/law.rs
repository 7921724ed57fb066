//! The outputs are a function of the set of records and the settings only. Random logs, shuffled, repeated, cut into random
//! epochs, over 1, 2 and 4 workers, must give the oracle's tables byte for byte.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kindred_dataflow::update::{Output, OutputFn, Stats, Update};
use kindred_dataflow::{build, invariant, restore};
use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::intern::{Item, Party};
use kindred_model::records::{CatalogRecord, MemberRecord, Record};
use kindred_model::settings::Owners;
use kindred_model::similarity::PairWeight;
use kindred_model::views::points::Earned;
use kindred_model::views::{ALL, Cell};
use kindred_model::{Day, ItemId, Owner, Semantics, Topic};
use kindred_oracle::testing::{Rng, Shape, exported, random_log, small_semantics};
use kindred_oracle::{Inputs, Tables, first_differences, inputs, tables};

/// The updates of one epoch, and the tables expected after it, where checked.
struct Epoch {
    updates: Vec<Update>,
    expected: Option<Tables>,
}

/// Ends the process when a worker panics, since the others would wait for it.
fn end_with_a_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("timely")) {
                // Not the macros: the test harness captures their output.
                let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{info}\n").as_bytes());
                std::process::exit(101);
            }
            hook(info);
        }));
    });
}

/// Feeds epochs to a dataflow one by one; returns the final tables and the counters.
fn run(workers: usize, semantics: &Semantics, epochs: Vec<Epoch>, label: &str) -> (Tables, Arc<Stats>) {
    run_ahead(1, workers, semantics, epochs, label)
}

/// Feeds epochs, up to `ahead` of them before it waits for outputs, like a source faster than the dataflow.
fn run_ahead(ahead: usize, workers: usize, semantics: &Semantics, epochs: Vec<Epoch>, label: &str) -> (Tables, Arc<Stats>) {
    end_with_a_panic();
    let stats = Arc::new(Stats::default());
    let given: Arc<Mutex<Vec<Output>>> = Arc::default();
    let output: OutputFn = {
        let given = Arc::clone(&given);
        Arc::new(move |output| given.lock().unwrap().push(output))
    };
    let epochs = Arc::new(Mutex::new(Some(epochs)));
    let gathered: Arc<Mutex<Tables>> = Arc::default();
    let guards = {
        let (semantics, stats, gathered, label) =
            (semantics.clone(), Arc::clone(&stats), Arc::clone(&gathered), label.to_owned());
        timely::execute(timely::Config::process(workers), move |worker| {
            let mut dataflow = build(worker, &semantics, &stats, &output);
            if worker.index() != 0 {
                dataflow.close();
                while worker.step_or_park(None) {}
                return;
            }
            let mut tables = Tables::default();
            let mut waiting = Vec::new();
            let epochs = epochs.lock().unwrap().take().unwrap();
            let last = epochs.len() as u64 - 1;
            for (epoch, Epoch { updates, expected }) in (0..).zip(epochs) {
                for update in updates {
                    dataflow.send(update);
                    if epoch % 3 == 2 {
                        // Stepping within an open epoch must output nothing of it.
                        worker.step();
                    }
                }
                dataflow.advance_to(epoch + 1);
                waiting.push((epoch, expected));
                if waiting.len() < ahead && epoch < last {
                    continue;
                }
                while !dataflow.has_passed(epoch) {
                    worker.step_or_park(Some(Duration::from_millis(10)));
                }
                let mut outputs = std::mem::take(&mut *given.lock().unwrap());
                for (epoch, expected) in waiting.drain(..) {
                    let of_epoch = outputs.extract_if(.., |output| output.epoch() == epoch);
                    write(&mut tables, of_epoch, &format!("{label}, epoch {epoch}"));
                    if let Some(expected) = expected {
                        assert_equal(&expected, &tables, &format!("{label}, after epoch {epoch}"));
                    }
                }
                let other = outputs.first().map(Output::epoch);
                assert_eq!(other, None, "{label}: an output of another epoch than those that passed, up to {epoch}");
            }
            dataflow.close();
            while worker.step() {}
            *gathered.lock().unwrap() = tables;
        })
        .unwrap()
    };
    for result in guards.join() {
        result.unwrap_or_else(|error| panic!("{label}: a worker failed: {error}"));
    }
    let tables = std::mem::take(&mut *gathered.lock().unwrap());
    assert_eq!(invariant::violations(), 0, "{label}: the log says which");
    (tables, stats)
}

/// Applies an epoch's changes.
fn write(tables: &mut Tables, outputs: impl Iterator<Item = Output>, label: &str) {
    let (mut changed, mut superseded) = (HashSet::new(), Vec::new());
    for output in outputs {
        let changes = match output {
            Output::Rows { changes, .. } => changes,
            Output::Superseded { topic, merged, .. } => {
                superseded.push((format!("inputs_{}", topic.name()), merged));
                continue;
            }
        };
        let mut count = 0;
        changes.encode(&mut |table, key, row| {
            count += 1;
            assert!(changed.insert((table, key.to_vec())), "{label}: two changes of a key of {table}");
            tables.set(table, key.to_vec(), row.map(<[u8]>::to_vec));
        });
        assert_eq!(count, changes.len());
    }
    // A record to append again is the merged one, never an older state.
    for (table, merged) in superseded {
        for record in merged {
            assert!(tables.rows(&table).any(|(_, row)| *row == *record), "{label}: not what {table} holds");
        }
    }
}

fn assert_equal(expected: &Tables, actual: &Tables, label: &str) {
    let differences = first_differences(expected, actual, 5).unwrap();
    let shown: Vec<String> = differences
        .iter()
        .map(|d| {
            let (expected, actual) = (d.describe_expected(), d.describe_actual());
            format!("{} {}: expected {expected:?}, got {actual:?}", d.table, d.describe_key())
        })
        .collect();
    assert!(shown.is_empty(), "{label}:\n{}", shown.join("\n"));
}

/// Cuts records into about `epochs` epochs, some of them empty; every `check_every`th is checked against the oracle.
fn cut(records: Vec<Record>, epochs: u64, check_every: u64, semantics: &Semantics, rng: &mut Rng) -> Vec<Epoch> {
    let mut cuts: Vec<usize> = (0..epochs).map(|_| rng.below(records.len() as u64 + 1) as usize).collect();
    cuts.push(records.len());
    cuts.sort_unstable();
    let mut from = 0;
    let mut cut_up = Vec::new();
    for (n, to) in cuts.into_iter().enumerate() {
        let last = to == records.len();
        let checked = last || (n as u64).is_multiple_of(check_every);
        let expected = checked.then(|| tables(&inputs(records[..to].to_vec(), semantics), semantics));
        cut_up.push(Epoch { updates: records[from..to].iter().cloned().map(Update::from).collect(), expected });
        from = to;
    }
    cut_up
}

/// Settings that together reach every branch of the definitions.
fn semantics_of(seed: u64) -> Semantics {
    let mut semantics = match seed % 3 {
        0 => Semantics::default(),
        _ => small_semantics(),
    };
    let also_bought = &mut semantics.views.also_bought;
    match seed % 7 {
        1 => also_bought.pair_weight = PairWeight::Distance,
        2 => also_bought.min_support = 2,
        3 => also_bought.support_rounding = 1.0,
        4 => also_bought.popularity_damping = 0.25.try_into().unwrap(),
        5 => also_bought.owners = Owners::Members,
        6 => {
            also_bought.support_rounding = 2.0;
            also_bought.popularity_damping = 1.0.try_into().unwrap();
        }
        _ => {}
    }
    let program = &mut semantics.program;
    match seed % 5 {
        1 => program.tz = "Asia/Shanghai".to_owned(),
        2 => (program.tz, program.expiry_months) = ("America/New_York".to_owned(), 1),
        3 => (program.earn_item, program.multiplier_pct.svip, program.hold_days) = (1_000_000, 100_000, 0),
        _ => {}
    }
    semantics
}

/// Interns names in the reverse of their byte order, so that ranking by numbers instead of bytes is noticed.
fn intern_in_another_order(records: &[Record]) {
    let mut items: Vec<String> = Vec::new();
    for record in records {
        match record {
            Record::Order(order) => items.extend(order.lines.iter().map(|line| line.item.as_str().to_owned())),
            Record::Catalog(record) => items.push(record.item.as_str().to_owned()),
            _ => {}
        }
    }
    items.sort();
    for item in items.iter().rev() {
        Item::intern(item);
    }
}

/// If this failed, results would depend on the order in which events arrive.
#[test]
fn any_order_cut_and_number_of_workers_gives_the_oracles_tables() {
    for seed in 0..24 {
        let semantics = semantics_of(seed);
        let mut rng = Rng::new(seed ^ 0xabcd);
        let shape = match seed % 4 {
            0 => Shape::default(),
            // Few owners: caps and windows evict all the time.
            1 => Shape { members: 3, sessions: 3, items: 20, days: 8, ..Shape::default() },
            // Mostly links and erasures.
            2 => Shape { members: 4, sessions: 6, erasures_pct: 20, ..Shape::default() },
            _ => Shape { members: 30, sessions: 30, items: 40, orders: 150, ..Shape::default() },
        };
        let mut records = random_log(seed, 500, &shape);
        rng.shuffle(&mut records);
        intern_in_another_order(&records);
        // Random, so that every shape and setting meets every cut and number of workers in some seed.
        let epochs = *rng.pick(&[1, 6, 25, 60]);
        let workers = *rng.pick(&[1, 2, 4]);
        let ahead = *rng.pick(&[1, 4, 20]);
        let label = format!("seed {seed}, {workers} workers, {epochs} epochs, {ahead} ahead");
        run_ahead(ahead, workers, &semantics, cut(records, epochs, 4, &semantics, &mut rng), &label);
    }
}

/// If this failed, links and erasures would affect an owner's facts in another record's epoch: with several epochs open,
/// differential sends diffs of later epochs in the message of an earlier one.
#[test]
fn epochs_that_are_open_together_are_settled_apart() {
    for seed in 300..312 {
        let semantics = semantics_of(seed);
        let mut rng = Rng::new(seed);
        let shape = Shape { members: 4, sessions: 6, erasures_pct: 20, ..Shape::default() };
        let epochs = cut(random_log(seed, 400, &shape), 30, 1, &semantics, &mut rng);
        let workers = *rng.pick(&[1, 2, 4]);
        run_ahead(10, workers, &semantics, epochs, &format!("seed {seed}, {workers} workers"));
    }
}

/// If this failed, owners of many identities (another form) or large epochs (emitted in turns) would give other results.
#[test]
fn bots_and_large_epochs_are_no_exception() {
    for (cap, shape, workers, epochs) in [
        (10_000, Shape { members: 2, sessions: 1, items: 150, days: 20, ..Shape::default() }, 2, 4),
        (400, Shape { members: 1, sessions: 1, items: 150, days: 20, ..Shape::default() }, 1, 6),
        (10_000, Shape { members: 3_000, sessions: 15_000, items: 60, ..Shape::default() }, 1, 1),
    ] {
        let mut semantics = Semantics::default();
        semantics.inputs.identities_per_owner = cap;
        let records = random_log(31, if shape.sessions > 1 { 14_000 } else { 3_000 }, &shape);
        let owners = inputs(records.clone(), &semantics).interactions;
        let most = owners.values().map(|identities| identities.len()).max();
        assert!(most > Some(256) || owners.len() > 4_096, "neither a bot nor a large epoch");
        let cuts = cut(records, epochs, 2, &semantics, &mut Rng::new(cap as u64));
        run(workers, &semantics, cuts, &format!("cap {cap}, {} owners", owners.len()));
    }
}

/// If this failed, impressions and clicks would evict what people do, or scenarios would merge: they have a cap of their own, and
/// each scenario is its own identity, all hidden by one retract.
#[test]
fn impressions_and_clicks_have_a_cap_of_their_own() {
    let mut semantics = Semantics::default();
    semantics.inputs.identities_per_owner = 10;
    let mut rng = Rng::new(7);
    let record = |kind: &str, n: u64, more: &str| {
        let (item, day, ms) = (n % 40, 1 + n % 7, n / 3 % 900);
        let json =
            format!(r#"{{"session":"page","kind":"{kind}","item":"i{item}","at":"2026-01-0{day}T10:00:00.{ms:03}Z"{more}}}"#);
        Record::decode(Topic::Interactions, json.as_bytes(), &semantics.rules()).unwrap()
    };
    let mut records: Vec<Record> = Vec::new();
    for n in 0..2_600 {
        let scenario =
            ["", r#","scenario":"home""#, r#","scenario":"similar""#, r#","scenario":"basket""#][(n / 280 % 4) as usize];
        let kind = if n % 5 == 0 { "click" } else { "impression" };
        let more = format!("{scenario},\"rank\":{}", 1 + rng.below(9));
        records.push(record(kind, n * 7 + rng.below(3), &more));
    }
    for n in 0..30 {
        records.push(record("view", n, ""));
        records.push(record("dismiss", n + 3, ""));
        records.push(record(if n % 2 == 0 { "click" } else { "impression" }, n, r#","retract":true"#));
    }
    // Enough to exceed the cap.
    for n in 0..2_500 {
        let more = format!(r#","scenario":"s{}""#, n % 53);
        records.push(record("impression", n * 11, &more));
    }
    let held = &inputs(records.clone(), &semantics).interactions;
    let (of_lists, others): (Vec<_>, Vec<_>) =
        held.values().flatten().map(|(key, _)| key).partition(|key| key.kind.is_of_a_list());
    assert_eq!((of_lists.len(), others.len()), (2_000, 10));
    for (workers, epochs) in [(1, 12), (2, 1)] {
        rng.shuffle(&mut records);
        let cuts = cut(records.clone(), epochs, 3, &semantics, &mut rng);
        run(workers, &semantics, cuts, &format!("{workers} workers, {epochs} epochs"));
    }
}

/// If this failed, extreme settings would end the process: a sum that overflows 64 bits saturates in its row, is counted, and
/// recovers when its causes are retracted.
#[test]
fn v1_4_2_sums_of_points_saturate_and_come_back() {
    let mut semantics = Semantics::default();
    semantics.program.earn_item = 1_000_000;
    semantics.program.multiplier_pct.svip = 100_000;
    semantics.check().unwrap();
    let order = |name: &str, version: u64, status: &str| {
        let lines: Vec<String> = (1..=5_000)
            .map(|line| format!(r#"{{"line":{line},"item":"gift{}","quantity":1000000,"unit_price_minor":0}}"#, line % 3))
            .collect();
        let json = format!(
            r#"{{"order":"{name}","version":{version},"status":"{status}","member":"m","tier":"svip","placed_at":"2026-01-05T10:00:00Z",
                "currency":"EUR","lines":[{}]}}"#,
            lines.join(",")
        );
        Record::decode(Topic::Orders, json.as_bytes(), &semantics.rules()).unwrap()
    };
    let records: Vec<Record> = ["a", "b", "c"].map(|name| order(name, 1, "paid")).to_vec();
    let mut all = records.clone();
    all.extend(["b", "c"].map(|name| order(name, 2, "cancelled")));
    let epoch = |records: &[Record], so_far: &[Record]| Epoch {
        updates: records.iter().cloned().map(Update::from).collect(),
        expected: Some(tables(&inputs(so_far.to_vec(), &semantics), &semantics)),
    };
    let epochs = vec![epoch(&records, &records), epoch(&all[3..], &all)];
    let (tables, stats) = run(2, &semantics, epochs, "extreme settings");
    assert!(Stats::get(&stats.saturated) > 0);
    let rows: Vec<_> = tables.rows("points").collect();
    assert_eq!(rows.len(), 1);
    let earned = Earned::decode(rows[0].1).unwrap();
    assert_eq!(earned.as_of(Day(30_000)).available, 5_000_000_000_000_000_000);
}

/// If this failed, a shop could not be told which orders to send again: each conflict is named once.
#[test]
fn conflicts_are_told_with_their_ids() {
    let semantics = Semantics::default();
    let of = |topic: Topic, json: &str| Record::decode(topic, json.as_bytes(), &semantics.rules()).unwrap();
    let order = |status: &str| {
        let line = r#"{"line":1,"item":"i","quantity":1,"unit_price_minor":1}"#;
        let json = format!(
            r#"{{"order":"o1","version":1,"status":"{status}","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{line}]}}"#
        );
        of(Topic::Orders, &json)
    };
    let records = vec![
        order("paid"),
        order("cancelled"),
        order("paid"),
        of(Topic::Catalog, r#"{"item":"i","version":1,"kind":"good","title":"a"}"#),
        of(Topic::Catalog, r#"{"item":"i","version":1,"kind":"good","title":"b"}"#),
        of(Topic::Members, r#"{"session":"s","version":1,"merged_into":"b"}"#),
        of(Topic::Members, r#"{"session":"s","version":1,"merged_into":"a"}"#),
        of(Topic::Members, r#"{"session":"s","version":2,"merged_into":"c"}"#),
    ];
    let (_, stats) = run(1, &semantics, cut(records, 0, 1, &semantics, &mut Rng::new(1)), "conflicts");
    let told: HashSet<(Topic, String)> =
        stats.latest_conflicts.lock().iter().map(|conflict| (conflict.topic, conflict.id.clone())).collect();
    let expected = [(Topic::Orders, "o1"), (Topic::Catalog, "i"), (Topic::Members, "s")];
    assert_eq!(told, expected.map(|(topic, id)| (topic, id.to_owned())).into());
    assert_eq!(Stats::get(&stats.conflicts), 4);
}

/// If this failed, a compacted topic would lose a record to a tombstone: the merged record is appended again, and a tombstone of
/// an unknown key outputs nothing.
#[test]
fn a_tombstone_deletes_nothing() {
    let semantics = Semantics::default();
    let given: Arc<Mutex<Vec<Output>>> = Arc::default();
    let output: OutputFn = {
        let given = Arc::clone(&given);
        Arc::new(move |output| given.lock().unwrap().push(output))
    };
    let item = CatalogRecord::decode(br#"{"item":"i","version":1,"kind":"good","title":"a"}"#).unwrap();
    let canonical = item.canonical();
    timely::execute_directly(move |worker| {
        let mut dataflow = build(worker, &semantics, &Arc::default(), &output);
        let tombstone = |of: &str| Update::Tombstone(Topic::Catalog, ItemId::parse(of).unwrap().to_bytes().into());
        dataflow.send(Record::Catalog(item).into());
        for (epoch, updates) in [vec![], vec![tombstone("i"), tombstone("i")], vec![tombstone("j")]].into_iter().enumerate() {
            updates.into_iter().for_each(|update| dataflow.send(update));
            dataflow.advance_to(epoch as u64 + 1);
            while !dataflow.has_passed(epoch as u64) {
                worker.step();
            }
        }
        dataflow.close();
    });
    let given = given.lock().unwrap();
    let superseded: Vec<_> = given
        .iter()
        .filter_map(|output| match output {
            Output::Superseded { epoch, topic, merged } => Some((*epoch, *topic, merged.iter().map(|m| m.to_vec()).collect())),
            Output::Rows { .. } => None,
        })
        .collect();
    assert_eq!(superseded, [(1, Topic::Catalog, vec![canonical])]);
    assert_eq!(given.len(), 2, "one row, and what is appended again");
}

/// The same set in two orders, once with duplicates, over 1 and 4 workers: tables must be equal byte for byte, and so must the
/// counters that do not depend on arrival.
#[test]
fn shuffles_and_duplicates_change_nothing() {
    let semantics = small_semantics();
    let records = random_log(77, 600, &Shape::default());
    let mut ends = Vec::new();
    for (workers, epochs) in [(1, 10), (4, 3)] {
        let mut rng = Rng::new(workers as u64);
        let mut again = records.clone();
        if workers == 4 {
            again.extend(records.clone());
        }
        rng.shuffle(&mut again);
        let (tables, stats) = run(workers, &semantics, cut(again, epochs, 100, &semantics, &mut rng), "shuffled");
        let held = inputs(records.clone(), &semantics);
        let identities: usize = held.interactions.values().map(|identities| identities.len()).sum();
        assert_eq!(Stats::get(&stats.identities), identities as u64);
        assert_eq!(Stats::get(&stats.owners), held.interactions.len() as u64);
        assert_eq!(Stats::get(&stats.orders), held.orders.len() as u64);
        assert!(Stats::get(&stats.evicted) > 0 && Stats::get(&stats.conflicts) > 0);
        ends.push(tables);
    }
    assert_eq!(ends[0], ends[1]);
}

/// If this failed, a restart would change results: the stored inputs, fed back as one epoch, give the same tables, and later
/// records are merged as if nothing had happened.
#[test]
fn the_stored_inputs_restore_the_state() {
    for seed in 100..106 {
        let semantics = semantics_of(seed);
        let mut rng = Rng::new(seed);
        let records = random_log(seed, 600, &Shape { erasures_pct: 10, ..Shape::default() });
        let (before, after) = records.split_at(350);
        let (stored, _) = run(2, &semantics, cut(before.to_vec(), 8, 100, &semantics, &mut rng), "before the restart");

        let mut updates = Vec::new();
        restore(&stored, (0, 1), &semantics, &mut |update| updates.push(update)).unwrap();
        let mut epochs = vec![Epoch { updates, expected: Some(stored) }];
        // The log is read again from a little before the store's position.
        for records in [&records[300..350], after] {
            epochs.push(Epoch { updates: records.iter().cloned().map(Update::from).collect(), expected: None });
        }
        epochs[2].expected = Some(tables(&inputs(records.clone(), &semantics), &semantics));
        run(1, &semantics, epochs, &format!("restart, seed {seed}"));
    }
}

/// If this failed, purging would leave some of an erased member's session, or remove more than it.
#[test]
fn a_purged_session_is_as_if_it_had_never_been() {
    for seed in 200..206 {
        let semantics = semantics_of(seed);
        let records = random_log(seed, 500, &Shape { erasures_pct: 30, members: 4, ..Shape::default() });
        let merged = inputs(records.clone(), &semantics);
        let sessions: HashSet<Owner> = merged
            .members
            .iter()
            .filter(|(_, record)| match record {
                MemberRecord::Session { merged_into, .. } => {
                    merged.members.get(&Owner::Member(merged_into.clone())).is_some_and(MemberRecord::is_erased)
                }
                MemberRecord::Member(_) => false,
            })
            .map(|(owner, _)| owner.clone())
            .collect();
        assert!(sessions.iter().any(|session| merged.interactions.contains_key(session)), "seed {seed} has nothing to purge");
        let left = records.iter().filter(|record| match record {
            Record::Interaction(interaction) => !sessions.contains(&interaction.owner),
            _ => true,
        });
        let expected = tables(&inputs(left.cloned(), &semantics), &semantics);
        let mut epochs = cut(records, 5, 100, &semantics, &mut Rng::new(seed));
        let mut updates: Vec<Update> = sessions.iter().map(|session| Update::Purge(Party::intern(session))).collect();
        // Repeating an action changes nothing.
        updates.extend(updates.clone());
        epochs.push(Epoch { updates, expected: Some(expected) });
        run(2, &semantics, epochs, &format!("purge, seed {seed}"));
    }
}

/// If this failed, a view would hold an erased member although the erasure was answered, which promises that none does.
#[test]
fn no_view_holds_an_erased_member() {
    let (mut erased_with_orders, mut with_rows) = (0, HashSet::new());
    for seed in 400..410 {
        let semantics = semantics_of(seed);
        let records = random_log(seed, 500, &Shape { erasures_pct: 20, ..Shape::default() });
        let merged = inputs(records, &semantics);
        let tables = tables(&merged, &semantics);
        let named: HashSet<_> = merged.orders.values().filter_map(|order| order.member.as_ref()).collect();
        for (owner, record) in &merged.members {
            let Owner::Member(member) = owner else { continue };
            erased_with_orders += usize::from(record.is_erased() && named.contains(member));
            for view in ALL.iter().filter(|view| view.is_about_persons()) {
                let mut rows = exported(view, Some(member.as_str()), &tables, &semantics);
                // A session or an item may have the same name.
                rows.retain(|row| {
                    view.columns
                        .iter()
                        .zip(row)
                        .any(|(column, cell)| matches!(*column, "member" | "owner") && *cell == Cell::text(member))
                });
                assert!(rows.is_empty() || !record.is_erased(), "seed {seed}: {} holds {member}: {rows:?}", view.name);
                with_rows.extend((!rows.is_empty()).then_some(view.view));
            }
        }
    }
    assert!(erased_with_orders > 0, "no member with orders is erased");
    let empty = ALL.iter().find(|view| view.is_about_persons() && !with_rows.contains(&view.view));
    assert!(empty.is_none(), "no member has rows of {}", empty.unwrap().name);
}

/// If this failed, a disabled view would still write rows.
#[test]
fn views_that_are_not_kept_give_no_rows() {
    let mut semantics = Semantics::default();
    semantics.views.keep_only(&[]);
    let records = random_log(5, 300, &Shape::default());
    let expected = inputs(records.clone(), &semantics).tables();
    let (tables, _) = run(1, &semantics, cut(records, 3, 1, &semantics, &mut Rng::new(5)), "inputs alone");
    assert_eq!(tables, expected);
}

/// If this failed, `verify` would start from other inputs than the dataflow wrote.
#[test]
fn the_written_inputs_are_what_verify_starts_from() {
    let semantics = small_semantics();
    let records = random_log(9, 600, &Shape::default());
    let (written, _) = run(1, &semantics, cut(records.clone(), 4, 100, &semantics, &mut Rng::new(9)), "verify");
    assert_eq!(Inputs::read(&written, &semantics).unwrap(), inputs(records, &semantics));
}
