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
pub mod messages;
mod outbox;
mod password;
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

use kindred_clock::Clock;
use kindred_store::records::{RecordStore, Step};

pub use account::{ADDRESSES_MAX, Address, Agreement, CredentialEvent, State};
pub use admin::{LIMIT, LIMIT_MAX, MemberQuery, Page, SETUP_S, Seen, SetupShown};
pub use audit::{AuditQuery, Entry};
pub use bulk::NewMember;
pub use challenge::{CHALLENGE_S, Challenge, Solution};
pub use codes::{PHONE_CODE_S, TokenKind};
pub use credentials::RESET_S;
pub use db::{Db as Records, Held};
pub use error::{FieldError, MemberError, Result};
pub use factor::{Enrolment, RECOVERY_CODES};
pub use idempotency::{ANSWER_BYTES_MAX, ANSWER_S, Attempt, Once};
pub use kindred_config::members::{
    Language, LimitsConfig, MembersConfig, PasswordConfig, PasswordProfile, RegistrationConfig, SESSIONS_MAX, SignInConfig,
    TokenConfig,
};
pub use password::PASSWORD_BYTES_MAX;
pub use permission::{Actor, Permission, Role};
pub use profile::{ErasureReceipt, MemberExport, Profile, ProfileChange};
pub use register::{Registration, UNVERIFIED_S};
pub use resource::{Resource, Resources};
pub use sealing::draw_sealing_key;
pub use senders::{EventSink, Sender};
pub use sessions::{Grant, KNOWN_MAX, SessionShown, new_browsing_session};
pub use sign_in::{DEVICE_S, SECOND_FACTOR_S, SignIn, SignedIn};
pub use tokens::AccessClaims;
pub use validate::{EMAIL_BYTES_MAX, Identifier, Kind, USERNAME_CHARS, guessed, one_line};

/// How often ended sessions of other processes are read: an access token stops working everywhere within a second (V7.4.1).
const REVOCATIONS_EVERY: Duration = Duration::from_millis(500);
/// How often the key ring is read: a new key signs five minutes after it was written.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// Members and sign-in over one store. Share it by `Arc`; run [`Members::run`] beside it in every process.
pub struct Members {
    db: db::Db,
    config: MembersConfig,
    policy: Arc<password::Policy>,
    hasher: hasher::Hasher,
    /// Marks what we have given out: challenges, cursors, refresh tokens, browsers. One for all processes, kept in records.
    secret: [u8; 32],
    sealing: Arc<sealing::Sealing>,
    tokens: tokens::Tokens,
    revocations: revocations::Revocations,
    templates: senders::Templates,
    under_way: throttle::UnderWay,
    sink: Arc<dyn EventSink>,
    sender: Arc<dyn Sender>,
    outbox: outbox::Outbox,
    resources: Resources,
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
    ) -> Result<Self> {
        let hasher = hasher::Hasher::start(&config.password)?;
        Self::open_with(store, clock, config, sink, sender, hasher).await
    }

    /// As [`Self::open`], with password hashes that are quick and weak: for tests and measurements that hash often.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[doc(hidden)]
    pub async fn open_weak_for_tests(
        store: Arc<dyn RecordStore>,
        clock: Clock,
        mut config: MembersConfig,
        sink: Arc<dyn EventSink>,
        sender: Arc<dyn Sender>,
    ) -> Result<Self> {
        (config.password.memory_kib, config.password.passes) = (64, 1);
        let hasher = hasher::Hasher::start_unchecked(&config.password)?;
        Self::open_with(store, clock, config, sink, sender, hasher).await
    }

    async fn open_with(
        store: Arc<dyn RecordStore>,
        clock: Clock,
        config: MembersConfig,
        sink: Arc<dyn EventSink>,
        sender: Arc<dyn Sender>,
        hasher: hasher::Hasher,
    ) -> Result<Self> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let db = db::Db::new(store, clock);
        let sealing = Arc::new(sealing::Sealing::new(&config.sealing.key)?);
        let secret = secret_of(&db, &sealing).await?;
        let members = Self {
            policy: Arc::new(password::Policy::new(&config.password, &config.shop_name)?),
            tokens: tokens::Tokens::new(config.tokens.clone(), sealing.clone()),
            revocations: revocations::Revocations::default(),
            templates: senders::Templates::new()?,
            under_way: throttle::UnderWay::default(),
            outbox: outbox::Outbox::default(),
            resources: Vec::new(),
            db,
            config,
            hasher,
            secret,
            sealing,
            sink,
            sender,
        };
        members.tokens.refresh(&members.db, tokens::Rotation::WhenDue).await?;
        members.refresh_revocations().await?;
        Ok(members)
    }

    /// The settings it runs with.
    pub fn config(&self) -> &MembersConfig {
        &self.config
    }

    /// Fewest characters of a password, for the text of `password_short`.
    pub fn password_min(&self, staff: bool) -> usize {
        self.policy.min(staff)
    }

    /// Reads which sessions other processes have ended. [`Members::run`] does it twice a second.
    ///
    /// # Errors
    /// What the store says.
    pub async fn refresh_revocations(&self) -> Result<()> {
        if self.revocations.refresh(&self.db, self.config.tokens.access_s).await? {
            self.tokens.refresh(&self.db, tokens::Rotation::WhenDue).await?;
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
                if let Err(error) = self.tokens.refresh(&self.db, tokens::Rotation::WhenDue).await {
                    tracing::warn!(%error, "could not read the signing keys; it is tried again in a minute");
                }
            }
        };
        tokio::join!(self.deliver_forever(), revocations, keys);
    }
}

/// The secret of all processes: whoever comes first makes it.
async fn secret_of(db: &db::Db, sealing: &sealing::Sealing) -> Result<[u8; 32]> {
    const WHAT: &str = "the secret of marks";
    let damaged = || MemberError::Internal("the secret in the store is damaged".into());
    let made = sealing.seal(WHAT, &random::text::<32>())?;
    db.insert(db::SECRETS, "marks", "secret", &made, None).await?;
    let held = db.read::<String>(db::SECRETS, "marks", "secret").await?.ok_or_else(damaged)?;
    let secret = sealing.open(WHAT, &held.value)?;
    if !sealing.is_current(WHAT, &held.value) {
        let step = Step::replace("secret", held.version, db::encode(&sealing.seal(WHAT, &secret)?), None);
        // A conflict: another process has done it.
        db.transact(db::SECRETS, "marks", &[step]).await?;
    }
    random::decode(&secret).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)
}
