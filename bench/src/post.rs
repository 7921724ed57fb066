//! Posts events in an open loop, and measures for a sample how long it takes until the list that shows them is served.
//!
//! ```text
//! due ──▶ POST /v1/events/{topic} ──202, position──▶ GET …/similar?min_position= ──200, as of a position that reaches it──▶ shown
//!  └───────────────────────────── the latency that is reported ──────────────────────────────────────────────────────┘
//! ```
//!
//! A reader with `min_position` gets the list as soon as it includes the event: what a shop that reads its own writes sees, two
//! round trips included. A stream would show less for unchanged lists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use kindred_model::{Position, Topic};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::http::{Connection, get, post};
use crate::pace;
use crate::report::{latencies, record};
use crate::server::Endpoint;
use crate::synthetic::{Entry, Mix, Plan, ShopLog, item_id, purchase_record, purchases};

/// Wait for a position in one read.
const WAIT_MS: u64 = 5_000;
/// An event not shown by then fails the run.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Records of one topic in one request, and an item whose list shows one of them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Their topic.
    pub topic: Topic,
    /// NDJSON.
    pub body: Vec<u8>,
    /// Their number.
    pub records: usize,
    /// The item of the last one.
    pub item: String,
}

/// Live traffic that continues a preloaded log.
pub struct Traffic {
    entries: Box<dyn Iterator<Item = Entry> + Send>,
    /// Records waiting for a full batch of their topic.
    waiting: BTreeMap<Topic, (Vec<u8>, usize)>,
    batch: usize,
}

impl Traffic {
    /// Purchases after those of `plan`.
    pub fn purchases(plan: &Plan, batch: usize) -> Self {
        let entries = purchases(plan).skip(plan.events).map(|purchase| Entry {
            at: purchase.at,
            topic: Topic::Interactions,
            json: purchase_record(purchase).to_json(),
        });
        Self { entries: Box::new(entries), waiting: BTreeMap::new(), batch: batch.max(1) }
    }

    /// The whole product's log, of the same shop under another seed, so that nothing repeats the preload.
    pub fn whole(plan: &Plan, mix: Mix, batch: usize) -> Self {
        let entries = ShopLog::new(&Plan { seed: plan.seed ^ 0x11fe, ..*plan }, mix);
        Self { entries: Box::new(entries), waiting: BTreeMap::new(), batch: batch.max(1) }
    }

    /// The next full batch.
    pub fn next_batch(&mut self) -> Batch {
        loop {
            let entry = self.entries.next().expect("a log without end");
            let (body, records) = self.waiting.entry(entry.topic).or_default();
            body.extend_from_slice(&entry.json);
            body.push(b'\n');
            *records += 1;
            if *records == self.batch {
                let records = std::mem::take(records);
                return Batch { topic: entry.topic, body: std::mem::take(body), records, item: item_of(&entry.json) };
            }
        }
    }
}

/// The first item of a record; the most popular one if it has none (a search, a sign-in).
fn item_of(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    let named = text.split_once("\"item\":\"").and_then(|(_, rest)| rest.split_once('"'));
    named.map_or_else(|| item_id(0).as_str().to_owned(), |(item, _)| item.to_owned())
}

/// The rate of posting.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events a second.
    pub rate: f64,
    /// Events a request.
    pub batch: usize,
    /// For how long.
    pub lasting: Duration,
    /// One in this many requests is followed to its list; 0 for none.
    pub sample_each: u64,
    /// Connections for posting, and as many for reading.
    pub connections: usize,
}

/// The result of posting.
#[derive(Debug)]
pub struct Posted {
    /// From when a request was due to its 202.
    pub accepted: Histogram<u64>,
    /// From when a request was due to the list with its last event.
    pub shown: Histogram<u64>,
    /// For each followed event: seconds since the start, milliseconds until it was shown.
    pub over_time: Vec<(f64, f64)>,
    /// Accepted events.
    pub events: u64,
    /// Reads repeated because the event was not included yet.
    pub repeated: u64,
    /// The duration.
    pub took: Duration,
}

impl Posted {
    fn new() -> Self {
        Self { accepted: latencies(), shown: latencies(), over_time: Vec::new(), events: 0, repeated: 0, took: Duration::ZERO }
    }

    fn add(&mut self, other: Self) {
        self.accepted.add(&other.accepted).expect("the same bounds");
        self.shown.add(&other.shown).expect("the same bounds");
        self.over_time.extend(other.over_time);
        self.events += other.events;
        self.repeated += other.repeated;
    }

    /// Accepted events a second.
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

/// Posts batches over one connection.
pub struct Poster {
    endpoint: Endpoint,
    connection: Connection,
}

impl Poster {
    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn open(endpoint: &Endpoint) -> Result<Self> {
        Ok(Self { endpoint: endpoint.clone(), connection: connect(endpoint).await? })
    }

    /// Posts a batch and returns the position after it.
    ///
    /// # Errors
    /// When a record is not accepted.
    pub async fn post(&mut self, batch: &Batch) -> Result<Position> {
        let Endpoint { address, key } = &self.endpoint;
        let path = format!("/v1/events/{}", batch.topic);
        let request = post(&path, *address, Some(key), "application/x-ndjson", &batch.body);
        let response = self.connection.exchange(&request).await.context("posting events")?;
        let body = String::from_utf8_lossy(response.body);
        ensure!(response.status == 202, "POST {path} answered {}: {body}", response.status);
        let receipt: Receipt = serde_json::from_str(&body).with_context(|| format!("POST {path} answered {body}"))?;
        ensure!(receipt.rejected == 0, "POST {path} turned {} records away: {body}", receipt.rejected);
        Ok(receipt.position.parse()?)
    }
}

/// Reads lists over its own connection, so that waiting reads delay no post.
pub struct Reader {
    endpoint: Endpoint,
    connection: Connection,
}

impl Reader {
    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn open(endpoint: &Endpoint) -> Result<Self> {
        Ok(Self { endpoint: endpoint.clone(), connection: connect(endpoint).await? })
    }

    /// The unfilled list of an item that includes everything before `position`, as JSON, and the number of retries.
    ///
    /// # Errors
    /// When it is not served within a minute.
    pub async fn list_at(&mut self, item: &str, position: &Position) -> Result<(Vec<u8>, u64)> {
        let began = Instant::now();
        let Endpoint { address, key } = &self.endpoint;
        let path = format!("/v1/items/{item}/similar?limit=20&fill=false&min_position={position}&wait_ms={WAIT_MS}");
        let request = get(&path, *address, Some(key));
        let mut repeated = 0;
        loop {
            let response = self.connection.exchange(&request).await.context("reading a list")?;
            match response.status {
                200 => {
                    let as_of = response.header("kindred-as-of").and_then(|as_of| as_of.split(';').next());
                    let reached: Option<Position> = as_of.and_then(|position| position.trim().parse().ok());
                    let reached = reached.context("the answer does not say how far it reaches (Kindred-As-Of)")?;
                    ensure!(
                        reached.reaches(position),
                        "asked for {position}, the server answered as of {reached}: freshness cannot be measured on that"
                    );
                    return Ok((response.body.to_vec(), repeated));
                }
                // Not reached in time: retry while the clock runs.
                503 if began.elapsed() < GIVEN_UP => repeated += 1,
                status => bail!("GET {path} answered {status}: {}", String::from_utf8_lossy(response.body)),
            }
        }
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Connection> {
    Connection::open(endpoint.address).await.with_context(|| format!("could not connect to {}", endpoint.address))
}

#[derive(serde::Deserialize)]
struct Receipt {
    rejected: u64,
    position: String,
}

/// An accepted event that is followed to its list.
struct Followed {
    due: pace::Due,
    item: String,
    position: Position,
}

/// Posts in an open loop until the time is over or `stop` is set.
///
/// # Errors
/// When a post is not accepted or an event not shown within a minute.
pub async fn run(endpoint: &Endpoint, traffic: Traffic, pace: Pace, stop: Arc<AtomicBool>) -> Result<Posted> {
    ensure!(pace.batch > 0, "a batch has at least one event");
    let (mut posters, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..pace.connections.max(1) {
        posters.push(Poster::open(endpoint).await?);
        readers.push(Reader::open(endpoint).await?);
    }
    let traffic = Arc::new(Mutex::new(traffic));
    let began = Instant::now();
    let lanes = pace::start(pace.rate / pace.batch as f64, pace.lasting, posters.len(), Arc::clone(&stop))?;
    let mut tasks: Vec<JoinHandle<Result<Posted>>> = Vec::new();
    for ((mut poster, mut lane), mut reader) in posters.into_iter().zip(lanes).zip(readers) {
        let (give, mut take) = mpsc::unbounded_channel::<Followed>();
        let (traffic, stops) = (Arc::clone(&traffic), StopOnFailure(Arc::clone(&stop)));
        tasks.push(tokio::spawn(async move {
            let mut posted = Posted::new();
            while let Some(due) = lane.recv().await {
                let batch = traffic.lock().expect("no task panics while it draws").next_batch();
                let position = poster.post(&batch).await?;
                record(&mut posted.accepted, due.at.elapsed());
                posted.events += batch.records as u64;
                if pace.sample_each > 0 && due.number.is_multiple_of(pace.sample_each) {
                    // A closed reader has failed, which its task reports.
                    let _ = give.send(Followed { due, item: batch.item, position });
                }
            }
            stops.no_failure();
            Ok(posted)
        }));
        let stops = StopOnFailure(Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut posted = Posted::new();
            while let Some(Followed { due, item, position }) = take.recv().await {
                let (_, repeated) = reader.list_at(&item, &position).await?;
                let latency = due.at.elapsed();
                record(&mut posted.shown, latency);
                posted.repeated += repeated;
                posted.over_time.push(((due.at - began).as_secs_f64(), latency.as_secs_f64() * 1e3));
            }
            stops.no_failure();
            Ok(posted)
        }));
    }
    let mut all = Posted::new();
    for task in tasks {
        all.add(task.await.context("a task of the load generator panicked")??);
    }
    all.took = began.elapsed();
    all.over_time.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(all)
}

/// Stops the pacer when its task fails.
struct StopOnFailure(Arc<AtomicBool>);

impl StopOnFailure {
    fn no_failure(self) {
        std::mem::forget(self);
    }
}

impl Drop for StopOnFailure {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warp::Filter;

    use super::*;

    /// A fake API that applies events only after `delay`.
    async fn server(delay: Duration, honest: bool) -> Endpoint {
        let accepted = Arc::new(Mutex::new((0u64, Vec::<Instant>::new())));
        let takes = Arc::clone(&accepted);
        let posts =
            warp::path!("v1" / "events" / "interactions").and(warp::post()).and(warp::body::bytes()).map(move |body: Bytes| {
                let mut accepted = takes.lock().unwrap();
                let records = body.iter().filter(|&&byte| byte == b'\n').count() as u64;
                accepted.0 += records;
                accepted.1.extend((0..records).map(|_| Instant::now()));
                let receipt = format!(r#"{{"accepted":{records},"rejected":0,"position":"i0.{}","results":[]}}"#, accepted.0);
                warp::http::Response::builder().status(202).body(receipt).unwrap()
            });
        let lists = warp::path!("v1" / "items" / String / "similar").and(warp::query::<BTreeMap<String, String>>()).then(
            move |_item: String, query: BTreeMap<String, String>| {
                let accepted = Arc::clone(&accepted);
                async move {
                    let wanted: u64 = query["min_position"].trim_start_matches("i0.").parse().unwrap();
                    let at = accepted.lock().unwrap().1[wanted as usize - 1];
                    tokio::time::sleep_until((at + delay).into()).await;
                    let reached = if honest { wanted } else { wanted - 1 };
                    let as_of = format!("i0.{reached}; time=2026-01-01T00:00:00.000Z");
                    warp::http::Response::builder().header("kindred-as-of", as_of).body("{}").unwrap()
                }
            },
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(posts.or(lists)).incoming(listener).run());
        Endpoint { address, key: "k".to_owned() }
    }

    fn pace() -> Pace {
        Pace { rate: 400.0, batch: 4, lasting: Duration::from_millis(500), sample_each: 5, connections: 4 }
    }

    /// The figure is the time until the list shows the event, not until the post is answered; all events are posted.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn freshness_ends_with_the_list_that_shows_the_event() {
        let endpoint = server(Duration::from_millis(60), true).await;
        let traffic = Traffic::purchases(&Plan { members: 20, items: 20, events: 10, seed: 1 }, 4);
        let posted = run(&endpoint, traffic, pace(), Arc::default()).await.unwrap();
        assert_eq!((posted.events, posted.accepted.len(), posted.shown.len()), (200, 50, 10));
        assert!(posted.shown.min() >= 60_000_000, "{} ns", posted.shown.min());
        assert!(posted.accepted.value_at_quantile(0.5) < 60_000_000);
        assert!(posted.over_time.is_sorted_by_key(|point| point.0));
    }

    /// An answer that does not reach the event does not count, however fast it came.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_answer_that_does_not_reach_the_event_is_an_error() {
        let endpoint = server(Duration::ZERO, false).await;
        let traffic = Traffic::purchases(&Plan { members: 20, items: 20, events: 10, seed: 1 }, 4);
        let error = run(&endpoint, traffic, pace(), Arc::default()).await.unwrap_err();
        assert!(format!("{error:#}").contains("freshness cannot be measured"), "{error:#}");
    }

    #[test]
    fn batches_are_of_one_topic_and_full() {
        let plan = Plan { members: 50, items: 50, events: 10, seed: 1 };
        let mut traffic = Traffic::whole(&plan, Mix::usual(), 20);
        for _ in 0..100 {
            let batch = traffic.next_batch();
            assert_eq!((batch.records, batch.body.iter().filter(|&&byte| byte == b'\n').count()), (20, 20));
            assert!(batch.item.starts_with('i'));
        }
        assert_eq!(item_of(br#"{"member":"m1","kind":"search","query":"x"}"#), "i0");
        assert_eq!(item_of(br#"{"order":"o1","lines":[{"line":1,"item":"i7"},{"line":2,"item":"i8"}]}"#), "i7");
    }
}
