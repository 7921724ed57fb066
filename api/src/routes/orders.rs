//! Orders of a member.

use std::cmp::Reverse;

use kindred_model::records::{OrderRecord, OrderStatus};
use kindred_model::units::Tier;
use kindred_model::views::member_orders::{Page, Place, read_orders};
use kindred_model::{EventTime, ItemId, MemberId, OrderId, Position};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::prelude::*;
use super::members::{PageParams, page_response, resolve_member};
use super::{blocking, wait_for_position};
use crate::params::opaque;
use crate::problem::{Code, Problem};
use crate::serving::Serving;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "members",
        [get("/v1/members/{member}/orders", OwnOr(Permission::MemberRead), show_orders)
            .says("The orders of a member in every status, latest first. Empty for unknown and erased members.")
            .query("limit", Whole(1, 200), "default 50")
            .query("cursor", Text, "`next_cursor` of the previous page")
            .answers::<OrdersPage>(200, "a page; `Link` names the next")
            .fails(404, "another member, for members; or the view is disabled")],
    )
}

/// A page of orders, latest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct OrdersPage {
    #[schema(value_type = String)]
    member: MemberId,
    items: Vec<OrderShown>,
    /// The cursor of the next page; null on the last.
    next_cursor: Option<String>,
}

/// The latest version of an order. Amounts are in minor units of the currency.
#[derive(Serialize, ToSchema)]
pub(crate) struct OrderShown {
    #[schema(value_type = String)]
    order: OrderId,
    /// The version of the record.
    version: u64,
    #[schema(value_type = String)]
    status: OrderStatus,
    /// The tier of the member at purchase.
    #[schema(value_type = String)]
    tier: Tier,
    #[serde(skip_serializing_if = "Option::is_none")]
    promotion: Option<Box<str>>,
    #[schema(value_type = String)]
    placed_at: EventTime,
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    paid_at: Option<EventTime>,
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<EventTime>,
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<EventTime>,
    /// ISO 4217.
    currency: Box<str>,
    /// Discount on the whole order, beside those of its lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    discount_minor: Option<i64>,
    /// Shipping cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    shipping_minor: Option<i64>,
    /// Lines and shipping less all discounts.
    total_minor: i64,
    /// Sum of all refunds.
    refunded_minor: i64,
    lines: Vec<LineShown>,
    refunds: Vec<RefundShown>,
}

/// An order line.
#[derive(Serialize, ToSchema)]
pub(crate) struct LineShown {
    line: u32,
    #[schema(value_type = String)]
    item: ItemId,
    quantity: i64,
    /// Less returned units.
    net_quantity: i64,
    /// Price of one unit.
    unit_price_minor: i64,
    /// Discount on the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    discount_minor: Option<i64>,
    /// The coupon of the discount.
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon: Option<Box<str>>,
    /// The parts of `discount_minor`, if the shop reports them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    discounts: Vec<DiscountShown>,
}

/// One discount of a line.
#[derive(Serialize, ToSchema)]
pub(crate) struct DiscountShown {
    /// The kind of discount.
    kind: Box<str>,
    /// The id of the discount.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Box<str>>,
    amount_minor: i64,
}

/// A refund: units of a line with their amount, an amount of a line, or an amount of the order.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefundShown {
    refund: Box<str>,
    #[schema(value_type = String)]
    at: EventTime,
    /// The line; absent for the whole order.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    /// Returned units; absent for an amount only.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<i64>,
    amount_minor: i64,
}

impl OrderShown {
    pub(super) fn of(record: OrderRecord) -> Self {
        let (total_minor, refunded_minor) = (record.total_minor(), record.refunded_minor());
        let net: Vec<i64> = record.net_lines().map(|(_, net)| net).collect();
        let OrderRecord { order, version, status, tier, promotion, placed_at, currency, .. } = record;
        let OrderRecord { paid_at, completed_at, cancelled_at, discount_minor, shipping_minor, .. } = record;
        let lines = record.lines.into_iter().zip(net).map(|(line, net_quantity)| LineShown {
            line: line.line,
            item: line.item,
            quantity: line.quantity,
            net_quantity,
            unit_price_minor: line.unit_price_minor,
            discount_minor: line.discount_minor,
            coupon: line.coupon,
            discounts: line
                .discounts
                .into_iter()
                .map(|discount| DiscountShown { kind: discount.kind, id: discount.id, amount_minor: discount.amount_minor })
                .collect(),
        });
        let refunds = record.refunds.into_iter().map(|refund| RefundShown {
            refund: refund.refund,
            at: refund.at,
            line: refund.line,
            quantity: refund.quantity,
            amount_minor: refund.amount_minor,
        });
        Self {
            order,
            version,
            status,
            tier: tier.unwrap_or(Tier::Normal),
            promotion,
            placed_at,
            paid_at,
            completed_at,
            cancelled_at,
            currency,
            discount_minor,
            shipping_minor,
            total_minor,
            refunded_minor,
            lines: lines.collect(),
            refunds: refunds.collect(),
        }
    }
}

/// The sort key of the last order, as an opaque token: new orders shift nothing.
#[derive(Serialize, Deserialize)]
struct Cursor(i64, String);

impl Cursor {
    fn after((Reverse(placed_at), order): &Place) -> String {
        opaque(&Self(placed_at.0, order.to_string()))
    }

    fn place(self) -> Place {
        // Also an invalid id has a place in the order.
        (Reverse(EventTime(self.0)), OrderId::trusted(self.1))
    }
}

async fn show_orders(request: Request) -> Answered {
    let member = resolve_member(&request, "orders").await?;
    let serving = request.api.live();
    if !serving.settings.views.member_orders.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.member_orders.enabled is false"));
    }
    let PageParams { limit, cursor, freshness } = PageParams::of::<Cursor>(&request.params)?;
    wait_for_position(&serving.memory, freshness).await?;
    let (Page { orders, next }, reached) = orders(&serving, &member, cursor.map(Cursor::place), limit).await?;
    let next_cursor = next.as_ref().map(Cursor::after);
    let page = OrdersPage { member, items: orders.into_iter().map(OrderShown::of).collect(), next_cursor };
    page_response(&page, &request.query, page.next_cursor.as_deref(), &reached)
}

/// Orders of a member after a place, and the position reached.
pub(super) async fn orders(
    serving: &Serving,
    member: &MemberId,
    after: Option<Place>,
    limit: usize,
) -> Result<(Page, Position), Problem> {
    let (store, settings, member) = (serving.store.clone(), serving.settings.clone(), member.clone());
    blocking(move || {
        let snapshot = store.snapshot()?;
        let page = read_orders(&*snapshot.rows, &settings.rules(), &member, after.as_ref(), limit)?;
        Ok((page, snapshot.frontier.position))
    })
    .await
}
