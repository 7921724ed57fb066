//! Changes of credentials (V6.2, V7.5.1): password, e-mail and phone, each with the current password; and password resets.

use http::StatusCode;
use kindred_members::Solution;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cookies::keep_device;
use super::registration::MailToken;
use crate::routes::endpoint::prelude::*;
use crate::routes::request::current;
use crate::routes::{Accepted, accepted, done, json};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [
            post("/v1/members/me/password", SignedIn, change_password)
                .says("Changes the password and ends the other sessions.")
                .answers_nothing(204, "changed"),
            post("/v1/members/me/email", SignedIn, change_email)
                .says(
                    "Sends a confirmation mail to the new address. The response does not reveal whether the address is \
                    registered.",
                )
                .answers::<Accepted>(202, "accepted"),
            post("/v1/email-changes/confirm", Anyone, confirm_email)
                .says("Confirms the new e-mail address with the token of the mail.")
                .answers_nothing(204, "changed")
                .fails_as(Code::IdentifierTaken, "the address is taken")
                .fails(410, "the link is used or expired"),
            post("/v1/members/me/phone", SignedIn, change_phone)
                .says("Sends a code to the new phone.")
                .answers::<Accepted>(202, "accepted"),
            post("/v1/members/me/phone/confirm", SignedIn, confirm_phone)
                .says("Confirms the new phone with the code.")
                .answers_nothing(204, "changed")
                .fails_as(Code::IdentifierTaken, "the phone is taken"),
            post("/v1/password-resets", Anyone, request_reset)
                .says(
                    "Sends a mail with a link to reset the password, valid for 30 minutes. The response does not reveal \
                    whether the account exists.",
                )
                .answers::<Accepted>(202, "accepted"),
            post("/v1/password-resets/redeem", Anyone, reset_password)
                .says("Sets a new password and ends all sessions. A second factor is still required (V6.4.3).")
                .answers::<PasswordReset>(200, "the password is set: sign in")
                .fails_as(Code::CrossSite, "cookies are accepted from the shop's own pages only")
                .fails(410, "the link is used or expired"),
        ],
    )
}

/// A change of the password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    /// Without it the response is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new password.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// Keep other sessions; default false (V7.4.3).
    #[serde(default)]
    keep_other_sessions: bool,
}

async fn change_password(request: Request, form: PasswordChange) -> Answered {
    let (members, claims, current) = (request.members()?, request.person()?, current(form.current_password)?);
    let end_others = !form.keep_other_sessions;
    let staff = members.profiles.of(&claims.sub).await?.role.is_some();
    let changed = members.credentials.change_password(claims, &current, form.password, end_others, request.from()).await;
    // The message names the minimum length for staff.
    changed.map_err(|error| request.told(error.into(), staff))?;
    Ok(done())
}

/// A change of the e-mail address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmailChange {
    /// Without it the response is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new address.
    email: String,
}

async fn change_email(request: Request, form: EmailChange) -> Answered {
    let current = current(form.current_password)?;
    request.members()?.credentials.change_email(request.person()?, &current, &form.email, request.from()).await?;
    accepted()
}

async fn confirm_email(request: Request, MailToken { token }: MailToken) -> Answered {
    request.members()?.credentials.confirm_email(token.expose_secret(), request.from()).await?;
    Ok(done())
}

/// A change of the phone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhoneChange {
    /// Without it the response is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new phone.
    phone: String,
}

async fn change_phone(request: Request, form: PhoneChange) -> Answered {
    let current = current(form.current_password)?;
    request.members()?.credentials.change_phone(request.person()?, &current, &form.phone, request.from()).await?;
    accepted()
}

/// The confirmation of a new phone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhoneProof {
    /// Without it the response is 403.
    #[schema(value_type = String, format = Password, required)]
    current_password: Option<SecretString>,
    /// The new phone.
    phone: String,
    /// The code sent to the new phone.
    #[schema(value_type = String, format = Password)]
    code: SecretString,
}

async fn confirm_phone(request: Request, form: PhoneProof) -> Answered {
    let (current, code) = (current(form.current_password)?, form.code.expose_secret());
    request.members()?.credentials.confirm_phone(request.person()?, &current, &form.phone, code, request.from()).await?;
    Ok(done())
}

/// A request to reset a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetAsked {
    /// Username, phone or e-mail.
    account: String,
    /// A solved challenge.
    challenge: Solution,
}

async fn request_reset(request: Request, form: ResetAsked) -> Answered {
    request.members()?.credentials.request_reset(&form.account, &form.challenge, request.from()).await?;
    accepted()
}

/// A password reset.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetForm {
    /// The token of the link, after `#`.
    #[schema(value_type = String, format = Password)]
    token: SecretString,
    /// The new password.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// Store `device` in a cookie. Needs `Kindred-Csrf: 1`, from the same origin.
    #[serde(default)]
    cookie: bool,
}

/// The password is set.
#[derive(Serialize, ToSchema)]
pub(crate) struct PasswordReset {
    /// As in POST /v1/sessions; absent if stored in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

async fn reset_password(request: Request, form: ResetForm) -> Answered {
    if form.cookie {
        request.browser().own_page()?;
    }
    let device = request.members()?.credentials.reset_password(form.token.expose_secret(), form.password, request.from()).await?;
    let mut response = json(StatusCode::OK, &PasswordReset { device: (!form.cookie).then(|| device.clone()) })?;
    if form.cookie {
        keep_device(&mut response, &device);
    }
    Ok(response)
}
