//! The running shop: creates its history once, reads its order book from the log, and simulates shoppers.
//!
//! ```text
//! simulation ──┐                       ┌──▶ book (orders, forgotten members) ──▶ next versions
//!              ├──append──▶ EventLog ──┤
//! the buttons ─┘                       └──▶ ticks ──▶ /demo/stream
//! ```
//!
//! It stands for a shop's own backend: it writes to the log through the port and calls Kindred through [`Backend`], so that the
//! service key stays on this side.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use kindred_log::{EventLog, LogError, LogRecord, Mark, Place, Share};
use kindred_model::records::{MemberRecord, MemberState, OrderRecord, Record, Rules};
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, OrderId, Position, Tier, Topic};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use crate::catalog::Catalog;
use crate::order_book::OrderBook;
use crate::orders::{Due, Step};
use crate::random::Random;
use crate::shoppers::Shopper;
use crate::simulator::{self, Event, History, Live};
use crate::ticker::{Tick, tick};

/// Maximum rate of the simulation, in events a second.
pub const RATE_MAX: u32 = 200;
/// Records per append of the history: few fsyncs, and no long wait for readers.
const CHUNK: usize = 2_000;
/// The interval of the simulation, with one append per topic.
const TICK_MS: u64 = 50;
/// Ticks buffered for a slow page; beyond, it misses some.
const TICKS_KEPT: usize = 512;
/// Names kept of members that joined live; others are called "A member".
const NAMES_MAX: usize = 10_000;
/// The preferred number of orders of an offered member.
const A_HANDFUL: usize = 7;
/// When the parcel of a button's order leaves and arrives: soon enough to be watched.
const SHIP_MS: i64 = 12_000;
const COMPLETE_MS: i64 = 25_000;

/// The calls of the shop's backend to Kindred, with the service key. Answers are the bodies of the API.
#[async_trait]
pub trait Backend: Send + Sync {
    /// `DELETE /v1/members/{member}`.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn forget(&self, member: &MemberId) -> Result<Value, BackendError>;

    /// `GET /v1/members/{member}/points`: an object with `pending` and `available`.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn points(&self, member: &MemberId) -> Result<Value, BackendError>;

    /// `GET /v1/members/{member}/history`.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn history(&self, member: &MemberId) -> Result<Value, BackendError>;

    /// `GET /v1/members/me` with an access token.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn profile(&self, access_token: &str) -> Result<Value, BackendError>;
}

/// A failed call to Kindred.
#[derive(Debug, thiserror::Error)]
#[error("kindred answered {status}: {detail}")]
pub struct BackendError {
    /// The HTTP status; 503 without an answer.
    pub status: u16,
    /// The message for a person.
    pub detail: String,
}

/// A failed action of the shop.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// Not found; the message says what.
    #[error("{0}")]
    NotFound(String),
    /// Not possible in the current state.
    #[error("{0}")]
    Conflict(String),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Kindred failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The settings of the shop.
#[derive(Clone, Debug)]
pub struct ShopConfig {
    /// The seed of the simulation.
    pub seed: u64,
    /// `shop.currency`: the currency of prices and orders.
    pub currency: String,
    /// The publishable key of the page's widget.
    pub publishable_key: String,
    /// The initial rate in events a second, at most [`RATE_MAX`].
    pub rate: u32,
    /// Host names of the page, beside `localhost` and addresses; guards against DNS rebinding.
    pub hosts: Vec<String>,
}

impl Default for ShopConfig {
    fn default() -> Self {
        Self { seed: 1, currency: "EUR".to_owned(), publishable_key: String::new(), rate: 5, hosts: Vec::new() }
    }
}

/// The member of a button: simulated, or signed in.
#[derive(Clone, Debug)]
pub struct Buyer {
    /// The member's id.
    pub member: MemberId,
    /// The tier.
    pub tier: Tier,
}

/// The result of an action.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its order, if any.
    pub order: Option<OrderId>,
    /// The position just after it.
    pub position: Position,
}

/// The shop. Its simulation and its reader end when the last `Arc` is dropped.
pub struct Shop {
    log: Arc<dyn EventLog>,
    backend: Arc<dyn Backend>,
    config: ShopConfig,
    catalog: Catalog,
    shoppers: Vec<Shopper>,
    names: Mutex<HashMap<MemberId, String>>,
    book: Mutex<OrderBook>,
    /// Pending steps of the buttons' orders.
    due: Mutex<Vec<Due>>,
    ticks: broadcast::Sender<Arc<Tick>>,
    rate: AtomicU32,
    caught_up: AtomicBool,
    orders: Mutex<(i64, u32)>,
}

/// Now, as a time of an event.
fn now() -> EventTime {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

impl Shop {
    /// Opens the shop on a log: writes the missing history, reads the book, and starts the simulation.
    ///
    /// The log has marks for the day and the progress of the history, so nothing is written twice.
    ///
    /// # Errors
    /// [`ShopError::Log`] when the log cannot be written or read.
    pub async fn open(log: Arc<dyn EventLog>, backend: Arc<dyn Backend>, config: ShopConfig) -> Result<Arc<Self>, ShopError> {
        let catalog = Catalog::new(config.seed);
        let history = write_history(log.as_ref(), &config, &catalog, now().day()).await?;
        let shop = Arc::new(Self {
            backend,
            names: Mutex::new(simulator::names(&history.shoppers)),
            shoppers: history.shoppers.clone(),
            book: Mutex::default(),
            due: Mutex::default(),
            ticks: broadcast::channel(TICKS_KEPT).0,
            rate: AtomicU32::new(config.rate.min(RATE_MAX)),
            caught_up: AtomicBool::new(false),
            orders: Mutex::new((0, 0)),
            catalog,
            config,
            log,
        });
        shop.read_log().await?;
        let live = Live::new(shop.config.seed, now(), &history, &shop.config.currency);
        tokio::spawn(simulate(Arc::downgrade(&shop), live));
        Ok(shop)
    }

    /// Starts the thread that reads the log, and waits until it reaches the end.
    async fn read_log(self: &Arc<Self>) -> Result<(), ShopError> {
        let mut reader = self.log.reader(Share::ALL)?;
        reader.seek(&Position::beginning())?;
        let end = self.log.end().await?;
        let (done, caught_up) = tokio::sync::oneshot::channel();
        let shop = Arc::downgrade(self);
        let read = move || {
            let (mut done, mut batch) = (Some(done), Vec::new());
            loop {
                if done.is_some() && reader.position().reaches(&end) {
                    let Some(shop) = shop.upgrade() else { return };
                    shop.caught_up.store(true, Ordering::Relaxed);
                    let _ = done.take().map(|done| done.send(()));
                }
                batch.clear();
                if let Err(error) = reader.poll(1_024, Duration::from_millis(200), &mut batch) {
                    warn!(%error, "the demo shop could not read its log and tries again");
                    std::thread::sleep(Duration::from_secs(1));
                }
                let Some(shop) = shop.upgrade() else { return };
                for record in &batch {
                    shop.apply(record);
                }
            }
        };
        std::thread::Builder::new()
            .name("demo-book".to_owned())
            .spawn(read)
            .map_err(|error| LogError::Unavailable(format!("no thread to read it: {error}")))?;
        caught_up.await.map_err(|_| LogError::Unavailable("the demo shop stopped reading it".to_owned()))?;
        Ok(())
    }

    /// Applies one record of the log.
    fn apply(&self, record: &LogRecord) {
        let live = self.caught_up.load(Ordering::Relaxed);
        // While catching up, only records for the book are decoded.
        if record.payload.is_empty() || (!live && matches!(record.place.topic, Topic::Interactions | Topic::Catalog)) {
            return;
        }
        let rules = Rules { currency: self.config.currency.clone() };
        let Ok(record_read) = Record::decode(record.place.topic, &record.payload, &rules) else { return };
        self.book.lock().take(&record_read);
        if let Record::Member(MemberRecord::Member(membership)) = &record_read
            && membership.state == MemberState::Erased
        {
            self.names.lock().remove(&membership.member);
        }
        if live && self.ticks.receiver_count() > 0 {
            let position = record.place.position().to_string();
            let tick = tick(&record_read, position, &self.catalog, &|member| self.names.lock().get(member).cloned());
            let _ = self.ticks.send(Arc::new(tick));
        }
    }

    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>) -> Result<Position, LogError> {
        let places = self.log.append(topic, records, None).await?;
        Ok(reached(&places))
    }

    /// Appends the records topic by topic and removes those written or refused; the rest is for a retry.
    async fn append_all(&self, records: &mut Vec<Record>) -> Result<(), LogError> {
        for topic in Topic::ALL {
            let of_topic: Vec<Vec<u8>> = records.iter().filter(|record| record.topic() == *topic).map(Record::to_json).collect();
            if of_topic.is_empty() {
                continue;
            }
            match self.append(*topic, of_topic).await {
                Err(error @ (LogError::Unavailable(_) | LogError::Full(_))) => return Err(error),
                Err(error) => warn!(%error, "the log refuses events of the demo shop: {topic}"),
                Ok(_) => {}
            }
            records.retain(|record| record.topic() != *topic);
        }
        Ok(())
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The settings.
    pub fn config(&self) -> &ShopConfig {
        &self.config
    }

    /// Events a second.
    pub fn rate(&self) -> u32 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Sets the events a second, at most [`RATE_MAX`]; returns the new rate.
    pub fn set_rate(&self, rate: u32) -> u32 {
        let rate = rate.min(RATE_MAX);
        self.rate.store(rate, Ordering::Relaxed);
        rate
    }

    /// Members offered on the page, without forgotten ones: those with a handful of orders first, whose purchases move lists
    /// most.
    pub fn regulars(&self, limit: usize) -> Vec<&Shopper> {
        let book = self.book.lock();
        let mut regulars: Vec<(usize, &Shopper)> = self
            .shoppers
            .iter()
            .filter(|shopper| !book.is_forgotten(&shopper.member))
            .map(|shopper| (book.orders_of(&shopper.member).len().abs_diff(A_HANDFUL), shopper))
            .collect();
        regulars.sort_by(|a, b| (a.0, &a.1.member).cmp(&(b.0, &b.1.member)));
        regulars.into_iter().take(limit).map(|(_, shopper)| shopper).collect()
    }

    /// The last orders of a member, latest first.
    pub fn orders_of(&self, member: &MemberId) -> Vec<OrderRecord> {
        self.book.lock().orders_of(member).into_iter().cloned().collect()
    }

    /// Events as they are appended.
    pub fn ticks(&self) -> broadcast::Receiver<Arc<Tick>> {
        self.ticks.subscribe()
    }

    fn shopper(&self, member: &MemberId) -> Result<&Shopper, ShopError> {
        let unknown = || ShopError::NotFound(format!("no member {member} shops here"));
        if self.book.lock().is_forgotten(member) {
            return Err(unknown());
        }
        self.shoppers.iter().find(|shopper| shopper.member == *member).ok_or_else(unknown)
    }

    /// A simulated member, for whom any visitor may act.
    ///
    /// # Errors
    /// [`ShopError::NotFound`] for others, members of Kindred included, who need their access token.
    pub fn simulated(&self, member: &MemberId) -> Result<Buyer, ShopError> {
        let shopper = self.shopper(member)?;
        Ok(Buyer { member: shopper.member.clone(), tier: shopper.tier })
    }

    /// The owner of an access token.
    ///
    /// # Errors
    /// [`ShopError::Backend`] if Kindred does not know the token.
    pub async fn signed_in(&self, access_token: &str) -> Result<Buyer, ShopError> {
        let profile = self.backend.profile(access_token).await?;
        let strange = |_| BackendError { status: 502, detail: "the profile is not one".to_owned() };
        let text = |name: &str| profile[name].as_str().unwrap_or_default();
        let member = MemberId::parse(text("member")).map_err(strange)?;
        Ok(Buyer { member, tier: text("tier").parse().map_err(strange)? })
    }

    fn product(&self, item: &ItemId) -> Result<usize, ShopError> {
        self.catalog.number(item).ok_or_else(|| ShopError::NotFound(format!("no item {item} is sold here")))
    }

    /// A member views a product, or adds it to the favourites.
    ///
    /// # Errors
    /// [`ShopError`].
    pub async fn interact(&self, buyer: &Buyer, kind: Kind, item: &ItemId) -> Result<Written, ShopError> {
        let record = simulator::interacted(&self.catalog, &buyer.member, kind, self.product(item)?, now());
        let position = self.append(Topic::Interactions, vec![record.to_json()]).await?;
        Ok(Written { order: None, position })
    }

    /// A member buys a product; paid at once, sent and received within half a minute.
    ///
    /// # Errors
    /// [`ShopError`].
    pub async fn buy(&self, buyer: &Buyer, item: &ItemId, quantity: i64) -> Result<Written, ShopError> {
        let (product, at) = (self.product(item)?, now());
        let order = self.order_number(at);
        let buyer = (&buyer.member, buyer.tier);
        let order = simulator::bought(&self.catalog, &self.config.currency, order, buyer, product, quantity, at);
        let record = Record::Order(order.clone());
        let position = self.append(Topic::Orders, vec![record.to_json()]).await?;
        self.book.lock().take(&record);
        let due = |after_ms, step| Due { at: EventTime(at.0 + after_ms), order: order.order.clone(), step };
        self.due.lock().extend([due(SHIP_MS, Step::Ship), due(COMPLETE_MS, Step::Complete)]);
        Ok(Written { order: Some(order.order), position })
    }

    /// A unique number: the time, and a count within the millisecond.
    fn order_number(&self, at: EventTime) -> String {
        let mut last = self.orders.lock();
        *last = if last.0 == at.0 { (at.0, last.1 + 1) } else { (at.0, 0) };
        format!("b{:x}-{}-{:x}", at.0, last.1, Random::new(self.config.seed ^ at.0.unsigned_abs(), "order").below(1 << 20))
    }

    /// Refunds a whole order: a simulated member's, or `person`'s own.
    ///
    /// # Errors
    /// [`ShopError::Conflict`] if there is nothing to refund.
    pub async fn refund(&self, order: &OrderId, person: Option<&Buyer>) -> Result<Written, ShopError> {
        let known = self.book.lock().order(order).cloned();
        let is_open = |member: &MemberId| match person {
            Some(person) => person.member == *member,
            None => self.shopper(member).is_ok(),
        };
        let before = known.filter(|order| order.member.as_ref().is_some_and(is_open));
        let before = before.ok_or_else(|| ShopError::NotFound(format!("no order {order} is in the book")))?;
        let after = self.book.lock().advance(order, &Step::RefundAll, now());
        let after = after.ok_or_else(|| ShopError::Conflict(format!("order {order} is {}", before.status.name())))?;
        match self.append(Topic::Orders, vec![Record::Order(after.clone()).to_json()]).await {
            Ok(position) => Ok(Written { order: Some(order.clone()), position }),
            Err(error) => {
                // A retry writes the same bytes, in case it was written.
                self.book.lock().revert(&after, before);
                Err(error.into())
            }
        }
    }

    /// A member asks to be forgotten: the shop deletes the name, then calls Kindred.
    ///
    /// # Errors
    /// [`ShopError`].
    pub async fn forget(&self, member: &MemberId) -> Result<Value, ShopError> {
        let member = self.shopper(member)?.member.clone();
        self.names.lock().remove(&member);
        self.book.lock().forget(&member);
        Ok(self.backend.forget(&member).await?)
    }

    /// A member's points in Kindred.
    ///
    /// # Errors
    /// [`ShopError`].
    pub async fn points(&self, member: &MemberId) -> Result<Value, ShopError> {
        self.shopper(member)?;
        Ok(self.backend.points(member).await?)
    }

    /// A member's interactions in Kindred.
    ///
    /// # Errors
    /// [`ShopError`].
    pub async fn history(&self, member: &MemberId) -> Result<Value, ShopError> {
        self.shopper(member)?;
        Ok(self.backend.history(member).await?)
    }

    /// The name of a member, if the shop has it.
    pub fn name(&self, member: &MemberId) -> Option<String> {
        self.names.lock().get(member).cloned()
    }

    /// Due steps of the buttons' orders, independent of the rate.
    fn due_now(&self, at: EventTime) -> Vec<Record> {
        let mut due = self.due.lock();
        let ready: Vec<Due> = due.extract_if(.., |next| next.at <= at).collect();
        drop(due);
        let mut book = self.book.lock();
        ready.iter().filter_map(|next| book.advance(&next.order, &next.step, at)).map(Record::Order).collect()
    }
}

/// The position that includes all places.
fn reached(places: &[Place]) -> Position {
    let mut position = Position::beginning();
    for place in places {
        position.join(&place.position());
    }
    position
}

/// Writes the missing part of the history. The log stores the day of its history.
async fn write_history(log: &dyn EventLog, config: &ShopConfig, catalog: &Catalog, today: Day) -> Result<History, LogError> {
    let name = |part: &str| format!("demo.{}.{part}", config.seed);
    let mark = |part: &str, done: u64| Some(Mark { name: name(part), done });
    let begun = log.mark(&name("day")).await?.and_then(|day| i32::try_from(day).ok()).map(Day);
    let day = begun.unwrap_or(today);
    let history = History::new(config.seed, day, catalog, &config.currency);
    for topic in [Topic::Catalog, Topic::Members, Topic::Orders, Topic::Interactions] {
        let records: Vec<Vec<u8>> =
            history.records.iter().filter(|record| record.topic() == topic).map(Record::to_json).collect();
        if begun.is_none() && topic == Topic::Catalog {
            let day = u64::try_from(day.0).map_err(|_| LogError::Refused("the clock says a day before 1970".to_owned()))?;
            log.append(topic, vec![records[0].clone()], mark("day", day)).await?;
        }
        // The first record of the catalog carries the mark of the day.
        let least = u64::from(topic == Topic::Catalog);
        let done = usize::try_from(log.mark(&name(topic.name())).await?.unwrap_or(0).max(least)).unwrap_or(usize::MAX);
        let mut written = done.min(records.len());
        for chunk in records[written..].chunks(CHUNK) {
            written += chunk.len();
            log.append(topic, chunk.to_vec(), mark(topic.name(), written as u64)).await?;
        }
        if written > done {
            info!(records = written - done, "wrote the shop's history: {topic}");
        }
    }
    Ok(history)
}

/// Runs the simulation at the current rate until the shop is dropped.
async fn simulate(shop: Weak<Shop>, mut live: Live) {
    let mut clock = tokio::time::interval(Duration::from_millis(TICK_MS));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut owed = 0.0;
    let mut records: Vec<Record> = Vec::new();
    loop {
        clock.tick().await;
        let Some(shop) = shop.upgrade() else { return };
        let at = now();
        records.extend(shop.due_now(at));
        owed += f64::from(shop.rate()) * Duration::from_millis(TICK_MS).as_secs_f64();
        while owed >= 1.0 {
            let event = live.next(&shop.catalog, at, &|member| shop.book.lock().is_forgotten(member));
            match event {
                Event::Record(record) => {
                    if let Record::Member(MemberRecord::Member(membership)) = &record
                        && membership.state == MemberState::Registered
                        && let Some(newest) = live.newest()
                    {
                        let mut names = shop.names.lock();
                        if names.len() < NAMES_MAX {
                            names.insert(newest.member.clone(), newest.name.clone());
                        }
                    }
                    // The book has an order before its first step is due.
                    shop.book.lock().take(&record);
                    records.push(record);
                }
                Event::Step(due) => match shop.book.lock().advance(&due.order, &due.step, at.max(due.at)) {
                    Some(next) => records.push(Record::Order(next)),
                    None => continue, // an earlier run took it: it is no event
                },
            }
            owed -= 1.0;
        }
        if let Err(error) = shop.append_all(&mut records).await {
            debug!(%error, waiting = records.len(), "the log did not take events of the demo shop, which tries again");
            owed = 0.0; // what would have happened meanwhile does not
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
