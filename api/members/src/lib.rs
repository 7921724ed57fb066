//! Members: registration, sign-in, sessions, tokens, profile, roles, administration, audit. What a person is promised at once, as
//! functions; HTTP is somebody else's.
//!
//! ```text
//! routes, commands ──▶ Members ──▶ RecordStore (one partition, one transaction: compare-and-set)
//!                         │ outbox: what follows, until it has happened
//!                         ├──▶ EventSink   records of `members` to the log
//!                         └──▶ Sender      mails, codes to phones
//! ```
//!
//! Everything holds across processes, because the store decides it. Whatever crashes, [`Members::run`] goes on where it stopped; what
//! it does may be done twice. docs/design/0008-sign-in.md has the reasons.

mod account;
mod admin;
mod audit;
mod base;
mod bulk;
mod challenge;
mod claims;
mod codes;
mod credentials;
mod db;
mod error;
mod factor;
#[doc(hidden)]
pub mod fuzzing;
mod hasher;
mod idempotency;
mod index;
mod marks;
pub mod messages;
mod outbox;
mod password;
mod passwords;
mod permission;
mod profile;
mod random;
mod register;
mod resource;
mod revocations;
mod sealing;
pub mod senders;
mod sessions;
mod sign_in;
mod throttle;
mod tokens;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kindred_clock::Clock;
use kindred_model::records::MemberRecord;
use kindred_store::records::RecordStore;

use crate::outbox::{Perform, Work};
use crate::senders::Message;

pub use account::{ADDRESSES_MAX, Address, Agreement, CredentialEvent, State};
pub use admin::{MemberQuery, SETUP_S, SetupShown};
pub use audit::{Audit, AuditQuery, Entry, LIMIT, LIMIT_MAX, Page};
pub use base::{Challenges, Credentials, Factors, Idempotency, Profiles, Registrations, Roles, Sessions, SignIns, Staff};
pub use bulk::NewMember;
pub use challenge::{CHALLENGE_S, Challenge, Solution};
pub use codes::{PHONE_CODE_S, TokenKind};
pub use credentials::RESET_S;
pub use db::{Db as Records, Held};
pub use error::{FieldError, MemberError, Result};
pub use factor::{Enrolment, RECOVERY_CODES};
pub use hasher::Hashes;
pub use idempotency::{ANSWER_BYTES_MAX, ANSWER_S, Attempt, Once};
pub use kindred_config::members::{
    Language, LimitsConfig, MembersConfig, PasswordConfig, PasswordProfile, RegistrationConfig, SESSIONS_MAX, SignInConfig,
    TokenConfig,
};
pub use password::PASSWORD_BYTES_MAX;
pub use permission::{Actor, Permission, Role, Seen};
pub use profile::{ErasureReceipt, MemberExport, Profile, ProfileChange};
pub use register::{Registration, UNVERIFIED_S};
pub use resource::{Job, Resource, Resources};
pub use sealing::draw_sealing_key;
pub use senders::{EventSink, Sender};
pub use sessions::{DEVICE_S, Grant, KNOWN_MAX, SessionShown, new_browsing_session};
pub use sign_in::{SECOND_FACTOR_S, SignIn, SignedIn};
pub use tokens::AccessClaims;
pub use validate::{EMAIL_BYTES_MAX, Identifier, Kind, USERNAME_CHARS, guessed, one_line};

/// How often ended sessions of other processes are read: an access token stops working everywhere within a second (V7.4.1).
const REVOCATIONS_EVERY: Duration = Duration::from_millis(500);
/// How often the key ring is read: a new key signs five minutes after it was written.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// Members and sign-in over one store. Share it by `Arc`; run [`Members::run`] beside it in every process.
/// `base.rs` has the services and their layers; this alone knows all of them, for export, erasure, and what follows from changes.
pub struct Members {
    core: Arc<base::Core>,
    templates: senders::Templates,
    sink: Arc<dyn EventSink>,
    sender: Arc<dyn Sender>,
    resources: Resources,
    /// The audit log.
    pub audit: Audit,
    /// Proofs of work.
    pub challenges: Arc<Challenges>,
    /// Passwords, phones and e-mails are changed.
    pub credentials: Arc<Credentials>,
    /// Second factors.
    pub factors: Arc<Factors>,
    /// Requests that are done once.
    pub idempotency: Arc<Idempotency>,
    /// What members see and change of their accounts.
    pub profiles: Arc<Profiles>,
    /// Registrations.
    pub registrations: Arc<Registrations>,
    /// Staff roles.
    pub roles: Arc<Roles>,
    /// Sessions and their tokens.
    pub sessions: Arc<Sessions>,
    /// Signing in.
    pub sign_in: Arc<SignIns>,
    /// Administration.
    pub staff: Arc<Staff>,
}

impl Members {
    /// Opens: reads or makes the secret and the key ring, reads what was revoked, starts the hashing threads.
    ///
    /// # Errors
    /// Settings that are too weak or a file of breached passwords that cannot be read; what the store says.
    pub async fn open(
        store: Arc<dyn RecordStore>,
        clock: Clock,
        config: MembersConfig,
        sink: Arc<dyn EventSink>,
        sender: Arc<dyn Sender>,
        hashes: Hashes,
    ) -> Result<Self> {
        let hasher = hasher::Hasher::start(&config.password, hashes)?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let db = db::Db::new(store, clock);
        let sealing = Arc::new(sealing::Sealing::new(&config.sealing.key)?);
        let marks = marks::Marks::open(&db, &sealing).await?;
        let revocations = Arc::new(revocations::Revocations::new(db.clone(), config.tokens.access_s));
        let policy = Arc::new(password::Policy::new(&config.password, &config.shop_name)?);
        let accounts = Arc::new(account::Accounts {
            tokens: tokens::Tokens::new(db.clone(), config.tokens.clone(), sealing.clone()),
            throttle: throttle::Throttle::new(db.clone(), marks.clone(), config.limits.clone()),
            audit: Audit { db: db.clone(), marks: marks.clone(), days: config.audit_days },
            outbox: outbox::Outbox::new(db.clone(), revocations.clone()),
            db,
            config,
            marks,
            sealing,
            revocations,
        });
        let (challenges, roles) = (Challenges::new(&accounts), Roles::new(&accounts));
        let codes = base::Codes::new(&accounts);
        let claims = base::Claims::new(&accounts, &codes);
        let passwords = base::Passwords::new(&accounts, &policy, &Arc::new(hasher));
        let sessions = Sessions::new(&accounts, &roles);
        let core = base::Core::new(&accounts, &challenges, &claims, &codes, &passwords, &roles, &sessions);
        let (factors, registrations) = (Factors::new(&core), Registrations::new(&core));
        let members = Self {
            audit: core.audit.clone(),
            credentials: Credentials::new(&core),
            idempotency: Idempotency::new(&accounts),
            profiles: Profiles::new(&core),
            sign_in: SignIns::new(&core, &factors),
            staff: Staff::new(&core, &registrations),
            templates: senders::Templates::new()?,
            resources: Vec::new(),
            challenges,
            core,
            factors,
            registrations,
            roles,
            sessions,
            sink,
            sender,
        };
        members.core.tokens.refresh(tokens::Rotation::WhenDue).await?;
        members.refresh_revocations().await?;
        Ok(members)
    }

    /// The settings it runs with.
    pub fn config(&self) -> &MembersConfig {
        &self.core.config
    }

    /// Fewest characters of a password, for the text of `password_short`.
    pub fn password_min(&self, staff: bool) -> usize {
        self.core.passwords.policy.min(staff)
    }

    /// Reads which sessions other processes have ended. [`Members::run`] does it twice a second.
    ///
    /// # Errors
    /// What the store says.
    pub async fn refresh_revocations(&self) -> Result<()> {
        if self.core.revocations.refresh().await? {
            self.core.tokens.refresh(tokens::Rotation::WhenDue).await?;
        }
        Ok(())
    }

    /// Does what has to go on in every process, for as long as it is polled: delivers, reads what was revoked, turns the key ring.
    pub async fn run(&self) {
        let revocations = async {
            loop {
                tokio::time::sleep(REVOCATIONS_EVERY).await;
                kindred_telemetry::fail_point("task: members");
                if let Err(error) = self.refresh_revocations().await {
                    tracing::warn!(%error, "could not read which sessions have ended; after a minute no token is taken");
                }
            }
        };
        let keys = async {
            loop {
                tokio::time::sleep(KEYS_EVERY).await;
                if let Err(error) = self.core.tokens.refresh(tokens::Rotation::WhenDue).await {
                    tracing::warn!(%error, "could not read the signing keys; it is tried again in a minute");
                }
            }
        };
        tokio::join!(self.core.outbox.deliver_forever(self), revocations, keys);
    }

    /// Does all that is due, of every process; how many changes still have something that waits. Errors of single items are logged
    /// and tried again; an error is that the outbox cannot be read.
    ///
    /// # Errors
    /// What the store says.
    pub async fn sweep(&self) -> Result<usize> {
        self.core.outbox.sweep(self).await
    }
}

#[async_trait]
impl Perform for Members {
    async fn perform(&self, partition: &str, id: String, work: &Work) -> Result<()> {
        match work {
            Work::Event { record } => {
                let record = MemberRecord::decode(record.as_bytes())
                    .map_err(|invalid| MemberError::Internal(format!("a record of the outbox is not valid: {invalid}")))?;
                self.sink.append(record).await.map_err(MemberError::Internal)
            }
            Work::Message { to, template, language, params } => {
                let (channel, at) = (template.channel(), self.core.db.now());
                let rendered = self.templates.render(*template, *language, params)?;
                let message = Message { id, to: to.clone(), channel, language: *language, at, rendered };
                self.sender.send(message).await.map_err(MemberError::Internal)
            }
            Work::Audit { entry } => self.audit.append(entry).await,
            // So that an item of them is never taken for done here: it would be lost.
            Work::Revoke { .. } | Work::RevokeBefore { .. } => Err(MemberError::Internal("the outbox revokes by itself".into())),
            Work::Tidy => self.sessions.tidy(partition).await,
            Work::Register => self.registrations.complete(partition).await,
            Work::Activate => self.registrations.complete_activation(partition).await,
            Work::Identifier { kind, new, session } => {
                self.credentials.complete_identifier(partition, *kind, new.as_ref(), session.as_deref()).await
            }
            Work::Release { identifiers } => self.core.claims.release_unused(partition, identifiers).await,
            Work::ReleaseInvite { code } => self.core.claims.release_invite(code, partition).await,
            Work::Invitee { identifiers } => self.core.claims.first_invitation(partition, identifiers.iter()).await.map(drop),
            Work::Erase { resource, late: _ } => self.resource(resource)?.erase(self, partition).await,
            Work::Job(Job { resource, job, payload, .. }) => {
                self.resource(resource)?.perform(self, partition, job, payload).await
            }
            Work::Index { stale } => self.core.reindex(partition, stale).await,
            Work::ResetRequest { account } => self.credentials.look_into_reset(account).await,
            Work::ResendRequest { email } => self.registrations.look_into_resend(email).await,
            Work::CodeRequest { phone, language, code } => self.core.codes.give_phone_code(phone, *language, code).await,
        }
    }
}
