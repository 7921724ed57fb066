//! Data of one member: points, history, erasure.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use kindred_members::MemberError;
use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::records::{MemberRecord, Membership};
use kindred_model::views::histories::{Entry, read_history};
use kindred_model::views::inputs::{Canonical, Members, knows};
use kindred_model::views::points::{AsOf, Earned, Points};
use kindred_model::views::{ReadError, Rows, Table, get as get_row};
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, Owner, Position, SessionId, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::AuditAction;
use super::endpoint::prelude::*;
use super::{AS_OF, blocking, json, link_next, program_today, wait_for_position};
use crate::api::Api;
use crate::params::{Freshness, Params, opaque};
use crate::problem::{Code, Problem};
use crate::serving::Serving;

const PAGE_DEFAULT: u64 = 50;
const PAGE_MAX: u64 = 200;
/// Attempts to read sessions and rows of one time; each takes some ms.
const SNAPSHOT_ATTEMPTS_MAX: usize = 10;
/// Prefix of the store entry with the time of the first erasure, which fixes the dates of the receipt.
const ERASED: &str = "erased:";

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "members",
        [
            get("/v1/members/{member}/points", OwnOr(Permission::MemberRead), show_points)
                .says(
                    "The points of a member, pending and available, as of a day: later orders, refunds and activations do not \
                    count. Members without points have 0.",
                )
                .query("as_of", Text, "a day like 2026-01-05; default today in program.tz")
                .query("statement", Flag, "include the days on which points become available")
                .answers::<PointsShown>(200, "the points")
                .fails(404, "another member, for members; or the view is disabled"),
            get("/v1/members/{member}/history", OwnOr(Permission::MemberRead), show_history)
                .says("The history of a member and their sessions, newest first. Empty for unknown and erased members.")
                .query("limit", Whole(1, 200), "default 50")
                .query("cursor", Text, "`next_cursor` of the previous page")
                .answers::<HistoryPage>(200, "a page; `Link` names the next")
                .fails(404, "another member, for members; or the view is disabled"),
            delete("/v1/members/{member}", Staff(Permission::MemberWrite), forget_member)
                .says(
                    "Erases a member: the account, all sessions and all view rows before the response, raw records within \
                    `erasure.raw_days`. Sales totals and the points of their inviter stay, without the person. Repeating it \
                    changes nothing and returns the same.",
                )
                .query("known", Flag, "true: 404 for an unknown member")
                .answers::<ErasureReceipt>(200, "erased, durably")
                .fails(404, "with `known=true`: unknown member")
                .fails(503, "the pipeline is behind; retry"),
        ],
    )
}

/// Resolves the member of the path: `me` is the caller. Another member is a 404 (V8.2.2), except for staff, whose reads are
/// audited.
pub(super) async fn resolve_member(request: &Request, what: &str) -> Result<MemberId, Problem> {
    let (member, grant) = (request.member()?, &request.grant);
    let Some(claims) = &grant.person else { return named(member) };
    if member.as_str() == MemberId::ME || member.as_str() == claims.sub {
        return MemberId::parse(&claims.sub).map_err(Problem::internal);
    }
    if grant.may(Permission::MemberRead) {
        request.audit_read(what, member.as_str()).await?;
        return Ok(member);
    }
    Err(Problem::new(Code::NotFound, "there is no such member"))
}

/// Refuses `me`, which needs a signed-in caller.
fn named(member: MemberId) -> Result<MemberId, Problem> {
    member.check_named().map_err(|error| Problem::path(&error))
}

/// The points of a member.
#[derive(Serialize, ToSchema)]
pub(crate) struct PointsShown {
    #[schema(value_type = String)]
    member: MemberId,
    /// The day of the balance.
    #[schema(value_type = String)]
    as_of: Day,
    /// Not available yet.
    pending: i64,
    /// Available on the day.
    available: i64,
    /// Earned by purchases, pending or not.
    from_items: i64,
    /// Earned by invitations.
    from_invites: i64,
    /// With `statement`: points from purchases by the day on which they become available, latest first. Points from invitations
    /// are available at once and have no day.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<Vec<StatementLine>>,
}

/// Points from purchases that become available on a day.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatementLine {
    /// The day, in the time zone of the program.
    #[schema(value_type = String)]
    available_from: Day,
    /// Earned less refunded.
    points: i64,
    /// Whether the day is after `as_of`.
    pending: bool,
}

fn statement(earned: &Earned, as_of: Day) -> Vec<StatementLine> {
    let line = |(available_from, points): (Day, i64)| StatementLine { available_from, points, pending: available_from > as_of };
    earned.items_as_of(as_of).into_iter().rev().map(line).collect()
}

async fn show_points(request: Request) -> Answered {
    let member = resolve_member(&request, "points").await?;
    let (params, serving) = (&request.params, request.api.live());
    if !serving.settings.views.points.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.points.enabled is false"));
    }
    let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(&request.api, &serving.settings));
    let stated = params.boolean("statement", false)?;
    wait_for_position(&serving.memory, params.freshness()?).await?;
    // Read before the row, so the row reaches at least this position.
    let published = serving.memory.published();
    let row = serving.store.get(Points::NAME, &member.to_bytes()).await?;
    let earned = row.map_or(Ok(Earned::default()), |row| Earned::decode(&row)).map_err(Problem::internal)?;
    let AsOf { pending, available, from_items, from_invites } = earned.as_of(as_of);
    let statement = stated.then(|| statement(&earned, as_of));
    let shown = PointsShown { member, as_of, pending, available, from_items, from_invites, statement };
    let mut response = json(StatusCode::OK, &shown)?;
    response.headers_mut().insert(AS_OF, published.as_of.clone());
    Ok(response)
}

/// A page of history, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryPage {
    #[schema(value_type = String)]
    member: MemberId,
    items: Vec<HistoryItem>,
    /// The cursor of the next page; null on the last.
    next_cursor: Option<String>,
}

/// One kind of interaction with an item on a day.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryItem {
    #[schema(value_type = String)]
    item: ItemId,
    #[schema(value_type = String)]
    kind: Kind,
    /// The UTC day.
    #[schema(value_type = String)]
    day: Day,
    /// The latest time on that day.
    #[schema(value_type = String)]
    at: EventTime,
    /// The scenario of an impression or a click.
    #[serde(skip_serializing_if = "str::is_empty")]
    scenario: Box<str>,
}

impl HistoryItem {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { item: entry.item.clone(), kind: entry.kind, day: entry.day, at: entry.at, scenario: entry.scenario.clone() }
    }
}

/// The order of pages: newest first, then by item bytes, kind and scenario.
pub(super) type HistoryKey = (std::cmp::Reverse<EventTime>, ItemId, Kind, Day, Box<str>);

pub(super) fn history_key(entry: &Entry) -> HistoryKey {
    (std::cmp::Reverse(entry.at), entry.item.clone(), entry.kind, entry.day, entry.scenario.clone())
}

/// The sort key of the last entry, as an opaque token: new entries shift nothing.
#[derive(Serialize, Deserialize)]
struct Cursor(i64, String, Kind, i32, Box<str>);

impl Cursor {
    fn after(entry: &Entry) -> String {
        opaque(&Self(entry.at.0, entry.item.to_string(), entry.kind, entry.day.0, entry.scenario.clone()))
    }

    fn history_key(self) -> HistoryKey {
        let Self(at, item, kind, day, scenario) = self;
        // Also an invalid id has a place in the order.
        (std::cmp::Reverse(EventTime(at)), ItemId::trusted(item), kind, Day(day), scenario)
    }
}

async fn show_history(request: Request) -> Answered {
    let member = resolve_member(&request, "history").await?;
    let serving = request.api.live();
    if !serving.settings.views.histories.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.histories.enabled is false"));
    }
    let PageParams { limit, cursor, freshness } = PageParams::of::<Cursor>(&request.params)?;
    let after = cursor.map(Cursor::history_key);
    wait_for_position(&serving.memory, freshness).await?;
    let (mut entries, reached) = with_sessions(&serving, &member, read_history).await?;
    entries.sort_by_cached_key(history_key);
    let from = after.map_or(0, |after| entries.partition_point(|entry| history_key(entry) <= after));
    let rest = &entries[from..];
    let page = &rest[..limit.min(rest.len())];
    let next_cursor = (rest.len() > limit).then(|| page.last().map(Cursor::after)).flatten();
    let items = page.iter().map(HistoryItem::of).collect();
    let page = HistoryPage { member, items, next_cursor };
    page_response(&page, &request.query, page.next_cursor.as_deref(), &reached)
}

/// The parameters of a page.
pub(super) struct PageParams<C> {
    pub limit: usize,
    pub cursor: Option<C>,
    pub freshness: Option<Freshness>,
}

impl PageParams<()> {
    pub(super) fn of<C: DeserializeOwned>(params: &Params) -> Result<PageParams<C>, Problem> {
        let limit = usize::try_from(params.number("limit", PAGE_DEFAULT, 1..=PAGE_MAX)?).expect("bounded");
        Ok(PageParams { limit, cursor: params.cursor()?, freshness: params.freshness()? })
    }
}

/// A page with `Link` and `Kindred-As-Of`.
pub(super) fn page_response(page: &impl Serialize, query: &str, next_cursor: Option<&str>, reached: &Position) -> Answered {
    let mut response = link_next(json(StatusCode::OK, page)?, query, next_cursor);
    response.headers_mut().insert(AS_OF, HeaderValue::from_str(&reached.to_string()).map_err(Problem::internal)?);
    Ok(response)
}

/// Reads a member and their sessions at one time, with the position reached. Sessions are in memory, rows in the store, which is
/// a little ahead: sessions are read before the rows and compared when the memory has caught up.
pub(super) async fn with_sessions<T: Send + 'static>(
    serving: &Serving,
    member: &MemberId,
    read: fn(&dyn Rows, &Owner, &[SessionId]) -> Result<T, ReadError>,
) -> Result<(T, Position), Problem> {
    for _ in 0..SNAPSHOT_ATTEMPTS_MAX {
        let (sessions, _) = serving.memory.sessions(member);
        let (store, owner, looked_at) = (serving.store.clone(), Owner::Member(member.clone()), sessions.clone());
        let (found, position) = blocking(move || {
            let snapshot = store.snapshot()?;
            Ok((read(&*snapshot.rows, &owner, &looked_at)?, snapshot.frontier.position))
        })
        .await?;
        let caught_up = serving.memory.reached(&position, Duration::from_secs(1)).await;
        if caught_up && serving.memory.sessions(member).0 == sessions {
            return Ok((found, position));
        }
    }
    Err(Problem::new(Code::Unavailable, "the member's sessions keep changing; retry").retry_after(1))
}

/// The receipt of an erasure.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErasureReceipt {
    #[schema(value_type = String)]
    member: MemberId,
    /// Always true.
    erased: bool,
    /// The position from which no view contains the member.
    position: String,
    /// Whether it is durable.
    durable: bool,
    /// When the views no longer contained the member.
    views_erased_at: String,
    /// The day by which the raw records are deleted from the log.
    #[schema(value_type = String)]
    raw_erased_by: String,
    /// The account, if this member has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<kindred_members::ErasureReceipt>,
}

async fn forget_member(request: Request) -> Answered {
    let member = named(request.member()?)?;
    let only_known = request.params.boolean("known", false)?;
    if only_known && !known_in_views(&request.api, &member).await? && !has_account(&request, &member).await? {
        return Err(Problem::new(Code::NotFound, "unknown member; nothing was erased"));
    }
    let account = erase_account(&request, &member).await?;
    json(StatusCode::OK, &ErasureReceipt { account, ..forget(&request.api, member).await? })
}

/// Whether the log, up to its current end, mentions a member.
async fn known_in_views(api: &Arc<Api>, member: &MemberId) -> Result<bool, Problem> {
    let serving = api.live();
    let end = api.context.log.end().await?;
    if !serving.memory.reached(&end, Duration::from_millis(api.config.limits.erasure_wait_ms)).await {
        return Err(
            Problem::new(Code::PositionNotReached, "the pipeline is behind the log; nothing was erased, retry").retry_after(1)
        );
    }
    let (store, member) = (serving.store.clone(), member.clone());
    blocking(move || Ok(knows(&*store.snapshot()?.rows, &member)?)).await
}

async fn has_account(request: &Request, member: &MemberId) -> Result<bool, Problem> {
    let Some(members) = &request.api.context.members else { return Ok(false) };
    match members.staff.member(&request.actor(), member.as_str()).await {
        Ok(_) => Ok(true),
        Err(MemberError::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Erases the account first, which ends sign-in while the views follow. Members without an account here are erased from the views
/// only.
async fn erase_account(request: &Request, member: &MemberId) -> Result<Option<kindred_members::ErasureReceipt>, Problem> {
    let Some(members) = &request.api.context.members else { return Ok(None) };
    match members.erase_member(&request.actor(), member.as_str()).await {
        Ok(receipt) => Ok(Some(receipt)),
        Err(MemberError::NotFound) => {
            let action = AuditAction { kind: "member.erase", subject: member.as_str(), detail: &[("account", "none")] };
            request.audit(action, true).await?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Erases a member from the views. `invited_by` and `activated_at` are copied into the erased record, so the inviter keeps the
/// points; the merged record must therefore be complete first.
pub(super) async fn forget(api: &Arc<Api>, member: MemberId) -> Result<ErasureReceipt, Problem> {
    let within = Duration::from_millis(api.config.limits.erasure_wait_ms);
    let behind = |detail: &'static str| Problem::new(Code::PositionNotReached, detail).retry_after(1);
    let log = &api.context.log;
    let serving = api.live();
    let store = &serving.store;

    let end = log.end().await?;
    if !serving.memory.reached(&end, within).await {
        return Err(behind("the pipeline is behind the log; nothing was erased, retry"));
    }
    let owner = Owner::Member(member.clone());
    let merged = merged_record(&serving, owner.clone()).await?;
    let position = if merged.as_ref().is_some_and(MemberRecord::is_erased) {
        end
    } else {
        let known = match merged {
            Some(MemberRecord::Member(membership)) => Some(membership),
            _ => None,
        };
        let erased = MemberRecord::Member(Membership::erased(member.clone(), known));
        let places = log.append(Topic::Members, vec![erased.canonical()], None).await?;
        let mut position = end;
        for place in places {
            position.join(&place.position());
        }
        position
    };
    if !serving.memory.reached(&position, within).await {
        return Err(behind(
            "the erasure is in the log, but the pipeline has not processed it yet; retry to learn when it is durable",
        ));
    }
    store.sync().await?;

    let now = api.context.clock.now();
    let mark = format!("{ERASED}{member}");
    let since = match store.named().get(&mark).await? {
        Some(noted) => String::from_utf8_lossy(&noted).into_owned(),
        None => {
            store.named().put(&mark, now.to_string().as_bytes()).await?;
            now.to_string()
        }
    };
    let erased_at = EventTime::parse("erased_at", &since).map_err(Problem::internal)?;
    tracing::info!(%position, "erased a member");
    Ok(ErasureReceipt {
        member,
        erased: true,
        position: position.to_string(),
        durable: true,
        views_erased_at: since,
        raw_erased_by: erased_at.day().plus(api.config.raw_days).to_string(),
        account: None,
    })
}

pub(super) async fn merged_record(serving: &Serving, owner: Owner) -> Result<Option<MemberRecord>, Problem> {
    let store = serving.store.clone();
    blocking(move || {
        let snapshot = store.snapshot()?;
        let Some(Canonical(bytes)) = get_row::<Members>(&*snapshot.rows, &owner)? else { return Ok(None) };
        let decoded = MemberRecord::decode(&bytes);
        decoded.map(Some).map_err(|_| Problem::internal("a merged member record does not decode"))
    })
    .await
}
