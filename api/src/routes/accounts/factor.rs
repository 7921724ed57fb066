//! The second factor (V6.5): authenticator app and recovery codes.

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

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [
            post("/v1/members/me/totp", SignedIn, enrol_totp)
                .says("Starts the set-up of an authenticator app. It takes effect when confirmed with a code.")
                .answers::<TotpEnrolment>(201, "the secret for the app")
                .fails_as(Code::Refused, "a second factor is already set up"),
            post("/v1/members/me/totp/confirm", SignedIn, confirm_totp)
                .says("Confirms the set-up: sign-in requires a code from now on. Other sessions end.")
                .answers::<RecoveryCodes>(200, "the second factor is active")
                .fails_as(Code::Refused, "no set-up in progress"),
            delete("/v1/members/me/totp", SignedIn, remove_totp)
                .says("Removes the second factor. Other sessions end.")
                .answers_nothing(204, "removed"),
            post("/v1/members/me/recovery-codes", SignedIn, renew_recovery_codes)
                .says("Replaces the recovery codes.")
                .answers::<RecoveryCodes>(200, "the codes")
                .fails_as(Code::Refused, "there is no second factor"),
        ],
    )
}

/// The current password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reauthentication {
    /// Without it the response is 403.
    #[schema(value_type = String, format = Password, required)]
    pub current_password: Option<SecretString>,
}

/// The set-up of an authenticator app.
#[derive(Serialize, ToSchema)]
pub(crate) struct TotpEnrolment {
    /// Base32, for manual entry.
    secret: String,
    /// The `otpauth://…` URI of the QR code.
    uri: String,
    /// The QR code as SVG.
    qr_svg: String,
}

/// Minimum side of the QR code in pixels, readable at arm's length.
const QR_PIXELS: u32 = 240;

fn qr_svg(text: &str) -> Result<String, Problem> {
    let code = QrCode::new(text).map_err(Problem::internal)?;
    Ok(code.render::<svg::Color<'_>>().min_dimensions(QR_PIXELS, QR_PIXELS).build())
}

async fn enrol_totp(request: Request, form: Reauthentication) -> Answered {
    let current = current(form.current_password)?;
    let made = request.members()?.factors.enrol_totp(request.person()?, &current, request.from()).await?;
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

/// Recovery codes.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    /// Each works once in place of a code of the app. Returned once.
    recovery_codes: Vec<String>,
}

impl RecoveryCodes {
    fn of(codes: &[SecretString]) -> Self {
        Self { recovery_codes: codes.iter().map(|code| code.expose_secret().to_owned()).collect() }
    }
}

async fn confirm_totp(request: Request, TotpCode { code }: TotpCode) -> Answered {
    let codes = request.members()?.factors.confirm_totp(request.person()?, code.expose_secret(), request.from()).await?;
    json(StatusCode::OK, &RecoveryCodes::of(&codes))
}

/// Removes the second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TotpRemoval {
    /// Without it the response is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// A code of the app, or a recovery code.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
}

async fn remove_totp(request: Request, form: TotpRemoval) -> Answered {
    let current = current(form.current_password)?;
    request.members()?.factors.remove_totp(request.person()?, &current, form.code.expose_secret(), request.from()).await?;
    Ok(done())
}

async fn renew_recovery_codes(request: Request, form: Reauthentication) -> Answered {
    let current = current(form.current_password)?;
    let codes = request.members()?.factors.new_recovery_codes(request.person()?, &current, request.from()).await?;
    json(StatusCode::OK, &RecoveryCodes::of(&codes))
}
