//! The own account: read, changed as it was read, and closed.

use http::StatusCode;
use http::header::ETAG;
use kindred_members::{MemberError, Profile, ProfileChange};
use kindred_model::{EventTime, MemberId};
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::cookies::drop_refresh;
use super::factor::Reauthentication;
use super::sessions::browse_as_nobody;
use crate::problem::{Code, Problem};
use crate::routes::endpoint::prelude::*;
use crate::routes::members::{ErasureReceipt, forget};
use crate::routes::precondition::{etag, names_version};
use crate::routes::request::current;
use crate::routes::{in_time, json, versioned};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [
            get("/v1/members/me", SignedIn, show_profile)
                .says("The own account, with the `ETag` that a change has to name.")
                .header("If-None-Match", "the ETag of what one has")
                .answers::<Profile>(200, "the account")
                .answers_nothing(304, "it is as it was"),
            patch("/v1/members/me", SignedIn, change_profile)
                .says("Changes the own account as it was read.")
                .needs_if_match()
                .answers::<Profile>(200, "as it is now"),
            delete("/v1/members/me", SignedIn, close_account)
                .takes_its_time()
                .says("Closes the account and forgets the person: the account at once, the views when this answers 200, the raw events \
                within `erasure.raw_days`. It cannot be taken back.")
                .answers::<AccountClosed>(200, "forgotten, durably")
                .answers::<AccountClosed>(202, "the account is; the views follow by themselves"),
        ],
    )
}

fn shown(profile: &Profile) -> Result<Response, Problem> {
    let etag = etag(&profile.version)?;
    let mut response = json(StatusCode::OK, profile)?;
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

async fn show_profile(request: Request) -> Answered {
    let profile = request.members()?.profile(&request.person()?.sub).await?;
    versioned(&request, &profile.version, &profile)
}

async fn change_profile(request: Request, change: ProfileChange) -> Answered {
    let required = || Problem::new(Code::PreconditionRequired, Code::PreconditionRequired.meaning());
    let if_match = request.header("if-match")?.ok_or_else(required)?;
    let (members, member) = (request.members()?, &request.person()?.sub);
    let version = members.profile(member).await?.version;
    if !names_version(if_match, &version) {
        return Err(MemberError::Changed.into());
    }
    shown(&members.change_profile(member, &version, &change).await?)
}

/// The account is closed.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountClosed {
    /// The member, who has no name any more.
    member: String,
    /// When the account was emptied.
    #[schema(value_type = String)]
    account_erased_at: EventTime,
    /// When the last entry of the audit log that has the member's id expires.
    #[schema(value_type = String)]
    audit_until: EventTime,
    /// What was derived from the events, with the date by which the raw ones are gone; null while it is being forgotten.
    views: Option<ErasureReceipt>,
}

async fn close_account(request: Request, form: Reauthentication) -> Answered {
    let (claims, current) = (request.person()?, current(form.current_password)?);
    let member = MemberId::parse(&claims.sub).map_err(Problem::internal)?;
    let receipt =
        in_time(&request.api, async { Ok(request.members()?.erase_own(claims, &current, request.from()).await?) }).await?;
    // The outbox has the event for the log, whatever becomes of what follows: nobody can ask again for an account that is gone.
    let views = match in_time(&request.api, forget(&request.api, member)).await {
        Ok(views) => Some(views),
        Err(problem) => {
            tracing::warn!(code = problem.code.name(), "an account is erased, and the views will follow");
            None
        }
    };
    let status = if views.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let kindred_members::ErasureReceipt { member, erased_at, audit_until } = receipt;
    let mut response = json(status, &AccountClosed { member, account_erased_at: erased_at, audit_until, views })?;
    browse_as_nobody(&mut response);
    if request.browser().has_refresh() {
        drop_refresh(&mut response);
    }
    Ok(response)
}
