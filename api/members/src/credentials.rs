//! Changing what one signs in with: the password, with the current one or by a mail; phone and e-mail, proved before they count.
//!
//! ```text
//! reset    request (looked into after the answer) ─▶ mail with a token ─▶ new password, every session ends, the second factor stays
//! e-mail   password again ─▶ mail to the new address ─▶ token ─▶ claimed for good ─▶ takes the old one's place, which is told
//! phone    password again ─▶ code to the new phone ─▶ claimed for good ─▶ takes the old one's place
//! ```

use secrecy::SecretString;

use crate::account::{Account, CredentialEvent, Extra, Loaded};
use crate::base::Credentials;
use crate::challenge::{Solution, address_group};
use crate::codes::{PHONE_CODE_S, Proves, TokenKind, split_token};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::senders::Template;
use crate::throttle::HOUR_S;
use crate::tokens::AccessClaims;
use crate::validate::{Identifier, Kind};
use crate::{db, sessions};

/// Life of a reset token, seconds (V6.4.1: short).
pub const RESET_S: u64 = 1_800;
/// Tries an hour of a member to change the password: each is judged and hashed, and mailed about.
const NEW_PASSWORDS_HOUR: u32 = 20;
/// Life of the token for a new e-mail, seconds.
const NEW_EMAIL_S: u64 = 86_400;

impl Credentials {
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
        self.passwords.policy.fits(&new, false)?;
        self.throttle.quota("new password", &claims.sub, NEW_PASSWORDS_HOUR, HOUR_S).await?;
        let account = self.passwords.reauthenticate(&claims.sub, current, address).await?.value;
        let new = self.passwords.accept(&account, new).await?;
        let event = match end_others {
            true => CredentialEvent::PasswordChange,
            false => CredentialEvent::PasswordChangeKeepingSessions,
        };
        self.change(&claims.sub, &[&sessions::sort(&claims.sid)], |loaded| {
            // Changed or reset meanwhile: what was shown is the current one no more.
            loaded.same_epoch(&account)?;
            let mut extra = self.new_password(loaded, &new, "password.change", address);
            loaded.raise_epoch(event, Some(&claims.sid), &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }

    fn new_password(&self, loaded: &mut Loaded, (hash, for_staff): &(String, bool), kind: &str, address: &str) -> Extra {
        loaded.account.password.clone_from(hash);
        loaded.account.password_for_staff = *for_staff;
        // Told apart even within one millisecond.
        loaded.account.password_changed_at.0 = self.db.now().0.max(loaded.account.password_changed_at.0 + 1);
        let member = &loaded.account.member;
        let mut extra = Extra::works(vec![self.audit.work(member, kind, member, address, &[])]);
        extra.works.extend(self.mail(
            &loaded.account,
            Template::PasswordChanged,
            &[("link", &self.codes.link("reset-password", ""))],
        ));
        extra
    }

    /// A mail to the account's address.
    fn mail(&self, account: &Account, template: Template, more: &[(&str, &str)]) -> Option<Work> {
        let to = account.email.as_ref()?.shown.clone();
        let username = account.username.as_ref().map_or("", |name| name.shown.as_str());
        let mut params = self.codes.params(more);
        params.insert("username".into(), username.to_owned());
        Some(Work::Message { to, template, language: account.language, params })
    }

    /// Has a mail sent by which the password can be set anew, if the account exists; the answer is the same if not (V6.3.8).
    ///
    /// # Errors
    /// [`MemberError::ChallengeFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn request_reset(&self, account: &str, solution: &Solution, address: &str) -> Result<()> {
        self.challenges.redeem(solution).await?;
        self.throttle.quota("mail address", &address_group(address), self.config.limits.registrations_hour, HOUR_S).await?;
        let account: String = account.trim().chars().take(ACCOUNT_CHARS_MAX).collect();
        let canonical = Identifier::of_account(&account, &self.config.registration.phone_regions).map(|id| id.canonical);
        self.throttle.quota("mail", canonical.as_deref().unwrap_or(&account), self.config.limits.mails_hour, HOUR_S).await?;
        self.outbox.request(vec![Work::ResetRequest { account }], RESET_S).await
    }

    pub(crate) async fn look_into_reset(&self, account: &str) -> Result<()> {
        let Some(identifier) = Identifier::of_account(account, &self.config.registration.phone_regions) else {
            return Ok(());
        };
        let Some(held) = self.claims.member_of(&identifier).await?.filter(|held| held.value.is_active()) else {
            return Ok(());
        };
        // By whichever of an account's names it was asked for: the mails go to one address.
        match self.throttle.quota("reset", &held.value.member, self.config.limits.mails_hour, HOUR_S).await {
            Err(MemberError::Throttled { .. }) => return Ok(()),
            asked => asked?,
        }
        self.change(&held.value.member, &["token/"], |loaded| {
            if !loaded.account.is_active() {
                return Ok((None, ()));
            }
            let (step, token) = self.codes.token_step(loaded, TokenKind::Reset, None, RESET_S);
            let minutes = (RESET_S / 60).to_string();
            let link = self.codes.link("reset-password", &token);
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
        self.passwords.policy.fits(&new, false)?;
        let (member, secret) = split_token(token)?;
        let gone = |error| if error == MemberError::NotFound { MemberError::TokenGone } else { error };
        let account = self.account(member).await?.ok_or(MemberError::TokenGone)?.value;
        // Looked at before a password is judged and hashed for whoever has no token; taken in the change below.
        let held = self.db.read::<crate::codes::Token>(db::ACCOUNTS, member, &TokenKind::Reset.sort()).await?;
        let good = |token: &crate::codes::Token| {
            token.epoch == account.epoch && crate::random::same(&token.digest, &crate::random::digest(secret))
        };
        if !held.is_some_and(|held| good(&held.value)) {
            return Err(MemberError::TokenGone);
        }
        let new = self.passwords.accept(&account, new).await?;
        let changed = self.change(member, &["token/"], |loaded| {
            let (step, _) = loaded.spend_token(TokenKind::Reset, secret)?;
            if !loaded.account.is_active() {
                return Err(MemberError::TokenGone);
            }
            let mut extra = self.new_password(loaded, &new, "password.reset", address);
            extra.steps.push(step);
            loaded.raise_epoch(CredentialEvent::PasswordReset, None, &mut extra);
            Ok((Some(extra), loaded.account.epoch))
        });
        let epoch = changed.await.map_err(gone)?;
        Ok(self.sessions.device_of(member, epoch))
    }

    /// Has a mail sent to a new address; it counts when its token comes back. The answer is the same if the address is another's.
    ///
    /// # Errors
    /// `email_invalid`; [`MemberError::ReauthenticationFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn change_email(&self, claims: &AccessClaims, password: &SecretString, email: &str, address: &str) -> Result<()> {
        let email = Identifier::email(email)?;
        let shown = self.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        self.throttle.quota("mail", &email.canonical, self.config.limits.mails_hour, HOUR_S).await?;
        self.throttle.quota("mail member", &claims.sub, self.config.limits.mails_hour, HOUR_S).await?;
        self.change(&claims.sub, &["token/"], |loaded| {
            loaded.same_epoch(&shown)?;
            let proves = Proves { identifier: email.clone(), session: Some(claims.sid.clone()) };
            let (step, token) = self.codes.token_step(loaded, TokenKind::Email, Some(proves), NEW_EMAIL_S);
            let hours = (NEW_EMAIL_S / 3_600).to_string();
            let link = self.codes.link("verify-new-email", &token);
            let mail = self.mail(&loaded.account, Template::VerifyNewEmail, &[("hours", &hours), ("link", &link)]);
            let mut works: Vec<Work> = mail.map(|work| to_other(work, &email.shown)).into_iter().collect();
            // To the address that is good until then: a new password stops the change.
            let stop = self.codes.link("reset-password", "");
            works.extend(self.mail(&loaded.account, Template::EmailChangeAsked, &[("hours", &hours), ("link", &stop)]));
            works.push(self.audit.work(&claims.sub, "identifier.change_asked", &claims.sub, address, &[("kind", "email")]));
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
            let (step, token) = loaded.spend_token(TokenKind::Email, secret)?;
            let new = token.proves.ok_or(MemberError::TokenGone)?;
            let session = token.session.clone();
            Ok((Some(self.begin_identifier(loaded, new.clone(), token.session, vec![step], address)?), (new, session)))
        });
        let (wanted, session) =
            begun.await.map_err(|error| if error == MemberError::NotFound { MemberError::TokenGone } else { error })?;
        self.identifier_outcome(member, &wanted, session.as_deref()).await
    }

    /// Has a code sent to a new phone.
    ///
    /// # Errors
    /// `phone_invalid`; [`MemberError::ReauthenticationFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn change_phone(&self, claims: &AccessClaims, password: &SecretString, phone: &str, address: &str) -> Result<()> {
        let phone = Identifier::phone(phone, &self.config.registration.phone_regions)?;
        let shown = self.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        self.codes.send_phone_code(phone.clone(), shown.language, address).await?;
        self.change(&claims.sub, &["token/"], |loaded| {
            loaded.same_epoch(&shown)?;
            let proves = Proves { identifier: phone.clone(), session: Some(claims.sid.clone()) };
            let (step, _) = self.codes.token_step(loaded, TokenKind::Phone, Some(proves), PHONE_CODE_S);
            let audit = self.audit.work(&claims.sub, "identifier.change_asked", &claims.sub, address, &[("kind", "phone")]);
            Ok((Some(Extra { steps: vec![step], works: vec![audit] }), ()))
        })
        .await
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
        let shown = self.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        let checked = self.codes.check_phone_code(&phone, code).await?;
        self.codes.spend_phone_code(&phone, checked).await?;
        self.change(&claims.sub, &["token/"], |loaded| {
            loaded.same_epoch(&shown)?;
            let step = loaded.spend_phone_change(&phone)?;
            Ok((Some(self.begin_identifier(loaded, phone.clone(), Some(claims.sid.clone()), vec![step], address)?), ()))
        })
        .await?;
        self.identifier_outcome(&claims.sub, &phone, Some(&claims.sid)).await
    }

    fn begin_identifier(
        &self,
        loaded: &mut Loaded,
        new: Identifier,
        session: Option<String>,
        steps: Vec<kindred_store::records::Step>,
        address: &str,
    ) -> Result<Extra> {
        if !loaded.account.is_active() || loaded.account.changing.is_some() {
            return Err(MemberError::Refused("account_changing"));
        }
        let member = loaded.account.member.clone();
        let audit = self.audit.work(&member, "identifier.change", &member, address, &[("kind", new.kind.name())]);
        let work = Work::Identifier { kind: new.kind, new: Some(new.clone()), session };
        loaded.account.changing = Some(new);
        Ok(Extra { steps, works: vec![work, audit] })
    }

    /// Claims what an account changes to and puts it in place, or leaves the old.
    pub(crate) async fn complete_identifier(
        &self,
        member: &str,
        kind: Kind,
        wanted: Option<&Identifier>,
        session: Option<&str>,
    ) -> Result<()> {
        let held = self.account(member).await?;
        let Some(new) = held.and_then(|held| held.value.changing).filter(|new| new.kind == kind) else {
            // Done, or given up by a credential event; perhaps after it was claimed.
            return self.claims.release_unused(member, wanted.map(std::slice::from_ref).unwrap_or_default()).await;
        };
        let ours =
            self.claims.claim(&new, member, None, &self.claims.proof(None, self.db.now())).await? == crate::claims::Claimed::Ours;
        let asked_by = session.map(sessions::sort);
        let beside = asked_by.as_deref();
        let completed = self.change(member, beside.as_slice(), |loaded| {
            if loaded.account.changing.as_ref() != Some(&new) {
                return Ok((None, false));
            }
            loaded.account.changing = None;
            if !ours {
                return Ok((Some(Extra::default()), true));
            }
            let link = self.codes.link("reset-password", "");
            // To the address that was good until now.
            let told = self.mail(&loaded.account, Template::IdentifierChanged, &[("what", kind.name()), ("link", &link)]);
            let index = crate::index::follow(&loaded.account);
            let old = loaded.account.identifier_mut(kind).replace(new.clone());
            let mut works = vec![index, Work::Release { identifiers: old.into_iter().collect() }];
            works.extend(told);
            let mut extra = Extra::works(works);
            let event = if kind == Kind::Phone { CredentialEvent::PhoneChange } else { CredentialEvent::EmailChange };
            loaded.raise_epoch(event, session, &mut extra);
            Ok((Some(extra), true))
        });
        // Somebody else has done it, or the account was erased meanwhile: what it does not hold is given back.
        if !completed.await? { self.claims.release_unused(member, &[new]).await } else { Ok(()) }
    }

    /// Puts in place what was asked for, unless it is another's.
    async fn identifier_outcome(&self, member: &str, wanted: &Identifier, session: Option<&str>) -> Result<()> {
        self.complete_identifier(member, wanted.kind, Some(wanted), session).await?;
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
