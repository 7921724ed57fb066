//! Administrative actions on members: suspend and activate, role, tier, sessions, verification mail. Each writes its audit entry
//! in the same transaction.

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

/// Longest reason, characters.
const REASON_CHARS_MAX: usize = 500;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            post("/v1/admin/members/{member}/suspend", Staff(Permission::MemberWrite), suspend_member)
                .says("Suspends a member: all sessions end and their access tokens stop working at once.")
                .if_match()
                .answers_nothing(204, "the member is suspended")
                .fails_as(Code::Refused, "not possible in the state of the member")
                .fails(422, "the reason is missing"),
            post("/v1/admin/members/{member}/activate", Staff(Permission::MemberWrite), activate_member)
                .says("Reactivates a suspended member.")
                .if_match()
                .answers_nothing(204, "the member can sign in again")
                .fails_as(Code::Refused, "not possible in the state of the member")
                .fails(422, "the reason is missing"),
            put("/v1/admin/members/{member}/role", Staff(Permission::RoleManage), change_role)
                .says(
                    "Assigns or removes a staff role. The sessions of the member end. Nobody can assign permissions that they \
                        lack. The role takes effect when the member signs in with a second factor.",
                )
                .needs_if_match()
                .answers_nothing(204, "changed")
                .fails(422, "there is no such role"),
            put("/v1/admin/members/{member}/tier", Staff(Permission::MemberWrite), set_tier)
                .says("Sets the tier of a member. Tiers give benefits and no permissions.")
                .needs_if_match()
                .answers_nothing(204, "changed")
                .fails(422, "there is no such tier"),
            delete("/v1/admin/members/{member}/sessions", Staff(Permission::MemberWrite), end_member_sessions)
                .says("Ends all sessions of a member; their access tokens stop working at once.")
                .answers_nothing(204, "ended"),
            post("/v1/admin/members/{member}/resend-verification", Staff(Permission::MemberWrite), resend_member_verification)
                .says("Sends the verification mail again; earlier links become invalid.")
                .answers_nothing(202, "accepted")
                .fails(429, "hourly limit of mails exceeded (`members.limits.mails_hour`)")
                .fails_as(Code::Refused, "the e-mail is already verified"),
        ],
    )
}

/// The reason of an action.
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
        Err(Problem::field(Code::Invalid, "body", "reason", format!("must have 1 to {REASON_CHARS_MAX} characters")))
    }
}

async fn suspend_member(request: Request, form: Reason) -> Answered {
    let (member, version) = (request.member()?, optional_version(request.header("if-match")?)?);
    let reason = form.checked()?;
    request.members()?.staff.suspend(&request.actor(), member.as_str(), version.as_deref(), &reason).await?;
    Ok(done())
}

async fn activate_member(request: Request, form: Reason) -> Answered {
    let (member, version) = (request.member()?, optional_version(request.header("if-match")?)?);
    let reason = form.checked()?;
    request.members()?.staff.activate(&request.actor(), member.as_str(), version.as_deref(), &reason).await?;
    Ok(done())
}

/// The role of a member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleGiven {
    /// The name of a role; null removes it. Required, so that omitting it by mistake does not remove a role.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    role: Option<String>,
}

async fn change_role(request: Request, RoleGiven { role }: RoleGiven) -> Answered {
    let (member, version) = (request.member()?, required_version(request.header("if-match")?)?);
    request.members()?.staff.change_role(&request.actor(), member.as_str(), version.as_deref(), role.as_deref()).await?;
    Ok(done())
}

/// The tier of a member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierSet {
    /// The tier.
    #[schema(schema_with = tier_words)]
    tier: Tier,
}

fn tier_words() -> Object {
    let words = Tier::ALL.iter().map(|tier| tier.name());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).description(Some("The tier.")).build()
}

async fn set_tier(request: Request, TierSet { tier }: TierSet) -> Answered {
    let (member, version) = (request.member()?, required_version(request.header("if-match")?)?);
    request.members()?.staff.set_tier(&request.actor(), member.as_str(), version.as_deref(), tier).await?;
    Ok(done())
}

async fn end_member_sessions(request: Request) -> Answered {
    request.members()?.staff.end_member_sessions(&request.actor(), request.member()?.as_str()).await?;
    Ok(done())
}

async fn resend_member_verification(request: Request) -> Answered {
    request.members()?.staff.resend_verification(&request.actor(), request.member()?.as_str()).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
