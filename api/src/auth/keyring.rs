//! The keys in memory, with what they grant: what a caller presents is looked up, digested once, and remembered.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use kindred_clock::Clock;
use kindred_model::EventTime;
use kindred_store::keys::{self, Key, KeyError, KeyStore, Scope};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Grant;
use crate::problem::{Code, FieldError, Problem};

/// Requests a minute of a publishable key unless told: a hundred a second, over all visitors of a page.
const RATE_DEFAULT: u32 = 6_000;

/// The keys and what they grant. It remembers what it has verified for as long as no key changes, here or in another process.
pub(crate) struct KeyRing {
    keys: Arc<KeyStore>,
    clock: Clock,
    /// By what is presented. Only what was verified stands here, so it is as bounded as the keys are.
    verified: RwLock<Verified>,
}

/// What was verified, and under which version of the keys.
#[derive(Default)]
struct Verified {
    version: u64,
    grants: HashMap<Box<str>, Arc<Grant>>,
}

impl KeyRing {
    /// Of a store's keys.
    pub fn new(keys: Arc<KeyStore>, clock: Clock) -> Self {
        Self { keys, clock, verified: RwLock::default() }
    }

    /// What a presented key grants.
    pub fn grant_of(&self, presented: &str) -> Option<Arc<Grant>> {
        {
            let verified = self.verified.read();
            if verified.version == self.keys.version()
                && let Some(grant) = verified.grants.get(presented)
            {
                return Some(grant.clone());
            }
        }
        let key = self.keys.verify(presented)?;
        let mut verified = self.verified.write();
        let version = self.keys.version();
        if verified.version != version {
            // Those that are still good keep what is counted by their grants: requests, streams.
            let known: HashSet<String> = self.keys.list().iter().map(|key| key.id.clone()).collect();
            verified.grants.retain(|_, grant| known.contains(&grant.id));
            verified.version = version;
        }
        // Verified again after the version was read: a key revoked meanwhile must not be remembered.
        let grant = self.keys.verify(presented).map(|_| Arc::new(granted(&key)))?;
        Some(verified.grants.entry(presented.into()).or_insert(grant).clone())
    }

    /// Whether any publishable key lists an origin.
    pub fn lists_origin(&self, origin: &str) -> bool {
        self.keys.list().iter().any(|key| match &key.grant {
            keys::Grant::Service => false,
            keys::Grant::Publishable { origins, .. } => origins.iter().any(|listed| listed == origin),
        })
    }

    /// All keys, the oldest first.
    pub fn list(&self) -> Vec<KeyShown> {
        self.keys.list().iter().map(|key| KeyShown::of(key)).collect()
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

    /// Revokes a key, from the next request on; false when there is none of that id.
    ///
    /// # Errors
    /// What the store says; the key is still good then.
    pub async fn revoke(&self, id: &str) -> Result<bool, Problem> {
        Ok(self.keys.revoke(id).await?)
    }
}

fn granted(key: &Key) -> Grant {
    match &key.grant {
        keys::Grant::Service => Grant::service(key.id.clone()),
        keys::Grant::Publishable { origins, scopes, rate_limit_per_minute, .. } => {
            let scopes = (scopes.contains(&Scope::ListsRead), scopes.contains(&Scope::EventsWrite));
            let per_minute = NonZeroU32::new(*rate_limit_per_minute).unwrap_or(NonZeroU32::MIN);
            Grant::publishable(key.id.clone(), scopes, origins.clone(), per_minute)
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
    /// For logs, and to revoke it.
    pub id: String,
    /// `service` or `publishable`.
    pub kind: &'static str,
    /// What people call it.
    pub name: String,
    #[schema(value_type = String)]
    created_at: EventTime,
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
                let field =
                    FieldError { place: "body", pointer: invalid.pointer(), code: "invalid", message: invalid.reason.clone() };
                Self { errors: vec![field], ..Self::new(Code::InvalidRecord, invalid.to_string()) }
            }
            KeyError::Store(error) => error.into(),
            KeyError::Random(reason) => Self::internal(format_args!("no random numbers: {reason}")),
        }
    }
}
