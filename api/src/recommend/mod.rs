//! The serving memory: lists, supports, catalog and popularity from the store, updated with each unit, and a cache of rendered
//! bodies.
//!
//! ```text
//! ChangeFeed ──the thread of the memory──▶ State (one lock) ──render──▶ bodies (cache) ──▶ answers, streams
//!                                             │  └──Items (a copy)──▶ pages, popularity
//!                                             └──Published: version, position──▶ waiters, Kindred-As-Of
//! ```
//!
//! A hit takes no lock of the state: a body valid at the published version needs no render. After a change a body is checked
//! once, part by part, and rendered again only if a part changed.

mod pages;
mod ranking;
mod render;
mod state;
mod visibility;

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
use kindred_store::feed::{ChangeEvent, FeedQueue};
use kindred_store::{ChangeFeed, EpochChanges, Snapshot, StoreError, ViewReader};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::{Notify, watch};

pub(crate) use pages::{Categories, Cursor, Found, PageOptions, Product, Sort, Tags};
pub use ranking::{DAYS_DEFAULT, KIND_DEFAULT};
pub use render::{LIMIT_DEFAULT, LIMIT_MAX, ListOptions, PopularOptions, Rendered};
pub(crate) use render::{PopularList, SimilarList, etag_of};
pub use state::TABLES;
use state::{Edit, Items, State, decode_changes};
pub use visibility::Sight;

use crate::context::{GenerationSource, MemoryConfig};

/// How often to look how far a store is that is not followed.
const LOOK: Duration = Duration::from_millis(100);

/// The published state of the memory.
#[derive(Debug)]
pub struct Published {
    /// Incremented with each change.
    pub version: u64,
    /// The applied position of the log.
    pub position: Position,
    /// The day that counts as "today".
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

/// An error while loading the memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store refused a feed or a snapshot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// An error while reading a list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Its row does not decode.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// Its row is only in the store, which failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The serving memory.
pub struct Memory {
    /// Holds the lists that are not in memory.
    store: Arc<dyn ViewReader>,
    /// Whether it holds rows and follows the store.
    follows: bool,
    settings: Arc<Semantics>,
    generation: Box<str>,
    clock: Clock,
    state: RwLock<State>,
    published: ArcSwap<Published>,
    /// Notified of every published version.
    moved: Notify,
    watches: RwLock<HashMap<Box<str>, watch::Sender<()>>>,
    bodies: moka::sync::Cache<Box<[u8]>, Arc<Rendered>>,
    /// What the thread of the memory takes from.
    feed: Arc<FeedQueue>,
    /// Held by whoever changes the state, but for lists read from the store: what is computed aside stays valid.
    changing: Mutex<()>,
    /// The store has an unfinished unit: the next one brings every row of the views again, and the others are gone.
    rewriting: AtomicBool,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.feed.close();
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The thread of a memory; it ends with the memory or the store.
fn follow(memory: &Weak<Memory>, feed: &ChangeFeed, clock: &Clock) {
    loop {
        let left_ms = DAY_MS - clock.now().0.rem_euclid(DAY_MS);
        let event = feed.next(Duration::from_millis(left_ms.unsigned_abs()));
        let Some(memory) = memory.upgrade() else { return };
        match event {
            ChangeEvent::Unit(unit) => memory.apply_unit(&unit),
            ChangeEvent::Reset(snapshot) => {
                if let Err(error) = memory.reload(&snapshot) {
                    feed.failed(&error);
                }
            }
            ChangeEvent::Idle => {}
            ChangeEvent::Ended => return,
        }
        memory.turn_day();
    }
}

/// A page of items.
pub(crate) struct Page {
    /// The body.
    pub body: Vec<u8>,
    /// The cursor of the next page.
    pub next_cursor: Option<String>,
    /// The state that it includes, at least.
    pub published: Arc<Published>,
}

/// A list and its state.
pub struct Answer {
    /// The body.
    pub rendered: Arc<Rendered>,
    /// The state that it includes, at least.
    pub published: Arc<Published>,
}

impl Memory {
    /// Loads the tables and follows the store. Blocks while loading: about a million rows a second.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(source: GenerationSource, generation: &str, clock: Clock, config: MemoryConfig) -> Result<Arc<Self>, LoadError> {
        let GenerationSource { store, changes, settings } = source;
        let followed = changes.map(|changes| changes.changes()).transpose()?;
        let now = clock.now();
        let mut state = State::empty(now.day(), config);
        let frontier = match &followed {
            Some((snapshot, _)) => {
                state.read(&*snapshot.rows)?;
                snapshot.frontier.clone()
            }
            None => store.frontier(),
        };
        state.version = 1;
        state.set_day(state.today);
        let memory = Arc::new(Self {
            store,
            follows: followed.is_some(),
            settings,
            generation: generation.into(),
            published: ArcSwap::from_pointee(Published::new(1, frontier.position, now.day(), now)),
            state: RwLock::new(state),
            moved: Notify::new(),
            watches: RwLock::default(),
            bodies: moka::sync::Cache::builder()
                .max_capacity(config.answers_bytes_max)
                .weigher(|_, rendered: &Arc<Rendered>| rendered.weight())
                .build(),
            feed: followed.as_ref().map(|(_, feed)| feed.queue()).unwrap_or_default(),
            changing: Mutex::default(),
            rewriting: AtomicBool::new(frontier.unfinished),
            clock: clock.clone(),
        });
        let Some((_, feed)) = followed else { return Ok(memory) };
        let weak = Arc::downgrade(&memory);
        let follow = move || follow(&weak, &feed, &clock);
        let started = std::thread::Builder::new().name("kindred-memory".to_owned()).spawn(follow);
        started.map_err(|error| StoreError::Unavailable(format!("could not start a thread: {error}")))?;
        Ok(memory)
    }

    /// Loads all tables into a new state and swaps it in, so that no answer mixes the two.
    pub(crate) fn reload(&self, snapshot: &Snapshot) -> Result<(), ReadError> {
        let _changing = self.changing.lock();
        let mut fresh = self.state.read().emptied();
        fresh.read(&*snapshot.rows)?;
        fresh.stamp(fresh.version + 1, fresh.today);
        let mut state = self.state.write();
        let _replaced = std::mem::replace(&mut *state, fresh);
        // A rewrite that is expected goes on; a unit that is half written is none.
        self.rewriting.fetch_and(snapshot.frontier.unfinished, Ordering::AcqRel);
        self.publish(&state, snapshot.frontier.position.clone());
        drop(state);
        self.moved.notify_waiters();
        // Any list may have changed; a stream sends only real changes.
        let watches: Vec<watch::Sender<()>> = self.watches.read().values().cloned().collect();
        for sender in watches {
            sender.send_replace(());
        }
        Ok(())
    }

    fn apply_unit(&self, unit: &EpochChanges) {
        let edits = decode_changes(&unit.changes);
        let watched = self.watched(&edits);
        let _changing = self.changing.lock();
        let mut state = self.state.write();
        let rewriting = self.rewriting.swap(false, Ordering::AcqRel);
        state.version += u64::from(rewriting || !edits.is_empty());
        if rewriting {
            state.clear_views();
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

    /// The watches of the changed lists.
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

    /// Moves the window of the rankings on to today, computed aside.
    fn turn_day(&self) {
        let today = self.clock.today();
        if self.published.load().today == today {
            return;
        }
        let _changing = self.changing.lock();
        let (items, version) = {
            let state = self.state.read();
            (state.items.clone(), state.version + 1)
        };
        let turn = items.turn(today, version);
        drop(items);
        let mut state = self.state.write();
        state.version = version;
        state.turn(turn);
        self.publish(&state, self.published.load().position.clone());
    }

    /// The current state. Where "today" is over, the thread of the memory is at it.
    pub fn published(&self) -> Arc<Published> {
        let published = self.published.load_full();
        if published.today != self.clock.today() {
            self.feed.wake();
        }
        published
    }

    fn items(&self) -> Items {
        self.state.read().items.clone()
    }

    /// The list of an item. A hit costs about a microsecond; a list outside of memory, one read of the store.
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
            if state.cache_row(index, list_changed, row.as_slice().into()) {
                metrics::gauge!("api_lists_held_bytes").set(state.held_bytes() as f64);
                return Ok(render(&RwLockWriteGuard::downgrade(state), &row)?);
            }
            // Changed meanwhile: retry.
        }
    }

    /// Popularity. A pass over all items: for a thread that may block.
    pub fn popular(&self, options: &PopularOptions) -> (Vec<u8>, Arc<Published>) {
        let published = self.published();
        (render::render_popular(&self.settings, &self.generation, options, &self.items()), published)
    }

    /// What a signed-in member, or an anonymous caller, may see.
    pub fn sight(&self, member: Option<&MemberId>) -> Sight {
        member.map_or(Sight::PUBLIC, |member| self.state.read().sight(member))
    }

    /// [`Items::is_sold`].
    pub fn is_sold(&self, item: &str) -> bool {
        let state = self.state.read();
        state.items.is_sold(state.find(item).map(|index| state.item(index)))
    }

    /// The page of an item, if visible.
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
        let items = self.items();
        let found = Found::of(options, &items, &self.settings.shop.currency);
        Page { body: json(&found), next_cursor: found.next_cursor, published }
    }

    /// The categories with visible items. A pass over all items.
    pub(crate) fn categories(&self, sight: Sight) -> Page {
        let published = self.published();
        Page { body: json(&Categories::of(sight, &self.items())), next_cursor: None, published }
    }

    /// The tags with visible items, largest first. A pass over all items.
    pub(crate) fn tags(&self, sight: Sight, limit: usize) -> Page {
        let published = self.published();
        Page { body: json(&Tags::of(sight, limit, &self.items())), next_cursor: None, published }
    }

    /// The sessions of a member, and the state.
    pub fn sessions(&self, member: &MemberId) -> (Vec<SessionId>, Arc<Published>) {
        let state = self.state.read();
        (state.sessions(member), self.published.load_full())
    }

    /// How far the views are.
    pub fn position(&self) -> Position {
        if self.follows { self.published.load().position.clone() } else { self.store.frontier().position }
    }

    /// Waits for a position; false on timeout.
    pub async fn reached(&self, position: &Position, within: Duration) -> bool {
        let reached = || match self.follows {
            true => self.published.load().position.reaches(position),
            false => self.store.frontier().position.reaches(position),
        };
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
                if self.follows {
                    moved.await;
                } else {
                    // Nobody notifies.
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        tokio::time::timeout(within, wait).await.is_ok()
    }

    /// Watches the row of an item.
    pub fn watch(self: &Arc<Self>, item: &str) -> Watch {
        let mut watches = self.watches.write();
        let sender = watches.entry(item.into()).or_insert_with(|| watch::Sender::new(()));
        Watch { changed: sender.subscribe(), item: item.into(), memory: self.clone() }
    }

    /// As after a start on a store with an unfinished unit.
    #[cfg(test)]
    pub(crate) fn expect_rewrite(&self) {
        self.rewriting.store(true, Ordering::Release);
    }

    /// Bytes of lists in memory.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.state.read().held_bytes()
    }

    /// The number of watched items.
    #[cfg(test)]
    pub(crate) fn watched_items(&self) -> usize {
        self.watches.read().len()
    }
}

/// Watches one row; unregisters itself when dropped.
pub struct Watch {
    /// Changes with the row.
    pub changed: watch::Receiver<()>,
    item: Box<str>,
    memory: Arc<Memory>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.memory.watches.write();
        // Our own receiver still counts; none can be added under the lock.
        if watches.get(&self.item).is_some_and(|sender| sender.receiver_count() <= 1) {
            watches.remove(&self.item);
        }
    }
}

fn json<T: serde::Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("an answer serialises")
}

/// Bytes of a cache key before the item.
const OPTIONS_BYTES: usize = 11;
const BODY_KEY_BYTES_MAX: usize = OPTIONS_BYTES + kindred_model::ids::ID_BYTES_MAX;

/// The cache key of a body, without an allocation: options, then the item.
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
