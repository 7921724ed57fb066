//! Random logs for tests: small alphabets, so that ties, collisions, conflicts, refunds, retracts, merges and erasures meet
//! often. The same seed gives the same log everywhere.

use std::ops::ControlFlow;

use kindred_model::records::{
    CatalogRecord, Interaction, ItemKind, LedgerEntry, LedgerRecord, Line, MemberRecord, MemberState, Membership, OrderRecord,
    OrderStatus, Payload, Record, Refund, Subject, normalise_query,
};
use kindred_model::views::{Cell, ExportContext, ViewInfo};
use kindred_model::{Day, EntryId, EventTime, ItemId, Kind, LedgerKind, MemberId, OrderId, Owner, Semantics, SessionId, Tier};

use crate::Tables;

/// A random number generator (xorshift64*) for tests.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        // A mix of the seed that is never 0 (splitmix64).
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next_u64() >> 11) % end
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A random element.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        for n in (1..of.len()).rev() {
            of.swap(n, self.below(n as u64 + 1) as usize);
        }
    }
}

/// The sizes of a log's alphabets.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Members.
    pub members: u64,
    /// Sessions.
    pub sessions: u64,
    /// Items.
    pub items: u64,
    /// Queries.
    pub queries: u64,
    /// Orders.
    pub orders: u64,
    /// Days.
    pub days: u64,
    /// Percent of records that repeat an earlier one.
    pub duplicates_pct: u64,
    /// Percent of member records that erase the member.
    pub erasures_pct: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { members: 8, sessions: 8, items: 12, queries: 3, orders: 40, days: 5, duplicates_pct: 10, erasures_pct: 5 }
    }
}

/// Settings that evict all the time: a cap of 5, a window of 3, lists of 3.
pub fn small_semantics() -> Semantics {
    let mut semantics = Semantics::default();
    semantics.inputs.identities_per_owner = 5;
    semantics.views.also_bought.window = 3;
    semantics.views.also_bought.top = 3;
    semantics
}

/// `size` records of all topics, valid under the default currency. Tests may shuffle, cut and repeat them.
pub fn random_log(seed: u64, size: usize, shape: &Shape) -> Vec<Record> {
    let mut log = Log { rng: Rng::new(seed), shape };
    let mut records: Vec<Record> = Vec::with_capacity(size);
    while records.len() < size {
        let record = if !records.is_empty() && log.rng.chance(shape.duplicates_pct) {
            log.rng.pick(&records).clone()
        } else {
            match log.rng.below(100) {
                0..55 => Record::Interaction(log.interaction()),
                55..80 => Record::Order(log.order()),
                80..92 => Record::Member(log.member()),
                92..97 => Record::Ledger(log.ledger()),
                _ => Record::Catalog(log.catalog()),
            }
        };
        records.push(record);
    }
    records
}

/// 2026-01-05, a Monday.
const FIRST_DAY_MS: i64 = 20_458 * 86_400_000;

struct Log<'a> {
    rng: Rng,
    shape: &'a Shape,
}

/// A name whose byte order is unrelated to its number, with varying length and script.
fn name(prefix: &str, number: u64) -> String {
    let scrambled = Rng::new(number.wrapping_mul(0x51_7c_c1_b7)).next_u64();
    match number % 5 {
        0 => format!("{prefix}{}", scrambled % 10),
        1 => format!("{}{prefix}{number}", ["é", "Z", "a", "ß"][(scrambled % 4) as usize]),
        2 => format!("{:x}-{number}", scrambled % 256),
        3 => format!("{prefix}{:x}", scrambled >> 32),
        _ => format!("{prefix}{}", 1_000_000 - number),
    }
}

impl Log<'_> {
    fn member_id(&mut self) -> MemberId {
        // Members and sessions share names: they are two name spaces.
        MemberId::trusted(name("o", self.rng.below(self.shape.members)))
    }

    fn session_id(&mut self) -> SessionId {
        SessionId::trusted(name("o", self.rng.below(self.shape.sessions)))
    }

    fn item_id(&mut self) -> ItemId {
        // The minimum of two makes some items popular.
        let number = self.rng.below(self.shape.items).min(self.rng.below(self.shape.items));
        ItemId::trusted(name("i", number))
    }

    /// One of a few moments of each day, so that times collide.
    fn time(&mut self) -> EventTime {
        let day = self.rng.below(self.shape.days) as i64;
        let moment = *self.rng.pick(&[0, 1, 43_200_000, 86_399_999]);
        EventTime(FIRST_DAY_MS + day * 86_400_000 + moment)
    }

    fn some_time(&mut self, percent: u64) -> Option<EventTime> {
        self.rng.chance(percent).then(|| self.time())
    }

    fn interaction(&mut self) -> Interaction {
        let owner = if self.rng.chance(50) { Owner::Member(self.member_id()) } else { Owner::Session(self.session_id()) };
        let mut payload = Payload::default();
        let kind = match self.rng.below(100) {
            0..40 => Kind::Purchase,
            40..65 => Kind::View,
            65..75 => Kind::Search,
            _ => *self.rng.pick(Kind::ALL),
        };
        let subject = if kind == Kind::Search {
            let typed = format!("Red  {}", name("Q", self.rng.below(self.shape.queries)));
            let normalised = normalise_query(&typed);
            payload.query = Some(typed.into());
            payload.item = self.rng.chance(30).then(|| self.item_id());
            Subject::Query(normalised)
        } else {
            Subject::Item(self.item_id())
        };
        if self.rng.chance(20) {
            payload.rating = Some(self.rng.below(5) as f64 / 2.0);
        }
        if self.rng.chance(30) {
            payload.scenario = Some((*self.rng.pick(&["home", "similar", "basket", "a"])).into());
        }
        Interaction::new(owner, subject, kind, self.time(), self.rng.chance(12), payload)
    }

    fn order(&mut self) -> OrderRecord {
        let order = OrderId::trusted(name("order", self.rng.below(self.shape.orders)));
        let lines: Vec<Line> = (0..1 + self.rng.below(4))
            .map(|line| Line::new(line as u32 + 1, self.item_id(), 1 + self.rng.below(3) as i64, self.rng.below(10_000) as i64))
            .collect();
        let mut refunds = Vec::new();
        for line in &lines {
            let mut left = line.quantity;
            for n in 0..self.rng.below(3) {
                if self.rng.chance(75) || left == 0 {
                    continue;
                }
                // Units with their money, or money of the line alone.
                let quantity = (1 + self.rng.below(left as u64) as i64).min(left);
                left -= quantity;
                let refund = format!("r{}", 9 - n).into();
                let (at, amount_minor) = (self.time(), quantity * line.unit_price_minor / 2);
                let quantity = self.rng.chance(70).then_some(quantity);
                refunds.push(Refund { refund, at, line: Some(line.line), quantity, amount_minor });
            }
        }
        let shipping_minor = self.rng.chance(20).then_some(500);
        if shipping_minor.is_some() && self.rng.chance(30) {
            let (refund, at) = ("shipping".into(), self.time());
            refunds.push(Refund { refund, at, line: None, quantity: None, amount_minor: 500 });
        }
        let status = match self.rng.below(10) {
            0 => OrderStatus::Placed,
            1..4 => OrderStatus::Paid,
            4 => OrderStatus::Shipped,
            5..8 => OrderStatus::Completed,
            8 => OrderStatus::Cancelled,
            _ => OrderStatus::Refunded,
        };
        OrderRecord {
            order,
            version: 1 + self.rng.below(4),
            status,
            member: self.rng.chance(85).then(|| self.member_id()),
            tier: self.rng.chance(60).then(|| *self.rng.pick(Tier::ALL)),
            promotion: None,
            placed_at: self.time(),
            paid_at: self.some_time(60),
            completed_at: self.some_time(30),
            cancelled_at: self.some_time(30),
            currency: "EUR".into(),
            lines,
            refunds,
            erased: self.rng.chance(2),
            discount_minor: self.rng.chance(10).then_some(0),
            shipping_minor,
        }
        .checked(&Semantics::default().rules())
        .expect("what is made here is valid")
    }

    fn member(&mut self) -> MemberRecord {
        let version = 1 + self.rng.below(4);
        if self.rng.chance(45) {
            return MemberRecord::Session { session: self.session_id(), version, merged_into: self.member_id() };
        }
        let mut member = Membership::new(self.member_id(), version, MemberState::Erased);
        member.invited_by = self.rng.chance(60).then(|| self.member_id());
        member.activated_at = self.some_time(60);
        member.qualified_at = self.some_time(20);
        if !self.rng.chance(self.shape.erasures_pct) {
            member.state = *self.rng.pick(&[MemberState::Registered, MemberState::Activated, MemberState::Suspended]);
            member.tier = self.rng.chance(40).then(|| *self.rng.pick(Tier::ALL));
            member.registered_at = self.some_time(50);
            member.invite_approved = self.rng.chance(10);
        }
        MemberRecord::Member(member)
    }

    fn ledger(&mut self) -> LedgerRecord {
        let member = self.member_id();
        if self.rng.chance(self.shape.erasures_pct) {
            return LedgerRecord::Erased { member, erased: true };
        }
        LedgerRecord::Entry(Box::new(LedgerEntry {
            member,
            entry: EntryId::trusted(name("e", self.rng.below(4))),
            kind: LedgerKind::Spend,
            points: Some(1 + self.rng.below(3) as i64),
            amount_minor: None,
            order: None,
            refers_to: None,
            expires_on: None,
            reason: None,
            at: EventTime(FIRST_DAY_MS),
        }))
    }

    fn catalog(&mut self) -> CatalogRecord {
        let (item, version, title) = (self.item_id(), 1 + self.rng.below(3), format!("Thing {}", self.rng.below(4)).into());
        CatalogRecord {
            category: vec!["Things".into()],
            price_minor: Some(self.rng.below(1_000) as i64),
            available: self.rng.chance(30).then(|| self.rng.chance(50)),
            deleted: self.rng.chance(10),
            repeatable: self.rng.chance(10),
            sensitive: self.rng.chance(10),
            ..CatalogRecord::new(item, version, ItemKind::Good, title)
        }
    }
}

/// The rows that a view exports, of one member or item or all, as of some days after the events.
pub fn exported(view: &ViewInfo, of: Option<&str>, tables: &Tables, semantics: &Semantics) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    let context = ExportContext { settings: semantics, as_of: Day(20_470) };
    let keep = &mut |row: &[Cell]| {
        rows.push(row.to_vec());
        ControlFlow::Continue(())
    };
    (view.export)(tables, of, context, keep).expect("tables in memory are readable");
    rows
}
