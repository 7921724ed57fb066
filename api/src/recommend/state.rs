//! The state of the serving memory: lists, supports, catalog, popularity and the sessions of members, updated by each applied
//! unit.
//!
//! ```text
//! EpochChanges ──decode (no lock)──▶ edits ──apply (write lock)──▶ State, version + 1
//! ```
//!
//! Every part carries the version that last changed it, so that a rendered body can be checked exactly.
//!
//! Items stand in chunks that are copied when they change while somebody holds them. So a pass over all items works on a copy of
//! [`Items`], which costs a microsecond, and holds up nobody; without one nothing is copied.
//!
//! Lists are most of the memory, so only they are bounded: beyond the limit the least recently used ones (second chance, Corbató
//! 1968) are read from the store on request.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kindred_model::codec::{Corrupt, KeyCodec, RowCodec, take_text, take_varint};
use kindred_model::records::{CatalogRecord, ItemKind, MemberRecord, MemberState, Visibility};
use kindred_model::views::also_bought::{Lists, Supports};
use kindred_model::views::inputs::{Catalog, Members};
use kindred_model::views::popularity::Popularity;
use kindred_model::views::{ReadError, Rows, Table};
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, Owner, SessionId, Tier};
use kindred_store::Change;

use super::ranking::{DAYS_DEFAULT, Days, KIND_DEFAULT, Ranked, Rankings, in_window};
use super::visibility::{MemberFacts, Sight};
use crate::context::MemoryConfig;

/// The followed tables. Lists come last, when all their items are known.
pub const TABLES: &[&str] = &[Supports::NAME, Catalog::NAME, Popularity::NAME, Members::NAME, Lists::NAME];

/// The part of a catalog record that answers need.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Card {
    pub kind: ItemKind,
    pub title: Box<str>,
    pub url: Option<Box<str>>,
    pub image: Option<Box<str>>,
    pub price_minor: Option<i64>,
    /// Every prefix of the category path joined by `/`, shortest first.
    pub categories: Box<[Arc<str>]>,
    pub tags: Box<[Box<str>]>,
    pub visibility: Visibility,
    pub listed_at: Option<EventTime>,
    /// Whether an answer may offer it to those who may see it.
    pub offered: bool,
}

impl Card {
    fn of(record: CatalogRecord) -> Self {
        let mut categories: Vec<Arc<str>> = Vec::with_capacity(record.category.len());
        for label in &record.category {
            categories.push(match categories.last() {
                Some(wider) => format!("{wider}/{label}").into(),
                None => (**label).into(),
            });
        }
        Self {
            kind: record.kind,
            visibility: record.visibility(),
            listed_at: record.listed_at,
            offered: record.is_offered(),
            tags: record.tags.into(),
            title: record.title,
            url: record.url,
            image: record.image,
            price_minor: record.price_minor,
            categories: categories.into(),
        }
    }
}

/// One item.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub id: Arc<str>,
    /// n: the baskets that hold it.
    pub support: u64,
    /// The version that last changed its list.
    pub list_changed: u64,
    /// The version that last changed `support` or `card`.
    pub changed: u64,
    pub card: Option<Arc<Card>>,
    pub days: Days,
    /// The sum of [`KIND_DEFAULT`] over the window; ranked if offered.
    recent: u64,
}

impl Entry {
    /// Whether it exists and is available; true without a record.
    pub fn is_offered(&self) -> bool {
        self.card.as_ref().is_none_or(|card| card.offered)
    }

    /// Whether the shop's own records name it: a catalog record, or orders.
    pub fn is_sold(&self) -> bool {
        self.card.is_some() || self.support > 0 || self.recent > 0
    }

    /// Its owners over the window, as ranked; 0: unranked.
    pub fn ranked(&self) -> u64 {
        self.ranked_with(self.recent)
    }

    fn ranked_with(&self, recent: u64) -> u64 {
        if self.is_offered() { recent } else { 0 }
    }

    /// Moves it in the rankings from one sum to another.
    fn move_in(&self, rankings: &mut Rankings, index: u32, from: u64, to: u64, version: u64) {
        let card = self.card.as_deref();
        let item = Ranked {
            id: &self.id,
            index,
            visibility: card.map_or(Visibility::Public, |card| card.visibility),
            categories: card.map_or(&[], |card| &card.categories),
        };
        rankings.moved(&item, from, to, version);
    }
}

/// Items of a chunk: few enough to be copied in microseconds.
const CHUNK: usize = 256;

/// All items, by index. A clone shares the chunks until they change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items {
    /// Full, but for the last.
    chunks: Vec<Arc<Vec<Entry>>>,
    /// Items with a catalog record.
    cards: usize,
}

/// What a day changes: the sums and rankings of its window.
pub(crate) struct Turn {
    today: Day,
    recents: Vec<u64>,
    rankings: Rankings,
}

impl Items {
    /// An item by its index.
    pub fn get(&self, index: u32) -> &Entry {
        let index = index as usize;
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    fn get_mut(&mut self, index: u32) -> &mut Entry {
        let index = index as usize;
        &mut Arc::make_mut(&mut self.chunks[index / CHUNK])[index % CHUNK]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut())
    }

    fn push(&mut self, entry: Entry) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(entry),
            _ => self.chunks.push(Arc::new(vec![entry])),
        }
    }

    /// Whether the shop has the item: in the catalog or in an order. Without a catalog, any item.
    pub fn is_sold(&self, entry: Option<&Entry>) -> bool {
        self.cards == 0 || entry.is_some_and(Entry::is_sold)
    }

    /// The sums and rankings of the window that ends with a day, as of a version. A pass over all items.
    pub fn turn(&self, today: Day, version: u64) -> Turn {
        let mut rankings = Rankings::emptied(version);
        let recents = self.iter().zip(0..).map(|(entry, index)| {
            let recent = entry.days.sum(KIND_DEFAULT, today, DAYS_DEFAULT);
            entry.move_in(&mut rankings, index, 0, entry.ranked_with(recent), version);
            recent
        });
        let recents = recents.collect();
        Turn { today, recents, rankings }
    }
}

/// A list in memory.
#[derive(Debug)]
struct Held {
    /// Its stored row of `also_bought`, decoded when rendered; empty if there is none. `None`: only in the store.
    row: Option<Box<[u8]>>,
    /// It was read since the clock hand last passed.
    used: AtomicBool,
}

/// One decoded change.
#[derive(Debug)]
pub(crate) enum Edit {
    List { item: Box<str>, row: Box<[u8]> },
    Support { item: Box<str>, support: u64 },
    Card { item: Box<str>, card: Option<Arc<Card>> },
    Owners { item: Box<str>, kind: Kind, day: Day, owners: u64 },
    Session { session: SessionId, member: Option<MemberId> },
    Member { member: MemberId, facts: Option<MemberFacts> },
}

/// Decodes a row of one of [`TABLES`]; `None` if the memory does not need it.
pub(crate) fn decode(table: &str, mut key: &[u8], row: Option<&[u8]>) -> Result<Option<Edit>, Corrupt> {
    let item = |key: &mut &[u8]| Ok::<Box<str>, Corrupt>(take_text(key)?.into());
    Ok(Some(if table == Lists::NAME {
        Edit::List { item: item(&mut key)?, row: row.unwrap_or_default().into() }
    } else if table == Supports::NAME {
        Edit::Support { item: item(&mut key)?, support: row.map_or(Ok(0), u64::decode)? }
    } else if table == Popularity::NAME {
        let (item, kind, day) = <(ItemId, Kind, Day)>::from_bytes(key)?;
        Edit::Owners { item: item.as_str().into(), kind, day, owners: row.map_or(Ok(0), u64::decode)? }
    } else if table == Catalog::NAME {
        let record = row.map(CatalogRecord::decode).transpose().map_err(|_| Corrupt("a catalog record that does not decode"))?;
        Edit::Card { item: item(&mut key)?, card: record.map(|record| Arc::new(Card::of(record))) }
    } else if table == Members::NAME {
        let record = row.map(MemberRecord::decode).transpose().map_err(|_| Corrupt("a member record that does not decode"))?;
        match Owner::from_bytes(key)? {
            Owner::Session(session) => {
                let member = match record {
                    Some(MemberRecord::Session { merged_into, .. }) => Some(merged_into),
                    _ => None,
                };
                Edit::Session { session, member }
            }
            Owner::Guest(_) => return Err(Corrupt("a guest's order among members")),
            Owner::Member(member) => {
                let facts = match record {
                    Some(MemberRecord::Member(held)) if held.state == MemberState::Activated => {
                        Some(MemberFacts { tier: held.tier.unwrap_or(Tier::Normal), registered_at: held.registered_at })
                    }
                    _ => None,
                };
                Edit::Member { member, facts }
            }
        }
    } else {
        return Ok(None);
    }))
}

/// Decodes the changes of a unit; a corrupt row is logged and skipped.
pub(crate) fn decode_changes(changes: &[Change]) -> Vec<Edit> {
    let mut edits = Vec::new();
    for change in changes.iter().filter(|change| TABLES.contains(&change.table)) {
        match decode(change.table, &change.key, change.row.as_deref()) {
            Ok(edit) => edits.extend(edit),
            Err(corrupt) => tracing::error!(table = change.table, "corrupt row in a change: {corrupt}"),
        }
    }
    edits
}

/// The size of the lists in memory, and the clock hand.
#[derive(Debug)]
struct Room {
    bytes: usize,
    most: usize,
    /// The next candidate for eviction.
    hand: usize,
}

/// The state of the serving memory.
#[derive(Debug)]
pub(crate) struct State {
    /// Incremented with each change; private to the process.
    pub version: u64,
    index: HashMap<Arc<str>, u32>,
    pub items: Items,
    /// The lists of the items, by index.
    lists: Vec<Held>,
    /// B: the number of baskets.
    pub baskets: u64,
    /// The version that last changed `baskets`.
    pub baskets_changed: u64,
    pub rankings: Rankings,
    /// The last day of the window of the rankings.
    pub today: Day,
    member_of: HashMap<SessionId, MemberId>,
    sessions_of: HashMap<MemberId, BTreeSet<SessionId>>,
    /// Members who see more or less than the default.
    member_facts: HashMap<MemberId, MemberFacts>,
    config: MemoryConfig,
    room: Room,
}

impl State {
    /// Empty.
    pub fn empty(today: Day, config: MemoryConfig) -> Self {
        Self {
            version: 0,
            index: HashMap::new(),
            items: Items::default(),
            lists: Vec::new(),
            baskets: 0,
            baskets_changed: 0,
            rankings: Rankings::default(),
            today,
            member_of: HashMap::new(),
            sessions_of: HashMap::new(),
            member_facts: HashMap::new(),
            config,
            room: Room { bytes: 0, most: usize::try_from(config.lists_bytes_max).unwrap_or(usize::MAX), hand: 0 },
        }
    }

    /// Loads all rows; of lists, as many as fit.
    pub fn read(&mut self, rows: &dyn Rows) -> Result<(), ReadError> {
        let mut full = false;
        for table in TABLES {
            rows.scan(table, &[], &mut |key, row| match decode(table, key, Some(row)) {
                Ok(Some(Edit::List { row, .. })) if self.room.bytes + row.len() > self.room.most => {
                    full = true;
                    ControlFlow::Break(Ok(()))
                }
                Ok(edit) => {
                    edit.into_iter().for_each(|edit| self.edit(edit));
                    ControlFlow::Continue(())
                }
                Err(corrupt) => ControlFlow::Break(Err(corrupt.into())),
            })?;
        }
        if full {
            // Items without a list may have one in the store.
            self.lists.iter_mut().for_each(|held| held.row = held.row.take().filter(|row| !row.is_empty()));
        }
        Ok(())
    }

    /// An empty state with the same item indices, which rendered bodies refer to.
    pub fn emptied(&self) -> Self {
        let mut empty = Self { version: self.version, ..Self::empty(self.today, self.config) };
        for entry in self.items.iter() {
            empty.intern(&entry.id);
        }
        empty
    }

    /// Sets version and day of everything.
    pub fn stamp(&mut self, version: u64, today: Day) {
        self.version = version;
        self.baskets_changed = version;
        for entry in self.items.iter_mut() {
            entry.list_changed = version;
            entry.changed = version;
        }
        self.set_day(today);
    }

    /// The index of a known item.
    pub fn find(&self, item: &str) -> Option<u32> {
        self.index.get(item).copied()
    }

    /// An item by its index.
    pub fn item(&self, index: u32) -> &Entry {
        self.items.get(index)
    }

    /// The sessions of a member.
    pub fn sessions(&self, member: &MemberId) -> Vec<SessionId> {
        self.sessions_of.get(member).into_iter().flatten().cloned().collect()
    }

    /// What a member may see.
    pub fn sight(&self, member: &MemberId) -> Sight {
        Sight::of_member(self.member_facts.get(member).copied(), self.config.strict_listed_after)
    }

    fn intern(&mut self, item: &str) -> u32 {
        if let Some(index) = self.find(item) {
            return index;
        }
        let id: Arc<str> = item.into();
        let index = u32::try_from(self.lists.len()).expect("fewer than 2^32 items fit into memory");
        self.items.push(Entry {
            id: id.clone(),
            support: 0,
            list_changed: self.version,
            changed: self.version,
            card: None,
            days: Days::default(),
            recent: 0,
        });
        self.lists.push(Held { row: Some(Box::default()), used: AtomicBool::new(false) });
        self.index.insert(id, index);
        index
    }

    /// Applies one change under the current version. Idempotent but for versions.
    pub fn edit(&mut self, edit: Edit) {
        let version = self.version;
        match edit {
            Edit::List { item, row } => {
                let index = self.intern(&item);
                self.items.get_mut(index).list_changed = version;
                // A list outside of memory is current in the store: rows are published once readable.
                if self.lists[index as usize].row.is_some() {
                    self.cache(index, row);
                }
            }
            Edit::Support { item, support } if item.is_empty() => {
                self.baskets = support;
                self.baskets_changed = version;
            }
            Edit::Support { item, support } => {
                let index = self.intern(&item);
                let entry = self.items.get_mut(index);
                entry.support = support;
                entry.changed = version;
            }
            Edit::Card { item, card } => {
                let index = self.intern(&item);
                let before = &self.items.get(index).card;
                if *before == card {
                    return;
                }
                self.items.cards = self.items.cards + usize::from(card.is_some()) - usize::from(before.is_some());
                let entry = self.items.get_mut(index);
                entry.move_in(&mut self.rankings, index, entry.ranked(), 0, version);
                entry.card = card;
                entry.changed = version;
                entry.move_in(&mut self.rankings, index, 0, entry.ranked(), version);
            }
            Edit::Owners { item, kind, day, owners } => {
                let index = self.intern(&item);
                let entry = self.items.get_mut(index);
                let before = entry.days.set(kind, day, owners);
                if kind == KIND_DEFAULT && in_window(day, self.today) {
                    let ranked = entry.ranked();
                    entry.recent = (entry.recent + owners).saturating_sub(before);
                    entry.move_in(&mut self.rankings, index, ranked, entry.ranked(), version);
                }
            }
            Edit::Session { session, member } => {
                if let Some(before) = self.member_of.remove(&session)
                    && let Some(sessions) = self.sessions_of.get_mut(&before)
                {
                    sessions.remove(&session);
                    if sessions.is_empty() {
                        self.sessions_of.remove(&before);
                    }
                }
                if let Some(member) = member {
                    self.sessions_of.entry(member.clone()).or_default().insert(session.clone());
                    self.member_of.insert(session, member);
                }
            }
            Edit::Member { member, facts } => {
                // Without an entry a member has the default visibility, which the free tier has too unless strict.
                let differs = |facts: &MemberFacts| facts.tier != Tier::Normal || self.config.strict_listed_after;
                match facts.filter(differs) {
                    Some(facts) => self.member_facts.insert(member, facts),
                    None => self.member_facts.remove(&member),
                };
            }
        }
    }

    /// Clears the views' own tables under the current version; the merged inputs stay.
    pub fn clear_views(&mut self) {
        self.room.bytes = 0;
        self.lists.iter_mut().for_each(|held| held.row = Some(Box::default()));
        for entry in self.items.iter_mut() {
            entry.list_changed = self.version;
            entry.support = 0;
            entry.changed = self.version;
            entry.days = Days::default();
        }
        self.baskets = 0;
        self.baskets_changed = self.version;
        self.set_day(self.today);
    }

    /// Moves the window of the rankings, under the current version.
    pub fn set_day(&mut self, today: Day) {
        self.turn(self.items.turn(today, self.version));
    }

    /// As [`State::set_day`], with what was computed aside from the same items.
    pub fn turn(&mut self, Turn { today, recents, rankings }: Turn) {
        (self.today, self.rankings) = (today, rankings);
        for (index, recent) in (0..).zip(recents) {
            if self.items.get(index).recent != recent {
                self.items.get_mut(index).recent = recent;
            }
        }
    }

    /// The row of an item, if in memory.
    pub fn row(&self, index: u32) -> Option<&[u8]> {
        let held = &self.lists[index as usize];
        // Written only if it changes: reads are concurrent.
        if !held.used.load(Ordering::Relaxed) {
            held.used.store(true, Ordering::Relaxed);
        }
        held.row.as_deref()
    }

    /// Caches a row read from the store; false if the list has changed since `list_changed`, as the row may be stale.
    pub fn cache_row(&mut self, index: u32, list_changed: u64, row: Box<[u8]>) -> bool {
        let current = self.item(index).list_changed == list_changed;
        if current && self.lists[index as usize].row.is_none() {
            self.cache(index, row);
        }
        current
    }

    /// Bytes of lists in memory.
    pub fn held_bytes(&self) -> usize {
        self.room.bytes
    }

    /// Caches a row and evicts others if necessary.
    fn cache(&mut self, index: u32, row: Box<[u8]>) {
        self.room.bytes += row.len();
        if let Some(before) = self.lists[index as usize].row.replace(row) {
            self.room.bytes -= before.len();
        }
        // Two rounds give every other list its second chance.
        for _ in 0..2 * self.lists.len() {
            if self.room.bytes <= self.room.most {
                return;
            }
            let at = self.room.hand;
            self.room.hand = (at + 1) % self.lists.len();
            let held = &mut self.lists[at];
            // The row itself is about to be rendered.
            if at == index as usize || *held.used.get_mut() {
                *held.used.get_mut() = false;
            } else if let Some(list) = held.row.take_if(|list| !list.is_empty()) {
                self.room.bytes -= list.len();
            }
        }
    }
}

/// The neighbours in a row: (id, c), in order.
pub(super) fn neighbors(mut row: &[u8]) -> Result<Vec<(&str, u64)>, Corrupt> {
    let mut neighbors = Vec::with_capacity(50);
    while !row.is_empty() {
        let item = take_text(&mut row)?;
        neighbors.push((item, take_varint(&mut row)?));
    }
    Ok(neighbors)
}
