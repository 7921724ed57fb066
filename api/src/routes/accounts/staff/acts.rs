//! What staff does to a member: suspend and activate, role, tier, sessions, the verification mail. Each act is in the audit log, in the
//! transaction of what it does.

use std::sync::Arc;

use http::StatusCode;
use kindred_members::State;
use kindred_model::units::Tier;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Type};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{Asked, asked};
use crate::api::Api;
use crate::params::Segment;
use crate::problem::{Code, FieldError, Problem};
use crate::routes::access::{Need, need};
use crate::routes::body::{Posted, posted};
use crate::routes::precondition::{optional_version, required_version};

/// Longest reason, in characters: it stands in the audit log for as long as that is kept.
const REASON_CHARS_MAX: usize = 500;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let suspended = warp::path!("v1" / "admin" / "members" / Segment / "suspend")
        .and(warp::post())
        .and(posted())
        .and(asked(api))
        .then(suspend_member);
    let activated = warp::path!("v1" / "admin" / "members" / Segment / "activate")
        .and(warp::post())
        .and(posted())
        .and(asked(api))
        .then(activate_member);
    let role = warp::path!("v1" / "admin" / "members" / Segment / "role")
        .and(warp::put())
        .and(posted())
        .and(asked(api))
        .then(change_role);
    let tier =
        warp::path!("v1" / "admin" / "members" / Segment / "tier").and(warp::put()).and(posted()).and(asked(api)).then(set_tier);
    let ended = warp::path!("v1" / "admin" / "members" / Segment / "sessions")
        .and(warp::delete())
        .and(asked(api))
        .then(end_member_sessions);
    let resent = warp::path!("v1" / "admin" / "members" / Segment / "resend-verification")
        .and(warp::post())
        .and(posted())
        .and(asked(api))
        .then(resend_member_verification);
    let state = suspended.or(activated).unify();
    state.or(role).unify().or(tier).unify().or(ended).unify().or(resent).unify().boxed()
}

/// Why it is done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// 1 to 500 characters, for the audit log.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

impl Reason {
    fn checked(self) -> Result<String, Problem> {
        let reason = self.reason.trim();
        if (1..=REASON_CHARS_MAX).contains(&reason.chars().count()) {
            return Ok(reason.to_owned());
        }
        let message = format!("has not from 1 to {REASON_CHARS_MAX} characters");
        let error = FieldError { place: "body", pointer: "/reason".into(), code: "invalid", message: message.clone() };
        Err(Problem { errors: vec![error], ..Problem::new(Code::Invalid, format!("reason: {message}")) })
    }
}

/// POST /v1/admin/members/{member}/suspend
///
/// Locks a member out: all sessions end, and their access tokens stop working at once.
#[utoipa::path(
    post, path = "/v1/admin/members/{member}/suspend", tag = "staff",
    params(
        ("member" = String, Path, description = "the member"),
        ("If-Match" = Option<String>, Header, description = "the ETag of the member as it was read; any unless given"),
    ),
    request_body = Reason,
    responses(
        (status = 204, description = "the member is suspended"),
        (status = 409, description = "the member is in another state", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 412, description = "the member was changed meanwhile", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "the reason is missing", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn suspend_member(member: Segment, posted: Posted, asked: Asked) -> Response {
    let need = const { need("POST /v1/admin/members/{member}/suspend") };
    set_state(State::Suspended, need, &member, posted, &asked).await
}

/// POST /v1/admin/members/{member}/activate
///
/// Lets a suspended member in again.
#[utoipa::path(
    post, path = "/v1/admin/members/{member}/activate", tag = "staff",
    params(
        ("member" = String, Path, description = "the member"),
        ("If-Match" = Option<String>, Header, description = "the ETag of the member as it was read; any unless given"),
    ),
    request_body = Reason,
    responses(
        (status = 204, description = "the member may sign in again"),
        (status = 409, description = "the member is in another state", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 412, description = "the member was changed meanwhile", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "the reason is missing", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn activate_member(member: Segment, posted: Posted, asked: Asked) -> Response {
    let need = const { need("POST /v1/admin/members/{member}/activate") };
    set_state(State::Activated, need, &member, posted, &asked).await
}

async fn set_state(to: State, need: Need, member: &Segment, posted: Posted, asked: &Asked) -> Response {
    asked
        .answer(need, |_, actor| async move {
            asked.params(&[])?;
            let (member, version) = (member.member()?, optional_version(asked.if_match.as_deref())?);
            let reason = posted.json::<Reason>(&asked.api).await?.checked()?;
            let done = asked.members(|members| async move {
                let (member, version) = (member.as_str(), version.as_deref());
                match to {
                    State::Suspended => members.suspend(&actor, member, version, &reason).await,
                    _ => members.activate(&actor, member, version, &reason).await,
                }
            });
            done.await.map(|()| StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// A staff role to give, or none.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleGiven {
    /// The name of a role; null takes it away. It has to be there: to forget it must not take a role.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    role: Option<String>,
}

/// PUT /v1/admin/members/{member}/role
///
/// Gives a member a staff role, or takes it. Their sessions end, so that no token keeps what was taken; nobody gives more than they
/// have. The role counts once the member has signed in with a second factor.
#[utoipa::path(
    put, path = "/v1/admin/members/{member}/role", tag = "staff",
    params(
        ("member" = String, Path, description = "the member"),
        ("If-Match" = String, Header, description = "the ETag of the member as it was read"),
    ),
    request_body = RoleGiven,
    responses(
        (status = 204, description = "the member has this role"),
        (status = 412, description = "the member was changed meanwhile", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "there is no such role", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 428, description = "there is no If-Match", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn change_role(member: Segment, posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("PUT /v1/admin/members/{member}/role") }, |_, actor| async move {
            asked.params(&[])?;
            let (member, version) = (member.member()?, required_version(asked.if_match.as_deref())?);
            let RoleGiven { role } = posted.json(&asked.api).await?;
            let done = asked.members(|members| async move {
                members.change_role(&actor, member.as_str(), version.as_deref(), role.as_deref()).await
            });
            done.await.map(|()| StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// A level to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierSet {
    /// The level.
    #[schema(schema_with = tier_words)]
    tier: Tier,
}

fn tier_words() -> Object {
    let words = Tier::ALL.iter().map(|tier| tier.name());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).description(Some("The level.")).build()
}

/// PUT /v1/admin/members/{member}/tier
///
/// Sets a member's level. It gives benefits and no permission.
#[utoipa::path(
    put, path = "/v1/admin/members/{member}/tier", tag = "staff",
    params(
        ("member" = String, Path, description = "the member"),
        ("If-Match" = String, Header, description = "the ETag of the member as it was read"),
    ),
    request_body = TierSet,
    responses(
        (status = 204, description = "the member has this level"),
        (status = 412, description = "the member was changed meanwhile", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "there is no such level", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 428, description = "there is no If-Match", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn set_tier(member: Segment, posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("PUT /v1/admin/members/{member}/tier") }, |_, actor| async move {
            asked.params(&[])?;
            let (member, version) = (member.member()?, required_version(asked.if_match.as_deref())?);
            let TierSet { tier } = posted.json(&asked.api).await?;
            let done =
                asked.members(|members| async move { members.set_tier(&actor, member.as_str(), version.as_deref(), tier).await });
            done.await.map(|()| StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// DELETE /v1/admin/members/{member}/sessions
///
/// Ends all sessions of a member: their access tokens stop working at once.
#[utoipa::path(
    delete, path = "/v1/admin/members/{member}/sessions", tag = "staff",
    params(("member" = String, Path, description = "the member")),
    responses((status = 204, description = "there are none any more")),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn end_member_sessions(member: Segment, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("DELETE /v1/admin/members/{member}/sessions") }, |_, actor| async move {
            asked.params(&[])?;
            let member = member.member()?;
            let done = asked.members(|members| async move { members.end_member_sessions(&actor, member.as_str()).await });
            done.await.map(|()| StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// POST /v1/admin/members/{member}/resend-verification
///
/// Sends the verification mail of a registration again; the link of the one before is worthless then.
#[utoipa::path(
    post, path = "/v1/admin/members/{member}/resend-verification", tag = "staff",
    params(("member" = String, Path, description = "the member")),
    responses(
        (status = 202, description = "the mail is on its way"),
        (status = 429, description = "as many mails as the hour has (`members.limits.mails_hour`)", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "the e-mail is verified already", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn resend_member_verification(member: Segment, posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("POST /v1/admin/members/{member}/resend-verification") }, |_, actor| async move {
            posted.ignore(&asked.api).await?;
            asked.params(&[])?;
            let member = member.member()?;
            let done = asked.members(|members| async move { members.resend_verification(&actor, member.as_str()).await });
            done.await.map(|()| StatusCode::ACCEPTED.into_response())
        })
        .await
}
