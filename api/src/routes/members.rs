//! What is about one member: points, history, and being forgotten. A service key's, the member's own, or staff's.

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

use super::audit::Act;
use super::endpoint::prelude::*;
use super::{AS_OF, blocking, json, link_next, program_today, reach};
use crate::api::Api;
use crate::params::{Freshness, Params, opaque};
use crate::problem::{Code, Problem};
use crate::served::Serving;

/// Entries of a page of history or orders.
const PAGE_DEFAULT: u64 = 50;
/// The most entries of a page.
const PAGE_MAX: u64 = 200;
/// Looks at a member's sessions and the rows until the two are of one time; each look takes some ms at most.
const HISTORY_LOOKS_MAX: usize = 10;
/// Under which the store notes when a member was first forgotten: the receipt's dates stay what they were.
const ERASED: &str = "erased:";

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "members",
        [
            get("/v1/members/{member}/points", OwnOr(Permission::MemberRead), show_points)
                .says("The points a member has earned, pending and available as of a day. As of a day nothing that is dated later is \
                known: orders placed, units refunded, invitees activated after it. A member who has earned none has 0: that is \
                no error.")
                .query("as_of", Text, "a day like 2026-01-05; today in program.tz unless given")
                .query("statement", Flag, "with the days on which they become available")
                .answers::<PointsShown>(200, "the points")
                .fails(404, "another member's, for whoever signed in; or the view is not kept"),
            get("/v1/members/{member}/history", OwnOr(Permission::MemberRead), show_history)
                .says("What a member did, their sessions included, newest first. Empty for who is not known, and for who was forgotten.")
                .query("limit", Whole(1, 200), "50 unless given")
                .query("cursor", Text, "`next_cursor` of the page before")
                .answers::<HistoryPage>(200, "a page; `Link` names the next")
                .fails(404, "another member's, for whoever signed in; or the view is not kept"),
            delete("/v1/members/{member}", Staff(Permission::MemberWrite), forget_member)
                .says("Forgets a member: the account and every session at once, out of every view when this answers, the raw records \
                within `erasure.raw_days`. What stays, without the person: their orders in sales totals, and their inviter's \
                points. Asking again changes nothing and answers the same.")
                .query("known", Flag, "true: a member of whom nothing is known is a 404, and nothing is done")
                .answers::<ErasureReceipt>(200, "forgotten, durably")
                .fails(404, "with `known=true`: nobody of this id is known")
                .fails(503, "the pipeline is behind; ask again"),
        ],
    )
}

/// Whose data is meant: `me` is whoever signed in. Another member's is a 404 (V8.2.2), but for staff who may read them, of which the
/// audit log is told: `what` is read.
pub(super) async fn whose(request: &Request, what: &str) -> Result<MemberId, Problem> {
    let (member, grant) = (request.member()?, &request.grant);
    let Some(claims) = &grant.person else { return named(member) };
    if member.as_str() == MemberId::ME || member.as_str() == claims.sub {
        return MemberId::parse(&claims.sub).map_err(Problem::internal);
    }
    if grant.may(Permission::MemberRead) {
        request.audit_reading(what, member.as_str()).await?;
        return Ok(member);
    }
    Err(Problem::new(Code::NotFound, "there is no such member"))
}

/// A member by an id: `me` is none, but for whoever signed in.
fn named(member: MemberId) -> Result<MemberId, Problem> {
    member.check_named().map_err(|error| Problem::path(&error))
}

/// What a member has earned.
#[derive(Serialize, ToSchema)]
pub(crate) struct PointsShown {
    #[schema(value_type = String)]
    member: MemberId,
    /// Figures are evaluated for this day.
    #[schema(value_type = String)]
    as_of: Day,
    /// Not available yet.
    pending: i64,
    /// Available on the day.
    available: i64,
    /// Earned by items, pending or not.
    from_items: i64,
    /// Earned by invites.
    from_invites: i64,
    /// What they are made of, where it is asked for: a day and what became, or becomes, available on it by items, the latest first.
    /// Invites count at once and have no day.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<Vec<StatementLine>>,
}

/// Points of items that become available on a day.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatementLine {
    /// The day, in the program's zone.
    #[schema(value_type = String)]
    available_from: Day,
    /// What is earned, less what was taken back.
    points: i64,
    /// Whether the day has not come as of the day of the figures.
    pending: bool,
}

fn statement(earned: &Earned, as_of: Day) -> Vec<StatementLine> {
    let line = |(available_from, points): (Day, i64)| StatementLine { available_from, points, pending: available_from > as_of };
    earned.items_as_of(as_of).into_iter().rev().map(line).collect()
}

async fn show_points(request: Request) -> Answered {
    let member = whose(&request, "points").await?;
    let (params, serving) = (&request.params, request.api.live());
    if !serving.settings.views.points.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.points.enabled is false"));
    }
    let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(&request.api, &serving.settings));
    let stated = params.boolean("statement", false)?;
    reach(&serving.memory, params.freshness()?).await?;
    // Loaded before the row is read: the row reaches at least so far.
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

/// A page of what a member did, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryPage {
    #[schema(value_type = String)]
    member: MemberId,
    items: Vec<HistoryItem>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// One thing that a member did on a day.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryItem {
    #[schema(value_type = String)]
    item: ItemId,
    #[schema(value_type = String)]
    kind: Kind,
    /// The UTC day.
    #[schema(value_type = String)]
    day: Day,
    /// The latest time of that day.
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
pub(super) type Place = (std::cmp::Reverse<EventTime>, ItemId, Kind, Day, Box<str>);

pub(super) fn place(entry: &Entry) -> Place {
    (std::cmp::Reverse(entry.at), entry.item.clone(), entry.kind, entry.day, entry.scenario.clone())
}

/// Where a page ended, as an opaque token. It is a place in the order and no number, so new entries shift nothing.
#[derive(Serialize, Deserialize)]
struct Cursor(i64, String, Kind, i32, Box<str>);

impl Cursor {
    fn after(entry: &Entry) -> String {
        opaque(&Self(entry.at.0, entry.item.to_string(), entry.kind, entry.day.0, entry.scenario.clone()))
    }

    fn place(self) -> Place {
        let Self(at, item, kind, day, scenario) = self;
        // A name that cannot be is a place in the order all the same.
        (std::cmp::Reverse(EventTime(at)), ItemId::trusted(item), kind, Day(day), scenario)
    }
}

async fn show_history(request: Request) -> Answered {
    let member = whose(&request, "history").await?;
    let serving = request.api.live();
    if !serving.settings.views.histories.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.histories.enabled is false"));
    }
    let PageAsked { limit, cursor, freshness } = PageAsked::of::<Cursor>(&request.params)?;
    let after = cursor.map(Cursor::place);
    reach(&serving.memory, freshness).await?;
    let (mut entries, reached) = with_sessions(&serving, &member, read_history).await?;
    entries.sort_by_cached_key(place);
    let from = after.map_or(0, |after| entries.partition_point(|entry| place(entry) <= after));
    let rest = &entries[from..];
    let page = &rest[..limit.min(rest.len())];
    let next_cursor = (rest.len() > limit).then(|| page.last().map(Cursor::after)).flatten();
    let items = page.iter().map(HistoryItem::of).collect();
    let page = HistoryPage { member, items, next_cursor };
    page_shown(&page, &request.query, page.next_cursor.as_deref(), &reached)
}

/// Which page of what a member did or bought is asked for.
pub(super) struct PageAsked<C> {
    pub limit: usize,
    pub cursor: Option<C>,
    pub freshness: Option<Freshness>,
}

impl PageAsked<()> {
    /// Its cursor is a `C`.
    pub(super) fn of<C: DeserializeOwned>(params: &Params) -> Result<PageAsked<C>, Problem> {
        let limit = usize::try_from(params.number("limit", PAGE_DEFAULT, 1..=PAGE_MAX)?).expect("bounded");
        Ok(PageAsked { limit, cursor: params.cursor()?, freshness: params.freshness()? })
    }
}

/// A page, with a link to the next and how far what was read reaches.
pub(super) fn page_shown(page: &impl Serialize, query: &str, next_cursor: Option<&str>, reached: &Position) -> Answered {
    let mut response = link_next(json(StatusCode::OK, page)?, query, next_cursor);
    response.headers_mut().insert(AS_OF, HeaderValue::from_str(&reached.to_string()).map_err(Problem::internal)?);
    Ok(response)
}

/// What `read` finds of a member and their sessions, from rows and sessions of one time, and how far it reaches. Sessions stand in
/// memory, rows in the store, which is a little ahead: the sessions are looked at before the rows, and again once the memory has come
/// as far as the rows.
pub(super) async fn with_sessions<T: Send + 'static>(
    serving: &Serving,
    member: &MemberId,
    read: fn(&dyn Rows, &Owner, &[SessionId]) -> Result<T, ReadError>,
) -> Result<(T, Position), Problem> {
    for _ in 0..HISTORY_LOOKS_MAX {
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
    Err(Problem::new(Code::Unavailable, "the member's sessions keep changing; ask again").retry_after(1))
}

/// What an erasure answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErasureReceipt {
    #[schema(value_type = String)]
    member: MemberId,
    /// Always true: otherwise it is an error, and may be asked for again.
    erased: bool,
    /// The position from which on no view holds the person.
    position: String,
    /// It survives a loss of power.
    durable: bool,
    /// Since when no view holds the person.
    views_erased_at: String,
    /// The day by which the raw records have left the log, too.
    #[schema(value_type = String)]
    raw_erased_by: String,
    /// The account, where members are kept here and this is one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<kindred_members::ErasureReceipt>,
}

async fn forget_member(request: Request) -> Answered {
    let member = named(request.member()?)?;
    let only_known = request.params.boolean("known", false)?;
    if only_known && !known_in_views(&request.api, &member).await? && !has_account(&request, &member).await? {
        return Err(Problem::new(Code::NotFound, "nobody of this id is known; nothing was erased"));
    }
    let account = erase_account(&request, &member).await?;
    json(StatusCode::OK, &ErasureReceipt { account, ..forget(&request.api, member).await? })
}

/// Whether the log says anything of a member, up to where it is when this is asked.
async fn known_in_views(api: &Arc<Api>, member: &MemberId) -> Result<bool, Problem> {
    let serving = api.live();
    let end = api.context.log.end().await?;
    if !serving.memory.reached(&end, Duration::from_millis(api.config.limits.erasure_wait_ms)).await {
        return Err(Problem::new(Code::PositionNotReached, "the pipeline is behind the log; nothing was erased, ask again")
            .retry_after(1));
    }
    let (store, member) = (serving.store.clone(), member.clone());
    blocking(move || Ok(knows(&*store.snapshot()?.rows, &member)?)).await
}

async fn has_account(request: &Request, member: &MemberId) -> Result<bool, Problem> {
    let Some(members) = &request.api.context.members else { return Ok(false) };
    match members.member(&request.actor(), member.as_str()).await {
        Ok(_) => Ok(true),
        Err(MemberError::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Erases the account first: nobody signs in any more while the views follow. Who has none here (a shop's own member, or somebody
/// who never registered) is forgotten all the same.
async fn erase_account(request: &Request, member: &MemberId) -> Result<Option<kindred_members::ErasureReceipt>, Problem> {
    let Some(members) = &request.api.context.members else { return Ok(None) };
    match members.erase_member(&request.actor(), member.as_str()).await {
        Ok(receipt) => Ok(Some(receipt)),
        Err(MemberError::NotFound) => {
            let act = Act { kind: "member.erase", subject: member.as_str(), detail: &[("account", "none")] };
            request.audit(act, true).await?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// `invited_by` and `activated_at` are copied from the merged record into the erased one: an inviter keeps the points. So the
/// merged record must be whole first: everything that was in the log when this was asked for.
pub(super) async fn forget(api: &Arc<Api>, member: MemberId) -> Result<ErasureReceipt, Problem> {
    let within = Duration::from_millis(api.config.limits.erasure_wait_ms);
    let behind = |detail: &'static str| Problem::new(Code::PositionNotReached, detail).retry_after(1);
    let log = &api.context.log;
    let serving = api.live();
    let store = &serving.store;

    let end = log.end().await?;
    if !serving.memory.reached(&end, within).await {
        return Err(behind("the pipeline is behind the log; nothing was erased, ask again"));
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
            "the erasure is in the log, but the pipeline has not taken it in yet; ask again to learn when it is durable",
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
    tracing::info!(%position, "forgot a member");
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
