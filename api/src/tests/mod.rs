//! The API as its callers see it, over the embedded log and store. The test replaces the pipeline: it applies the units of a
//! sink, and where a test waits for a post, [`Bench::follow_members`] merges that topic.

mod accounts;
mod admin;
mod auth;
mod errors;
mod events;
mod fuzz;
mod generations;
mod inbox;
mod keys;
mod lists;
mod members;
mod public_costs;
mod security;
mod sockets;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use kindred_clock::Clock;
use kindred_config::ApiLimits;
use kindred_log::embedded::EmbeddedLog;
use kindred_log::{EventLog, Share};
use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::loyalty::Lot;
use kindred_model::records::{CatalogRecord, MemberRecord, Record, Rules};
use kindred_model::views::Table;
use kindred_model::views::also_bought::{Lists, Neighbors, Supports, baskets_key};
use kindred_model::views::inputs::{Canonical, Catalog, Members, Orders};
use kindred_model::views::member_orders::MemberOrders;
use kindred_model::views::points::{Difference, Earned, Points};
use kindred_model::views::popularity::Popularity;
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, Position, Semantics, Topic};
use kindred_store::embedded::EmbeddedStore;
use kindred_store::keys::{KeyStore, Scope};
use kindred_store::records::embedded::EmbeddedRecords;
use kindred_store::{Change, EpochChanges, ViewReader, ViewWriter, WriteSession};
use serde_json::{Value, json};
use tokio::sync::watch;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::api::Api;
use crate::context::{ApiConfig, Check, Context, GenerationSource, OperationError, Operations, VerifiedTable, VerifyReport};
use crate::recommend::Memory;

/// 2026-01-05T10:11:12.123Z.
const NOW: EventTime = EventTime(1_767_607_872_123);
const ORIGIN: &str = "https://shop.example";

/// A fake process behind the API: records each call.
#[derive(Default)]
struct Process {
    busy: AtomicBool,
    unready: AtomicBool,
    repairs: AtomicU64,
}

#[async_trait]
impl Operations for Process {
    async fn status(&self) -> Value {
        json!({ "epoch": 7 })
    }

    async fn verify(&self, repair: bool, _first: usize) -> Result<VerifyReport, OperationError> {
        if self.busy.load(Ordering::Relaxed) {
            return Err(OperationError::Busy("a verify is under way".to_owned()));
        }
        self.repairs.fetch_add(u64::from(repair), Ordering::Relaxed);
        let table = VerifiedTable { table: "points".to_owned(), rows: 3, differences: 1, first: vec!["m1".to_owned()] };
        Ok(VerifyReport { ok: false, repaired: repair, tables: vec![table], ..VerifyReport::default() })
    }

    fn readiness(&self) -> Vec<Check> {
        let ready = !self.unready.load(Ordering::Relaxed);
        vec![Check { name: "pipeline".to_owned(), ready, detail: "running".to_owned() }]
    }
}

/// An API and its dependencies.
struct Bench {
    log: Arc<dyn EventLog>,
    store: Arc<EmbeddedStore>,
    session: Box<dyn WriteSession>,
    records: Arc<EmbeddedRecords>,
    process: Arc<Process>,
    clock: Clock,
    context: Context,
    config: ApiConfig,
    api: Arc<Api>,
    public: BoxedFilter<(Response,)>,
    service: String,
    publishable: String,
    epoch: AtomicU64,
    stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    async fn limited(limits: impl FnOnce(&mut ApiLimits)) -> Self {
        Self::with(limits, |_| {}).await
    }

    async fn with(limits: impl FnOnce(&mut ApiLimits), settings: impl FnOnce(&mut Semantics)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&dir.path().join("log")).unwrap());
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        Self::over(log, store, dir, limits, settings).await
    }

    async fn over(
        log: Arc<dyn EventLog>,
        store: Arc<EmbeddedStore>,
        dir: tempfile::TempDir,
        limits: impl FnOnce(&mut ApiLimits),
        settings: impl FnOnce(&mut Semantics),
    ) -> Self {
        let clock = Clock::fixed(NOW);
        let records = Arc::new(EmbeddedRecords::open(&dir.path().join("records")).unwrap());
        let keys = Arc::new(KeyStore::open(records.clone()).await.unwrap());
        let service = keys.create_service("shop server", NOW).await.unwrap().token;
        let scopes = [Scope::ListsRead, Scope::EventsWrite];
        let publishable = keys.create_publishable("pages", &[ORIGIN.to_owned()], &scopes, 60_000, NOW).await.unwrap().token;
        let process = Arc::new(Process::default());
        let mut semantics = Semantics::default();
        settings(&mut semantics);
        let settings = Arc::new(semantics);
        let context = Context {
            log: log.clone(),
            live: Some(source(&store, &settings)),
            keys,
            settings,
            operations: process.clone(),
            generations: None,
            members: None,
            clock: clock.clone(),
            render_metrics: Some(Arc::new(|| "up 1\n".to_owned())),
            extra: None,
        };
        let mut config = ApiConfig { listen: ([127, 0, 0, 1], 0).into(), ..ApiConfig::default() };
        limits(&mut config.limits);
        let (stop, stopping) = watch::channel(false);
        let api = crate::prepare(config.clone(), context.clone(), stopping).await.unwrap();
        let public = crate::routes::public(&api);
        let (epoch, session) = (AtomicU64::new(0), store.begin().await.unwrap());
        Self {
            log,
            store,
            session,
            records,
            process,
            clock,
            context,
            config,
            api,
            public,
            service,
            publishable,
            epoch,
            stop,
            _dir: dir,
        }
    }

    /// Applies one unit, as the sink would.
    async fn apply(&self, changes: Vec<Change>) {
        self.apply_at(self.store.frontier().position, changes).await;
    }

    async fn apply_at(&self, position: Position, changes: Vec<Change>) {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        self.session.apply(EpochChanges { epoch, position, changes: changes.into() }).await.unwrap();
        while !self.store.feeds_are_drained() {
            tokio::task::yield_now().await;
        }
    }

    /// Moves the clock a day on, and waits until the memories have followed.
    async fn next_day(&self, memories: &[&Memory]) {
        self.clock.advance(Duration::from_secs(86_400));
        while memories.iter().any(|memory| memory.published().today != self.clock.today()) {
            tokio::task::yield_now().await;
        }
    }

    /// Sets the list of an item and all supports.
    async fn apply_list(&self, item: &str, neighbors: &[(&str, u64)], supports: &[(&str, u64)]) {
        let mut changes = vec![list(item, neighbors)];
        changes.extend(supports.iter().map(|(item, n)| support(item, *n)));
        self.apply(changes).await;
    }

    /// A request with the service key.
    fn request(&self, method: Method, path: &str) -> warp::test::RequestBuilder {
        warp::test::request().method(method.as_str()).path(path).header("authorization", format!("Bearer {}", self.service))
    }

    async fn get(&self, path: &str) -> http::Response<bytes::Bytes> {
        self.request(Method::GET, path).reply(&self.public).await
    }

    async fn post(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> http::Response<bytes::Bytes> {
        self.request(Method::POST, path).header("content-type", content_type).body(body).reply(&self.public).await
    }

    /// Acts as the pipeline of the topic `members`, until the bench is dropped.
    fn follow_members(&self) -> tokio::task::JoinHandle<()> {
        let (log, store) = (self.log.clone(), self.store.clone());
        let mut stopping = self.stop.subscribe();
        tokio::spawn(async move {
            let session = store.begin().await.unwrap();
            let mut reader = log.reader(Share::ALL).unwrap();
            let mut epoch = 1_000;
            while !*stopping.borrow_and_update() {
                let mut records = Vec::new();
                reader.poll(100, Duration::ZERO, &mut records).unwrap();
                if records.is_empty() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                let mut position = store.frontier().position;
                let mut changes = Vec::new();
                for record in records {
                    position.join(&record.place.position());
                    if record.place.topic == Topic::Members {
                        let record = MemberRecord::decode(&record.payload).unwrap();
                        changes.push(change::<Members>(&record.key(), Some(&Canonical(record.canonical().into()))));
                    }
                }
                epoch += 1;
                session.apply(EpochChanges { epoch, position, changes: changes.into() }).await.unwrap();
            }
        })
    }
}

fn source(store: &Arc<EmbeddedStore>, settings: &Arc<Semantics>) -> GenerationSource {
    GenerationSource { store: store.clone(), changes: Some(store.clone()), settings: settings.clone() }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn change<T: Table>(key: &T::Key, row: Option<&T::Row>) -> Change {
    let encoded = row.map(|row| {
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        bytes
    });
    Change { table: T::NAME, key: key.to_bytes(), row: encoded }
}

fn item(text: &str) -> ItemId {
    ItemId::parse(text).unwrap()
}

fn list(of: &str, neighbors: &[(&str, u64)]) -> Change {
    let row = Neighbors(neighbors.iter().map(|(j, c)| (item(j), *c)).collect());
    change::<Lists>(&item(of), (!neighbors.is_empty()).then_some(&row))
}

fn support(of: &str, n: u64) -> Change {
    change::<Supports>(&item(of), (n > 0).then_some(&n))
}

fn baskets(n: u64) -> Change {
    change::<Supports>(&baskets_key(), Some(&n))
}

fn card(json: Value) -> Change {
    let record = CatalogRecord::decode(json.to_string().as_bytes()).unwrap();
    change::<Catalog>(&record.item, Some(&Canonical(record.canonical().into())))
}

fn owners(of: &str, kind: Kind, day: Day, n: u64) -> Change {
    change::<Popularity>(&(item(of), kind, day), (n > 0).then_some(&n))
}

fn body(response: &http::Response<bytes::Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|error| panic!("{error}: {:?}", response.body()))
}

fn header<'r>(response: &'r http::Response<bytes::Bytes>, name: &str) -> &'r str {
    response.headers().get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
}

fn items(response: &http::Response<bytes::Bytes>) -> Vec<String> {
    let body = body(response);
    body["items"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap().to_owned()).collect()
}

/// Reads page after page, from a path with a query, and checks their links; `page` sees each.
async fn pages(
    path: &str,
    get: impl AsyncFn(&str) -> http::Response<bytes::Bytes>,
    mut page: impl AsyncFnMut(&http::Response<bytes::Bytes>),
) {
    let (_, query) = path.split_once('?').expect("a query");
    let mut next = path.to_owned();
    loop {
        let answer = get(&next).await;
        page(&answer).await;
        let Some(cursor) = body(&answer)["next_cursor"].as_str().map(str::to_owned) else {
            assert!(!answer.headers().contains_key("link"));
            return;
        };
        assert_eq!(header(&answer, "link"), format!("<?{query}&cursor={cursor}>; rel=\"next\""));
        next = format!("{path}&cursor={cursor}");
    }
}

/// Checks that an answer is a complete problem of this status and code.
fn assert_problem(response: &http::Response<bytes::Bytes>, status: u16, code: &str, context: &str) -> Value {
    let problem = body(response);
    assert_eq!(response.status(), status, "{context}: {problem}");
    assert_eq!(header(response, "content-type"), "application/problem+json", "{context}");
    assert_eq!(problem["code"], code, "{context}: {problem}");
    assert_eq!(problem["type"], format!("/problems/{code}"), "{context}");
    assert_eq!(problem["status"], status, "{context}");
    for field in ["title", "detail", "instance"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{context}: {field} is missing: {problem}");
    }
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32, "{context}");
    assert_secured(response, context);
    problem
}

fn assert_secured(response: &http::Response<bytes::Bytes>, context: &str) {
    assert_eq!(header(response, "x-content-type-options"), "nosniff", "{context}");
    assert_eq!(header(response, "referrer-policy"), "no-referrer", "{context}");
    assert_eq!(header(response, "content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{context}");
}

/// One valid view of a session.
fn view(session: &str, item: &str) -> Value {
    json!({ "session": session, "kind": "view", "item": item, "at": "2026-01-05T10:00:00Z" })
}

/// A record as the log has it.
async fn logged(log: &Arc<dyn EventLog>) -> Vec<(Topic, Record)> {
    let mut reader = log.reader(Share::ALL).unwrap();
    let mut records = Vec::new();
    reader.poll(100_000, Duration::ZERO, &mut records).unwrap();
    let rules = Semantics::default().rules();
    records.iter().map(|r| (r.place.topic, Record::decode(r.place.topic, &r.payload, &rules).unwrap())).collect()
}

/// An order of a member as the sink writes it: the merged record and its place among those of the member.
fn ordered(json: &Value) -> Vec<Change> {
    let Record::Order(order) = Record::decode(Topic::Orders, json.to_string().as_bytes(), &Rules::default()).unwrap() else {
        unreachable!("an order");
    };
    let place = MemberOrders::key(&order).expect("of a member");
    vec![change::<Orders>(&order.order, Some(&Canonical(order.canonical().into()))), change::<MemberOrders>(&place, Some(&()))]
}

fn member(text: &str) -> MemberId {
    MemberId::parse(text).unwrap()
}

/// Points earned long ago: by invites, and by items with the day from which they are available.
fn earnings(from_invites: i64, from_items: &[(Day, i64)]) -> Earned {
    let long_ago = Day(10_000);
    let of = |available_from, points, from_invites| Difference {
        lot: Lot { known_from: long_ago, available_from, expires_on: None },
        points,
        level_points: 0,
        from_invites,
    };
    let items = from_items.iter().map(|(day, points)| of(*day, *points, 0));
    Earned { differences: std::iter::once(of(long_ago, from_invites, from_invites)).chain(items).collect() }
}

fn earned(of: &str, row: &Earned) -> Change {
    change::<Points>(&member(of), Some(row))
}
