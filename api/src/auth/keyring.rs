//! Verifies API keys, with a cache of the verified ones.
//!
//! ```text
//! key ──▶ cached? ──no──▶ KeyStore::verify ──▶ CachedKey { grant, expiry, last use }
//!           └── not expired? record the use ──▶ Grant        maintain: once a minute, save last uses and delete expired keys
//! ```

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kindred_clock::Clock;
use kindred_model::EventTime;
use kindred_store::keys::{self, Key, KeyError, KeyStore, LastUse, OVERLAP_DEFAULT, Rotated, Scope, Successor};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Grant;
use crate::problem::{Code, FieldError, Problem};

/// Default rate limit of a publishable key, requests per minute over all visitors.
const RATE_DEFAULT: u32 = 6_000;
/// How often last uses are saved and expired keys deleted.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The cache is valid as long as no key changes, in this or another process.
pub(crate) struct KeyRing {
    keys: Arc<KeyStore>,
    clock: Clock,
    /// `api.limits.address_share`.
    share: u32,
    /// By key text. Holds verified keys only, so it is as bounded as they are.
    verified: RwLock<Verified>,
}

/// The verified keys of a version of the key store.
#[derive(Default)]
struct Verified {
    version: u64,
    keys: HashMap<Box<str>, CachedKey>,
}

struct CachedKey {
    grant: Arc<Grant>,
    used: Arc<LastUse>,
    /// Checked on every use: expiry does not change the key store's version.
    expires_at: EventTime,
}

impl CachedKey {
    fn used(&self, now: EventTime) -> Option<Arc<Grant>> {
        (now < self.expires_at).then(|| {
            self.used.note(now);
            self.grant.clone()
        })
    }
}

fn expiry(key: &Key) -> EventTime {
    key.end.as_ref().map_or(EventTime(i64::MAX), |end| end.expires_at)
}

impl KeyRing {
    pub fn new(keys: Arc<KeyStore>, clock: Clock, share: u32) -> Self {
        Self { keys, clock, share, verified: RwLock::default() }
    }

    /// The grant of a key; records its use.
    pub fn grant_of(&self, token: &str) -> Option<Arc<Grant>> {
        let now = self.clock.now();
        {
            let verified = self.verified.read();
            if verified.version == self.keys.version()
                && let Some(remembered) = verified.keys.get(token)
            {
                return remembered.used(now);
            }
        }
        self.keys.verify(token, now)?;
        let mut verified = self.verified.write();
        let version = self.keys.version();
        if verified.version != version {
            // Keys that still exist keep their counters (requests, streams); their expiry may have changed. Changed origins need
            // a new grant.
            let known: HashMap<String, Arc<Key>> = self.keys.list().into_iter().map(|key| (key.id.clone(), key)).collect();
            verified.keys.retain(|_, remembered| match known.get(&remembered.grant.id) {
                Some(key) => {
                    remembered.expires_at = expiry(key);
                    match &key.grant {
                        keys::Grant::Service => true,
                        keys::Grant::Publishable { origins, .. } => *origins == remembered.grant.origins,
                    }
                }
                None => false,
            });
            verified.version = version;
        }
        // Verified again after reading the version, so that a key revoked meanwhile is not cached.
        let key = self.keys.verify(token, now)?;
        let used = self.keys.last_use(&key.id)?;
        let remembered = || CachedKey { grant: Arc::new(granted(&key, self.share)), used, expires_at: expiry(&key) };
        verified.keys.entry(token.into()).or_insert_with(remembered).used(now)
    }

    /// Whether the key of a grant is still valid: for streams.
    pub fn is_good(&self, grant: &Grant) -> bool {
        self.keys.is_good(&grant.id, self.clock.now())
    }

    pub fn is_service_key(&self, id: &str) -> bool {
        self.keys.list().iter().any(|key| key.id == id && matches!(key.grant, keys::Grant::Service))
    }

    pub fn is_good_service_key(&self, id: &str) -> bool {
        let now = self.clock.now();
        self.keys.list().iter().any(|key| key.id == id && matches!(key.grant, keys::Grant::Service) && key.is_good(now))
    }

    pub fn lists_origin(&self, origin: &str) -> bool {
        let now = self.clock.now();
        self.keys.list().iter().any(|key| match &key.grant {
            keys::Grant::Service => false,
            keys::Grant::Publishable { origins, .. } => key.is_good(now) && origins.iter().any(|listed| listed == origin),
        })
    }

    pub fn list(&self) -> Vec<KeyShown> {
        self.keys.list().iter().map(|key| self.shown(key)).collect()
    }

    fn shown(&self, key: &Key) -> KeyShown {
        KeyShown { last_used_at: self.keys.last_use(&key.id).and_then(|used| used.at()), ..KeyShown::of(key) }
    }

    /// Creates a key: (its text, its description).
    pub async fn make(&self, settings: KeySettings) -> Result<(String, KeyShown), Problem> {
        let now = self.clock.now();
        let made = match settings {
            KeySettings::Service { name } => self.keys.create_service(&name, now).await?,
            KeySettings::Publishable { name, origins, scopes, rate_limit_per_minute } => {
                let scopes: Vec<Scope> = scopes.into_iter().map(Scope::from).collect();
                self.keys.create_publishable(&name, &origins, &scopes, rate_limit_per_minute, now).await?
            }
        };
        Ok((made.token.clone(), KeyShown::of(&made.key)))
    }

    pub async fn set_origins(&self, id: &str, origins: &[String]) -> Result<KeyShown, Problem> {
        Ok(self.shown(&*self.keys.set_origins(id, origins).await?))
    }

    /// Generates the successor of a key, for [`KeyRing::rotate`].
    pub fn draw_successor(&self, id: &str) -> Result<Successor, Problem> {
        Ok(self.keys.draw_successor(id)?)
    }

    /// Replaces a key, which stays valid for the overlap: (text of the new key, its description, the replaced key).
    pub async fn rotate(&self, successor: Successor, overlap_seconds: u64) -> Result<(String, KeyShown, KeyReplaced), Problem> {
        let overlap = Duration::from_secs(overlap_seconds);
        let Rotated { made, replaces, expires_at } = self.keys.rotate(successor, self.clock.now(), overlap).await?;
        Ok((made.token.clone(), KeyShown::of(&made.key), KeyReplaced { id: replaces, expires_at }))
    }

    /// Revokes a key; false when there is none of this id.
    pub async fn revoke(&self, id: &str) -> Result<bool, Problem> {
        Ok(self.keys.revoke(id).await?)
    }

    /// Runs [`KeyRing::maintain_once`] once a minute; never returns.
    pub async fn maintain(&self) {
        let mut due = tokio::time::interval(KEEP_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.maintain_once().await;
        }
    }

    /// Saves last uses and deletes expired keys. Failures are retried by the next run.
    pub async fn maintain_once(&self) {
        if let Err(error) = self.keys.save_uses().await {
            tracing::warn!("could not save the last-used times of keys: {error}");
        }
        match self.keys.sweep(self.clock.now()).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "deleted {deleted} expired keys"),
            Err(error) => tracing::warn!("could not delete expired keys: {error}"),
        }
    }
}

fn granted(key: &Key, share: u32) -> Grant {
    match &key.grant {
        keys::Grant::Service => Grant::service(key.id.clone()),
        keys::Grant::Publishable { origins, scopes, rate_limit_per_minute, .. } => {
            let scopes = (scopes.contains(&Scope::ListsRead), scopes.contains(&Scope::EventsWrite));
            let per_minute = NonZeroU32::new(*rate_limit_per_minute).unwrap_or(NonZeroU32::MIN);
            Grant::publishable(key.id.clone(), scopes, origins.clone(), per_minute, share)
        }
    }
}

/// The settings of a new key.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum KeySettings {
    /// A secret of the shop's servers, with every permission.
    Service {
        /// A display name.
        name: String,
    },
    /// For pages in browsers.
    Publishable {
        /// A display name.
        name: String,
        /// Allowed origins, like `https://shop.example`.
        #[schema(min_items = 1, max_items = 32)]
        origins: Vec<String>,
        /// Allowed scopes; default both.
        #[serde(default = "both_scopes")]
        scopes: Vec<ScopeName>,
        /// Requests per minute over all visitors; default 6,000, at most 60,000.
        #[serde(default = "default_rate")]
        #[schema(minimum = 1, maximum = 60_000)]
        rate_limit_per_minute: u32,
    },
}

/// The changes to a key.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChange {
    /// The new allowed origins, like `https://shop.example`; they replace the old ones.
    #[schema(min_items = 1, max_items = 32)]
    pub origins: Vec<String>,
}

/// How to rotate a key.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRotation {
    /// Seconds for which the old key stays valid: default one day, at most 30 days, 0 to expire it at once.
    #[serde(default = "default_overlap")]
    #[schema(minimum = 0, maximum = 2_592_000)]
    pub overlap_seconds: u64,
}

fn default_overlap() -> u64 {
    OVERLAP_DEFAULT.as_secs()
}

/// A key that was replaced.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct KeyReplaced {
    /// Its id.
    pub id: String,
    /// When it expires.
    #[schema(value_type = String)]
    pub expires_at: EventTime,
}

/// A scope of a publishable key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) enum ScopeName {
    /// Read lists.
    #[serde(rename = "lists:read")]
    ListsRead,
    /// Post browser events of sessions.
    #[serde(rename = "events:write")]
    EventsWrite,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::ListsRead => Self::ListsRead,
            ScopeName::EventsWrite => Self::EventsWrite,
        }
    }
}

impl From<Scope> for ScopeName {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::ListsRead => Self::ListsRead,
            Scope::EventsWrite => Self::EventsWrite,
        }
    }
}

fn both_scopes() -> Vec<ScopeName> {
    vec![ScopeName::ListsRead, ScopeName::EventsWrite]
}

fn default_rate() -> u32 {
    RATE_DEFAULT
}

/// A key. The text of a service key is not stored.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct KeyShown {
    /// The id used in logs and to rotate or revoke the key.
    pub id: String,
    /// `service` or `publishable`.
    pub kind: &'static str,
    /// A display name.
    pub name: String,
    #[schema(value_type = String)]
    created_at: EventTime,
    /// The minute of its last use, null if never used. Uses of the last minute in another process may be missing.
    #[schema(value_type = Option<String>)]
    last_used_at: Option<EventTime>,
    /// When it expires, if it is being replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<EventTime>,
    /// The id of the key that replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    /// The key itself, of a publishable key.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Allowed origins, of a publishable key.
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<Vec<String>>,
    /// Scopes, of a publishable key.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<ScopeName>>,
    /// Requests per minute, of a publishable key.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_per_minute: Option<u32>,
}

impl KeyShown {
    fn of(key: &Key) -> Self {
        let mut shown = Self {
            id: key.id.clone(),
            kind: "service",
            name: key.name.clone(),
            created_at: key.created_at,
            last_used_at: None,
            expires_at: key.end.as_ref().map(|end| end.expires_at),
            replaced_by: key.end.as_ref().map(|end| end.replaced_by.clone()),
            token: None,
            origins: None,
            scopes: None,
            rate_limit_per_minute: None,
        };
        if let keys::Grant::Publishable { token, origins, scopes, rate_limit_per_minute } = &key.grant {
            shown.kind = "publishable";
            shown.token = Some(token.clone());
            shown.origins = Some(origins.clone());
            shown.scopes = Some(scopes.iter().copied().map(ScopeName::from).collect());
            shown.rate_limit_per_minute = Some(*rate_limit_per_minute);
        }
        shown
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(invalid) => {
                let field = FieldError::body(invalid.pointer(), "invalid", invalid.reason.clone());
                Self { errors: vec![field], ..Self::new(Code::Invalid, invalid.to_string()) }
            }
            KeyError::Store(error) => error.into(),
            KeyError::Random(reason) => Self::internal(format_args!("no random numbers: {reason}")),
            KeyError::Unknown(_) => Self::new(Code::NotFound, "there is no key with this id"),
            KeyError::Replaced(by) => Self::new(Code::Refused, format!("the key is already being replaced by {by}")),
        }
    }
}
