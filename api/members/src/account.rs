//! The account: one document of a member, with everything that has to change together with it in the same partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use kindred_model::MemberId;
use kindred_model::records::{MemberRecord, MemberState, Membership};
use kindred_model::units::{EventTime, Tier};
use kindred_store::records::{Step, Version};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::audit::Audit;
use crate::db::{self, ACCOUNTS, Db, Held, ms};
use crate::error::{MemberError, Result};
use crate::marks::Marks;
use crate::outbox::{Op, Outbox, Work};
use crate::revocations::Revocations;
use crate::sealing::Sealing;
use crate::sessions::{self, Session};
use crate::throttle::Throttle;
use crate::tokens::Tokens;
use crate::validate::{Identifier, Kind};
use kindred_config::members::{Language, MembersConfig};

/// The sort key of the document.
pub(crate) const ACCOUNT: &str = "account";
/// Most addresses of a member.
pub const ADDRESSES_MAX: usize = 20;

/// Where an account stands. Before `Registered` and between it and `Activated` lie steps that a crash may leave and the outbox ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Sent in; whether its identifiers are free is being found out.
    Pending,
    /// Waits for its e-mail to be verified.
    Registered,
    /// The e-mail is verified; its identifiers are being claimed for good.
    Activating,
    /// A member.
    Activated,
    /// Locked by staff.
    Suspended,
    /// Forgotten: nothing of the person is left in it.
    Erased,
}

/// A place that goods are sent to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PostalAddress)]
pub struct Address {
    /// Recipient.
    pub name: String,
    /// Phone of the recipient.
    pub phone: String,
    /// ISO 3166.
    pub country: String,
    /// Province or state.
    pub region: String,
    /// City.
    pub city: String,
    /// Street and number.
    pub lines: String,
    /// Postal code.
    pub postal_code: String,
}

/// The accepted user agreement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AgreementShown)]
pub struct Agreement {
    /// The version of the user agreement.
    pub version: String,
    /// When it was accepted.
    #[serde(with = "ms")]
    #[schema(value_type = String)]
    pub accepted_at: EventTime,
}

impl Agreement {
    /// With the time as text, as everything that callers see: records hold milliseconds.
    pub(crate) fn shown<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::json!({ "version": self.version, "accepted_at": self.accepted_at }).serialize(serializer)
    }
}

/// The second factor.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Factor {
    /// Base32, sealed where there is a key; absent where there is none.
    pub secret: Option<String>,
    /// Being enrolled: not yet shown to work.
    pub enrolling: Option<String>,
    /// The last step that a code was taken of: nothing up to it is taken again.
    pub last_step: u64,
    /// Digests of the recovery codes that are left.
    pub recovery: Vec<String>,
}

/// What the secret of a member's second factor is sealed as.
pub(crate) fn factor_secret_of(member: &str) -> String {
    format!("the second factor of {member}")
}

/// An account as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub member: String,
    pub state: State,
    /// Absent once erased.
    pub username: Option<Identifier>,
    pub phone: Option<Identifier>,
    pub email: Option<Identifier>,
    /// A new one that is proved and being claimed.
    pub changing: Option<Identifier>,
    pub password: String,
    /// Whether it has the length that staff needs.
    pub password_for_staff: bool,
    #[serde(with = "ms")]
    pub password_changed_at: EventTime,
    pub tier: Option<Tier>,
    /// A staff role; never derived from the tier.
    pub role: Option<String>,
    pub language: Language,
    pub marketing_consent: bool,
    pub addresses: Vec<Address>,
    pub agreement: Agreement,
    /// What others register with to be this member's invitees.
    pub invite_code: String,
    pub invited_by: Option<String>,
    /// The invitation does not count: the person was invited before, to an account that is forgotten.
    #[serde(default)]
    pub invited_before: bool,
    pub factor: Factor,
    #[serde(with = "ms")]
    pub registered_at: EventTime,
    #[serde(with = "ms::option")]
    pub activated_at: Option<EventTime>,
    #[serde(with = "ms::option")]
    pub suspended_at: Option<EventTime>,
    #[serde(with = "ms::option")]
    pub erased_at: Option<EventTime>,
    /// Version of the last record of `members` about it.
    pub event_version: u64,
    /// Counts the credential events. What was begun in an earlier epoch is worth nothing: see [`Loaded::raise_epoch`].
    #[serde(default)]
    pub epoch: u64,
    /// The first epoch whose sessions go on.
    #[serde(default)]
    pub sessions_from: u64,
}

impl Account {
    /// One that was sent in now, under the agreement that is in force.
    pub fn new(
        member: String,
        [username, phone, email]: [Identifier; 3],
        (password, password_for_staff): (String, bool),
        now: EventTime,
        config: &MembersConfig,
        invite_code: String,
    ) -> Self {
        Self {
            username: Some(username),
            phone: Some(phone),
            email: Some(email),
            password,
            password_for_staff,
            agreement: Agreement { version: config.agreement_version.clone(), accepted_at: now },
            invite_code,
            ..Self::blank(member, State::Pending, config.default_language, now)
        }
    }

    /// One that says nothing of a person.
    pub fn blank(member: String, state: State, language: Language, now: EventTime) -> Self {
        Self {
            member,
            state,
            username: None,
            phone: None,
            email: None,
            changing: None,
            password: String::new(),
            password_for_staff: false,
            password_changed_at: now,
            tier: None,
            role: None,
            language,
            marketing_consent: false,
            addresses: Vec::new(),
            agreement: Agreement { version: String::new(), accepted_at: now },
            invite_code: String::new(),
            invited_by: None,
            invited_before: false,
            factor: Factor::default(),
            registered_at: now,
            activated_at: None,
            suspended_at: None,
            erased_at: None,
            event_version: 0,
            epoch: 0,
            sessions_from: 0,
        }
    }

    pub fn identifier(&self, kind: Kind) -> Option<&Identifier> {
        match kind {
            Kind::Username => self.username.as_ref(),
            Kind::Phone => self.phone.as_ref(),
            Kind::Email => self.email.as_ref(),
        }
    }

    pub fn identifier_mut(&mut self, kind: Kind) -> &mut Option<Identifier> {
        match kind {
            Kind::Username => &mut self.username,
            Kind::Phone => &mut self.phone,
            Kind::Email => &mut self.email,
        }
    }

    /// All three, in the order in which they are claimed.
    pub fn identifiers(&self) -> impl Iterator<Item = &Identifier> {
        [&self.username, &self.phone, &self.email].into_iter().flatten()
    }

    /// Whether it is a member's who may sign in.
    pub fn is_active(&self) -> bool {
        self.state == State::Activated
    }

    /// What a person may not make a password of.
    pub fn own_words(&self) -> Vec<&str> {
        self.identifiers().map(|identifier| identifier.shown.as_str()).collect()
    }

    /// Seals what it has of secrets as new ones are: what was stored before there was a key, or under another one.
    fn reseal(&mut self, sealing: &Sealing) -> Result<()> {
        let what = factor_secret_of(&self.member);
        for secret in [&mut self.factor.secret, &mut self.factor.enrolling].into_iter().flatten() {
            if !sealing.is_current(&what, secret) {
                *secret = sealing.seal(&what, &sealing.open(&what, secret)?)?;
            }
        }
        Ok(())
    }

    /// Raises the version and gives the record of `members` that says how it stands now.
    pub fn event(&mut self) -> Work {
        self.event_version += 1;
        let member = MemberId::trusted(self.member.clone());
        let invited_by = self.invited_by.clone().map(MemberId::trusted);
        let state = match self.state {
            State::Pending | State::Registered | State::Activating => MemberState::Registered,
            State::Activated => MemberState::Activated,
            State::Suspended => MemberState::Suspended,
            State::Erased => MemberState::Erased,
        };
        let mut membership = Membership {
            tier: self.tier,
            invited_by,
            registered_at: Some(self.registered_at),
            activated_at: self.activated_at,
            ..Membership::new(member.clone(), self.event_version, state)
        };
        if state == MemberState::Erased {
            membership.version -= 1; // `erased` raises it.
            membership = Membership::erased(member, Some(membership));
        }
        Work::Event { record: String::from_utf8(MemberRecord::Member(membership).canonical()).expect("JSON is text") }
    }
}

/// What changes who may act for an account. Each raises its epoch, and everything that rests on the credentials of before ends: sessions
/// and their tokens, sign-ins half done, tokens in mails, pending changes of e-mail and phone, enrolments, marks of browsers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CredentialEvent {
    /// A new password, with the current one; the other sessions end.
    PasswordChange,
    /// The same, where the member lets the sessions go on.
    PasswordChangeKeepingSessions,
    /// A new password by a mail.
    PasswordReset,
    /// Another e-mail address.
    EmailChange,
    /// Another phone.
    PhoneChange,
    /// A second factor is asked for from now on.
    SecondFactorOn,
    /// No second factor is asked for any more.
    SecondFactorOff,
    /// Staff locked the account.
    Suspension,
    /// Staff let it in again.
    Activation,
    /// The account is forgotten.
    Erasure,
    /// A staff role was given or taken.
    RoleChange,
    /// The member, or staff, ended the sessions.
    SignOutEverywhere,
}

impl CredentialEvent {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PasswordChange,
        Self::PasswordChangeKeepingSessions,
        Self::PasswordReset,
        Self::EmailChange,
        Self::PhoneChange,
        Self::SecondFactorOn,
        Self::SecondFactorOff,
        Self::Suspension,
        Self::Activation,
        Self::Erasure,
        Self::RoleChange,
        Self::SignOutEverywhere,
    ];

    /// Whether sessions end with it.
    pub const fn ends_sessions(self) -> bool {
        !matches!(self, Self::PasswordChangeKeepingSessions)
    }
}

/// What a change of an account adds to its transaction.
#[derive(Default)]
pub(crate) struct Extra {
    /// Other steps of the partition.
    pub steps: Vec<Step>,
    /// What has to follow from it.
    pub works: Vec<Work>,
}

impl Extra {
    pub fn works(works: Vec<Work>) -> Self {
        Self { works, ..Self::default() }
    }
}

/// An account with all that lies beside it, as read for a change.
pub(crate) struct Loaded {
    pub account: Account,
    pub version: Version,
    /// When it expires if nothing happens; kept unless the change sets it. What follows from the change expires with it.
    pub expires_at: Option<EventTime>,
    /// Whatever else lies in the partition under the prefix that was asked for.
    pub beside: BTreeMap<String, Held<serde_json::Value>>,
}

impl Loaded {
    /// Ends all that was begun before, in the transaction of the change, however much it is: it is bound to the epoch that it began in.
    /// The records of it leave by [`Work::Tidy`]. A session goes on where it is `kept`, was read beside the account and has not ended.
    pub fn raise_epoch(&mut self, event: CredentialEvent, kept: Option<&str>, extra: &mut Extra) {
        let account = &mut self.account;
        account.epoch += 1;
        account.factor.enrolling = None;
        if let Some(changing) = account.changing.take() {
            extra.works.push(Work::Release { identifiers: vec![changing] });
        }
        if event.ends_sessions() {
            let goes_on = kept.and_then(|sid| {
                let held = self.beside.get(&sessions::sort(sid))?;
                let session: Session = serde_json::from_value(held.value.clone()).ok()?;
                (session.epoch >= account.sessions_from).then_some((sid, session, held))
            });
            if let Some((sid, session, held)) = &goes_on {
                let session = Session { epoch: account.epoch, ..session.clone() };
                extra.steps.push(Step::replace(sessions::sort(sid), held.version, db::encode(&session), held.expires_at));
            }
            account.sessions_from = account.epoch;
            let except = goes_on.map(|(sid, ..)| sid.to_owned());
            extra.works.push(Work::RevokeBefore { epoch: account.epoch, except });
        }
        extra.works.push(Work::Tidy);
        tracing::debug!(?event, epoch = account.epoch, "raised the epoch of an account");
    }

    /// Refuses where a credential event came between what was shown and this change.
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`].
    pub fn same_epoch(&self, shown: &Account) -> Result<()> {
        let same = self.account.epoch == shown.epoch && self.account.is_active();
        if same { Ok(()) } else { Err(MemberError::ReauthenticationFailed) }
    }
}

/// The accounts, each changed with all that follows from it; and what every service needs beside them.
pub struct Accounts {
    pub(crate) db: Db,
    pub(crate) config: MembersConfig,
    pub(crate) marks: Marks,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) tokens: Tokens,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) throttle: Throttle,
    pub(crate) audit: Audit,
    pub(crate) outbox: Outbox,
}

impl Accounts {
    /// The account of a member.
    pub(crate) async fn account(&self, member: &str) -> Result<Option<Held<Account>>> {
        self.db.read(ACCOUNTS, member, ACCOUNT).await
    }

    /// The account of a member who has not been erased.
    pub(crate) async fn living(&self, member: &str) -> Result<Held<Account>> {
        let held = self.account(member).await?.ok_or(MemberError::NotFound)?;
        if held.value.state == State::Erased { Err(MemberError::NotFound) } else { Ok(held) }
    }

    /// Changes an account by compare-and-set, with everything that follows from it in one transaction, and does at once of that what
    /// has to be in force when the caller is answered. `beside` names what else of the partition the change looks at. The change may
    /// be called several times; it gives `None` where there is nothing to do any more.
    pub(crate) async fn change<R>(
        &self,
        member: &str,
        beside: &[&str],
        mut change: impl FnMut(&mut Loaded) -> Result<(Option<Extra>, R)>,
    ) -> Result<R> {
        let mut op: Option<Op> = None;
        for tried in db::tries() {
            let Some(held) = self.account(member).await? else {
                self.outbox.cancel(op).await;
                return Err(MemberError::NotFound);
            };
            let mut loaded =
                Loaded { account: held.value, version: held.version, expires_at: held.expires_at, beside: BTreeMap::new() };
            for prefix in beside {
                for (sort, held) in self.db.all::<serde_json::Value>(ACCOUNTS, member, prefix).await? {
                    loaded.beside.insert(sort, held);
                }
            }
            let (extra, said) = match change(&mut loaded) {
                Ok((Some(extra), said)) => (extra, said),
                otherwise => {
                    self.outbox.cancel(op).await;
                    return otherwise.map(|(_, said)| said);
                }
            };
            let mut steps = extra.steps;
            loaded.account.reseal(&self.sealing)?;
            let value = db::encode(&loaded.account);
            steps.push(Step::replace(ACCOUNT, loaded.version, value, loaded.expires_at));
            if self.outbox.commit(&mut op, ACCOUNTS, member, steps, extra.works, loaded.expires_at).await? {
                return Ok(said);
            }
            db::pause(tried).await;
        }
        self.outbox.cancel(op).await;
        Err(db::contended(ACCOUNTS))
    }
}
