//! The serving memory: what the store holds of lists, supports, catalog and popularity, moved forward with each unit, and the
//! rendered bodies beside it.
//!
//! ```text
//! store ──listener (the sink's thread)──▶ State (one lock) ──render──▶ bodies (cache) ──▶ answers, streams
//!                                           └──Published: version, position──▶ waiters, Kindred-As-Of
//! ```
//!
//! A hit costs no lock of the state: a body that was valid at the published version is what would be rendered. After a change a
//! body is checked once, part by part, and only rendered again when a part of it changed.

mod pages;
mod ranking;
mod render;
mod sight;
mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use kindred_clock::Clock;
use kindred_model::codec::{Corrupt, KeyCodec};
use kindred_model::records::CatalogRecord;
use kindred_model::settings::Semantics;
use kindred_model::views::also_bought::Lists;
use kindred_model::views::inputs::Catalog;
use kindred_model::views::{ReadError, Table};
use kindred_model::{Day, EventTime, ItemId, MemberId, Position, SessionId};
use kindred_store::{EpochChanges, Listen, Snapshot, StoreError, ViewStore};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::{Notify, watch};

pub(crate) use pages::{Categories, Cursor, Found, PageOptions, Product, Sort, Tags};
pub use ranking::{DAYS_DEFAULT, KIND_DEFAULT};
pub use render::{LIMIT_DEFAULT, LIMIT_MAX, ListOptions, PopularOptions, Rendered};
pub(crate) use render::{PopularList, SimilarList, etag_of};
pub use sight::Sight;
pub use state::TABLES;
use state::{Edit, State, decode_changes};

use crate::context::MemoryConfig;

/// How far the memory reaches.
#[derive(Debug)]
pub struct Published {
    /// Counts the changes of the memory.
    pub version: u64,
    /// How far the log is taken in.
    pub position: Position,
    /// The day that "today" is.
    pub today: Day,
    /// `Kindred-As-Of`: the position, and since when it is reached.
    pub as_of: HeaderValue,
}

impl Published {
    fn new(version: u64, position: Position, today: Day, now: EventTime) -> Self {
        let as_of = format!("{position}; time={now}");
        let as_of = HeaderValue::from_str(&as_of).expect("positions and times are ASCII");
        Self { version, position, today, as_of }
    }
}

/// Something about the store kept the memory from being loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store refused a listener or a snapshot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a list could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Its row does not decode.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// Its row is in the store alone, which did not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is served, in memory.
pub struct Memory {
    /// Where lists are that there is no room for.
    store: Arc<dyn ViewStore>,
    settings: Arc<Semantics>,
    generation: Box<str>,
    clock: Clock,
    state: RwLock<State>,
    published: ArcSwap<Published>,
    /// Told of every published version.
    moved: Notify,
    watches: RwLock<HashMap<Box<str>, watch::Sender<()>>>,
    bodies: moka::sync::Cache<Box<[u8]>, Arc<Rendered>>,
    /// What is told while the tables are still read; `None` once they are.
    early: Mutex<Option<Vec<Early>>>,
    /// The store was left with an unfinished unit: the next one brings every row of the views anew, and what it does not bring
    /// is no row any more.
    rows_come_anew: AtomicBool,
}

/// What was told before the memory was loaded.
enum Early {
    Unit(EpochChanges),
    Anew(Snapshot),
}

/// Tells a memory what the store says. Weak: the store keeps its listeners for good, the memory ends with its server.
struct Follower(Weak<Memory>);

impl Listen for Follower {
    fn unit(&self, unit: &EpochChanges) {
        let Some(memory) = self.0.upgrade() else { return };
        let mut early = memory.early.lock();
        match &mut *early {
            Some(told) => told.push(Early::Unit(unit.clone())),
            None => memory.take_in(unit),
        }
    }

    fn anew(&self, snapshot: Snapshot) -> Result<(), ReadError> {
        let Some(memory) = self.0.upgrade() else { return Ok(()) };
        let mut early = memory.early.lock();
        match &mut *early {
            Some(told) => {
                told.push(Early::Anew(snapshot));
                Ok(())
            }
            None => memory.reload(&snapshot),
        }
    }
}

/// A page of what is sold.
pub(crate) struct Page {
    /// The body.
    pub body: Vec<u8>,
    /// Where the next one begins.
    pub next_cursor: Option<String>,
    /// At least so far.
    pub published: Arc<Published>,
}

/// A list and how far it reaches.
pub struct Answer {
    /// The body.
    pub rendered: Arc<Rendered>,
    /// At least so far.
    pub published: Arc<Published>,
}

impl Memory {
    /// Reads the tables and follows the store from then on. Blocks for as long as the reading takes: about a million rows a second.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(
        store: Arc<dyn ViewStore>,
        settings: Arc<Semantics>,
        generation: &str,
        clock: Clock,
        config: MemoryConfig,
    ) -> Result<Arc<Self>, LoadError> {
        let now = clock.now();
        let memory = Arc::new(Self {
            store,
            settings,
            generation: generation.into(),
            state: RwLock::new(State::empty(now.day(), config)),
            published: ArcSwap::from_pointee(Published::new(0, Position::beginning(), now.day(), now)),
            moved: Notify::new(),
            watches: RwLock::default(),
            bodies: moka::sync::Cache::builder()
                .max_capacity(config.answers_bytes_max)
                .weigher(|_, rendered: &Arc<Rendered>| rendered.weight())
                .build(),
            early: Mutex::new(Some(Vec::new())),
            rows_come_anew: AtomicBool::new(false),
            clock,
        });
        let snapshot = memory.store.listen(Arc::new(Follower(Arc::downgrade(&memory))))?;
        let mut state = State::empty(now.day(), config);
        state.read(&*snapshot.rows)?;
        let mut early = memory.early.lock();
        memory.rows_come_anew.store(snapshot.frontier.unfinished, Ordering::Release);
        state.version = 1;
        state.turn_to(state.today);
        *memory.state.write() = state;
        memory.publish(&memory.state.read(), snapshot.frontier.position);
        for told in early.take().unwrap_or_default() {
            match told {
                Early::Unit(unit) => memory.take_in(&unit),
                Early::Anew(snapshot) => memory.reload(&snapshot)?,
            }
        }
        drop(early);
        Ok(memory)
    }

    /// Reads all tables anew beside what is served, and turns to them in one step: no answer mixes the two.
    pub(crate) fn reload(&self, snapshot: &Snapshot) -> Result<(), ReadError> {
        let mut fresh = self.state.read().emptied();
        fresh.read(&*snapshot.rows)?;
        let mut state = self.state.write();
        fresh.stamp(state.version + 1, state.today);
        *state = fresh;
        self.rows_come_anew.store(false, Ordering::Release);
        self.publish(&state, snapshot.frontier.position.clone());
        drop(state);
        self.moved.notify_waiters();
        // Any list may have changed; a stream sends its own only where it has.
        let watches: Vec<watch::Sender<()>> = self.watches.read().values().cloned().collect();
        for sender in watches {
            sender.send_replace(());
        }
        Ok(())
    }

    fn take_in(&self, unit: &EpochChanges) {
        let edits = decode_changes(&unit.changes);
        let watched = self.watched(&edits);
        let mut state = self.state.write();
        let anew = self.rows_come_anew.swap(false, Ordering::AcqRel);
        state.version += u64::from(anew || !edits.is_empty());
        if anew {
            state.forget_views();
        }
        for edit in edits {
            state.edit(edit);
        }
        self.publish(&state, unit.position.clone());
        drop(state);
        self.moved.notify_waiters();
        for sender in watched {
            sender.send_replace(());
        }
    }

    /// The watches of the lists that change.
    fn watched(&self, edits: &[Edit]) -> Vec<watch::Sender<()>> {
        let watches = self.watches.read();
        if watches.is_empty() {
            return Vec::new();
        }
        let changed = edits.iter().filter_map(|edit| match edit {
            Edit::List { item, .. } => watches.get(item),
            _ => None,
        });
        changed.cloned().collect()
    }

    /// Called with the state locked, so that versions are published in order.
    fn publish(&self, state: &State, position: Position) {
        self.published.store(Arc::new(Published::new(state.version, position, state.today, self.clock.now())));
    }

    /// How far it reaches now; "today" is the clock's.
    pub fn published(&self) -> Arc<Published> {
        let published = self.published.load_full();
        let today = self.clock.today();
        if published.today == today {
            return published;
        }
        let mut state = self.state.write();
        if state.today != today {
            state.version += 1;
            state.turn_to(today);
            let position = self.published.load().position.clone();
            self.publish(&state, position);
        }
        drop(state);
        self.published.load_full()
    }

    /// The list of an item. A hit costs about a microsecond; a list that is in the store alone, one read from there.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list(&self, item: &str, options: ListOptions) -> Result<Answer, ListError> {
        let published = self.published();
        let mut buffer = [0u8; BODY_KEY_BYTES_MAX];
        let key = body_key(item, options, &mut buffer);
        let cached = self.bodies.get(key);
        if let Some(rendered) = cached {
            if rendered.was_valid_at(published.version) {
                return Ok(Answer { rendered, published });
            }
            if rendered.is_valid(item, &self.state.read()) {
                return Ok(Answer { rendered, published });
            }
        }
        let rendered = Arc::new(self.render(item, options).await?);
        if rendered.cacheable {
            self.bodies.insert(key.into(), rendered.clone());
        }
        Ok(Answer { rendered, published })
    }

    async fn render(&self, item: &str, options: ListOptions) -> Result<Rendered, ListError> {
        let render = |state: &State, row: &[u8]| render::render(&self.settings, &self.generation, item, options, (state, row));
        loop {
            let (index, list_changed) = {
                let state = self.state.read();
                match state.find(item) {
                    None => return Ok(render(&state, &[])?),
                    Some(index) => match state.row(index) {
                        Some(row) => return Ok(render(&state, row)?),
                        None => (index, state.item(index).list_changed),
                    },
                }
            };
            let row = self.store.get(Lists::NAME, &ItemId::trusted(item.to_owned()).to_bytes()).await?.unwrap_or_default();
            metrics::counter!("api_lists_read_total").increment(1);
            let mut state = self.state.write();
            if state.found(index, list_changed, row.as_slice().into()) {
                metrics::gauge!("api_lists_held_bytes").set(state.held_bytes() as f64);
                return Ok(render(&RwLockWriteGuard::downgrade(state), &row)?);
            }
            // It changed meanwhile: once more.
        }
    }

    /// The body of popularity. A pass over all items: for a thread that may block.
    pub fn popular(&self, options: &PopularOptions) -> (Vec<u8>, Arc<Published>) {
        let published = self.published();
        (render::render_popular(&self.settings, &self.generation, options, &self.state.read()), published)
    }

    /// What a member who is signed in may see, or anybody.
    pub fn sight(&self, member: Option<&MemberId>) -> Sight {
        member.map_or(Sight::PUBLIC, |member| self.state.read().sight(member))
    }

    /// [`State::is_sold`].
    pub fn is_sold(&self, item: &str) -> bool {
        let state = self.state.read();
        state.is_sold(state.find(item).map(|index| state.item(index)))
    }

    /// The page of an item, where it may be seen.
    ///
    /// # Errors
    /// [`ListError`].
    pub(crate) async fn product(&self, item: &ItemId, sight: Sight) -> Result<Option<Vec<u8>>, ListError> {
        let Some(row) = self.store.get(Catalog::NAME, &item.to_bytes()).await? else { return Ok(None) };
        let record = CatalogRecord::decode(&row).map_err(|_| Corrupt("a catalog record that does not decode"))?;
        Ok(Product::of(&record, sight, &self.settings.shop.currency).map(|product| json(&product)))
    }

    /// A page of items. A pass over all items: for a thread that may block.
    pub(crate) fn found(&self, options: &PageOptions) -> Page {
        let published = self.published();
        let state = self.state.read();
        let found = Found::of(options, &state, &self.settings.shop.currency);
        Page { body: json(&found), next_cursor: found.next_cursor, published }
    }

    /// The categories with something to see. A pass over all items.
    pub(crate) fn categories(&self, sight: Sight) -> Page {
        let published = self.published();
        Page { body: json(&Categories::of(sight, &self.state.read())), next_cursor: None, published }
    }

    /// The tags with something to see, those of most items first. A pass over all items.
    pub(crate) fn tags(&self, sight: Sight, limit: usize) -> Page {
        let published = self.published();
        Page { body: json(&Tags::of(sight, limit, &self.state.read())), next_cursor: None, published }
    }

    /// The sessions that are a member's, and how far that reaches.
    pub fn sessions(&self, member: &MemberId) -> (Vec<SessionId>, Arc<Published>) {
        let state = self.state.read();
        (state.sessions(member), self.published.load_full())
    }

    /// Waits until the memory reaches a position; whether it did in time.
    pub async fn reached(&self, position: &Position, within: Duration) -> bool {
        let reached = || self.published.load().position.reaches(position);
        if reached() {
            return true;
        }
        let wait = async {
            loop {
                let moved = self.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if reached() {
                    return;
                }
                moved.await;
            }
        };
        tokio::time::timeout(within, wait).await.is_ok()
    }

    /// Hears when the row of an item changes.
    pub fn watch(self: &Arc<Self>, item: &str) -> Watch {
        let mut watches = self.watches.write();
        let sender = watches.entry(item.into()).or_insert_with(|| watch::Sender::new(()));
        Watch { changed: sender.subscribe(), item: item.into(), memory: self.clone() }
    }

    /// As after a start on a store with an unfinished unit.
    #[cfg(test)]
    pub(crate) fn expect_rows_anew(&self) {
        self.rows_come_anew.store(true, Ordering::Release);
    }

    /// Bytes of lists that are held.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.state.read().held_bytes()
    }

    /// How many items are watched.
    #[cfg(test)]
    pub(crate) fn watched_items(&self) -> usize {
        self.watches.read().len()
    }
}

/// Hears of changes to one row; unregisters itself when dropped.
pub struct Watch {
    /// Marked when the row changed.
    pub changed: watch::Receiver<()>,
    item: Box<str>,
    memory: Arc<Memory>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.memory.watches.write();
        // Our own receiver still counts: under the lock no other can come.
        if watches.get(&self.item).is_some_and(|sender| sender.receiver_count() <= 1) {
            watches.remove(&self.item);
        }
    }
}

fn json<T: serde::Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("an answer serialises")
}

/// What of the key of a body stands before the item.
const OPTIONS_BYTES: usize = 11;
const BODY_KEY_BYTES_MAX: usize = OPTIONS_BYTES + kindred_model::ids::ID_BYTES_MAX;

/// The key of a body without an allocation: options, then the item.
fn body_key<'b>(item: &str, options: ListOptions, buffer: &'b mut [u8; BODY_KEY_BYTES_MAX]) -> &'b [u8] {
    let ListOptions { limit, fill, explain, sight } = options;
    buffer[0] = limit;
    buffer[1] = u8::from(fill) | u8::from(explain) << 1 | u8::from(sight.since.is_some()) << 2;
    buffer[2] = sight.level as u8;
    buffer[3..OPTIONS_BYTES].copy_from_slice(&sight.since.map_or(0, |since| since.0).to_le_bytes());
    let end = OPTIONS_BYTES + item.len();
    buffer[OPTIONS_BYTES..end].copy_from_slice(item.as_bytes());
    &buffer[..end]
}
