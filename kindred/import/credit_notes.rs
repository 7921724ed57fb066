//! Credit notes (`--link-cancellations`): orders with status `cancelled` under an identity of their own become refunds of what
//! they take back.
//!
//! ```text
//! C536379 cancelled, member 14527, 2 × D ──▶ 536370 of member 14527, its line of D: refunds [{refund: C536379, quantity: 2}]
//! ```
//!
//! Credit notes are processed in (time, row) order. Each line takes back up to its quantity from the same member's lines of that
//! item bought no later, latest (time, order, line) first. What finds nothing to take back is reported, not rejected. The credit
//! note itself is no order.

use std::collections::{BTreeMap, HashMap};

use kindred_model::records::{OrderRecord, OrderStatus, Refund};
use kindred_model::{EventTime, ItemId, MemberId, OrderId};

use super::orders::SourcedOrder;
use super::rejects::Origin;

/// Lines without a match that the report lists.
const LINES_NAMED: usize = 8;

/// What the credit notes took back, and what they did not match.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CreditNoteReport {
    /// Credit notes.
    pub notes: u64,
    /// Their lines.
    pub lines: u64,
    /// Their units.
    pub units: i64,
    /// Refund entries created.
    pub refunds: u64,
    /// Orders with refunds.
    pub orders: u64,
    /// Units taken back.
    pub units_taken: i64,
    /// Their value at the credit notes' prices, in minor units.
    pub amount_minor: i128,
    /// Credit notes with an unmatched remainder.
    pub leftover_notes: u64,
    /// Lines with an unmatched remainder.
    pub leftover_lines: u64,
    /// Unmatched units.
    pub leftover_units: i64,
    /// Their value in minor units.
    pub leftover_minor: i128,
    /// The first unmatched lines.
    pub leftover_first: Vec<Origin>,
}

/// A line of an order, in order of purchase.
type BoughtLine = (EventTime, OrderId, u32);
/// The lines of one (member, item), latest last.
type Bought = BTreeMap<BoughtLine, Left>;

/// The remainder of a bought line.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// The index of the order.
    order: usize,
    units: i64,
}

/// One line of a credit note, in processing order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NoteLine {
    at: EventTime,
    row: (usize, u64),
    line: u32,
    /// The index of the note, and of the line in it.
    note: usize,
    place: usize,
}

/// Cancelled orders that look like credit notes: the member bought one of the items earlier, in an order that counts.
pub fn resemble(orders: &[SourcedOrder]) -> u64 {
    let counts = |order: &OrderRecord| matches!(order.status, OrderStatus::Paid | OrderStatus::Shipped | OrderStatus::Completed);
    let is_note = |order: &OrderRecord| order.status == OrderStatus::Cancelled;
    if !orders.iter().any(|order| is_note(&order.record)) {
        return 0;
    }
    let mut first: HashMap<(&MemberId, &ItemId), EventTime> = HashMap::new();
    for order in orders.iter().map(|order| &order.record).filter(|order| counts(order)) {
        let Some(member) = &order.member else { continue };
        for line in &order.lines {
            let at = first.entry((member, &line.item)).or_insert(order.placed_at);
            *at = order.placed_at.min(*at);
        }
    }
    let takes_back = |order: &&OrderRecord| {
        order.member.as_ref().is_some_and(|member| {
            order.lines.iter().any(|line| first.get(&(member, &line.item)).is_some_and(|at| *at <= order.placed_at))
        })
    };
    orders.iter().map(|order| &order.record).filter(|order| is_note(order)).filter(takes_back).count() as u64
}

/// Separates credit notes from orders, and adds what they take back to the orders' refunds.
pub fn link(all: Vec<SourcedOrder>) -> (Vec<SourcedOrder>, CreditNoteReport) {
    let (notes, mut orders): (Vec<_>, Vec<_>) = all.into_iter().partition(|order| order.record.status == OrderStatus::Cancelled);
    let mut bought: HashMap<(MemberId, ItemId), Bought> = HashMap::new();
    for (n, SourcedOrder { record, .. }) in orders.iter().enumerate() {
        // A guest has no identity to match, and a fully refunded order has nothing left.
        let Some(member) = &record.member else { continue };
        if record.status == OrderStatus::Refunded {
            continue;
        }
        for (line, net) in record.net_lines().filter(|&(_, net)| net > 0) {
            let key = (record.placed_at, record.order.clone(), line.line);
            let left = Left { order: n, units: net };
            bought.entry((member.clone(), line.item.clone())).or_default().insert(key, left);
        }
    }

    let mut report = CreditNoteReport { notes: notes.len() as u64, ..CreditNoteReport::default() };
    let mut lines = Vec::new();
    for (n, note) in notes.iter().enumerate() {
        for (l, (line, origin)) in note.record.lines.iter().zip(&note.rows).enumerate() {
            lines.push(NoteLine { at: note.record.placed_at, row: origin.row(), line: line.line, note: n, place: l });
        }
    }
    lines.sort_unstable();

    let mut left_over = vec![false; notes.len()];
    let mut touched = vec![false; orders.len()];
    for NoteLine { at, note: n, place, .. } in lines {
        let note = &notes[n];
        let line = &note.record.lines[place];
        let mut open = line.quantity;
        report.lines += 1;
        report.units += open;
        if let Some(member) = &note.record.member
            && let Some(bought) = bought.get_mut(&(member.clone(), line.item.clone()))
        {
            while open > 0 {
                let Some((key, left)) = latest(bought, at) else { break };
                let taken = open.min(left.units);
                if taken == left.units {
                    bought.remove(&key);
                } else if let Some(left) = bought.get_mut(&key) {
                    left.units -= taken;
                }
                let target = left.order;
                // A note may name another price than was paid; a refund never exceeds the order's total.
                let unrefunded = orders[target].record.total_minor() - orders[target].record.refunded_minor();
                let amount_minor = (taken * line.unit_price_minor).min(unrefunded);
                let made = refund(&mut orders[target].record, note.record.order.as_str(), at, key.2, taken, amount_minor);
                report.refunds += u64::from(made);
                report.orders += u64::from(!std::mem::replace(&mut touched[target], true));
                report.units_taken += taken;
                report.amount_minor += i128::from(amount_minor);
                open -= taken;
            }
        }
        if open > 0 {
            report.leftover_lines += 1;
            report.leftover_units += open;
            report.leftover_minor += i128::from(open) * i128::from(line.unit_price_minor);
            report.leftover_notes += u64::from(!std::mem::replace(&mut left_over[n], true));
            if report.leftover_first.len() < LINES_NAMED {
                report.leftover_first.push(note.rows[place].clone());
            }
        }
    }
    (orders, report)
}

/// The latest line bought no later than `at` with units left.
fn latest(bought: &Bought, at: EventTime) -> Option<(BoughtLine, Left)> {
    // Order ids are not empty, so this bound lies after all lines of `at` and before those of the next millisecond.
    let bound = (EventTime(at.0 + 1), OrderId::trusted(""), 0);
    bought.range(..bound).next_back().map(|(key, left)| (key.clone(), *left))
}

/// Adds units to this note's refund of a line, one entry per (refund, line). Returns whether the entry is new.
pub(super) fn refund(order: &mut OrderRecord, name: &str, at: EventTime, line: u32, quantity: i64, amount_minor: i64) -> bool {
    let refunds = &mut order.refunds;
    if let Some(entry) = refunds.iter_mut().find(|entry| *entry.refund == *name && entry.line == Some(line)) {
        entry.quantity = Some(entry.quantity.unwrap_or(0) + quantity);
        entry.amount_minor += amount_minor;
        return false;
    }
    refunds.push(Refund { refund: name.into(), at, line: Some(line), quantity: Some(quantity), amount_minor });
    true
}
