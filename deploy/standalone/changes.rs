//! What changed, told from the pipeline's process to the API's: two stores around one, and the topic `changes` between them.
//!
//! ```text
//! pipeline ──write──▶ Published ──rows──▶ changes ──▶ Followed ──unit, anew──▶ the API's memory
//!                        └──────write──▶ store ◀──────reads───┘
//! ```
//!
//! Rows are told once they are readable, and a position once it is committed: who hears of a row may read it, and who waits for a
//! position finds the rows.
//! Values are absolute: hearing a message twice changes nothing. Each message names its generation and incarnation, and those of
//! an incarnation that was replaced are not heard. What is too much to tell, or was lost on the way, is read anew from the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_log::LogError;
use kindred_log::broadcast::{Broadcast, Heard, Subscription};
use kindred_model::Position;
use kindred_model::codec::{Corrupt, put_varint, take, take_varint};
use kindred_store::generations::Generations;
use kindred_store::{Change, EpochChanges, Frontier, Incarnation, Listener, NamedValues, Snapshot, StoreError, ViewStore};
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// The version of a message.
const VERSION: u8 = 1;
/// Bytes of rows in a message: brokers take a megabyte, and smaller ones travel better.
const CHUNK_BYTES: usize = 512 << 10;
/// Rows of a unit that are told one by one; with more, an API reads all anew, at about a million rows a second.
const ROWS_TOLD_MAX: usize = 30_000;
/// How often the follower compares what it heard with how far the store reaches.
const LOOK: Duration = Duration::from_secs(1);
/// How long the store may be ahead of what was heard until all is read anew: messages take milliseconds.
const STALE: Duration = Duration::from_secs(15);
/// Before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What a message says.
enum News {
    /// Rows that are being written.
    Rows(Vec<Change>),
    /// So far the store is committed.
    Reached(Position),
    /// More rows changed than are told.
    Anew,
}

/// One message of the topic `changes`.
struct Message {
    generation: String,
    incarnation: u64,
    epoch: u64,
    news: News,
}

impl Message {
    fn encode(self) -> Vec<u8> {
        let (kind, position, changes) = match self.news {
            News::Rows(changes) => (0, Position::beginning(), changes),
            News::Reached(position) => (1, position, Vec::new()),
            News::Anew => (2, Position::beginning(), Vec::new()),
        };
        let mut bytes = vec![VERSION, kind];
        put_varint(&mut bytes, self.incarnation);
        put_varint(&mut bytes, self.generation.len() as u64);
        bytes.extend_from_slice(self.generation.as_bytes());
        bytes.extend(EpochChanges { epoch: self.epoch, position, changes: changes.into() }.encode());
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let [version, kind] = take(&mut bytes)?;
        if version != VERSION {
            return Err(Corrupt("a message of an unknown version"));
        }
        let incarnation = take_varint(&mut bytes)?;
        let length = usize::try_from(take_varint(&mut bytes)?).map_err(|_| Corrupt("a length beyond the end"))?;
        let (name, rest) = bytes.split_at_checked(length).ok_or(Corrupt("a length beyond the end"))?;
        let generation = str::from_utf8(name).map_err(|_| Corrupt("a generation's name that is no text"))?.to_owned();
        let unit = EpochChanges::decode(rest)?;
        let news = match kind {
            0 => News::Rows(Arc::unwrap_or_clone(unit.changes)),
            1 => News::Reached(unit.position),
            2 => News::Anew,
            _ => return Err(Corrupt("a message of an unknown kind")),
        };
        Ok(Self { generation, incarnation, epoch: unit.epoch, news })
    }
}

/// The pipeline's store: tells what it writes. Everything else is as in the store within.
pub struct Published {
    inner: Arc<dyn ViewStore>,
    broadcast: Arc<dyn Broadcast>,
    generation: String,
    /// Tables whose rows are told: those that the API keeps in memory.
    tables: BTreeSet<&'static str>,
    incarnation: AtomicU64,
    /// Tables were emptied: the next commit deletes rows that nobody names.
    cleared: AtomicBool,
}

impl Published {
    /// Over a store of that generation.
    pub fn new(inner: Arc<dyn ViewStore>, broadcast: Arc<dyn Broadcast>, generation: &str) -> Self {
        let tables = kindred_api::FOLLOWED_TABLES.iter().copied().collect();
        let (incarnation, cleared) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { inner, broadcast, generation: generation.to_owned(), tables, incarnation, cleared }
    }

    async fn publish(&self, epoch: u64, news: News) -> Result<(), StoreError> {
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let message = Message { generation: self.generation.clone(), incarnation, epoch, news };
        self.broadcast.publish(message.encode()).await.map_err(|error| match error {
            LogError::Refused(reason) => StoreError::Refused(format!("could not tell what changed: {reason}")),
            error => StoreError::Unavailable(format!("could not tell what changed: {error}")),
        })
    }

    async fn publish_rows(&self, epoch: u64, rows: Vec<Change>) -> Result<(), StoreError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for change in rows {
            let size = change.key.len() + change.row.as_ref().map_or(0, Vec::len) + 16;
            if bytes + size > CHUNK_BYTES && !chunk.is_empty() {
                self.publish(epoch, News::Rows(std::mem::take(&mut chunk))).await?;
                bytes = 0;
            }
            bytes += size;
            chunk.push(change);
        }
        if chunk.is_empty() { Ok(()) } else { self.publish(epoch, News::Rows(chunk)).await }
    }
}

#[async_trait]
impl ViewStore for Published {
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key).await
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.snapshot()
    }

    fn listen(&self, listener: Listener) -> Result<Snapshot, StoreError> {
        self.inner.listen(listener)
    }

    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }

    /// Tells where it begins too: from then on nobody hears what an earlier incarnation still sends.
    async fn begin(&self) -> Result<Incarnation, StoreError> {
        let begun = self.inner.begin().await?;
        self.incarnation.store(begun.number, Ordering::Release);
        self.cleared.store(false, Ordering::Release);
        self.publish(begun.frontier.epoch, News::Reached(begun.frontier.position.clone())).await?;
        Ok(begun)
    }

    async fn join(&self, number: u64) -> Result<Incarnation, StoreError> {
        let joined = self.inner.join(number).await?;
        self.incarnation.store(joined.number, Ordering::Release);
        Ok(joined)
    }

    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        let told: Vec<Change> = changes.iter().filter(|change| self.tables.contains(change.table)).cloned().collect();
        if self.cleared.load(Ordering::Acquire) {
            return self.inner.write(epoch, changes).await;
        }
        if told.len() > ROWS_TOLD_MAX {
            self.inner.write(epoch, changes).await?;
            return self.publish(epoch, News::Anew).await;
        }
        // Not at the same time: who hears of a row may read it.
        self.inner.write(epoch, changes).await?;
        self.publish_rows(epoch, told).await
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        self.inner.commit(epoch, position.clone()).await?;
        if self.cleared.load(Ordering::Acquire) {
            self.publish(epoch, News::Anew).await?;
            self.cleared.store(false, Ordering::Release);
        }
        self.publish(epoch, News::Reached(position)).await
    }

    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError> {
        self.write(changes.epoch, changes.changes).await?;
        self.commit(changes.epoch, changes.position).await
    }

    async fn end_clean(&self) -> Result<(), StoreError> {
        self.inner.end_clean().await
    }

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        self.cleared.store(true, Ordering::Release);
        self.inner.clear(tables).await
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        self.inner.reset_position(position.clone()).await?;
        self.publish(self.inner.frontier().epoch, News::Reached(position)).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }

    fn named(&self) -> &dyn NamedValues {
        self.inner.named()
    }

    fn row_count(&self, table: &str) -> Result<u64, StoreError> {
        self.inner.row_count(table)
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.inner.disk_bytes()
    }
}

/// How well an API hears.
#[derive(Default)]
pub struct Feed {
    state: Mutex<FeedState>,
}

#[derive(Default)]
struct FeedState {
    /// How far it heard, once it listens.
    heard: Option<Position>,
    /// A position that the store reached and that was not heard of yet, and since when.
    missing: Option<(Position, Instant)>,
    /// How often everything was read anew.
    reloads: u64,
    /// Why it does not hear.
    trouble: Option<String>,
}

/// What is known of a feed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FeedStatus {
    /// How far it heard.
    pub heard: Option<String>,
    /// For how long the store has been ahead of it, in milliseconds.
    pub behind_ms: u64,
    /// How often everything was read anew.
    pub reloads: u64,
    /// Why it does not hear.
    pub trouble: Option<String>,
}

impl FeedStatus {
    /// Whether it hears in time, as far as is known.
    pub fn is_fresh(&self) -> bool {
        self.heard.is_some() && self.trouble.is_none() && u128::from(self.behind_ms) <= STALE.as_millis()
    }
}

impl Feed {
    /// How well it hears now.
    pub fn status(&self) -> FeedStatus {
        let state = self.state.lock();
        let behind = state.missing.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        FeedStatus {
            heard: state.heard.as_ref().map(ToString::to_string),
            behind_ms: u64::try_from(behind.as_millis()).unwrap_or(u64::MAX),
            reloads: state.reloads,
            trouble: state.trouble.clone(),
        }
    }

    fn heard(&self, position: &Position) {
        let mut state = self.state.lock();
        state.trouble = None;
        if state.missing.as_ref().is_some_and(|(missing, _)| position.reaches(missing)) {
            state.missing = None;
        }
        state.heard = Some(position.clone());
    }

    fn trouble(&self, reason: String) {
        let mut state = self.state.lock();
        if state.trouble.is_none() {
            tracing::warn!("does not hear what changes: {reason}");
        }
        state.trouble = Some(reason);
    }

    /// Compares with how far the store reaches; whether too much was missed for too long.
    fn is_deaf(&self, reached: &Position) -> bool {
        let mut state = self.state.lock();
        let ahead = state.heard.as_ref().is_some_and(|heard| !heard.reaches(reached));
        let behind = match &state.missing {
            Some((_, since)) => since.elapsed(),
            None => {
                state.missing = ahead.then(|| (reached.clone(), Instant::now()));
                Duration::ZERO
            }
        };
        metrics::gauge!("changes_behind_seconds").set(behind.as_secs_f64());
        behind > STALE
    }
}

/// The API's store: its listeners hear what a pipeline in another process tells. Everything else is as in the store within.
pub struct Followed {
    inner: Arc<dyn ViewStore>,
    ear: Arc<Ear>,
    listening: Arc<Listening>,
}

/// The thread that listens. It outlives its store by a second or two.
#[derive(Default)]
pub struct Listening {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Listening {
    /// Listens no more; returns when the thread has ended, within a second or two. Before the runtime ends.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears of changes panicked");
        }
    }
}

/// What the thread needs that listens.
struct Ear {
    store: Arc<dyn ViewStore>,
    broadcast: Arc<dyn Broadcast>,
    generations: Arc<dyn Generations>,
    generation: String,
    feed: Arc<Feed>,
    runtime: Handle,
}

impl Followed {
    /// Over a store of that generation. Runs what it has to wait for on the runtime that it is made on.
    pub fn new(
        inner: Arc<dyn ViewStore>,
        broadcast: Arc<dyn Broadcast>,
        generations: Arc<dyn Generations>,
        generation: &str,
    ) -> Self {
        let ear = Ear {
            store: Arc::clone(&inner),
            broadcast,
            generations,
            generation: generation.to_owned(),
            feed: Arc::default(),
            runtime: Handle::current(),
        };
        Self { inner, ear: Arc::new(ear), listening: Arc::default() }
    }

    /// How well it hears.
    pub fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.ear.feed)
    }

    /// Its thread, for whoever has to see it end.
    pub fn listening(&self) -> Arc<Listening> {
        Arc::clone(&self.listening)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.listening.stop.store(true, Ordering::Release);
    }
}

/// Where listening stands.
struct Place {
    subscription: Box<dyn Subscription>,
    incarnation: u64,
    /// How far it heard.
    position: Position,
}

/// An API that hears no more must not be taken for one that nobody tells anything.
struct ToldOfPanics<'a>(&'a Feed);

impl Drop for ToldOfPanics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.trouble("the thread that hears of changes ended by a panic: start this process again".to_owned());
        }
    }
}

impl Ear {
    /// Begins to listen; then a snapshot that what is heard leads on from.
    fn begin(&self) -> Result<(Place, Snapshot), StoreError> {
        let unavailable = |error: LogError| StoreError::Unavailable(error.to_string());
        let subscription = self.runtime.block_on(self.broadcast.subscribe()).map_err(unavailable)?;
        let generations = self.runtime.block_on(self.generations.list())?;
        let ours = generations.into_iter().find(|generation| generation.name == self.generation);
        let ours = ours.ok_or_else(|| StoreError::Refused(format!("generation {} was dropped", self.generation)))?;
        // Asked for once it listens: whatever is committed later is heard. How far this process believes the store to reach may be old.
        let place = Place { subscription, incarnation: ours.incarnation, position: ours.frontier.position };
        let snapshot = self.snapshot(&place.position)?;
        Ok((place, snapshot))
    }

    /// A snapshot of the rows of now, which are at least as new as the position. That a rewrite is under way is no matter here: its
    /// end is told.
    fn snapshot(&self, position: &Position) -> Result<Snapshot, StoreError> {
        let Snapshot { frontier, rows } = self.store.snapshot()?;
        Ok(Snapshot { frontier: Frontier { position: position.clone(), unfinished: false, ..frontier }, rows })
    }

    /// Listens until told to stop.
    fn follow(&self, mut place: Place, listener: &Listener, stop: &AtomicBool) {
        let _told = ToldOfPanics(&self.feed);
        self.feed.heard(&place.position);
        while !stop.load(Ordering::Acquire) {
            let heard = self.runtime.block_on(async { tokio::time::timeout(LOOK, place.subscription.next()).await });
            let whole = match heard {
                Ok(Some(Heard::Message(message))) => self.take(&message, &mut place, listener, stop),
                Ok(Some(Heard::Lost) | None) => false,
                Err(_) => true,
            };
            if (!whole || self.feed.is_deaf(&self.store.frontier().position)) && !stop.load(Ordering::Acquire) {
                self.start_over(&mut place, listener, stop);
            }
        }
    }

    /// Passes a message on; whether that went well.
    fn take(&self, message: &[u8], place: &mut Place, listener: &Listener, stop: &AtomicBool) -> bool {
        let message = match Message::decode(message) {
            Ok(message) => message,
            Err(corrupt) => {
                tracing::error!("a message of changes does not read: {corrupt}");
                return false;
            }
        };
        if message.generation != self.generation || message.incarnation < place.incarnation {
            return true;
        }
        place.incarnation = message.incarnation;
        let changes = match message.news {
            News::Rows(changes) => changes,
            News::Reached(position) => {
                place.position = position;
                Vec::new()
            }
            News::Anew => {
                self.retry(stop, || self.read_anew(place, listener));
                return true;
            }
        };
        listener.unit(&EpochChanges { epoch: message.epoch, position: place.position.clone(), changes: changes.into() });
        self.feed.heard(&place.position);
        true
    }

    fn read_anew(&self, place: &Place, listener: &Listener) -> Result<(), StoreError> {
        let snapshot = self.snapshot(&place.position)?;
        listener.anew(snapshot).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.feed.state.lock().reloads += 1;
        metrics::counter!("changes_read_anew_total").increment(1);
        self.feed.heard(&place.position);
        Ok(())
    }

    /// Listens and reads anew, as at the start.
    fn start_over(&self, place: &mut Place, listener: &Listener, stop: &AtomicBool) {
        tracing::info!("reads anew what is served: some of what changed was not heard");
        self.retry(stop, || {
            let (next, _) = self.begin()?;
            *place = next;
            self.feed.state.lock().missing = None;
            self.read_anew(place, listener)
        });
    }

    /// Repeats what has to go well before anything else is heard.
    fn retry(&self, stop: &AtomicBool, mut work: impl FnMut() -> Result<(), StoreError>) {
        while let Err(error) = work() {
            self.feed.trouble(error.to_string());
            std::thread::sleep(RETRY);
            if stop.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

#[async_trait]
impl ViewStore for Followed {
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key).await
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.snapshot()
    }

    /// One listener: the API's memory. Not to be called on a thread of an async runtime.
    fn listen(&self, listener: Listener) -> Result<Snapshot, StoreError> {
        let mut thread = self.listening.thread.lock();
        if thread.is_some() {
            return Err(StoreError::Refused("somebody listens already".to_owned()));
        }
        let (place, snapshot) = self.ear.begin()?;
        let (ear, stop) = (Arc::clone(&self.ear), Arc::clone(&self.listening.stop));
        let listens = move || ear.follow(place, &listener, &stop);
        let started = std::thread::Builder::new().name("kindred-changes".to_owned()).spawn(listens);
        *thread = Some(started.map_err(|error| StoreError::Unavailable(format!("could not start a thread: {error}")))?);
        Ok(snapshot)
    }

    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }

    async fn begin(&self) -> Result<Incarnation, StoreError> {
        Err(reads_only())
    }

    async fn join(&self, _: u64) -> Result<Incarnation, StoreError> {
        Err(reads_only())
    }

    async fn write(&self, _: u64, _: Arc<Vec<Change>>) -> Result<(), StoreError> {
        Err(reads_only())
    }

    async fn commit(&self, _: u64, _: Position) -> Result<(), StoreError> {
        Err(reads_only())
    }

    async fn apply(&self, _: EpochChanges) -> Result<(), StoreError> {
        Err(reads_only())
    }

    async fn end_clean(&self) -> Result<(), StoreError> {
        Err(reads_only())
    }

    async fn clear(&self, _: &[&'static str]) -> Result<(), StoreError> {
        Err(reads_only())
    }

    async fn reset_position(&self, _: Position) -> Result<(), StoreError> {
        Err(reads_only())
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }

    fn named(&self) -> &dyn NamedValues {
        self.inner.named()
    }

    fn row_count(&self, table: &str) -> Result<u64, StoreError> {
        self.inner.row_count(table)
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.inner.disk_bytes()
    }
}

fn reads_only() -> StoreError {
    StoreError::Refused("this process reads; the pipeline's writes".to_owned())
}

#[cfg(test)]
mod tests {
    use kindred_log::broadcast::InMemory;
    use kindred_model::Topic;
    use kindred_model::units::EventTime;
    use kindred_model::views::ReadError;
    use kindred_store::Listen;
    use kindred_store::embedded::EmbeddedStore;
    use kindred_store::generations::Generation;

    use super::*;

    const TABLE: &str = kindred_api::FOLLOWED_TABLES[0];

    /// The one generation of an embedded store, under an incarnation that the test says.
    struct One(AtomicU64, Arc<dyn ViewStore>);

    #[async_trait]
    impl Generations for One {
        async fn list(&self) -> Result<Vec<Generation>, StoreError> {
            Ok(vec![Generation {
                name: "g1".to_owned(),
                settings: String::new(),
                created_at: EventTime(0),
                incarnation: self.0.load(Ordering::Relaxed),
                frontier: self.1.frontier(),
                clean: false,
                dropping: false,
            }])
        }
        async fn create(&self, _: &str, _: &str, _: EventTime) -> Result<(), StoreError> {
            Err(reads_only())
        }
        async fn live(&self) -> Result<Option<String>, StoreError> {
            Ok(Some("g1".to_owned()))
        }
        async fn promote(&self, _: &str) -> Result<Option<String>, StoreError> {
            Err(reads_only())
        }
        async fn drop(&self, _: &str) -> Result<(), StoreError> {
            Err(reads_only())
        }
    }

    /// Notes what it is told, a line each.
    #[derive(Default)]
    struct Hears(Mutex<Vec<String>>);

    impl Listen for Hears {
        fn unit(&self, unit: &EpochChanges) {
            let rows: Vec<String> = unit
                .changes
                .iter()
                .map(|change| {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    format!("{}={}", text(&change.key), change.row.as_deref().map_or("-".to_owned(), text))
                })
                .collect();
            self.0.lock().push(format!("{} at {}", rows.join(" "), unit.position));
        }
        fn anew(&self, snapshot: Snapshot) -> Result<(), ReadError> {
            let row = snapshot.rows.get(TABLE, b"k")?.unwrap_or_default();
            self.0.lock().push(format!("anew k={} at {}", String::from_utf8_lossy(&row), snapshot.frontier.position));
            Ok(())
        }
    }

    struct Pair {
        store: Arc<dyn ViewStore>,
        broadcast: Arc<dyn Broadcast>,
        published: Published,
        followed: Arc<Followed>,
        hears: Arc<Hears>,
        _dir: tempfile::TempDir,
    }

    impl Pair {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store: Arc<dyn ViewStore> = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
            let broadcast: Arc<dyn Broadcast> = Arc::new(InMemory::default());
            let published = Self::pipeline(&store, &broadcast, "g1", 5);
            let generations = Arc::new(One(AtomicU64::new(5), Arc::clone(&store)));
            let followed = Arc::new(Followed::new(Arc::clone(&store), Arc::clone(&broadcast), generations, "g1"));
            let hears = Arc::new(Hears::default());
            let (listening, listener) = (Arc::clone(&followed), Arc::clone(&hears) as Listener);
            tokio::task::spawn_blocking(move || drop(listening.listen(listener).unwrap())).await.unwrap();
            Self { store, broadcast, published, followed, hears, _dir: dir }
        }

        fn pipeline(store: &Arc<dyn ViewStore>, broadcast: &Arc<dyn Broadcast>, generation: &str, number: u64) -> Published {
            let published = Published::new(Arc::clone(store), Arc::clone(broadcast), generation);
            published.incarnation.store(number, Ordering::Release);
            published
        }

        /// Waits until so much was heard, and demands that it is this.
        async fn hears(&self, wanted: &[&str]) {
            for _ in 0..500 {
                if self.hears.0.lock().len() >= wanted.len() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(*self.hears.0.lock(), wanted);
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            self.followed.listening.stop.store(true, Ordering::Release);
        }
    }

    fn row(key: &str, value: &str) -> Change {
        Change { table: TABLE, key: key.into(), row: (!value.is_empty()).then(|| value.into()) }
    }

    fn at(offset: u64) -> Position {
        let mut position = Position::beginning();
        position.passed(Topic::Orders, 0, offset);
        position
    }

    /// How far a process believes the store to reach is some time old. If it listened from there, what was committed and told between
    /// would be missed: seen as an API that was fifteen seconds behind right after it had loaded a generation.
    #[tokio::test(flavor = "multi_thread")]
    async fn it_listens_from_where_the_row_says() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| Arc::new(EmbeddedStore::open(&dir.path().join(name)).unwrap()) as Arc<dyn ViewStore>;
        let (believed, row) = (open("believed"), open("row"));
        row.apply(EpochChanges { epoch: 1, position: at(7), changes: Vec::new().into() }).await.unwrap();
        let generations = Arc::new(One(AtomicU64::new(5), row));
        let followed = Arc::new(Followed::new(believed, Arc::new(InMemory::default()), generations, "g1"));
        let listening = Arc::clone(&followed);
        let listener = Arc::new(Hears::default()) as Listener;
        let snapshot = tokio::task::spawn_blocking(move || listening.listen(listener).unwrap()).await.unwrap();
        assert_eq!(snapshot.frontier.position, at(7));
        followed.listening.stop.store(true, Ordering::Release);
    }

    /// If it failed, an API would say that it has what it has not, or never hear of a deleted row.
    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_told_and_then_the_position() {
        let pair = Pair::new().await;
        let other = Change { table: "points", key: b"ann\0".to_vec(), row: Some(vec![2]) };
        pair.published.write(1, vec![row("k", "1"), other, row("l", "")].into()).await.unwrap();
        let start = Position::beginning().to_string();
        pair.hears(&[&format!("k=1 l=- at {start}")]).await;
        pair.published.commit(1, at(3)).await.unwrap();
        pair.hears(&[&format!("k=1 l=- at {start}"), &format!(" at {}", at(3))]).await;
        assert!(pair.followed.feed().status().is_fresh());
        assert!(pair.followed.write(2, Arc::default()).await.is_err(), "an API writes no rows");
    }

    /// If it failed, a pipeline that was replaced, or a replay of another generation, could change what an API serves.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_replaced_is_not_heard() {
        let pair = Pair::new().await;
        let old = Pair::pipeline(&pair.store, &pair.broadcast, "g1", 4);
        let replay = Pair::pipeline(&pair.store, &pair.broadcast, "g2", 9);
        let new = Pair::pipeline(&pair.store, &pair.broadcast, "g1", 6);
        old.publish_rows(7, vec![row("k", "old")]).await.unwrap();
        replay.publish_rows(7, vec![row("k", "other")]).await.unwrap();
        new.publish_rows(8, vec![row("k", "new")]).await.unwrap();
        pair.published.publish(9, News::Reached(at(9))).await.unwrap();
        new.publish(9, News::Reached(at(4))).await.unwrap();
        let start = Position::beginning().to_string();
        pair.hears(&[&format!("k=new at {start}"), &format!(" at {}", at(4))]).await;
    }

    /// If it failed, an API would miss what was too much to tell, or keep rows that a rewrite deleted.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_told_is_read_anew() {
        let pair = Pair::new().await;
        let start = Position::beginning().to_string();
        let many: Vec<Change> = (0..=ROWS_TOLD_MAX).map(|n| row(&format!("r{n}"), "1")).collect();
        pair.published.write(1, many.into()).await.unwrap();
        pair.hears(&[&format!("anew k= at {start}")]).await;

        pair.published.clear(&[TABLE]).await.unwrap();
        pair.published.apply(EpochChanges { epoch: 2, position: at(2), changes: vec![row("k", "2")].into() }).await.unwrap();
        let so_far = [&format!("anew k= at {start}"), &format!("anew k=2 at {start}"), &format!(" at {}", at(2))];
        pair.hears(&so_far.map(String::as_str)).await;

        // A message that does not read: what it said is read from the store, and hearing goes on.
        pair.broadcast.publish(b"nonsense".to_vec()).await.unwrap();
        let anew = format!("anew k=2 at {}", at(2));
        pair.hears(&[so_far[0], so_far[1], so_far[2], &anew].map(String::as_str)).await;
        pair.published.apply(EpochChanges { epoch: 3, position: at(3), changes: vec![row("k", "3")].into() }).await.unwrap();
        let (rows, reached) = (format!("k=3 at {}", at(2)), format!(" at {}", at(3)));
        pair.hears(&[so_far[0], so_far[1], so_far[2], &anew, &rows, &reached].map(String::as_str)).await;
        assert_eq!(pair.followed.feed().status().reloads, 3);

        // The store is ahead of what was heard, for too long: a message never came.
        let since = Instant::now().checked_sub(STALE + Duration::from_secs(1)).unwrap();
        pair.followed.feed().state.lock().missing = Some((at(9), since));
        assert!(!pair.followed.feed().status().is_fresh());
        let again = format!("anew k=3 at {}", at(3));
        pair.hears(&[so_far[0], so_far[1], so_far[2], &anew, &rows, &reached, &again].map(String::as_str)).await;
        assert!(pair.followed.feed().status().is_fresh());
    }

    /// If it failed, brokers would refuse a large unit, and the pipeline would end.
    #[tokio::test]
    async fn large_units_are_told_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ViewStore> = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let broadcast: Arc<dyn Broadcast> = Arc::new(InMemory::default());
        let mut ear = broadcast.subscribe().await.unwrap();
        let published = Pair::pipeline(&store, &broadcast, "g1", 1);
        let value = "x".repeat(1_000);
        let rows: Vec<Change> = (0..2_000).map(|n| row(&format!("r{n}"), &value)).collect();
        published.publish_rows(1, rows.clone()).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < rows.len() {
            let Some(Heard::Message(bytes)) = ear.next().await else { panic!("a message") };
            assert!(bytes.len() < CHUNK_BYTES + (64 << 10), "{}", bytes.len());
            let News::Rows(changes) = Message::decode(&bytes).unwrap().news else { panic!("rows") };
            heard.extend(changes);
        }
        assert_eq!(heard, rows);
    }

    #[test]
    fn bytes_from_outside_are_read_or_refused() {
        let message = Message { generation: "g1".to_owned(), incarnation: 7, epoch: 3, news: News::Rows(vec![row("k", "v")]) };
        let whole = message.encode();
        let read = Message::decode(&whole).unwrap();
        assert_eq!((read.generation.as_str(), read.incarnation, read.epoch), ("g1", 7, 3));
        for cut in 0..whole.len() {
            assert!(Message::decode(&whole[..cut]).is_err(), "a part is no message");
        }
        for at in 0..whole.len() {
            let mut turned = whole.clone();
            turned[at] ^= 0xff;
            let _ = Message::decode(&turned);
        }
    }
}
