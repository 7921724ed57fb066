//! `orders`: the state of one order at a version. Natural key: order. Merge: `erased` is sticky; otherwise the greatest (version,
//! rank of status, refunded units, refunded amount, canonical bytes without the member, the member's bytes).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Invalid, Rules, as_given, from_json, record, within};
use crate::ids::{ItemId, MemberId, OrderId};
use crate::units::{EventTime, Tier, words};

/// Maximum units of one line; more is a producer's mistake.
pub const QUANTITY_MAX: i64 = 1_000_000;
/// Maximum price of one unit in minor units.
pub const PRICE_MINOR_MAX: i64 = 10_000_000_000;
/// Maximum sum of an order in minor units.
pub const TOTAL_MINOR_MAX: i128 = AMOUNT_MINOR_MAX as i128;
const AMOUNT_MINOR_MAX: i64 = 10_000_000_000_000;
/// Maximum lines of one order.
pub const LINES_MAX: usize = 5_000;
/// Maximum discounts of one line.
pub const DISCOUNTS_MAX: usize = 20;
/// Maximum refund entries of one order: enough to return every unit of a wholesale order by itself.
pub const REFUNDS_MAX: usize = 10_000;

words! {
    /// The status of an order. Any status may follow any.
    OrderStatus, "status" {
        /// Ordered, not paid.
        Placed "placed",
        /// Paid: it counts.
        Paid "paid",
        /// Shipped: it counts.
        Shipped "shipped",
        /// Received: it counts, and its points become available.
        Completed "completed",
        /// Cancelled before it was paid.
        Cancelled "cancelled",
        /// Refunded as a whole; a partial refund is a `refunds` entry.
        Refunded "refunded",
    }
}

impl OrderStatus {
    /// Whether an order of this status counts as bought.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Paid | Self::Shipped | Self::Completed)
    }

    /// Its rank in the merge: of two contents under one version the later status wins.
    pub const fn rank(self) -> u8 {
        self as u8
    }
}

record! {
    /// One line of an order.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Line, raw RawLine {
        /// Its number within the order, from 1.
        line: u32 = within(1..=u32::MAX),
        /// What was bought.
        item: ItemId,
        /// How many, from 1 to [`QUANTITY_MAX`].
        quantity: i64 = within(1..=QUANTITY_MAX),
        /// Price of one unit in minor units.
        unit_price_minor: i64 = within(0..=PRICE_MINOR_MAX),
        /// The line's discount in minor units.
        discount_minor: Option<i64> = within(0..=quantity * unit_price_minor),
        /// The coupon of the discount.
        coupon: Option<Box<str>>,
        /// The parts of the discount, if the shop names them; `discount_minor` is their sum.
        discounts: Vec<Discount>,
    }
    new(line: u32, item: ItemId, quantity: i64, unit_price_minor: i64);
    => Line::with_discount
}

record! {
    /// A part of a line's discount.
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
    pub struct Discount, raw RawDiscount {
        /// The kind of discount, in the shop's words: `tier`, `coupon`.
        kind: Box<str>,
        /// The coupon or campaign.
        id: Option<Box<str>>,
        /// The amount in minor units.
        amount_minor: i64 = as_given,
    }
}

record! {
    /// A refund: units of a line with their money, money of a line, or money of the order (shipping, goodwill).
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Refund, raw RawRefund {
        /// The refund's identity; (refund, line) is unique within the order.
        refund: Box<str>,
        /// When.
        at: EventTime,
        /// The line; absent for the order as a whole.
        line: Option<u32> = within(1..=u32::MAX),
        /// Units returned; absent for money only.
        quantity: Option<i64> = within(1..=QUANTITY_MAX),
        /// The amount in minor units.
        amount_minor: i64 = within(0..=AMOUNT_MINOR_MAX),
    }
    => Refund::of_a_line
}

record! {
    /// One order at one version.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct OrderRecord, raw Raw {
        /// The order's identity.
        order: OrderId,
        /// Greater is newer.
        version: u64,
        /// Its status.
        status: OrderStatus,
        /// The buyer; absent for guests and erased orders.
        member: Option<MemberId>,
        /// The member's level at purchase; normal if absent.
        tier: Option<Tier>,
        /// The promotion it was bought under.
        promotion: Option<Box<str>>,
        /// When it was placed.
        placed_at: EventTime,
        /// When it was paid.
        paid_at: Option<EventTime>,
        /// When it was received.
        completed_at: Option<EventTime>,
        /// When it was cancelled.
        cancelled_at: Option<EventTime>,
        /// ISO 4217; the installation's one currency.
        currency: Box<str> = as_given,
        /// Ordered by line number.
        lines: Vec<Line>,
        /// Ordered by (refund, line).
        refunds: Vec<Refund>,
        /// The member was erased: the order counts in sales totals only.
        erased: bool,
        /// Discount on the order as a whole, beside those of its lines, in minor units.
        discount_minor: Option<i64> = within(0..=AMOUNT_MINOR_MAX),
        /// Shipping cost in minor units.
        shipping_minor: Option<i64> = within(0..=AMOUNT_MINOR_MAX),
    }
    new(order: OrderId, version: u64, status: OrderStatus, placed_at: EventTime, currency: Box<str>, lines: Vec<Line>);
}

impl Line {
    /// Takes the sum of the parts for the discount, which may be absent beside them.
    fn with_discount(mut self) -> Result<Self, Invalid> {
        if self.discounts.is_empty() {
            return Ok(self);
        }
        let (price, given) = (self.quantity * self.unit_price_minor, self.discount_minor);
        if self.discounts.len() > DISCOUNTS_MAX {
            let are = self.discounts.len();
            return Err(Invalid::new("discounts", format!("are {are}; at most {DISCOUNTS_MAX} are accepted")));
        }
        for (n, discount) in self.discounts.iter().enumerate() {
            within(0..=price)("amount_minor", discount.amount_minor).map_err(|error| error.within(format!("discounts[{n}]")))?;
        }
        let sum = within(0..=price)("discounts", self.discounts.iter().map(|discount| discount.amount_minor).sum())?;
        if given.is_some_and(|given| given != sum) {
            return Err(Invalid::new("discount_minor", format!("is not the sum of discounts, which is {sum}")));
        }
        self.discount_minor = Some(sum);
        Ok(self)
    }
}

impl Refund {
    fn of_a_line(self) -> Result<Self, Invalid> {
        if self.quantity.is_some() && self.line.is_none() {
            return Err(Invalid::new("line", "is required where a quantity comes back"));
        }
        Ok(self)
    }
}

impl OrderRecord {
    /// Decodes and validates one JSON object.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8], rules: &Rules) -> Result<Self, Invalid> {
        Self::read(bytes)?.checked(rules)
    }

    /// Decodes the fields, each by itself; [`OrderRecord::checked`] validates them together.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Invalid> {
        Self::of(from_json(bytes)?)
    }

    /// Sorts lines and refunds and checks the invariants between fields. Every order is made through here.
    ///
    /// # Errors
    /// [`Invalid`] for a repeated line, a refund of more than was bought, another currency, or a sum too large.
    pub fn checked(mut self, rules: &Rules) -> Result<Self, Invalid> {
        if *self.currency != *rules.currency {
            let (is, ours) = (&self.currency, &rules.currency);
            return Err(Invalid::new("currency", format!("is {is:?}; this shop's currency is {ours:?} (shop.currency)")));
        }
        if self.lines.is_empty() {
            return Err(Invalid::new("lines", "must not be empty"));
        }
        if self.lines.len() > LINES_MAX {
            return Err(Invalid::new("lines", format!("are {}; at most {LINES_MAX} are accepted", self.lines.len())));
        }
        if self.refunds.len() > REFUNDS_MAX {
            return Err(Invalid::new("refunds", format!("are {}; at most {REFUNDS_MAX} are accepted", self.refunds.len())));
        }
        if self.erased {
            self.member = None;
        }
        self.lines.sort_by_key(|line| line.line);
        self.refunds.sort_by(|a, b| (&a.refund, a.line).cmp(&(&b.refund, b.line)));
        let mut bought = BTreeMap::new();
        let (mut prices, mut cost): (i128, i128) = (0, 0);
        for line in &self.lines {
            if bought.insert(line.line, line.quantity).is_some() {
                return Err(Invalid::new("lines", format!("name line {} twice", line.line)));
            }
            let price = i128::from(line.quantity) * i128::from(line.unit_price_minor);
            prices += price;
            cost += price - i128::from(line.discount_minor.unwrap_or(0));
        }
        let shipping = i128::from(self.shipping_minor.unwrap_or(0));
        let total = prices + shipping;
        if total > TOTAL_MINOR_MAX {
            let field = if prices > TOTAL_MINOR_MAX { "lines" } else { "shipping_minor" };
            return Err(Invalid::new(field, format!("sum up to {total} minor units; at most {TOTAL_MINOR_MAX} are accepted")));
        }
        let discount = i128::from(self.discount_minor.unwrap_or(0));
        if discount > cost {
            return Err(Invalid::new("discount_minor", format!("is {discount}, and the lines cost {cost}")));
        }
        let paid = cost - discount + shipping;
        let mut given_back: i128 = 0;
        let mut seen = BTreeSet::new();
        for refund in &self.refunds {
            let name = &refund.refund;
            if !seen.insert((name, refund.line)) {
                let of = refund.line.map_or("the order".to_owned(), |line| format!("line {line}"));
                return Err(Invalid::new("refunds", format!("name refund {name:?} of {of} twice")));
            }
            given_back += i128::from(refund.amount_minor);
            let Some(line) = refund.line else { continue };
            let Some(left) = bought.get_mut(&line) else {
                return Err(Invalid::new("refunds", format!("name line {line}, which the order has not")));
            };
            *left -= refund.quantity.unwrap_or(0);
            if *left < 0 {
                return Err(Invalid::new("refunds", format!("take back more of line {line} than was bought")));
            }
        }
        if given_back > paid {
            let reason = format!("give back {given_back} minor units, and lines and shipping cost {paid}");
            return Err(Invalid::new("refunds", reason));
        }
        Ok(self)
    }

    /// The frozen encoding (version 1): JSON with the fields in the order of the schema, absent ones left out.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an order serialises")
    }

    /// Each line with its net quantity, bought less refunded, whatever the order's status.
    pub fn net_lines(&self) -> impl Iterator<Item = (&Line, i64)> + '_ {
        self.net_lines_of(|_| true)
    }

    /// [`OrderRecord::net_lines`] with some of its refunds only.
    pub fn net_lines_of(&self, counts: impl Fn(&Refund) -> bool) -> impl Iterator<Item = (&Line, i64)> + '_ {
        let mut refunded: HashMap<u32, i64> = HashMap::new();
        for refund in self.refunds.iter().filter(|refund| counts(refund)) {
            if let (Some(line), Some(quantity)) = (refund.line, refund.quantity) {
                *refunded.entry(line).or_default() += quantity;
            }
        }
        self.lines.iter().map(move |line| (line, line.quantity - refunded.get(&line.line).copied().unwrap_or(0)))
    }

    /// Cost of lines and shipping less all discounts, in minor units, whatever the refunds and status.
    pub fn total_minor(&self) -> i64 {
        let lines: i64 =
            self.lines.iter().map(|line| line.quantity * line.unit_price_minor - line.discount_minor.unwrap_or(0)).sum();
        lines - self.discount_minor.unwrap_or(0) + self.shipping_minor.unwrap_or(0)
    }

    /// Units returned.
    pub fn refunded_units(&self) -> i64 {
        self.refunds.iter().filter_map(|refund| refund.quantity).sum()
    }

    /// Amount refunded, in minor units: at most [`OrderRecord::total_minor`].
    pub fn refunded_minor(&self) -> i64 {
        self.refunds.iter().map(|refund| refund.amount_minor).sum()
    }

    /// Each line with a net quantity above 0, if the status counts.
    pub fn counting_lines(&self) -> impl Iterator<Item = (&Line, i64)> + '_ {
        self.net_lines().filter(|&(_, net)| self.status.counts() && net > 0)
    }
}
