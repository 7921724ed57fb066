//! `histories`: per owner (after `merged_into`) the unhidden identities with an item.
//!
//! Read from the table of merged interactions: hiding, a member's sessions and erasure are applied here. Checked by
//! `oracle::histories`, served by `GET /v1/members/{member}/history`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::inputs::{Interactions, Members, StoredInteraction};
use super::{Cell, EmitRow, ExportContext, ReadError, Rows, TableInfo, View, scan};
use crate::codec::KeyCodec;
use crate::ids::{ItemId, MemberId, Owner, SessionId};
use crate::records::{InteractionKey, MemberRecord, MemberState, Subject};
use crate::settings::Switch;
use crate::units::{Day, EventTime, Kind};

/// The view.
pub struct Histories;

/// One row of a history.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The item.
    pub item: ItemId,
    /// What was done.
    pub kind: Kind,
    /// The UTC day.
    pub day: Day,
    /// The scenario of an impression or a click; empty for all others.
    pub scenario: Box<str>,
    /// The greatest `at` of that day.
    pub at: EventTime,
}

type Merged = BTreeMap<(ItemId, Kind, Day, Box<str>), EventTime>;

/// Applies a raw owner's retracts and adds its unhidden identities with an item to `merged`.
fn add_unhidden(identities: &[(InteractionKey, EventTime)], merged: &mut Merged) {
    let retracts: HashMap<(&Subject, Kind), EventTime> =
        identities.iter().filter(|(key, _)| key.day.is_none()).map(|(key, at)| ((&key.subject, key.kind), *at)).collect();
    for (key, at) in identities {
        let (Subject::Item(item), Some(day)) = (&key.subject, key.day) else { continue };
        if retracts.get(&(&key.subject, key.kind)).is_some_and(|hidden_to| at <= hidden_to) {
            continue;
        }
        let greatest = merged.entry((item.clone(), key.kind, day, key.scenario.clone())).or_insert(*at);
        *greatest = (*greatest).max(*at);
    }
}

fn entries(merged: Merged) -> Vec<Entry> {
    merged.into_iter().map(|((item, kind, day, scenario), at)| Entry { item, kind, day, scenario, at }).collect()
}

fn identities_of(rows: &dyn Rows, owner: &Owner) -> Result<Vec<(InteractionKey, EventTime)>, ReadError> {
    let mut identities = Vec::new();
    scan::<Interactions, _>(rows, &owner.to_bytes(), |(_, key), StoredInteraction { at, .. }| identities.push((key, at)))?;
    Ok(identities)
}

/// The history of one owner and of `sessions`, which the caller knows to be merged into it. Sorted by (item, kind, day,
/// scenario). Empty for an erased member.
///
/// # Errors
/// Those of reading.
pub fn read_history(rows: &dyn Rows, owner: &Owner, sessions: &[SessionId]) -> Result<Vec<Entry>, ReadError> {
    if Members::read(rows, owner)?.is_some_and(|record| record.is_erased()) {
        return Ok(Vec::new());
    }
    let mut merged = Merged::new();
    add_unhidden(&identities_of(rows, owner)?, &mut merged);
    for session in sessions {
        add_unhidden(&identities_of(rows, &Owner::Session(session.clone()))?, &mut merged);
    }
    Ok(entries(merged))
}

impl View for Histories {
    type Settings = Switch;
    const SUMMARY: &'static str = "what an owner did: its unhidden identities with an item";
    const COLUMNS: &'static [&'static str] = &["member", "session", "item", "kind", "day", "at"];
    const ROUTE: &'static str = "GET /v1/members/{member}/history";

    fn tables() -> Vec<TableInfo> {
        Vec::new()
    }

    fn export(rows: &dyn Rows, of: Option<&str>, _context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError> {
        let mut merged_into: BTreeMap<SessionId, MemberId> = BTreeMap::new();
        let mut erased: HashSet<MemberId> = HashSet::new();
        Members::scan(rows, |record| match record {
            MemberRecord::Session { session, merged_into: member, .. } => {
                merged_into.insert(session, member);
            }
            MemberRecord::Member(membership) if membership.state == MemberState::Erased => {
                erased.insert(membership.member);
            }
            MemberRecord::Member(_) => {}
        })?;
        let mut sessions_of: HashMap<&MemberId, Vec<&SessionId>> = HashMap::new();
        for (session, member) in &merged_into {
            sessions_of.entry(member).or_default().push(session);
        }

        // The owners in order: those with identities of their own, and members with sessions only.
        let mut owners: BTreeSet<Owner> = BTreeSet::new();
        if let Some(id) = of.map(str::to_owned) {
            owners.extend([Owner::Member(MemberId::trusted(id.clone())), Owner::Session(SessionId::trusted(id))]);
        } else {
            owners.extend(merged_into.values().cloned().map(Owner::Member));
            let mut last: Option<Owner> = None;
            scan::<Interactions, _>(rows, &[], |(owner, _), _| {
                if last.as_ref() != Some(&owner) {
                    owners.insert(owner.clone());
                    last = Some(owner);
                }
            })?;
        }
        for owner in &owners {
            let (member, session, sessions) = match owner {
                Owner::Session(session) if merged_into.contains_key(session) => continue,
                Owner::Session(session) => (Cell::Empty, Cell::text(session), Vec::new()),
                Owner::Member(member) if erased.contains(member) => continue,
                Owner::Guest(_) => continue,
                Owner::Member(member) => {
                    let sessions = sessions_of.get(member).into_iter().flatten().map(|session| (*session).clone());
                    (Cell::text(member), Cell::Empty, sessions.collect())
                }
            };
            for entry in read_history(rows, owner, &sessions)? {
                let mut cells = vec![member.clone(), session.clone()];
                cells.extend([Cell::text(entry.item), Cell::text(entry.kind), Cell::text(entry.day), Cell::text(entry.at)]);
                if emit(&cells).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
