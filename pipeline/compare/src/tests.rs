//! The comparison against a naive in-memory version, on random shops.

use std::collections::{BTreeMap, BTreeSet};

use kindred_model::records::Record;
use kindred_model::views::also_bought::read_list;
use kindred_model::views::popularity::Popularity;
use kindred_model::views::{also_bought, inputs::Catalog, scan};
use kindred_model::{ItemId, Kind, Semantics};
use kindred_oracle::testing::{Shape, random_log, small_semantics};
use kindred_oracle::{Tables, inputs, tables};

use crate::measure::{overlap, rank_biased_overlap};
use crate::{Comparison, DEPTHS, EXAMPLES_MAX, Side, compare, page, text};

fn day() -> kindred_model::Day {
    "2026-01-10".parse().unwrap()
}

fn rows(log: &[Record], semantics: &Semantics) -> Tables {
    let inputs = inputs(log.iter().cloned(), semantics);
    let mut all = inputs.tables();
    all.extend(tables(&inputs, semantics));
    all
}

fn side<'a>(name: &'a str, settings: &'a Semantics, rows: &'a Tables) -> Side<'a> {
    Side { name, settings, as_of: "i0.1", rows }
}

/// Every list of a set of rows, as served.
fn all_lists(rows: &Tables, settings: &Semantics) -> BTreeMap<ItemId, Vec<ItemId>> {
    let mut items = Vec::new();
    scan::<also_bought::Lists, _>(rows, &[], |item, _| items.push(item)).unwrap();
    let list = |item: &ItemId| read_list(rows, &settings.views.also_bought, item).unwrap().1;
    items.into_iter().map(|item| (item.clone(), list(&item).into_iter().map(|scored| scored.item).collect())).collect()
}

/// Checks everything against whole lists in memory.
fn check_against_naive(found: &Comparison, a: (&Tables, &Semantics), b: (&Tables, &Semantics)) {
    let (lists_a, lists_b) = (all_lists(a.0, a.1), all_lists(b.0, b.1));
    let items: BTreeSet<&ItemId> = lists_a.keys().chain(lists_b.keys()).collect();
    let none = Vec::new();
    let pairs: Vec<_> = items.iter().map(|i| (*i, lists_a.get(*i).unwrap_or(&none), lists_b.get(*i).unwrap_or(&none))).collect();
    let of = pairs.len() as f64;
    let mean = |figure: &dyn Fn(&[ItemId], &[ItemId]) -> f64| pairs.iter().map(|(_, a, b)| figure(a, b)).sum::<f64>() / of;
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    let lists = &found.lists;
    assert_eq!((lists.items, lists.with_list.a, lists.with_list.b), (of as u64, lists_a.len() as u64, lists_b.len() as u64));
    near(lists.moved_share, mean(&|a, b| f64::from(a != b)));
    for (depth, found) in &lists.overlap {
        near(*found, mean(&|a, b| overlap(a, b, *depth)));
    }
    assert_eq!(lists.overlap.iter().map(|(depth, _)| *depth).collect::<Vec<_>>(), DEPTHS);
    near(lists.rank_biased_overlap, mean(&|a, b| rank_biased_overlap(a, b)));
    assert_eq!(lists.histogram.iter().sum::<u64>(), lists.items);
    let same_ten = pairs.iter().filter(|(_, a, b)| overlap(a, b, 10) == 1.0).count() as u64;
    assert_eq!(lists.histogram.last(), Some(&same_ten));

    let mut views: BTreeMap<ItemId, u64> = BTreeMap::new();
    scan::<Popularity, _>(a.0, &[], |(item, kind, _), owners| {
        if kind == Kind::View {
            *views.entry(item).or_default() += owners;
        }
    })
    .unwrap();
    let weight = |moved: bool| -> u64 {
        pairs.iter().filter(|(_, a, b)| !moved || a != b).map(|(item, ..)| views.get(*item).copied().unwrap_or(0)).sum()
    };
    match lists.moved_share_by_views {
        Some(share) => near(share, weight(true) as f64 / weight(false) as f64),
        None => assert_eq!(weight(false), 0),
    }

    for (lists, rows, catalog, covered) in
        [(&lists_a, a.0, lists.catalog.a, lists.covered.a), (&lists_b, b.0, lists.catalog.b, lists.covered.b)]
    {
        let within: BTreeSet<&ItemId> = lists.values().flatten().collect();
        let mut items = Vec::new();
        scan::<Catalog, _>(rows, &[], |item, _| items.push(item)).unwrap();
        let expected = items.iter().filter(|item| within.contains(item)).count();
        assert_eq!((catalog, covered), (items.len() as u64, expected as u64));
    }

    let impact = |item: &ItemId, a: &[ItemId], b: &[ItemId]| {
        views.get(item).copied().unwrap_or(0) as f64 * (1.0 - rank_biased_overlap(a, b))
    };
    let mut moved: Vec<_> = pairs.iter().filter(|(_, a, b)| a != b).map(|(item, a, b)| (impact(item, a, b), *item)).collect();
    moved.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap().then(a.1.cmp(b.1)));
    moved.truncate(EXAMPLES_MAX);
    let shown: Vec<&str> = found.examples.iter().map(|example| &*example.item).collect();
    if !views.is_empty() {
        assert_eq!(shown, moved.iter().map(|(_, item)| item.as_str()).collect::<Vec<_>>());
    }
    for example in &found.examples {
        let item = ItemId::parse(&example.item).unwrap();
        let ids = |entries: &[crate::Entry]| entries.iter().map(|entry| entry.item.clone()).collect::<Vec<_>>();
        let expected = |lists: &BTreeMap<ItemId, Vec<ItemId>>| {
            lists.get(&item).into_iter().flatten().take(crate::EXAMPLE_ENTRIES).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!((ids(&example.a), ids(&example.b)), (expected(&lists_a), expected(&lists_b)));
    }
}

/// If this failed, a metric would not be what its doc says.
#[test]
fn figures_are_those_of_the_naive_version() {
    for seed in 0..30 {
        let shape = Shape { items: 40, members: 20, sessions: 20, ..Shape::default() };
        let log = random_log(seed, 900, &shape);
        let (a, mut b) = (small_semantics(), small_semantics());
        b.views.also_bought.window = 4;
        b.views.also_bought.top = 6;
        let (rows_a, rows_b) = (rows(&log, &a), rows(&log, &b));
        let found = compare(side("g1", &a, &rows_a), side("g2", &b, &rows_b), day()).unwrap();
        check_against_naive(&found, (&rows_a, &a), (&rows_b, &b));
        assert!(found.same_events());
        assert!(found.lists.moved > 0, "the test compares something");
        let names: Vec<&str> = found.settings.iter().map(|change| &*change.name).collect();
        assert_eq!(names, ["views.also_bought.top", "views.also_bought.window"]);
    }
}

/// If this failed, duplicates or another order would count as other events, or other events as the same.
#[test]
fn event_sets_are_equal_whatever_their_order() {
    let settings = small_semantics();
    let log = random_log(3, 300, &Shape::default());
    let mut again = log.clone();
    again.extend_from_slice(&log[..100]);
    kindred_oracle::testing::Rng::new(1).shuffle(&mut again);
    let (first, same) = (rows(&log, &settings), rows(&again, &settings));
    let found = compare(side("g1", &settings, &first), side("g2", &settings, &same), day()).unwrap();
    assert!(found.same_events() && found.settings.is_empty() && found.examples.is_empty());
    assert_eq!((found.lists.moved_share, found.lists.rank_biased_overlap), (0.0, 1.0));
    assert!(found.tables.iter().all(|table| table.different == 0));

    let less = rows(&log[..200], &settings);
    let found = compare(side("g1", &settings, &first), side("g2", &settings, &less), day()).unwrap();
    assert!(!found.same_events());
    let table = |table: &str| found.tables.iter().find(|found| found.table == table).unwrap().different;
    let naive = kindred_oracle::first_differences(&first, &less, usize::MAX).unwrap();
    assert_eq!(table("points"), naive.iter().filter(|difference| difference.table == "points").count() as u64);
}

/// Titles come from whoever writes the catalog: if this failed, they could run a script in a manager's browser.
#[test]
fn a_page_shows_what_is_written_and_runs_none_of_it() {
    let settings = small_semantics();
    let mut other = small_semantics();
    other.views.also_bought.window = 2;
    let log = random_log(5, 900, &Shape { items: 30, members: 20, ..Shape::default() });
    let (a, b) = (rows(&log, &settings), rows(&log, &other));
    let mut found = compare(side("g1", &settings, &a), side("g2", &other, &b), day()).unwrap();
    found.examples[0].title = Some("<script>alert('x')</script>\u{1b}[2J".to_owned());
    let page = page::html(&found);
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && !page.contains("<script"));
    assert!(!page.contains("http") && page.matches("<article>").count() == found.examples.len());
    let text = text::table(&found);
    assert!(text.contains("views.also_bought.window") && text.contains("overlap@10") && !text.contains('\u{1b}'), "{text}");
}
