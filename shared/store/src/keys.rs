//! The keys of the API, kept as named values of the store and checked from memory.
//!
//! ```text
//! create ──▶ store (`key:ID` → what it may do, SHA-256 of the token) ──▶ memory ──verify(token)──▶ Key
//! ```
//!
//! A service key's token is a secret of 32 random bytes; it is returned once, and only its SHA-256 is kept: of so many random
//! bits a plain digest is as good as a slow one. A publishable key stands in the pages of a shop; its token is no secret and is
//! kept, so that it can be listed. The id of a key is the beginning of its digest: it tells nothing, and may stand in logs.
//!
//! There is no clock in here: the caller says when a key was made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kindred_model::records::Invalid;
use kindred_model::units::EventTime;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{StoreError, ViewStore};

/// What the token of a service key starts with.
pub const SERVICE_PREFIX: &str = "kd_sk_";
/// What the token of a publishable key starts with.
pub const PUBLISHABLE_PREFIX: &str = "kd_pk_";

/// Where keys lie among the named values of the store. They are the same for every generation.
pub(crate) const PREFIX: &str = "key:";
const SECRET_BYTES: usize = 32;
/// A publishable token must only be unlike every other.
const PUBLIC_BYTES: usize = 16;
/// Hexadecimal digits of an id: a shop has some dozens of keys.
const ID_DIGITS: usize = 12;
const NAME_BYTES_MAX: usize = 128;
/// Origins of one publishable key: the shop's, its staging, its apps.
const ORIGINS_MAX: usize = 32;
const ORIGIN_BYTES_MAX: usize = 255;
/// A thousand requests a second; above that the limit is the machine's.
const RATE_LIMIT_MAX: u32 = 60_000;
/// No token is longer, so nothing longer is digested.
const TOKEN_BYTES_MAX: usize = 128;

/// Why a key was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// What was asked for is not acceptable; it names the field.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no random bytes.
    #[error("there are no random bytes to be had: {0}")]
    Random(String),
}

/// What a publishable key may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// Read lists.
    #[serde(rename = "lists:read")]
    ListsRead,
    /// Post browser events under the caller's own session.
    #[serde(rename = "events:write")]
    EventsWrite,
}

impl std::str::FromStr for Scope {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "lists:read" => Ok(Self::ListsRead),
            "events:write" => Ok(Self::EventsWrite),
            _ => Err(Invalid::new("scopes", format!("{text:?} is none of lists:read, events:write"))),
        }
    }
}

/// What a key is good for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Grant {
    /// Everything: events of any kind, any member's data, administration.
    Service,
    /// What pages in browsers may do.
    Publishable {
        /// The token, which is no secret.
        token: String,
        /// Origins whose pages may use it, like `https://shop.example`.
        origins: Vec<String>,
        /// What it may do, sorted.
        scopes: Vec<Scope>,
        /// Requests a minute, over all visitors.
        rate_limit_per_minute: u32,
    },
}

/// One key, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Key {
    /// Its id, fit for logs and for revoking it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: EventTime,
    /// What it is good for.
    #[serde(flatten)]
    pub grant: Grant,
}

/// A key that was made just now.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The key.
    pub key: Arc<Key>,
    /// What its holder presents. Of a service key it is the secret, and shown this once.
    pub token: String,
}

impl std::fmt::Debug for NewKey {
    /// Without the token, so that it does not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("id", &self.key.id).finish_non_exhaustive()
    }
}

/// A key as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    created_at_ms: i64,
    /// Of the token, hexadecimal.
    sha256: String,
    #[serde(flatten)]
    grant: Grant,
}

type TokenDigest = [u8; 32];

/// The keys of one store. Every change goes to the store first and is durable when it returns.
pub struct KeyStore {
    store: Arc<dyn ViewStore>,
    /// By the id, which is known of any token that is presented.
    keys: RwLock<Keys>,
    /// Counts the changes of `keys`.
    version: AtomicU64,
    /// A change and a reading of all of them come one after the other: neither undoes the other.
    turn: tokio::sync::Mutex<()>,
}

type Keys = FxHashMap<String, (TokenDigest, Arc<Key>)>;

impl KeyStore {
    /// Where they are.
    pub fn store(&self) -> Arc<dyn ViewStore> {
        Arc::clone(&self.store)
    }

    /// Reads the keys of a store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when one does not read; otherwise what the store says.
    pub async fn open(store: Arc<dyn ViewStore>) -> Result<Self, StoreError> {
        let keys = RwLock::new(read_all(&*store).await?);
        Ok(Self { store, keys, version: AtomicU64::new(0), turn: tokio::sync::Mutex::default() })
    }

    /// Reads the keys again: another process may have made or revoked some.
    ///
    /// # Errors
    /// As [`KeyStore::open`]; the keys stay as they were.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let read = read_all(&*self.store).await?;
        let mut keys = self.keys.write();
        if *keys != read {
            *keys = read;
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Counts the changes of the keys, by whatever process: what was verified under another number may be revoked.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Makes a service key.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] for an empty or overlong name.
    pub async fn create_service(&self, name: &str, created_at: EventTime) -> Result<NewKey, KeyError> {
        let token = token::<SECRET_BYTES>(SERVICE_PREFIX)?;
        self.create(name, created_at, Grant::Service, token).await
    }

    /// Makes a publishable key.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] naming the field: an origin is scheme, host and perhaps a port (`https://shop.example`), and
    /// there is at least one origin and one scope.
    pub async fn create_publishable(
        &self,
        name: &str,
        origins: &[String],
        scopes: &[Scope],
        rate_limit_per_minute: u32,
        created_at: EventTime,
    ) -> Result<NewKey, KeyError> {
        if origins.is_empty() || origins.len() > ORIGINS_MAX {
            return Err(
                Invalid::new("origins", format!("has {} entries; from 1 to {ORIGINS_MAX} are accepted", origins.len())).into()
            );
        }
        for (n, origin) in origins.iter().enumerate() {
            check_origin(origin).map_err(|reason| Invalid::new(format!("origins[{n}]"), reason))?;
        }
        if scopes.is_empty() {
            return Err(Invalid::new("scopes", "must name lists:read, events:write or both").into());
        }
        if !(1..=RATE_LIMIT_MAX).contains(&rate_limit_per_minute) {
            let reason = format!("is {rate_limit_per_minute}; from 1 to {RATE_LIMIT_MAX} is accepted");
            return Err(Invalid::new("rate_limit_per_minute", reason).into());
        }
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        let token = token::<PUBLIC_BYTES>(PUBLISHABLE_PREFIX)?;
        let grant = Grant::Publishable { token: token.clone(), origins: origins.to_vec(), scopes, rate_limit_per_minute };
        self.create(name, created_at, grant, token).await
    }

    async fn create(&self, name: &str, created_at: EventTime, grant: Grant, token: String) -> Result<NewKey, KeyError> {
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Invalid::new("name", format!("must have 1 to {NAME_BYTES_MAX} bytes without control characters")).into());
        }
        let digest = digest(&token);
        let sha256 = hex(&digest);
        let key = Key { id: id(&digest), name: name.to_owned(), created_at, grant };
        let stored = Stored { name: key.name.clone(), created_at_ms: created_at.0, sha256, grant: key.grant.clone() };
        let value = serde_json::to_vec(&stored).expect("a key is plain data");
        let _turn = self.turn.lock().await;
        self.store.put_meta(&format!("{PREFIX}{}", key.id), &value).await?;
        let key = Arc::new(key);
        self.keys.write().insert(key.id.clone(), (digest, key.clone()));
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(NewKey { key, token })
    }

    /// All keys, the oldest first.
    pub fn list(&self) -> Vec<Arc<Key>> {
        let mut keys: Vec<Arc<Key>> = self.keys.read().values().map(|(_, key)| key.clone()).collect();
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        keys
    }

    /// Makes a key worthless, from the moment this returns. False if there is none of that id.
    ///
    /// # Errors
    /// What the store says; the key is then still good, repeat it.
    pub async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        if !self.keys.read().contains_key(id) {
            return Ok(false);
        }
        let _turn = self.turn.lock().await;
        self.store.delete_meta(&format!("{PREFIX}{id}")).await?;
        let revoked = self.keys.write().remove(id).is_some();
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(revoked)
    }

    /// The key that a token stands for. The digest is compared in constant time.
    pub fn verify(&self, presented: &str) -> Option<Arc<Key>> {
        if presented.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let presented = digest(presented);
        let keys = self.keys.read();
        let (digest, key) = keys.get(&id(&presented))?;
        bool::from(digest.ct_eq(&presented)).then(|| key.clone())
    }
}

async fn read_all(store: &dyn ViewStore) -> Result<Keys, StoreError> {
    let mut keys = FxHashMap::default();
    for (name, value) in store.scan_meta(PREFIX).await? {
        let id = &name[PREFIX.len()..];
        let (digest, key) = read(id, &value).ok_or_else(|| StoreError::Corrupt(format!("the API key {id} does not read")))?;
        keys.insert(id.to_owned(), (digest, Arc::new(key)));
    }
    Ok(keys)
}

fn read(id: &str, value: &[u8]) -> Option<(TokenDigest, Key)> {
    let stored: Stored = serde_json::from_slice(value).ok()?;
    let mut digest = TokenDigest::default();
    if stored.sha256.len() != 2 * digest.len() {
        return None;
    }
    for (n, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(stored.sha256.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    let key = Key { id: id.to_owned(), name: stored.name, created_at: EventTime(stored.created_at_ms), grant: stored.grant };
    (self::id(&digest) == id).then_some((digest, key))
}

fn token<const N: usize>(prefix: &str) -> Result<String, KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id(digest: &TokenDigest) -> String {
    hex(&digest[..ID_DIGITS / 2])
}

/// An origin as browsers send it: it is compared with what they send, byte by byte.
fn check_origin(origin: &str) -> Result<(), String> {
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let plain = |host: &str| {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        let named =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.[]:".contains(&b));
        named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if origin.len() <= ORIGIN_BYTES_MAX && host.is_some_and(plain) {
        return Ok(());
    }
    Err(format!("{origin:?} is not an origin like https://shop.example: scheme, host in small letters, perhaps a port, no path"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::EmbeddedStore;

    const AT: EventTime = EventTime(1_767_600_000_000);

    fn store(dir: &tempfile::TempDir) -> Arc<dyn ViewStore> {
        Arc::new(EmbeddedStore::open(dir.path()).unwrap())
    }

    /// If it failed, keys would be lost by a restart, or revoked ones come back.
    #[tokio::test]
    async fn keys_outlive_a_restart_and_revoked_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (service, public, gone) = {
            let keys = KeyStore::open(store(&dir)).await.unwrap();
            let service = keys.create_service("shop server", AT).await.unwrap();
            let origins = ["https://shop.example".to_owned(), "http://localhost:8080".to_owned()];
            let scopes = [Scope::EventsWrite, Scope::ListsRead, Scope::ListsRead];
            let public = keys.create_publishable("storefront", &origins, &scopes, 600, EventTime(AT.0 + 1)).await.unwrap();
            let gone = keys.create_service("old", AT).await.unwrap();
            assert!(keys.verify(&gone.token).is_some());
            assert!(keys.revoke(&gone.key.id).await.unwrap());
            assert!(!keys.revoke(&gone.key.id).await.unwrap());
            assert_eq!(keys.verify(&gone.token), None);
            (service, public, gone)
        };
        let keys = KeyStore::open(store(&dir)).await.unwrap();
        assert_eq!(keys.list(), [service.key.clone(), public.key.clone()]);
        assert_eq!(keys.verify(&service.token).unwrap(), service.key);
        assert_eq!(keys.verify(&public.token).unwrap(), public.key);
        assert_eq!(keys.verify(&gone.token), None);
        let Grant::Publishable { scopes, token, .. } = &public.key.grant else { panic!("it is publishable") };
        assert_eq!((scopes.as_slice(), token), ([Scope::ListsRead, Scope::EventsWrite].as_slice(), &public.token));
    }

    /// If it failed, a key that one process revoked would go on being good in another.
    #[tokio::test]
    async fn what_another_process_does_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let (one, other) = (KeyStore::open(store.clone()).await.unwrap(), KeyStore::open(store).await.unwrap());
        let made = one.create_service("shop server", AT).await.unwrap();
        assert_eq!(other.verify(&made.token), None);
        other.refresh().await.unwrap();
        assert_eq!(other.verify(&made.token).unwrap(), made.key);
        let version = other.version();
        other.refresh().await.unwrap();
        assert_eq!(other.version(), version, "nothing changed");
        one.revoke(&made.key.id).await.unwrap();
        other.refresh().await.unwrap();
        assert_eq!(other.verify(&made.token), None);
        assert_ne!(other.version(), version);
    }

    /// If it failed, a copy of the directory, or a log line, would give away a service key.
    #[tokio::test]
    async fn the_secret_is_nowhere_but_in_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let keys = KeyStore::open(store.clone()).await.unwrap();
        let made = keys.create_service("shop server", AT).await.unwrap();
        assert_eq!(made.token.len(), SERVICE_PREFIX.len() + 43);
        let secret = &made.token[SERVICE_PREFIX.len()..];
        for (_, value) in store.scan_meta("").await.unwrap() {
            assert!(!String::from_utf8_lossy(&value).contains(secret));
        }
        assert!(!serde_json::to_string(&*made.key).unwrap().contains(secret) && !format!("{made:?}").contains(secret));
    }

    #[tokio::test]
    async fn what_is_not_a_key_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(store(&dir)).await.unwrap();
        let made = keys.create_service("shop server", AT).await.unwrap();
        let mut other = made.token.clone();
        let last = if other.pop() == Some('A') { 'E' } else { 'A' };
        other.push(last);
        let long = "x".repeat(1 << 20);
        for wrong in ["", "kd_sk_", &made.key.id, &other, &made.token[1..], &long] {
            assert_eq!(keys.verify(wrong), None);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_a_key_is_refused_with_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(store(&dir)).await.unwrap();
        let good = ["https://shop.example".to_owned()];
        let field = |error: KeyError| match error {
            KeyError::Invalid(invalid) => invalid.field,
            other => panic!("{other}"),
        };
        let read = [Scope::ListsRead];
        assert_eq!(field(keys.create_service(" ", AT).await.unwrap_err()), "name");
        assert_eq!(field(keys.create_publishable("n", &[], &read, 1, AT).await.unwrap_err()), "origins");
        assert_eq!(field(keys.create_publishable("n", &good, &[], 1, AT).await.unwrap_err()), "scopes");
        assert_eq!(field(keys.create_publishable("n", &good, &read, 0, AT).await.unwrap_err()), "rate_limit_per_minute");
        let wrong = [
            "*",
            "https://*",
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://a:0",
            "https://a b",
            "https://",
        ];
        for origin in wrong {
            let error = keys.create_publishable("n", &[good[0].clone(), origin.to_owned()], &read, 1, AT).await.unwrap_err();
            assert_eq!(field(error), "origins[1]", "{origin} was accepted");
        }
        for origin in ["http://127.0.0.1:8080", "https://[::1]", "https://[::1]:8443", "https://a-b.example:444"] {
            keys.create_publishable("n", &[origin.to_owned()], &read, 1, AT).await.unwrap();
        }
        assert_eq!(keys.list().len(), 4);
    }
}
