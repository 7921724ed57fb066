//! Changing what one signs in with: the password, with the current one or by a mail; phone and e-mail, proved before they count.
//!
//! ```text
//! reset    request (looked into after the answer) ─▶ mail with a token ─▶ new password, every session ends, the second factor stays
//! e-mail   password again ─▶ mail to the new address ─▶ token ─▶ claimed for good ─▶ takes the old one's place, which is told
//! phone    password again ─▶ code to the new phone ─▶ claimed for good ─▶ takes the old one's place
//! ```

use secrecy::SecretString;

use crate::Members;
use crate::account::{Account, Extra, Loaded};
use crate::challenge::{Solution, address_group};
use crate::codes::split_token;
use crate::db;
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::senders::Template;
use crate::throttle::HOUR_S;
use crate::tokens::AccessClaims;
use crate::validate::{Identifier, Kind};

/// Life of a reset token, seconds (V6.4.1: short).
pub const RESET_S: u64 = 1_800;
/// Life of the token for a new e-mail, seconds.
const NEW_EMAIL_S: u64 = 86_400;

impl Members {
    /// Changes the password; the member's other sessions end unless they are kept (V7.4.3).
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`], the codes of passwords; [`MemberError::Busy`]; what the store says.
    pub async fn change_password(
        &self,
        claims: &AccessClaims,
        current: &SecretString,
        new: SecretString,
        end_others: bool,
        address: &str,
    ) -> Result<()> {
        let held = self.reauthenticate(&claims.sub, current, address).await?;
        let account = held.value;
        self.policy.check(&new, &account.own_words(), account.role.is_some())?;
        let for_staff = self.policy.fits_staff(&new);
        let hash = self.hasher.hash(new).await?;
        self.change(&claims.sub, &["session/", "token/"], |loaded| {
            // Changed or reset meanwhile: what was shown is the current one no more.
            if loaded.account.password_changed_at != account.password_changed_at || !loaded.account.is_active() {
                return Err(MemberError::ReauthenticationFailed);
            }
            let mut extra = self.new_password(loaded, (&hash, for_staff), "password.change", address);
            if end_others {
                loaded.end_sessions(Some(&claims.sid), &mut extra);
            }
            Ok((Some(extra), ()))
        })
        .await
    }

    fn new_password(&self, loaded: &mut Loaded, (hash, for_staff): (&str, bool), kind: &str, address: &str) -> Extra {
        loaded.account.password = hash.to_owned();
        loaded.account.password_for_staff = for_staff;
        // Told apart even within one millisecond.
        loaded.account.password_changed_at.0 = self.db.now().0.max(loaded.account.password_changed_at.0 + 1);
        let member = &loaded.account.member;
        let mut extra = Extra::works(vec![self.audit(member, kind, member, address, &[])]);
        extra.works.extend(self.mail(&loaded.account, Template::PasswordChanged, &[("link", &self.link("reset-password", ""))]));
        loaded.delete("token/reset", &mut extra);
        extra
    }

    /// A mail to the account's address.
    fn mail(&self, account: &Account, template: Template, more: &[(&str, &str)]) -> Option<Work> {
        let to = account.email.as_ref()?.shown.clone();
        let username = account.username.as_ref().map_or("", |name| name.shown.as_str());
        let mut params = self.params(more);
        params.insert("username".into(), username.to_owned());
        Some(Work::Message { to, template, language: account.language, params })
    }

    /// Has a mail sent by which the password can be set anew, if the account exists; the answer is the same if not (V6.3.8).
    ///
    /// # Errors
    /// [`MemberError::ChallengeFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn request_reset(&self, account: &str, solution: &Solution, address: &str) -> Result<()> {
        self.redeem(solution).await?;
        self.quota("mail address", &address_group(address), self.config.limits.registrations_hour, HOUR_S).await?;
        let account: String = account.trim().chars().take(ACCOUNT_CHARS_MAX).collect();
        let canonical = Identifier::of_account(&account, &self.config.registration.phone_regions).map(|id| id.canonical);
        self.quota("mail", canonical.as_deref().unwrap_or(&account), self.config.limits.mails_hour, HOUR_S).await?;
        self.request(vec![Work::ResetRequest { account }], RESET_S).await
    }

    pub(crate) async fn look_into_reset(&self, account: &str) -> Result<()> {
        let Some(identifier) = Identifier::of_account(account, &self.config.registration.phone_regions) else { return Ok(()) };
        let Some(held) = self.member_of(&identifier).await?.filter(|held| held.value.is_active()) else { return Ok(()) };
        self.change(&held.value.member, &["token/"], |loaded| {
            if !loaded.account.is_active() {
                return Ok((None, ()));
            }
            let (step, token) = self.token_step(loaded, "reset", None, RESET_S);
            let minutes = (RESET_S / 60).to_string();
            let link = self.link("reset-password", &token);
            let mail = self.mail(&loaded.account, Template::ResetPassword, &[("minutes", &minutes), ("link", &link)]);
            Ok((Some(Extra { steps: vec![step], works: mail.into_iter().collect() }), ()))
        })
        .await
    }

    /// Sets a new password by the token of a mail, once. Every session ends; a second factor is asked for as before (V6.4.3). Gives the
    /// mark of the browser for [`crate::SignIn::device`]: whoever has shown to be the member here is not locked out by others' guesses.
    ///
    /// # Errors
    /// [`MemberError::TokenGone`], the codes of passwords; [`MemberError::Busy`]; what the store says.
    pub async fn reset_password(&self, token: &str, new: SecretString, address: &str) -> Result<String> {
        let (member, secret) = split_token(token)?;
        let gone = |error| if error == MemberError::NotFound { MemberError::TokenGone } else { error };
        let account = self.account(member).await?.ok_or(MemberError::TokenGone)?.value;
        // Looked at before a password is judged and hashed for whoever has no token; taken in the change below.
        let held = self.db.read::<crate::codes::Token>(db::ACCOUNTS, member, "token/reset").await?;
        if !held.is_some_and(|held| crate::random::same(&held.value.digest, &crate::random::digest(secret))) {
            return Err(MemberError::TokenGone);
        }
        self.policy.check(&new, &account.own_words(), account.role.is_some())?;
        let for_staff = self.policy.fits_staff(&new);
        let hash = self.hasher.hash(new).await?;
        let changed = self.change(member, &["session/", "token/"], |loaded| {
            self.spend_token(loaded, "reset", secret)?;
            if !loaded.account.is_active() {
                return Err(MemberError::TokenGone);
            }
            let mut extra = self.new_password(loaded, (&hash, for_staff), "password.reset", address);
            loaded.end_sessions(None, &mut extra);
            Ok((Some(extra), ()))
        });
        changed.await.map_err(gone)?;
        Ok(self.device_of(member))
    }

    /// Has a mail sent to a new address; it counts when its token comes back. The answer is the same if the address is another's.
    ///
    /// # Errors
    /// `email_invalid`; [`MemberError::ReauthenticationFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn change_email(&self, claims: &AccessClaims, password: &SecretString, email: &str, address: &str) -> Result<()> {
        let email = Identifier::email(email)?;
        self.reauthenticate(&claims.sub, password, address).await?;
        self.quota("mail", &email.canonical, self.config.limits.mails_hour, HOUR_S).await?;
        self.quota("mail member", &claims.sub, self.config.limits.mails_hour, HOUR_S).await?;
        self.change(&claims.sub, &["token/"], |loaded| {
            let (step, token) = self.token_step(loaded, "email", Some(email.clone()), NEW_EMAIL_S);
            let hours = (NEW_EMAIL_S / 3_600).to_string();
            let link = self.link("verify-new-email", &token);
            let mail = self.mail(&loaded.account, Template::VerifyNewEmail, &[("hours", &hours), ("link", &link)]);
            let works = mail.map(|work| to_other(work, &email.shown)).into_iter().collect();
            Ok((Some(Extra { steps: vec![step], works }), ()))
        })
        .await
    }

    /// Takes the new address in place of the old by the token of the mail.
    ///
    /// # Errors
    /// [`MemberError::TokenGone`]; [`MemberError::IdentifierTaken`]: it is another's, which whoever reads that mailbox may know.
    pub async fn confirm_email(&self, token: &str, address: &str) -> Result<()> {
        let (member, secret) = split_token(token)?;
        let begun = self.change(member, &["token/"], |loaded| {
            let (step, token) = self.spend_token(loaded, "email", secret)?;
            let new = token.proves.ok_or(MemberError::TokenGone)?;
            Ok((Some(self.begin_identifier(loaded, new.clone(), vec![step], address)?), new))
        });
        let wanted = begun.await.map_err(|error| if error == MemberError::NotFound { MemberError::TokenGone } else { error })?;
        self.identifier_outcome(member, &wanted).await
    }

    /// Has a code sent to a new phone.
    ///
    /// # Errors
    /// `phone_invalid`; [`MemberError::ReauthenticationFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn change_phone(&self, claims: &AccessClaims, password: &SecretString, phone: &str, address: &str) -> Result<()> {
        let phone = Identifier::phone(phone, &self.config.registration.phone_regions)?;
        let held = self.reauthenticate(&claims.sub, password, address).await?;
        self.send_phone_code(phone, held.value.language, address).await
    }

    /// Takes the new phone in place of the old, with its code and the password again.
    ///
    /// # Errors
    /// [`MemberError::CodeWrong`], [`MemberError::ReauthenticationFailed`], [`MemberError::Throttled`]; [`MemberError::IdentifierTaken`]:
    /// it is another's, which whoever has that phone may know.
    pub async fn confirm_phone(
        &self,
        claims: &AccessClaims,
        password: &SecretString,
        phone: &str,
        code: &str,
        address: &str,
    ) -> Result<()> {
        let phone = Identifier::phone(phone, &self.config.registration.phone_regions)?;
        self.reauthenticate(&claims.sub, password, address).await?;
        let checked = self.check_phone_code(&phone, code).await?;
        self.spend_phone_code(&phone, checked).await?;
        self.change(&claims.sub, &[], |loaded| {
            Ok((Some(self.begin_identifier(loaded, phone.clone(), Vec::new(), address)?), ()))
        })
        .await?;
        self.identifier_outcome(&claims.sub, &phone).await
    }

    fn begin_identifier(
        &self,
        loaded: &mut Loaded,
        new: Identifier,
        steps: Vec<kindred_store::records::Step>,
        address: &str,
    ) -> Result<Extra> {
        if !loaded.account.is_active() || loaded.account.changing.is_some() {
            return Err(MemberError::Refused("account_changing"));
        }
        let member = loaded.account.member.clone();
        let audit = self.audit(&member, "identifier.change", &member, address, &[("kind", new.kind.name())]);
        let kind = new.kind;
        loaded.account.changing = Some(new);
        Ok(Extra { steps, works: vec![Work::Identifier { kind }, audit] })
    }

    /// Claims what an account changes to and puts it in place, or leaves the old.
    pub(crate) async fn complete_identifier(&self, member: &str, kind: Kind) -> Result<()> {
        let held = self.account(member).await?;
        let Some(new) = held.and_then(|held| held.value.changing).filter(|new| new.kind == kind) else { return Ok(()) };
        let ours = self.claim(&new, member, None).await?;
        let completed = self.change(member, &[], |loaded| {
            if loaded.account.changing.as_ref() != Some(&new) {
                return Ok((None, false));
            }
            loaded.account.changing = None;
            if !ours {
                return Ok((Some(Extra::default()), true));
            }
            let link = self.link("reset-password", "");
            // To the address that was good until now.
            let told = self.mail(&loaded.account, Template::IdentifierChanged, &[("what", kind.name()), ("link", &link)]);
            let stale = crate::index::entries(&loaded.account).into_iter().map(|(at, _)| at).collect();
            let old = loaded.account.identifier_mut(kind).replace(new.clone());
            let mut works = vec![Work::Index { stale }, Work::Release { identifiers: old.into_iter().collect() }];
            works.extend(told);
            Ok((Some(Extra::works(works)), true))
        });
        // Somebody else has done it, or the account was erased meanwhile: what it does not hold is given back.
        if !completed.await? { self.release_unused(member, &[new]).await } else { Ok(()) }
    }

    /// What was asked for is in place, or it was another's.
    async fn identifier_outcome(&self, member: &str, wanted: &Identifier) -> Result<()> {
        let account = self.living(member).await?.value;
        let in_place = account.identifier(wanted.kind).is_some_and(|now| now.canonical == wanted.canonical);
        if in_place { Ok(()) } else { Err(MemberError::IdentifierTaken) }
    }
}

fn to_other(work: Work, address: &str) -> Work {
    match work {
        Work::Message { template, language, params, .. } => Work::Message { to: address.to_owned(), template, language, params },
        other => other,
    }
}

/// Most characters of what a person types for an account.
const ACCOUNT_CHARS_MAX: usize = 320;
