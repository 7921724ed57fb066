//! `interactions`: what an owner did with an item. Natural key (owner, item or normalised query, kind, UTC day of `at`), of an
//! impression and a click also the scenario; of a retract (owner, item or normalised query, kind). Merge: greatest (`at`, payload
//! bytes).

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::{Invalid, Text, bounded, from_json, required, text, word};
use crate::ids::{ID_BYTES_MAX, ItemId, MemberId, Owner, SessionId, check_id};
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

/// The remaining fields of an interaction. Their canonical bytes ([`Payload::canonical`]) break the tie of two records with equal
/// key and `at`, which can differ in nothing else.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Payload {
    /// The item found by a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemId>,
    /// The query as typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Box<str>>,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<f64>,
    /// The recommendation it came from: the response's `Kindred-Reco-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reco_id: Option<Box<str>>,
    /// Rank in the list shown, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// The generation that served the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Box<str>>,
    /// The scenario of the list, where it is not in the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Box<str>>,
    /// The owner's variant in an A/B test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<Box<str>>,
    /// The source within the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<str>>,
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

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    member: Option<Text<'a>>,
    #[serde(borrow)]
    session: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    item: Option<Text<'a>>,
    #[serde(borrow)]
    query: Option<Text<'a>>,
    #[serde(borrow)]
    at: Option<Text<'a>>,
    rating: Option<f64>,
    #[serde(borrow)]
    reco_id: Option<Text<'a>>,
    rank: Option<i64>,
    #[serde(borrow)]
    generation: Option<Text<'a>>,
    retract: Option<bool>,
    #[serde(borrow)]
    scenario: Option<Text<'a>>,
    #[serde(borrow)]
    variant: Option<Text<'a>>,
    #[serde(borrow)]
    source: Option<Text<'a>>,
}

#[derive(Serialize)]
struct Out<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a MemberId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a SessionId>,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a ItemId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    at: EventTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reco_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retract: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

impl Interaction {
    /// Decodes and validates one JSON object.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw: Raw = from_json(bytes)?;
        let owner = match (raw.member, raw.session) {
            (Some(member), None) => Owner::Member(MemberId::parse(&member)?),
            (None, Some(session)) => Owner::Session(SessionId::parse(&session)?),
            (None, None) => return Err(Invalid::new("member", "is required, or a session in its place")),
            (Some(_), Some(_)) => {
                return Err(Invalid::new("session", "must not stand beside a member: an interaction has one owner"));
            }
        };
        let kind: Kind = word("kind", &required("kind", raw.kind)?)?;
        let at = EventTime::parse("at", &required("at", raw.at)?)?;
        let item = raw.item.as_deref().map(ItemId::parse).transpose()?;
        let query = text("query", raw.query, QUERY_BYTES_MAX)?;
        let mut payload = Payload::default();
        let subject = if kind == Kind::Search {
            let query = required("query", query)?;
            let normalised = normalise_query(&query);
            if normalised.is_empty() {
                return Err(Invalid::new("query", "must not be empty"));
            }
            payload.item = item;
            payload.query = Some(query);
            Subject::Query(normalised)
        } else {
            if query.is_some() {
                return Err(Invalid::new("query", "belongs to a search only"));
            }
            Subject::Item(required("item", item)?)
        };
        if let Some(rating) = raw.rating {
            if !(0.0..=RATING_MAX).contains(&rating) {
                return Err(Invalid::new("rating", format!("is {rating}; from 0 to {RATING_MAX} is accepted")));
            }
            // Normalizes -0: one number, one canonical form.
            payload.rating = Some(rating + 0.0);
        }
        if let Some(reco_id) = raw.reco_id {
            check_id("reco_id", &reco_id)?;
            payload.reco_id = Some(reco_id.into());
        }
        if let Some(rank) = raw.rank {
            payload.rank = Some(u32::try_from(bounded("rank", rank, 1, 10_000)?).expect("bounded"));
        }
        if let Some(generation) = raw.generation {
            check_id("generation", &generation)?;
            payload.generation = Some(generation.into());
        }
        let name = |field: &str, value: Option<Text<'_>>| -> Result<Option<Box<str>>, Invalid> {
            value.map(|text| check_id(field, &text).map(|()| text.into())).transpose()
        };
        payload.scenario = name("scenario", raw.scenario)?;
        payload.variant = name("variant", raw.variant)?;
        payload.source = name("source", raw.source)?;
        Ok(Self::new(owner, subject, kind, at, raw.retract.unwrap_or(false), payload))
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

    /// The record as JSON, fields in the order of the schema.
    pub fn to_json(&self) -> Vec<u8> {
        let (item, query) = match &self.subject {
            Subject::Item(item) => (Some(item), None),
            // A search restored from its merged input always has the query as typed.
            Subject::Query(normalised) => (self.payload.item.as_ref(), Some(self.payload.query.as_deref().unwrap_or(normalised))),
        };
        let (member, session) = match &self.owner {
            Owner::Member(member) => (Some(member), None),
            Owner::Session(session) => (None, Some(session)),
            Owner::Guest(order) => unreachable!("order {order} as the owner of an interaction"),
        };
        let payload = &self.payload;
        let in_key = Some(&*self.scenario).filter(|scenario| !scenario.is_empty() && *scenario != SCENARIO);
        let out = Out {
            member,
            session,
            kind: self.kind,
            item,
            query,
            at: self.at,
            rating: payload.rating,
            reco_id: payload.reco_id.as_deref(),
            rank: payload.rank,
            generation: payload.generation.as_deref(),
            retract: self.retract,
            scenario: in_key.or(payload.scenario.as_deref()),
            variant: payload.variant.as_deref(),
            source: payload.source.as_deref(),
        };
        serde_json::to_vec(&out).expect("an interaction serialises")
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
