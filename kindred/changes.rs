//! The change feed from the pipeline's process to the APIs: two store decorators and the topic `changes` between them.
//!
//! ```text
//! pipeline ──write──▶ Published ──rows──▶ changes ──▶ Followed ──unit, reset──▶ API memory
//!                        └──────write──▶ store ◀──────reads───┘
//! ```
//!
//! Rows are published once they are readable, a position once it is committed. Values are absolute, so a message may arrive
//! twice. Each message names its generation and incarnation; those of a replaced incarnation are ignored. After a gap, or a batch
//! that is too large, the API reloads from a snapshot.

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

/// Version of the message format.
const VERSION: u8 = 1;
/// Bytes of rows in a message: brokers accept a megabyte.
const CHUNK_BYTES: usize = 512 << 10;
/// Rows of a unit that are published; with more, the API reloads from a snapshot, at about a million rows a second.
const ROWS_PUBLISHED_MAX: usize = 30_000;
/// How often a subscriber compares its position with the store's.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a subscriber may lag behind the store before it reloads: messages take milliseconds.
const STALE_AFTER: Duration = Duration::from_secs(15);
/// Back-off before a retry.
const RETRY_DELAY: Duration = Duration::from_secs(1);

enum ChangeBatch {
    /// Rows that were written.
    Rows(Vec<Change>),
    /// The store is committed up to this position.
    Committed(Position),
    /// Too many rows to publish: reload from a snapshot.
    Reset,
}

/// One message of the topic `changes`.
struct Message {
    generation: String,
    incarnation: u64,
    epoch: u64,
    batch: ChangeBatch,
}

impl Message {
    fn encode(self) -> Vec<u8> {
        let (kind, position, changes) = match self.batch {
            ChangeBatch::Rows(changes) => (0, Position::beginning(), changes),
            ChangeBatch::Committed(position) => (1, position, Vec::new()),
            ChangeBatch::Reset => (2, Position::beginning(), Vec::new()),
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
        let generation = str::from_utf8(name).map_err(|_| Corrupt("a generation name that is not UTF-8"))?.to_owned();
        let unit = EpochChanges::decode(rest)?;
        let batch = match kind {
            0 => ChangeBatch::Rows(Arc::unwrap_or_clone(unit.changes)),
            1 => ChangeBatch::Committed(unit.position),
            2 => ChangeBatch::Reset,
            _ => return Err(Corrupt("a message of an unknown kind")),
        };
        Ok(Self { generation, incarnation, epoch: unit.epoch, batch })
    }
}

/// The pipeline's store: publishes what it writes. The rest delegates to `inner`.
pub struct Published {
    inner: Arc<dyn ViewStore>,
    broadcast: Arc<dyn Broadcast>,
    generation: String,
    /// Tables whose rows are published: those that the API keeps in memory.
    tables: BTreeSet<&'static str>,
    incarnation: AtomicU64,
    /// Tables were emptied: the next commit deletes rows without naming them.
    cleared: AtomicBool,
}

impl Published {
    /// Over a store of that generation.
    pub fn new(inner: Arc<dyn ViewStore>, broadcast: Arc<dyn Broadcast>, generation: &str) -> Self {
        let tables = kindred_api::FOLLOWED_TABLES.iter().copied().collect();
        let (incarnation, cleared) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { inner, broadcast, generation: generation.to_owned(), tables, incarnation, cleared }
    }

    async fn publish(&self, epoch: u64, batch: ChangeBatch) -> Result<(), StoreError> {
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let message = Message { generation: self.generation.clone(), incarnation, epoch, batch };
        self.broadcast.publish(message.encode()).await.map_err(|error| match error {
            LogError::Refused(reason) => StoreError::Refused(format!("could not publish changes: {reason}")),
            error => StoreError::Unavailable(format!("could not publish changes: {error}")),
        })
    }

    async fn publish_rows(&self, epoch: u64, rows: Vec<Change>) -> Result<(), StoreError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for change in rows {
            let size = change.key.len() + change.row.as_ref().map_or(0, Vec::len) + 16;
            if bytes + size > CHUNK_BYTES && !chunk.is_empty() {
                self.publish(epoch, ChangeBatch::Rows(std::mem::take(&mut chunk))).await?;
                bytes = 0;
            }
            bytes += size;
            chunk.push(change);
        }
        if chunk.is_empty() { Ok(()) } else { self.publish(epoch, ChangeBatch::Rows(chunk)).await }
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

    /// Publishes the start position, so that subscribers ignore messages of earlier incarnations.
    async fn begin(&self) -> Result<Incarnation, StoreError> {
        let begun = self.inner.begin().await?;
        self.incarnation.store(begun.number, Ordering::Release);
        self.cleared.store(false, Ordering::Release);
        self.publish(begun.frontier.epoch, ChangeBatch::Committed(begun.frontier.position.clone())).await?;
        Ok(begun)
    }

    async fn join(&self, number: u64) -> Result<Incarnation, StoreError> {
        let joined = self.inner.join(number).await?;
        self.incarnation.store(joined.number, Ordering::Release);
        Ok(joined)
    }

    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        let rows: Vec<Change> = changes.iter().filter(|change| self.tables.contains(change.table)).cloned().collect();
        if self.cleared.load(Ordering::Acquire) {
            return self.inner.write(epoch, changes).await;
        }
        if rows.len() > ROWS_PUBLISHED_MAX {
            self.inner.write(epoch, changes).await?;
            return self.publish(epoch, ChangeBatch::Reset).await;
        }
        // In this order: a published row must be readable.
        self.inner.write(epoch, changes).await?;
        self.publish_rows(epoch, rows).await
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        self.inner.commit(epoch, position.clone()).await?;
        if self.cleared.load(Ordering::Acquire) {
            self.publish(epoch, ChangeBatch::Reset).await?;
            self.cleared.store(false, Ordering::Release);
        }
        self.publish(epoch, ChangeBatch::Committed(position)).await
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
        self.publish(self.inner.frontier().epoch, ChangeBatch::Committed(position)).await
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

/// How far a subscriber follows the change feed.
#[derive(Default)]
pub struct ChangeStream {
    state: Mutex<ChangeStreamState>,
}

#[derive(Default)]
struct ChangeStreamState {
    /// The position received, once subscribed.
    received: Option<Position>,
    /// A position that the store has committed and the subscriber has not received, and since when.
    missing: Option<(Position, Instant)>,
    /// Reloads from a snapshot.
    reloads: u64,
    /// The last error, until a message arrives.
    trouble: Option<String>,
}

/// The status of a change stream, as operators see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ChangeStreamStatus {
    /// The position received.
    pub heard: Option<String>,
    /// How long the store has been ahead, in milliseconds.
    pub behind_ms: u64,
    /// Reloads from a snapshot.
    pub reloads: u64,
    /// The last error, until a message arrives.
    pub trouble: Option<String>,
}

impl ChangeStreamStatus {
    /// Whether the lag is within the limit.
    pub fn is_fresh(&self) -> bool {
        self.heard.is_some() && self.trouble.is_none() && u128::from(self.behind_ms) <= STALE_AFTER.as_millis()
    }
}

impl ChangeStream {
    /// The current status.
    pub fn status(&self) -> ChangeStreamStatus {
        let state = self.state.lock();
        let behind = state.missing.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        ChangeStreamStatus {
            heard: state.received.as_ref().map(ToString::to_string),
            behind_ms: u64::try_from(behind.as_millis()).unwrap_or(u64::MAX),
            reloads: state.reloads,
            trouble: state.trouble.clone(),
        }
    }

    fn advanced(&self, position: &Position) {
        let mut state = self.state.lock();
        state.trouble = None;
        if state.missing.as_ref().is_some_and(|(missing, _)| position.reaches(missing)) {
            state.missing = None;
        }
        state.received = Some(position.clone());
    }

    fn trouble(&self, reason: String) {
        let mut state = self.state.lock();
        if state.trouble.is_none() {
            tracing::warn!("change feed unavailable: {reason}");
        }
        state.trouble = Some(reason);
    }

    /// Compares with the position of the store; whether it has lagged for too long.
    fn is_stale(&self, reached: &Position) -> bool {
        let mut state = self.state.lock();
        let ahead = state.received.as_ref().is_some_and(|received| !received.reaches(reached));
        let behind = match &state.missing {
            Some((_, since)) => since.elapsed(),
            None => {
                state.missing = ahead.then(|| (reached.clone(), Instant::now()));
                Duration::ZERO
            }
        };
        metrics::gauge!("changes_behind_seconds").set(behind.as_secs_f64());
        behind > STALE_AFTER
    }
}

/// The API's store: its listener receives the change feed of a pipeline in another process. The rest delegates to `inner`.
pub struct Followed {
    inner: Arc<dyn ViewStore>,
    subscriber: Arc<ChangeSubscriber>,
    thread: Arc<SubscriberThread>,
}

/// The thread of a subscriber. It outlives its store by a second or two.
#[derive(Default)]
pub struct SubscriberThread {
    stop: Arc<AtomicBool>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl SubscriberThread {
    /// Stops and joins the thread, within a second or two. Call before the runtime ends.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.lock().take()
            && handle.join().is_err()
        {
            tracing::error!("the change feed subscriber panicked");
        }
    }
}

struct ChangeSubscriber {
    store: Arc<dyn ViewStore>,
    broadcast: Arc<dyn Broadcast>,
    generations: Arc<dyn Generations>,
    generation: String,
    stream: Arc<ChangeStream>,
    runtime: Handle,
}

impl Followed {
    /// Over a store of that generation; blocks on the current runtime.
    pub fn new(
        inner: Arc<dyn ViewStore>,
        broadcast: Arc<dyn Broadcast>,
        generations: Arc<dyn Generations>,
        generation: &str,
    ) -> Self {
        let subscriber = ChangeSubscriber {
            store: Arc::clone(&inner),
            broadcast,
            generations,
            generation: generation.to_owned(),
            stream: Arc::default(),
            runtime: Handle::current(),
        };
        Self { inner, subscriber: Arc::new(subscriber), thread: Arc::default() }
    }

    /// The state of its subscription.
    pub fn stream(&self) -> Arc<ChangeStream> {
        Arc::clone(&self.subscriber.stream)
    }

    /// Its thread, to join at shutdown.
    pub fn thread(&self) -> Arc<SubscriberThread> {
        Arc::clone(&self.thread)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.thread.stop.store(true, Ordering::Release);
    }
}

/// The state of a subscription.
struct Cursor {
    subscription: Box<dyn Subscription>,
    incarnation: u64,
    position: Position,
}

/// Reports a panic of the subscriber, which would otherwise look like a feed without changes.
struct PanicReporter<'a>(&'a ChangeStream);

impl Drop for PanicReporter<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.trouble("the change feed subscriber panicked; restart this process".to_owned());
        }
    }
}

impl ChangeSubscriber {
    /// Subscribes, then takes a snapshot that the messages continue.
    fn begin(&self) -> Result<(Cursor, Snapshot), StoreError> {
        let unavailable = |error: LogError| StoreError::Unavailable(error.to_string());
        let subscription = self.runtime.block_on(self.broadcast.subscribe()).map_err(unavailable)?;
        let generations = self.runtime.block_on(self.generations.list())?;
        let ours = generations.into_iter().find(|generation| generation.name == self.generation);
        let ours = ours.ok_or_else(|| StoreError::Refused(format!("generation {} was dropped", self.generation)))?;
        // Listed after subscribing, so that no later commit is missed. The store's own frontier may be old.
        let cursor = Cursor { subscription, incarnation: ours.incarnation, position: ours.frontier.position };
        let snapshot = self.snapshot(&cursor.position)?;
        Ok((cursor, snapshot))
    }

    /// A snapshot at least as new as the position. A rewrite may be under way: its end is published.
    fn snapshot(&self, position: &Position) -> Result<Snapshot, StoreError> {
        let Snapshot { frontier, rows } = self.store.snapshot()?;
        Ok(Snapshot { frontier: Frontier { position: position.clone(), unfinished: false, ..frontier }, rows })
    }

    fn follow(&self, mut cursor: Cursor, listener: &Listener, stop: &AtomicBool) {
        let _reporter = PanicReporter(&self.stream);
        self.stream.advanced(&cursor.position);
        while !stop.load(Ordering::Acquire) {
            let received =
                self.runtime.block_on(async { tokio::time::timeout(CHECK_INTERVAL, cursor.subscription.next()).await });
            let whole = match received {
                Ok(Some(Heard::Message(message))) => self.handle(&message, &mut cursor, listener, stop),
                Ok(Some(Heard::Lost) | None) => false,
                Err(_) => true,
            };
            if (!whole || self.stream.is_stale(&self.store.frontier().position)) && !stop.load(Ordering::Acquire) {
                self.resubscribe(&mut cursor, listener, stop);
            }
        }
    }

    /// Passes a message on; false after a gap.
    fn handle(&self, message: &[u8], cursor: &mut Cursor, listener: &Listener, stop: &AtomicBool) -> bool {
        let message = match Message::decode(message) {
            Ok(message) => message,
            Err(corrupt) => {
                tracing::error!("corrupt change feed message: {corrupt}");
                return false;
            }
        };
        if message.generation != self.generation || message.incarnation < cursor.incarnation {
            return true;
        }
        cursor.incarnation = message.incarnation;
        let changes = match message.batch {
            ChangeBatch::Rows(changes) => changes,
            ChangeBatch::Committed(position) => {
                cursor.position = position;
                Vec::new()
            }
            ChangeBatch::Reset => {
                self.retry(stop, || self.reload(cursor, listener));
                return true;
            }
        };
        listener.unit(&EpochChanges { epoch: message.epoch, position: cursor.position.clone(), changes: changes.into() });
        self.stream.advanced(&cursor.position);
        true
    }

    fn reload(&self, cursor: &Cursor, listener: &Listener) -> Result<(), StoreError> {
        let snapshot = self.snapshot(&cursor.position)?;
        listener.reset(snapshot).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.stream.state.lock().reloads += 1;
        metrics::counter!("changes_read_anew_total").increment(1);
        self.stream.advanced(&cursor.position);
        Ok(())
    }

    fn resubscribe(&self, cursor: &mut Cursor, listener: &Listener, stop: &AtomicBool) {
        tracing::info!("change feed gap; reloading from a snapshot");
        self.retry(stop, || {
            let (next, _) = self.begin()?;
            *cursor = next;
            self.stream.state.lock().missing = None;
            self.reload(cursor, listener)
        });
    }

    /// Retries until it succeeds or the thread is stopped.
    fn retry(&self, stop: &AtomicBool, mut work: impl FnMut() -> Result<(), StoreError>) {
        while let Err(error) = work() {
            self.stream.trouble(error.to_string());
            std::thread::sleep(RETRY_DELAY);
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

    /// One listener: the API's memory. Blocks: not for threads of an async runtime.
    fn listen(&self, listener: Listener) -> Result<Snapshot, StoreError> {
        let mut handle = self.thread.handle.lock();
        if handle.is_some() {
            return Err(StoreError::Refused("already subscribed".to_owned()));
        }
        let (cursor, snapshot) = self.subscriber.begin()?;
        let (subscriber, stop) = (Arc::clone(&self.subscriber), Arc::clone(&self.thread.stop));
        let follow = move || subscriber.follow(cursor, &listener, &stop);
        let started = std::thread::Builder::new().name("kindred-changes".to_owned()).spawn(follow);
        *handle = Some(started.map_err(|error| StoreError::Unavailable(format!("could not start a thread: {error}")))?);
        Ok(snapshot)
    }

    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }

    async fn begin(&self) -> Result<Incarnation, StoreError> {
        Err(read_only())
    }

    async fn join(&self, _: u64) -> Result<Incarnation, StoreError> {
        Err(read_only())
    }

    async fn write(&self, _: u64, _: Arc<Vec<Change>>) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn commit(&self, _: u64, _: Position) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn apply(&self, _: EpochChanges) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn end_clean(&self) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn clear(&self, _: &[&'static str]) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn reset_position(&self, _: Position) -> Result<(), StoreError> {
        Err(read_only())
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

fn read_only() -> StoreError {
    StoreError::Refused("read-only store: the pipeline writes".to_owned())
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

    /// The one generation of an embedded store, under the incarnation of the test.
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
            Err(read_only())
        }
        async fn live(&self) -> Result<Option<String>, StoreError> {
            Ok(Some("g1".to_owned()))
        }
        async fn promote(&self, _: &str) -> Result<Option<String>, StoreError> {
            Err(read_only())
        }
        async fn drop(&self, _: &str) -> Result<(), StoreError> {
            Err(read_only())
        }
    }

    /// Records what its listener receives, a line each.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Listen for Recorder {
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
        fn reset(&self, snapshot: Snapshot) -> Result<(), ReadError> {
            let row = snapshot.rows.get(TABLE, b"k")?.unwrap_or_default();
            self.0.lock().push(format!("reset k={} at {}", String::from_utf8_lossy(&row), snapshot.frontier.position));
            Ok(())
        }
    }

    struct Pair {
        store: Arc<dyn ViewStore>,
        broadcast: Arc<dyn Broadcast>,
        published: Published,
        followed: Arc<Followed>,
        recorder: Arc<Recorder>,
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
            let recorder = Arc::new(Recorder::default());
            let (listening, listener) = (Arc::clone(&followed), Arc::clone(&recorder) as Listener);
            tokio::task::spawn_blocking(move || drop(listening.listen(listener).unwrap())).await.unwrap();
            Self { store, broadcast, published, followed, recorder, _dir: dir }
        }

        fn pipeline(store: &Arc<dyn ViewStore>, broadcast: &Arc<dyn Broadcast>, generation: &str, number: u64) -> Published {
            let published = Published::new(Arc::clone(store), Arc::clone(broadcast), generation);
            published.incarnation.store(number, Ordering::Release);
            published
        }

        /// Waits for as many lines and compares them.
        async fn receives(&self, wanted: &[&str]) {
            for _ in 0..500 {
                if self.recorder.0.lock().len() >= wanted.len() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(*self.recorder.0.lock(), wanted);
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            self.followed.thread.stop.store(true, Ordering::Release);
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

    /// If this failed, an API would miss what was committed between the store's cached frontier and its subscription: seen as an
    /// API that was fifteen seconds behind right after loading a generation.
    #[tokio::test(flavor = "multi_thread")]
    async fn it_subscribes_from_the_position_of_the_row() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| Arc::new(EmbeddedStore::open(&dir.path().join(name)).unwrap()) as Arc<dyn ViewStore>;
        let (believed, row) = (open("believed"), open("row"));
        row.apply(EpochChanges { epoch: 1, position: at(7), changes: Vec::new().into() }).await.unwrap();
        let generations = Arc::new(One(AtomicU64::new(5), row));
        let followed = Arc::new(Followed::new(believed, Arc::new(InMemory::default()), generations, "g1"));
        let listening = Arc::clone(&followed);
        let listener = Arc::new(Recorder::default()) as Listener;
        let snapshot = tokio::task::spawn_blocking(move || listening.listen(listener).unwrap()).await.unwrap();
        assert_eq!(snapshot.frontier.position, at(7));
        followed.thread.stop.store(true, Ordering::Release);
    }

    /// If this failed, an API would claim a position whose rows it lacks, or keep a deleted row.
    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_published_before_the_position() {
        let pair = Pair::new().await;
        let other = Change { table: "points", key: b"ann\0".to_vec(), row: Some(vec![2]) };
        pair.published.write(1, vec![row("k", "1"), other, row("l", "")].into()).await.unwrap();
        let start = Position::beginning().to_string();
        pair.receives(&[&format!("k=1 l=- at {start}")]).await;
        pair.published.commit(1, at(3)).await.unwrap();
        pair.receives(&[&format!("k=1 l=- at {start}"), &format!(" at {}", at(3))]).await;
        assert!(pair.followed.stream().status().is_fresh());
        assert!(pair.followed.write(2, Arc::default()).await.is_err(), "an API writes no rows");
    }

    /// If this failed, a replaced pipeline, or a replay of another generation, could change what an API serves.
    #[tokio::test(flavor = "multi_thread")]
    async fn replaced_incarnations_are_ignored() {
        let pair = Pair::new().await;
        let old = Pair::pipeline(&pair.store, &pair.broadcast, "g1", 4);
        let replay = Pair::pipeline(&pair.store, &pair.broadcast, "g2", 9);
        let new = Pair::pipeline(&pair.store, &pair.broadcast, "g1", 6);
        old.publish_rows(7, vec![row("k", "old")]).await.unwrap();
        replay.publish_rows(7, vec![row("k", "other")]).await.unwrap();
        new.publish_rows(8, vec![row("k", "new")]).await.unwrap();
        pair.published.publish(9, ChangeBatch::Committed(at(9))).await.unwrap();
        new.publish(9, ChangeBatch::Committed(at(4))).await.unwrap();
        let start = Position::beginning().to_string();
        pair.receives(&[&format!("k=new at {start}"), &format!(" at {}", at(4))]).await;
    }

    /// If this failed, an API would miss a large batch, or keep rows that a rewrite deleted.
    #[tokio::test(flavor = "multi_thread")]
    async fn gaps_and_large_batches_reload_from_a_snapshot() {
        let pair = Pair::new().await;
        let start = Position::beginning().to_string();
        let many: Vec<Change> = (0..=ROWS_PUBLISHED_MAX).map(|n| row(&format!("r{n}"), "1")).collect();
        pair.published.write(1, many.into()).await.unwrap();
        pair.receives(&[&format!("reset k= at {start}")]).await;

        pair.published.clear(&[TABLE]).await.unwrap();
        pair.published.apply(EpochChanges { epoch: 2, position: at(2), changes: vec![row("k", "2")].into() }).await.unwrap();
        let so_far = [&format!("reset k= at {start}"), &format!("reset k=2 at {start}"), &format!(" at {}", at(2))];
        pair.receives(&so_far.map(String::as_str)).await;

        pair.broadcast.publish(b"nonsense".to_vec()).await.unwrap();
        let reset = format!("reset k=2 at {}", at(2));
        pair.receives(&[so_far[0], so_far[1], so_far[2], &reset].map(String::as_str)).await;
        pair.published.apply(EpochChanges { epoch: 3, position: at(3), changes: vec![row("k", "3")].into() }).await.unwrap();
        let (rows, reached) = (format!("k=3 at {}", at(2)), format!(" at {}", at(3)));
        pair.receives(&[so_far[0], so_far[1], so_far[2], &reset, &rows, &reached].map(String::as_str)).await;
        assert_eq!(pair.followed.stream().status().reloads, 3);

        // The store has been ahead of the subscriber for too long: a message was lost.
        let since = Instant::now().checked_sub(STALE_AFTER + Duration::from_secs(1)).unwrap();
        pair.followed.stream().state.lock().missing = Some((at(9), since));
        assert!(!pair.followed.stream().status().is_fresh());
        let again = format!("reset k=3 at {}", at(3));
        pair.receives(&[so_far[0], so_far[1], so_far[2], &reset, &rows, &reached, &again].map(String::as_str)).await;
        assert!(pair.followed.stream().status().is_fresh());
    }

    /// If this failed, brokers would refuse a large unit and the pipeline would end.
    #[tokio::test]
    async fn large_units_are_published_in_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ViewStore> = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let broadcast: Arc<dyn Broadcast> = Arc::new(InMemory::default());
        let mut subscription = broadcast.subscribe().await.unwrap();
        let published = Pair::pipeline(&store, &broadcast, "g1", 1);
        let value = "x".repeat(1_000);
        let rows: Vec<Change> = (0..2_000).map(|n| row(&format!("r{n}"), &value)).collect();
        published.publish_rows(1, rows.clone()).await.unwrap();
        let mut received = Vec::new();
        while received.len() < rows.len() {
            let Some(Heard::Message(bytes)) = subscription.next().await else { panic!("a message") };
            assert!(bytes.len() < CHUNK_BYTES + (64 << 10), "{}", bytes.len());
            let ChangeBatch::Rows(changes) = Message::decode(&bytes).unwrap().batch else { panic!("rows") };
            received.extend(changes);
        }
        assert_eq!(received, rows);
    }

    #[test]
    fn bytes_from_outside_are_read_or_refused() {
        let message =
            Message { generation: "g1".to_owned(), incarnation: 7, epoch: 3, batch: ChangeBatch::Rows(vec![row("k", "v")]) };
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
