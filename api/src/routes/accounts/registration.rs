//! Registration in five steps (R8 to R15): challenge, phone code, the form, the link in the mail. Which phones and e-mails are
//! registered is told by no answer (V6.3.8).

use http::StatusCode;
use kindred_members::{EMAIL_BYTES_MAX, Language, PASSWORD_BYTES_MAX, Registration, Solution, USERNAME_CHARS};
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
                .answers::<ChallengeShown>(201, "the challenge")
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

/// A language that people are spoken to in.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(crate) enum LanguageTag {
    /// Simplified Chinese.
    #[serde(rename = "zh-CN")]
    ZhCn,
    /// English.
    #[serde(rename = "en")]
    En,
}

impl From<LanguageTag> for Language {
    fn from(tag: LanguageTag) -> Self {
        match tag {
            LanguageTag::ZhCn => Self::ZhCn,
            LanguageTag::En => Self::En,
        }
    }
}

impl From<Language> for LanguageTag {
    fn from(language: Language) -> Self {
        match language {
            Language::ZhCn => Self::ZhCn,
            Language::En => Self::En,
        }
    }
}

/// A proof of work to be done before a registration, a phone code or a reset.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChallengeShown {
    /// Given back with the solution.
    token: String,
    /// Leading zero bits of SHA-256(`token.nonce`) to find a nonce for.
    bits: u32,
    /// Milliseconds since 1970 UTC at which it is worthless.
    expires_at: i64,
}

/// A challenge with what was found for it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChallengeSolved {
    /// Of the challenge.
    token: String,
    /// What was found.
    nonce: String,
}

impl From<ChallengeSolved> for Solution {
    fn from(solved: ChallengeSolved) -> Self {
        Self { token: solved.token, nonce: solved.nonce }
    }
}

async fn give_challenge(request: Request) -> Answered {
    let made = request.members()?.challenge(request.from()).await?;
    let shown = ChallengeShown { token: made.token, bits: made.bits, expires_at: made.expires_at };
    json(StatusCode::CREATED, &shown)
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
    languages: Vec<LanguageTag>,
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
        languages: languages.into_iter().map(Into::into).collect(),
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
    challenge: ChallengeSolved,
    /// The language of the message; that of `Accept-Language` unless given.
    language: Option<LanguageTag>,
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
    let language = form.language.map_or(request.language(), Into::into);
    let fields = [form.username.as_deref(), form.email.as_deref(), form.password.as_ref().map(|text| text.expose_secret())];
    let solution = form.challenge.into();
    let members = request.members()?;
    members.check_and_request_phone_code(&form.phone, fields, language, &solution, request.from()).await?;
    accepted()
}

/// What a person sends to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistrationForm {
    /// Letters, digits and `. _ - '`; unique without regard to case and to look-alikes.
    username: String,
    /// With its code from POST /v1/phone-codes.
    phone: String,
    /// To where the link is mailed.
    email: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// A solved challenge; another than the one for the code.
    challenge: ChallengeSolved,
    /// The code that was sent to the phone.
    phone_code: String,
    /// The version of the user agreement that is accepted.
    agreement_version: String,
    /// Of whoever invited them.
    invite_code: Option<String>,
    /// The language of messages; that of `Accept-Language` unless given.
    language: Option<LanguageTag>,
    /// Whether marketing may be sent.
    #[serde(default)]
    marketing_consent: bool,
}

/// What a registration is answered: the same whether phone and e-mail were free or not.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistrationAccepted {
    /// Always `accepted`.
    status: &'static str,
    /// For the person, in their language.
    message: &'static str,
}

async fn register(request: Request, form: RegistrationForm) -> Answered {
    let registration = Registration {
        username: form.username,
        phone: form.phone,
        email: form.email,
        password: form.password,
        solution: form.challenge.into(),
        phone_code: form.phone_code,
        agreement_version: form.agreement_version,
        invite_code: form.invite_code,
        language: Some(form.language.map_or(request.language(), Into::into)),
        marketing_consent: form.marketing_consent,
        address: request.from().to_owned(),
    };
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
    challenge: ChallengeSolved,
}

async fn resend_verification(request: Request, form: VerificationAsked) -> Answered {
    request.members()?.request_verification(&form.email, &form.challenge.into(), request.from()).await?;
    accepted()
}
