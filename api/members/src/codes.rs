//! Codes to phones and tokens in mails: what shows that a person has the phone, or reads the mailbox.
//!
//! ```text
//! codes[phone]      purpose      ──▶ keyed digest of six digits, 10 minutes
//! accounts[member]  token/KIND   ──▶ digest of 32 random bytes, single use
//! ```

use std::collections::BTreeMap;

use kindred_store::records::{Step, Version};
use serde::{Deserialize, Serialize};

use crate::account::Loaded;
use crate::base::Codes;
use crate::challenge::address_group;
use crate::db::{self, CODES};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::random;
use crate::senders::Template;
use crate::throttle::{Failures, HOUR_S};
use crate::validate::{self, Identifier};
use kindred_config::members::Language;

/// Life of a code to a phone, seconds (V6.5.5: at most 10 minutes).
pub const PHONE_CODE_S: u64 = 600;
/// Shortest time between two codes to one phone, seconds.
const PHONE_CODE_EVERY_S: u64 = 60;
/// The only purpose there is: that the asker has the phone. What it is good for is decided where it is used.
const CODE: &str = "code";

#[derive(Serialize, Deserialize)]
struct Code {
    digest: String,
    /// The member that a registration with it makes: one code makes one member at most, however often its form is sent.
    member: String,
}

/// A code that was checked.
pub(crate) struct Checked {
    /// As it was read.
    version: Version,
    /// The member that a registration with it makes.
    pub member: String,
}

/// What a token of an account is for. All of them end with every [`crate::CredentialEvent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Verifies the e-mail of a registration.
    Verify,
    /// Sets a new password.
    Reset,
    /// Proves a new e-mail address.
    Email,
    /// A change of the phone was asked for; the code to the phone proves it.
    Phone,
}

impl Loaded {
    /// The token of a kind that waits to be used, where what lies beside was loaded.
    fn token(&self, kind: TokenKind) -> Result<Option<(Token, Version)>> {
        let Some(held) = self.beside.get(&kind.sort()) else { return Ok(None) };
        let token = serde_json::from_value(held.value.clone()).map_err(|error| MemberError::Internal(error.to_string()))?;
        Ok(Some((token, held.version)))
    }

    /// The phone that a change was asked to, where what lies beside was loaded.
    pub(crate) fn pending_phone(&self) -> Result<Option<Identifier>> {
        Ok(self.token(TokenKind::Phone)?.and_then(|(token, _)| token.proves))
    }

    /// The step that uses up a token, if it is the one that was sent.
    pub fn spend_token(&self, kind: TokenKind, secret: &str) -> Result<(Step, Token)> {
        let (token, version) = self.token(kind)?.ok_or(MemberError::TokenGone)?;
        if token.epoch != self.account.epoch || !random::same(&token.digest, &random::digest(secret)) {
            return Err(MemberError::TokenGone);
        }
        Ok((Step::delete(kind.sort(), version), token))
    }

    /// The step that uses up the change of the phone that was asked for, if it is to this one.
    pub fn spend_phone_change(&self, phone: &Identifier) -> Result<Step> {
        let (token, version) = self.token(TokenKind::Phone)?.ok_or(MemberError::CodeWrong)?;
        let asked = token.proves.is_some_and(|asked| asked.canonical == phone.canonical);
        if asked && token.epoch == self.account.epoch {
            Ok(Step::delete(TokenKind::Phone.sort(), version))
        } else {
            Err(MemberError::CodeWrong)
        }
    }
}

impl TokenKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Verify, Self::Reset, Self::Email, Self::Phone];

    /// Where the token lies beside the account.
    pub(crate) fn sort(self) -> String {
        let name = match self {
            Self::Verify => "verify",
            Self::Reset => "reset",
            Self::Email => "email",
            Self::Phone => "phone",
        };
        format!("token/{name}")
    }
}

/// A token of an account.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    pub digest: String,
    /// The identifier that it proves.
    pub proves: Option<Identifier>,
    /// The session that asked for it.
    #[serde(default)]
    pub session: Option<String>,
    /// The epoch of the account in which it was given.
    #[serde(default)]
    pub epoch: u64,
}

/// A new identifier that a session asks for.
pub(crate) struct Proves {
    pub identifier: Identifier,
    pub session: Option<String>,
}

impl Codes {
    pub(crate) async fn send_phone_code(&self, phone: Identifier, language: Language, address: &str) -> Result<()> {
        let limits = &self.config.limits;
        self.throttle.quota("code address", &address_group(address), limits.phone_codes_address_hour, HOUR_S).await?;
        self.throttle.quota("code minute", &phone.canonical, 1, PHONE_CODE_EVERY_S).await?;
        self.throttle.quota("code hour", &phone.canonical, limits.phone_codes_hour, HOUR_S).await?;
        // What all of it may cost, whoever asks for it from however many addresses, for however many phones.
        if let Err(refused) = self.throttle.quota("codes", "all", limits.phone_codes_all_hour, HOUR_S).await {
            metrics::counter!("members_codes_refused_total").increment(1);
            tracing::warn!(most = limits.phone_codes_all_hour, "no code is sent: members.limits.phone_codes_all_hour is used up");
            return Err(refused);
        }
        self.outbox.request(vec![Work::CodeRequest { phone, language, code: random::digits() }], PHONE_CODE_S).await
    }

    /// Stores the digest of a code and has it sent. Done twice, it comes twice. One that takes the place of another is for the same
    /// member: a registration that broke off with the first goes on with the second.
    pub(crate) async fn give_phone_code(&self, phone: &Identifier, language: Language, code: &str) -> Result<()> {
        let (digest, until) = (self.code_digest(phone, code), Some(self.db.in_s(PHONE_CODE_S)));
        let next = |before: Option<Code>| {
            let member = before.map_or_else(|| random::id(self.db.now()), |before| before.member);
            (Some((Code { digest: digest.clone(), member }, until)), ())
        };
        self.db.update(CODES, &phone.canonical, CODE, next).await?;
        let minutes = (PHONE_CODE_S / 60).to_string();
        let params = self.params(&[("code", code), ("minutes", &minutes)]);
        let work = Work::Message { to: phone.canonical.clone(), template: Template::PhoneCode, language, params };
        self.outbox.request(vec![work], PHONE_CODE_S).await
    }

    /// A million codes are tried in no time: the digest is keyed.
    fn code_digest(&self, phone: &Identifier, code: &str) -> String {
        self.marks.digest("phone code", &[&phone.canonical, code])
    }

    /// Whether the code is the phone's; wrong ones are limited for the phone, whichever codes they are tried against (V6.6.3).
    pub(crate) async fn check_phone_code(&self, phone: &Identifier, code: &str) -> Result<Checked> {
        let code = &validate::code(code);
        let tried = self.throttle.attempt(self.marks.key("phone code", &[&phone.canonical]), Failures::Double).await?;
        let held = self.db.read::<Code>(CODES, &phone.canonical, CODE).await?;
        let right = held.filter(|held| random::same(&held.value.digest, &self.code_digest(phone, code)));
        let checked = right.map(|held| Checked { version: held.version, member: held.value.member });
        self.throttle.settle(tried, checked.ok_or(MemberError::CodeWrong)).await
    }

    /// Uses up a code that was checked; of many who try, one does.
    pub(crate) async fn spend_phone_code(&self, phone: &Identifier, checked: Checked) -> Result<()> {
        let spent = self.db.transact(CODES, &phone.canonical, &[Step::delete(CODE, checked.version)]).await?;
        if spent { Ok(()) } else { Err(MemberError::CodeWrong) }
    }

    /// Uses up the code by which a member registered, if it is still there. It may be done again.
    pub(crate) async fn spend_code_of(&self, phone: &Identifier, member: &str) -> Result<()> {
        self.db.remove_if(CODES, &phone.canonical, CODE, |code: &Code| code.member == member).await
    }

    /// Deletes the code that went to a phone, whoever's it is.
    pub(crate) async fn forget_code(&self, phone: &Identifier) -> Result<()> {
        self.db.remove(CODES, &phone.canonical, CODE).await
    }

    /// A new token of a kind for a member: (the step that stores it in place of one before, what the mail's link carries).
    pub(crate) fn token_step(&self, loaded: &Loaded, kind: TokenKind, proves: Option<Proves>, life_s: u64) -> (Step, String) {
        let secret = random::text::<32>();
        let sort = kind.sort();
        let (proves, session) = proves.map_or((None, None), |proves| (Some(proves.identifier), proves.session));
        let value = db::encode(&Token { digest: random::digest(&secret), proves, session, epoch: loaded.account.epoch });
        let expires_at = Some(self.db.in_s(life_s));
        let step = match loaded.beside.get(&sort) {
            Some(held) => Step::replace(sort, held.version, value, expires_at),
            None => Step::insert(sort, value, expires_at),
        };
        (step, format!("{}.{secret}", loaded.account.member))
    }

    /// The values of every message, and these.
    pub(crate) fn params(&self, more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let shop = ("shop", self.config.shop_name.as_str());
        std::iter::once(&shop).chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// A link to a page. A token stands behind `#`: browsers send it to no server and to no log (V14.2.1).
    pub(crate) fn link(&self, page: &str, token: &str) -> String {
        let base = &self.config.base_url;
        if token.is_empty() { format!("{base}/{page}") } else { format!("{base}/{page}#{token}") }
    }
}

/// A link's token as (member, secret).
pub(crate) fn split_token(token: &str) -> Result<(&str, &str)> {
    let known = token.len() <= 128 && !token.starts_with('.');
    token.split_once('.').filter(|_| known).ok_or(MemberError::TokenGone)
}
