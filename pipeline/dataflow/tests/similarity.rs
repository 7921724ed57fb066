//! The similarity operators and their plain differential reference against a recomputation at every epoch: random additions and
//! removals, at once and step by step, on 1, 2 and 4 workers, under all settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use differential_dataflow::VecCollection;
use differential_dataflow::input::InputSession;
use kindred_dataflow::also_bought::{SimilarityRows, also_bought_tuned};
use kindred_dataflow::reference;
use kindred_dataflow::similar::Tuning;
use kindred_dataflow::update::Stats;
use kindred_model::intern::{Item, Party};
use kindred_model::settings::{Owners, Similarity};
use kindred_model::similarity::{Damping, PairWeight, SupportGrid, rank_key};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::probe::{self, Probe};

type Fact = (Party, (Item, i64));
/// The diffs of each epoch.
type Script = Vec<Vec<(Fact, isize)>>;

/// A view at an epoch: lists, supports and B.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct View {
    lists: BTreeMap<&'static str, Vec<(&'static str, u64)>>,
    supports: BTreeMap<&'static str, u64>,
    baskets: u64,
}

// ---- from scratch ----

/// c of every pair of items held together, in both directions.
fn pairs(baskets: &[Vec<&'static str>], weight: PairWeight) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut pairs = BTreeMap::new();
    for basket in baskets {
        for (at, &i) in basket.iter().enumerate() {
            for (other, &j) in basket.iter().enumerate().filter(|&(other, _)| other != at) {
                *pairs.entry((i, j)).or_default() += weight.of(at, other);
            }
        }
    }
    pairs.retain(|_, c| *c > 0);
    pairs
}

/// Every owner's window, latest first, then item bytes.
fn windows(held: &BTreeMap<Fact, isize>, settings: &Similarity) -> Vec<Vec<&'static str>> {
    let mut times: BTreeMap<Party, BTreeMap<&'static str, i64>> = BTreeMap::new();
    for (&(owner, (item, at)), &count) in held {
        assert!(count > 0);
        if settings.owners == Owners::All || owner.is_member() {
            let time = times.entry(owner).or_default().entry(item.as_str()).or_insert(at);
            *time = at.max(*time);
        }
    }
    let sequence = |times: BTreeMap<&'static str, i64>| {
        let mut sequence: Vec<_> = times.into_iter().collect();
        sequence.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        sequence.into_iter().take(settings.window).map(|(item, _)| item).collect()
    };
    times.into_values().map(sequence).collect()
}

fn from_scratch(held: &BTreeMap<Fact, isize>, settings: &Similarity) -> View {
    let windows = windows(held, settings);
    let mut view = View { baskets: windows.len() as u64, ..View::default() };
    for &item in windows.iter().flatten() {
        *view.supports.entry(item).or_default() += 1;
    }
    let grid = SupportGrid::new(settings.support_rounding);
    let mut ranked: BTreeMap<&'static str, Vec<(f64, &'static str, u64)>> = BTreeMap::new();
    for ((i, j), c) in pairs(&windows, settings.pair_weight) {
        if c >= u64::from(settings.min_support) * settings.pair_weight.unit() {
            let key = rank_key(settings.popularity_damping, c, grid.round(view.supports[j]));
            ranked.entry(i).or_default().push((key, j, c));
        }
    }
    for (i, mut list) in ranked {
        list.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        list.truncate(settings.top);
        view.lists.insert(i, list.into_iter().map(|(_, j, c)| (j, c)).collect());
    }
    view
}

/// The view after each epoch of a script.
fn expected(script: &Script, settings: &Similarity) -> Vec<View> {
    let mut held = BTreeMap::new();
    let mut views = Vec::new();
    for differences in script {
        for &(fact, diff) in differences {
            *held.entry(fact).or_default() += diff;
        }
        held.retain(|_, count| *count != 0);
        views.push(from_scratch(&held, settings));
    }
    views
}

// ---- through the dataflow ----

#[derive(Clone, Copy, PartialEq, Debug)]
enum Feed {
    /// All epochs before the first step.
    AtOnce,
    /// An epoch once the last has passed.
    Stepwise,
    /// Stepwise, with every message serialized as between processes.
    Serialized,
    /// Three epochs at a time, the latest first.
    LaterFirst,
}

/// Feeds a script to what `build` builds, from worker 0.
fn run<B>(script: &Script, workers: usize, feed: Feed, build: B)
where
    B: for<'s> Fn(VecCollection<'s, u64, Fact, isize>, &probe::Handle<u64>) + Send + Sync + 'static,
{
    let script = script.clone();
    let communication = match feed {
        Feed::Serialized => timely::CommunicationConfig::ProcessBinary(workers),
        _ => timely::CommunicationConfig::Process(workers),
    };
    let config = timely::Config { communication, worker: timely::WorkerConfig::default() };
    let guards = timely::execute(config, move |worker| {
        let mut input = InputSession::<u64, Fact, isize>::new();
        let probe = probe::Handle::new();
        worker.dataflow(|scope| build(input.to_collection(scope), &probe));
        if worker.index() > 0 {
            return;
        }
        let epochs: Vec<(u64, &Vec<(Fact, isize)>)> = (0..).zip(&script).collect();
        for several in epochs.chunks(if feed == Feed::LaterFirst { 3 } else { 1 }) {
            for &(epoch, differences) in several.iter().rev() {
                for &(fact, diff) in differences {
                    input.update_at(fact, epoch, diff);
                }
                if feed == Feed::LaterFirst {
                    input.flush();
                    worker.step();
                }
            }
            if feed != Feed::AtOnce {
                let next = several[several.len() - 1].0 + 1;
                input.advance_to(next);
                input.flush();
                while probe.less_than(&next) {
                    worker.step_or_park(None);
                }
            }
        }
    });
    guards.expect("workers start").join().into_iter().for_each(|result| result.expect("a worker ends well"));
}

/// Calls `see` with each record of a stream and its epoch.
fn at_epochs<D: 'static>(stream: StreamVec<'_, u64, D>, probe: &probe::Handle<u64>, mut see: impl FnMut(u64, &D) + 'static) {
    let inspected = stream.inspect_core(move |event| {
        if let Ok((stamp, records)) = event {
            let epoch = *stamp.least().expect("rows are sent at an epoch");
            records.iter().for_each(|record| see(epoch, record));
        }
    });
    inspected.probe_with(probe);
}

#[derive(Default)]
struct Seen {
    lists: BTreeMap<(u64, &'static str), Vec<(&'static str, u64)>>,
    supports: BTreeMap<(u64, Option<&'static str>), u64>,
}

/// The views of the operators. Also checks that a row is given at most once an epoch, and only if it changed.
fn operators(script: &Script, workers: usize, feed: Feed, settings: &Similarity, tuning: Tuning) -> (Vec<View>, Arc<Stats>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let stats = Arc::new(Stats::default());
    {
        let (seen, settings, stats) = (Arc::clone(&seen), settings.clone(), Arc::clone(&stats));
        run(script, workers, feed, move |held, probe| {
            let SimilarityRows { lists, supports } = also_bought_tuned(held, &settings, tuning, &stats);
            let (of_lists, of_supports) = (Arc::clone(&seen), Arc::clone(&seen));
            at_epochs(lists, probe, move |epoch, (item, list)| {
                let list = list.as_deref().unwrap_or_default().iter().map(|(item, c)| (item.as_str(), *c)).collect();
                let before = of_lists.lock().unwrap().lists.insert((epoch, item.as_str()), list);
                assert_eq!(before, None, "two lists of {} at {epoch}", item.as_str());
            });
            at_epochs(supports, probe, move |epoch, &(item, support)| {
                let item = item.map(Item::as_str);
                let before = of_supports.lock().unwrap().supports.insert((epoch, item), support.unwrap_or(0));
                assert_eq!(before, None, "two supports of {item:?} at {epoch}");
            });
        });
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let mut view = View::default();
    let mut views = Vec::new();
    for epoch in 0..script.len() as u64 {
        for (&(_, item), list) in seen.lists.range((epoch, "")..(epoch + 1, "")) {
            let before = if list.is_empty() { view.lists.remove(item) } else { view.lists.insert(item, list.clone()) };
            assert_ne!(before.as_ref().unwrap_or(&Vec::new()), list, "the list of {item} at {epoch} is as it was");
        }
        for (&(_, item), &support) in seen.supports.range((epoch, None)..(epoch + 1, None)) {
            let before = match item {
                None => std::mem::replace(&mut view.baskets, support),
                Some(item) if support == 0 => view.supports.remove(item).unwrap_or(0),
                Some(item) => view.supports.insert(item, support).unwrap_or(0),
            };
            assert_ne!(before, support, "the support of {item:?} at {epoch} is as it was");
        }
        views.push(view.clone());
    }
    (views, stats)
}

/// The views of plain differential.
fn differential(script: &Script, workers: usize, feed: Feed, settings: &Similarity) -> Vec<View> {
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
    enum Row {
        List(&'static str, Vec<(&'static str, u64)>),
        Support(&'static str, u64),
        Baskets(u64),
    }
    type Rows = BTreeMap<u64, Vec<(Row, isize)>>;
    let seen: Arc<Mutex<Rows>> = Arc::default();
    {
        let (seen, settings) = (Arc::clone(&seen), settings.clone());
        run(script, workers, feed, move |held, probe| {
            let reference = reference::also_bought(held, &settings);
            let lists = reference
                .lists
                .map(|(item, list)| Row::List(item.as_str(), list.into_iter().map(|(item, c)| (item.as_str(), c)).collect()));
            let supports = reference.supports.map(|(item, n)| Row::Support(item.as_str(), n));
            let baskets = reference.baskets.map(Row::Baskets);
            let seen = Arc::clone(&seen);
            let rows = lists.concat(supports).concat(baskets);
            rows.inspect(move |(row, epoch, diff)| seen.lock().unwrap().entry(*epoch).or_default().push((row.clone(), *diff)))
                .probe_with(probe);
        });
    }
    let seen = seen.lock().unwrap();
    let mut rows: BTreeMap<Row, isize> = BTreeMap::new();
    let mut views = Vec::new();
    for epoch in 0..script.len() as u64 {
        for (row, diff) in seen.get(&epoch).into_iter().flatten() {
            *rows.entry(row.clone()).or_default() += diff;
        }
        rows.retain(|_, count| *count != 0);
        let mut view = View::default();
        for (row, &count) in &rows {
            assert_eq!(count, 1);
            match row.clone() {
                Row::List(item, list) => assert_eq!(view.lists.insert(item, list), None),
                Row::Support(item, n) => assert_eq!(view.supports.insert(item, n), None),
                Row::Baskets(baskets) => view.baskets = baskets,
            }
        }
        views.push(view);
    }
    views
}

// ---- scripts ----

/// Items whose byte order differs from their number order, some a prefix of another.
fn items(rng: &mut StdRng, count: usize) -> Vec<Item> {
    let names: BTreeSet<String> = (0..count).map(|n| format!("{:x}", (n as u64 * 0x9e37_79b9) % 4_093)).collect();
    let mut names: Vec<String> = names.into_iter().collect();
    names.shuffle(rng);
    names.iter().map(|name| Item::intern(name)).collect()
}

struct Shape {
    owners: usize,
    items: usize,
    epochs: usize,
    /// Maximum number of diffs per epoch.
    changes: usize,
}

/// Random diffs; no multiplicity is negative at the end of an epoch, though within it a removal may come first.
fn script(rng: &mut StdRng, shape: &Shape) -> Script {
    let items = items(rng, shape.items);
    let owners: Vec<Party> = (0..shape.owners)
        .map(|n| match n % 5 {
            0 => Party::intern(&kindred_model::Owner::Session(kindred_model::SessionId::trusted(format!("o{n}")))),
            _ => Party::member(&format!("o{n}")),
        })
        .collect();
    let mut held: BTreeMap<Fact, isize> = BTreeMap::new();
    let mut script = Script::new();
    for _ in 0..shape.epochs {
        let mut differences = Vec::new();
        let removing = rng.random_range(0.0..0.7);
        for _ in 0..rng.random_range(0..=shape.changes) {
            if rng.random_bool(removing) && !held.is_empty() {
                // One fact, or all of an owner.
                let (&(owner, fact), _) = held.iter().nth(rng.random_range(0..held.len())).expect("a fact");
                let whole = rng.random_bool(0.05);
                let facts: Vec<Fact> =
                    held.keys().copied().filter(|&(other, of)| other == owner && (whole || of == fact)).collect();
                for fact in facts {
                    let count = held.remove(&fact).expect("it is held");
                    let taken = if whole { count } else { 1 };
                    differences.push((fact, -taken));
                    if count > taken {
                        held.insert(fact, count - taken);
                    }
                }
            } else {
                // Popular items, and times that often tie.
                let item = items[(rng.random::<f64>().powi(2) * items.len() as f64) as usize];
                let fact = (*owners.choose(rng).expect("an owner"), (item, rng.random_range(0..30)));
                *held.entry(fact).or_default() += 1;
                differences.push((fact, 1));
            }
        }
        differences.shuffle(rng);
        script.push(differences);
    }
    script
}

fn settings(rng: &mut StdRng) -> Similarity {
    Similarity {
        window: rng.random_range(3..=5),
        top: rng.random_range(3..=5),
        popularity_damping: Damping::try_from(f64::from(rng.random_range(0..=4u8)) / 4.0).expect("quarters"),
        support_rounding: *[1.0, 1.05, 2.0].choose(rng).expect("a rounding"),
        min_support: *[1, 1, 2, 3].choose(rng).expect("a support"),
        pair_weight: if rng.random_bool(0.5) { PairWeight::Count } else { PairWeight::Distance },
        owners: if rng.random_bool(0.2) { Owners::Members } else { Owners::All },
        ..Similarity::default()
    }
}

fn tuning(rng: &mut StdRng) -> Tuning {
    Tuning { slack: rng.random_range(0..4), rebuild_from: *[0, 30, 300, u64::MAX].choose(rng).expect("a threshold") }
}

fn assert_views(views: &[View], expected: &[View], what: &str) {
    assert_eq!(views.len(), expected.len());
    for (epoch, (view, expected)) in views.iter().zip(expected).enumerate() {
        assert_eq!(view, expected, "epoch {epoch}, {what}");
    }
}

// ---- tests ----

/// If this failed, what is served would not be a function of the events: the operators must equal a recomputation at every epoch,
/// for any number of workers and any feed.
#[test]
fn lists_and_supports_match_a_recomputation() {
    let mut full = 0;
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = match seed % 4 {
            0 => Shape { owners: 6, items: 12, epochs: 25, changes: 12 },
            1 => Shape { owners: 120, items: 40, epochs: 12, changes: 400 },
            2 => Shape { owners: 300, items: 9, epochs: 12, changes: 300 },
            _ => Shape { owners: 20, items: 25, epochs: 60, changes: 4 },
        };
        let script = script(&mut rng, &shape);
        for round in 0..3 {
            let settings = settings(&mut rng);
            let expected = expected(&script, &settings);
            full += expected.iter().flat_map(|view| view.lists.values()).filter(|list| list.len() == settings.top).count();
            let second = if seed % 3 == 0 { (2, Feed::Serialized) } else { (2, Feed::AtOnce) };
            for (workers, feed) in [(1, Feed::Stepwise), (1, Feed::LaterFirst), second, (4, Feed::AtOnce)] {
                let tuning = tuning(&mut rng);
                let what = format!("seed {seed}.{round}, {workers} workers, {feed:?}, {settings:?}, {tuning:?}");
                let (views, stats) = operators(&script, workers, feed, &settings, tuning);
                assert_views(&views, &expected, &what);
                let mut held = BTreeMap::new();
                script.iter().flatten().for_each(|&(fact, diff)| *held.entry(fact).or_default() += diff);
                held.retain(|_, count| *count != 0);
                let pairs = pairs(&windows(&held, &settings), settings.pair_weight);
                assert_eq!(Stats::get(&stats.pairs), pairs.len() as u64, "pairs, {what}");
            }
        }
    }
    assert!(full > 10_000, "{full} lists were as long as they may be: too few to try a threshold");
}

/// If this failed, the reference could not serve as the specification.
#[test]
fn the_reference_matches_a_recomputation() {
    for seed in 100..112 {
        let mut rng = StdRng::seed_from_u64(seed);
        let script = script(&mut rng, &Shape { owners: 25, items: 20, epochs: 10, changes: 25 });
        let settings = settings(&mut rng);
        let expected = expected(&script, &settings);
        for (workers, feed) in [(1, Feed::AtOnce), (2, Feed::Stepwise), (2, Feed::LaterFirst)] {
            let views = differential(&script, workers, feed, &settings);
            assert_views(&views, &expected, &format!("seed {seed}, {workers} workers, {feed:?}, {settings:?}"));
        }
    }
}

/// If this failed, results would depend on how a log is cut into epochs.
#[test]
fn how_a_log_is_cut_into_epochs_reaches_no_result() {
    for seed in 200..210 {
        let mut rng = StdRng::seed_from_u64(seed);
        let script = script(&mut rng, &Shape { owners: 40, items: 30, epochs: 20, changes: 40 });
        let settings = Similarity { min_support: 1, ..settings(&mut rng) };
        let (stepwise, _) = operators(&script, 2, Feed::Stepwise, &settings, Tuning::default());
        let whole: Script = vec![script.into_iter().flatten().collect()];
        let (at_once, _) = operators(&whole, 1, Feed::Stepwise, &settings, Tuning { slack: 1, rebuild_from: 0 });
        assert_eq!(stepwise.last(), at_once.last(), "seed {seed}, {settings:?}");
        assert!(at_once.iter().any(|view| !view.lists.is_empty()));
    }
}

/// If this failed, erasing every owner would leave a list, support, basket or pair.
#[test]
fn forgetting_every_owner_leaves_nothing() {
    for (seed, workers) in [(300, 1), (301, 2), (302, 4)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut script = script(&mut rng, &Shape { owners: 12, items: 15, epochs: 8, changes: 40 });
        let mut held: BTreeMap<Fact, isize> = BTreeMap::new();
        script.iter().flatten().for_each(|&(fact, diff)| *held.entry(fact).or_default() += diff);
        let owners: BTreeSet<Party> = held.keys().map(|&(owner, _)| owner).collect();
        for &owner in &owners {
            let facts = held.iter().filter(|((other, _), count)| *other == owner && **count != 0);
            script.push(facts.map(|(&fact, &count)| (fact, -count)).collect());
        }
        let settings = settings(&mut rng);
        let expected = expected(&script, &settings);
        assert_eq!(expected.last(), Some(&View::default()));
        let (views, stats) = operators(&script, workers, Feed::AtOnce, &settings, Tuning { slack: 1, rebuild_from: 100 });
        assert_views(&views, &expected, "forgotten");
        assert_eq!(Stats::get(&stats.pairs), 0);
        assert!(Stats::get(&stats.lists_changed) > 0 && Stats::get(&stats.pair_updates) > 0);
    }
}

/// If this failed, a window of 50 over an owner with thousands of items would not follow additions and removals.
#[test]
fn a_bot_with_thousands_of_items_moves_a_window_of_50() {
    let mut rng = StdRng::seed_from_u64(400);
    let items: Vec<Item> = (0..3_000).map(|n| Item::intern(&format!("bot-{:x}", (n * 7_919) % 65_537))).collect();
    let bot = Party::member("bot");
    let people: Vec<Party> = (0..10).map(|n| Party::member(&format!("beside-the-bot-{n}"))).collect();
    let mut first: Vec<(Fact, isize)> = Vec::new();
    for &item in &items {
        first.push(((bot, (item, rng.random_range(0..100_000))), 1));
    }
    for person in people {
        for _ in 0..30 {
            first.push(((person, (*items.choose(&mut rng).expect("an item"), rng.random_range(0..1_000))), 1));
        }
    }
    let mut held: Vec<Fact> = first.iter().map(|&(fact, _)| fact).filter(|fact| fact.0 == bot).collect();
    let mut script: Script = vec![first];
    for epoch in 0..30 {
        let mut differences = Vec::new();
        // Removes the latest, among them those of the window; some items come again, at other times.
        held.sort_by_key(|&(_, (_, at))| at);
        for _ in 0..rng.random_range(1..20) {
            differences.push((held.pop().expect("a fact"), -1));
        }
        for _ in 0..rng.random_range(0..20) {
            let fact = (bot, (*items.choose(&mut rng).expect("an item"), rng.random_range(0..100_100 + epoch)));
            differences.push((fact, 1));
            held.push(fact);
        }
        script.push(differences);
    }
    script.push(held.into_iter().map(|fact| (fact, -1)).collect());
    for (workers, pair_weight) in [(1, PairWeight::Count), (2, PairWeight::Distance)] {
        let settings = Similarity { pair_weight, ..Similarity::default() };
        let expected = expected(&script, &settings);
        let (views, _) = operators(&script, workers, Feed::Stepwise, &settings, Tuning::default());
        assert_views(&views, &expected, "bot");
    }
}
