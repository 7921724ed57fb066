//! What interactions are about, in 8 bytes: interned items and queries, kind and day.
//!
//! Like the model's interner, the table of queries only grows as long as the process lives, and its numbers never leave it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

use kindred_model::intern::Item;
use kindred_model::records::{InteractionKey, Subject};
use kindred_model::{Day, EventTime, Kind};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::update::{InteractionUpdate, SubjectKey};

#[derive(Default)]
struct Queries {
    numbers: FxHashMap<&'static str, u32>,
    texts: Vec<&'static str>,
}

static QUERIES: LazyLock<RwLock<Queries>> =
    LazyLock::new(|| RwLock::new(Queries { numbers: HashMap::default(), texts: Vec::new() }));

/// An interned item or query. Its derived order groups; [`SubjectId::by_text`] ranks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SubjectId(u32);

/// Set in the numbers of queries.
const QUERY: u32 = 1 << 31;

impl SubjectId {
    pub fn intern(subject: &SubjectKey) -> Self {
        match subject {
            SubjectKey::Item(item) => {
                assert!(item.number() < QUERY, "fewer than 2^31 items a process");
                Self(item.number())
            }
            SubjectKey::Query(query) => {
                if let Some(&number) = QUERIES.read().numbers.get(&**query) {
                    return Self(number | QUERY);
                }
                let mut queries = QUERIES.write();
                if let Some(&number) = queries.numbers.get(&**query) {
                    return Self(number | QUERY);
                }
                let number = u32::try_from(queries.texts.len()).ok().filter(|number| *number < QUERY);
                let number = number.expect("fewer than 2^31 queries a process");
                let text: &'static str = Box::leak(query.clone());
                queries.texts.push(text);
                queries.numbers.insert(text, number);
                Self(number | QUERY)
            }
        }
    }

    pub fn item(self) -> Option<Item> {
        (self.0 & QUERY == 0).then(|| Item::from_number(self.0))
    }

    fn text(self) -> &'static str {
        match self.item() {
            Some(item) => item.as_str(),
            None => QUERIES.read().texts[(self.0 & !QUERY) as usize],
        }
    }

    /// The order of [`Subject`]: items before queries, each by bytes.
    fn by_text(self, other: Self) -> Ordering {
        if self == other {
            return Ordering::Equal;
        }
        (self.0 & QUERY).cmp(&(other.0 & QUERY)).then_with(|| self.text().cmp(other.text()))
    }
}

/// An interaction's natural key within its owner: subject, kind, and day or retract. Its derived order groups by (subject, kind),
/// days ascending and the retract last; [`Identity::by_text`] is the order of [`InteractionKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Identity {
    pub subject: SubjectId,
    /// The kind's code, then the day in 24 bits.
    slot: u32,
}

const DAY_BITS: u32 = 24;
const RETRACT: u32 = (1 << DAY_BITS) - 1;

impl Identity {
    pub fn of(update: &InteractionUpdate) -> Self {
        // The accepted years lie after 1970 and before 2^24 days.
        let day = if update.retract { RETRACT } else { update.at().day().0 as u32 & RETRACT };
        Self { subject: SubjectId::intern(&update.subject), slot: (u32::from(update.kind) << DAY_BITS) | day }
    }

    pub fn kind(self) -> Kind {
        Kind::from_code((self.slot >> DAY_BITS) as u8).expect("the code of a kind")
    }

    pub const fn is_retract(self) -> bool {
        self.slot & RETRACT == RETRACT
    }

    /// The retract that speaks about this identity: the last of its group.
    pub const fn retract(self) -> Self {
        Self { slot: self.slot | RETRACT, ..self }
    }

    /// The least identity of its group.
    pub const fn group(self) -> Self {
        Self { slot: self.slot & !RETRACT, ..self }
    }

    /// The item of a fact: none of searches and retracts.
    pub fn fact_item(self) -> Option<Item> {
        if self.is_retract() || self.kind() == Kind::Search { None } else { self.subject.item() }
    }

    /// The order of [`InteractionKey`], whatever the numbers are.
    pub fn by_text(self, other: Self) -> Ordering {
        self.subject.by_text(other.subject).then(self.slot.cmp(&other.slot))
    }

    /// The key of its row.
    pub fn key(self) -> InteractionKey {
        let subject = match self.subject.item() {
            Some(item) => Subject::Item(item.id()),
            None => Subject::Query(self.subject.text().into()),
        };
        let day = (!self.is_retract()).then_some(Day((self.slot & RETRACT) as i32));
        InteractionKey { subject, kind: self.kind(), day }
    }
}

/// Where an identity stands in its owner's order of recency: by (`at`, identity), the order of the cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recency {
    pub at: EventTime,
    pub identity: Identity,
}

impl Ord for Recency {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at).then_with(|| self.identity.by_text(other.identity))
    }
}

impl PartialOrd for Recency {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
