//! The collections that views are built from.
//!
//! ```text
//! merged orders, members ─▶ ownership ─┬─▶ orders, order lines, lots ────────┐
//!                                      └─ effective owners ─▶ interactions ──┴─▶ Collections ─▶ one `maintain` a view ─▶ sink
//! ```
//!
//! A view takes the collections it needs and derives its own facts. A collection that no view takes is not built.

use std::cell::OnceCell;
use std::sync::Arc;

use kindred_model::Semantics;
use kindred_model::intern::Party;
use kindred_model::records::{MemberRecord, OrderRecord, Rules};
use kindred_model::views::Declared;
use timely::dataflow::StreamVec;

use crate::facts::{self, Fact, Facts, LotPoints, MemberFact, MemberKey, OrderFact, OrderLine, PlacedOrder};
use crate::invariant::violated;
use crate::links::{EffectiveOwner, ResolvedOwners, resolve_owners};
use crate::merge::versioned::{MergedRecord, derived};
use crate::output::Sink;
use crate::update::Stats;

/// A view as the dataflow maintains it.
pub trait Maintained: Declared {
    /// Builds the operators that maintain the view's tables, from collections to the sink.
    fn maintain(from: &Collections<'_>, settings: &Self::Settings, sink: &Sink);
}

/// The collections available to views.
pub struct Collections<'s> {
    orders: Facts<'s, OrderFact>,
    living: Facts<'s, (MemberKey, MemberFact)>,
    interactions: Facts<'s, (Party, Fact)>,
    lines: OnceCell<Facts<'s, (Party, OrderLine)>>,
    stats: Arc<Stats>,
}

impl<'s> Collections<'s> {
    pub(crate) fn new(
        orders: Facts<'s, OrderFact>,
        living: Facts<'s, (MemberKey, MemberFact)>,
        interactions: Facts<'s, (Party, Fact)>,
        stats: &Arc<Stats>,
    ) -> Self {
        Self { orders, living, interactions, lines: OnceCell::new(), stats: Arc::clone(stats) }
    }

    /// Unhidden interactions with an item, by effective owner, without erased members'.
    pub fn interactions(&self) -> Facts<'s, (Party, Fact)> {
        self.interactions.clone()
    }

    /// Counting order lines by owner, without erased members'; a guest's order is an owner of its own.
    pub fn order_lines(&self) -> Facts<'s, (Party, OrderLine)> {
        let build = || {
            let of_members = self.living.clone().flat_map(|(MemberKey(member), fact)| match fact {
                MemberFact::Line(line) => Some((member, line)),
                MemberFact::Points(_) | MemberFact::Session(_) => None,
            });
            let of_guests = self.orders.clone().flat_map(|fact| match fact {
                OrderFact::Line(owner, line) if !owner.is_member() => Some((owner, line)),
                OrderFact::Line(..) | OrderFact::Points(..) | OrderFact::Placed(_) => None,
            });
            of_members.concat(of_guests)
        };
        self.lines.get_or_init(build).clone()
    }

    /// Points that orders and invites earned and lost, by member, without erased members'.
    pub fn lots(&self) -> Facts<'s, (MemberKey, LotPoints)> {
        self.living.clone().flat_map(|(member, fact)| match fact {
            MemberFact::Points(points) => Some((member, points)),
            MemberFact::Line(_) | MemberFact::Session(_) => None,
        })
    }

    /// Orders of members, whatever their status; an erased member's until the orders themselves are erased.
    pub fn placed_orders(&self) -> Facts<'s, PlacedOrder> {
        self.orders.clone().flat_map(|fact| match fact {
            OrderFact::Placed(placed) => Some(placed),
            OrderFact::Line(..) | OrderFact::Points(..) => None,
        })
    }

    /// Counters of this dataflow.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

/// What orders and members' records say about ownership.
pub(crate) struct Ownership<'s> {
    /// Facts of every order.
    pub orders: Facts<'s, OrderFact>,
    /// Facts of members that are not erased.
    pub living: Facts<'s, (MemberKey, MemberFact)>,
    /// Effective owners of raw owners.
    pub effective_owners: Facts<'s, EffectiveOwner>,
}

pub(crate) fn ownership<'s>(
    orders: StreamVec<'s, u64, MergedRecord>,
    members: StreamVec<'s, u64, MergedRecord>,
    semantics: &Semantics,
) -> Ownership<'s> {
    let (rules, book) = (semantics.rules(), semantics.program.rulebook());
    let orders = derived(orders, "Order facts", move |bytes| {
        decode_order(bytes, &rules).map(|order| facts::of_order(&order, &book)).unwrap_or_default()
    });
    let book = semantics.program.rulebook();
    let of_members = derived(members.clone(), "Member facts", move |bytes| {
        decode_member(bytes).map(|record| facts::of_member(&record, &book)).unwrap_or_default()
    });
    let erased = derived(members, "Erased members", |bytes| {
        decode_member(bytes).and_then(|record| facts::erased(&record)).into_iter().collect()
    });
    let ordered = orders.clone().flat_map(|fact| match fact {
        OrderFact::Line(owner, line) if owner.is_member() => Some((MemberKey(owner), MemberFact::Line(line))),
        OrderFact::Points(member, points) => Some((member, MemberFact::Points(points))),
        OrderFact::Line(..) | OrderFact::Placed(_) => None,
    });
    let ResolvedOwners { living, effective_owners } = resolve_owners(ordered.concat(of_members), erased);
    Ownership { orders, living, effective_owners }
}

/// Decodes a merged order. It was validated at the source, so a failure is an invariant violation; the order then counts as
/// nothing.
fn decode_order(bytes: &[u8], rules: &Rules) -> Option<OrderRecord> {
    OrderRecord::decode(bytes, rules).inspect_err(|invalid| not_ours("order", invalid)).ok()
}

fn decode_member(bytes: &[u8]) -> Option<MemberRecord> {
    MemberRecord::decode(bytes).inspect_err(|invalid| not_ours("member", invalid)).ok()
}

fn not_ours(what: &str, invalid: &kindred_model::Invalid) {
    violated(format_args!("a merged {what} does not decode: {invalid}"));
}
