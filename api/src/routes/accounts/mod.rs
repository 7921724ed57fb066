//! People: registration, sign-in, their own account, and the administration of members. Rules and state are
//! [`kindred_members`]'s; here is what they look like over HTTP.
//!
//! ```text
//! Visitor (address, language) + body ──▶ handler ──▶ Members ──▶ JSON, or a Problem in the visitor's language
//! ```

mod asked;
pub(crate) mod cookies;
pub(crate) mod credentials;
pub(crate) mod export;
pub(crate) mod factor;
pub(crate) mod jwks;
pub(crate) mod own_sessions;
pub(crate) mod profile;
pub(crate) mod registration;
pub(crate) mod sessions;
pub(crate) mod staff;

use std::future::Future;
use std::sync::Arc;

use kindred_members::{AccessClaims, MemberError, Members};
use warp::Filter;
use warp::Reply;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::in_time;
use crate::api::Api;
use crate::auth::{Grant, Visitor};
use crate::problem::{Code, Problem};

/// All routes of the modules here.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let own = profile::routes(api).or(export::routes(api)).unify().or(credentials::routes(api)).unify();
    let own = own.or(factor::routes(api)).unify().or(own_sessions::routes(api)).unify().boxed();
    sessions::routes(api)
        .or(own)
        .unify()
        .or(registration::routes(api))
        .unify()
        .or(jwks::routes(api))
        .unify()
        .or(staff::routes(api))
        .unify()
        .boxed()
}

/// Members of this installation.
///
/// # Errors
/// It has none.
fn members(api: &Api) -> Result<&Members, Problem> {
    api.context.members.as_deref().ok_or_else(|| Problem::new(Code::NotFound, "this installation keeps no members"))
}

/// Does something with members, in time, and says what went wrong in the visitor's language.
async fn with_members<'a, T, Done>(api: &'a Api, visitor: &Visitor, work: impl FnOnce(&'a Members) -> Done) -> Result<T, Problem>
where
    Done: Future<Output = Result<T, MemberError>>,
{
    let members = members(api)?;
    let failed = |error: MemberError| Problem::of_member(&error, visitor.language, members.password_min(false));
    in_time(api, async { work(members).await.map_err(failed) }).await
}

/// Answers a route that asks for nothing.
async fn open(handled: impl Future<Output = Result<Response, Problem>>) -> Response {
    handled.await.unwrap_or_else(Problem::into_response)
}

/// Who signed in: a route that needs it has one.
fn person(grant: &Grant) -> Result<&Arc<AccessClaims>, Problem> {
    grant.person.as_ref().ok_or_else(|| Problem::new(Code::InsufficientScope, Code::InsufficientScope.meaning()))
}
