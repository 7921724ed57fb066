//! The change feed from the pipeline's process to the APIs, over the topic `changes`.
//!
//! ```text
//! sink ──write, commit──▶ PublishingSession ──rows, positions──▶ changes ──▶ RemoteChanges ──ChangeFeed──▶ API memory
//!                              └──write, commit──▶ store ◀────────────snapshots────────────────────────────┘
//! ```
//!
//! Rows are published once they are readable, a position once it is committed. Values are absolute, so a message may arrive
//! twice. Each message names its generation and incarnation; those of a replaced incarnation are ignored. After a gap, or a batch
//! that is too large, the API reloads from a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_log::LogError;
use kindred_log::broadcast::{Broadcast, Heard, Subscription};
use kindred_model::Position;
use kindred_model::codec::{Corrupt, put_varint, take, take_varint};
use kindred_store::feed::FeedQueue;
use kindred_store::generations::Generations;
use kindred_store::{
    Change, ChangeFeed, ChangeSource, EpochChanges, Frontier, Incarnation, Snapshot, StoreError, ViewReader, ViewWriter,
    WriteSession,
};
use kindred_telemetry::vital_task;
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

/// A writer whose sessions publish what they write.
pub struct Publisher {
    /// The store.
    pub writer: Arc<dyn ViewWriter>,
    /// The topic.
    pub broadcast: Arc<dyn Broadcast>,
    /// The generation of the store.
    pub generation: String,
}

impl Publisher {
    fn session(&self, session: Box<dyn WriteSession>) -> PublishingSession {
        let (broadcast, generation) = (Arc::clone(&self.broadcast), self.generation.clone());
        let incarnation = session.incarnation().clone();
        PublishingSession { session, incarnation, broadcast, generation, cleared: AtomicBool::new(false) }
    }
}

#[async_trait]
impl ViewWriter for Publisher {
    /// Publishes the start position, so that subscribers ignore messages of earlier incarnations.
    async fn begin(&self) -> Result<Box<dyn WriteSession>, StoreError> {
        let session = self.session(self.writer.begin().await?);
        let Frontier { epoch, position, .. } = session.incarnation().frontier.clone();
        session.publish(epoch, ChangeBatch::Committed(position)).await?;
        Ok(Box::new(session))
    }

    async fn join(&self, number: u64) -> Result<Box<dyn WriteSession>, StoreError> {
        Ok(Box::new(self.session(self.writer.join(number).await?)))
    }
}

struct PublishingSession {
    session: Box<dyn WriteSession>,
    incarnation: Incarnation,
    broadcast: Arc<dyn Broadcast>,
    generation: String,
    /// Tables were emptied: the next commit deletes rows without naming them.
    cleared: AtomicBool,
}

impl PublishingSession {
    async fn publish(&self, epoch: u64, batch: ChangeBatch) -> Result<(), StoreError> {
        let incarnation = self.incarnation.number;
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
impl WriteSession for PublishingSession {
    fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        // Those that the API keeps in memory.
        let followed = |change: &&Change| kindred_api::FOLLOWED_TABLES.contains(&change.table);
        let rows: Vec<Change> = changes.iter().filter(followed).cloned().collect();
        // In this order: a published row must be readable.
        self.session.write(epoch, changes).await?;
        if self.cleared.load(Ordering::Acquire) {
            Ok(())
        } else if rows.len() > ROWS_PUBLISHED_MAX {
            self.publish(epoch, ChangeBatch::Reset).await
        } else {
            self.publish_rows(epoch, rows).await
        }
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        self.session.commit(epoch, position.clone()).await?;
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

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        self.cleared.store(true, Ordering::Release);
        self.session.clear(tables).await
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        self.session.reset_position(position.clone()).await?;
        self.publish(self.incarnation.first_epoch, ChangeBatch::Committed(position)).await
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        self.session.end().await
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
    /// Between the subscription and the API.
    queue: Option<Arc<FeedQueue>>,
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
            trouble: state.trouble.clone().or_else(|| state.queue.as_ref()?.trouble()),
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

/// Follows a generation whose pipeline runs in another process.
#[derive(Clone)]
pub struct RemoteChanges {
    store: Arc<dyn ViewReader>,
    broadcast: Arc<dyn Broadcast>,
    generations: Arc<dyn Generations>,
    generation: String,
    stream: Arc<ChangeStream>,
    runtime: Handle,
}

/// How far a subscription is. Locked while a unit is queued or a snapshot taken, so that the two fit together.
struct Cursor {
    incarnation: u64,
    position: Position,
}

impl ChangeSource for RemoteChanges {
    fn changes(&self) -> Result<(Snapshot, ChangeFeed), StoreError> {
        let (subscription, cursor) = self.runtime.block_on(self.subscribe())?;
        let snapshot = self.snapshot(&cursor)?;
        self.stream.advanced(&cursor.position);
        let (queue, cursor) = (Arc::new(FeedQueue::default()), Arc::new(Mutex::new(cursor)));
        self.stream.state.lock().queue = Some(Arc::clone(&queue));
        let _entered = self.runtime.enter();
        vital_task("the change feed subscriber", self.clone().follow(subscription, Arc::clone(&cursor), Arc::clone(&queue)));
        let (source, restarted) = (self.clone(), Arc::clone(&queue));
        let take_snapshot = move || {
            let cursor = cursor.lock();
            restarted.restart();
            source.stream.state.lock().reloads += 1;
            metrics::counter!("changes_read_anew_total").increment(1);
            source.snapshot(&cursor)
        };
        Ok((snapshot, ChangeFeed::new(queue, Box::new(take_snapshot))))
    }
}

impl RemoteChanges {
    /// Of a generation and its store; runs on the current runtime.
    pub fn new(
        store: Arc<dyn ViewReader>,
        broadcast: Arc<dyn Broadcast>,
        generations: Arc<dyn Generations>,
        generation: &str,
    ) -> Self {
        let (generation, runtime) = (generation.to_owned(), Handle::current());
        Self { store, broadcast, generations, generation, stream: Arc::default(), runtime }
    }

    /// The state of its subscription.
    pub fn stream(&self) -> Arc<ChangeStream> {
        Arc::clone(&self.stream)
    }

    /// Subscribes, then looks from where the messages continue.
    async fn subscribe(&self) -> Result<(Box<dyn Subscription>, Cursor), StoreError> {
        let unavailable = |error: LogError| StoreError::Unavailable(error.to_string());
        let subscription = self.broadcast.subscribe().await.map_err(unavailable)?;
        let generations = self.generations.list().await?;
        let ours = generations.into_iter().find(|generation| generation.name == self.generation);
        let ours = ours.ok_or_else(|| StoreError::Refused(format!("generation {} was dropped", self.generation)))?;
        // Listed after subscribing, so that no later commit is missed. The store's own frontier may be old.
        Ok((subscription, Cursor { incarnation: ours.incarnation, position: ours.frontier.position }))
    }

    /// A snapshot at least as new as the cursor. A rewrite may be under way: its end is published.
    fn snapshot(&self, cursor: &Cursor) -> Result<Snapshot, StoreError> {
        let Snapshot { frontier, rows } = self.store.snapshot()?;
        Ok(Snapshot { frontier: Frontier { position: cursor.position.clone(), unfinished: false, ..frontier }, rows })
    }

    /// Queues what is published, until the queue is closed.
    async fn follow(self, mut subscription: Box<dyn Subscription>, cursor: Arc<Mutex<Cursor>>, queue: Arc<FeedQueue>) {
        while !queue.is_closed() {
            if queue.is_filling() {
                tokio::time::sleep(CHECK_INTERVAL / 100).await;
                continue;
            }
            let whole = match tokio::time::timeout(CHECK_INTERVAL, subscription.next()).await {
                Ok(Some(Heard::Message(message))) => self.handle(&message, &mut cursor.lock(), &queue),
                Ok(Some(Heard::Lost) | None) => false,
                Err(_) => true,
            };
            if whole && !self.stream.is_stale(&self.store.frontier().position) {
                continue;
            }
            tracing::info!("change feed gap; reloading from a snapshot");
            while !queue.is_closed() {
                match self.subscribe().await {
                    Ok((again, from)) => {
                        subscription = again;
                        let mut cursor = cursor.lock();
                        *cursor = from;
                        self.stream.state.lock().missing = None;
                        self.stream.advanced(&cursor.position);
                        queue.lose();
                        break;
                    }
                    Err(error) => self.stream.trouble(error.to_string()),
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Passes a message on; false after a gap.
    fn handle(&self, message: &[u8], cursor: &mut Cursor, queue: &FeedQueue) -> bool {
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
                queue.lose();
                return true;
            }
        };
        queue.push(&EpochChanges { epoch: message.epoch, position: cursor.position.clone(), changes: changes.into() });
        self.stream.advanced(&cursor.position);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use kindred_log::broadcast::InMemory;
    use kindred_model::Topic;
    use kindred_model::units::EventTime;
    use kindred_store::embedded::EmbeddedStore;
    use kindred_store::feed::ChangeEvent;
    use kindred_store::generations::Generation;

    use super::*;

    const TABLE: &str = kindred_api::FOLLOWED_TABLES[0];

    /// The one generation of an embedded store, under the incarnation of the test.
    struct One(AtomicU64, Arc<EmbeddedStore>);

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
            Err(StoreError::Refused("read-only".to_owned()))
        }
        async fn live(&self) -> Result<Option<String>, StoreError> {
            Ok(Some("g1".to_owned()))
        }
        async fn promote(&self, _: &str) -> Result<Option<String>, StoreError> {
            Err(StoreError::Refused("read-only".to_owned()))
        }
        async fn drop(&self, _: &str) -> Result<(), StoreError> {
            Err(StoreError::Refused("read-only".to_owned()))
        }
    }

    /// Notes what a feed brings, a line each.
    fn record(feed: &ChangeFeed, lines: &Mutex<Vec<String>>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        loop {
            let line = match feed.next(Duration::from_secs(60)) {
                ChangeEvent::Unit(unit) => {
                    let row =
                        |change: &Change| format!("{}={}", text(&change.key), change.row.as_deref().map_or("-".to_owned(), text));
                    let rows: Vec<String> = unit.changes.iter().map(row).collect();
                    format!("{} at {}", rows.join(" "), unit.position)
                }
                ChangeEvent::Reset(snapshot) => {
                    let row = snapshot.rows.get(TABLE, b"k").unwrap().unwrap_or_default();
                    format!("reset k={} at {}", text(&row), snapshot.frontier.position)
                }
                ChangeEvent::Idle => continue,
                ChangeEvent::Ended => return,
            };
            lines.lock().push(line);
        }
    }

    struct Pair {
        store: Arc<EmbeddedStore>,
        broadcast: Arc<dyn Broadcast>,
        published: PublishingSession,
        followed: RemoteChanges,
        queue: Arc<FeedQueue>,
        lines: Arc<Mutex<Vec<String>>>,
        _dir: tempfile::TempDir,
    }

    impl Pair {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
            let broadcast: Arc<dyn Broadcast> = Arc::new(InMemory::default());
            let published = Self::pipeline(&store, &broadcast, "g1", 5).await;
            let generations = Arc::new(One(AtomicU64::new(5), Arc::clone(&store)));
            let followed = RemoteChanges::new(Arc::clone(&store) as _, Arc::clone(&broadcast), generations, "g1");
            let (_, feed) = tokio::task::block_in_place(|| followed.changes()).unwrap();
            let (queue, lines) = (feed.queue(), Arc::new(Mutex::new(Vec::new())));
            let recorded = Arc::clone(&lines);
            std::thread::spawn(move || record(&feed, &recorded));
            Self { store, broadcast, published, followed, queue, lines, _dir: dir }
        }

        async fn pipeline(
            store: &Arc<EmbeddedStore>,
            broadcast: &Arc<dyn Broadcast>,
            generation: &str,
            number: u64,
        ) -> PublishingSession {
            let (writer, broadcast) = (Arc::clone(store) as _, Arc::clone(broadcast));
            let publisher = Publisher { writer, broadcast, generation: generation.to_owned() };
            let mut session = publisher.session(store.begin().await.unwrap());
            session.incarnation.number = number;
            session
        }

        /// Waits for as many lines and compares them.
        async fn receives(&self, wanted: &[&str]) {
            for _ in 0..500 {
                if self.lines.lock().len() >= wanted.len() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(*self.lines.lock(), wanted);
        }

        /// Waits until a line has come since the last call and the position is reached, after so many reloads.
        async fn reloads(&self, reloads: u64, begins: &str, position: &Position) {
            let came = || {
                let lines = self.lines.lock();
                let reached = lines.last().is_some_and(|line| line.ends_with(&format!(" at {position}")));
                reached && lines.iter().any(|line| line.starts_with(begins)) && self.queue.is_drained()
            };
            for _ in 0..500 {
                if came() && self.followed.stream().status().reloads == reloads {
                    return self.lines.lock().clear();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{begins} at {position} did not come: {:?}, {reloads} reloads", self.lines.lock());
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            self.queue.close();
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
        let open = |name: &str| Arc::new(EmbeddedStore::open(&dir.path().join(name)).unwrap());
        let (believed, row) = (open("believed"), open("row"));
        row.begin().await.unwrap().commit(1, at(7)).await.unwrap();
        let generations = Arc::new(One(AtomicU64::new(5), row));
        let followed = RemoteChanges::new(believed, Arc::new(InMemory::default()), generations, "g1");
        let (snapshot, _feed) = tokio::task::block_in_place(|| followed.changes()).unwrap();
        assert_eq!(snapshot.frontier.position, at(7));
    }

    /// If this failed, an API in another process would miss a unit.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_feed_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let broadcast: Arc<dyn Broadcast> = Arc::new(InMemory::default());
        let generations = Arc::new(One(AtomicU64::new(0), Arc::clone(&store)));
        let followed = RemoteChanges::new(Arc::clone(&store) as _, Arc::clone(&broadcast), generations, "g1");
        let publisher = Publisher { writer: store, broadcast, generation: "g1".to_owned() };
        kindred_store::conformance::run_feed(&publisher, &followed).await;
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
    }

    /// If this failed, a replaced pipeline, or a replay of another generation, could change what an API serves.
    #[tokio::test(flavor = "multi_thread")]
    async fn replaced_incarnations_are_ignored() {
        let pair = Pair::new().await;
        let old = Pair::pipeline(&pair.store, &pair.broadcast, "g1", 4).await;
        let replay = Pair::pipeline(&pair.store, &pair.broadcast, "g2", 9).await;
        let new = Pair::pipeline(&pair.store, &pair.broadcast, "g1", 6).await;
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
        let many: Vec<Change> = (0..=ROWS_PUBLISHED_MAX).map(|n| row(&format!("r{n}"), "1")).collect();
        pair.published.write(1, many.into()).await.unwrap();
        pair.reloads(1, "reset k=", &Position::beginning()).await;

        pair.published.clear(&[TABLE]).await.unwrap();
        pair.published.apply(EpochChanges { epoch: 2, position: at(2), changes: vec![row("k", "2")].into() }).await.unwrap();
        pair.reloads(2, "reset k=2", &at(2)).await;

        pair.broadcast.publish(b"nonsense".to_vec()).await.unwrap();
        pair.reloads(3, "reset k=2", &at(2)).await;
        pair.published.apply(EpochChanges { epoch: 3, position: at(3), changes: vec![row("k", "3")].into() }).await.unwrap();
        pair.reloads(3, "k=3", &at(3)).await;

        // The store has been ahead of the subscriber for too long: a message was lost.
        let since = Instant::now().checked_sub(STALE_AFTER + Duration::from_secs(1)).unwrap();
        pair.followed.stream().state.lock().missing = Some((at(9), since));
        assert!(!pair.followed.stream().status().is_fresh());
        pair.reloads(4, "reset k=3", &at(3)).await;
        assert!(pair.followed.stream().status().is_fresh());
    }

    /// If this failed, brokers would refuse a large unit and the pipeline would end.
    #[tokio::test]
    async fn large_units_are_published_in_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let broadcast: Arc<dyn Broadcast> = Arc::new(InMemory::default());
        let mut subscription = broadcast.subscribe().await.unwrap();
        let published = Pair::pipeline(&store, &broadcast, "g1", 1).await;
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
