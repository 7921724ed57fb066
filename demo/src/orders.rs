//! The life of an order: placed, paid, shipped, completed; sometimes cancelled or refunded. Each step is a new version of the
//! whole record, as a shop's own system would write it.

use kindred_model::records::{OrderRecord, OrderStatus, Refund};
use kindred_model::{EventTime, OrderId};

/// The next step of an order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Payment arrives.
    Pay,
    /// Cancelled before payment.
    Cancel,
    /// The parcel is sent.
    Ship,
    /// It was received.
    Complete,
    /// Full refund.
    RefundAll,
    /// Refund of some units of a line.
    RefundSome {
        /// The line.
        line: u32,
        /// How many units.
        quantity: i64,
    },
}

/// A step and when it is due.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Due {
    /// When.
    pub at: EventTime,
    /// The order.
    pub order: OrderId,
    /// The step.
    pub step: Step,
}

impl Step {
    /// The order after this step; `None` if the step is done or impossible. So a step can be retried, for example after a
    /// restart.
    pub fn apply(&self, order: &OrderRecord, at: EventTime) -> Option<OrderRecord> {
        use OrderStatus::{Cancelled, Completed, Paid, Placed, Refunded, Shipped};
        let mut next = order.clone();
        next.version = order.version + 1;
        match (self, order.status) {
            _ if order.erased => return None,
            (Self::Pay, Placed) => {
                next.status = Paid;
                next.paid_at = Some(at);
            }
            (Self::Cancel, Placed) => {
                next.status = Cancelled;
                next.cancelled_at = Some(at);
            }
            (Self::Ship, Paid) => next.status = Shipped,
            (Self::Complete, Paid | Shipped) => {
                next.status = Completed;
                next.completed_at = Some(at);
            }
            (Self::RefundAll, Paid | Shipped | Completed) => next.status = Refunded,
            (Self::RefundSome { line, quantity }, Paid | Shipped | Completed) => {
                let bought = order.lines.iter().find(|candidate| candidate.line == *line)?;
                // One refund a line, with the same id on every attempt.
                let refund = format!("{}-r{line}", order.order);
                if order.refunds.iter().any(|known| known.line == Some(*line)) || *quantity > bought.quantity {
                    return None;
                }
                let amount_minor = bought.unit_price_minor * quantity;
                let (line, quantity) = (Some(*line), Some(*quantity));
                next.refunds.push(Refund { refund: refund.into(), at, line, quantity, amount_minor });
                next.refunds.sort_by(|a, b| (&a.refund, a.line).cmp(&(&b.refund, b.line)));
            }
            _ => return None,
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use kindred_model::ItemId;
    use kindred_model::records::Line;

    use super::*;

    fn placed() -> OrderRecord {
        let lines = vec![Line::new(1, ItemId::trusted("tents-01"), 2, 500)];
        let (id, at) = (OrderId::trusted("o1"), EventTime(1_700_000_000_000));
        OrderRecord::new(id, 1, OrderStatus::Placed, at, "EUR".into(), lines)
    }

    /// A retried step, as after a restart, must not refund twice.
    #[test]
    fn a_step_follows_once() {
        let at = EventTime(1_700_000_001_000);
        let paid = Step::Pay.apply(&placed(), at).unwrap();
        assert_eq!((paid.version, paid.status, paid.paid_at), (2, OrderStatus::Paid, Some(at)));
        assert_eq!(Step::Pay.apply(&paid, at), None);
        assert_eq!(Step::Cancel.apply(&paid, at), None);
        let some = Step::RefundSome { line: 1, quantity: 1 };
        let partly = some.apply(&paid, at).unwrap();
        assert_eq!(partly.refunds[0].amount_minor, 500);
        assert_eq!(some.apply(&partly, at), None);
        assert_eq!(Step::RefundSome { line: 1, quantity: 3 }.apply(&paid, at), None);
        assert_eq!(Step::RefundSome { line: 2, quantity: 1 }.apply(&paid, at), None);
        let refunded = Step::RefundAll.apply(&partly, at).unwrap();
        assert_eq!(refunded.status, OrderStatus::Refunded);
        assert_eq!(Step::RefundAll.apply(&refunded, at), None);
        assert_eq!(Step::Complete.apply(&refunded, at), None);
        assert_eq!(Step::Ship.apply(&OrderRecord { erased: true, ..paid }, at), None);
    }
}
