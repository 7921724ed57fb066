//! `member_orders`: the index of each member's orders.
//!
//! merged orders, old and new ─▶ retracted and added index keys ─▶ deletes and upserts
//!
//! The merge already holds every order, so nothing is kept here. An order changes at most once an epoch, and a change that leaves
//! member and `placed_at` as they were cancels out, so an index key changes at most once an epoch.

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
