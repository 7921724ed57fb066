//! The keys in memory, with what they grant: what a caller presents is looked up, digested once, and remembered.
//!
//! ```text
//! presented ──▶ remembered? ──no──▶ KeyStore::verify ──▶ Remembered { grant, until when, where its uses are noted }
//!                    └── is it good now? note the minute ──▶ Grant        keep: once a minute the uses are saved, what ended deleted
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

/// Requests a minute of a publishable key unless told: a hundred a second, over all visitors of a page.
const RATE_DEFAULT: u32 = 6_000;
/// How often it is written when keys were last used, which is told to the minute, and how long a key that has ended stays listed.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The keys and what they grant. It remembers what it has verified for as long as no key changes, here or in another process.
pub(crate) struct KeyRing {
    keys: Arc<KeyStore>,
    clock: Clock,
    /// `api.limits.address_share`.
    share: u32,
    /// By what is presented. Only what was verified stands here, so it is as bounded as the keys are.
    verified: RwLock<Verified>,
}

/// What was verified, and under which version of the keys.
#[derive(Default)]
struct Verified {
    version: u64,
    keys: HashMap<Box<str>, Remembered>,
}

/// A key that was verified.
struct Remembered {
    grant: Arc<Grant>,
    used: Arc<LastUse>,
    /// Looked at each time: that a key has ended takes no change of the keys.
    expires_at: EventTime,
}

impl Remembered {
    fn used(&self, now: EventTime) -> Option<Arc<Grant>> {
        (now < self.expires_at).then(|| {
            self.used.note(now);
            self.grant.clone()
        })
    }
}

/// The first moment at which a key is not good any more.
fn expiry(key: &Key) -> EventTime {
    key.end.as_ref().map_or(EventTime(i64::MAX), |end| end.expires_at)
}

impl KeyRing {
    /// Of a store's keys.
    pub fn new(keys: Arc<KeyStore>, clock: Clock, share: u32) -> Self {
        Self { keys, clock, share, verified: RwLock::default() }
    }

    /// What a presented key grants; that it was used is noted.
    pub fn grant_of(&self, presented: &str) -> Option<Arc<Grant>> {
        let now = self.clock.now();
        {
            let verified = self.verified.read();
            if verified.version == self.keys.version()
                && let Some(remembered) = verified.keys.get(presented)
            {
                return remembered.used(now);
            }
        }
        self.keys.verify(presented, now)?;
        let mut verified = self.verified.write();
        let version = self.keys.version();
        if verified.version != version {
            // Those that are still good keep what is counted by their grants: requests, streams. Their end may be new. What they grant
            // is another where their origins are.
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
        // Verified again after the version was read: a key revoked meanwhile must not be remembered.
        let key = self.keys.verify(presented, now)?;
        let used = self.keys.last_use(&key.id)?;
        let remembered = || Remembered { grant: Arc::new(granted(&key, self.share)), used, expires_at: expiry(&key) };
        verified.keys.entry(presented.into()).or_insert_with(remembered).used(now)
    }

    /// Whether the key of a grant is still one, and has not ended: for what goes on for longer than a request.
    pub fn is_good(&self, grant: &Grant) -> bool {
        self.keys.is_good(&grant.id, self.clock.now())
    }

    /// Whether an id is that of a service key, good or not.
    pub fn is_service_key(&self, id: &str) -> bool {
        self.keys.list().iter().any(|key| key.id == id && matches!(key.grant, keys::Grant::Service))
    }

    /// Whether an id is that of a service key that is good: for what was made with one and counts as long as it does.
    pub fn is_good_service_key(&self, id: &str) -> bool {
        let now = self.clock.now();
        self.keys.list().iter().any(|key| key.id == id && matches!(key.grant, keys::Grant::Service) && key.is_good(now))
    }

    /// Whether any publishable key that is good lists an origin.
    pub fn lists_origin(&self, origin: &str) -> bool {
        let now = self.clock.now();
        self.keys.list().iter().any(|key| match &key.grant {
            keys::Grant::Service => false,
            keys::Grant::Publishable { origins, .. } => key.is_good(now) && origins.iter().any(|listed| listed == origin),
        })
    }

    /// All keys, the oldest first.
    pub fn list(&self) -> Vec<KeyShown> {
        self.keys.list().iter().map(|key| self.shown(key)).collect()
    }

    fn shown(&self, key: &Key) -> KeyShown {
        KeyShown { last_used_at: self.keys.last_use(&key.id).and_then(|used| used.at()), ..KeyShown::of(key) }
    }

    /// Makes a key: (what its holder presents, what is shown of it).
    ///
    /// # Errors
    /// A 422 that names the field; what the store says.
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

    /// Gives a publishable key other origins.
    ///
    /// # Errors
    /// A 422 that names the field, a 404 where there is no such key; what the store says.
    pub async fn set_origins(&self, id: &str, origins: &[String]) -> Result<KeyShown, Problem> {
        Ok(self.shown(&*self.keys.set_origins(id, origins).await?))
    }

    /// Draws a successor for a key, which [`KeyRing::rotate`] makes one.
    ///
    /// # Errors
    /// A 404 where there is no such key, a 409 where it is being replaced already.
    pub fn draw_successor(&self, id: &str) -> Result<Successor, Problem> {
        Ok(self.keys.draw_successor(id)?)
    }

    /// Replaces a key, which stays good for so many seconds: (what the holder of the successor presents, what is shown of it, which
    /// it replaces).
    ///
    /// # Errors
    /// A 422 where the overlap is too long; as [`KeyRing::draw_successor`]; what the store says.
    pub async fn rotate(&self, successor: Successor, overlap_seconds: u64) -> Result<(String, KeyShown, KeyReplaced), Problem> {
        let overlap = Duration::from_secs(overlap_seconds);
        let Rotated { made, replaces, expires_at } = self.keys.rotate(successor, self.clock.now(), overlap).await?;
        Ok((made.token.clone(), KeyShown::of(&made.key), KeyReplaced { id: replaces, expires_at }))
    }

    /// Revokes a key, from the next request on; false when there is none of that id.
    ///
    /// # Errors
    /// What the store says; the key is still good then.
    pub async fn revoke(&self, id: &str) -> Result<bool, Problem> {
        Ok(self.keys.revoke(id).await?)
    }

    /// Saves when keys were last used and deletes those that have ended, once a minute; never ends.
    pub async fn keep(&self) {
        let mut due = tokio::time::interval(KEEP_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.keep_now().await;
        }
    }

    /// Does it now. What fails is done by the next.
    pub async fn keep_now(&self) {
        if let Err(error) = self.keys.save_uses().await {
            tracing::warn!("could not save when keys were last used: {error}");
        }
        match self.keys.sweep(self.clock.now()).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "deleted {deleted} keys that have ended"),
            Err(error) => tracing::warn!("could not delete keys that have ended: {error}"),
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

/// What a key is to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum KeySettings {
    /// A secret of the shop's servers: everything.
    Service {
        /// What people call it.
        name: String,
    },
    /// For pages in browsers.
    Publishable {
        /// What people call it.
        name: String,
        /// Origins whose pages may use it, like `https://shop.example`.
        #[schema(min_items = 1, max_items = 32)]
        origins: Vec<String>,
        /// What it may do; both unless given.
        #[serde(default = "both_scopes")]
        scopes: Vec<ScopeName>,
        /// Requests a minute over all visitors, to 60,000; 6,000 unless given.
        #[serde(default = "default_rate")]
        #[schema(minimum = 1, maximum = 60_000)]
        rate_limit_per_minute: u32,
    },
}

/// What of a key can be changed.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChange {
    /// Origins whose pages may use it from now on, like `https://shop.example`; those that it had are replaced.
    #[schema(min_items = 1, max_items = 32)]
    pub origins: Vec<String>,
}

/// How a key is to be replaced.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRotation {
    /// Seconds for which the old one stays good: a day unless given, 30 days at most; 0 ends it at once.
    #[serde(default = "default_overlap")]
    #[schema(minimum = 0, maximum = 2_592_000)]
    pub overlap_seconds: u64,
}

fn default_overlap() -> u64 {
    OVERLAP_DEFAULT.as_secs()
}

/// A key that is being replaced.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct KeyReplaced {
    /// Its id.
    pub id: String,
    /// It is good until then, and refused from then on.
    #[schema(value_type = String)]
    pub expires_at: EventTime,
}

/// What a publishable key may do.
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

/// A key as it is listed: a service key's text is not in it, it is stored nowhere.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct KeyShown {
    /// For logs, and to rotate or revoke it.
    pub id: String,
    /// `service` or `publishable`.
    pub kind: &'static str,
    /// What people call it.
    pub name: String,
    #[schema(value_type = String)]
    created_at: EventTime,
    /// The minute in which it was last presented, by whomever; null if never. Uses of the last minute at another process may be missing.
    #[schema(value_type = Option<String>)]
    last_used_at: Option<EventTime>,
    /// Of a key that is being replaced: it is refused from then on, and soon not listed any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<EventTime>,
    /// Of a key that is being replaced: the id of the one that replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    /// Of a publishable key: it is no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Of a publishable key.
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<Vec<String>>,
    /// Of a publishable key.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<ScopeName>>,
    /// Of a publishable key.
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
            KeyError::Unknown(_) => Self::new(Code::NotFound, "there is no key of this id"),
            KeyError::Replaced(by) => Self::new(Code::Refused, format!("the key is being replaced by {by} already")),
        }
    }
}
