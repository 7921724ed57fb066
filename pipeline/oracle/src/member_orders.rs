//! `member_orders` by brute force: the orders that name a member, the latest first.

use std::collections::BTreeMap;

use kindred_model::records::OrderRecord;
use kindred_model::views::member_orders::MemberOrders;
use kindred_model::{MemberId, Semantics};

use crate::tables::Tables;
use crate::{Inputs, Recomputed};

/// The orders of each member that has any and is not erased.
pub fn member_orders(inputs: &Inputs) -> BTreeMap<&MemberId, Vec<&OrderRecord>> {
    let erased = inputs.erased_members();
    let mut orders: BTreeMap<&MemberId, Vec<&OrderRecord>> = BTreeMap::new();
    for order in inputs.orders.values() {
        if let Some(member) = order.member.as_ref().filter(|member| !erased.contains(member.as_str())) {
            orders.entry(member).or_default().push(order);
        }
    }
    for orders in orders.values_mut() {
        orders.sort_by(|a, b| b.placed_at.cmp(&a.placed_at).then_with(|| a.order.cmp(&b.order)));
    }
    orders
}

impl Recomputed for MemberOrders {
    /// The index holds an erased member's orders until they are removed from the log. They are hidden when read.
    fn recompute(inputs: &Inputs, _semantics: &Semantics) -> Tables {
        Tables::of::<MemberOrders>(inputs.orders.values().filter_map(MemberOrders::key).map(|key| (key, ())))
    }
}
