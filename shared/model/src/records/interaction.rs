//! `interactions`: what an owner did with an item. Natural key (owner, item or normalised query, kind, UTC day of `at`), of an
//! impression and a click also the scenario; of a retract (owner, item or normalised query, kind). Merge: greatest (`at`, payload
//! bytes).

use serde::ser::{Serialize, SerializeMap, Serializer};
use unicode_normalization::UnicodeNormalization;

use super::{Invalid, from_json, parsed, plain, record, text, within};
use crate::ids::{ID_BYTES_MAX, ItemId, MemberId, Owner, SessionId};
use crate::units::{Day, EventTime, Kind};

/// The longest query in bytes. No person types longer ones.
const QUERY_BYTES_MAX: usize = 512;
/// The greatest rating; fits scales up to percent.
const RATING_MAX: f64 = 100.0;
/// The default scenario of impressions and clicks.
pub const SCENARIO: &str = "similar";

/// The subject of an interaction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// An item.
    Item(ItemId),
    /// A search, by its normalised query ([`normalise_query`]).
    Query(Box<str>),
}

/// The natural key within an owner. Ordered by (subject, kind, day, scenario), a retract after the days it hides: of two
/// identities with one `at` the cap evicts the hidden one first, so the retract outlives what it hides.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InteractionKey {
    /// The item or the normalised query.
    pub subject: Subject,
    /// What was done.
    pub kind: Kind,
    /// The UTC day of `at`; `None` for a retract, which covers all days.
    pub day: Option<Day>,
    /// The scenario of an impression or a click ([`SCENARIO`] by default); empty for others and for retracts.
    pub scenario: Box<str>,
}

impl InteractionKey {
    /// Whether keys of this kind have a scenario.
    pub(crate) const fn has_scenario(kind: Kind, day: Option<Day>) -> bool {
        kind.is_of_a_list() && day.is_some()
    }
}

impl PartialOrd for InteractionKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InteractionKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let day = |key: &Self| (key.day.is_none(), key.day);
        (&self.subject, self.kind)
            .cmp(&(&other.subject, other.kind))
            .then_with(|| day(self).cmp(&day(other)))
            .then_with(|| self.scenario.cmp(&other.scenario))
    }
}

record! {
    /// The remaining fields of an interaction. Their canonical bytes ([`Payload::canonical`]) break the tie of two records with equal
    /// key and `at`, which can differ in nothing else.
    #[derive(Clone, PartialEq, Debug, Default)]
    pub struct Payload, raw Raw {
        /// The item found by a search.
        item: Option<ItemId>,
        /// The query as typed.
        query: Option<Box<str>> = text(QUERY_BYTES_MAX),
        /// 0 to 100.
        rating: Option<f64> = rating,
        /// The recommendation it came from: the response's `Kindred-Reco-Id`.
        reco_id: Option<Box<str>>,
        /// Rank in the list shown, from 1.
        rank: Option<u32> = within(1..=10_000),
        /// The generation that served the list.
        generation: Option<Box<str>>,
        /// The scenario of the list, where it is not in the key.
        scenario: Option<Box<str>>,
        /// The owner's variant in an A/B test.
        variant: Option<Box<str>>,
        /// The source within the scenario.
        source: Option<Box<str>>,
    }
    beside {
        member: MemberId,
        session: SessionId,
        kind: Kind,
        at: EventTime,
        retract: bool,
    }
}

fn rating(field: &str, rating: f64) -> Result<f64, Invalid> {
    if !(0.0..=RATING_MAX).contains(&rating) {
        return Err(Invalid::new(field, format!("is {rating}; from 0 to {RATING_MAX} is accepted")));
    }
    // Normalizes -0: one number, one canonical form.
    Ok(rating + 0.0)
}

impl Payload {
    /// The frozen encoding (version 1): JSON with the fields in this order, absent ones left out; empty without any.
    pub fn canonical(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        serde_json::to_vec(self).expect("a payload serialises")
    }
}

/// One interaction of an owner.
#[derive(Clone, PartialEq, Debug)]
pub struct Interaction {
    /// The owner.
    pub owner: Owner,
    /// The subject.
    pub subject: Subject,
    /// What was done.
    pub kind: Kind,
    /// When.
    pub at: EventTime,
    /// Retracts all of (owner, subject, kind) at or before `at`.
    pub retract: bool,
    /// As [`InteractionKey::scenario`].
    pub scenario: Box<str>,
    /// The remaining fields.
    pub payload: Payload,
}

impl Serialize for Interaction {
    /// The record, with its fields in the order of the schema.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let payload = &self.payload;
        let (item, query) = match &self.subject {
            Subject::Item(item) => (Some(item), None),
            // A search restored from its merged input always has the query as typed.
            Subject::Query(normalised) => (payload.item.as_ref(), Some(payload.query.as_deref().unwrap_or(normalised))),
        };
        let (member, session) = match &self.owner {
            Owner::Member(member) => (Some(member), None),
            Owner::Session(session) => (None, Some(session)),
            Owner::Guest(order) => unreachable!("order {order} as the owner of an interaction"),
        };
        let in_key = Some(&self.scenario).filter(|scenario| !scenario.is_empty() && ***scenario != *SCENARIO);
        let mut out = serializer.serialize_map(None)?;
        put(&mut out, "member", member)?;
        put(&mut out, "session", session)?;
        put(&mut out, "kind", Some(self.kind))?;
        put(&mut out, "item", item)?;
        put(&mut out, "query", query)?;
        put(&mut out, "at", Some(self.at))?;
        put(&mut out, "rating", payload.rating)?;
        put(&mut out, "reco_id", payload.reco_id.as_ref())?;
        put(&mut out, "rank", payload.rank)?;
        put(&mut out, "generation", payload.generation.as_ref())?;
        put(&mut out, "retract", self.retract.then_some(true))?;
        put(&mut out, "scenario", in_key.or(payload.scenario.as_ref()))?;
        put(&mut out, "variant", payload.variant.as_ref())?;
        put(&mut out, "source", payload.source.as_ref())?;
        out.end()
    }
}

fn put<M: SerializeMap>(out: &mut M, field: &str, value: Option<impl Serialize>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| out.serialize_entry(field, &value))
}

impl Interaction {
    /// Decodes and validates one JSON object.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut raw: Raw = from_json(bytes)?;
        let owner = match (raw.member.take(), raw.session.take()) {
            (Some(member), None) => Owner::Member(parsed("member", member)?),
            (None, Some(session)) => Owner::Session(parsed("session", session)?),
            (None, None) => return Err(Invalid::new("member", "is required, or a session in its place")),
            (Some(_), Some(_)) => {
                return Err(Invalid::new("session", "must not stand beside a member: an interaction has one owner"));
            }
        };
        let kind: Kind = plain("kind", raw.kind.take())?;
        let at = plain("at", raw.at.take())?;
        let retract = plain("retract", raw.retract)?;
        let mut payload = Payload::of(raw)?;
        let subject = if kind == Kind::Search {
            let normalised = normalise_query(payload.query.as_deref().ok_or_else(|| Invalid::required("query"))?);
            if normalised.is_empty() {
                return Err(Invalid::new("query", "must not be empty"));
            }
            Subject::Query(normalised)
        } else {
            if payload.query.is_some() {
                return Err(Invalid::new("query", "belongs to a search only"));
            }
            Subject::Item(payload.item.take().ok_or_else(|| Invalid::required("item"))?)
        };
        Ok(Self::new(owner, subject, kind, at, retract, payload))
    }

    /// An interaction with its scenario, if any, in its payload; for an impression or a click it moves to the key.
    pub fn new(owner: Owner, subject: Subject, kind: Kind, at: EventTime, retract: bool, mut payload: Payload) -> Self {
        let scenario = if InteractionKey::has_scenario(kind, (!retract).then(|| at.day())) {
            payload.scenario.take().unwrap_or_else(|| SCENARIO.into())
        } else {
            Box::default()
        };
        Self { owner, subject, kind, at, retract, scenario, payload }
    }

    /// The natural key within the owner.
    pub fn key(&self) -> InteractionKey {
        let day = (!self.retract).then(|| self.at.day());
        InteractionKey { subject: self.subject.clone(), kind: self.kind, day, scenario: self.scenario.clone() }
    }

    /// The record as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an interaction serialises")
    }
}

/// Normalises a query: NFKC, lower case, NFKC again, white space collapsed, cut to [`ID_BYTES_MAX`] bytes.
pub fn normalise_query(query: &str) -> Box<str> {
    // Before NFKC: removing characters afterwards could undo the order of marks.
    let shown = query.chars().filter(|c| c.is_whitespace() || !c.is_control());
    // NFKC again, because lower-casing İ appends a mark that may have to be reordered.
    let folded: String = shown.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    let mut normalised = folded.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut end = normalised.len().min(ID_BYTES_MAX);
    while !normalised.is_char_boundary(end) {
        end -= 1;
    }
    normalised.truncate(end);
    normalised.truncate(normalised.trim_end().len());
    normalised.into_boxed_str()
}
