//! The settings of members and sign-in (`members.*`), each with its default, unit and reason.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `members.*`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MembersConfig {
    /// Whether the installation has members. Otherwise nobody can register or sign in, and these routes return 404.
    pub enabled: bool,
    /// The shop's name in messages and authenticator apps; passwords containing it are refused (V6.2.11).
    pub shop_name: String,
    /// The base URL of links in mails, without a trailing slash.
    pub base_url: String,
    /// The default language: `zh-CN` or `en`.
    pub default_language: Language,
    /// The version of the user agreement that has to be accepted (R8, step 4).
    pub agreement_version: String,
    /// `levels.*`
    pub levels: LevelsConfig,
    /// `password.*`
    pub password: PasswordConfig,
    /// `registration.*`
    pub registration: RegistrationConfig,
    /// `sign_in.*`
    pub sign_in: SignInConfig,
    /// `tokens.*`
    pub tokens: TokenConfig,
    /// `limits.*`
    pub limits: LimitsConfig,
    /// `mail.*`
    pub mail: MailConfig,
    /// `phone.*`
    pub phone: PhoneConfig,
    /// `sealing.*`
    pub sealing: SealingConfig,
    /// Retention of the audit log in days.
    pub audit_days: u32,
}

impl Default for MembersConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            shop_name: "Kindred".into(),
            base_url: "http://127.0.0.1:8080".into(),
            default_language: Language::ZhCn,
            agreement_version: "1".into(),
            levels: LevelsConfig::default(),
            password: PasswordConfig::default(),
            registration: RegistrationConfig::default(),
            sign_in: SignInConfig::default(),
            tokens: TokenConfig::default(),
            limits: LimitsConfig::default(),
            mail: MailConfig::default(),
            phone: PhoneConfig::default(),
            sealing: SealingConfig::default(),
            audit_days: 400,
        }
    }
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

/// `members.levels.*`: points at which a level begins (REQUIREMENTS, A.5). Shown to members; tiers are set by staff or by
/// `members` records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LevelsConfig {
    /// Points for VIP.
    pub vip: u32,
    /// Points for SVIP.
    pub svip: u32,
}

impl Default for LevelsConfig {
    fn default() -> Self {
        Self { vip: 1_000, svip: 5_000 }
    }
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

/// `members.password.*`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// `asvs` uses `min_length`; `nist` requires at least 15, as SP 800-63B-4 does where a password is the only factor.
    pub profile: PasswordProfile,
    /// Minimum length in characters. The seed's 6 is allowed with a warning (R12).
    pub min_length: usize,
    /// Minimum length for staff.
    pub staff_min_length: usize,
    /// A local file of breached passwords: SHA-1 in hex, one per line, in any order, whole or a prefix of at least 10 digits;
    /// anything after a colon is ignored. No password leaves the machine. Empty disables it.
    pub breached_file: PathBuf,
    /// Memory of a hash in KiB (ASVS: 19456 at two passes, 47104 at one).
    pub memory_kib: u32,
    /// Passes of a hash.
    pub passes: u32,
    /// Hashing threads, at low priority; 0 means one per core.
    pub threads: usize,
    /// Capacity of the hashing queue, some seconds of work; beyond it callers are told to retry.
    pub queue: usize,
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self {
            profile: PasswordProfile::Asvs,
            min_length: 8,
            staff_min_length: 15,
            breached_file: PathBuf::new(),
            memory_kib: 19_456,
            passes: 2,
            threads: 0,
            queue: 128,
        }
    }
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

/// `members.registration.*`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationConfig {
    /// Reveals that a phone or an e-mail is taken, with the seed's combined message (R13). Off by default.
    pub reveal_taken: bool,
    /// Regions whose phone numbers are accepted, by ISO 3166, `*` for all; the first is the default for numbers without `+`. CN
    /// keeps the seed's rule (R10).
    pub phone_regions: Vec<String>,
    /// Difficulty of a challenge in bits: 16 takes a browser some tenths of a second.
    pub challenge_bits: u32,
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self { reveal_taken: false, phone_regions: vec!["CN".into()], challenge_bits: 16 }
    }
}

/// `members.sign_in.*`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignInConfig {
    /// Whether e-mail addresses can sign in, beside username and phone (R16).
    pub email: bool,
    /// Steps of 30 s by which a TOTP code may be late or early: one, as RFC 6238 recommends, because people type and telephones'
    /// clocks differ. 0 is ASVS V6.5.5 to the letter.
    pub totp_skew: u16,
}

impl Default for SignInConfig {
    fn default() -> Self {
        Self { email: false, totp_skew: 1 }
    }
}

/// `members.tokens.*`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// `iss` of access tokens.
    pub issuer: String,
    /// `aud` of access tokens.
    pub audience: String,
    /// `client_id` of access tokens.
    pub client_id: String,
    /// Lifetime of an access token in seconds.
    pub access_s: u32,
    /// Idle timeout of a session in days (V7.3.1).
    pub idle_days: u32,
    /// Maximum lifetime of a session in days (V7.3.2).
    pub absolute_days: u32,
    /// Days a signing key is used for signing.
    pub key_days: u32,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            issuer: "kindred".into(),
            audience: "kindred-api".into(),
            client_id: "storefront".into(),
            access_s: 600,
            idle_days: 30,
            absolute_days: 90,
            key_days: 30,
        }
    }
}

/// Upper bound of the sessions setting: signing in reads them all.
pub const SESSIONS_MAX: usize = 1_000;

/// `members.limits.*`: rate limits per address and account (docs/design/0008-sign-in.md).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Registrations an hour per address (V2.4.1).
    pub registrations_hour: u32,
    /// Challenges an hour per address.
    pub challenges_hour: u32,
    /// Failed sign-ins an hour per address (V6.3.1).
    pub sign_in_failures_hour: u32,
    /// Failures per account without a delay; each further one doubles the delay from 1 s.
    pub free_failures: u32,
    /// Maximum delay in seconds.
    pub wait_max_s: u32,
    /// Codes an hour per phone; the limit of one a minute is fixed.
    pub phone_codes_hour: u32,
    /// Code requests an hour per address, over all phones.
    pub phone_codes_address_hour: u32,
    /// Codes an hour in total: bounds the cost of messages.
    pub phone_codes_all_hour: u32,
    /// Mails an hour per e-mail address: registrations, resets, repeated verifications.
    pub mails_hour: u32,
    /// Exports an hour per member: each reads everything stored about the member.
    pub exports_hour: u32,
    /// Sessions per member; one more ends the oldest. At most [`SESSIONS_MAX`].
    pub sessions: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            registrations_hour: 20,
            challenges_hour: 300,
            sign_in_failures_hour: 60,
            free_failures: 5,
            wait_max_s: 900,
            phone_codes_hour: 5,
            phone_codes_address_hour: 20,
            phone_codes_all_hour: 1_000,
            mails_hour: 5,
            exports_hour: 6,
            sessions: 50,
        }
    }
}

/// `members.mail.*`: the SMTP server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailConfig {
    /// The server; empty disables sending, and mails wait.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: MailSecurity,
    /// User name, if the server requires one.
    pub user: String,
    /// Password. Never logged or printed.
    #[serde(serialize_with = "hidden")]
    pub password: String,
    /// `From`: `Shop <shop@example.com>`.
    pub from: String,
}

impl Default for MailConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 465,
            security: MailSecurity::Tls,
            user: String::new(),
            password: String::new(),
            from: "Kindred <no-reply@localhost>".into(),
        }
    }
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

/// `members.phone.*`: the SMS gateway.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhoneConfig {
    /// The URL messages are posted to; empty disables sending, and messages wait.
    pub url: String,
    /// The secret that signs the posts. Never logged or printed.
    #[serde(serialize_with = "hidden")]
    pub signing_password: String,
}

/// `members.sealing.*`: the key that encrypts signing seeds, TOTP secrets and the secret of refresh tokens in the database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SealingConfig {
    /// 32 bytes in base64url, or several separated by white space: the first encrypts, all decrypt. Never logged or printed.
    #[serde(serialize_with = "hidden")]
    pub key: String,
    /// A file with the keys. Without either, a data directory creates its own `sealing.key`; services store the secrets
    /// unencrypted.
    pub key_file: PathBuf,
}

fn hidden<S: serde::Serializer>(secret: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if secret.is_empty() { "" } else { crate::NOT_SHOWN })
}
