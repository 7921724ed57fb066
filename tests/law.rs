//! The law, on the whole product: an export is a function of the set of events and the settings. Random logs are shuffled,
//! duplicated and split into requests, over 1, 2 and 4 workers, with kill -9 in between; the exports equal the oracle's.

use std::ops::ControlFlow;

use kindred_model::settings::Semantics;
use kindred_model::views::{self, Cell, ExportContext};
use kindred_model::{Day, Record};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::place::{Backend, Place, on_both_back_ends};
use crate::support::{AS_OF, VIEWS, lines_by_topic};

/// The settings of a run, for the command and for the oracle.
pub struct Variant {
    pub set: Vec<String>,
    pub semantics: Semantics,
}

fn defaults() -> Variant {
    Variant { set: Vec::new(), semantics: Semantics::default() }
}

/// Small window and cap, so that evictions are frequent.
pub fn small() -> Variant {
    let mut semantics = Semantics::default();
    semantics.inputs.identities_per_owner = 6;
    semantics.views.also_bought.window = 3;
    semantics.views.also_bought.top = 4;
    let set = ["inputs.identities_per_owner=6", "views.also_bought.window=3", "views.also_bought.top=4"];
    Variant { set: set.map(str::to_owned).to_vec(), semantics }
}

pub fn oracle_export(view: &str, records: &[Record], semantics: &Semantics) -> String {
    let inputs = kindred_oracle::inputs(records.iter().cloned(), semantics);
    let tables = kindred_oracle::tables(&inputs, semantics);
    let view = view.parse::<views::ViewName>().expect("a view").info();
    let mut csv = view.columns.join(",");
    let as_of: Day = AS_OF.parse().expect("a day");
    let emit = &mut |cells: &[Cell]| {
        csv.push('\n');
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| match cell {
                Cell::Empty => String::new(),
                Cell::Text(text) | Cell::Decimal(text) => text.clone(),
                Cell::Number(number) => number.to_string(),
            })
            .collect();
        csv.push_str(&cells.join(","));
        ControlFlow::Continue(())
    };
    (view.export)(&tables, None, ExportContext { settings: semantics, as_of }, emit).expect("the oracle's tables read");
    csv.push('\n');
    csv
}

fn run(backend: Backend, seed: u64, workers: usize, variant: &Variant) {
    let mut rng = StdRng::seed_from_u64(seed);
    let records = kindred_oracle::testing::random_log(seed, 400, &kindred_oracle::testing::Shape::default());
    let set = [&variant.set[..], &[format!("pipeline.workers={workers}")]].concat();
    let Some(place) = Place::new(backend, &format!("law_{seed}"), &set) else { return };

    // Shuffled, a third of it twice.
    let mut feed: Vec<&Record> = records.iter().collect();
    feed.extend(records.iter().filter(|_| rng.random_bool(0.3)));
    feed.shuffle(&mut rng);

    let mut server = place.start(&[]);
    let mut rest = feed.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rng.random_range(1..=60.min(rest.len())));
        rest = later;
        for (topic, lines) in lines_by_topic(batch) {
            let answer = server.post(&format!("/v1/events/{topic}"), "application/x-ndjson", &lines);
            assert_eq!(answer.status, 202, "{}", answer.body);
        }
        if rng.random_bool(0.25) {
            server.kill();
            server = place.start(&[]);
        }
    }
    server.stop();
    place.ok(&["verify"]);
    let served = place.exports();
    for (view, served) in VIEWS.iter().zip(&served) {
        let expected = oracle_export(view, &records, &variant.semantics);
        assert_eq!(*served, expected, "{view} with seed {seed}, {workers} workers, {backend:?}");
    }
    // And again from the log alone.
    place.start(&["--from", "beginning"]).stop();
    assert_eq!(place.exports(), served, "a rebuild from the log gives other bytes, seed {seed}");
}

/// If this fails, results depend on order, duplicates, restarts, the number of workers, or the backend.
fn exports_are_a_function_of_the_set_of_events(backend: Backend) {
    for (seed, workers) in [(1, 1), (2, 2), (3, 4)] {
        // On services a start takes seconds, so each number of workers gets one kind of settings there.
        if backend == Backend::Embedded || workers == 1 {
            run(backend, seed, workers, &defaults());
        }
        if backend == Backend::Embedded || workers > 1 {
            run(backend, seed + 100, workers, &small());
        }
    }
}
on_both_back_ends!(exports_are_a_function_of_the_set_of_events);
