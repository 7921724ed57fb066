//! Sign-in (R16, R17) and the session that comes of it: begun, gone on with, ended.
//!
//! ```text
//! POST sessions ──▶ 201 tokens │ 200 a challenge ──second-factor──▶ 201 tokens ──refresh──▶ 200 tokens … DELETE current
//! `cookie: true`: the refresh token and the mark of the browser stand in cookies, and nowhere a script reads them
//! ```
//!
//! Signing in and out begin a new browsing session, `Kindred-Session`: on a shared computer what one person browses is never another's.

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

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "sessions",
        [
            post("/v1/sessions", Anyone, sign_in)
                .says("Signs in. One answer for everything that is wrong, in the same time; too many wrong ones have to wait.")
                .answers::<SessionGrant>(201, "signed in")
                .answers::<SecondFactorAsked>(200, "the second factor is needed: POST /v1/sessions/second-factor")
                .fails(401, "account or password are wrong")
                .fails(403, "cookies are for the shop's own pages"),
            post("/v1/sessions/second-factor", Anyone, show_second_factor)
                .says("Ends signing in with a code of the authenticator, or one of the recovery codes; each works once.")
                .answers::<SessionGrant>(201, "signed in")
                .fails(401, "the challenge has expired: sign in again")
                .fails(403, "cookies are for the shop's own pages"),
            post("/v1/sessions/refresh", Anyone, refresh)
                .says("New tokens in place of the refresh token, which works once. Used a second time within 30 s by the same device it \
                gives the same refresh token again, since the answer may have been lost; used by another, or later, it ends the \
                session.")
                .answers::<SessionGrant>(200, "the tokens")
                .fails(401, "the session has ended: sign in again")
                .fails(403, "the cookie is for the shop's own pages"),
            delete("/v1/sessions/current", SignedIn, sign_out)
                .by_cookie()
                .says("Signs out: from now on no token of the session works, here or in any other process within a second. By the \
                access token; or, for the shop's own pages that have none at hand, by the cookie, with `Kindred-Csrf: 1`, from \
                the same origin.")
                .answers_nothing(204, "signed out")
                    .sends("Kindred-Session", "the browsing session with which the browser goes on, as nobody"),
        ],
    )
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
    match request.members()?.sign_in(sign_in).await? {
        Entered::Session(grant) => begun(&request, *grant, form.cookie).await,
        Entered::SecondFactor { challenge, expires_in_s } => {
            json(StatusCode::OK, &SecondFactorAsked { challenge, expires_in: expires_in_s })
        }
    }
}

fn session_id(request: &Request, text: &str) -> Result<SessionId, Problem> {
    SessionId::parse(text).map_err(|error| request.invalid("/session".to_owned(), "invalid", error.reason))
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

async fn show_second_factor(request: Request, form: SecondFactorForm) -> Answered {
    if form.cookie {
        request.browser().own_page()?;
    }
    let grant = request.members()?.sign_in_second(form.challenge.expose_secret(), form.code.expose_secret()).await?;
    begun(&request, grant, form.cookie).await
}

/// What a session goes on with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshForm {
    /// The newest; absent where it stands in a cookie, with `Kindred-Csrf: 1`, from the same origin.
    #[schema(value_type = Option<String>, format = Password)]
    refresh_token: Option<SecretString>,
}

async fn refresh(request: Request, form: RefreshForm) -> Answered {
    let browser = request.browser();
    let (token, in_cookie) = match &form.refresh_token {
        Some(token) => (token, false),
        None => (browser.refresh()?, true),
    };
    match request.members()?.refresh(token, request.from(), &request.visitor().label).await {
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
        request.members()?.sign_out(request.person()?, request.from()).await?;
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

/// Ends the session of the cookie. One that has ended already is as it was asked for.
async fn end_session_of_cookie(request: &Request, browser: &Browser) -> Result<(), Problem> {
    let (token, members, label) = (browser.refresh()?, request.members()?, &request.visitor().label);
    let ended = async {
        let grant = members.refresh(token, request.from(), label).await?;
        let claims = members.authenticate(grant.access_token.expose_secret())?;
        members.sign_out(&claims, request.from()).await
    };
    match ended.await {
        Err(MemberError::Unauthenticated) => Ok(()),
        ended => Ok(ended?),
    }
}
