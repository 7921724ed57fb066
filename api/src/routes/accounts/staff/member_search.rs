//! Search and details of members (R21).

use http::StatusCode;
use kindred_members::{Kind, MemberError, MemberQuery, Profile, SessionShown, State};
use kindred_model::EventTime;
use kindred_model::units::Tier;
use serde::Serialize;
use utoipa::ToSchema;

use super::{days, of_query, text};
use crate::params::Params;
use crate::problem::Problem;
use crate::routes::endpoint::prelude::*;
use crate::routes::{json, link_next, versioned};

const LIMIT_DEFAULT: u64 = kindred_members::LIMIT as u64;
const LIMIT_MAX: u64 = kindred_members::LIMIT_MAX as u64;
/// Largest page number: pages are counted from the first, so later ones are expensive. Cursors are not limited.
const PAGE_MAX: u64 = 10_000;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            get("/v1/admin/members", Staff(Permission::MemberRead), list_members)
                .says(
                    "Searches members by prefix, state, role, tier and day of registration; newest first unless `q` is given. A \
                        short page with a cursor means that the search is not complete.",
                )
                .query("q", Text, "prefix of a username, a phone or an e-mail address")
                .query("by", Text, "type of `q`: `username`, `phone` or `email`; default guessed from `q`")
                .query("state", Text, "`registered`, `activating`, `activated` or `suspended`")
                .query("role", Text, "a staff role")
                .query("tier", Text, "`normal`, `vip` or `svip`")
                .query("from", Text, "registered on this UTC day or later")
                .query("to", Text, "registered on this UTC day or earlier")
                .query("cursor", Text, "`next_cursor` of the previous page")
                .query("page", Whole(1, 10_000), "page number; pages after the last are empty")
                .query("limit", Whole(1, 200), "default 50")
                .answers::<MemberPage>(200, "a page; `Link` names the next"),
            get("/v1/admin/members/{member}", Staff(Permission::MemberRead), show_member)
                .says("One member. The `ETag` is the version for changes.")
                .header("If-None-Match", "an ETag: 304 if unchanged")
                .answers::<MemberShown>(200, "the member")
                .answers_nothing(304, "not modified"),
            get("/v1/admin/members/{member}/sessions", Staff(Permission::MemberRead), list_member_sessions)
                .says("The sessions of a member.")
                .answers::<MemberSessions>(200, "the sessions"),
        ],
    )
}

/// A page of members.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberPage {
    members: Vec<MemberListed>,
    /// The cursor of the next page; null on the last page and on numbered pages.
    next_cursor: Option<String>,
}

/// A member in a list.
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
    /// The staff role.
    role: Option<String>,
    /// Whether a second factor is set up; without one a role gives no permissions.
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
    /// Consent to marketing messages.
    marketing_consent: bool,
    /// The accepted version of the user agreement.
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

fn prefix(params: &Params) -> Result<Option<(Kind, String)>, Problem> {
    let text = text(params, "q")?;
    let by = match params.get("by") {
        None => None,
        Some("username") => Some(Kind::Username),
        Some("phone") => Some(Kind::Phone),
        Some("email") => Some(Kind::Email),
        Some(_) => return Err(Problem::query("by", "must be one of username, phone, email")),
    };
    match (text, by) {
        (None, Some(_)) => Err(Problem::query("by", "needs q")),
        (None, None) => Ok(None),
        (Some(text), by) => Ok(Some((by.unwrap_or_else(|| kindred_members::guessed(text)), text.to_owned()))),
    }
}

fn state(params: &Params) -> Result<Option<State>, Problem> {
    Ok(Some(match params.get("state") {
        None => return Ok(None),
        Some("registered") => State::Registered,
        Some("activating") => State::Activating,
        Some("activated") => State::Activated,
        Some("suspended") => State::Suspended,
        Some(_) => return Err(Problem::query("state", "must be one of registered, activating, activated, suspended")),
    }))
}

async fn list_members(request: Request) -> Answered {
    // Without the search text, which is personal data.
    request.audit_read("search", "").await?;
    let params = &request.params;
    let query = MemberQuery {
        prefix: prefix(params)?,
        state: state(params)?,
        role: text(params, "role")?.map(str::to_owned),
        tier: params.parsed::<Tier>("tier")?,
        registered: days(params)?,
        cursor: params.get("cursor").map(str::to_owned),
        limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).ok(),
    };
    let (members, actor) = (request.members()?, request.actor());
    let refused = |error: MemberError| of_query(request.told(error.into(), false));
    if params.get("page").is_some() {
        if query.cursor.is_some() {
            return Err(Problem::query("page", "must not be combined with cursor"));
        }
        let page = usize::try_from(params.number("page", 1, 1..=PAGE_MAX)?).expect("bounded");
        let found = members.staff.members_page(&actor, &query, page).await.map_err(refused)?;
        let members = found.into_iter().map(Into::into).collect();
        return json(StatusCode::OK, &MemberPage { members, next_cursor: None });
    }
    let found = members.staff.search_members(&actor, &query).await.map_err(refused)?;
    let members = found.items.into_iter().map(Into::into).collect();
    let page = MemberPage { members, next_cursor: found.next_cursor };
    Ok(link_next(json(StatusCode::OK, &page)?, &request.query, page.next_cursor.as_deref()))
}

async fn show_member(request: Request) -> Answered {
    let member = request.member()?;
    request.audit_read("profile", member.as_str()).await?;
    let (profile, _) = request.members()?.staff.member(&request.actor(), member.as_str()).await?;
    versioned(&request, &profile.version.clone(), &MemberShown::from(profile))
}

/// The sessions of a member.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberSessions {
    /// Most recently used first.
    sessions: Vec<SessionShown>,
}

async fn list_member_sessions(request: Request) -> Answered {
    let member = request.member()?;
    request.audit_read("sessions", member.as_str()).await?;
    let (_, sessions) = request.members()?.staff.member(&request.actor(), member.as_str()).await?;
    json(StatusCode::OK, &MemberSessions { sessions })
}
