//! The settings of members and sign-in (`members.*`), each with its default, unit and reason.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

settings! {
    MembersConfig, "members":
    /// Whether the installation has members. Otherwise nobody can register or sign in, and these routes return 404.
    enabled: bool = true;
    /// The shop's name in messages and authenticator apps; passwords containing it are refused (V6.2.11).
    shop_name: String = "Kindred".into();
    /// The base URL of links in mails, without a trailing slash.
    base_url: String = "http://127.0.0.1:8080".into();
    /// The default language: `zh-CN` or `en`.
    default_language: Language = Language::ZhCn;
    /// The version of the user agreement that has to be accepted (R8, step 4).
    agreement_version: String = "1".into();
    /// `levels.*`
    levels: LevelsConfig = LevelsConfig::default();
    /// `password.*`
    password: PasswordConfig = PasswordConfig::default();
    /// `registration.*`
    registration: RegistrationConfig = RegistrationConfig::default();
    /// `sign_in.*`
    sign_in: SignInConfig = SignInConfig::default();
    /// `tokens.*`
    tokens: TokenConfig = TokenConfig::default();
    /// `limits.*`
    limits: LimitsConfig = LimitsConfig::default();
    /// `mail.*`
    mail: MailConfig = MailConfig::default();
    /// `phone.*`
    phone: PhoneConfig = PhoneConfig::default();
    /// `sealing.*`
    sealing: SealingConfig = SealingConfig::default();
    /// Retention of the audit log in days.
    audit_days: u32 = 400, 1..=3_650;
}

impl MembersConfig {
    /// Warnings for operators: settings that are allowed but weaken security.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.password.min_length < 8 {
            let length = self.password.min_length;
            warnings.push(format!("members.password.min_length = {length} is below the 8 of ASVS V6.2.1; set 8 or more"));
        }
        if self.registration.reveal_taken {
            let text = "members.registration.reveal_taken tells anyone whether a phone or an e-mail is registered (ASVS V6.3.8)";
            warnings.push(text.into());
        }
        if self.sign_in.totp_skew > 1 {
            warnings.push("members.sign_in.totp_skew > 1 accepts codes for longer than RFC 6238 recommends (one step)".into());
        }
        warnings
    }
}

settings! {
    /// Points at which a level begins (REQUIREMENTS, A.5). Shown to members; tiers are set by staff or by
    /// `members` records.
    #[derive(Copy)]
    LevelsConfig, "members.levels":
    /// Points for VIP.
    vip: u32 = 1_000;
    /// Points for SVIP.
    svip: u32 = 5_000;
}

impl LevelsConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// A sentence naming the setting.
    pub fn check(self) -> Result<(), String> {
        if self.vip == 0 || self.svip <= self.vip {
            let Self { vip, svip } = self;
            return Err(format!(
                "members.levels.vip is {vip} and members.levels.svip {svip}; above 0, and svip above vip, is accepted"
            ));
        }
        Ok(())
    }
}

/// A language that people are spoken to in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LanguageTag)]
pub enum Language {
    /// Simplified Chinese.
    #[serde(rename = "zh-CN")]
    ZhCn,
    /// English.
    #[serde(rename = "en")]
    En,
}

impl Language {
    /// Its BCP 47 tag.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::ZhCn => "zh-CN",
            Self::En => "en",
        }
    }
}

settings! {
    PasswordConfig, "members.password":
    /// `asvs` uses `min_length`; `nist` requires at least 15, as SP 800-63B-4 does where a password is the only factor.
    profile: PasswordProfile = PasswordProfile::Asvs;
    /// Minimum length in characters. The seed's 6 is allowed with a warning (R12).
    min_length: usize = 8;
    /// Minimum length for staff.
    staff_min_length: usize = 15;
    /// A local file of breached passwords: SHA-1 in hex, one per line, in any order, whole or a prefix of at least 10 digits;
    /// anything after a colon is ignored. No password leaves the machine. Empty disables it.
    breached_file: PathBuf = PathBuf::new();
    /// Memory of a hash in KiB (ASVS: 19456 at two passes, 47104 at one).
    memory_kib: u32 = 19_456;
    /// Passes of a hash.
    passes: u32 = 2;
    /// Hashing threads, at low priority; 0 means one per core.
    threads: usize = 0;
    /// Capacity of the hashing queue, some seconds of work; beyond it callers are told to retry.
    queue: usize = 128;
}

/// Which minimum length applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordProfile {
    /// OWASP ASVS 5: `min_length`.
    Asvs,
    /// NIST SP 800-63B-4: 15, or `min_length` if greater.
    Nist,
}

settings! {
    RegistrationConfig, "members.registration":
    /// Reveals that a phone or an e-mail is taken, with the seed's combined message (R13). Off by default.
    reveal_taken: bool = false;
    /// Regions whose phone numbers are accepted, by ISO 3166, `*` for all; the first is the default for numbers without `+`. CN
    /// keeps the seed's rule (R10).
    phone_regions: Vec<String> = vec!["CN".into()];
    /// Difficulty of a challenge in bits: 16 takes a browser some tenths of a second.
    challenge_bits: u32 = 16;
}

settings! {
    SignInConfig, "members.sign_in":
    /// Whether e-mail addresses can sign in, beside username and phone (R16).
    email: bool = false;
    /// Steps of 30 s by which a TOTP code may be late or early: one, as RFC 6238 recommends, because people type and telephones'
    /// clocks differ. 0 is ASVS V6.5.5 to the letter.
    totp_skew: u16 = 1;
}

settings! {
    TokenConfig, "members.tokens":
    /// `iss` of access tokens.
    issuer: String = "kindred".into();
    /// `aud` of access tokens.
    audience: String = "kindred-api".into();
    /// `client_id` of access tokens.
    client_id: String = "storefront".into();
    /// Lifetime of an access token in seconds.
    access_s: u32 = 600, 60..=86_400;
    /// Idle timeout of a session in days (V7.3.1).
    idle_days: u32 = 30, 1..=3_650;
    /// Maximum lifetime of a session in days (V7.3.2).
    absolute_days: u32 = 90, 1..=3_650;
    /// Days a signing key is used for signing.
    key_days: u32 = 30, 1..=3_650;
}

/// Upper bound of the counts per hour: no limit in practice.
const OFTEN: u32 = 1_000_000;
/// Upper bound of the sessions setting: signing in reads them all.
pub const SESSIONS_MAX: usize = 1_000;

settings! {
    /// Rate limits per address and account (docs/design/0008-sign-in.md).
    LimitsConfig, "members.limits":
    /// Registrations an hour per address (V2.4.1).
    registrations_hour: u32 = 20, 1..=OFTEN;
    /// Challenges an hour per address.
    challenges_hour: u32 = 300, 1..=OFTEN;
    /// Failed sign-ins an hour per address (V6.3.1).
    sign_in_failures_hour: u32 = 60, 1..=OFTEN;
    /// Failures per account without a delay; each further one doubles the delay from 1 s.
    free_failures: u32 = 5, 1..=OFTEN;
    /// Maximum delay in seconds.
    wait_max_s: u32 = 900, 1..=86_400;
    /// Codes an hour per phone; the limit of one a minute is fixed.
    phone_codes_hour: u32 = 5, 1..=OFTEN;
    /// Code requests an hour per address, over all phones.
    phone_codes_address_hour: u32 = 20, 1..=OFTEN;
    /// Codes an hour in total: bounds the cost of messages.
    phone_codes_all_hour: u32 = 1_000;
    /// Mails an hour per e-mail address: registrations, resets, repeated verifications.
    mails_hour: u32 = 5, 1..=OFTEN;
    /// Exports an hour per member: each reads everything stored about the member.
    exports_hour: u32 = 6, 1..=OFTEN;
    /// Sessions per member; one more ends the oldest. At most [`SESSIONS_MAX`].
    sessions: usize = 50, 1..=SESSIONS_MAX;
}

settings! {
    /// The SMTP server.
    MailConfig, "members.mail":
    /// The server; empty disables sending, and mails wait.
    host: String = String::new();
    /// Its port.
    port: u16 = 465;
    /// How the connection is secured.
    security: MailSecurity = MailSecurity::Tls;
    /// User name, if the server requires one.
    user: String = String::new();
    /// Password. Never logged or printed.
    #[serde(serialize_with = "hidden")]
    password: String = String::new();
    /// `From`: `Shop <shop@example.com>`.
    from: String = "Kindred <no-reply@localhost>".into();
}

/// How the connection to the mail server is secured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailSecurity {
    /// TLS from the first byte (port 465).
    Tls,
    /// STARTTLS, required (port 587).
    StartTls,
    /// None: a relay on the same machine, or a test.
    None,
}

settings! {
    /// The SMS gateway.
    PhoneConfig, "members.phone":
    /// The URL messages are posted to; empty disables sending, and messages wait.
    url: String = String::new();
    /// The secret that signs the posts. Never logged or printed.
    #[serde(serialize_with = "hidden")]
    signing_password: String = String::new();
}

settings! {
    /// The key that encrypts signing seeds, TOTP secrets and the secret of refresh tokens in the database.
    SealingConfig, "members.sealing":
    /// 32 bytes in base64url, or several separated by white space: the first encrypts, all decrypt. Never logged or printed.
    #[serde(serialize_with = "hidden")]
    key: String = String::new();
    /// A file with the keys. Without either, a data directory creates its own `sealing.key`; services store the secrets
    /// unencrypted.
    key_file: PathBuf = PathBuf::default();
}

fn hidden<S: serde::Serializer>(secret: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if secret.is_empty() { "" } else { crate::NOT_SHOWN })
}
