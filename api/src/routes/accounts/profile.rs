//! The own account: read, changed as it was read, and closed.

use std::sync::Arc;

use http::StatusCode;
use http::header::ETAG;
use kindred_members::{Address, MemberError, Profile, ProfileChange, State};
use kindred_model::{EventTime, MemberId, Tier};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Asked, asked};
use super::cookies::drop_refresh;
use super::factor::Reauthentication;
use super::registration::LanguageTag;
use super::sessions::browse_as_nobody;
use crate::api::Api;
use crate::problem::{Code, Problem};
use crate::routes::access::need;
use crate::routes::body::{Posted, posted};
use crate::routes::members::{ErasureReceipt, forget};
use crate::routes::precondition::{etag, names_version};
use crate::routes::{NO_STORE, in_time, json, names};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let own = || warp::path!("v1" / "members" / "me");
    let tags = warp::header::optional::<String>;
    let show = own().and(warp::get()).and(tags("if-none-match")).and(asked(api)).then(show_profile);
    let change = own().and(warp::patch()).and(tags("if-match")).and(asked(api)).and(posted()).then(change_profile);
    let close = own().and(warp::delete()).and(asked(api)).and(posted()).then(close_account);
    show.or(change).unify().or(close).unify().boxed()
}

/// A place that goods are sent to.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostalAddress {
    /// Who receives.
    name: String,
    /// Their phone.
    phone: String,
    /// ISO 3166.
    country: String,
    /// Province or state.
    region: String,
    city: String,
    /// Street, house, and whatever else leads there.
    lines: String,
    postal_code: String,
}

impl From<Address> for PostalAddress {
    fn from(address: Address) -> Self {
        let Address { name, phone, country, region, city, lines, postal_code } = address;
        Self { name, phone, country, region, city, lines, postal_code }
    }
}

impl From<PostalAddress> for Address {
    fn from(address: PostalAddress) -> Self {
        let PostalAddress { name, phone, country, region, city, lines, postal_code } = address;
        Self { name, phone, country, region, city, lines, postal_code }
    }
}

/// The agreement that was accepted.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgreementShown {
    version: String,
    #[schema(value_type = String)]
    accepted_at: EventTime,
}

/// The own account.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProfileShown {
    member: String,
    /// `activated`: others do not sign in.
    #[schema(value_type = String)]
    state: State,
    username: String,
    /// E.164.
    phone: String,
    email: String,
    /// The level.
    #[schema(value_type = String)]
    tier: Tier,
    /// A staff role.
    role: Option<String>,
    /// Of messages.
    language: LanguageTag,
    /// Whether marketing may be sent.
    marketing_consent: bool,
    addresses: Vec<PostalAddress>,
    agreement: AgreementShown,
    /// What others register with to be this member's invitees.
    invite_code: String,
    /// Whether a second factor is asked for.
    second_factor: bool,
    #[schema(value_type = String)]
    registered_at: EventTime,
    #[schema(value_type = Option<String>)]
    activated_at: Option<EventTime>,
}

impl From<Profile> for ProfileShown {
    fn from(profile: Profile) -> Self {
        let kindred_members::Agreement { version, accepted_at } = profile.agreement;
        Self {
            member: profile.member,
            state: profile.state,
            username: profile.username,
            phone: profile.phone,
            email: profile.email,
            tier: profile.tier,
            role: profile.role,
            language: profile.language.into(),
            marketing_consent: profile.marketing_consent,
            addresses: profile.addresses.into_iter().map(Into::into).collect(),
            agreement: AgreementShown { version, accepted_at },
            invite_code: profile.invite_code,
            second_factor: profile.second_factor,
            registered_at: profile.registered_at,
            activated_at: profile.activated_at,
        }
    }
}

fn shown(profile: Profile) -> Result<Response, Problem> {
    let etag = etag(&profile.version)?;
    let mut response = json(StatusCode::OK, &ProfileShown::from(profile))?;
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

/// GET /v1/members/me
///
/// The own account, with the `ETag` that a change has to name.
#[utoipa::path(
    get, path = "/v1/members/me", tag = "account",
    params(("If-None-Match" = Option<String>, Header, description = "the ETag of what one has")),
    responses(
        (status = 200, description = "the account", body = ProfileShown),
        (status = 304, description = "it is as it was"),
    ),
    security(("access_token" = [])),
)]
async fn show_profile(if_none_match: Option<String>, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("GET /v1/members/me") }, |claims| async move {
            asked.params(&[])?;
            let profile = asked.members(|members| members.profile(&claims.sub)).await?;
            let etag = etag(&profile.version)?;
            if if_none_match.is_some_and(|tags| names(&tags, &etag)) {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response.headers_mut().insert(ETAG, etag);
                response.headers_mut().insert(http::header::CACHE_CONTROL, NO_STORE);
                return Ok(response);
            }
            shown(profile)
        })
        .await
}

/// What is changed of the own account; what is absent stays. Nothing else can be: not the tier, not a role (V8.2.3).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfilePatch {
    /// Of messages.
    language: Option<LanguageTag>,
    /// Whether marketing may be sent.
    marketing_consent: Option<bool>,
    /// All addresses, 20 at most.
    addresses: Option<Vec<PostalAddress>>,
    /// Accepts this version of the user agreement.
    agreement_version: Option<String>,
}

/// PATCH /v1/members/me
///
/// Changes the own account as it was read.
#[utoipa::path(
    patch, path = "/v1/members/me", tag = "account",
    params(("If-Match" = String, Header, description = "the ETag of what was read, or * for whatever is there")),
    request_body = ProfilePatch,
    responses(
        (status = 200, description = "as it is now", body = ProfileShown),
        (status = 412, description = "it was changed meanwhile", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 428, description = "there is no If-Match", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn change_profile(if_match: Option<String>, asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("PATCH /v1/members/me") }, |claims| async move {
            let form: ProfilePatch = asked.form(posted).await?;
            let required = || Problem::new(Code::PreconditionRequired, Code::PreconditionRequired.meaning());
            let if_match = if_match.ok_or_else(required)?;
            let change = ProfileChange {
                language: form.language.map(Into::into),
                marketing_consent: form.marketing_consent,
                addresses: form.addresses.map(|addresses| addresses.into_iter().map(Into::into).collect()),
                agreement_version: form.agreement_version,
            };
            let changed = asked.members(|members| async move {
                let version = members.profile(&claims.sub).await?.version;
                if !names_version(&if_match, &version) {
                    return Err(MemberError::Changed);
                }
                members.change_profile(&claims.sub, &version, &change).await
            });
            shown(changed.await?)
        })
        .await
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

/// DELETE /v1/members/me
///
/// Closes the account and forgets the person: the account at once, the views when this answers 200, the raw events within
/// `erasure.raw_days`. It cannot be taken back.
#[utoipa::path(
    delete, path = "/v1/members/me", tag = "account",
    request_body = Reauthentication,
    responses(
        (status = 200, description = "forgotten, durably", body = AccountClosed),
        (status = 202, description = "the account is; the views follow by themselves", body = AccountClosed),
    ),
    security(("access_token" = [])),
)]
async fn close_account(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("DELETE /v1/members/me") }, |claims| async move {
            let form: Reauthentication = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let member = MemberId::parse(&claims.sub).map_err(Problem::internal)?;
            let receipt = asked.members(|members| members.erase_own(&claims, &current, &asked.visitor.address)).await?;
            // The outbox has the event for the log, whatever becomes of what follows: nobody can ask again for an account that is gone.
            let views = match in_time(&asked.api, forget(&asked.api, member)).await {
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
            if asked.browser.has_refresh() {
                drop_refresh(&mut response);
            }
            Ok(response)
        })
        .await
}
