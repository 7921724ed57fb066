//! The second factor: codes of an authenticator app (RFC 6238) and recovery codes, each good once (V6.5). Staff need it: without it
//! their tokens carry no permission beyond a member's (V6.3.3).

use kindred_model::units::EventTime;
use secrecy::SecretString;
use totp_rs::{Builder, Secret, Totp};

use crate::account::{CredentialEvent, Extra, Factor, factor_secret_of};
use crate::base::Factors;
use crate::error::{MemberError, Result};
use crate::throttle::Failures;
use crate::tokens::AccessClaims;
use crate::{random, sessions};

/// Recovery codes that are given.
pub const RECOVERY_CODES: usize = 10;
/// Seconds of a step.
const STEP_S: u64 = 30;

/// What an authenticator app is set up with.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Base32, to be typed.
    pub secret: SecretString,
    /// `otpauth://…`, to be shown as a QR code.
    pub uri: SecretString,
}

impl Factors {
    /// Begins to set up an authenticator; nothing is asked for until [`Factors::confirm_totp`].
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`]; what the store says.
    pub async fn enrol_totp(&self, claims: &AccessClaims, password: &SecretString, address: &str) -> Result<Enrolment> {
        let shown = self.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        let bytes = random::bytes::<20>();
        let secret = Secret::from(bytes.to_vec()).to_base32();
        self.change(&claims.sub, &[], |loaded| {
            loaded.same_epoch(&shown)?;
            if loaded.account.factor.secret.is_some() {
                return Err(MemberError::Refused("factor_there"));
            }
            loaded.account.factor.enrolling = Some(self.sealing.seal(&factor_secret_of(&claims.sub), &secret)?);
            let name = loaded.account.username.as_ref().map_or("member", |name| name.shown.as_str()).replace(':', "_");
            let uri = self.totp(&secret, &name)?.to_url().map_err(|error| MemberError::Internal(error.to_string()))?;
            Ok((Some(Extra::default()), Enrolment { secret: secret.clone().into(), uri: uri.into() }))
        })
        .await
    }

    /// Ends setting up with a code of the app: from now on it is asked for, and all other sessions end. Gives the recovery codes,
    /// which are shown once.
    ///
    /// # Errors
    /// [`MemberError::CodeWrong`], [`MemberError::Throttled`], [`MemberError::Refused`]; what the store says.
    pub async fn confirm_totp(&self, claims: &AccessClaims, code: &str, address: &str) -> Result<Vec<SecretString>> {
        let tried = self.throttle.attempt(self.marks.key("second factor", &[&claims.sub]), Failures::Double).await?;
        let (codes, digests) = recovery_codes();
        let own = sessions::sort(&claims.sid);
        let beside = [own.as_str()];
        let confirmed = self.change(&claims.sub, &beside, |loaded| {
            let secret = loaded.account.factor.enrolling.clone();
            let secret = secret.ok_or(MemberError::Refused("factor_not_begun"))?;
            let step = self.step_of(&claims.sub, &secret, code, 0)?.ok_or(MemberError::CodeWrong)?;
            loaded.account.factor = Factor { secret: Some(secret), enrolling: None, last_step: step, recovery: digests.clone() };
            let member = &loaded.account.member;
            let mut extra = Extra::works(vec![self.audit.work(member, "totp.enrol", member, address, &[])]);
            loaded.raise_epoch(CredentialEvent::SecondFactorOn, Some(&claims.sid), &mut extra);
            Ok((Some(extra), ()))
        });
        self.throttle.settle(tried, confirmed.await).await?;
        Ok(codes)
    }

    /// Removes the second factor, with the password and a code of it.
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`], [`MemberError::CodeWrong`], [`MemberError::Throttled`]; what the store says.
    pub async fn remove_totp(&self, claims: &AccessClaims, password: &SecretString, code: &str, address: &str) -> Result<()> {
        let shown = self.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        self.take(&claims.sub, code, address).await?;
        self.change(&claims.sub, &[&sessions::sort(&claims.sid)], |loaded| {
            loaded.same_epoch(&shown)?;
            loaded.account.factor = Factor::default();
            let member = &loaded.account.member;
            let mut extra = Extra::works(vec![self.audit.work(member, "totp.remove", member, address, &[])]);
            loaded.raise_epoch(CredentialEvent::SecondFactorOff, Some(&claims.sid), &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }

    /// New recovery codes in place of those that are left.
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`], [`MemberError::Refused`] without a second factor; what the store says.
    pub async fn new_recovery_codes(
        &self,
        claims: &AccessClaims,
        password: &SecretString,
        address: &str,
    ) -> Result<Vec<SecretString>> {
        let shown = self.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        let (codes, digests) = recovery_codes();
        self.change(&claims.sub, &[], |loaded| {
            loaded.same_epoch(&shown)?;
            if loaded.account.factor.secret.is_none() {
                return Err(MemberError::Refused("factor_none"));
            }
            loaded.account.factor.recovery.clone_from(&digests);
            let member = &loaded.account.member;
            Ok((Some(Extra::works(vec![self.audit.work(member, "totp.recovery_codes", member, address, &[])])), ()))
        })
        .await?;
        Ok(codes)
    }

    /// Takes a code, once: no code of the same or an earlier step is taken again, a recovery code is gone. Wrong ones are limited for
    /// the account, through however many sign-ins (V6.6.3).
    pub(crate) async fn take(&self, member: &str, code: &str, address: &str) -> Result<()> {
        let tried = self.throttle.attempt(self.marks.key("second factor", &[member]), Failures::Double).await?;
        let taken = self.change(member, &[], |loaded| {
            let account = &mut loaded.account;
            let secret = account.factor.secret.clone().ok_or(MemberError::CodeWrong)?;
            if let Some(step) = self.step_of(member, &secret, code, account.factor.last_step)? {
                account.factor.last_step = step;
                return Ok((Some(Extra::default()), ()));
            }
            let digest = random::digest(&normal(code));
            let before = account.factor.recovery.len();
            account.factor.recovery.retain(|known| !random::same(known, &digest));
            if account.factor.recovery.len() == before {
                return Err(MemberError::CodeWrong);
            }
            let left = account.factor.recovery.len().to_string();
            let audit = self.audit.work(&account.member, "totp.recovery_code_used", &account.member, address, &[("left", &left)]);
            Ok((Some(Extra::works(vec![audit])), ()))
        });
        let taken = self.throttle.settle(tried, taken.await).await;
        if taken == Err(MemberError::CodeWrong) {
            metrics::counter!("auth_failures_total", "reason" => "second_factor").increment(1);
            self.audit.write("anonymous", "sign_in.second_factor", member, address, false).await?;
        }
        taken
    }

    /// The step that a code is of, if it is of one beyond `last`.
    fn step_of(&self, member: &str, sealed: &str, code: &str, last: u64) -> Result<Option<u64>> {
        let code = &*crate::validate::code(code);
        if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let secret = self.sealing.open(&factor_secret_of(member), sealed)?;
        Ok(self.totp(&secret, "member")?.check(code, seconds(self.db.now())).filter(|&step| step > last))
    }

    fn totp(&self, secret: &str, account_name: &str) -> Result<Totp> {
        let internal = |error: &dyn std::fmt::Display| MemberError::Internal(format!("second factor: {error}"));
        let secret = Secret::try_from_base32(secret).map_err(|error| internal(&error))?;
        let issuer = self.config.shop_name.replace(':', " ");
        Builder::new()
            .with_secret(secret)
            .with_skew(self.config.sign_in.totp_skew)
            .with_step_duration(STEP_S)
            .with_account_name(account_name)
            .with_issuer(Some(issuer))
            .build()
            .map_err(|error| internal(&error))
    }
}

/// The time in seconds.
fn seconds(now: EventTime) -> u64 {
    (now.0.max(0) / 1_000).unsigned_abs()
}

/// Codes of 80 bits, in groups that are read aloud: `abcd-efgh-ijkl-mnop`; with their digests.
fn recovery_codes() -> (Vec<SecretString>, Vec<String>) {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let code = || {
        let letters: Vec<char> = random::bytes::<16>().iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
        let code = letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-");
        let digest = random::digest(&normal(&code));
        (code.into(), digest)
    };
    (0..RECOVERY_CODES).map(|_| code()).unzip()
}

/// As it is digested: without the marks between its groups.
fn normal(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(64).collect::<String>().to_ascii_lowercase()
}
