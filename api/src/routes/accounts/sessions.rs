//! Sign-in (R16, R17) and sessions: begin, refresh, end.
//!
//! ```text
//! POST sessions ──▶ 201 tokens │ 200 challenge ──second-factor──▶ 201 tokens ──refresh──▶ 200 tokens … DELETE current
//! `cookie: true`: refresh token and device token are stored in HttpOnly cookies
//! ```
//!
//! Signing in and out start a new browsing session, `Kindred-Session`, so that people who share a computer do not share their
//! history.

use http::{HeaderValue, StatusCode};
use kindred_members::{Grant, MemberError, SignIn, SignedIn as Entered};
use kindred_model::{Owner, SessionId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Reply;
use warp::reply::Response;

use super::cookies::{Browser, drop_refresh, keep_device, keep_refresh};
use crate::problem::Problem;
use crate::routes::endpoint::prelude::*;
use crate::routes::members::merged_record;
use crate::routes::{done, json};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "sessions",
        [
            post("/v1/sessions", Anyone, sign_in)
                .says(
                    "Signs in. Wrong account and wrong password are indistinguishable, in timing too. Repeated failures are \
                    throttled.",
                )
                .answers::<SessionGrant>(201, "signed in")
                .answers::<SecondFactorAsked>(200, "a second factor is required: POST /v1/sessions/second-factor")
                .fails_as(Code::Unauthenticated, "wrong account or password")
                .fails_as(Code::CrossSite, "cookies are accepted from the shop's own pages only"),
            post("/v1/sessions/second-factor", Anyone, show_second_factor)
                .says("Completes a sign-in with a code of the authenticator or a recovery code; each works once.")
                .answers::<SessionGrant>(201, "signed in")
                .fails_as(Code::Unauthenticated, "the challenge has expired: sign in again")
                .fails_as(Code::CrossSite, "cookies are accepted from the shop's own pages only"),
            post("/v1/sessions/refresh", Anyone, refresh)
                .says(
                    "Exchanges the refresh token, which works once, for new tokens. Reuse within 30 s by the same device \
                    returns the same tokens, since the response may have been lost; any other reuse ends the session.",
                )
                .answers::<SessionGrant>(200, "the tokens")
                .fails_as(Code::Unauthenticated, "the session has ended: sign in again")
                .fails_as(Code::CrossSite, "cookies are accepted from the shop's own pages only"),
            delete("/v1/sessions/current", SignedIn, sign_out)
                .by_cookie()
                .says(
                    "Signs out: tokens of the session stop working, in other processes within a second. Authenticated by the \
                    access token or, on the shop's own pages, by the refresh cookie with `Kindred-Csrf: 1`.",
                )
                .answers_nothing(204, "signed out")
                .sends("Kindred-Session", "the new anonymous browsing session"),
        ],
    )
}

/// A sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignInForm {
    /// Username or phone; e-mail if allowed by GET /v1/registrations/rules.
    account: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// `device` of an earlier sign-in, unless stored in a cookie.
    #[schema(value_type = Option<String>, format = Password)]
    device: Option<SecretString>,
    /// The current browsing session. Its history is linked to the member unless it belongs to a member already.
    session: Option<String>,
    /// Store the refresh token and `device` in cookies. Needs `Kindred-Csrf: 1`, from the same origin.
    #[serde(default)]
    cookie: bool,
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionGrant {
    member: String,
    /// The session id: `sid` of its access tokens.
    session: String,
    /// For `Authorization: Bearer`; a JWT (RFC 9068).
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Lifetime of the access token, seconds.
    expires_in: u32,
    /// Granted permissions, separated by spaces.
    scope: String,
    /// For POST /v1/sessions/refresh, once; absent if stored in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// When the refresh token expires.
    refresh_until: String,
    /// Identifies this browser at the next sign-in, so that guesses by others do not lock it out. Absent on refresh and if stored
    /// in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// The new browsing session, for the widget (`localStorage["kindred.session"]`); linked to the member if the form had a
    /// `session`. Absent on refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    browsing_session: Option<String>,
}

/// A second factor is required.
#[derive(Serialize, ToSchema)]
pub(crate) struct SecondFactorAsked {
    /// To be sent with the code.
    challenge: String,
    /// Seconds until it expires.
    expires_in: u64,
}

/// Ends the previous session of the cookie (V7.2.4).
async fn begun(request: &Request, grant: Grant, in_cookies: bool) -> Answered {
    let browser = request.browser();
    if in_cookies && browser.has_refresh() {
        end_session_of_cookie(request, &browser).await?;
    }
    granted(request, StatusCode::CREATED, grant, in_cookies)
}

fn granted(request: &Request, status: StatusCode, grant: Grant, in_cookies: bool) -> Answered {
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
        let seconds = (grant.refresh_until.0 - request.api.context.clock.now().0) / 1_000;
        keep_refresh(&mut response, &grant.refresh_token, seconds);
        if let Some(device) = &grant.device {
            keep_device(&mut response, device);
        }
    }
    Ok(response)
}

const KINDRED_SESSION: &str = "kindred-session";

fn begin_browsing(response: &mut Response, session: &SessionId) {
    let value = HeaderValue::from_str(session.as_str()).expect("ids that are drawn here are of letters and digits");
    response.headers_mut().insert(KINDRED_SESSION, value);
}

/// Starts an anonymous browsing session after signing out.
pub(super) fn browse_as_nobody(response: &mut Response) {
    begin_browsing(response, &kindred_members::new_browsing_session());
}

/// The browsing session, unless it belongs to a member already. If that is unknown it is not linked: better anonymous than
/// another member's.
async fn unowned(request: &Request, session: Option<SessionId>) -> Option<SessionId> {
    let session = session?;
    match merged_record(&request.api.live(), Owner::Session(session.clone())).await {
        Ok(None) => Some(session),
        Ok(Some(_)) | Err(_) => None,
    }
}

async fn sign_in(request: Request, form: SignInForm) -> Answered {
    let browser = request.browser();
    if form.cookie {
        browser.own_page()?;
    }
    let device = form.device.map(|device| device.expose_secret().to_owned()).or_else(|| browser.device());
    let session = form.session.map(|session| session_id(&request, &session)).transpose()?;
    let sign_in = SignIn {
        account: form.account,
        password: form.password,
        device,
        label: request.visitor().label.clone(),
        address: request.from().to_owned(),
        browses: session.is_some(),
        session: unowned(&request, session).await,
    };
    match request.members()?.sign_in.first(sign_in).await? {
        Entered::Session(grant) => begun(&request, *grant, form.cookie).await,
        Entered::SecondFactor { challenge, expires_in_s } => {
            json(StatusCode::OK, &SecondFactorAsked { challenge, expires_in: expires_in_s })
        }
    }
}

fn session_id(request: &Request, text: &str) -> Result<SessionId, Problem> {
    SessionId::parse(text).map_err(|error| request.invalid("/session", "invalid", error.reason))
}

/// The second step of a sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecondFactorForm {
    /// The challenge of the first step.
    #[schema(value_type = String, format = Password)]
    challenge: SecretString,
    /// A code of the authenticator, or a recovery code.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
    /// As in POST /v1/sessions.
    #[serde(default)]
    cookie: bool,
}

async fn show_second_factor(request: Request, form: SecondFactorForm) -> Answered {
    if form.cookie {
        request.browser().own_page()?;
    }
    let grant = request.members()?.sign_in.second(form.challenge.expose_secret(), form.code.expose_secret()).await?;
    begun(&request, grant, form.cookie).await
}

/// A refresh.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshForm {
    /// The latest refresh token; absent if stored in a cookie.
    #[schema(value_type = Option<String>, format = Password)]
    refresh_token: Option<SecretString>,
}

async fn refresh(request: Request, form: RefreshForm) -> Answered {
    let browser = request.browser();
    let (token, in_cookie) = match &form.refresh_token {
        Some(token) => (token, false),
        None => (browser.refresh()?, true),
    };
    match request.members()?.sessions.refresh(token, request.from(), &request.visitor().label).await {
        Ok(grant) => granted(&request, StatusCode::OK, grant, in_cookie),
        Err(MemberError::Unauthenticated) if in_cookie => {
            let mut response = request.told(MemberError::Unauthenticated.into(), false).into_response();
            drop_refresh(&mut response);
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

async fn sign_out(request: Request) -> Answered {
    let browser = request.browser();
    if request.grant.person.is_some() {
        request.members()?.sessions.sign_out(request.person()?, request.from()).await?;
    } else {
        end_session_of_cookie(&request, &browser).await?;
    }
    let mut response = done();
    browse_as_nobody(&mut response);
    if browser.has_refresh() {
        drop_refresh(&mut response);
    }
    Ok(response)
}

/// Ends the session of the cookie, if it has not ended already.
async fn end_session_of_cookie(request: &Request, browser: &Browser) -> Result<(), Problem> {
    let (token, members, label) = (browser.refresh()?, request.members()?, &request.visitor().label);
    let ended = async {
        let grant = members.sessions.refresh(token, request.from(), label).await?;
        let claims = members.sessions.authenticate(grant.access_token.expose_secret())?;
        members.sessions.sign_out(&claims, request.from()).await
    };
    match ended.await {
        Err(MemberError::Unauthenticated) => Ok(()),
        ended => Ok(ended?),
    }
}
