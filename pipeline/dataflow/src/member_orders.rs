//! `member_orders`: where each order stands among those of its member.
//!
//! merged orders, old and new ─▶ places that went and came ─▶ deletes and upserts
//!
//! The merge holds every order already, so nothing is held here. An order's member and `placed_at` seldom change; what stays where it
//! was comes out of the facts' own difference and is not written again. An order changes once an epoch: so a place is at most once in
//! an epoch.

use std::cmp::Reverse;

use kindred_model::settings::Switch;
use kindred_model::views::member_orders::MemberOrders;
use kindred_model::{EventTime, OrderId};

use crate::collections::{Collections, Maintained};
use crate::output::Sink;

impl Maintained for MemberOrders {
    fn maintain(from: &Collections<'_>, _settings: &Switch, sink: &Sink) {
        sink.rows::<Self, _>(from.placed_orders().inner, |(placed, _epoch, diff)| {
            let order = OrderId::trusted(placed.order.to_string());
            ((placed.member.member(), Reverse(EventTime(placed.placed_at)), order), (*diff > 0).then_some(()))
        });
    }
}
