//! The subject of an interaction in 8 bytes: interned item or query, kind and day. An item shown in a scenario has its own
//! number, so that identities without a scenario, nearly all, pay nothing for it.
//!
//! Like the model's interner, the tables only grow while the process lives, and their numbers never leave it.

use std::cmp::Ordering;
use std::sync::LazyLock;

use kindred_model::intern::{Interner, Item};
use kindred_model::records::{InteractionKey, SCENARIO, Subject};
use kindred_model::{Day, EventTime, Kind};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::update::{InteractionUpdate, SubjectKey};

static QUERIES: Interner = Interner::empty();

/// Items shown in another scenario than [`SCENARIO`].
#[derive(Default)]
struct Shown {
    numbers: FxHashMap<(u32, &'static str), u32>,
    entries: Vec<(Item, &'static str)>,
    scenarios: FxHashMap<&'static str, &'static str>,
}

static SHOWN_ITEMS: LazyLock<RwLock<Shown>> = LazyLock::new(RwLock::default);

/// An interned item or query, or an item in a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SubjectId(u32);

/// Bit set in the numbers of queries.
const QUERY: u32 = 1 << 31;
/// Bit set in the numbers of items in a scenario.
const SHOWN: u32 = 1 << 30;

impl SubjectId {
    pub fn intern(subject: &SubjectKey) -> Self {
        match subject {
            SubjectKey::Item(item) => Self::of_item(*item),
            SubjectKey::Query(query) => {
                let number = QUERIES.intern(query);
                assert!(number < SHOWN, "fewer than 2^30 queries a process");
                Self(number | QUERY)
            }
        }
    }

    fn of_item(item: Item) -> Self {
        assert!(item.number() < SHOWN, "fewer than 2^30 items a process");
        Self(item.number())
    }

    /// The same item in a scenario.
    fn shown(self, scenario: &str) -> Self {
        if scenario.is_empty() || scenario == SCENARIO || self.is_query() {
            return self;
        }
        let find =
            |shown: &Shown| shown.scenarios.get(scenario).and_then(|scenario| shown.numbers.get(&(self.0, *scenario)).copied());
        if let Some(number) = find(&SHOWN_ITEMS.read()) {
            return Self(number | SHOWN);
        }
        let mut shown = SHOWN_ITEMS.write();
        if let Some(number) = find(&shown) {
            return Self(number | SHOWN);
        }
        let text = match shown.scenarios.get(scenario) {
            Some(text) => *text,
            None => {
                let text: &'static str = Box::leak(scenario.into());
                shown.scenarios.insert(text, text);
                text
            }
        };
        let number = u32::try_from(shown.entries.len()).ok().filter(|number| *number < SHOWN);
        let number = number.expect("fewer than 2^30 items in scenarios a process");
        shown.entries.push((Item::from_number(self.0), text));
        shown.numbers.insert((self.0, text), number);
        Self(number | SHOWN)
    }

    const fn is_query(self) -> bool {
        self.0 & QUERY != 0
    }

    const fn is_shown(self) -> bool {
        self.0 & (QUERY | SHOWN) == SHOWN
    }

    /// The item without its scenario, and the scenario.
    fn split(self) -> (Self, &'static str) {
        if !self.is_shown() {
            return (self, SCENARIO);
        }
        let (item, scenario) = SHOWN_ITEMS.read().entries[(self.0 & !SHOWN) as usize];
        (Self(item.number()), scenario)
    }

    pub fn item(self) -> Option<Item> {
        (!self.is_query()).then(|| Item::from_number(self.split().0.0))
    }

    fn text(self) -> &'static str {
        match self.item() {
            Some(item) => item.as_str(),
            None => QUERIES.text(self.0 & !QUERY),
        }
    }

    /// The order of [`Subject`]: items before queries, each by bytes.
    fn by_text(self, other: Self) -> Ordering {
        if self == other {
            return Ordering::Equal;
        }
        self.is_query().cmp(&other.is_query()).then_with(|| self.text().cmp(other.text()))
    }
}

/// An interaction's natural key within its owner: subject, kind, day or retract, and scenario. Ordered to group by (subject,
/// kind), days ascending and the retract last; [`Identity::by_text`] is the order of [`InteractionKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Identity {
    subject: SubjectId,
    /// The kind's code, then the day in 24 bits.
    slot: u32,
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> Ordering {
        if !self.subject.is_shown() && !other.subject.is_shown() {
            return (self.subject.0, self.slot).cmp(&(other.subject.0, other.slot));
        }
        let ((subject, scenario), (other_subject, other_scenario)) = (self.subject.split(), other.subject.split());
        (subject.0, self.slot, scenario).cmp(&(other_subject.0, other.slot, other_scenario))
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

const DAY_BITS: u32 = 24;
const RETRACT: u32 = (1 << DAY_BITS) - 1;

impl Identity {
    pub fn of(update: &InteractionUpdate) -> Self {
        // The accepted years lie between 1970 and 2^24 days later.
        let day = if update.retract { RETRACT } else { update.at().day().0 as u32 & RETRACT };
        let subject = SubjectId::intern(&update.subject).shown(&update.scenario);
        Self { subject, slot: (u32::from(update.kind) << DAY_BITS) | day }
    }

    pub fn kind(self) -> Kind {
        Kind::from_code((self.slot >> DAY_BITS) as u8).expect("the code of a kind")
    }

    pub const fn is_retract(self) -> bool {
        self.slot & RETRACT == RETRACT
    }

    /// The retract that may hide this identity: the last of its group.
    pub fn retract(self) -> Self {
        Self { subject: self.subject.split().0, slot: self.slot | RETRACT }
    }

    /// The least identity of its group.
    pub fn group(self) -> Self {
        Self { subject: self.subject.split().0, slot: self.slot & !RETRACT }
    }

    /// The item of a fact; `None` for searches and retracts.
    pub fn fact_item(self) -> Option<Item> {
        if self.is_retract() || self.kind() == Kind::Search { None } else { self.subject.item() }
    }

    /// The order of [`InteractionKey`], independent of interned numbers.
    pub fn by_text(self, other: Self) -> Ordering {
        let ((subject, scenario), (other_subject, other_scenario)) = (self.subject.split(), other.subject.split());
        subject.by_text(other_subject).then(self.slot.cmp(&other.slot)).then_with(|| scenario.cmp(other_scenario))
    }

    /// The key of its row.
    pub fn key(self) -> InteractionKey {
        let subject = match self.subject.item() {
            Some(item) => Subject::Item(item.id()),
            None => Subject::Query(self.subject.text().into()),
        };
        let day = (!self.is_retract()).then_some(Day((self.slot & RETRACT) as i32));
        let has_scenario = self.kind().is_of_a_list() && day.is_some();
        let scenario = if has_scenario { self.subject.split().1.into() } else { Box::default() };
        InteractionKey { subject, kind: self.kind(), day, scenario }
    }
}

/// An identity's place in the order of the cap: by (`at`, identity).
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
