//! The second factor (V6.5): an authenticator app, and recovery codes for whoever lost it.

use http::StatusCode;
use qrcode::QrCode;
use qrcode::render::svg;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::routes::endpoint::prelude::*;
use crate::routes::request::current;
use crate::routes::{done, json};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [
            post("/v1/members/me/totp", SignedIn, enrol_totp)
                .says("Begins to set up an authenticator app; nothing is asked for until a code of it was shown.")
                .answers::<TotpEnrolment>(201, "for the app")
                .fails(409, "there is a second factor already"),
            post("/v1/members/me/totp/confirm", SignedIn, confirm_totp)
                .says("Ends setting up: from now on a code is asked for when signing in. The other sessions end.")
                .answers::<RecoveryCodes>(200, "it is asked for from now on")
                .fails(409, "no app is being set up"),
            delete("/v1/members/me/totp", SignedIn, remove_totp)
                .says("Removes the second factor. The other sessions end.")
                .answers_nothing(204, "it is removed"),
            post("/v1/members/me/recovery-codes", SignedIn, renew_recovery_codes)
                .says("New recovery codes in place of those that are left.")
                .answers::<RecoveryCodes>(200, "the codes")
                .fails(409, "there is no second factor"),
        ],
    )
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

async fn enrol_totp(request: Request, form: Reauthentication) -> Answered {
    let current = current(form.current_password)?;
    let made = request.members()?.enrol_totp(request.person()?, &current, request.from()).await?;
    let (secret, uri) = (made.secret.expose_secret().to_owned(), made.uri.expose_secret().to_owned());
    let qr_svg = qr_svg(&uri)?;
    json(StatusCode::CREATED, &TotpEnrolment { secret, uri, qr_svg })
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

async fn confirm_totp(request: Request, TotpCode { code }: TotpCode) -> Answered {
    let codes = request.members()?.confirm_totp(request.person()?, code.expose_secret(), request.from()).await?;
    json(StatusCode::OK, &RecoveryCodes::of(&codes))
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

async fn remove_totp(request: Request, form: TotpRemoval) -> Answered {
    let current = current(form.current_password)?;
    request.members()?.remove_totp(request.person()?, &current, form.code.expose_secret(), request.from()).await?;
    Ok(done())
}

async fn renew_recovery_codes(request: Request, form: Reauthentication) -> Answered {
    let current = current(form.current_password)?;
    let codes = request.members()?.new_recovery_codes(request.person()?, &current, request.from()).await?;
    json(StatusCode::OK, &RecoveryCodes::of(&codes))
}
