//! Members, found and seen (R21).

use std::sync::Arc;

use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderValue, StatusCode};
use kindred_members::{Kind, MemberQuery, Profile, SessionShown, State};
use kindred_model::EventTime;
use kindred_model::units::Tier;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{Asked, asked, days, text};
use crate::api::Api;
use crate::params::{Params, Segment};
use crate::problem::Problem;
use crate::routes::access::need;
use crate::routes::noted::note_reading;
use crate::routes::{json, link_next, names, precondition};

/// Members of a page unless told: the seed's `USER_PER_PAGE`, and every other list's.
const LIMIT_DEFAULT: u64 = kindred_members::LIMIT as u64;
const LIMIT_MAX: u64 = kindred_members::LIMIT_MAX as u64;
/// The greatest number of a page that is looked for: pages are counted from the first, so a far one is dear. Cursors have no end.
const PAGE_MAX: u64 = 10_000;
const KNOWN: &[&str] = &["q", "by", "state", "role", "tier", "from", "to", "cursor", "page", "limit"];

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let listed = warp::path!("v1" / "admin" / "members").and(warp::get()).and(asked(api)).then(list_members);
    let shown = warp::path!("v1" / "admin" / "members" / Segment).and(warp::get()).and(asked(api)).then(show_member);
    let sessions = warp::path!("v1" / "admin" / "members" / Segment / "sessions")
        .and(warp::get())
        .and(asked(api))
        .then(list_member_sessions);
    listed.or(shown).unify().or(sessions).unify().boxed()
}

/// A page of members.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberPage {
    members: Vec<MemberListed>,
    /// Where the next page begins; null on the last, and where a page was asked for by its number.
    next_cursor: Option<String>,
}

/// A member as staff finds them.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberListed {
    member: String,
    /// `registered` (the e-mail is not verified), `activating`, `activated`, `suspended`.
    #[schema(value_type = String)]
    state: State,
    username: String,
    /// E.164.
    phone: String,
    email: String,
    /// `normal`, `vip`, `svip`.
    #[schema(value_type = String)]
    tier: Tier,
    /// A staff role.
    role: Option<String>,
    /// Whether a second factor is asked for; without one a role gives no permission.
    second_factor: bool,
    #[schema(value_type = String)]
    registered_at: EventTime,
    #[schema(value_type = Option<String>)]
    activated_at: Option<EventTime>,
}

/// A member in detail.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberShown {
    #[serde(flatten)]
    listed: MemberListed,
    /// Language of messages.
    language: String,
    /// Whether marketing may be sent.
    marketing_consent: bool,
    /// The version of the agreement that was accepted.
    agreement_version: String,
    #[schema(value_type = String)]
    agreement_accepted_at: EventTime,
    invite_code: String,
}

impl From<Profile> for MemberListed {
    fn from(profile: Profile) -> Self {
        let Profile { member, state, username, phone, email, tier, role, second_factor, registered_at, activated_at, .. } =
            profile;
        Self { member, state, username, phone, email, tier, role, second_factor, registered_at, activated_at }
    }
}

impl From<Profile> for MemberShown {
    fn from(profile: Profile) -> Self {
        Self {
            language: profile.language.tag().to_owned(),
            marketing_consent: profile.marketing_consent,
            agreement_version: profile.agreement.version.clone(),
            agreement_accepted_at: profile.agreement.accepted_at,
            invite_code: profile.invite_code.clone(),
            listed: profile.into(),
        }
    }
}

fn prefix(params: &Params<'_>) -> Result<Option<(Kind, String)>, Problem> {
    let text = text(params, "q")?;
    let by = match params.get("by") {
        None => None,
        Some("username") => Some(Kind::Username),
        Some("phone") => Some(Kind::Phone),
        Some("email") => Some(Kind::Email),
        Some(_) => return Err(Problem::query("by", "is none of username, phone, email")),
    };
    match (text, by) {
        (None, Some(_)) => Err(Problem::query("by", "says what q is, and there is no q")),
        (None, None) => Ok(None),
        (Some(text), by) => Ok(Some((by.unwrap_or_else(|| kindred_members::guessed(text)), text.to_owned()))),
    }
}

fn state(params: &Params<'_>) -> Result<Option<State>, Problem> {
    Ok(Some(match params.get("state") {
        None => return Ok(None),
        Some("registered") => State::Registered,
        Some("activating") => State::Activating,
        Some("activated") => State::Activated,
        Some("suspended") => State::Suspended,
        Some(_) => return Err(Problem::query("state", "is none of registered, activating, activated, suspended")),
    }))
}

/// GET /v1/admin/members
///
/// Members by the beginning of what is theirs, by state, role, tier and day of registration; the newest first unless something is
/// searched for. A page may come back short, with a cursor: then more has to be looked at.
#[utoipa::path(
    get, path = "/v1/admin/members", tag = "staff",
    params(
        ("q" = Option<String>, Query, description = "the beginning of a username, a phone or an e-mail"),
        ("by" = Option<String>, Query, description = "what q is: `username`, `phone` or `email`; found out from it unless given"),
        ("state" = Option<String>, Query, description = "`registered`, `activating`, `activated` or `suspended`"),
        ("role" = Option<String>, Query, description = "the name of a staff role"),
        ("tier" = Option<String>, Query, description = "`normal`, `vip` or `svip`"),
        ("from" = Option<String>, Query, description = "registered on this UTC day or later"),
        ("to" = Option<String>, Query, description = "registered on this UTC day or earlier"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("page" = Option<u64>, Query, minimum = 1, maximum = 10_000, description = "a page by its number; one beyond the last is empty"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200, description = "50 unless given"),
    ),
    responses((status = 200, description = "a page; `Link` names the next", body = MemberPage)),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_members(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/members") }, |grant, actor| async move {
            let params = asked.params(KNOWN)?;
            // Not what is searched for: that is somebody's name, phone or mail.
            note_reading(&asked.api, &grant, &asked.visitor, "search", "").await?;
            let query = MemberQuery {
                prefix: prefix(&params)?,
                state: state(&params)?,
                role: text(&params, "role")?.map(str::to_owned),
                tier: params.parsed::<Tier>("tier")?,
                registered: days(&params)?,
                cursor: params.get("cursor").map(str::to_owned),
                limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).ok(),
            };
            if params.get("page").is_some() {
                if query.cursor.is_some() {
                    return Err(Problem::query("page", "must not stand beside a cursor"));
                }
                let page = usize::try_from(params.number("page", 1, 1..=PAGE_MAX)?).expect("bounded");
                let found = asked.search(|members| async move { members.members_page(&actor, &query, page).await }).await?;
                let members = found.into_iter().map(Into::into).collect();
                return json(StatusCode::OK, &MemberPage { members, next_cursor: None });
            }
            let found = asked.search(|members| async move { members.search_members(&actor, &query).await }).await?;
            let members = found.items.into_iter().map(Into::into).collect();
            let page = MemberPage { members, next_cursor: found.next_cursor };
            Ok(link_next(json(StatusCode::OK, &page)?, &asked.query, page.next_cursor.as_deref()))
        })
        .await
}

/// GET /v1/admin/members/{member}
///
/// One member. The `ETag` is the version that changes of it have to name.
#[utoipa::path(
    get, path = "/v1/admin/members/{member}", tag = "staff",
    params(
        ("member" = String, Path, description = "the member"),
        ("If-None-Match" = Option<String>, Header, description = "an ETag: 304 when the member still is that"),
    ),
    responses(
        (status = 200, description = "the member", body = MemberShown),
        (status = 304, description = "the member is what the ETag names"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn show_member(member: Segment, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/members/{member}") }, |grant, actor| async move {
            asked.params(&[])?;
            let member = member.member()?;
            note_reading(&asked.api, &grant, &asked.visitor, "profile", member.as_str()).await?;
            let (profile, _) = asked.members(|members| async move { members.member(&actor, member.as_str()).await }).await?;
            let etag = precondition::etag(&profile.version)?;
            let mut response = if asked.if_none_match.as_deref().is_some_and(|tags| names(tags, &etag)) {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            } else {
                json(StatusCode::OK, &MemberShown::from(profile))?
            };
            response.headers_mut().insert(ETAG, etag);
            Ok(response)
        })
        .await
}

/// The sessions of a member.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberSessions {
    /// The latest used first.
    sessions: Vec<MemberSession>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberSession {
    id: String,
    #[schema(value_type = String)]
    created_at: EventTime,
    #[schema(value_type = String)]
    used_at: EventTime,
    /// What the browser called itself.
    label: String,
    address: String,
    /// Whether a second factor was shown.
    second_factor: bool,
}

impl From<SessionShown> for MemberSession {
    fn from(session: SessionShown) -> Self {
        let SessionShown { id, created_at, used_at, label, address, second_factor } = session;
        Self { id, created_at, used_at, label, address, second_factor }
    }
}

/// GET /v1/admin/members/{member}/sessions
///
/// Where a member is signed in.
#[utoipa::path(
    get, path = "/v1/admin/members/{member}/sessions", tag = "staff",
    params(("member" = String, Path, description = "the member")),
    responses((status = 200, description = "the sessions", body = MemberSessions)),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_member_sessions(member: Segment, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/members/{member}/sessions") }, |grant, actor| async move {
            asked.params(&[])?;
            let member = member.member()?;
            note_reading(&asked.api, &grant, &asked.visitor, "sessions", member.as_str()).await?;
            let (_, sessions) = asked.members(|members| async move { members.member(&actor, member.as_str()).await }).await?;
            json(StatusCode::OK, &MemberSessions { sessions: sessions.into_iter().map(Into::into).collect() })
        })
        .await
}
