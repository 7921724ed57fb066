//! Registration in five steps (R8 to R15): challenge, phone code, the form, the link in the mail. Which phones and e-mails are
//! registered is told by no answer (V6.3.8).

use http::StatusCode;
use kindred_members::{Challenge, EMAIL_BYTES_MAX, Language, PASSWORD_BYTES_MAX, Registration, Solution, USERNAME_CHARS};
use kindred_model::Tier;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::endpoint::prelude::*;
use crate::routes::{Accepted, accepted, json};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "registration",
        [
            post("/v1/captcha/challenges", Anyone, give_challenge)
                .says("A challenge against robots: a browser solves it in a moment, a thousand registrations take a while. It works \
                once.")
                .answers::<Challenge>(201, "the challenge")
                .fails(429, "too many from this address"),
            get("/v1/registrations/rules", Anyone, show_rules)
                .says("What a registration has to keep to: for the form that a person fills in.")
                .answers::<RegistrationRules>(200, "the rules"),
            post("/v1/phone-codes", Anyone, send_phone_code)
                .says("Sends a code to a phone, whoever's it is; good for ten minutes. One a minute, and some an hour. Where the other \
                fields of a registration are given they are checked as POST /v1/registrations does, before anything is sent.")
                .answers::<Accepted>(202, "it is being sent")
                .fails(409, "the username is taken"),
            post("/v1/registrations", Anyone, register)
                .says("Registers. Whether the phone or the e-mail is somebody's is told by the mail alone; a username may be seen to be \
                taken.")
                .answers::<RegistrationAccepted>(202, "look into your mailbox")
                .fails(409, "the username is taken"),
            post("/v1/email-verifications", Anyone, verify_email)
                .says("Ends a registration by the token of its mail: from now on the person can sign in.")
                .answers::<EmailVerified>(200, "registered")
                .fails(410, "the link is used or expired"),
            post("/v1/email-verifications/resend", Anyone, resend_verification)
                .says("Sends the mail of a registration again, with a new link in place of the old; the answer is the same where there \
                is none.")
                .answers::<Accepted>(202, "it is being looked into"),
        ],
    )
}

async fn give_challenge(request: Request) -> Answered {
    json(StatusCode::CREATED, &request.members()?.challenge(request.from()).await?)
}

/// What a registration has to keep to.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistrationRules {
    /// The version of the user agreement to accept.
    agreement_version: String,
    /// Fewest and most characters of a username.
    username_chars: [usize; 2],
    /// Fewest characters of a password.
    password_min: usize,
    /// Most bytes of a password.
    password_bytes_max: usize,
    /// Most bytes of an e-mail address.
    email_bytes_max: usize,
    /// Regions whose phones are accepted (ISO 3166; `*` is any); a number without `+` is one of the first.
    phone_regions: Vec<String>,
    /// Leading zero bits that a challenge asks for.
    challenge_bits: u32,
    /// Languages that messages are written in; the first is that of whoever says none.
    languages: Vec<Language>,
    /// Whether an e-mail address signs in beside username and phone.
    email_signs_in: bool,
    /// The levels above the first, and at how many points earned they begin.
    levels: Vec<LevelShown>,
}

/// A level of members.
#[derive(Serialize, ToSchema)]
pub(crate) struct LevelShown {
    #[schema(value_type = String)]
    tier: Tier,
    /// Points earned at which it begins.
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

/// Where a code is sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhoneCodeAsked {
    /// The phone.
    phone: String,
    /// A solved challenge.
    challenge: Solution,
    /// The language of the message; that of `Accept-Language` unless given.
    language: Option<Language>,
    /// What the form of the registration has been filled in with so far: looked at first, so that no message is sent for a form that
    /// would be refused.
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
    members.check_and_request_phone_code(&form.phone, fields, language, &form.challenge, request.from()).await?;
    accepted()
}

/// What a registration is answered: the same whether phone and e-mail were free or not.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistrationAccepted {
    /// Always `accepted`.
    status: &'static str,
    /// For the person, in their language.
    message: &'static str,
}

async fn register(request: Request, form: Registration) -> Answered {
    let language = Some(form.language.unwrap_or(request.language()));
    let registration = Registration { language, address: request.from().to_owned(), ..form };
    request.members()?.register(registration).await?;
    let message = request.text("registration_accepted");
    json(StatusCode::ACCEPTED, &RegistrationAccepted { status: "accepted", message })
}

/// What the link of a mail carries behind its `#`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailToken {
    /// All of it.
    #[schema(value_type = String, format = Password)]
    pub token: SecretString,
}

/// A member from now on.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmailVerified {
    member: String,
    /// For the person, in their language.
    message: &'static str,
}

async fn verify_email(request: Request, MailToken { token }: MailToken) -> Answered {
    let member = request.members()?.verify_email(token.expose_secret(), request.from()).await?;
    json(StatusCode::OK, &EmailVerified { member, message: request.text("registered") })
}

/// To whom the mail is sent again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationAsked {
    /// As it was registered with.
    email: String,
    /// A solved challenge.
    challenge: Solution,
}

async fn resend_verification(request: Request, form: VerificationAsked) -> Answered {
    request.members()?.request_verification(&form.email, &form.challenge, request.from()).await?;
    accepted()
}
