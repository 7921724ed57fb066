//! Groups rows of order lines into orders, however far apart the rows are.
//!
//! ```text
//! row (order_id, member, item, quantity, unit_price_cents, timestamp_ms, status, …) ──▶ order with its lines ──▶ OrderRecord
//! ```
//!
//! - A line's number is the number of its row within its order; an order's `placed_at` is the earliest of its rows.
//! - Fields of the order must agree in all its rows: `member` (empty is a guest) and the meaning of `status` always, the rest
//!   (`tier`, `currency`, …) where a row has them.
//! - A row with a negative quantity is a return: it refunds the latest lines of that item in its order. In an order without other
//!   rows it is a credit note (`--link-cancellations`).
//! - Equal rows of an order in two files count once: exports overlap. Equal rows in one file are two lines.
//! - A rejected row rejects its whole order. Half an order would earn half its points, and conflict with the whole one later.

use std::collections::HashMap;

use csv::StringRecord;
use kindred_model::records::{Invalid, OrderRecord, OrderStatus, Rules};
use kindred_model::{EventTime, MemberId, OrderId};
use serde_json::json;

use super::columns::Columns;
use super::credit_notes::refund;
use super::options::ImportOptions;
use super::rejects::{Origin, Rejects};
use super::values::{shown, whole_number};

/// One row of the file.
pub struct OrderRow<'a> {
    /// The columns of its file.
    pub columns: &'a Columns,
    /// Its values.
    pub row: &'a StringRecord,
}

impl<'a> OrderRow<'a> {
    fn get(&self, field: &str) -> Option<&'a str> {
        self.columns.field(self.row, field)
    }

    fn required(&self, field: &str) -> Result<&'a str, Invalid> {
        self.get(field).ok_or_else(|| Invalid::new(field, "is required"))
    }
}

/// An order with its source rows, one a line.
#[derive(Clone, PartialEq, Debug)]
pub struct SourcedOrder {
    /// The order.
    pub record: OrderRecord,
    /// Where each line is; an NDJSON order has one row for all.
    pub rows: Vec<Origin>,
}

/// The fields shared by all rows of an order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Shared {
    member: Option<Box<str>>,
    status: Option<OrderStatus>,
    version: Option<u64>,
    tier: Option<Box<str>>,
    promotion: Option<Box<str>>,
    currency: Option<Box<str>>,
    paid_at: Option<EventTime>,
    completed_at: Option<EventTime>,
    cancelled_at: Option<EventTime>,
}

struct LineRow {
    origin: Origin,
    raw: Box<[u8]>,
    item: Box<str>,
    quantity: i64,
    unit_price_minor: i64,
    discount_minor: Option<i64>,
    coupon: Option<Box<str>>,
    at: EventTime,
    /// Other files with rows of it.
    also_in: Vec<usize>,
}

impl LineRow {
    fn says(&self) -> (&str, i64, i64, Option<i64>, Option<&str>, EventTime) {
        (&self.item, self.quantity, self.unit_price_minor, self.discount_minor, self.coupon.as_deref(), self.at)
    }
}

struct Pending {
    order: Box<str>,
    placed_at: EventTime,
    /// None before the first row.
    shared: Option<Shared>,
    lines: Vec<LineRow>,
    /// Rows with a negative quantity.
    returns: Vec<LineRow>,
    /// The first rejected row.
    broken: Option<Origin>,
}

/// Gathers rows into orders.
pub struct OrderAssembly<'a> {
    options: &'a ImportOptions,
    by_id: HashMap<Box<str>, usize>,
    pending: Vec<Pending>,
    /// Rows repeated in another file, and the first of them.
    overlap: (u64, Option<Origin>),
}

impl Shared {
    fn read(row: &OrderRow<'_>, status: OrderStatus, options: &ImportOptions) -> Result<Self, Invalid> {
        let time = |field: &str| row.get(field).map(|text| options.time(field, text)).transpose();
        let member = |member| MemberId::parse(member)?.check_named().map(|member| member.as_str().into());
        Ok(Self {
            member: row.get("member").map(member).transpose()?,
            status: Some(status),
            version: row.columns.version(row.row, options)?,
            tier: row.get("tier").map(Into::into),
            promotion: row.get("promotion").map(Into::into),
            currency: row.get("currency").map(Into::into),
            paid_at: time("paid_at")?,
            completed_at: time("completed_at")?,
            cancelled_at: time("cancelled_at")?,
        })
    }

    /// Merges the fields of another row.
    fn agree(&mut self, row: Self, options: &ImportOptions) -> Result<(), Invalid> {
        fn same<T: PartialEq>(field: &str, ours: &mut Option<T>, theirs: Option<T>) -> Result<(), Invalid> {
            match (&*ours, theirs) {
                (Some(a), Some(b)) if *a != b => {
                    Err(Invalid::new(field, "is not the same in all rows of the order: it is the order's, not the line's"))
                }
                (None, Some(b)) => {
                    *ours = Some(b);
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        if self.member != row.member {
            return Err(another_member());
        }
        same("status", &mut self.status, row.status)?;
        if options.version_from.is_some() {
            // Lines may have changed at different times.
            self.version = self.version.max(row.version);
        } else {
            same("version", &mut self.version, row.version)?;
        }
        same("tier", &mut self.tier, row.tier)?;
        same("promotion", &mut self.promotion, row.promotion)?;
        same("currency", &mut self.currency, row.currency)?;
        same("paid_at", &mut self.paid_at, row.paid_at)?;
        same("completed_at", &mut self.completed_at, row.completed_at)?;
        same("cancelled_at", &mut self.cancelled_at, row.cancelled_at)
    }
}

fn another_member() -> Invalid {
    Invalid::new("member", "is not the same in all rows of the order: an order has one member or is a guest's")
}

/// An order that differs between two files: two exports, one of them older.
fn of_two_files(error: Invalid) -> Invalid {
    let help = "the order is in another file, too: import each by itself, the later with a greater --version, or --version-from";
    Invalid::new(error.field, format!("{}; {help}", error.reason))
}

impl<'a> OrderAssembly<'a> {
    /// Nothing yet.
    pub fn new(options: &'a ImportOptions) -> Self {
        Self { options, by_id: HashMap::new(), pending: Vec::new(), overlap: (0, None) }
    }

    /// Rows repeated in another file, and the first of them.
    pub fn overlap(&self) -> (u64, Option<Origin>) {
        self.overlap.clone()
    }

    /// Adds one row; `raw` is its text in the file.
    ///
    /// # Errors
    /// When the sink of the rejects fails.
    pub fn row(&mut self, origin: Origin, row: &OrderRow<'_>, raw: &[u8], rejects: &mut Rejects<'_>) -> anyhow::Result<()> {
        let id = match row.required("order").and_then(OrderId::parse) {
            Ok(id) => id,
            Err(error) => return rejects.add(&origin, &error.to_string(), raw),
        };
        if let Err(error) = self.take(&id, &origin, row, raw) {
            rejects.add(&origin, &error.to_string(), raw)?;
            self.mark_broken(&id, &origin);
        }
        Ok(())
    }

    /// Marks an order as broken by an unreadable row.
    pub fn mark_broken(&mut self, id: &OrderId, origin: &Origin) {
        let n = self.pending_of(id);
        self.pending[n].broken.get_or_insert_with(|| origin.clone());
    }

    fn pending_of(&mut self, id: &OrderId) -> usize {
        if let Some(&n) = self.by_id.get(id.as_str()) {
            return n;
        }
        let n = self.pending.len();
        let order: Box<str> = id.as_str().into();
        self.by_id.insert(order.clone(), n);
        self.pending.push(Pending {
            order,
            placed_at: EventTime::END,
            shared: None,
            lines: Vec::new(),
            returns: Vec::new(),
            broken: None,
        });
        n
    }

    fn take(&mut self, id: &OrderId, origin: &Origin, row: &OrderRow<'_>, raw: &[u8]) -> Result<(), Invalid> {
        let money = |field: &str, text: &str| self.options.money(field, text);
        let line = LineRow {
            origin: origin.clone(),
            raw: raw.into(),
            item: row.required("item")?.into(),
            quantity: whole_number("quantity", row.required("quantity")?)?,
            unit_price_minor: money("unit_price_minor", row.required("unit_price_minor")?)?,
            discount_minor: row.get("discount_minor").map(|text| money("discount_minor", text)).transpose()?,
            coupon: row.get("coupon").map(Into::into),
            at: self.options.time("placed_at", row.required("placed_at")?)?,
            also_in: Vec::new(),
        };
        let is_return = line.quantity < 0;
        // A return's status is that of the return, not of the order.
        let status = if is_return { OrderStatus::Cancelled } else { self.options.status_of(row.required("status")?)? };
        let mut shared = Shared::read(row, status, self.options)?;
        let n = self.pending_of(id);
        let pending = &mut self.pending[n];
        if is_return && let Some(of_order) = &pending.shared {
            shared = Shared { member: shared.member, version: shared.version, ..of_order.clone() };
        }
        let several_files = pending.lines.iter().chain(&pending.returns).any(|line| line.origin.index != origin.index);
        match &mut pending.shared {
            // Nor is that of a return in the first row.
            Some(known) if pending.lines.is_empty() && !is_return => {
                let (member, version) = (known.member.take(), known.version);
                if member != shared.member {
                    return Err(another_member());
                }
                *known = Shared { version: shared.version.max(version), ..shared };
            }
            Some(known) => {
                known.agree(shared, self.options).map_err(|error| if several_files { of_two_files(error) } else { error })?;
            }
            None => pending.shared = Some(shared),
        }
        let known = if is_return { &mut pending.returns } else { &mut pending.lines };
        if several_files {
            let file = origin.index;
            let twin = known
                .iter_mut()
                .find(|known| known.origin.index != file && !known.also_in.contains(&file) && known.says() == line.says());
            if let Some(twin) = twin {
                twin.also_in.push(file);
                self.overlap.0 += 1;
                self.overlap.1.get_or_insert_with(|| origin.clone());
                return Ok(());
            }
        }
        if !is_return {
            pending.placed_at = pending.placed_at.min(line.at);
        }
        if is_return {
            pending.returns.push(line);
        } else {
            pending.lines.push(line);
        }
        Ok(())
    }

    /// The orders by first row.
    ///
    /// # Errors
    /// When the sink of the rejects fails.
    pub fn finish(self, rules: &Rules, rejects: &mut Rejects<'_>) -> anyhow::Result<Vec<SourcedOrder>> {
        let mut orders = Vec::with_capacity(self.pending.len());
        for mut pending in self.pending {
            let (culprit, reason) = match pending.broken.clone() {
                Some(origin) => (origin, None),
                None => match pending.order(self.options, rules) {
                    Ok(order) => {
                        orders.push(order);
                        continue;
                    }
                    Err(blamed) => blamed,
                },
            };
            pending.reject(&culprit, reason.as_deref(), rejects)?;
        }
        Ok(orders)
    }
}

impl Pending {
    /// The order with its refunds; or the wrong row, and why.
    fn order(&mut self, options: &ImportOptions, rules: &Rules) -> Result<SourcedOrder, (Origin, Option<String>)> {
        if self.lines.is_empty() {
            if !options.link_cancellations {
                let why = "is negative: a return under an order id of its own; --link-cancellations takes it back from the member's earlier \
                           orders";
                return Err((self.returns[0].origin.clone(), Some(Invalid::new("quantity", why).to_string())));
            }
            // A credit note: linked like a cancelled order.
            self.lines = std::mem::take(&mut self.returns);
            for line in &mut self.lines {
                line.quantity = -line.quantity;
                line.unit_price_minor = line.unit_price_minor.saturating_abs();
                self.placed_at = self.placed_at.min(line.at);
            }
            if let Some(shared) = &mut self.shared {
                shared.status = Some(OrderStatus::Cancelled);
            }
        }
        let record = self.decode(options, rules).map_err(|error| self.locate(error))?;
        let mut order = SourcedOrder { record, rows: self.lines.iter().map(|line| line.origin.clone()).collect() };
        self.returns.sort_by_key(|line| (line.at, line.origin.row()));
        for row in &self.returns {
            let mut open = row.quantity.saturating_neg();
            for n in (0..order.record.lines.len()).rev() {
                let line = &order.record.lines[n];
                let refunded = order.record.net_lines().find(|(of, _)| of.line == line.line).map_or(0, |(_, net)| net);
                let units = if *line.item.as_str() == *row.item { open.min(refunded) } else { 0 };
                if units > 0 {
                    let unrefunded = order.record.total_minor() - order.record.refunded_minor();
                    let amount = units.saturating_mul(row.unit_price_minor.saturating_abs()).min(unrefunded);
                    let line = line.line;
                    refund(&mut order.record, &format!("return-{}", row.at), row.at, line, units, amount);
                    open -= units;
                }
            }
            if open > 0 {
                let why = format!("takes back {open} more than the order has of {}", shown(&row.item));
                return Err((row.origin.clone(), Some(Invalid::new("quantity", why).to_string())));
            }
        }
        Ok(order)
    }

    /// Decodes it like any other order.
    fn decode(&self, options: &ImportOptions, rules: &Rules) -> Result<OrderRecord, Invalid> {
        let shared = self.shared.as_ref().expect("read with the first row");
        let line = |(line, number): (&LineRow, usize)| {
            json!({
                "line": number,
                "item": line.item,
                "quantity": line.quantity,
                "unit_price_minor": line.unit_price_minor,
                "discount_minor": line.discount_minor,
                "coupon": line.coupon,
            })
        };
        let order = json!({
            "order": self.order,
            "version": shared.version.unwrap_or(options.version),
            "status": shared.status,
            "member": shared.member,
            "tier": shared.tier,
            "promotion": shared.promotion,
            "placed_at": self.placed_at,
            "paid_at": shared.paid_at,
            "completed_at": shared.completed_at,
            "cancelled_at": shared.cancelled_at,
            "currency": shared.currency.as_deref().unwrap_or(&options.currency),
            "lines": self.lines.iter().zip(1..).map(line).collect::<Vec<_>>(),
        });
        OrderRecord::decode(&serde_json::to_vec(&order).expect("an order serialises"), rules)
    }

    /// The row of an error and its text for a row: `lines[3].quantity` is the fourth row's `quantity`.
    fn locate(&self, error: Invalid) -> (Origin, Option<String>) {
        let of_line = error.field.strip_prefix("lines[").and_then(|rest| rest.split_once("]."));
        if let Some((n, field)) = of_line
            && let Some(line) = n.parse::<usize>().ok().and_then(|n| self.lines.get(n))
        {
            return (line.origin.clone(), Some(Invalid::new(field, error.reason.clone()).to_string()));
        }
        let first = self.lines.first().or(self.returns.first()).expect("an order has a row");
        (first.origin.clone(), Some(error.to_string()))
    }

    /// Rejects the remaining rows: the culprit with the reason, the others with a reference to it.
    fn reject(&self, culprit: &Origin, reason: Option<&str>, rejects: &mut Rejects<'_>) -> anyhow::Result<()> {
        for line in self.lines.iter().chain(&self.returns) {
            match reason {
                Some(reason) if line.origin == *culprit => rejects.add(&line.origin, reason, &line.raw)?,
                _ => {
                    let why = format!(
                        "its order {} is taken as a whole, and line {} of it is rejected",
                        shown(&self.order),
                        culprit.line
                    );
                    rejects.add_under("another row of the same order is rejected", &line.origin, &why, &line.raw)?;
                }
            }
        }
        Ok(())
    }
}

/// The append order: by `placed_at`, then by the bytes of the id.
pub fn sort_by_time(orders: &mut [SourcedOrder]) {
    orders.sort_by(|a, b| (a.record.placed_at, &a.record.order).cmp(&(b.record.placed_at, &b.record.order)));
}
