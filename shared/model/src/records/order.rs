//! `orders`: the state of one order at a version. Natural key: order. Merge: `erased` is sticky; otherwise the greatest (version,
//! rank of status, refunded units, refunded amount, canonical bytes without the member, the member's bytes).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{Invalid, Object, Rules, Text, bounded, from_json, required, word};
use crate::ids::{ItemId, MemberId, OrderId, check_id};
use crate::units::{EventTime, Tier};

/// Maximum units of one line; more is a producer's mistake.
pub const QUANTITY_MAX: i64 = 1_000_000;
/// Maximum price of one unit in minor units.
pub const PRICE_MINOR_MAX: i64 = 10_000_000_000;
/// Maximum sum of an order in minor units.
pub const TOTAL_MINOR_MAX: i128 = 10_000_000_000_000;
/// Maximum lines of one order.
pub const LINES_MAX: usize = 5_000;
/// Maximum discounts of one line.
pub const DISCOUNTS_MAX: usize = 20;
/// Maximum refund entries of one order: enough to return every unit of a wholesale order by itself.
pub const REFUNDS_MAX: usize = 10_000;

macro_rules! status {
    ($($(#[$doc:meta])* $variant:ident $text:literal),+) => {
        /// The status of an order. Any status may follow any.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum OrderStatus { $($(#[$doc])* $variant),+ }

        impl OrderStatus {
            /// The word in records.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for OrderStatus {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(Invalid::new("status", format!("{text:?} is none of {}", [$($text),+].join(", ")))),
                }
            }
        }
    };
}

status!(
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
    Refunded "refunded"
);

impl OrderStatus {
    /// Whether an order of this status counts as bought (DESIGN, Definitions: Bought).
    pub const fn counts(self) -> bool {
        matches!(self, Self::Paid | Self::Shipped | Self::Completed)
    }

    /// Its rank in the merge: of two contents under one version the later status wins.
    pub const fn rank(self) -> u8 {
        self as u8
    }
}

/// One line of an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// Its number within the order, from 1.
    pub line: u32,
    /// What was bought.
    pub item: ItemId,
    /// How many, from 1 to [`QUANTITY_MAX`].
    pub quantity: i64,
    /// Price of one unit in minor units.
    pub unit_price_minor: i64,
    /// The line's discount in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount_minor: Option<i64>,
    /// The coupon of the discount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon: Option<Box<str>>,
    /// The parts of the discount, if the shop names them; `discount_minor` is their sum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<Discount>,
}

/// A part of a line's discount.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Discount {
    /// The kind of discount, in the shop's words: `tier`, `coupon`.
    pub kind: Box<str>,
    /// The coupon or campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// The amount in minor units.
    pub amount_minor: i64,
}

/// A refund: units of a line with their money, money of a line, or money of the order (shipping, goodwill).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refund {
    /// The refund's identity; (refund, line) is unique within the order.
    pub refund: Box<str>,
    /// When.
    pub at: EventTime,
    /// The line; absent for the order as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Units returned; absent for money only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
    /// The amount in minor units.
    pub amount_minor: i64,
}

/// One order at one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OrderRecord {
    /// The order's identity.
    pub order: OrderId,
    /// Greater is newer.
    pub version: u64,
    /// Its status.
    pub status: OrderStatus,
    /// The buyer; absent for guests and erased orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The member's level at purchase; normal if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The promotion it was bought under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Box<str>>,
    /// When it was placed.
    pub placed_at: EventTime,
    /// When it was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<EventTime>,
    /// When it was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<EventTime>,
    /// When it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<EventTime>,
    /// ISO 4217; the installation's one currency.
    pub currency: Box<str>,
    /// Ordered by line number.
    pub lines: Vec<Line>,
    /// Ordered by (refund, line).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refunds: Vec<Refund>,
    /// The member was erased: the order counts in sales totals only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    /// Discount on the order as a whole, beside those of its lines, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount_minor: Option<i64>,
    /// Shipping cost in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipping_minor: Option<i64>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    order: Option<Text<'a>>,
    version: Option<u64>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    member: Option<Text<'a>>,
    #[serde(borrow)]
    tier: Option<Text<'a>>,
    #[serde(borrow)]
    promotion: Option<Text<'a>>,
    #[serde(borrow)]
    placed_at: Option<Text<'a>>,
    #[serde(borrow)]
    paid_at: Option<Text<'a>>,
    #[serde(borrow)]
    completed_at: Option<Text<'a>>,
    #[serde(borrow)]
    cancelled_at: Option<Text<'a>>,
    #[serde(borrow)]
    currency: Option<Text<'a>>,
    #[serde(borrow)]
    lines: Option<Vec<Object<RawLine<'a>>>>,
    #[serde(borrow)]
    refunds: Option<Vec<Object<RawRefund<'a>>>>,
    erased: Option<bool>,
    discount_minor: Option<i64>,
    shipping_minor: Option<i64>,
}

#[derive(Deserialize)]
struct RawLine<'a> {
    line: Option<i64>,
    #[serde(borrow)]
    item: Option<Text<'a>>,
    quantity: Option<i64>,
    unit_price_minor: Option<i64>,
    discount_minor: Option<i64>,
    #[serde(borrow)]
    coupon: Option<Text<'a>>,
    #[serde(borrow)]
    discounts: Option<Vec<Object<RawDiscount<'a>>>>,
}

#[derive(Deserialize)]
struct RawDiscount<'a> {
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    amount_minor: Option<i64>,
}

#[derive(Deserialize)]
struct RawRefund<'a> {
    #[serde(borrow)]
    refund: Option<Text<'a>>,
    #[serde(borrow)]
    at: Option<Text<'a>>,
    line: Option<i64>,
    quantity: Option<i64>,
    amount_minor: Option<i64>,
}

fn line_number(value: Option<i64>) -> Result<u32, Invalid> {
    Ok(u32::try_from(bounded("line", required("line", value)?, 1, i64::from(u32::MAX))?).expect("bounded"))
}

fn identity(field: &str, value: Option<Text<'_>>) -> Result<Option<Box<str>>, Invalid> {
    value.map(|text| check_id(field, &text).map(|()| text.into())).transpose()
}

fn time(field: &str, value: Option<Text<'_>>) -> Result<Option<EventTime>, Invalid> {
    value.map(|text| EventTime::parse(field, &text)).transpose()
}

impl RawLine<'_> {
    fn check(self) -> Result<Line, Invalid> {
        let quantity = bounded("quantity", required("quantity", self.quantity)?, 1, QUANTITY_MAX)?;
        let unit_price_minor =
            bounded("unit_price_minor", required("unit_price_minor", self.unit_price_minor)?, 0, PRICE_MINOR_MAX)?;
        let price = quantity.checked_mul(unit_price_minor).expect("both bounded");
        let given = self.discount_minor.map(|discount| bounded("discount_minor", discount, 0, price)).transpose()?;
        let discounts = self.discounts.unwrap_or_default();
        if discounts.len() > DISCOUNTS_MAX {
            let are = discounts.len();
            return Err(Invalid::new("discounts", format!("are {are}; at most {DISCOUNTS_MAX} are accepted")));
        }
        let discounts = discounts
            .into_iter()
            .enumerate()
            .map(|(n, Object(discount))| discount.check(price).map_err(|error| error.within(format!("discounts[{n}]"))))
            .collect::<Result<Vec<_>, _>>()?;
        let sum: i64 = discounts.iter().map(|discount| discount.amount_minor).sum();
        let discount_minor = if discounts.is_empty() { given } else { Some(bounded("discounts", sum, 0, price)?) };
        if given.is_some() && given != discount_minor {
            return Err(Invalid::new("discount_minor", format!("is not the sum of discounts, which is {sum}")));
        }
        Ok(Line {
            line: line_number(self.line)?,
            item: ItemId::parse(&required("item", self.item)?)?,
            quantity,
            unit_price_minor,
            discount_minor,
            coupon: identity("coupon", self.coupon)?,
            discounts,
        })
    }
}

impl RawDiscount<'_> {
    fn check(self, price: i64) -> Result<Discount, Invalid> {
        Ok(Discount {
            kind: required("kind", identity("kind", self.kind)?)?,
            id: identity("id", self.id)?,
            amount_minor: bounded("amount_minor", required("amount_minor", self.amount_minor)?, 0, price)?,
        })
    }
}

/// An amount of an order, in minor units.
fn amount(field: &str, value: i64) -> Result<i64, Invalid> {
    bounded(field, value, 0, i64::try_from(TOTAL_MINOR_MAX).expect("fits"))
}

impl RawRefund<'_> {
    fn check(self) -> Result<Refund, Invalid> {
        let line = self.line.map(|line| line_number(Some(line))).transpose()?;
        let quantity = self.quantity.map(|quantity| bounded("quantity", quantity, 1, QUANTITY_MAX)).transpose()?;
        if quantity.is_some() && line.is_none() {
            return Err(Invalid::new("line", "is required where a quantity comes back"));
        }
        Ok(Refund {
            refund: required("refund", identity("refund", self.refund)?)?,
            at: required("at", time("at", self.at)?)?,
            line,
            quantity,
            amount_minor: amount("amount_minor", required("amount_minor", self.amount_minor)?)?,
        })
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
        let raw: Raw = from_json(bytes)?;
        let lines = raw
            .lines
            .ok_or_else(|| Invalid::new("lines", "is required"))?
            .into_iter()
            .enumerate()
            .map(|(n, Object(line))| line.check().map_err(|error| error.within(format!("lines[{n}]"))))
            .collect::<Result<Vec<_>, _>>()?;
        let refunds = raw
            .refunds
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(n, Object(refund))| refund.check().map_err(|error| error.within(format!("refunds[{n}]"))))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            order: OrderId::parse(&required("order", raw.order)?)?,
            version: required("version", raw.version)?,
            status: word("status", &required("status", raw.status)?)?,
            member: raw.member.as_deref().map(MemberId::parse).transpose()?,
            tier: raw.tier.as_deref().map(|tier| word("tier", tier)).transpose()?,
            promotion: identity("promotion", raw.promotion)?,
            placed_at: required("placed_at", time("placed_at", raw.placed_at)?)?,
            paid_at: time("paid_at", raw.paid_at)?,
            completed_at: time("completed_at", raw.completed_at)?,
            cancelled_at: time("cancelled_at", raw.cancelled_at)?,
            currency: required("currency", raw.currency)?.into(),
            lines,
            refunds,
            erased: raw.erased.unwrap_or(false),
            discount_minor: raw.discount_minor.map(|minor| amount("discount_minor", minor)).transpose()?,
            shipping_minor: raw.shipping_minor.map(|minor| amount("shipping_minor", minor)).transpose()?,
        })
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

    /// Each line with a net quantity above 0, if the status counts (DESIGN, Definitions: Bought).
    pub fn counting_lines(&self) -> impl Iterator<Item = (&Line, i64)> + '_ {
        self.net_lines().filter(|&(_, net)| self.status.counts() && net > 0)
    }
}
