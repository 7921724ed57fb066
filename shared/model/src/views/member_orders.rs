//! `member_orders`: a member's orders, latest first.
//!
//! ```text
//! inputs_orders ─▶ index by member ─▶ (read back) the merged orders
//! ```
//!
//! An index of the merged orders, whatever their status: orders are read from their own table, and erasure is applied here.
//! Maintained by `pipeline::dataflow::member_orders`, checked by `oracle::member_orders`, served by `GET
//! /v1/members/{member}/orders`.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::ControlFlow;

use super::inputs::{Canonical, Members, Orders};
use super::{Cell, EmitRow, ExportContext, Flow, ReadError, Rows, Table, TableInfo, View, Visited, get, prefix_of, scan};
use crate::codec::{Corrupt, KeyCodec};
use crate::ids::{MemberId, OrderId, Owner};
use crate::records::{MemberRecord, OrderRecord, Rules};
use crate::settings::Switch;
use crate::units::EventTime;

/// The view, and its one table: (member, when it was placed, order), a member's latest order first.
pub struct MemberOrders;

impl Table for MemberOrders {
    const NAME: &'static str = "member_orders";
    type Key = (MemberId, Reverse<EventTime>, OrderId);
    type Row = ();
}

/// An order's position among its member's, latest first, then by identity.
pub type Place = (Reverse<EventTime>, OrderId);

impl MemberOrders {
    /// An order's key in the index; `None` for a guest's or erased one.
    pub fn key(order: &OrderRecord) -> Option<<Self as Table>::Key> {
        Some((order.member.clone()?, Reverse(order.placed_at), order.order.clone()))
    }
}

/// A page of a member's orders.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The merged records, the latest first.
    pub orders: Vec<OrderRecord>,
    /// The end of the page, if there are more.
    pub next: Option<Place>,
}

/// A member's orders after `after` (from the first without it), at most `limit`; none of an erased member. Reads the member's
/// whole index and the orders of the page.
///
/// # Errors
/// Those of reading.
pub fn read_orders(
    rows: &dyn Rows,
    rules: &Rules,
    member: &MemberId,
    after: Option<&Place>,
    limit: usize,
) -> Result<Page, ReadError> {
    if Members::read(rows, &Owner::Member(member.clone()))?.is_some_and(|record| record.is_erased()) {
        return Ok(Page::default());
    }
    let mut places: Vec<Place> = Vec::new();
    let mut more = false;
    scan::<MemberOrders, _>(rows, &member.to_bytes(), |(_, placed_at, order), ()| {
        let place = (placed_at, order);
        if after.is_some_and(|after| place <= *after) {
            return ControlFlow::Continue(());
        }
        if places.len() == limit {
            more = true;
            return ControlFlow::Break(());
        }
        places.push(place);
        ControlFlow::Continue(())
    })?;
    let mut page = Page { orders: Vec::with_capacity(places.len()), next: places.last().filter(|_| more).cloned() };
    for (_, order) in &places {
        // During the write of an epoch, the order may be newer than the index.
        page.orders.extend(read_order(rows, rules, order)?.filter(|order| order.member.as_ref() == Some(member)));
    }
    Ok(page)
}

fn read_order(rows: &dyn Rows, rules: &Rules, order: &OrderId) -> Result<Option<OrderRecord>, ReadError> {
    let Some(Canonical(bytes)) = get::<Orders>(rows, order)? else { return Ok(None) };
    OrderRecord::decode(&bytes, rules).map(Some).map_err(|_| Corrupt("an order record that does not decode").into())
}

impl View for MemberOrders {
    type Settings = Switch;
    const SUMMARY: &'static str = "the orders of a member, whatever their status, the latest first";
    const COLUMNS: &'static [&'static str] =
        &["member", "placed_at", "order", "version", "status", "quantity", "net_quantity", "total_minor", "refunded_minor"];
    const ROUTE: &'static str = "GET /v1/members/{member}/orders";

    fn tables() -> Vec<TableInfo> {
        vec![TableInfo::of::<Self>()]
    }

    fn export(rows: &dyn Rows, of: Option<&str>, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError> {
        let rules = context.settings.rules();
        let mut erased = HashSet::new();
        match of {
            Some(member) => {
                let record = Members::read(rows, &Owner::Member(MemberId::trusted(member.to_owned())))?;
                erased.extend(record.filter(MemberRecord::is_erased).map(|record| record.key()));
            }
            None => Members::scan(rows, |record| erased.extend(record.is_erased().then(|| record.key())))?,
        }
        scan::<Self, _>(rows, &prefix_of(of), |(member, Reverse(placed_at), order), ()| {
            if erased.contains(&Owner::Member(member.clone())) {
                return Flow::Continue(());
            }
            let found = match read_order(rows, &rules, &order) {
                Ok(Some(found)) => found,
                Ok(None) => return Flow::Continue(()),
                Err(error) => return Flow::Break(Err(error)),
            };
            let quantity: i64 = found.lines.iter().map(|line| line.quantity).sum();
            let net_quantity: i64 = found.net_lines().map(|(_, net)| net).sum();
            let numbers = [quantity, net_quantity, found.total_minor(), found.refunded_minor()];
            let mut cells = vec![Cell::text(member), Cell::text(placed_at), Cell::text(order)];
            cells.extend([Cell::Number(i128::from(found.version)), Cell::text(found.status.name())]);
            cells.extend(numbers.map(|number| Cell::Number(i128::from(number))));
            emit(&cells).flow()
        })
    }
}
