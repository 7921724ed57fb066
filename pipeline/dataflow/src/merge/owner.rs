//! The identities of one raw owner below its cap, and their changes in an epoch.
//!
//! Owners with few identities keep a sorted vector, 24 bytes per identity; an owner of many (a bot) gets a tree and a recency
//! index, so that an event costs O(log).

use std::collections::{BTreeMap, BTreeSet};

use kindred_model::EventTime;

use super::subject::{Identity, Recency};

/// Above this many identities an owner gets the tree; below, moving and scanning a vector is cheaper.
pub(crate) const FEW_MAX: usize = 256;

/// A payload's canonical bytes in one word, as nearly all are empty.
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

/// The value of an identity: the greatest (`at`, payload) seen. The derived order is that of the merge.
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

/// An identity and its value before it was touched.
type Touched = (Identity, Option<Held>);

/// An owner's changes in an epoch. An owner that is new in the epoch needs no entries, as all it ends with is new: nearly every
/// owner while a state is restored.
#[derive(Debug, Default)]
pub(crate) struct ChangeLog {
    is_new: bool,
    touched: Vec<Touched>,
    /// Identities that arrived and are not kept. Their rows are deleted even if never held here: where rows are written one by
    /// one, a process that crashed within an epoch, or was replaced and still runs, may have written them (design note 0004).
    dropped: Vec<Identity>,
}

impl ChangeLog {
    /// For an owner that is new in the epoch.
    pub fn of_new_owner() -> Self {
        Self { is_new: true, ..Self::default() }
    }

    /// Records an identity that arrived and is not kept.
    pub fn note_dropped(&mut self, identity: Identity) {
        self.dropped.push(identity);
    }

    /// Identities that arrived, are not kept, and were not held before the epoch, each once: an evicted identity may have come
    /// back and been evicted again. Identities held before are among the changes.
    pub fn take_dropped(&mut self) -> Vec<Identity> {
        let mut dropped = std::mem::take(&mut self.dropped);
        if dropped.is_empty() {
            return dropped; // The common case.
        }
        dropped.sort_unstable();
        dropped.dedup();
        let touched = self.settle();
        let was_held = |identity: &Identity| {
            touched.binary_search_by_key(identity, |(touched, _)| *touched).is_ok_and(|place| touched[place].1.is_some())
        };
        dropped.retain(|identity| !was_held(identity));
        dropped
    }

    /// Records an identity's value before it changes.
    pub fn note(&mut self, identity: Identity, before: Option<Held>) {
        if !self.is_new {
            self.touched.push((identity, before));
        }
    }

    /// Each touched identity's value before the epoch, in identity order.
    fn settle(&mut self) -> &[Touched] {
        // The sort is stable, so the first value of an identity stays first.
        self.touched.sort_by_key(|(identity, _)| *identity);
        self.touched.dedup_by_key(|(identity, _)| *identity);
        &self.touched
    }
}

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

    /// Removes and returns everything.
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

    /// Merges records in any order and drains them: see [`Identities::merge`]. Returns how many identities were evicted.
    pub fn merge_all(&mut self, records: &mut Vec<(Identity, Held)>, cap: usize, few_max: usize, log: &mut ChangeLog) -> u64 {
        if self.len() == 0 && log.is_new && records.len() <= cap.min(few_max) {
            // Nothing was held and nothing can be evicted: keep the greatest of each identity.
            records.sort_unstable_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1)));
            records.dedup_by_key(|(identity, _)| *identity);
            let mut few = Vec::with_capacity(records.len());
            few.append(records);
            *self = Self::Few(few);
            return 0;
        }
        records.drain(..).map(|(identity, held)| u64::from(self.merge(identity, held, cap, few_max, log))).sum()
    }

    /// Merges one record: keeps the greatest (`at`, payload) of its identity. Above the cap the least by (`at`, identity) is
    /// evicted, and a record below all that are kept never enters. Changes go to `log`; returns whether something was evicted.
    ///
    /// The result is a function of the set: an identity's greatest `at` only grows, so the bound only rises, and what was evicted
    /// stays below it, or comes back with a greater `at` that holds everything.
    fn merge(&mut self, identity: Identity, held: Held, cap: usize, few_max: usize, log: &mut ChangeLog) -> bool {
        if let Some(known) = self.get(identity) {
            if held > *known {
                let old = self.set(identity, held);
                log.note(identity, old);
            }
            return false;
        }
        let mut evicted = false;
        if self.len() >= cap {
            let entering = Recency { at: held.at, identity };
            let Some(least) = self.least().filter(|least| entering >= *least) else {
                log.note_dropped(identity);
                return true;
            };
            let old = self.remove(least.identity);
            log.note(least.identity, old);
            log.note_dropped(least.identity);
            evicted = true;
        }
        self.set(identity, held);
        log.note(identity, None);
        self.grow(few_max);
        evicted
    }
}

/// An identity before and after an epoch: its row, and its time unless a retract hides it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed<'a> {
    pub identity: Identity,
    pub before: Option<&'a Held>,
    pub after: Option<&'a Held>,
    pub shown_before: Option<EventTime>,
    pub shown_after: Option<EventTime>,
}

/// Compares an owner's identities with their values in the log. Visits every identity if `whole`, else those whose row or hiding
/// changed.
pub(crate) fn compare<'a>(now: &'a Identities, log: &'a mut ChangeLog, whole: bool, mut each: impl FnMut(Changed<'a>)) {
    let is_new = log.is_new;
    let log: &'a [Touched] = log.settle();
    let mut held: Vec<(Identity, &Held)> = Vec::new();
    if whole || is_new {
        now.visit(None, |identity, was| held.push((identity, was)));
        let (mut held, mut log) = (held.as_slice(), log);
        while let Some(group) =
            held.first().map(|(identity, _)| identity.group()).into_iter().chain(log.first().map(|(i, _)| i.group())).min()
        {
            let last = group.retract();
            let (held_here, held_rest) = held.split_at(held.partition_point(|(identity, _)| *identity <= last));
            let (log_here, log_rest) = log.split_at(log.partition_point(|(identity, _)| *identity <= last));
            compare_group(last, held_here, log_here, now, is_new, &mut each);
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
        compare_group(retract, &held, group, now, false, &mut each);
    }
}

/// One (subject, kind): `held` is the current part to visit, `log` the touched part.
fn compare_group<'a>(
    retract: Identity,
    held: &[(Identity, &'a Held)],
    log: &'a [Touched],
    now: &'a Identities,
    is_new: bool,
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
        let mut before = if is_new { None } else { after };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kindred_model::records::InteractionKey;
    use kindred_model::{Kind, Owner, SessionId};
    use kindred_oracle::testing::Rng;

    use super::*;
    use crate::update::{InteractionUpdate, SubjectKey};

    fn update(rng: &mut Rng) -> InteractionUpdate {
        let subject = if rng.chance(80) {
            SubjectKey::Item(kindred_model::intern::Item::intern(&format!("owner-test-{}", 100 - rng.below(12))))
        } else {
            SubjectKey::Query(format!("owner test {}", 9 - rng.below(4)).into())
        };
        let kind = if matches!(subject, SubjectKey::Query(_)) {
            Kind::Search
        } else {
            *rng.pick(&[Kind::View, Kind::Purchase, Kind::Click])
        };
        let at = EventTime::MIN.0 + rng.below(4) as i64 * 86_400_000 + rng.below(3) as i64;
        let payload = if rng.chance(20) { vec![rng.below(3) as u8 + 1].into() } else { Box::default() };
        let party = kindred_model::intern::Party::intern(&Owner::Session(SessionId::trusted("owner-test")));
        let retract = rng.chance(15);
        let scenario = if kind == Kind::Click && !retract { *rng.pick(&["similar", "home", "basket"]) } else { "" };
        InteractionUpdate { party, subject, kind: kind.code(), retract, at, scenario: scenario.into(), payload }
    }

    /// Rows and visible times by definition, from all records so far.
    type State = BTreeMap<InteractionKey, (EventTime, Vec<u8>, Option<EventTime>)>;

    fn by_force(updates: &[InteractionUpdate], cap: usize) -> State {
        let mut greatest: BTreeMap<InteractionKey, (EventTime, Vec<u8>)> = BTreeMap::new();
        for update in updates {
            let value = (update.at(), update.payload.to_vec());
            let held = greatest.entry(Identity::of(update).key()).or_insert_with(|| value.clone());
            *held = value.max(held.clone());
        }
        let mut by_recency: Vec<_> = greatest.iter().map(|(key, (at, _))| (*at, key.clone())).collect();
        by_recency.sort();
        for (_, key) in by_recency.iter().rev().skip(cap) {
            greatest.remove(key);
        }
        let hidden_to = |key: &InteractionKey| {
            greatest.get(&InteractionKey { day: None, scenario: Box::default(), ..key.clone() }).map(|(at, _)| *at)
        };
        greatest
            .iter()
            .map(|(key, (at, payload))| {
                let shown = Some(*at).filter(|at| Some(*at) > hidden_to(key));
                (key.clone(), (*at, payload.clone(), shown))
            })
            .collect()
    }

    /// If this failed, an epoch's changes would be wrong, or an owner would keep other identities as a tree than as a vector. The
    /// changes, applied epoch after epoch, must equal brute force in both forms and across the switch.
    #[test]
    fn changes_add_up_to_what_brute_force_says() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let cap = [3, 8, 20, 1_000][(seed % 4) as usize];
            let few_max = [0, 6, 1_000][(seed % 3) as usize];
            let (mut now, mut all, mut state) = (Identities::default(), Vec::new(), State::new());
            for epoch in 0..12 {
                let mut log = if now.len() == 0 { ChangeLog::of_new_owner() } else { ChangeLog::default() };
                let mut records = Vec::new();
                for _ in 0..1 + rng.below(12) {
                    let update = update(&mut rng);
                    records.push((Identity::of(&update), Held { at: update.at(), payload: update.payload.clone().into() }));
                    all.push(update);
                }
                now.merge_all(&mut records, cap, few_max, &mut log);
                if rng.chance(10) {
                    for (identity, held) in now.drain() {
                        log.note(identity, Some(held));
                    }
                    all.clear();
                }
                let whole = rng.chance(20);
                compare(&now, &mut log, whole, |changed| {
                    let key = changed.identity.key();
                    let known = state.remove(&key);
                    let before = changed.before.map(|held| (held.at, held.payload.bytes().to_vec(), changed.shown_before));
                    assert_eq!(known, before, "seed {seed}, epoch {epoch}: what it was before");
                    if let Some(held) = changed.after {
                        state.insert(key, (held.at, held.payload.bytes().to_vec(), changed.shown_after));
                    }
                });
                assert_eq!(state, by_force(&all, cap), "seed {seed}, epoch {epoch}");
            }
        }
    }

    /// Bounds memory: two million identities are held in one process.
    #[test]
    fn an_identity_takes_24_bytes() {
        assert_eq!(size_of::<(Identity, Held)>(), 24);
        assert_eq!(size_of::<Identities>(), 24);
    }
}
