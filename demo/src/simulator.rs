//! The seeded simulation: a history of four weeks, then live shoppers.
//!
//! ```text
//! seed, as-of day ──History::new──▶ records of four weeks, deterministic ──▶ log
//! time passing    ──Live::next────▶ one event after the other ─────────────▶ log
//! ```
//!
//! Both use the same sessions: views, sometimes a basket, sometimes an order, which then runs its course.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use kindred_model::records::{
    Interaction, Line, MemberRecord, OrderRecord, OrderStatus, Payload, Record, Subject, normalise_query,
};
use kindred_model::{Day, EventTime, Kind, MemberId, OrderId, Owner, SessionId, Tier};

use crate::catalog::Catalog;
use crate::orders::{Due, Step};
use crate::random::Random;
use crate::shoppers::Shopper;

/// Days of history before the as-of day.
pub const HISTORY_DAYS: i64 = 28;
/// Visits a day: together some 30,000 interactions and 3,000 orders.
const VISITS_A_DAY: i64 = 258;
/// Concurrent live visits.
const VISITS_AT_ONCE: usize = 24;
/// Live registrations since the start, at most.
const JOINED_MAX: usize = 2_000;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// One action of a visit.
#[derive(Clone, Debug)]
enum Action {
    Interact(Kind, usize),
    Search(String, usize),
    /// Product numbers and quantities.
    Order(Vec<(usize, i64)>),
    /// The anonymous visitor signs in.
    SignIn,
}

/// One visit: its owner and the remaining actions.
#[derive(Clone, Debug)]
struct Visit {
    shopper: usize,
    /// While nobody is signed in.
    session: Option<SessionId>,
    actions: VecDeque<Action>,
}

impl Visit {
    /// `session` is for an anonymous visit.
    fn draw(random: &mut Random, catalog: &Catalog, shopper: usize, who: &Shopper, session: String) -> Self {
        let mut actions = VecDeque::new();
        let anonymous = random.chance(0.14);
        let anchor = who.draw_product(catalog, random);
        if random.chance(0.12) {
            let words: Vec<&str> = catalog.products[anchor].title.split(' ').collect();
            actions.push_back(Action::Search(words[words.len().saturating_sub(2)..].join(" "), anchor));
        }
        actions.push_back(Action::Interact(Kind::View, anchor));
        let mut looked_at = vec![anchor];
        for _ in 0..random.between(0, 4) {
            let last = *looked_at.last().expect("the anchor");
            let next = match catalog.draw_complement(random, last) {
                Some(complement) if random.chance(0.6) => complement,
                _ => who.draw_product(catalog, random),
            };
            if !looked_at.contains(&next) {
                actions.push_back(Action::Interact(Kind::View, next));
                looked_at.push(next);
            }
        }
        if random.chance(0.1) {
            actions.push_back(Action::Interact(Kind::Favorite, *random.pick(&looked_at)));
        }
        if random.chance(0.52) {
            let mut basket = vec![anchor];
            for probability in [0.62, 0.3, 0.12] {
                if let Some(complement) = catalog.draw_complement(random, anchor)
                    && random.chance(probability)
                    && !basket.contains(&complement)
                {
                    basket.push(complement);
                }
            }
            actions.extend(basket.iter().map(|&product| Action::Interact(Kind::Cart, product)));
            if random.chance(0.8) {
                if anonymous {
                    actions.push_back(Action::SignIn);
                }
                let quantity = |random: &mut Random| if random.chance(0.15) { random.between(2, 3) } else { 1 };
                actions.push_back(Action::Order(basket.into_iter().map(|product| (product, quantity(random))).collect()));
            }
        } else if anonymous && random.chance(0.3) {
            actions.push_back(Action::SignIn);
        }
        Self { shopper, session: anonymous.then(|| SessionId::trusted(session)), actions }
    }
}

/// The durations of an order's steps.
#[derive(Clone, Copy)]
struct Pace {
    pay_ms: (i64, i64),
    ship_ms: (i64, i64),
    complete_ms: (i64, i64),
    refund_ms: (i64, i64),
}

/// As in a real shop.
const SHOP_PACE: Pace = Pace {
    pay_ms: (20 * SECOND_MS, 10 * MINUTE_MS),
    ship_ms: (5 * HOUR_MS, 2 * DAY_MS),
    complete_ms: (DAY_MS, 3 * DAY_MS),
    refund_ms: (DAY_MS, 6 * DAY_MS),
};

/// For a demonstration: a parcel arrives while one watches.
const LIVE_PACE: Pace = Pace {
    pay_ms: (SECOND_MS, 5 * SECOND_MS),
    ship_ms: (15 * SECOND_MS, 40 * SECOND_MS),
    complete_ms: (20 * SECOND_MS, 60 * SECOND_MS),
    refund_ms: (30 * SECOND_MS, 120 * SECOND_MS),
};

/// Draws the steps of a placed order.
fn course(random: &mut Random, order: &OrderRecord, pace: Pace) -> Vec<Due> {
    let mut at = order.placed_at.0;
    let mut due = Vec::new();
    let mut then = |random: &mut Random, (low, high): (i64, i64), step: Step| {
        at += random.between(low, high);
        due.push(Due { at: EventTime(at), order: order.order.clone(), step });
    };
    if random.chance(0.03) {
        then(random, pace.pay_ms, Step::Cancel);
        return due;
    }
    then(random, pace.pay_ms, Step::Pay);
    then(random, pace.ship_ms, Step::Ship);
    then(random, pace.complete_ms, Step::Complete);
    match random.weighted(&[0.91, 0.04, 0.05]) {
        1 => then(random, pace.refund_ms, Step::RefundAll),
        2 => {
            let line = random.pick(&order.lines);
            let quantity = random.between(1, line.quantity);
            then(random, pace.refund_ms, Step::RefundSome { line: line.line, quantity });
        }
        _ => {}
    }
    due
}

/// Writes the records of both simulations.
struct Scribe<'a> {
    catalog: &'a Catalog,
    currency: &'a str,
}

impl Scribe<'_> {
    fn interaction(&self, owner: Owner, kind: Kind, product: usize, at: EventTime) -> Record {
        let subject = Subject::Item(self.catalog.products[product].item.clone());
        Record::Interaction(Interaction::new(owner, subject, kind, at, false, Payload::default()))
    }

    fn search(&self, owner: Owner, query: &str, product: usize, at: EventTime) -> Record {
        let item = Some(self.catalog.products[product].item.clone());
        let payload = Payload { item, query: Some(query.into()), ..Payload::default() };
        let subject = Subject::Query(normalise_query(query));
        Record::Interaction(Interaction::new(owner, subject, Kind::Search, at, false, payload))
    }

    fn order(&self, order: String, member: Option<(&MemberId, Tier)>, basket: &[(usize, i64)], at: EventTime) -> OrderRecord {
        let lines = basket.iter().zip(1..).map(|(&(product, quantity), line)| {
            let product = &self.catalog.products[product];
            Line::new(line, product.item.clone(), quantity, product.price_minor)
        });
        OrderRecord {
            member: member.map(|(member, _)| member.clone()),
            tier: member.map(|(_, tier)| tier),
            ..OrderRecord::new(OrderId::trusted(order), 1, OrderStatus::Placed, at, self.currency.into(), lines.collect())
        }
    }
}

/// An order of one product, paid at once: the button "buy".
pub fn bought(
    catalog: &Catalog,
    currency: &str,
    order: String,
    buyer: (&MemberId, Tier),
    product: usize,
    quantity: i64,
    at: EventTime,
) -> OrderRecord {
    let placed = Scribe { catalog, currency }.order(order, Some(buyer), &[(product, quantity)], at);
    OrderRecord { status: OrderStatus::Paid, paid_at: Some(at), ..placed }
}

/// An interaction with a product: the buttons "view" and "add to favourites".
pub fn interacted(catalog: &Catalog, member: &MemberId, kind: Kind, product: usize, at: EventTime) -> Record {
    Scribe { catalog, currency: "" }.interaction(Owner::Member(member.clone()), kind, product, at)
}

/// Four weeks of the shop.
#[derive(Debug)]
pub struct History {
    /// The records before the as-of day, in time order.
    pub records: Vec<Record>,
    /// Pending steps of its orders.
    pub due: Vec<Due>,
    /// The members.
    pub shoppers: Vec<Shopper>,
}

impl History {
    /// The history before a day: a pure function.
    pub fn new(seed: u64, day: Day, catalog: &Catalog, currency: &str) -> Self {
        let mut random = Random::new(seed, "history");
        let end = EventTime(i64::from(day.0) * DAY_MS);
        let start = EventTime(end.0 - HISTORY_DAYS * DAY_MS);
        let shoppers = Shopper::population(&mut random, start, HISTORY_DAYS);
        let scribe = Scribe { catalog, currency };
        let mut timed: Vec<(EventTime, Record)> = Vec::new();
        timed.extend(catalog.records(EventTime(start.0 - 100 * DAY_MS)).map(|record| (start, Record::Catalog(record))));
        for shopper in &shoppers {
            for record in shopper.records(end) {
                timed.push((record.time().expect("an account has times"), Record::Member(record)));
            }
        }
        let mut due = Vec::new();
        let (mut visits, mut orders) = (0_u32, 0_u32);
        for n in 0..HISTORY_DAYS {
            let midnight = start.0 + n * DAY_MS;
            // Members registered by now; weekends are busier.
            let there = shoppers.partition_point(|shopper| shopper.registered_at.0 < midnight);
            let weights: Vec<f64> = shoppers[..there].iter().map(|shopper| shopper.activity).collect();
            let weekend = matches!((i64::from(day.0) - HISTORY_DAYS + n).rem_euclid(7), 2 | 3);
            for _ in 0..VISITS_A_DAY * if weekend { 13 } else { 10 } / 11 {
                visits += 1;
                let number = random.weighted(&weights);
                let who = &shoppers[number];
                let mut at = midnight + random.between(6 * HOUR_MS, 23 * HOUR_MS);
                let mut visit = Visit::draw(&mut random, catalog, number, who, format!("v{visits:05}"));
                let guest = random.chance(0.04);
                while let Some(action) = visit.actions.pop_front() {
                    at = (at + random.between(4 * SECOND_MS, 2 * MINUTE_MS)).min(midnight + DAY_MS - 1);
                    let now = EventTime(at);
                    let owner = visit.session.clone().map_or_else(|| Owner::Member(who.member.clone()), Owner::Session);
                    let record = match action {
                        Action::Interact(kind, product) => scribe.interaction(owner, kind, product, now),
                        Action::Search(query, product) => scribe.search(owner, &query, product, now),
                        Action::SignIn => match visit.session.clone() {
                            Some(session) => sign_in(session, &who.member),
                            None => continue,
                        },
                        Action::Order(basket) => {
                            orders += 1;
                            let member = (!guest).then_some((&who.member, who.tier));
                            let placed = scribe.order(format!("h{orders:05}"), member, &basket, now);
                            let mut current = placed.clone();
                            for next in course(&mut random, &placed, SHOP_PACE) {
                                if next.at >= end {
                                    due.push(next);
                                } else if let Some(after) = next.step.apply(&current, next.at) {
                                    timed.push((next.at, Record::Order(after.clone())));
                                    current = after;
                                }
                            }
                            Record::Order(placed)
                        }
                    };
                    timed.push((now, record));
                }
            }
        }
        // Stable: equal times keep the order in which they were drawn.
        timed.sort_by_key(|(time, _)| *time);
        due.sort();
        Self { records: timed.into_iter().map(|(_, record)| record).collect(), due, shoppers }
    }
}

fn sign_in(session: SessionId, member: &MemberId) -> Record {
    Record::Member(MemberRecord::Session { session, version: 1, merged_into: member.clone() })
}

/// The live simulation.
pub struct Live {
    random: Random,
    /// Prefix of this run's ids.
    run: String,
    currency: String,
    count: u64,
    shoppers: Vec<Shopper>,
    weights: Vec<f64>,
    joined: usize,
    visits: Vec<Visit>,
    due: BinaryHeap<Reverse<Due>>,
    /// Registered members to be activated.
    registered: VecDeque<(EventTime, usize)>,
}

/// The next event of the live simulation.
pub enum Event {
    /// A record to append.
    Record(Record),
    /// A due step of an order, for the order book to apply.
    Step(Due),
}

impl Live {
    /// Continues a history. `started_at` identifies the run: ids of two runs on one log differ.
    pub fn new(seed: u64, started_at: EventTime, history: &History, currency: &str) -> Self {
        let run = format!("{:x}", started_at.0);
        Self {
            random: Random::new(seed, &run),
            run,
            currency: currency.to_owned(),
            count: 0,
            weights: history.shoppers.iter().map(|shopper| shopper.activity).collect(),
            shoppers: history.shoppers.clone(),
            joined: 0,
            visits: Vec::new(),
            due: history.due.iter().cloned().map(Reverse).collect(),
            registered: VecDeque::new(),
        }
    }

    /// The next event; `now` must not decrease. `gone` members no longer visit.
    pub fn next(&mut self, catalog: &Catalog, now: EventTime, gone: &dyn Fn(&MemberId) -> bool) -> Event {
        // After a long pause many steps are due at once; visits continue in between.
        if self.due.peek().is_some_and(|Reverse(due)| due.at <= now) && self.random.chance(0.5) {
            let Reverse(due) = self.due.pop().expect("peeked");
            return Event::Step(due);
        }
        if self.registered.front().is_some_and(|(at, _)| *at <= now) {
            let (_, number) = self.registered.pop_front().expect("peeked");
            let shopper = &mut self.shoppers[number];
            if !gone(&shopper.member) {
                shopper.activated_at = Some(now);
                let activated = shopper.records(now).pop().expect("an account has records");
                return Event::Record(Record::Member(activated));
            }
        }
        if self.joined < JOINED_MAX && self.random.chance(0.012) {
            return Event::Record(self.join(now, gone));
        }
        loop {
            while self.visits.len() < VISITS_AT_ONCE {
                let number = self.random.weighted(&self.weights);
                if gone(&self.shoppers[number].member) {
                    self.weights[number] = 0.0;
                    continue;
                }
                self.count += 1;
                let session = format!("v{}-{}", self.run, self.count);
                self.visits.push(Visit::draw(&mut self.random, catalog, number, &self.shoppers[number], session));
            }
            let place = self.random.index(self.visits.len());
            let visit = &mut self.visits[place];
            let who = &self.shoppers[visit.shopper];
            let Some(action) = visit.actions.pop_front().filter(|_| !gone(&who.member)) else {
                self.visits.swap_remove(place);
                continue;
            };
            let owner = visit.session.clone().map_or_else(|| Owner::Member(who.member.clone()), Owner::Session);
            let scribe = Scribe { catalog, currency: &self.currency };
            return Event::Record(match action {
                Action::Interact(kind, product) => scribe.interaction(owner, kind, product, now),
                Action::Search(query, product) => scribe.search(owner, &query, product, now),
                Action::SignIn => match visit.session.take() {
                    Some(session) => sign_in(session, &who.member),
                    None => continue,
                },
                Action::Order(basket) => {
                    self.count += 1;
                    let order = format!("o{}-{}", self.run, self.count);
                    let placed = scribe.order(order, Some((&who.member, who.tier)), &basket, now);
                    self.due.extend(course(&mut self.random, &placed, LIVE_PACE).into_iter().map(Reverse));
                    Record::Order(placed)
                }
            });
        }
    }

    /// A new member registers; some were invited.
    fn join(&mut self, now: EventTime, gone: &dyn Fn(&MemberId) -> bool) -> Record {
        self.joined += 1;
        let member = MemberId::trusted(format!("n{}-{}", self.run, self.joined));
        let mut shopper = Shopper::draw(&mut self.random, member, now, &self.shoppers);
        shopper.invited_by = shopper.invited_by.filter(|inviter| !gone(inviter));
        shopper.activated_at = None;
        let record = shopper.records(now).remove(0);
        self.registered.push_back((EventTime(now.0 + self.random.between(3 * SECOND_MS, 20 * SECOND_MS)), self.shoppers.len()));
        self.weights.push(shopper.activity);
        self.shoppers.push(shopper);
        Record::Member(record)
    }

    /// The last member to join.
    pub fn newest(&self) -> Option<&Shopper> {
        self.shoppers.last()
    }
}

/// The names in a history by id.
pub fn names(shoppers: &[Shopper]) -> HashMap<MemberId, String> {
    shoppers.iter().map(|shopper| (shopper.member.clone(), shopper.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kindred_model::records::Rules;

    use super::*;

    fn history(seed: u64, day: i32) -> (Catalog, History) {
        let catalog = Catalog::new(seed);
        let history = History::new(seed, Day(day), &catalog, "EUR");
        (catalog, history)
    }

    fn bytes(history: &History) -> Vec<Vec<u8>> {
        history.records.iter().map(Record::to_json).collect()
    }

    /// An interrupted start resumes: the records must be the same.
    #[test]
    fn a_history_is_a_function_of_seed_and_day() {
        let first = bytes(&history(7, 20_400).1);
        assert_eq!(first, bytes(&history(7, 20_400).1));
        assert_ne!(first, bytes(&history(8, 20_400).1));
        assert_ne!(first, bytes(&history(7, 20_401).1));
    }

    /// A rejected record would silently be missing from the page.
    #[test]
    fn every_record_is_valid_and_of_its_time() {
        let day = Day(20_400);
        let (_, history) = history(7, day.0);
        let mut counts = HashMap::<_, usize>::new();
        let mut orders = HashMap::new();
        for record in &history.records {
            assert_eq!(Record::decode(record.topic(), &record.to_json(), &Rules::default()).as_ref(), Ok(record));
            assert!(record.time().is_none_or(|time| time.day() < day), "{record:?} is of the as-of day");
            *counts.entry(record.topic()).or_default() += 1;
            if let Record::Order(order) = record {
                let version = orders.insert(order.order.clone(), order.clone()).map_or(0, |before: OrderRecord| before.version);
                assert_eq!(order.version, version + 1, "the versions of {} follow each other", order.order);
            }
        }
        assert!((2_600..3_500).contains(&orders.len()), "{} orders", orders.len());
        let interactions = counts[&kindred_model::Topic::Interactions];
        assert!((26_000..36_000).contains(&interactions), "{interactions} interactions");
        for status in [
            OrderStatus::Placed,
            OrderStatus::Paid,
            OrderStatus::Shipped,
            OrderStatus::Completed,
            OrderStatus::Cancelled,
            OrderStatus::Refunded,
        ] {
            if status != OrderStatus::Placed {
                assert!(orders.values().any(|order| order.status == status), "no order is {status:?}");
            }
        }
        assert!(orders.values().any(|order| !order.refunds.is_empty()), "nothing was sent back");
        assert!(orders.values().any(|order| order.member.is_none()), "no guest bought");
        let merged = |record: &&Record| matches!(record, Record::Member(MemberRecord::Session { .. }));
        assert!(history.records.iter().filter(merged).count() > 50, "hardly anybody signs in");
    }

    /// Lists make sense only if complements are bought together more often than chance.
    #[test]
    fn complements_are_bought_by_the_same_members() {
        let (catalog, history) = history(7, 20_400);
        let mut shelves = HashMap::<MemberId, HashSet<usize>>::new();
        for record in &history.records {
            if let Record::Order(OrderRecord { member: Some(member), lines, status, .. }) = record
                && status.counts()
            {
                let taken = shelves.entry(member.clone()).or_default();
                taken.extend(lines.iter().map(|line| catalog.get(&line.item).unwrap().shelf));
            }
        }
        let both = |a: usize, b: usize| shelves.values().filter(|taken| taken.contains(&a) && taken.contains(&b)).count();
        assert!(
            both(0, 1) > 2 * both(0, 22),
            "tents go with sleeping bags ({}) rather than records ({})",
            both(0, 1),
            both(0, 22)
        );
    }

    #[test]
    fn the_live_shop_writes_valid_records_and_leaves_the_forgotten_alone() {
        let (catalog, history) = history(7, 20_400);
        let mut now = EventTime(20_400 * DAY_MS + 10 * HOUR_MS);
        let mut live = Live::new(7, now, &history, "EUR");
        let gone: HashSet<MemberId> = history.shoppers.iter().step_by(2).map(|shopper| shopper.member.clone()).collect();
        let (mut records, mut steps) = (0, 0);
        for _ in 0..5_000 {
            now.0 += 200;
            match live.next(&catalog, now, &|member| gone.contains(member)) {
                Event::Record(record) => {
                    records += 1;
                    assert_eq!(Record::decode(record.topic(), &record.to_json(), &Rules::default()).as_ref(), Ok(&record));
                    let member = match &record {
                        Record::Interaction(interaction) => interaction.owner.member().cloned(),
                        Record::Order(order) => order.member.clone(),
                        _ => None,
                    };
                    assert!(member.is_none_or(|member| !gone.contains(&member)));
                }
                Event::Step(due) => {
                    steps += 1;
                    assert!(due.at <= now);
                }
            }
        }
        assert!(records > 3_000 && steps > 300, "{records} records, {steps} steps");
    }
}
