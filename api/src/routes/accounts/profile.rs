//! The caller's own account: read, change, close.

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

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [
            get("/v1/members/me", SignedIn, show_profile)
                .says("The account of the caller, with the `ETag` for changes.")
                .header("If-None-Match", "an ETag: 304 if unchanged")
                .answers::<Profile>(200, "the account")
                .answers_nothing(304, "not modified"),
            patch("/v1/members/me", SignedIn, change_profile)
                .says("Changes the account of the caller.")
                .needs_if_match()
                .answers::<Profile>(200, "the changed account"),
            delete("/v1/members/me", SignedIn, close_account)
                .no_time_limit()
                .says(
                    "Closes the account and erases the member: the account at once, view rows before a 200, raw events within \
                    `erasure.raw_days`. Cannot be undone.",
                )
                .answers::<AccountClosed>(200, "erased, durably")
                .answers::<AccountClosed>(202, "the account is erased; the views will follow"),
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
    let profile = request.members()?.profiles.of(&request.person()?.sub).await?;
    versioned(&request, &profile.version, &profile)
}

async fn change_profile(request: Request, change: ProfileChange) -> Answered {
    let required = || Problem::new(Code::PreconditionRequired, Code::PreconditionRequired.meaning());
    let if_match = request.header("if-match")?.ok_or_else(required)?;
    let (members, member) = (request.members()?, &request.person()?.sub);
    let version = members.profiles.of(member).await?.version;
    if !names_version(if_match, &version) {
        return Err(MemberError::Changed.into());
    }
    shown(&members.profiles.update(member, &version, &change).await?)
}

/// The receipt of a closed account.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountClosed {
    /// The member id.
    member: String,
    /// When the account was erased.
    #[schema(value_type = String)]
    account_erased_at: EventTime,
    /// When the last audit entry with the member id expires.
    #[schema(value_type = String)]
    audit_until: EventTime,
    /// The erasure of views and raw events; null while in progress.
    views: Option<ErasureReceipt>,
}

async fn close_account(request: Request, form: Reauthentication) -> Answered {
    let (claims, current) = (request.person()?, current(form.current_password)?);
    let member = MemberId::parse(&claims.sub).map_err(Problem::internal)?;
    let receipt =
        in_time(&request.api, async { Ok(request.members()?.erase_own(claims, &current, request.from()).await?) }).await?;
    // The outbox appends the event in any case: the caller cannot retry without an account.
    let views = match in_time(&request.api, forget(&request.api, member)).await {
        Ok(views) => Some(views),
        Err(problem) => {
            tracing::warn!(code = problem.code.name(), "an account is erased; the erasure of its views is still pending");
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
