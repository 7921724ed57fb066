//! The facts that views are built from, derived from the merged inputs.
//!
//! ```text
//! interactions ─▶ Fact by effective owner
//! orders, members ─▶ MemberFact by member ─▶ (links: without the erased) ─▶ views
//! guests' orders ─▶ lines of an owner of their own ─▶ views
//! orders ─▶ those of members, each with its `placed_at`; not arranged
//! ```
//!
//! Arranged data is small, `Copy` and holds interned identities; its keys are hashed by their text, so that every process routes
//! a key to the same worker.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use differential_dataflow::VecCollection;
use kindred_model::intern::{Item, Party};
use kindred_model::loyalty::{Amounts, Lot, Rulebook};
use kindred_model::records::{MemberRecord, OrderRecord};
use kindred_model::{Day, EventTime, Kind, MemberId, Owner};
use serde::{Deserialize, Serialize};

/// A collection of the dataflow.
pub type Facts<'s, D> = VecCollection<'s, u64, D, isize>;

/// One unhidden interaction with an item; never a search.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// The item.
    pub item: Item,
    /// What was done.
    pub kind: Kind,
    /// The greatest time of its UTC day, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Fact {
    /// The UTC day it counts on.
    pub fn day(&self) -> Day {
        EventTime(self.at).day()
    }
}

/// A member as a key of differential arrangements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct MemberKey(pub Party);

impl MemberKey {
    /// The member's identity.
    pub fn member(self) -> MemberId {
        match self.0.owner() {
            Owner::Member(member) => member,
            other => unreachable!("{other:?} among members"),
        }
    }
}

impl Hash for MemberKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.shard_hash());
    }
}

/// A fact about a member, from orders and members' records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum MemberFact {
    /// A counting line of one of the member's orders.
    Line(OrderLine),
    /// Points earned by an order or an invite, or taken back of an order.
    Points(LotPoints),
    /// A session merged into the member.
    Session(Party),
}

/// A counting line: of a paid, shipped or completed order, and not refunded in full.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OrderLine {
    /// What was bought.
    pub item: Item,
    /// When, in milliseconds since 1970 UTC.
    pub placed_at: i64,
}

/// A [`Lot`], its days since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LotKey {
    known_from: i32,
    available_from: i32,
    expires_on: Option<i32>,
}

impl LotKey {
    fn of(lot: Lot) -> Self {
        Self { known_from: lot.known_from.0, available_from: lot.available_from.0, expires_on: lot.expires_on.map(|day| day.0) }
    }

    /// As a lot.
    pub fn lot(self) -> Lot {
        Lot { known_from: Day(self.known_from), available_from: Day(self.available_from), expires_on: self.expires_on.map(Day) }
    }
}

/// Points of a lot; negative if taken back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LotPoints {
    /// Which lot.
    pub lot: LotKey,
    /// Points.
    pub points: i64,
    /// Points that count for levels.
    pub level_points: i64,
    /// Whether an invite earned them.
    pub is_invite: bool,
}

/// A member's order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlacedOrder {
    /// Whose it is.
    pub member: MemberKey,
    /// When it was placed, in milliseconds since 1970 UTC.
    pub placed_at: i64,
    /// Its identity.
    pub order: Arc<str>,
}

/// A fact of one order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OrderFact {
    /// A counting line of its owner: a member, or the guest's order itself.
    Line(Party, OrderLine),
    /// Points of its member.
    Points(MemberKey, LotPoints),
    /// It belongs to a member.
    Placed(PlacedOrder),
}

/// The facts of an order: its counting lines, and for a member's order also its placement and points. A guest's order is an owner
/// of its own; an erased one has no owner.
pub fn of_order(order: &OrderRecord, rules: &Rulebook) -> Vec<OrderFact> {
    if order.erased {
        return Vec::new();
    }
    let owner = match &order.member {
        Some(member) => Party::member(member.as_str()),
        None => Party::guest(order.order.as_str()),
    };
    let lines = order.counting_lines().map(|(line, _net)| {
        OrderFact::Line(owner, OrderLine { item: Item::intern(line.item.as_str()), placed_at: order.placed_at.0 })
    });
    let mut facts: Vec<OrderFact> = lines.collect();
    if order.member.is_some() {
        let order_id = order.order.as_str().into();
        facts.push(OrderFact::Placed(PlacedOrder { member: MemberKey(owner), placed_at: order.placed_at.0, order: order_id }));
        let points = rules.order_points(order).into_iter().map(|(lot, Amounts { points, level_points })| {
            let points = LotPoints { lot: LotKey::of(lot), points, level_points, is_invite: false };
            OrderFact::Points(MemberKey(owner), points)
        });
        facts.extend(points);
    }
    facts
}

/// What a `members` record says about another member: the invite of its inviter, or the owner of a session.
///
/// An invitee counts if its merged record has `activated_at`, whatever its state. Self-invites count nothing.
pub fn of_member(record: &MemberRecord, rules: &Rulebook) -> Vec<(MemberKey, MemberFact)> {
    match record {
        MemberRecord::Session { session, merged_into, .. } => {
            let session = Party::intern(&Owner::Session(session.clone()));
            vec![(MemberKey(Party::member(merged_into.as_str())), MemberFact::Session(session))]
        }
        MemberRecord::Member(membership) => match (&membership.invited_by, membership.activated_at) {
            (Some(inviter), Some(activated_at)) if *inviter != membership.member => {
                let (lot, points) = rules.invite_points(activated_at);
                let points = LotPoints { lot: LotKey::of(lot), points, level_points: 0, is_invite: true };
                vec![(MemberKey(Party::member(inviter.as_str())), MemberFact::Points(points))]
            }
            _ => Vec::new(),
        },
    }
}

/// The member that a record erases, if any.
pub fn erased(record: &MemberRecord) -> Option<MemberKey> {
    match record {
        MemberRecord::Member(membership) if record.is_erased() => Some(MemberKey(Party::member(membership.member.as_str()))),
        _ => None,
    }
}
