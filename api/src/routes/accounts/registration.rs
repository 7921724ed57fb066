//! Registration in five steps (R8 to R15): challenge, phone code, the form, the link in the mail. Which phones and e-mails are
//! registered is told by no answer (V6.3.8).

use std::sync::Arc;

use http::StatusCode;
use kindred_members::{EMAIL_BYTES_MAX, Language, PASSWORD_BYTES_MAX, Registration, Solution, USERNAME_CHARS};
use kindred_model::Tier;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Accepted, Asked, asked};
use super::{members, open, with_members};
use crate::api::Api;
use crate::auth::{Visitor, visitor};
use crate::routes::body::{Posted, posted};
use crate::routes::{json, with};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let post = || warp::post().and(asked(api)).and(posted());
    let challenges = warp::path!("v1" / "captcha" / "challenges")
        .and(warp::post())
        .and(visitor(api))
        .and(posted())
        .and(with(api))
        .then(give_challenge);
    let rules = warp::path!("v1" / "registrations" / "rules").and(warp::get()).and(asked(api)).then(show_rules);
    let codes = warp::path!("v1" / "phone-codes").and(post()).then(send_phone_code);
    let registrations = warp::path!("v1" / "registrations").and(post()).then(register);
    let verifications = warp::path!("v1" / "email-verifications").and(post()).then(verify_email);
    let resend = warp::path!("v1" / "email-verifications" / "resend").and(post()).then(resend_verification);
    let first = challenges.or(rules).unify().or(codes).unify().boxed();
    first.or(registrations).unify().or(verifications).unify().or(resend).unify().boxed()
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

/// POST /v1/captcha/challenges
///
/// A challenge against robots: a browser solves it in a moment, a thousand registrations take a while. It works once.
#[utoipa::path(
    post, path = "/v1/captcha/challenges", tag = "registration",
    responses(
        (status = 201, description = "the challenge", body = ChallengeShown),
        (status = 429, description = "too many from this address", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn give_challenge(visitor: Visitor, posted: Posted, api: Arc<Api>) -> Response {
    let shared = &api;
    open(async {
        posted.ignore(shared).await?;
        let made = with_members(shared, &visitor, |members| members.challenge(&visitor.address)).await?;
        let shown = ChallengeShown { token: made.token, bits: made.bits, expires_at: made.expires_at };
        json(StatusCode::CREATED, &shown)
    })
    .await
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

/// GET /v1/registrations/rules
///
/// What a registration has to keep to: for the form that a person fills in.
#[utoipa::path(
    get, path = "/v1/registrations/rules", tag = "registration",
    responses((status = 200, description = "the rules", body = RegistrationRules)),
    security(()),
)]
async fn show_rules(asked: Asked) -> Response {
    asked
        .open(async {
            asked.params(&[])?;
            let members = members(&asked.api)?;
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
        })
        .await
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

/// POST /v1/phone-codes
///
/// Sends a code to a phone, whoever's it is; good for ten minutes. One a minute, and some an hour. Where the other fields of a
/// registration are given they are checked as POST /v1/registrations does, before anything is sent.
#[utoipa::path(
    post, path = "/v1/phone-codes", tag = "registration",
    request_body = PhoneCodeAsked,
    responses(
        (status = 202, description = "it is being sent", body = Accepted),
        (status = 409, description = "the username is taken", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn send_phone_code(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: PhoneCodeAsked = asked.form(posted).await?;
            let language = form.language.map_or(asked.visitor.language, Into::into);
            let solution = form.challenge.into();
            let address = &asked.visitor.address;
            let fields =
                [form.username.as_deref(), form.email.as_deref(), form.password.as_ref().map(|text| text.expose_secret())];
            asked
                .members(|members| members.check_and_request_phone_code(&form.phone, fields, language, &solution, address))
                .await?;
            asked.accepted()
        })
        .await
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

/// POST /v1/registrations
///
/// Registers. Whether the phone or the e-mail is somebody's is told by the mail alone; a username may be seen to be taken.
#[utoipa::path(
    post, path = "/v1/registrations", tag = "registration",
    request_body = RegistrationForm,
    responses(
        (status = 202, description = "look into your mailbox", body = RegistrationAccepted),
        (status = 409, description = "the username is taken", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn register(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: RegistrationForm = asked.form(posted).await?;
            let registration = Registration {
                username: form.username,
                phone: form.phone,
                email: form.email,
                password: form.password,
                solution: form.challenge.into(),
                phone_code: form.phone_code,
                agreement_version: form.agreement_version,
                invite_code: form.invite_code,
                language: Some(form.language.map_or(asked.visitor.language, Into::into)),
                marketing_consent: form.marketing_consent,
                address: asked.visitor.address.clone(),
            };
            asked.members(|members| members.register(registration)).await?;
            let message = asked.text("registration_accepted");
            json(StatusCode::ACCEPTED, &RegistrationAccepted { status: "accepted", message })
        })
        .await
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

/// POST /v1/email-verifications
///
/// Ends a registration by the token of its mail: from now on the person can sign in.
#[utoipa::path(
    post, path = "/v1/email-verifications", tag = "registration",
    request_body = MailToken,
    responses(
        (status = 200, description = "registered", body = EmailVerified),
        (status = 410, description = "the link is used or expired", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn verify_email(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let MailToken { token } = asked.form(posted).await?;
            let address = &asked.visitor.address;
            let member = asked.members(|members| members.verify_email(token.expose_secret(), address)).await?;
            json(StatusCode::OK, &EmailVerified { member, message: asked.text("registered") })
        })
        .await
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

/// POST /v1/email-verifications/resend
///
/// Sends the mail of a registration again, with a new link in place of the old; the answer is the same where there is none.
#[utoipa::path(
    post, path = "/v1/email-verifications/resend", tag = "registration",
    request_body = VerificationAsked,
    responses((status = 202, description = "it is being looked into", body = Accepted)),
    security(()),
)]
async fn resend_verification(asked: Asked, posted: Posted) -> Response {
    asked
        .open(async {
            let form: VerificationAsked = asked.form(posted).await?;
            let solution = form.challenge.into();
            let address = &asked.visitor.address;
            asked.members(|members| members.request_verification(&form.email, &solution, address)).await?;
            asked.accepted()
        })
        .await
}
