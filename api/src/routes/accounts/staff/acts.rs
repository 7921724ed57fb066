//! What staff does to a member: suspend and activate, role, tier, sessions, the verification mail. Each act is in the audit log, in the
//! transaction of what it does.

use http::StatusCode;
use kindred_model::units::Tier;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Type};
use warp::Reply;

use crate::problem::{Code, Problem};
use crate::routes::done;
use crate::routes::endpoint::prelude::*;
use crate::routes::precondition::{optional_version, required_version};

/// Longest reason, in characters: it stands in the audit log for as long as that is kept.
const REASON_CHARS_MAX: usize = 500;

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            post("/v1/admin/members/{member}/suspend", Staff(Permission::MemberWrite), suspend_member)
                .says("Locks a member out: all sessions end, and their access tokens stop working at once.")
                .if_match()
                .answers_nothing(204, "the member is suspended")
                .fails(409, "the member is in another state")
                .fails(422, "the reason is missing"),
            post("/v1/admin/members/{member}/activate", Staff(Permission::MemberWrite), activate_member)
                .says("Lets a suspended member in again.")
                .if_match()
                .answers_nothing(204, "the member may sign in again")
                .fails(409, "the member is in another state")
                .fails(422, "the reason is missing"),
            put("/v1/admin/members/{member}/role", Staff(Permission::RoleManage), change_role)
                .says(
                    "Gives a member a staff role, or takes it. Their sessions end, so that no token keeps what was taken; nobody \
                gives more than they have. The role counts once the member has signed in with a second factor.",
                )
                .needs_if_match()
                .answers_nothing(204, "the member has this role")
                .fails(422, "there is no such role"),
            put("/v1/admin/members/{member}/tier", Staff(Permission::MemberWrite), set_tier)
                .says("Sets a member's level. It gives benefits and no permission.")
                .needs_if_match()
                .answers_nothing(204, "the member has this level")
                .fails(422, "there is no such level"),
            delete("/v1/admin/members/{member}/sessions", Staff(Permission::MemberWrite), end_member_sessions)
                .says("Ends all sessions of a member: their access tokens stop working at once.")
                .answers_nothing(204, "there are none any more"),
            post("/v1/admin/members/{member}/resend-verification", Staff(Permission::MemberWrite), resend_member_verification)
                .says("Sends the verification mail of a registration again; the link of the one before is worthless then.")
                .answers_nothing(202, "the mail is on its way")
                .fails(429, "as many mails as the hour has (`members.limits.mails_hour`)")
                .fails(409, "the e-mail is verified already"),
        ],
    )
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
        Err(Problem::field(Code::Invalid, "body", "reason", format!("has not from 1 to {REASON_CHARS_MAX} characters")))
    }
}

async fn suspend_member(request: Request, form: Reason) -> Answered {
    let (member, version) = (request.member()?, optional_version(request.header("if-match")?)?);
    let reason = form.checked()?;
    request.members()?.suspend(&request.actor(), member.as_str(), version.as_deref(), &reason).await?;
    Ok(done())
}

async fn activate_member(request: Request, form: Reason) -> Answered {
    let (member, version) = (request.member()?, optional_version(request.header("if-match")?)?);
    let reason = form.checked()?;
    request.members()?.activate(&request.actor(), member.as_str(), version.as_deref(), &reason).await?;
    Ok(done())
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

async fn change_role(request: Request, RoleGiven { role }: RoleGiven) -> Answered {
    let (member, version) = (request.member()?, required_version(request.header("if-match")?)?);
    request.members()?.change_role(&request.actor(), member.as_str(), version.as_deref(), role.as_deref()).await?;
    Ok(done())
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

async fn set_tier(request: Request, TierSet { tier }: TierSet) -> Answered {
    let (member, version) = (request.member()?, required_version(request.header("if-match")?)?);
    request.members()?.set_tier(&request.actor(), member.as_str(), version.as_deref(), tier).await?;
    Ok(done())
}

async fn end_member_sessions(request: Request) -> Answered {
    request.members()?.end_member_sessions(&request.actor(), request.member()?.as_str()).await?;
    Ok(done())
}

async fn resend_member_verification(request: Request) -> Answered {
    request.members()?.resend_verification(&request.actor(), request.member()?.as_str()).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
