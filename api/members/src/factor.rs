//! The second factor: codes of an authenticator app (RFC 6238) and recovery codes, each good once (V6.5). Staff need it: without it
//! their tokens carry no permission beyond a member's (V6.3.3).

use secrecy::SecretString;
use totp_rs::{Builder, Secret, Totp};

use crate::account::{Account, CredentialEvent, Extra, Factor};
use crate::error::{MemberError, Result};
use crate::sign_in::alone;
use crate::tokens::AccessClaims;
use crate::{Members, random, sessions};

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

impl Members {
    /// Begins to set up an authenticator; nothing is asked for until [`Members::confirm_totp`].
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`]; what the store says.
    pub async fn enrol_totp(&self, claims: &AccessClaims, password: &SecretString, address: &str) -> Result<Enrolment> {
        let shown = self.reauthenticate(&claims.sub, password, address).await?.value;
        let bytes = random::bytes::<20>();
        let secret = Secret::from(bytes.to_vec()).to_base32();
        self.change(&claims.sub, &[], |loaded| {
            loaded.same_epoch(&shown)?;
            if loaded.account.factor.secret.is_some() {
                return Err(MemberError::Refused("factor_there"));
            }
            loaded.account.factor.enrolling = Some(self.sealing.seal(&secret_of(&claims.sub), &secret)?);
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
        let tried = self.attempt(self.throttle_key("second factor", &[&claims.sub])).await?;
        let codes = recovery_codes();
        let digests: Vec<String> = codes.iter().map(|code| random::digest(&normal(code))).collect();
        let own = sessions::sort(&claims.sid);
        let beside = [own.as_str()];
        let confirmed = self.change(&claims.sub, &beside, |loaded| {
            let secret = loaded.account.factor.enrolling.clone();
            let secret = secret.ok_or(MemberError::Refused("factor_not_begun"))?;
            let step = self.step_of(&claims.sub, &secret, code, 0)?.ok_or(MemberError::CodeWrong)?;
            loaded.account.factor = Factor { secret: Some(secret), enrolling: None, last_step: step, recovery: digests.clone() };
            let member = &loaded.account.member;
            let mut extra = Extra::works(vec![self.audit(member, "totp.enrol", member, address, &[])]);
            loaded.raise_epoch(CredentialEvent::SecondFactorOn, Some(&claims.sid), &mut extra);
            Ok((Some(extra), ()))
        });
        match confirmed.await {
            Ok(()) => self.succeeded(tried).await?,
            Err(MemberError::CodeWrong) => {
                self.failed(tried).await?;
                return Err(MemberError::CodeWrong);
            }
            Err(error) => return Err(error),
        }
        Ok(codes.into_iter().map(Into::into).collect())
    }

    /// Removes the second factor, with the password and a code of it.
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`], [`MemberError::CodeWrong`], [`MemberError::Throttled`]; what the store says.
    pub async fn remove_totp(&self, claims: &AccessClaims, password: &SecretString, code: &str, address: &str) -> Result<()> {
        let shown = self.reauthenticate(&claims.sub, password, address).await?.value;
        self.take_second_factor(&claims.sub, code, address).await?;
        self.change(&claims.sub, &[&sessions::sort(&claims.sid)], |loaded| {
            loaded.same_epoch(&shown)?;
            loaded.account.factor = Factor::default();
            let member = &loaded.account.member;
            let mut extra = Extra::works(vec![self.audit(member, "totp.remove", member, address, &[])]);
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
        let shown = self.reauthenticate(&claims.sub, password, address).await?.value;
        let codes = recovery_codes();
        let digests: Vec<String> = codes.iter().map(|code| random::digest(&normal(code))).collect();
        self.change(&claims.sub, &[], |loaded| {
            loaded.same_epoch(&shown)?;
            if loaded.account.factor.secret.is_none() {
                return Err(MemberError::Refused("factor_none"));
            }
            loaded.account.factor.recovery.clone_from(&digests);
            let member = &loaded.account.member;
            Ok((alone(vec![self.audit(member, "totp.recovery_codes", member, address, &[])]), ()))
        })
        .await?;
        Ok(codes.into_iter().map(Into::into).collect())
    }

    /// Takes a code, once: no code of the same or an earlier step is taken again, a recovery code is gone. Wrong ones are limited for
    /// the account, through however many sign-ins (V6.6.3).
    pub(crate) async fn take_second_factor(&self, member: &str, code: &str, address: &str) -> Result<()> {
        let tried = self.attempt(self.throttle_key("second factor", &[member])).await?;
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
            let audit = self.audit(&account.member, "totp.recovery_code_used", &account.member, address, &[("left", &left)]);
            Ok((alone(vec![audit]), ()))
        });
        match taken.await {
            Ok(()) => self.succeeded(tried).await,
            Err(MemberError::CodeWrong) => {
                self.failed(tried).await?;
                metrics::counter!("auth_failures_total", "reason" => "second_factor").increment(1);
                self.append_audit(&self.entry("anonymous", "sign_in.second_factor", member, address, false, &[])).await?;
                Err(MemberError::CodeWrong)
            }
            Err(error) => Err(error),
        }
    }

    /// Seals what an account has of secrets as new ones are: what was stored before there was a key, or under another one.
    pub(crate) fn reseal(&self, account: &mut Account) -> Result<()> {
        let what = secret_of(&account.member);
        for secret in [&mut account.factor.secret, &mut account.factor.enrolling].into_iter().flatten() {
            if !self.sealing.is_current(&what, secret) {
                *secret = self.sealing.seal(&what, &self.sealing.open(&what, secret)?)?;
            }
        }
        Ok(())
    }

    /// The step that a code is of, if it is of one beyond `last`.
    fn step_of(&self, member: &str, sealed: &str, code: &str, last: u64) -> Result<Option<u64>> {
        let code = &*crate::validate::code(code);
        if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let secret = self.sealing.open(&secret_of(member), sealed)?;
        Ok(self.totp(&secret, "member")?.check(code, self.totp_time()).filter(|&step| step > last))
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

    /// The scope of a token of an account: a staff role counts with a second factor and a password as long as staff's has to be.
    pub(crate) async fn scope_of(&self, account: &Account, second_factor: bool) -> Result<String> {
        let mut words = vec!["catalog:browse", "order:trade"];
        if let Some(role) = account.role.as_deref().filter(|_| second_factor && account.password_for_staff)
            && let Some(role) = self.role(role).await?
        {
            words.extend(role.permissions.iter().map(|permission| permission.name()));
        }
        words.sort_unstable();
        words.dedup();
        Ok(words.join(" "))
    }
}

/// What a member's secret is sealed as.
fn secret_of(member: &str) -> String {
    format!("the second factor of {member}")
}

/// Codes of 80 bits, in groups that are read aloud: `abcd-efgh-ijkl-mnop`.
fn recovery_codes() -> Vec<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let code = || {
        let letters: Vec<char> = random::bytes::<16>().iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
        letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
    };
    (0..RECOVERY_CODES).map(|_| code()).collect()
}

/// As it is digested: without the marks between its groups.
fn normal(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(64).collect::<String>().to_ascii_lowercase()
}
