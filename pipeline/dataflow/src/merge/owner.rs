//! The identities of one raw owner, below its cap, and what an epoch changed in them.
//!
//! Owners with few identities keep a sorted vector, 24 bytes an identity; an owner of many (a bot) gets a tree and an index by
//! recency, so that an event costs it O(log).

use std::collections::{BTreeMap, BTreeSet};

use kindred_model::EventTime;

use super::subject::{Identity, Recency};

/// An owner of more identities than this gets the tree: below it, moving and scanning a vector costs less than a tree.
pub(crate) const FEW_MAX: usize = 256;

/// A payload's canonical bytes in one word: nearly all are empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Payload(Option<Box<Box<[u8]>>>);

impl From<Box<[u8]>> for Payload {
    fn from(bytes: Box<[u8]>) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }
}

impl Payload {
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }
}

/// What an identity holds: the greatest (`at`, payload) that was seen. The derived order is that of the merge.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Held {
    pub at: EventTime,
    pub payload: Payload,
}

/// The identities of one raw owner.
#[derive(Debug)]
pub(crate) enum Identities {
    /// Sorted by identity.
    Few(Vec<(Identity, Held)>),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
pub(crate) struct Many {
    held: BTreeMap<Identity, Held>,
    recent: BTreeSet<Recency>,
}

/// What an identity held before it was touched.
pub(crate) type Touched = (Identity, Option<Held>);

impl Default for Identities {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Identities {
    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.held.len(),
        }
    }

    pub fn get(&self, identity: Identity) -> Option<&Held> {
        match self {
            Self::Few(few) => few.binary_search_by_key(&identity, |(held, _)| *held).ok().map(|at| &few[at].1),
            Self::Many(many) => many.held.get(&identity),
        }
    }

    /// Visits the identities from `first` up to and including `last`, in order.
    fn visit<'a>(&'a self, range: Option<(Identity, Identity)>, mut visit: impl FnMut(Identity, &'a Held)) {
        match (self, range) {
            (Self::Few(few), None) => few.iter().for_each(|(identity, held)| visit(*identity, held)),
            (Self::Few(few), Some((first, last))) => {
                let from = few.partition_point(|(identity, _)| *identity < first);
                few[from..].iter().take_while(|(identity, _)| *identity <= last).for_each(|(i, held)| visit(*i, held));
            }
            (Self::Many(many), None) => many.held.iter().for_each(|(identity, held)| visit(*identity, held)),
            (Self::Many(many), Some((first, last))) => many.held.range(first..=last).for_each(|(i, held)| visit(*i, held)),
        }
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> Vec<(Identity, Held)> {
        match std::mem::take(self) {
            Self::Few(few) => few,
            Self::Many(many) => many.held.into_iter().collect(),
        }
    }

    fn least(&self) -> Option<Recency> {
        match self {
            Self::Few(few) => few.iter().map(|(identity, held)| Recency { at: held.at, identity: *identity }).min(),
            Self::Many(many) => many.recent.first().copied(),
        }
    }

    fn set(&mut self, identity: Identity, held: Held) -> Option<Held> {
        match self {
            Self::Few(few) => match few.binary_search_by_key(&identity, |(known, _)| *known) {
                Ok(at) => Some(std::mem::replace(&mut few[at].1, held)),
                Err(at) => {
                    few.insert(at, (identity, held));
                    None
                }
            },
            Self::Many(many) => {
                many.recent.insert(Recency { at: held.at, identity });
                let old = many.held.insert(identity, held)?;
                if many.held.get(&identity).is_some_and(|held| held.at != old.at) {
                    many.recent.remove(&Recency { at: old.at, identity });
                }
                Some(old)
            }
        }
    }

    fn remove(&mut self, identity: Identity) -> Option<Held> {
        match self {
            Self::Few(few) => few.binary_search_by_key(&identity, |(known, _)| *known).ok().map(|at| few.remove(at).1),
            Self::Many(many) => {
                let held = many.held.remove(&identity)?;
                many.recent.remove(&Recency { at: held.at, identity });
                Some(held)
            }
        }
    }

    fn grow(&mut self, few_max: usize) {
        if let Self::Few(few) = self
            && few.len() > few_max
        {
            let recent = few.iter().map(|(identity, held)| Recency { at: held.at, identity: *identity }).collect();
            let held = std::mem::take(few).into_iter().collect();
            *self = Self::Many(Box::new(Many { held, recent }));
        }
    }

    /// Merges one record: the greatest (`at`, payload) of its identity. Above the cap the least by (`at`, identity) falls out, and
    /// what would be less than all that are kept never enters. `log` hears what each identity held before; the answer is whether
    /// something fell out.
    ///
    /// That is a function of the set: an identity's greatest `at` only grows, so the bound only rises, and whatever fell out is
    /// below it for good, or comes back with a greater `at` that says all.
    pub fn merge(&mut self, identity: Identity, held: Held, cap: usize, few_max: usize, log: &mut Vec<Touched>) -> bool {
        if let Some(known) = self.get(identity) {
            if held > *known {
                let old = self.set(identity, held);
                log.push((identity, old));
            }
            return false;
        }
        let mut evicted = false;
        if self.len() >= cap {
            let Some(least) = self.least() else { return true };
            if (Recency { at: held.at, identity }) < least {
                return true;
            }
            let old = self.remove(least.identity);
            log.push((least.identity, old));
            evicted = true;
        }
        self.set(identity, held);
        log.push((identity, None));
        self.grow(few_max);
        evicted
    }
}

/// An identity before and after an epoch, as a row of the table and as what it shows: its time unless a retract hides it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed<'a> {
    pub identity: Identity,
    pub before: Option<&'a Held>,
    pub after: Option<&'a Held>,
    pub shown_before: Option<EventTime>,
    pub shown_after: Option<EventTime>,
}

/// Compares an owner's identities with what the log says they were. With `whole` every identity is visited, else those whose row
/// or hiding changed.
pub(crate) fn compare<'a>(now: &'a Identities, log: &'a mut Vec<Touched>, whole: bool, mut each: impl FnMut(Changed<'a>)) {
    // What an identity held before the epoch is what it held when it was first touched: a stable sort keeps that first.
    log.sort_by_key(|(identity, _)| *identity);
    log.dedup_by_key(|(identity, _)| *identity);
    let log: &'a [Touched] = log;
    let mut held: Vec<(Identity, &Held)> = Vec::new();
    if whole {
        now.visit(None, |identity, was| held.push((identity, was)));
        let (mut held, mut log) = (held.as_slice(), log);
        while let Some(group) =
            held.first().map(|(identity, _)| identity.group()).into_iter().chain(log.first().map(|(i, _)| i.group())).min()
        {
            let last = group.retract();
            let (held_here, held_rest) = held.split_at(held.partition_point(|(identity, _)| *identity <= last));
            let (log_here, log_rest) = log.split_at(log.partition_point(|(identity, _)| *identity <= last));
            compare_group(last, held_here, log_here, now, &mut each);
            (held, log) = (held_rest, log_rest);
        }
        return;
    }
    for group in log.chunk_by(|a, b| a.0.group() == b.0.group()) {
        let retract = group[0].0.retract();
        held.clear();
        let hiding_changed = group
            .last()
            .is_some_and(|(last, before)| *last == retract && before.as_ref().map(|b| b.at) != now.get(retract).map(|a| a.at));
        if hiding_changed {
            now.visit(Some((retract.group(), retract)), |identity, was| held.push((identity, was)));
        } else {
            held.extend(group.iter().filter_map(|(identity, _)| now.get(*identity).map(|after| (*identity, after))));
        }
        compare_group(retract, &held, group, now, &mut each);
    }
}

/// One (subject, kind): `held` is what is to be visited of it now, `log` what was touched of it.
fn compare_group<'a>(
    retract: Identity,
    held: &[(Identity, &'a Held)],
    log: &'a [Touched],
    now: &'a Identities,
    each: &mut impl FnMut(Changed<'a>),
) {
    let retract_after = now.get(retract).map(|held| held.at);
    let retract_before = match log.last() {
        Some((last, before)) if *last == retract => before.as_ref().map(|held| held.at),
        _ => retract_after,
    };
    let shown = |held: Option<&Held>, retract: Option<EventTime>| held.map(|held| held.at).filter(|at| Some(*at) > retract);
    let (mut held, mut log) = (held, log);
    loop {
        let next = match (held.first(), log.first()) {
            (Some((a, _)), Some((b, _))) => *a.min(b),
            (Some((a, _)), None) => *a,
            (None, Some((b, _))) => *b,
            (None, None) => return,
        };
        let mut after = None;
        if let Some(((identity, now), rest)) = held.split_first()
            && *identity == next
        {
            after = Some(*now);
            held = rest;
        }
        let mut before = after;
        if let Some(((identity, was), rest)) = log.split_first()
            && *identity == next
        {
            before = was.as_ref();
            log = rest;
        }
        each(Changed {
            identity: next,
            before,
            after,
            shown_before: shown(before, retract_before),
            shown_after: shown(after, retract_after),
        });
    }
}
