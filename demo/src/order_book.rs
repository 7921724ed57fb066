//! The shop's order book: the current state of its orders and the forgotten members, derived from the log.
//!
//! ```text
//! log ──tail──▶ OrderBook (merged by natural key) ──▶ next version of an order, last orders of a member, a sentence per event
//! ```
//!
//! Bounded: the last orders of each member, and the last orders overall. Older ones can no longer be refunded here.

use std::collections::{HashMap, HashSet, VecDeque};

use kindred_model::records::{MemberRecord, MemberState, OrderRecord, Record};
use kindred_model::{EventTime, MemberId, OrderId};

use crate::orders::Step;

/// Orders kept per member: the page derives from them what the member owns.
const ORDERS_A_MEMBER: usize = 50;
/// Orders kept overall. A live order completes in minutes, and the history has some 3,000.
const ORDERS_MAX: usize = 20_000;

/// The book.
#[derive(Debug, Default)]
pub struct OrderBook {
    orders: HashMap<OrderId, OrderRecord>,
    /// In order of arrival.
    arrival: VecDeque<OrderId>,
    by_member: HashMap<MemberId, VecDeque<OrderId>>,
    forgotten: HashSet<MemberId>,
}

impl OrderBook {
    /// Applies a record. Idempotent; older versions are ignored.
    pub fn take(&mut self, record: &Record) {
        match record {
            Record::Order(order) => self.take_order(order),
            Record::Member(MemberRecord::Member(membership)) if membership.state == MemberState::Erased => {
                self.forgotten.insert(membership.member.clone());
                for order in self.by_member.remove(&membership.member).into_iter().flatten() {
                    self.orders.remove(&order);
                }
            }
            _ => {}
        }
    }

    fn take_order(&mut self, order: &OrderRecord) {
        if order.member.as_ref().is_some_and(|member| self.forgotten.contains(member)) {
            return;
        }
        let newer = |known: &OrderRecord| (order.erased, order.version) > (known.erased, known.version);
        match self.orders.get_mut(&order.order) {
            Some(known) if newer(known) => *known = order.clone(),
            Some(_) => {}
            None => {
                self.orders.insert(order.order.clone(), order.clone());
                self.arrival.push_back(order.order.clone());
                if let Some(member) = &order.member {
                    let of_member = self.by_member.entry(member.clone()).or_default();
                    of_member.push_back(order.order.clone());
                    if of_member.len() > ORDERS_A_MEMBER {
                        of_member.pop_front();
                    }
                }
                if self.arrival.len() > ORDERS_MAX
                    && let Some(oldest) = self.arrival.pop_front()
                    && let Some(order) = self.orders.remove(&oldest)
                    && let Some(member) = &order.member
                    && let Some(of_member) = self.by_member.get_mut(member)
                {
                    of_member.retain(|order| *order != oldest);
                    if of_member.is_empty() {
                        self.by_member.remove(member);
                    }
                }
            }
        }
    }

    /// The state of an order.
    pub fn order(&self, order: &OrderId) -> Option<&OrderRecord> {
        self.orders.get(order)
    }

    /// Applies a step to an order; `None` if the step is not possible.
    pub fn advance(&mut self, order: &OrderId, step: &Step, at: EventTime) -> Option<OrderRecord> {
        let known = self.orders.get_mut(order)?;
        let next = step.apply(known, at)?;
        *known = next.clone();
        Some(next)
    }

    /// Restores `before` unless something followed `after`: the next version could not be written.
    pub fn revert(&mut self, after: &OrderRecord, before: OrderRecord) {
        if let Some(known) = self.orders.get_mut(&before.order)
            && *known == *after
        {
            *known = before;
        }
    }

    /// The last orders of a member, latest first.
    pub fn orders_of(&self, member: &MemberId) -> Vec<&OrderRecord> {
        let mut orders: Vec<&OrderRecord> =
            self.by_member.get(member).into_iter().flatten().filter_map(|order| self.orders.get(order)).collect();
        orders.sort_by(|a, b| (b.placed_at, &b.order).cmp(&(a.placed_at, &a.order)));
        orders
    }

    /// Whether a member asked to be forgotten.
    pub fn is_forgotten(&self, member: &MemberId) -> bool {
        self.forgotten.contains(member)
    }

    /// Marks a member as forgotten: nothing more is written about them.
    pub fn forget(&mut self, member: &MemberId) {
        self.forgotten.insert(member.clone());
        for order in self.by_member.remove(member).into_iter().flatten() {
            self.orders.remove(&order);
        }
    }
}

#[cfg(test)]
mod tests {
    use kindred_model::records::{Membership, OrderStatus};
    use kindred_model::{Day, Topic};

    use super::*;
    use crate::catalog::Catalog;
    use crate::simulator::History;

    /// The book must not depend on the order in which versions are read, since two writers append to one log.
    #[test]
    fn the_book_keeps_the_newest_version_whatever_the_order() {
        let history = History::new(3, Day(20_400), &Catalog::new(3), "EUR");
        let orders: Vec<&Record> = history.records.iter().filter(|record| record.topic() == Topic::Orders).collect();
        let (mut forward, mut backward) = (OrderBook::default(), OrderBook::default());
        orders.iter().for_each(|record| forward.take(record));
        orders.iter().rev().for_each(|record| backward.take(record));
        assert!(forward.orders.len() > 2_000);
        assert_eq!(forward.orders, backward.orders);
    }

    #[test]
    fn a_forgotten_member_leaves_the_book_and_does_not_come_back() {
        let history = History::new(3, Day(20_400), &Catalog::new(3), "EUR");
        let mut book = OrderBook::default();
        history.records.iter().for_each(|record| book.take(record));
        let member =
            history.shoppers.iter().map(|shopper| &shopper.member).find(|member| !book.orders_of(member).is_empty()).unwrap();
        let order = book.orders_of(member)[0].clone();
        let erased = Membership::new(member.clone(), 9, MemberState::Erased);
        book.take(&Record::Member(MemberRecord::Member(erased)));
        assert!(book.is_forgotten(member) && book.orders_of(member).is_empty() && book.order(&order.order).is_none());
        book.take(&Record::Order(OrderRecord { version: 99, status: OrderStatus::Paid, ..order }));
        assert!(book.orders_of(member).is_empty());
    }
}
