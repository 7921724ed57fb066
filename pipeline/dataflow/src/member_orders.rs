//! `member_orders`: where each order stands among those of its member.
//!
//! merged orders, old and new ─▶ places that went and came ─▶ deletes and upserts
//!
//! The merge holds every order already, so nothing is held here. An order's member and `placed_at` seldom change; what stays where it
//! was comes out of the facts' own difference and is not written again.

use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

use crate::facts::{Facts, OrderFact};

/// An encoded key of the index, the epoch, and whether it came (above nought) or went.
pub type Place = (Arc<[u8]>, u64, isize);

/// The changed places. A place names its order, and an order changes once an epoch: so a place is at most once in an epoch.
pub fn member_orders<'s>(facts: Facts<'s, OrderFact>) -> StreamVec<'s, u64, Place> {
    facts.inner.flat_map(|(fact, epoch, diff)| match fact {
        OrderFact::Place(place) => Some((place, epoch, diff)),
        OrderFact::Line(..) | OrderFact::Points(..) => None,
    })
}
