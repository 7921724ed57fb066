//! The small facts that the views are made of, derived from the merged inputs.
//!
//! ```text
//! interactions ─▶ Fact by effective owner
//! orders, members ─▶ MemberFact by member ─▶ (links: without the erased) ─▶ views
//! orders ─▶ their places in the index of member_orders, which nothing holds
//! ```
//!
//! What is arranged is small, `Copy` and holds interned identities; what it is keyed by is hashed by its text, so that every process
//! of an installation sends a key to the same worker.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use differential_dataflow::VecCollection;
use kindred_model::codec::KeyCodec;
use kindred_model::intern::{Item, Party};
use kindred_model::loyalty::Program;
use kindred_model::records::{MemberRecord, OrderRecord};
use kindred_model::views::member_orders::MemberOrders;
use kindred_model::{Day, EventTime, Kind};
use serde::{Deserialize, Serialize};

/// A changing multiset of the one dataflow.
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

impl Hash for MemberKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.shard_hash());
    }
}

/// What orders and members' records say about a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum MemberFact {
    /// A counting line of one of the member's orders.
    Line(OrderLine),
    /// Somebody the member invited was activated, for so many points.
    Invited {
        /// What it earns.
        points: i64,
    },
    /// A session whose interactions are the member's.
    Session(Party),
}

/// A counting line (DESIGN, Definitions: Bought).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OrderLine {
    /// What was bought.
    pub item: Item,
    /// When, in milliseconds since 1970 UTC.
    pub placed_at: i64,
    /// What it earned.
    pub points: i64,
    /// From which as-of day the points are available, in days since 1970.
    pub available_from: i32,
}

/// What one order says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OrderFact {
    /// A counting line, of its member.
    Line(MemberKey, OrderLine),
    /// Where it stands in the index of its member's orders: the encoded key.
    Place(Arc<[u8]>),
}

/// The place of an order and its counting lines. A guest's and an erased order have no owner, and are in no view of owners.
pub fn of_order(order: &OrderRecord, program: &Program) -> Vec<OrderFact> {
    let (Some(member), Some(place)) = (&order.member, MemberOrders::key(order)) else { return Vec::new() };
    let member = MemberKey(Party::member(member.as_str()));
    let lines = order.counting_lines().map(|(line, net)| {
        let earned = program.line_points(order, net);
        let line = OrderLine {
            item: Item::intern(line.item.as_str()),
            placed_at: order.placed_at.0,
            points: earned.points,
            available_from: earned.available_from.0,
        };
        OrderFact::Line(member, line)
    });
    std::iter::once(OrderFact::Place(place.to_bytes().into())).chain(lines).collect()
}

/// What a record of `members` says about other members than itself: the invite of its inviter, or whose a session is.
///
/// An invitee counts if its merged record has `activated_at`, whatever its state; nobody invites themselves.
pub fn of_member(record: &MemberRecord, program: &Program) -> Vec<(MemberKey, MemberFact)> {
    match record {
        MemberRecord::Session { session, merged_into, .. } => {
            let session = Party::intern(&kindred_model::Owner::Session(session.clone()));
            vec![(MemberKey(Party::member(merged_into.as_str())), MemberFact::Session(session))]
        }
        MemberRecord::Member(membership) => match (&membership.invited_by, membership.activated_at) {
            (Some(inviter), Some(activated_at)) if *inviter != membership.member => {
                let points = program.invite_points(activated_at);
                vec![(MemberKey(Party::member(inviter.as_str())), MemberFact::Invited { points })]
            }
            _ => Vec::new(),
        },
    }
}

/// The member that a record erases.
pub fn erased(record: &MemberRecord) -> Option<MemberKey> {
    match record {
        MemberRecord::Member(membership) if record.is_erased() => Some(MemberKey(Party::member(membership.member.as_str()))),
        _ => None,
    }
}
