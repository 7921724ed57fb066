//! Registration (R8 to R15): challenge, phone code, form, link in the mail. No response reveals whether a phone or an e-mail is
//! registered (V6.3.8).

use http::StatusCode;
use kindred_members::{Challenge, EMAIL_BYTES_MAX, Language, PASSWORD_BYTES_MAX, Registration, Solution, USERNAME_CHARS};
use kindred_model::Tier;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::endpoint::prelude::*;
use crate::routes::{Accepted, accepted, json};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "registration",
        [
            post("/v1/captcha/challenges", Anyone, give_challenge)
                .says("A proof-of-work challenge against bots. It can be used once.")
                .answers::<Challenge>(201, "the challenge")
                .fails(429, "too many challenges for this address"),
            get("/v1/registrations/rules", Anyone, show_rules)
                .says("The rules for registrations, for forms.")
                .answers::<RegistrationRules>(200, "the rules"),
            post("/v1/phone-codes", Anyone, send_phone_code)
                .says(
                    "Sends a code to a phone, valid for ten minutes; limited to one a minute and some an hour. Other fields of \
                    the registration, if given, are validated first as by POST /v1/registrations. The response does not reveal \
                    whether the phone is registered.",
                )
                .answers::<Accepted>(202, "accepted")
                .fails_as(Code::UsernameTaken, "the username is taken"),
            post("/v1/registrations", Anyone, register)
                .says(
                    "Registers a member. The response does not reveal whether phone or e-mail are registered, only whether the \
                    username is taken.",
                )
                .answers::<RegistrationAccepted>(202, "accepted: a mail follows")
                .fails_as(Code::UsernameTaken, "the username is taken"),
            post("/v1/email-verifications", Anyone, verify_email)
                .says("Completes a registration with the token of the mail. The member can sign in from now on.")
                .answers::<EmailVerified>(200, "registered")
                .fails(410, "the link is used or expired"),
            post("/v1/email-verifications/resend", Anyone, resend_verification)
                .says(
                    "Sends the verification mail again, with a new link. The response does not reveal whether the address is \
                    registered.",
                )
                .answers::<Accepted>(202, "accepted"),
        ],
    )
}

async fn give_challenge(request: Request) -> Answered {
    json(StatusCode::CREATED, &request.members()?.challenges.draw(request.from()).await?)
}

/// The rules for registrations.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistrationRules {
    /// The version of the user agreement to accept.
    agreement_version: String,
    /// Minimum and maximum length of a username, characters.
    username_chars: [usize; 2],
    /// Minimum length of a password, characters.
    password_min: usize,
    /// Maximum length of a password, bytes.
    password_bytes_max: usize,
    /// Maximum length of an e-mail address, bytes.
    email_bytes_max: usize,
    /// Accepted phone regions (ISO 3166; `*` is any); numbers without `+` belong to the first.
    phone_regions: Vec<String>,
    /// Leading zero bits that challenges require.
    challenge_bits: u32,
    /// Languages of messages, the default first.
    languages: Vec<Language>,
    /// Whether members can sign in with their e-mail address.
    email_signs_in: bool,
    /// The tiers above the first and the points that they require.
    levels: Vec<LevelShown>,
}

/// A tier.
#[derive(Serialize, ToSchema)]
pub(crate) struct LevelShown {
    #[schema(value_type = String)]
    tier: Tier,
    /// The required points.
    points: u32,
}

async fn show_rules(request: Request) -> Answered {
    let members = request.members()?;
    let config = members.config();
    let mut languages = vec![Language::ZhCn, Language::En];
    languages.sort_by_key(|language| *language != config.default_language);
    let rules = RegistrationRules {
        agreement_version: config.agreement_version.clone(),
        username_chars: [*USERNAME_CHARS.start(), *USERNAME_CHARS.end()],
        password_min: members.password_min(false),
        password_bytes_max: PASSWORD_BYTES_MAX,
        email_bytes_max: EMAIL_BYTES_MAX,
        phone_regions: config.registration.phone_regions.clone(),
        challenge_bits: config.registration.challenge_bits,
        languages,
        email_signs_in: config.sign_in.email,
        levels: [(Tier::Vip, config.levels.vip), (Tier::Svip, config.levels.svip)]
            .map(|(tier, points)| LevelShown { tier, points })
            .into(),
    };
    json(StatusCode::OK, &rules)
}

/// A request for a phone code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhoneCodeAsked {
    /// The phone.
    phone: String,
    /// A solved challenge.
    challenge: Solution,
    /// The language of the message; default that of `Accept-Language`.
    language: Option<Language>,
    /// A field of the registration, validated before the code is sent.
    username: Option<String>,
    /// As `username`.
    email: Option<String>,
    /// As `username`.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
}

async fn send_phone_code(request: Request, form: PhoneCodeAsked) -> Answered {
    let language = form.language.unwrap_or(request.language());
    let fields = [form.username.as_deref(), form.email.as_deref(), form.password.as_ref().map(|text| text.expose_secret())];
    let members = request.members()?;
    members.registrations.request_phone_code(&form.phone, fields, language, &form.challenge, request.from()).await?;
    accepted()
}

/// The same whether phone and e-mail are registered or not.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistrationAccepted {
    /// Always `accepted`.
    status: &'static str,
    /// Message in the language of the client.
    message: &'static str,
}

async fn register(request: Request, form: Registration) -> Answered {
    let language = Some(form.language.unwrap_or(request.language()));
    let registration = Registration { language, address: request.from().to_owned(), ..form };
    request.members()?.registrations.register(registration).await?;
    let message = request.text("registration_accepted");
    json(StatusCode::ACCEPTED, &RegistrationAccepted { status: "accepted", message })
}

/// The token of a mailed link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailToken {
    /// The part after `#`.
    #[schema(value_type = String, format = Password)]
    pub token: SecretString,
}

/// A completed registration.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmailVerified {
    member: String,
    /// Message in the language of the client.
    message: &'static str,
}

async fn verify_email(request: Request, MailToken { token }: MailToken) -> Answered {
    let member = request.members()?.registrations.verify_email(token.expose_secret(), request.from()).await?;
    json(StatusCode::OK, &EmailVerified { member, message: request.text("registered") })
}

/// A request to resend the verification mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationAsked {
    /// The address of the registration.
    email: String,
    /// A solved challenge.
    challenge: Solution,
}

async fn resend_verification(request: Request, form: VerificationAsked) -> Answered {
    request.members()?.registrations.request_verification(&form.email, &form.challenge, request.from()).await?;
    accepted()
}
