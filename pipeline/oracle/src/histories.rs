//! `histories` by brute force: the unhidden identities of each effective owner, the greatest `at` per key.

use std::collections::BTreeMap;

use kindred_model::views::histories::{Entry, Histories};
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, Owner, Semantics, SessionId};

use crate::inputs::{Sort, Who};
use crate::tables::Tables;
use crate::{Inputs, Recomputed};

/// The key of a history entry.
type About<'a> = (&'a ItemId, Kind, Day, &'a str);

/// The history of each owner that has one, sorted by (item, kind, day, scenario).
pub fn histories(inputs: &Inputs) -> BTreeMap<Owner, Vec<Entry>> {
    let mut greatest: BTreeMap<Who<'_>, BTreeMap<About<'_>, EventTime>> = BTreeMap::new();
    inputs.unhidden_by_key(|who, item, key, day, at| {
        let latest = greatest.entry(who).or_default().entry((item, key.kind, day, &key.scenario)).or_insert(at);
        *latest = at.max(*latest);
    });
    let owner = |(sort, id): Who<'_>| match sort {
        Sort::Member => Owner::Member(MemberId::trusted(id.to_owned())),
        Sort::Session => Owner::Session(SessionId::trusted(id.to_owned())),
        Sort::Guest => unreachable!("a guest's order {id} with interactions"),
    };
    greatest
        .into_iter()
        .map(|(who, entries)| {
            let entries = entries.into_iter().map(|((item, kind, day, scenario), at)| Entry {
                item: item.clone(),
                kind,
                day,
                scenario: scenario.into(),
                at,
            });
            (owner(who), entries.collect())
        })
        .collect()
}

impl Recomputed for Histories {
    /// The view has no table: it is read from the merged interactions.
    fn recompute(_inputs: &Inputs, _semantics: &Semantics) -> Tables {
        Tables::default()
    }
}
