//! `histories` by brute force: the unhidden identities of each effective owner, the greatest `at` per key.

use std::collections::BTreeMap;

use kindred_model::views::histories::Entry;
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, Owner, Semantics, SessionId};

use crate::Inputs;
use crate::inputs::Who;
use crate::tables::Tables;

/// The history of each owner that has one, sorted by (item, kind, day).
pub fn histories(inputs: &Inputs) -> BTreeMap<Owner, Vec<Entry>> {
    let mut greatest: BTreeMap<Who<'_>, BTreeMap<(&ItemId, Kind, Day), EventTime>> = BTreeMap::new();
    inputs.unhidden(|who, item, kind, day, at| {
        let latest = greatest.entry(who).or_default().entry((item, kind, day)).or_insert(at);
        *latest = at.max(*latest);
    });
    let owner = |(is_member, id): Who<'_>| match is_member {
        true => Owner::Member(MemberId::trusted(id.to_owned())),
        false => Owner::Session(SessionId::trusted(id.to_owned())),
    };
    greatest
        .into_iter()
        .map(|(who, entries)| {
            let entries = entries.into_iter().map(|((item, kind, day), at)| Entry { item: item.clone(), kind, day, at });
            (owner(who), entries.collect())
        })
        .collect()
}

/// The view has no table of its own: it is the merged interactions read back.
pub(crate) fn tables(_inputs: &Inputs, _semantics: &Semantics) -> Tables {
    Tables::default()
}
