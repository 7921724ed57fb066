//! Signing in (R16): one answer for everything that is wrong, in the same time, and limits that lock out the guesser alone.
//!
//! ```text
//! account × (this device | this address): waits that double ─────────────────────────────────┐
//! account × unknown: waits that double, and failures an hour of the address, over all accounts ─┴▶ argon2, a dummy for nobody
//!   ─▶ password right ─▶ second factor, if enrolled: a sealed challenge for five minutes ─▶ session
//! ```

use kindred_model::SessionId;
use kindred_store::records::Step;
use secrecy::SecretString;

use crate::account::{ACCOUNT, Account};
use crate::base::SignIns;
use crate::challenge::address_group;
use crate::db::{self, ACCOUNTS, Held};
use crate::error::{MemberError, Result};
use crate::hasher::Checked;
use crate::sessions::{FirstFactor, Grant, KNOWN};
use crate::throttle::Failures;
use crate::validate::Identifier;

/// Seconds within which the second factor has to be shown.
pub const SECOND_FACTOR_S: u64 = 300;
/// Days for which an address from which a member signed in is known.
const KNOWN_S: u64 = 90 * 86_400;
/// Longest name of an account that is looked at.
const ACCOUNT_BYTES_MAX: usize = 320;

/// Stands for the member where there is none. No id of a member is like it.
const NOBODY: &str = "-";

/// What a person sends to sign in.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Username or phone; an e-mail where the settings allow it.
    pub account: String,
    /// The password.
    pub password: SecretString,
    /// [`Grant::device`] of an earlier time in this browser.
    pub device: Option<String>,
    /// What the browser calls itself.
    pub label: String,
    /// From where.
    pub address: String,
    /// The browsing session until now, which is nobody's: what it did becomes the member's.
    pub session: Option<SessionId>,
    /// Whether a browser with a browsing session asks, its own or somebody's: the one that begins is the member's then.
    pub browses: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum SignedIn {
    /// Signed in.
    Session(Box<Grant>),
    /// The second factor is needed.
    SecondFactor {
        /// Given back with the code.
        challenge: String,
        /// Seconds until it is worthless.
        expires_in_s: u64,
    },
}

impl SignIns {
    /// Signs in.
    ///
    /// # Errors
    /// [`MemberError::Unauthenticated`] for every reason; [`MemberError::Throttled`], [`MemberError::Busy`]; what the store says.
    pub async fn first(&self, sign_in: SignIn) -> Result<SignedIn> {
        let group = address_group(&sign_in.address);
        let text = &sign_in.account;
        let identifier = (text.len() <= ACCOUNT_BYTES_MAX)
            .then(|| Identifier::of_account(text, &self.config.registration.phone_regions))
            .flatten()
            .filter(|identifier| self.claims.signs_in(identifier.kind));
        let held = match &identifier {
            Some(identifier) => self.claims.member_of(identifier).await?,
            None => None,
        };
        if held.is_none() {
            // As much is read for nobody (V6.3.8).
            self.account(NOBODY).await?;
        }
        let held = held.filter(|held| held.value.is_active());
        let device = sign_in.device.as_deref().and_then(|device| self.sessions.device(device));
        let device = device.filter(|device| held.as_ref().is_some_and(|held| device.is_of(&held.value, self.db.now())));
        // Asked for nobody as well: it takes as long.
        let member = held.as_ref().map_or_else(|| NOBODY.to_owned(), |held| held.value.member.clone());
        let known_sort = format!("{KNOWN}{}", self.marks.key("known", &[&member, &group]));
        let known = self.db.read::<()>(ACCOUNTS, &member, &known_sort).await?;
        // By what was typed: how an account that does not exist is limited says nothing about those that do.
        let typed = identifier.as_ref().map_or_else(
            || format!("text/{}", text.chars().take(ACCOUNT_BYTES_MAX).collect::<String>()),
            |identifier| format!("{}/{}", identifier.kind.name(), identifier.canonical),
        );
        let key = match (&device, &known) {
            (Some(device), _) => self.marks.key("sign-in device", &[&member, &device.id]),
            (None, Some(_)) => self.marks.key("sign-in known", &[&typed, &group]),
            (None, None) => self.marks.key("sign-in", &[&typed]),
        };
        // Whoever has signed in with this browser, or from this address, is not kept out by what others behind the address guess (V6.1.1).
        let of_address = match device.is_some() || known.is_some() {
            true => None,
            false => {
                let key = self.marks.key("sign-in address", &[&group]);
                Some(self.throttle.attempt(key, Failures::AnHour(self.config.limits.sign_in_failures_hour)).await?)
            }
        };
        let of_account = self.throttle.attempt(key, Failures::Double).await?;
        let turn = if device.is_some() { &member } else { &group };
        let hash = held.as_ref().map(|held| held.value.password.as_str());
        let checked = self.passwords.hasher.verify(sign_in.password.clone(), hash, turn).await?;
        let (Some(held), Checked::Right { outdated }) = (held, checked) else {
            self.throttle.failed(of_account).await?;
            if let Some(of_address) = of_address {
                self.throttle.failed(of_address).await?;
            }
            metrics::counter!("auth_failures_total", "reason" => "password").increment(1);
            self.audit.write("anonymous", "sign_in", &member, &sign_in.address, false).await?;
            return Err(MemberError::Unauthenticated);
        };
        self.throttle.succeeded(of_account).await?;
        let held = if outdated { self.rehash(held, sign_in.password).await? } else { held };
        let factor = FirstFactor {
            member: member.clone(),
            until: self.db.in_s(SECOND_FACTOR_S).0,
            epoch: held.value.epoch,
            label: sign_in.label,
            address: sign_in.address,
            session: sign_in.session,
            browses: sign_in.browses,
        };
        if held.value.factor.secret.is_some() {
            self.audit.write(&member, "sign_in.password", &member, &factor.address, true).await?;
            return Ok(SignedIn::SecondFactor {
                challenge: self.marks.seal("first factor", &factor),
                expires_in_s: SECOND_FACTOR_S,
            });
        }
        let grant = self.signed_in(held, factor, false).await?;
        Ok(SignedIn::Session(Box::new(grant)))
    }

    /// Ends signing in with a code of the authenticator, or one of the recovery codes.
    ///
    /// # Errors
    /// [`MemberError::Unauthenticated`]: the challenge has expired; [`MemberError::CodeWrong`], [`MemberError::Throttled`]; what the
    /// store says.
    pub async fn second(&self, challenge: &str, code: &str) -> Result<Grant> {
        let factor: FirstFactor = self.marks.unseal("first factor", challenge).ok_or(MemberError::Unauthenticated)?;
        if factor.until <= self.db.now().0 {
            return Err(MemberError::Unauthenticated);
        }
        let held = self.account(&factor.member).await?.filter(|held| factor.is_of(&held.value));
        held.ok_or(MemberError::Unauthenticated)?;
        self.factors.take(&factor.member, code, &factor.address).await?;
        // Read anew: the code was used up in it.
        let held = self.account(&factor.member).await?.filter(|held| factor.is_of(&held.value));
        self.signed_in(held.ok_or(MemberError::Unauthenticated)?, factor, true).await
    }

    async fn signed_in(&self, mut held: Held<Account>, factor: FirstFactor, second_factor: bool) -> Result<Grant> {
        let member = &factor.member;
        // Before the session: what is in the log and did not happen is better than the reverse.
        self.audit.write(member, "sign_in", member, &factor.address, true).await?;
        let known_sort = format!("{KNOWN}{}", self.marks.key("known", &[member, &address_group(&factor.address)]));
        for tried in db::tries() {
            let known = self.db.read::<()>(ACCOUNTS, member, &known_sort).await?;
            let until = self.db.in_s(KNOWN_S);
            let step = match known {
                None => Some(Step::insert(known_sort.as_str(), db::encode(&()), Some(until))),
                // Once a day is often enough.
                Some(known) if known.expires_at.is_some_and(|at| at.0 < until.0 - 86_400_000) => {
                    Some(Step::replace(known_sort.as_str(), known.version, db::encode(&()), Some(until)))
                }
                Some(_) => None,
            };
            match self.sessions.begin_session(&held, &factor, second_factor, step).await {
                Err(MemberError::Changed) => {
                    let again = self.account(member).await?.filter(|held| factor.is_of(&held.value));
                    held = again.ok_or(MemberError::Unauthenticated)?;
                    db::pause(tried).await;
                }
                done => return done,
            }
        }
        Err(db::contended(ACCOUNTS))
    }

    /// Hashes with today's parameters. That it cannot be stored is no reason not to sign in.
    async fn rehash(&self, held: Held<Account>, password: SecretString) -> Result<Held<Account>> {
        let Ok(hash) = self.passwords.hasher.hash(password, &held.value.member).await else { return Ok(held) };
        let account = Account { password: hash, ..held.value.clone() };
        let step = Step::replace(ACCOUNT, held.version, db::encode(&account), held.expires_at);
        self.db.transact(ACCOUNTS, &held.value.member, &[step]).await?;
        let again = self.account(&held.value.member).await?;
        // The password was checked against what was read.
        let same = again.filter(|again| again.value.is_active() && again.value.epoch == held.value.epoch);
        same.ok_or(MemberError::Unauthenticated)
    }
}
