//! Sign-in (R16, R17) and the session that comes of it: begun, gone on with, ended.
//!
//! ```text
//! POST sessions ──▶ 201 tokens │ 200 a challenge ──second-factor──▶ 201 tokens ──refresh──▶ 200 tokens … DELETE current
//! `cookie: true`: the refresh token and the mark of the browser stand in cookies, and nowhere a script reads them
//! ```
//!
//! Signing in and out begin a new browsing session, `Kindred-Session`: on a shared computer what one person browses is never another's.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use kindred_members::{Grant, SignIn, SignedIn};
use kindred_model::{Owner, SessionId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Asked, asked, done};
use super::cookies::{drop_refresh, keep_device, keep_refresh};
use crate::api::Api;
use crate::problem::{Code, Problem};
use crate::routes::access::need;
use crate::routes::body::{Posted, posted};
use crate::routes::json;
use crate::routes::members::merged_record;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let post = || warp::post().and(asked(api)).and(posted());
    let sign_in = warp::path!("v1" / "sessions").and(post()).then(sign_in);
    let second = warp::path!("v1" / "sessions" / "second-factor").and(post()).then(show_second_factor);
    let refresh = warp::path!("v1" / "sessions" / "refresh").and(post()).then(refresh);
    let out = warp::path!("v1" / "sessions" / "current").and(warp::delete()).and(asked(api)).then(sign_out);
    sign_in.or(second).unify().or(refresh).unify().or(out).unify().boxed()
}

/// What a person sends to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignInForm {
    /// Username or phone; an e-mail where GET /v1/registrations/rules says so.
    account: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// The `device` of an earlier sign-in here, where it does not stand in a cookie.
    #[schema(value_type = Option<String>, format = Password)]
    device: Option<SecretString>,
    /// The browsing session until now: what it did becomes the member's, unless it is some member's already.
    session: Option<String>,
    /// For the shop's own pages: the refresh token and `device` go into cookies. Needs `Kindred-Csrf: 1`, from the same origin.
    #[serde(default)]
    cookie: bool,
}

/// Signed in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionGrant {
    member: String,
    /// The session: `sid` of its access tokens.
    session: String,
    /// For `Authorization: Bearer`: a JWT as RFC 9068 has it.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Life of the access token, seconds.
    expires_in: u32,
    /// What may be done, words with spaces between.
    scope: String,
    /// Good once, for POST /v1/sessions/refresh; absent where it stands in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// When the refresh token expires.
    refresh_until: String,
    /// To be kept and sent with the next sign-in here: others' guesses then lock nobody out. Absent where it stands in a cookie, and
    /// when refreshing.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// The browsing session that begins: the widget goes on with it (`localStorage["kindred.session"]`). It is the member's where the form
    /// named a `session`. Absent when refreshing.
    #[serde(skip_serializing_if = "Option::is_none")]
    browsing_session: Option<String>,
}

/// The second factor is needed.
#[derive(Serialize, ToSchema)]
pub(crate) struct SecondFactorAsked {
    /// Given back with the code.
    challenge: String,
    /// Seconds until it is worthless.
    expires_in: u64,
}

/// Signed in: what the browser's cookie was of until now ends (V7.2.4).
async fn begun(asked: &Asked, grant: Grant, in_cookies: bool) -> Result<Response, Problem> {
    if in_cookies && asked.browser.has_refresh() {
        end_session_of_cookie(asked).await?;
    }
    granted(asked, StatusCode::CREATED, grant, in_cookies)
}

fn granted(asked: &Asked, status: StatusCode, grant: Grant, in_cookies: bool) -> Result<Response, Problem> {
    let body = SessionGrant {
        member: grant.member,
        session: grant.session,
        access_token: grant.access_token.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: grant.access_s,
        scope: grant.scope,
        refresh_token: (!in_cookies).then(|| grant.refresh_token.expose_secret().to_owned()),
        refresh_until: grant.refresh_until.to_string(),
        device: grant.device.clone().filter(|_| !in_cookies),
        browsing_session: grant.browsing.as_ref().map(ToString::to_string),
    };
    let mut response = json(status, &body)?;
    if let Some(browsing) = &grant.browsing {
        begin_browsing(&mut response, browsing);
    }
    if in_cookies {
        let seconds = (grant.refresh_until.0 - asked.api.context.clock.now().0) / 1_000;
        keep_refresh(&mut response, &grant.refresh_token, seconds);
        if let Some(device) = &grant.device {
            keep_device(&mut response, device);
        }
    }
    Ok(response)
}

/// The header that names the browsing session with which a browser goes on.
const KINDRED_SESSION: &str = "kindred-session";

fn begin_browsing(response: &mut Response, session: &SessionId) {
    let value = HeaderValue::from_str(session.as_str()).expect("ids that are drawn here are of letters and digits");
    response.headers_mut().insert(KINDRED_SESSION, value);
}

/// Has the browser go on as nobody, after somebody signed out.
pub(super) fn browse_as_nobody(response: &mut Response) {
    begin_browsing(response, &kindred_members::new_browsing_session());
}

/// A browsing session to be linked: one that is some member's already stays theirs, and is not linked again. Where that cannot be found
/// out it is not linked either: what was browsed is then nobody's, and never another's.
async fn unowned(asked: &Asked, session: Option<SessionId>) -> Option<SessionId> {
    let session = session?;
    match merged_record(&asked.api.live(), Owner::Session(session.clone())).await {
        Ok(None) => Some(session),
        Ok(Some(_)) | Err(_) => None,
    }
}

/// POST /v1/sessions
///
/// Signs in. One answer for everything that is wrong, in the same time; too many wrong ones have to wait.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions",
    request_body = SignInForm,
    responses(
        (status = 201, description = "signed in", body = SessionGrant),
        (status = 200, description = "the second factor is needed: POST /v1/sessions/second-factor", body = SecondFactorAsked),
        (status = 401, description = "account or password are wrong", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 403, description = "cookies are for the shop's own pages", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn sign_in(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: SignInForm = asked.form(posted).await?;
            if form.cookie {
                asked.browser.own_page()?;
            }
            let device = form.device.map(|device| device.expose_secret().to_owned()).or_else(|| asked.browser.device());
            let session = form.session.map(|session| session_id(&asked, &session)).transpose()?;
            let sign_in = SignIn {
                account: form.account,
                password: form.password,
                device,
                label: asked.visitor.label.clone(),
                address: asked.visitor.address.clone(),
                browses: session.is_some(),
                session: unowned(&asked, session).await,
            };
            match asked.members(|members| members.sign_in(sign_in)).await? {
                SignedIn::Session(grant) => begun(&asked, *grant, form.cookie).await,
                SignedIn::SecondFactor { challenge, expires_in_s } => {
                    json(StatusCode::OK, &SecondFactorAsked { challenge, expires_in: expires_in_s })
                }
            }
        })
        .await
}

fn session_id(asked: &Asked, text: &str) -> Result<SessionId, Problem> {
    SessionId::parse(text).map_err(|error| asked.invalid("/session".to_owned(), "invalid", error.reason))
}

/// What ends a sign-in with a second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecondFactorForm {
    /// Of the first step.
    #[schema(value_type = String, format = Password)]
    challenge: SecretString,
    /// Of the authenticator, or one of the recovery codes.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
    /// As in POST /v1/sessions.
    #[serde(default)]
    cookie: bool,
}

/// POST /v1/sessions/second-factor
///
/// Ends signing in with a code of the authenticator, or one of the recovery codes; each works once.
#[utoipa::path(
    post, path = "/v1/sessions/second-factor", tag = "sessions",
    request_body = SecondFactorForm,
    responses(
        (status = 201, description = "signed in", body = SessionGrant),
        (status = 401, description = "the challenge has expired: sign in again", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 403, description = "cookies are for the shop's own pages", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn show_second_factor(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: SecondFactorForm = asked.form(posted).await?;
            if form.cookie {
                asked.browser.own_page()?;
            }
            let (challenge, code) = (form.challenge.expose_secret(), form.code.expose_secret());
            let grant = asked.members(|members| members.sign_in_second(challenge, code)).await?;
            begun(&asked, grant, form.cookie).await
        })
        .await
}

/// What a session goes on with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshForm {
    /// The newest; absent where it stands in a cookie, with `Kindred-Csrf: 1`, from the same origin.
    #[schema(value_type = Option<String>, format = Password)]
    refresh_token: Option<SecretString>,
}

/// POST /v1/sessions/refresh
///
/// New tokens in place of the refresh token, which works once. Used a second time within 30 s by the same device it gives the same refresh
/// token again, since the answer may have been lost; used by another, or later, it ends the session.
#[utoipa::path(
    post, path = "/v1/sessions/refresh", tag = "sessions",
    request_body = RefreshForm,
    responses(
        (status = 200, description = "the tokens", body = SessionGrant),
        (status = 401, description = "the session has ended: sign in again", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 403, description = "the cookie is for the shop's own pages", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn refresh(asked: Asked, posted: Posted) -> Response {
    let mut ended = false;
    let mut response = asked
        .open(async {
            let form: RefreshForm = asked.form(posted).await?;
            let (token, in_cookie) = match &form.refresh_token {
                Some(token) => (token, false),
                None => (asked.browser.refresh()?, true),
            };
            let (address, label) = (&asked.visitor.address, &asked.visitor.label);
            let refreshed = asked.members(|members| members.refresh(token, address, label)).await;
            ended = in_cookie && refreshed.as_ref().is_err_and(|problem| problem.code == Code::Unauthenticated);
            granted(&asked, StatusCode::OK, refreshed?, in_cookie)
        })
        .await;
    if ended {
        drop_refresh(&mut response);
    }
    response
}

/// DELETE /v1/sessions/current
///
/// Signs out: from now on no token of the session works, here or in any other process within a second. By the access token; or, for
/// the shop's own pages that have none at hand, by the cookie, with `Kindred-Csrf: 1`, from the same origin.
#[utoipa::path(
    delete, path = "/v1/sessions/current", tag = "sessions",
    responses((
        status = 204, description = "signed out",
        headers(("Kindred-Session" = String, description = "the browsing session with which the browser goes on, as nobody")),
    )),
    security(("access_token" = [])),
)]
async fn sign_out(asked: Asked) -> Response {
    let asked = &asked;
    let by_cookie = !asked.caller.presents_anything() && asked.browser.has_refresh();
    let mut response = if by_cookie {
        asked.open(sign_out_by_cookie(asked)).await
    } else {
        asked
            .signed_in(const { need("DELETE /v1/sessions/current") }, |claims| async move {
                asked.params(&[])?;
                asked.members(|members| members.sign_out(&claims, &asked.visitor.address)).await?;
                Ok(done())
            })
            .await
    };
    if response.status() == StatusCode::NO_CONTENT {
        browse_as_nobody(&mut response);
        if asked.browser.has_refresh() {
            drop_refresh(&mut response);
        }
    }
    response
}

async fn sign_out_by_cookie(asked: &Asked) -> Result<Response, Problem> {
    asked.params(&[])?;
    end_session_of_cookie(asked).await.map(|()| done())
}

/// Ends the session of the cookie. One that has ended already is as it was asked for.
async fn end_session_of_cookie(asked: &Asked) -> Result<(), Problem> {
    let token = asked.browser.refresh()?;
    let (address, label) = (&asked.visitor.address, &asked.visitor.label);
    let ended = asked.members(|members| async move {
        let grant = members.refresh(token, address, label).await?;
        let claims = members.authenticate(grant.access_token.expose_secret())?;
        members.sign_out(&claims, address).await
    });
    match ended.await {
        Err(problem) if problem.code == Code::Unauthenticated => Ok(()),
        ended => ended,
    }
}
