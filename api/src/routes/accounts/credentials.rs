//! Changing what one signs in with (V6.2, V7.5.1): the password, e-mail and phone, each with the current password; and the way back in
//! for whoever forgot it.

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

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [
            post("/v1/members/me/password", SignedIn, change_password)
                .says("Changes the password; the other sessions end with it.")
                .answers_nothing(204, "it is changed"),
            post("/v1/members/me/email", SignedIn, change_email)
                .says("Sends a mail to a new address; it takes the old one's place when the token of the mail comes back. The answer is \
                the same where the address is another's.")
                .answers::<Accepted>(202, "it is being sent"),
            post("/v1/email-changes/confirm", Anyone, confirm_email)
                .says("Takes the new address in place of the old by the token of its mail.")
                .answers_nothing(204, "it is changed")
                .fails(409, "the address is another's")
                .fails(410, "the link is used or expired"),
            post("/v1/members/me/phone", SignedIn, change_phone)
                .says("Sends a code to a new phone.")
                .answers::<Accepted>(202, "it is being sent"),
            post("/v1/members/me/phone/confirm", SignedIn, confirm_phone)
                .says("Takes the new phone in place of the old.")
                .answers_nothing(204, "it is changed")
                .fails(409, "the phone is another's"),
            post("/v1/password-resets", Anyone, request_reset)
                .says("Sends a mail with a link to set the password anew, good for half an hour; the answer is the same where there is \
                no such account.")
                .answers::<Accepted>(202, "it is being looked into"),
            post("/v1/password-resets/redeem", Anyone, reset_password)
                .says("Sets a new password. Every session ends; a second factor is asked for as before (V6.4.3).")
                .answers::<PasswordReset>(200, "it is set: sign in")
                .fails(403, "cookies are for the shop's own pages")
                .fails(410, "the link is used or expired"),
        ],
    )
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

async fn change_password(request: Request, form: PasswordChange) -> Answered {
    let (members, claims, current) = (request.members()?, request.person()?, current(form.current_password)?);
    let end_others = !form.keep_other_sessions;
    let staff = members.profile(&claims.sub).await?.role.is_some();
    let changed = members.change_password(claims, &current, form.password, end_others, request.from()).await;
    // Staff is told its own least length.
    changed.map_err(|error| request.told(error.into(), staff))?;
    Ok(done())
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

async fn change_email(request: Request, form: EmailChange) -> Answered {
    let current = current(form.current_password)?;
    request.members()?.change_email(request.person()?, &current, &form.email, request.from()).await?;
    accepted()
}

async fn confirm_email(request: Request, MailToken { token }: MailToken) -> Answered {
    request.members()?.confirm_email(token.expose_secret(), request.from()).await?;
    Ok(done())
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

async fn change_phone(request: Request, form: PhoneChange) -> Answered {
    let current = current(form.current_password)?;
    request.members()?.change_phone(request.person()?, &current, &form.phone, request.from()).await?;
    accepted()
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

async fn confirm_phone(request: Request, form: PhoneProof) -> Answered {
    let (current, code) = (current(form.current_password)?, form.code.expose_secret());
    request.members()?.confirm_phone(request.person()?, &current, &form.phone, code, request.from()).await?;
    Ok(done())
}

/// Whose password is to be set anew.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetAsked {
    /// Username, phone or e-mail.
    account: String,
    /// A solved challenge.
    challenge: Solution,
}

async fn request_reset(request: Request, form: ResetAsked) -> Answered {
    request.members()?.request_reset(&form.account, &form.challenge, request.from()).await?;
    accepted()
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

async fn reset_password(request: Request, form: ResetForm) -> Answered {
    if form.cookie {
        request.browser().own_page()?;
    }
    let device = request.members()?.reset_password(form.token.expose_secret(), form.password, request.from()).await?;
    let mut response = json(StatusCode::OK, &PasswordReset { device: (!form.cookie).then(|| device.clone()) })?;
    if form.cookie {
        keep_device(&mut response, &device);
    }
    Ok(response)
}
