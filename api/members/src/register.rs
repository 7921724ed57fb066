//! Registration in five steps (R8 to R15), which cannot be skipped (V2.3.1).
//!
//! ```text
//! challenge ─▶ phone code ─▶ register: form, quotas, challenge, password, code; name held, written as Pending ─▶ answer, always the same
//!                                │ outbox
//!                                ▼
//!               phone and e-mail claimed ──▶ Registered, mail with a token ──▶ verify ──▶ Activating ──▶ Activated, `members` event
//!                                └── a member's: the claims stay as if they were not, the address gets a mail
//! ```
//!
//! Whether a phone or an e-mail is known is found out after the answer was given: neither its text, its size nor its time can tell, and
//! what a registration claims it claims as long whether it was turned away or not (V6.3.8). What costs comes after what shows that
//! somebody means it. Whatever crashes, the outbox goes on or the claims expire. A code makes one member, whose id it has from the
//! beginning: of a form that is sent again, or of many with one code, one registration comes about.

use kindred_store::records::Step;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::account::{ACCOUNT, Account, Extra, State};
use crate::base::Registrations;
use crate::challenge::{Solution, address_group};
use crate::claims::Claimed;
use crate::codes::{Proves, TokenKind, split_token};
use crate::db::{self, ACCOUNTS};
use crate::error::{FieldError, MemberError, Result};
use crate::outbox::Work;
use crate::random;
use crate::senders::Template;
use crate::throttle::HOUR_S;
use crate::validate::{Identifier, Kind};
use kindred_config::members::Language;

/// Life of a claim and of an account that is not verified, seconds (R13).
pub const UNVERIFIED_S: u64 = 86_400;
/// How long a username is held for a registration that is not written yet, seconds.
const HELD_S: u64 = 600;

/// What a person sends to register.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegistrationForm)]
pub struct Registration {
    /// Letters, digits and `. _ - '`; unique regardless of case and look-alikes.
    pub username: String,
    /// The phone that received `phone_code`.
    pub phone: String,
    /// The address for the verification mail.
    pub email: String,
    /// Its least length is in GET /v1/registrations/rules.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// A solved challenge, not the one used for the phone code.
    #[serde(rename = "challenge")]
    pub solution: Solution,
    /// The code from POST /v1/phone-codes.
    pub phone_code: String,
    /// The accepted version of the user agreement.
    pub agreement_version: String,
    /// The invite code of another member.
    pub invite_code: Option<String>,
    /// Language of messages; default that of `Accept-Language`.
    pub language: Option<Language>,
    /// Consent to marketing messages.
    #[serde(default)]
    pub marketing_consent: bool,
    /// The address of the client; not a field of the form.
    #[serde(skip)]
    pub address: String,
}

impl Registrations {
    /// Sends a code to a phone, if limits allow, once what was filled in before it, a username, an e-mail, a password, would be accepted: no
    /// message is sent for a form that is turned away for them. The same answer whoever's the phone is. The limits on a phone are told as
    /// well: they are as they are whoever asks.
    ///
    /// # Errors
    /// `phone_invalid`; each field that is not accepted; [`MemberError::UsernameTaken`]; [`MemberError::ChallengeFailed`],
    /// [`MemberError::Throttled`]; what the store says.
    pub async fn request_phone_code(
        &self,
        phone: &str,
        [username, email, password]: [Option<&str>; 3],
        language: Language,
        solution: &Solution,
        address: &str,
    ) -> Result<()> {
        let mut errors = Vec::new();
        let mut field = |checked: Option<Result<Identifier>>| -> Result<Option<Identifier>> {
            Ok(keep(&mut errors, checked.transpose())?.flatten())
        };
        let name = field(username.map(|username| Identifier::username(username, &self.config.shop_name)))?;
        let phone = field(Some(Identifier::phone(phone, &self.config.registration.phone_regions)))?;
        field(email.map(Identifier::email))?;
        let password = password.map(|password| SecretString::from(password.to_owned()));
        keep(&mut errors, password.as_ref().map_or(Ok(()), |password| self.passwords.policy.fits(password, false)))?;
        let (Some(phone), true) = (phone, errors.is_empty()) else { return Err(MemberError::Invalid(errors)) };
        self.challenges.redeem(solution).await?;
        if let Some(name) = &name
            && self.claims.is_anothers(name, "").await?
        {
            return Err(MemberError::UsernameTaken);
        }
        if let Some(password) = password {
            let own = [username, email, Some(&*phone.canonical)].into_iter().flatten().map(str::to_owned).collect();
            self.passwords.judge(&password, own, false, &address_group(address)).await?;
        }
        self.codes.send_phone_code(phone, language, address).await
    }

    /// Takes a registration. That it returns says nothing about phone and e-mail; the mail does.
    ///
    /// # Errors
    /// [`MemberError::Invalid`] with every field that is not accepted; [`MemberError::ChallengeFailed`], [`MemberError::CodeWrong`],
    /// [`MemberError::UsernameTaken`]; [`MemberError::Throttled`], [`MemberError::Busy`]; what the store says.
    pub async fn register(&self, registration: Registration) -> Result<()> {
        let regions = &self.config.registration.phone_regions;
        let mut errors = Vec::new();
        let mut field = |checked: Result<Identifier>| keep(&mut errors, checked);
        let username = field(Identifier::username(&registration.username, &self.config.shop_name))?;
        let phone = field(Identifier::phone(&registration.phone, regions))?;
        let email = field(Identifier::email(&registration.email))?;
        keep(&mut errors, self.passwords.policy.fits(&registration.password, false))?;
        if registration.agreement_version != self.config.agreement_version {
            errors.push(FieldError::of("agreement_version", "agreement_stale"));
        }
        let (Some(username), Some(phone), Some(email), true) = (username, phone, email, errors.is_empty()) else {
            return Err(MemberError::Invalid(errors));
        };
        let address = address_group(&registration.address);
        self.throttle.quota("register", &address, self.config.limits.registrations_hour, HOUR_S).await?;
        // Looked at before the password is judged, and used up after: whoever chose a weak one tries again with the same solution. How
        // often that may be is bounded by the quota.
        self.challenges.is_solved(&registration.solution)?;
        let own =
            [&registration.username, &registration.phone, &registration.email, &phone.canonical].map(String::clone).to_vec();
        self.passwords.judge(&registration.password, own, false, &address).await?;
        self.challenges.redeem(&registration.solution).await?;
        let invited_by = match registration.invite_code.as_deref().filter(|code| !code.trim().is_empty()) {
            None => None,
            Some(code) => {
                let inviter = self.claims.inviter(code).await?;
                Some(inviter.ok_or_else(|| MemberError::field("invite_code", "invite_unknown"))?)
            }
        };
        let code = self.codes.check_phone_code(&phone, &registration.phone_code).await?;
        // Whatever becomes of it from here on, one mail goes to this address.
        self.throttle.quota("mail", &email.canonical, self.config.limits.mails_hour, HOUR_S).await?;
        let password_for_staff = self.passwords.policy.fits_staff(&registration.password);
        let password = self.passwords.hasher.hash(registration.password, &address).await?;
        let now = self.db.now();
        // The code's, not a new one: sent again after a crash, the form finds its name held for itself, and not for ten minutes by nobody.
        let member = code.member;
        if self.config.registration.reveal_taken {
            for identifier in [&username, &phone, &email] {
                if self.claims.is_anothers(identifier, &member).await? {
                    return Err(MemberError::IdentifierTaken);
                }
            }
        }
        if !self.claims.hold(&username, &member, self.db.in_s(HELD_S), &self.claims.proof(Some(&phone), now)).await? {
            return Err(MemberError::UsernameTaken);
        }
        let password = (password, password_for_staff);
        let identifiers = [username.clone(), phone.clone(), email.clone()];
        let account = Account {
            language: registration.language.unwrap_or(self.config.default_language),
            marketing_consent: registration.marketing_consent,
            invited_by,
            ..Account::new(member.clone(), identifiers, password, now, &self.config, invite_code())
        };
        let audit = self.audit.work("anonymous", "registration", &member, &registration.address, &[]);
        let works = vec![Work::Register, audit];
        let expires_at = Some(self.db.in_s(UNVERIFIED_S));
        let step = Step::insert(ACCOUNT, db::encode(&account), expires_at);
        if self.outbox.transact(ACCOUNTS, &member, vec![step], works, expires_at).await? {
            // The code is used up with the claims: until then it makes this member alone, who is there.
            return Ok(());
        }
        let Some(there) = self.account(&member).await? else {
            // The mark of a pointer that was given up.
            return Err(db::contended(ACCOUNTS));
        };
        // The code has made its member already.
        let same = |wanted: &Identifier| there.value.identifier(wanted.kind).is_some_and(|own| own.canonical == wanted.canonical);
        if same(&username) && same(&email) {
            return Ok(()); // By this form, whose answer got lost, or which was sent twice.
        }
        self.claims.release_unused(&member, &[username]).await?;
        Err(MemberError::CodeWrong)
    }

    /// Claims what a registration names, or turns it away: of that, the address given is told alone. The claims are the same.
    pub(crate) async fn complete(&self, member: &str) -> Result<()> {
        let Some(held) = self.account(member).await?.filter(|held| held.value.state == State::Pending) else {
            return Ok(()); // Done, or expired.
        };
        // Before anything else: a registration that is turned away leaves no code that names its member.
        if let Some(phone) = &held.value.phone {
            self.codes.spend_code_of(phone, member).await?;
        }
        let proof = self.claims.proof(held.value.phone.as_ref(), held.value.registered_at);
        let mut refused = None;
        for identifier in held.value.identifiers() {
            let claimed = self.claims.claim(identifier, member, held.expires_at, &proof).await?;
            // Nobody has shown yet that they read its mail: another registration may go on beside this one.
            if claimed == Claimed::Taken || claimed == Claimed::Passed && identifier.kind != Kind::Email {
                refused = refused.or(Some((identifier.kind, claimed)));
            }
        }
        if let Some(taken) = refused {
            return self.refuse(member, State::Pending, taken).await;
        }
        let completed = self.change(member, &["token/"], |loaded| {
            if loaded.account.state != State::Pending {
                return Ok((None, false));
            }
            loaded.account.state = State::Registered;
            let mut extra = Extra::works(vec![loaded.account.event(), Work::Index { stale: Vec::new() }]);
            self.mail_verification(loaded, &mut extra);
            Ok((Some(extra), true))
        });
        self.settle(member, &held.value, completed.await).await
    }

    /// After claims were taken for an account that somebody else has meanwhile taken further, ended or erased: those that it does not
    /// hold are given back.
    async fn settle(&self, member: &str, claimed: &Account, completed: Result<bool>) -> Result<()> {
        match completed {
            Ok(true) => Ok(()),
            Ok(false) | Err(MemberError::NotFound) => {
                let identifiers: Vec<Identifier> = claimed.identifiers().cloned().collect();
                self.claims.release_unused(member, &identifiers).await?;
                let now = self.account(member).await?;
                if now.is_none_or(|held| held.value.invite_code != claimed.invite_code) {
                    self.claims.release_invite(&claimed.invite_code, member).await?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a new token and the mail with it.
    pub(crate) fn mail_verification(&self, loaded: &crate::account::Loaded, extra: &mut Extra) {
        let email = loaded.account.email.clone();
        let Some(to) = email.as_ref().map(|email| email.shown.clone()) else { return };
        let proves = email.map(|identifier| Proves { identifier, session: None });
        let (step, token) = self.codes.token_step(loaded, TokenKind::Verify, proves, UNVERIFIED_S);
        extra.steps.push(step);
        let hours = (UNVERIFIED_S / 3_600).to_string();
        let params = self.codes.params(&[("hours", &hours), ("link", &self.codes.link("verify-email", &token))]);
        extra.works.push(Work::Message { to, template: Template::VerifyEmail, language: loaded.account.language, params });
    }

    /// Takes a registration back: the account goes, the address is told where a member was in the way. Claims of one that is not
    /// verified stay until they expire, as those of one that went on do.
    async fn refuse(&self, member: &str, from: State, (taken, claimed): (Kind, Claimed)) -> Result<()> {
        let tokens = self.db.all::<serde_json::Value>(ACCOUNTS, member, "token/").await?;
        let Some(held) = self.account(member).await?.filter(|held| held.value.state == from) else {
            return Ok(());
        };
        let mut account = held.value;
        let mut steps = vec![Step::delete(ACCOUNT, held.version)];
        steps.extend(tokens.into_iter().map(|(sort, held)| Step::delete(sort, held.version)));
        let mut works = Vec::new();
        if from != State::Pending {
            works.push(Work::Release { identifiers: account.identifiers().cloned().collect() });
        }
        if account.event_version > 0 {
            // It was announced as registered.
            works.push(crate::index::follow(&account));
            account.state = State::Erased;
            works.push(account.event());
        }
        if let Some(email) = account.email.as_ref().filter(|_| claimed == Claimed::Taken) {
            let template = if taken == Kind::Email { Template::AccountExists } else { Template::PhoneTaken };
            let params = self.codes.params(&[("link", &self.codes.link("reset-password", ""))]);
            works.push(Work::Message { to: email.shown.clone(), template, language: account.language, params });
        }
        // A conflict: somebody else is at it. The work that called comes again and looks.
        let expires_at = Some(self.db.in_s(UNVERIFIED_S));
        let done = self.outbox.transact(ACCOUNTS, member, steps, works, expires_at).await?;
        if done { Ok(()) } else { Err(db::contended(ACCOUNTS)) }
    }

    /// Verifies the e-mail of a registration by the token of the mail: the member's account is active when this returns.
    ///
    /// # Errors
    /// [`MemberError::TokenGone`]; what the store says: then it goes on by itself if the token was taken.
    pub async fn verify_email(&self, token: &str, address: &str) -> Result<String> {
        let (member, secret) = split_token(token)?;
        let begun = self.change(member, &["token/"], |loaded| {
            let (step, _) = loaded.spend_token(TokenKind::Verify, secret)?;
            if loaded.account.state != State::Registered {
                return Err(MemberError::TokenGone);
            }
            loaded.account.state = State::Activating;
            // From here on it is ended one way or the other, however long that takes: its claims last or it is taken back.
            loaded.expires_at = None;
            let audit = self.audit.work(&loaded.account.member, "email.verified", &loaded.account.member, address, &[]);
            Ok((Some(Extra { steps: vec![step], works: vec![Work::Activate, audit] }), ()))
        });
        begun.await.map_err(|error| if error == MemberError::NotFound { MemberError::TokenGone } else { error })?;
        self.complete_activation(member).await?;
        match self.account(member).await? {
            Some(held) if held.value.state == State::Activated => Ok(member.to_owned()),
            _ => Err(MemberError::TokenGone),
        }
    }

    /// Makes the claims of a verified account last, and the account active.
    pub(crate) async fn complete_activation(&self, member: &str) -> Result<()> {
        let Some(held) = self.account(member).await?.filter(|held| held.value.state == State::Activating) else {
            return Ok(());
        };
        let registered = self.claims.proof(held.value.phone.as_ref(), held.value.registered_at);
        for identifier in held.value.identifiers() {
            // Phone and name as they were proved when it was registered; the mailbox is proved now.
            let now = self.claims.proof(None, self.db.now());
            let proof = if identifier.kind == Kind::Email { &now } else { &registered };
            let claimed = self.claims.claim(identifier, member, None, proof).await?;
            if claimed != Claimed::Ours {
                return self.refuse(member, State::Activating, (identifier.kind, claimed)).await;
            }
        }
        let mut code = held.value.invite_code.clone();
        while !self.claims.claim_invite(&code, member).await? {
            code = invite_code(); // One in 2^40 is somebody's.
        }
        let invited = held.value.invited_by.is_some();
        let invited_before = invited && !self.claims.first_invitation(member, held.value.identifiers()).await?;
        let completed = self.change(member, &[], |loaded| {
            if loaded.account.state != State::Activating {
                return Ok((None, false));
            }
            if invited_before {
                loaded.account.invited_by = None;
                loaded.account.invited_before = true;
            }
            loaded.account.state = State::Activated;
            loaded.account.activated_at = Some(self.db.now());
            loaded.account.invite_code.clone_from(&code);
            let stale = Vec::new();
            Ok((Some(Extra::works(vec![loaded.account.event(), Work::Index { stale }])), true))
        });
        let completed = completed.await;
        self.settle(member, &Account { invite_code: code, ..held.value }, completed).await
    }

    /// Has the verification mail of a registration sent again, if there is one; the answer is the same if not.
    ///
    /// # Errors
    /// `email_invalid`; [`MemberError::ChallengeFailed`], [`MemberError::Throttled`]; what the store says.
    pub async fn request_verification(&self, email: &str, solution: &Solution, address: &str) -> Result<()> {
        let email = Identifier::email(email)?;
        self.challenges.redeem(solution).await?;
        self.throttle.quota("mail address", &address_group(address), self.config.limits.registrations_hour, HOUR_S).await?;
        self.throttle.quota("mail", &email.canonical, self.config.limits.mails_hour, HOUR_S).await?;
        self.outbox.request(vec![Work::ResendRequest { email: email.canonical }], HOUR_S).await
    }

    pub(crate) async fn look_into_resend(&self, email: &str) -> Result<()> {
        match self.claims.member_of(&Identifier::email(email)?).await? {
            Some(held) if held.value.state == State::Registered => self.resend(&held.value.member).await,
            _ => Ok(()),
        }
    }

    /// Sends a new token in place of the old.
    pub(crate) async fn resend(&self, member: &str) -> Result<()> {
        self.change(member, &["token/"], |loaded| {
            if loaded.account.state != State::Registered {
                return Err(MemberError::Refused("email_verified_already"));
            }
            let mut extra = Extra::default();
            self.mail_verification(loaded, &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }
}

/// Eight of 32 letters and digits that are not mistaken for each other: 40 bits, to be told by word of mouth.
pub(crate) fn invite_code() -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    random::bytes::<8>().iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// Keeps the fields of an error; any other error goes on.
pub(crate) fn keep<T>(errors: &mut Vec<FieldError>, checked: Result<T>) -> Result<Option<T>> {
    match checked {
        Ok(value) => Ok(Some(value)),
        Err(MemberError::Invalid(more)) => {
            errors.extend(more);
            Ok(None)
        }
        Err(other) => Err(other),
    }
}
