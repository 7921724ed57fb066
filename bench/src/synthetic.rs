//! The synthetic log of a shop, drawn from a seed. The same plan gives the same bytes on every machine.
//!
//! ```text
//! Plan (members, items, events, seed) ─┬─▶ purchases()  (member, item, at): the data of the hot path's figures
//!                                      └─▶ ShopLog      all four topics: visits, sessions, orders with refunds, members, catalog
//! ```
//!
//! Members' activity is log-normal (sigma 1) and items' popularity Zipf's (exponent 1.05), which gives the few bots and
//! best-sellers that are hard. Visits draw half of their items near the last one, to have similarities.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use kindred_model::ids::{ItemId, MemberId, OrderId, Owner, SessionId};
use kindred_model::records::{
    CatalogRecord, Interaction, ItemKind, Line, MemberRecord, MemberState, Membership, OrderRecord, OrderStatus, Payload, Refund,
    Subject, normalise_query,
};
use kindred_model::{EventTime, Kind, Tier, Topic};
use rand::prelude::*;
use rand_distr::{Distribution, LogNormal, Zipf};

/// The start of the log: 2023-11-14T22:13:20Z.
pub const BEGINS_MS: i64 = 1_700_000_000_000;
/// Time from one event to the next: 2 M events are 116 days.
const STEP_MS: i64 = 5_000;
/// Zipf's exponent of the items' popularity.
const ITEM_EXPONENT: f64 = 1.05;
/// Shape of the members' activity.
const ACTIVITY_SIGMA: f64 = 1.0;

/// The size of a log.
#[derive(clap::Args, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Members of the synthetic log
    #[arg(long, help_heading = "Log", default_value_t = Plan::TWO_MILLION.members, value_parser = clap::value_parser!(u32).range(1..))]
    pub members: u32,
    /// Items of the synthetic log
    #[arg(long, help_heading = "Log", default_value_t = Plan::TWO_MILLION.items, value_parser = clap::value_parser!(u32).range(1..))]
    pub items: u32,
    /// Events of the synthetic log, without catalog and members
    #[arg(long, help_heading = "Log", default_value_t = Plan::TWO_MILLION.events)]
    pub events: usize,
    /// The same seed gives the same log
    #[arg(long, help_heading = "Log", default_value_t = Plan::TWO_MILLION.seed)]
    pub seed: u64,
}

impl Plan {
    /// The log of the targets: 2 M events of 100,000 members on 20,000 items.
    pub const TWO_MILLION: Self = Self { members: 100_000, items: 20_000, events: 2_000_000, seed: 7 };
    /// A small log for a smoke run within seconds.
    pub const QUICK: Self = Self { members: 1_000, items: 500, events: 20_000, seed: 7 };

    /// The small log for a smoke run, unless another one was asked for.
    pub fn quicken(&mut self) {
        if *self == Self::TWO_MILLION {
            *self = Self::QUICK;
        }
    }

    /// The arguments with which another process draws the same.
    pub fn arguments(&self) -> Vec<String> {
        let Self { members, items, events, seed } = self;
        [
            ("--members", members.to_string()),
            ("--items", items.to_string()),
            ("--events", events.to_string()),
            ("--seed", seed.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// The same shape with this many events: 20 a member, and an item for every 100.
    pub fn scaled_to(events: usize, seed: u64) -> Self {
        let count = |each: usize| u32::try_from((events / each).max(10)).expect("fewer than 2^32 of them");
        Self { members: count(20), items: count(100), events, seed }
    }
}

/// A member took an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purchase {
    /// The member's number ([`member_id`]).
    pub member: u32,
    /// The item's number, 0 the most popular ([`item_id`]).
    pub item: u32,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// The identity of a member.
pub fn member_id(member: u32) -> MemberId {
    MemberId::trusted(format!("m{member}"))
}

/// The identity of an item.
pub fn item_id(item: u32) -> ItemId {
    ItemId::trusted(format!("i{item}"))
}

/// A purchase as the record of the topic `interactions`.
pub fn purchase_record(purchase: Purchase) -> Interaction {
    let (owner, subject) = (Owner::Member(member_id(purchase.member)), Subject::Item(item_id(purchase.item)));
    Interaction::new(owner, subject, Kind::Purchase, EventTime(purchase.at), false, Payload::default())
}

/// Draws the next member and item.
struct Crowd {
    rng: StdRng,
    /// Running sums of the members' activity.
    activity: Vec<f64>,
    popularity: Zipf<f64>,
    items: u32,
}

impl Crowd {
    fn new(plan: &Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let activity = LogNormal::new(0.0, ACTIVITY_SIGMA).expect("a valid shape");
        let mut sum = 0.0;
        let activity = (0..plan.members.max(1))
            .map(|_| {
                sum += activity.sample(&mut rng);
                sum
            })
            .collect();
        let popularity = Zipf::new(f64::from(plan.items.max(1)), ITEM_EXPONENT).expect("at least one item");
        Self { rng, activity, popularity, items: plan.items.max(1) }
    }

    fn member(&mut self) -> u32 {
        let total = *self.activity.last().expect("at least one member");
        let drawn = self.rng.random::<f64>() * total;
        let member = self.activity.partition_point(|sum| *sum <= drawn).min(self.activity.len() - 1);
        u32::try_from(member).expect("members are numbered by u32")
    }

    fn item(&mut self) -> u32 {
        // Zipf's draws are integers from 1.
        (self.popularity.sample(&mut self.rng) as u32 - 1).min(self.items - 1)
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }
}

/// The purchases of a plan, in time order and endless: live traffic continues a preloaded history. The caller limits them to
/// `plan.events`.
pub fn purchases(plan: &Plan) -> impl Iterator<Item = Purchase> + Send + use<> {
    let mut crowd = Crowd::new(plan);
    (0i64..).map(move |n| Purchase { member: crowd.member(), item: crowd.item(), at: BEGINS_MS + n * STEP_MS })
}

/// Draws items by the log's popularity; for readers of lists.
pub fn popular_items(plan: &Plan, seed: u64) -> impl Iterator<Item = u32> + use<> {
    let mut crowd = Crowd::new(&Plan { members: 1, seed, ..*plan });
    std::iter::repeat_with(move || crowd.item())
}

/// The frequencies of the kinds of interactions.
#[derive(Clone, PartialEq, Debug)]
pub struct Mix {
    /// Running sums of the weights.
    sums: Vec<(f64, Kind)>,
}

impl Mix {
    /// A typical shop.
    pub fn usual() -> Self {
        "impression=30,view=37.5,search=6,click=8,cart=8,favorite=3,follow=0.5,comment=0.5,dismiss=0.5,purchase=6"
            .parse()
            .expect("a valid mix")
    }

    fn draw(&self, rng: &mut StdRng) -> Kind {
        let drawn = rng.random::<f64>() * self.sums.last().expect("a mix names a kind").0;
        let place = self.sums.partition_point(|(sum, _)| *sum <= drawn).min(self.sums.len() - 1);
        self.sums[place].1
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    /// `view=60,cart=10,purchase`: a kind without a weight has weight 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut sum = 0.0;
        let mut sums = Vec::new();
        for part in text.split(',') {
            let (kind, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind: Kind = kind.trim().parse().map_err(|invalid: kindred_model::Invalid| invalid.to_string())?;
            let weight: f64 = weight.trim().parse().map_err(|_| format!("{weight:?} is not a weight like 2.5"))?;
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(format!("the weight of {kind} is {weight}; a number above 0 is accepted"));
            }
            sum += weight;
            sums.push((sum, kind));
        }
        Ok(Self { sums })
    }
}

/// One record of the log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The recording time, milliseconds since 1970: the log's order.
    pub at: i64,
    /// The topic.
    pub topic: Topic,
    /// The JSON.
    pub json: Vec<u8>,
}

/// Concurrent visits, so that the events of owners are interleaved as in a real log.
const VISITS_AT_ONCE: usize = 64;
/// Share of anonymous visits.
const ANONYMOUS: f64 = 0.3;
/// Share of anonymous visits that end with a sign-in, which links the session to a member.
const SIGNS_IN: f64 = 0.4;
/// Probability of another event of a visit: 8 events on average.
const GOES_ON: f64 = 0.875;
/// Shares of orders that are completed, partly refunded, cancelled, or a guest's.
const COMPLETED: f64 = 0.9;
const REFUNDED: f64 = 0.05;
const CANCELLED: f64 = 0.03;
const GUEST: f64 = 0.1;
const DAY_MS: i64 = 86_400_000;
/// Items of a category; near items share one.
const CATEGORY_ITEMS: u32 = 25;

struct Visit {
    member: u32,
    session: Option<u64>,
    item: u32,
    seen: Vec<u32>,
}

/// The whole product's log: interactions of members and sessions, orders with versions and refunds, sessions that become members.
/// Endless, in time order, after [`ShopLog::catalog`] and [`ShopLog::members`].
pub struct ShopLog {
    plan: Plan,
    mix: Mix,
    crowd: Crowd,
    visits: Vec<Visit>,
    sessions: u64,
    orders: u64,
    steps: i64,
    /// Later versions of orders, and sign-ins, by time.
    later: BinaryHeap<Reverse<Entry>>,
}

impl ShopLog {
    /// A log of `plan` with interactions drawn from `mix`. A `purchase` of the mix is an order.
    pub fn new(plan: &Plan, mix: Mix) -> Self {
        let crowd = Crowd::new(plan);
        Self { plan: *plan, mix, crowd, visits: Vec::new(), sessions: 0, orders: 0, steps: 0, later: BinaryHeap::new() }
    }

    /// A record for each item.
    pub fn catalog(plan: &Plan) -> impl Iterator<Item = Entry> + use<> {
        let mut rng = StdRng::seed_from_u64(plan.seed ^ 0x0cab);
        let price = LogNormal::new(7.5, 0.8).expect("a valid shape");
        (0..plan.items).map(move |item| {
            let category = item / CATEGORY_ITEMS;
            let title = format!("Item {item} of range {category}").into();
            let record = CatalogRecord {
                category: vec![format!("Department {}", category % 20).into(), format!("Range {category}").into()],
                tags: vec![["new", "gift", "garden", "kitchen", "travel"][rng.random_range(0..5usize)].into()],
                price_minor: Some((price.sample(&mut rng) as i64).max(50)),
                url: Some(format!("/items/i{item}").into()),
                image: Some(format!("/images/i{item}.svg").into()),
                listed_at: Some(EventTime(BEGINS_MS)),
                ..CatalogRecord::new(item_id(item), 1, ItemKind::Good, title)
            };
            Entry { at: BEGINS_MS, topic: Topic::Catalog, json: record.canonical() }
        })
    }

    /// A record for each member; one in five was invited by an earlier one.
    pub fn members(plan: &Plan) -> impl Iterator<Item = Entry> + use<> {
        let mut rng = StdRng::seed_from_u64(plan.seed ^ 0x3e3b);
        (0..plan.members).map(move |member| {
            let invited = member > 0 && rng.random_bool(0.2);
            let record = MemberRecord::Member(Membership {
                tier: tier(member),
                invited_by: invited.then(|| member_id(rng.random_range(0..member))),
                registered_at: Some(EventTime(BEGINS_MS)),
                activated_at: Some(EventTime(BEGINS_MS)),
                ..Membership::new(member_id(member), 1, MemberState::Activated)
            });
            Entry { at: BEGINS_MS, topic: Topic::Members, json: record.canonical() }
        })
    }

    fn open_visit(&mut self) -> Visit {
        let session = self.crowd.chance(ANONYMOUS).then(|| {
            self.sessions += 1;
            self.sessions
        });
        Visit { member: self.crowd.member(), session, item: self.crowd.item(), seen: Vec::new() }
    }

    /// The next event of a visit.
    fn event(&mut self, at: i64) -> Entry {
        if self.visits.len() < VISITS_AT_ONCE {
            let visit = self.open_visit();
            self.visits.push(visit);
        }
        let place = self.crowd.rng.random_range(0..self.visits.len());
        let mut visit = self.visits.swap_remove(place);
        // Half of the items are near the last one: in its category.
        visit.item = if self.crowd.chance(0.5) {
            let first = visit.item - visit.item % CATEGORY_ITEMS;
            (first + self.crowd.rng.random_range(0..CATEGORY_ITEMS)).min(self.plan.items - 1)
        } else {
            self.crowd.item()
        };
        let kind = self.mix.draw(&mut self.crowd.rng);
        let entry = if kind == Kind::Purchase { self.order(&visit, at) } else { self.interaction(&mut visit, kind, at) };
        if self.crowd.chance(GOES_ON) {
            self.visits.push(visit);
        } else {
            self.close_visit(&visit, at);
        }
        entry
    }

    fn close_visit(&mut self, visit: &Visit, at: i64) {
        if let Some(session) = visit.session
            && self.crowd.chance(SIGNS_IN)
        {
            let merged = MemberRecord::Session {
                session: SessionId::trusted(format!("s{session}")),
                version: 1,
                merged_into: member_id(visit.member),
            };
            self.later.push(Reverse(Entry { at: at + STEP_MS, topic: Topic::Members, json: merged.canonical() }));
        }
    }

    fn interaction(&mut self, visit: &mut Visit, kind: Kind, at: i64) -> Entry {
        let owner = match visit.session {
            Some(session) => Owner::Session(SessionId::trusted(format!("s{session}"))),
            None => Owner::Member(member_id(visit.member)),
        };
        let mut payload = Payload::default();
        let subject = if kind == Kind::Search {
            let query = format!("range {}", visit.item / CATEGORY_ITEMS);
            let normalised = normalise_query(&query);
            payload.query = Some(query.into());
            Subject::Query(normalised)
        } else {
            Subject::Item(item_id(visit.item))
        };
        if matches!(kind, Kind::Impression | Kind::Click) {
            payload.rank = Some(self.crowd.rng.random_range(1..=12));
        }
        if visit.seen.len() < 8 && !visit.seen.contains(&visit.item) {
            visit.seen.push(visit.item);
        }
        let record = Interaction::new(owner, subject, kind, EventTime(at), false, payload);
        Entry { at, topic: Topic::Interactions, json: record.to_json() }
    }

    /// Orders the items of a visit and schedules later versions.
    fn order(&mut self, visit: &Visit, at: i64) -> Entry {
        self.orders += 1;
        let items = if visit.seen.is_empty() { &[visit.item][..] } else { &visit.seen[..] };
        let lines: Vec<Line> = items
            .iter()
            .zip(1..)
            .map(|(&item, line)| {
                let (quantity, unit_price_minor) = (self.crowd.rng.random_range(1..=3), 100 + i64::from(item % 97) * 25);
                Line::new(line, item_id(item), quantity, unit_price_minor)
            })
            .collect();
        let (id, placed_at) = (OrderId::trusted(format!("o{}", self.orders)), EventTime(at));
        let mut order = OrderRecord {
            member: (!self.crowd.chance(GUEST)).then(|| member_id(visit.member)),
            tier: tier(visit.member),
            paid_at: Some(placed_at),
            ..OrderRecord::new(id, 1, OrderStatus::Paid, placed_at, "EUR".into(), lines)
        };
        let first = Entry { at, topic: Topic::Orders, json: order.canonical() };
        if self.crowd.chance(CANCELLED) {
            let at = at + DAY_MS;
            order.version = 2;
            order.status = OrderStatus::Cancelled;
            order.cancelled_at = Some(EventTime(at));
            self.later.push(Reverse(Entry { at, topic: Topic::Orders, json: order.canonical() }));
        } else if self.crowd.chance(COMPLETED) {
            let at = at + 3 * DAY_MS;
            order.version = 2;
            order.status = OrderStatus::Completed;
            order.completed_at = Some(EventTime(at));
            self.later.push(Reverse(Entry { at, topic: Topic::Orders, json: order.canonical() }));
            if self.crowd.chance(REFUNDED) {
                let at = at + 5 * DAY_MS;
                let line = &order.lines[0];
                let (amount_minor, line) = (line.unit_price_minor, Some(line.line));
                order.refunds = vec![Refund { refund: "r1".into(), at: EventTime(at), line, quantity: Some(1), amount_minor }];
                order.version = 3;
                self.later.push(Reverse(Entry { at, topic: Topic::Orders, json: order.canonical() }));
            }
        }
        first
    }
}

impl Iterator for ShopLog {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let at = BEGINS_MS + self.steps * STEP_MS;
        if self.later.peek().is_some_and(|Reverse(entry)| entry.at <= at) {
            return self.later.pop().map(|Reverse(entry)| entry);
        }
        self.steps += 1;
        Some(self.event(at))
    }
}

/// One member in ten is above the free tier.
fn tier(member: u32) -> Option<Tier> {
    match member % 50 {
        0 => Some(Tier::Svip),
        1..=4 => Some(Tier::Vip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kindred_model::Record;
    use kindred_model::records::Rules;

    use super::*;

    /// Figures of two machines compare only if both measured the same log.
    #[test]
    fn the_same_plan_gives_the_same_log() {
        let small = Plan { members: 50, items: 40, events: 500, seed: 3 };
        let once: Vec<_> = purchases(&small).take(small.events).collect();
        assert_eq!(once, purchases(&small).take(small.events).collect::<Vec<_>>());
        assert_ne!(once, purchases(&Plan { seed: 4, ..small }).take(small.events).collect::<Vec<_>>());
        let shop = |seed| ShopLog::new(&Plan { seed, ..small }, Mix::usual()).take(500).collect::<Vec<_>>();
        assert_eq!(shop(3), shop(3));
        assert_ne!(shop(3), shop(4));
    }

    /// Popularity follows Zipf's law and activity is uneven: otherwise the figures would be too good.
    #[test]
    fn few_items_and_members_make_most_of_the_log() {
        let plan = Plan::QUICK;
        let (mut items, mut members) = (BTreeMap::new(), BTreeMap::new());
        for purchase in purchases(&plan).take(plan.events) {
            assert!(purchase.item < plan.items && purchase.member < plan.members);
            *items.entry(purchase.item).or_insert(0usize) += 1;
            *members.entry(purchase.member).or_insert(0usize) += 1;
        }
        let most_popular = items[&0] as f64 / plan.events as f64;
        let harmonic: f64 = (1..=plan.items).map(|rank| f64::from(rank).powf(-ITEM_EXPONENT)).sum();
        assert!((most_popular - 1.0 / harmonic).abs() < 0.02, "the first item is {most_popular} of the log");
        let mut activity: Vec<usize> = members.into_values().collect();
        activity.sort_unstable_by_key(|&events| Reverse(events));
        let top_tenth: usize = activity[..plan.members as usize / 10].iter().sum();
        assert!(top_tenth * 3 > plan.events, "the most active tenth made {top_tenth} of {} events", plan.events);
    }

    /// The product accepts every record, topics are in time order, and every feature occurs.
    #[test]
    fn every_record_is_accepted_and_everything_occurs() {
        let plan = Plan { members: 200, items: 100, events: 0, seed: 5 };
        let rules = Rules { currency: "EUR".to_owned() };
        let before = ShopLog::catalog(&plan).chain(ShopLog::members(&plan));
        // Refunds follow their order after eight days of steps.
        let log: Vec<Entry> = before.chain(ShopLog::new(&plan, Mix::usual()).take(200_000)).collect();
        assert!(log.is_sorted_by_key(|entry| entry.at));
        let (mut kinds, mut sessions, mut merged, mut refunds, mut cancelled) = (BTreeMap::new(), 0, 0, 0, 0);
        for entry in &log {
            match Record::decode(entry.topic, &entry.json, &rules).expect("accepted") {
                Record::Interaction(interaction) => {
                    *kinds.entry(interaction.kind).or_insert(0) += 1;
                    sessions += usize::from(interaction.owner.member().is_none());
                }
                Record::Order(order) => {
                    refunds += usize::from(!order.refunds.is_empty());
                    cancelled += usize::from(order.status == OrderStatus::Cancelled);
                }
                Record::Member(MemberRecord::Session { .. }) => merged += 1,
                Record::Member(_) | Record::Catalog(_) | Record::Ledger(_) => {}
            }
        }
        assert_eq!(kinds.len(), Kind::ALL.len() - 1, "all kinds but purchase, which are orders: {kinds:?}");
        assert!(sessions > 0 && merged > 0 && refunds > 0 && cancelled > 0, "{sessions} {merged} {refunds} {cancelled}");
    }

    #[test]
    fn a_mix_reads_weights_and_names_what_is_wrong() {
        let mix: Mix = "view=3,cart".parse().unwrap();
        assert_eq!(mix.sums, [(3.0, Kind::View), (4.0, Kind::Cart)]);
        assert!("look=1".parse::<Mix>().unwrap_err().contains("look"));
        assert!("view=-1".parse::<Mix>().unwrap_err().contains("above 0"));
        assert!("view=x".parse::<Mix>().unwrap_err().contains("weight"));
    }
}
