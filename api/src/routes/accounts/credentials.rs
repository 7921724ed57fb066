//! Changing what one signs in with (V6.2, V7.5.1): the password, e-mail and phone, each with the current password; and the way back in
//! for whoever forgot it.

use std::sync::Arc;

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Accepted, Asked, asked, done};
use super::cookies::keep_device;
use super::members;
use super::registration::{ChallengeSolved, MailToken};
use crate::api::Api;
use crate::problem::Problem;
use crate::routes::access::need;
use crate::routes::body::{Posted, posted};
use crate::routes::{in_time, json};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let post = || warp::post().and(asked(api)).and(posted());
    let password = warp::path!("v1" / "members" / "me" / "password").and(post()).then(change_password);
    let email = warp::path!("v1" / "members" / "me" / "email").and(post()).then(change_email);
    let new_email = warp::path!("v1" / "email-changes" / "confirm").and(post()).then(confirm_email);
    let phone = warp::path!("v1" / "members" / "me" / "phone").and(post()).then(change_phone);
    let new_phone = warp::path!("v1" / "members" / "me" / "phone" / "confirm").and(post()).then(confirm_phone);
    let resets = warp::path!("v1" / "password-resets").and(post()).then(request_reset);
    let redeem = warp::path!("v1" / "password-resets" / "redeem").and(post()).then(reset_password);
    let changes = password.or(email).unify().or(new_email).unify().or(phone).unify().boxed();
    changes.or(new_phone).unify().or(resets).unify().or(redeem).unify().boxed()
}

/// A new password, by the current one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    /// Without it the answer is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new one.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// Whether sessions elsewhere go on; they end unless it is true (V7.4.3).
    #[serde(default)]
    keep_other_sessions: bool,
}

/// POST /v1/members/me/password
///
/// Changes the password; the other sessions end with it.
#[utoipa::path(
    post, path = "/v1/members/me/password", tag = "account",
    request_body = PasswordChange,
    responses((status = 204, description = "it is changed")),
    security(("access_token" = [])),
)]
async fn change_password(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/password") }, |claims| async move {
            let form: PasswordChange = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let (end_others, address) = (!form.keep_other_sessions, &asked.visitor.address);
            let staff = asked.members(|members| members.profile(&claims.sub)).await?.role.is_some();
            let members = members(&asked.api)?;
            let changed = members.change_password(&claims, &current, form.password, end_others, address);
            // Staff is told its own least length.
            let refused = |error| Problem::of_member(&error, asked.visitor.language, members.password_min(staff));
            in_time(&asked.api, async { changed.await.map_err(refused) }).await?;
            Ok(done())
        })
        .await
}

/// A new e-mail address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmailChange {
    /// Without it the answer is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new one.
    email: String,
}

/// POST /v1/members/me/email
///
/// Sends a mail to a new address; it takes the old one's place when the token of the mail comes back. The answer is the same where the
/// address is another's.
#[utoipa::path(
    post, path = "/v1/members/me/email", tag = "account",
    request_body = EmailChange,
    responses((status = 202, description = "it is being sent", body = Accepted)),
    security(("access_token" = [])),
)]
async fn change_email(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/email") }, |claims| async move {
            let form: EmailChange = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let address = &asked.visitor.address;
            asked.members(|members| members.change_email(&claims, &current, &form.email, address)).await?;
            asked.accepted()
        })
        .await
}

/// POST /v1/email-changes/confirm
///
/// Takes the new address in place of the old by the token of its mail.
#[utoipa::path(
    post, path = "/v1/email-changes/confirm", tag = "account",
    request_body = MailToken,
    responses(
        (status = 204, description = "it is changed"),
        (status = 409, description = "the address is another's", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 410, description = "the link is used or expired", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn confirm_email(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let MailToken { token } = asked.form(posted).await?;
            let address = &asked.visitor.address;
            asked.members(|members| members.confirm_email(token.expose_secret(), address)).await?;
            Ok(done())
        })
        .await
}

/// A new phone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhoneChange {
    /// Without it the answer is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new one.
    phone: String,
}

/// POST /v1/members/me/phone
///
/// Sends a code to a new phone.
#[utoipa::path(
    post, path = "/v1/members/me/phone", tag = "account",
    request_body = PhoneChange,
    responses((status = 202, description = "it is being sent", body = Accepted)),
    security(("access_token" = [])),
)]
async fn change_phone(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/phone") }, |claims| async move {
            let form: PhoneChange = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let address = &asked.visitor.address;
            asked.members(|members| members.change_phone(&claims, &current, &form.phone, address)).await?;
            asked.accepted()
        })
        .await
}

/// A new phone with its code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhoneProof {
    /// Without it the answer is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new one.
    phone: String,
    /// That was sent to it.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
}

/// POST /v1/members/me/phone/confirm
///
/// Takes the new phone in place of the old.
#[utoipa::path(
    post, path = "/v1/members/me/phone/confirm", tag = "account",
    request_body = PhoneProof,
    responses(
        (status = 204, description = "it is changed"),
        (status = 409, description = "the phone is another's", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn confirm_phone(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/phone/confirm") }, |claims| async move {
            let form: PhoneProof = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let (code, address) = (form.code.expose_secret(), &asked.visitor.address);
            asked.members(|members| members.confirm_phone(&claims, &current, &form.phone, code, address)).await?;
            Ok(done())
        })
        .await
}

/// Whose password is to be set anew.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetAsked {
    /// Username, phone or e-mail.
    account: String,
    /// A solved challenge.
    challenge: ChallengeSolved,
}

/// POST /v1/password-resets
///
/// Sends a mail with a link to set the password anew, good for half an hour; the answer is the same where there is no such account.
#[utoipa::path(
    post, path = "/v1/password-resets", tag = "account",
    request_body = ResetAsked,
    responses((status = 202, description = "it is being looked into", body = Accepted)),
    security(()),
)]
async fn request_reset(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: ResetAsked = asked.form(posted).await?;
            let solution = form.challenge.into();
            let address = &asked.visitor.address;
            asked.members(|members| members.request_reset(&form.account, &solution, address)).await?;
            asked.accepted()
        })
        .await
}

/// A new password, by the token of a mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetForm {
    /// What the link carries behind its `#`.
    #[schema(value_type = String, format = Password)]
    token: SecretString,
    /// The new one.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// For the shop's own pages: `device` goes into a cookie. Needs `Kindred-Csrf: 1`, from the same origin.
    #[serde(default)]
    cookie: bool,
}

/// The password is set.
#[derive(Serialize, ToSchema)]
pub(crate) struct PasswordReset {
    /// As in POST /v1/sessions; absent where it stands in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

/// POST /v1/password-resets/redeem
///
/// Sets a new password. Every session ends; a second factor is asked for as before (V6.4.3).
#[utoipa::path(
    post, path = "/v1/password-resets/redeem", tag = "account",
    request_body = ResetForm,
    responses(
        (status = 200, description = "it is set: sign in", body = PasswordReset),
        (status = 403, description = "cookies are for the shop's own pages", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 410, description = "the link is used or expired", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn reset_password(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: ResetForm = asked.form(posted).await?;
            if form.cookie {
                asked.browser.own_page()?;
            }
            let (token, address) = (form.token.expose_secret(), &asked.visitor.address);
            let device = asked.members(|members| members.reset_password(token, form.password, address)).await?;
            let mut response = json(StatusCode::OK, &PasswordReset { device: (!form.cookie).then(|| device.clone()) })?;
            if form.cookie {
                keep_device(&mut response, &device);
            }
            Ok(response)
        })
        .await
}
