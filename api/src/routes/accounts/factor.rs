//! The second factor (V6.5): an authenticator app, and recovery codes for whoever lost it.

use std::sync::Arc;

use http::StatusCode;
use qrcode::QrCode;
use qrcode::render::svg;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Asked, asked, done};
use crate::api::Api;
use crate::problem::Problem;
use crate::routes::access::need;
use crate::routes::body::{Posted, posted};
use crate::routes::json;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let own = || warp::path!("v1" / "members" / "me" / "totp");
    let enrol = own().and(warp::post()).and(asked(api)).and(posted()).then(enrol_totp);
    let remove = own().and(warp::delete()).and(asked(api)).and(posted()).then(remove_totp);
    let confirm = warp::path!("v1" / "members" / "me" / "totp" / "confirm")
        .and(warp::post())
        .and(asked(api))
        .and(posted())
        .then(confirm_totp);
    let codes = warp::path!("v1" / "members" / "me" / "recovery-codes")
        .and(warp::post())
        .and(asked(api))
        .and(posted())
        .then(renew_recovery_codes);
    enrol.or(remove).unify().or(confirm).unify().or(codes).unify().boxed()
}

/// The password again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reauthentication {
    /// Without it the answer is 403.
    #[schema(value_type = String, format = Password, required)]
    pub current_password: Option<SecretString>,
}

/// What an authenticator app is set up with.
#[derive(Serialize, ToSchema)]
pub(crate) struct TotpEnrolment {
    /// Base32, to be typed.
    secret: String,
    /// `otpauth://…`, what the QR code says.
    uri: String,
    /// The QR code, as SVG: an app takes a picture of it.
    qr_svg: String,
}

/// Least side of the QR code, in pixels: a camera reads it from a screen at arm's length.
const QR_PIXELS: u32 = 240;

/// A text as a QR code; black on white, whatever the page is.
fn qr_svg(text: &str) -> Result<String, Problem> {
    let code = QrCode::new(text).map_err(Problem::internal)?;
    Ok(code.render::<svg::Color<'_>>().min_dimensions(QR_PIXELS, QR_PIXELS).build())
}

/// POST /v1/members/me/totp
///
/// Begins to set up an authenticator app; nothing is asked for until a code of it was shown.
#[utoipa::path(
    post, path = "/v1/members/me/totp", tag = "account",
    request_body = Reauthentication,
    responses(
        (status = 201, description = "for the app", body = TotpEnrolment),
        (status = 409, description = "there is a second factor already", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn enrol_totp(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/totp") }, |claims| async move {
            let form: Reauthentication = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let made = asked.members(|members| members.enrol_totp(&claims, &current, &asked.visitor.address)).await?;
            let (secret, uri) = (made.secret.expose_secret().to_owned(), made.uri.expose_secret().to_owned());
            let qr_svg = qr_svg(&uri)?;
            json(StatusCode::CREATED, &TotpEnrolment { secret, uri, qr_svg })
        })
        .await
}

/// A code of the app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TotpCode {
    /// Six digits.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
}

/// Codes for whoever lost the app.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    /// Each works once in place of a code of the app. They are shown this once.
    recovery_codes: Vec<String>,
}

impl RecoveryCodes {
    fn of(codes: &[SecretString]) -> Self {
        Self { recovery_codes: codes.iter().map(|code| code.expose_secret().to_owned()).collect() }
    }
}

/// POST /v1/members/me/totp/confirm
///
/// Ends setting up: from now on a code is asked for when signing in. The other sessions end.
#[utoipa::path(
    post, path = "/v1/members/me/totp/confirm", tag = "account",
    request_body = TotpCode,
    responses(
        (status = 200, description = "it is asked for from now on", body = RecoveryCodes),
        (status = 409, description = "no app is being set up", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn confirm_totp(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/totp/confirm") }, |claims| async move {
            let form: TotpCode = asked.form(posted).await?;
            let (code, address) = (form.code.expose_secret(), &asked.visitor.address);
            let codes = asked.members(|members| members.confirm_totp(&claims, code, address)).await?;
            json(StatusCode::OK, &RecoveryCodes::of(&codes))
        })
        .await
}

/// What the second factor is removed by.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TotpRemoval {
    /// Without it the answer is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// Of the app, or a recovery code.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
}

/// DELETE /v1/members/me/totp
///
/// Removes the second factor. The other sessions end.
#[utoipa::path(
    delete, path = "/v1/members/me/totp", tag = "account",
    request_body = TotpRemoval,
    responses((status = 204, description = "it is removed")),
    security(("access_token" = [])),
)]
async fn remove_totp(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("DELETE /v1/members/me/totp") }, |claims| async move {
            let form: TotpRemoval = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let (code, address) = (form.code.expose_secret(), &asked.visitor.address);
            asked.members(|members| members.remove_totp(&claims, &current, code, address)).await?;
            Ok(done())
        })
        .await
}

/// POST /v1/members/me/recovery-codes
///
/// New recovery codes in place of those that are left.
#[utoipa::path(
    post, path = "/v1/members/me/recovery-codes", tag = "account",
    request_body = Reauthentication,
    responses(
        (status = 200, description = "the codes", body = RecoveryCodes),
        (status = 409, description = "there is no second factor", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn renew_recovery_codes(asked: Asked, posted: Posted) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("POST /v1/members/me/recovery-codes") }, |claims| async move {
            let form: Reauthentication = asked.form(posted).await?;
            let current = asked.current(form.current_password)?;
            let address = &asked.visitor.address;
            let codes = asked.members(|members| members.new_recovery_codes(&claims, &current, address)).await?;
            json(StatusCode::OK, &RecoveryCodes::of(&codes))
        })
        .await
}
