//! The keys of the API, kept as records and checked from memory.
//!
//! ```text
//! create, rotate, revoke ──compare-and-set──▶ records: keys/all/key/ID   what it may do, SHA-256 of the token, its end ──▶ memory
//! LastUse ──save_uses──▶                              keys/all/used/ID   the minute of its last use, of all processes the latest
//!                                                                        memory ──verify(token, now)──▶ Key
//! ```
//!
//! A service key's token is a secret of 32 random bytes; it is returned once, and only its SHA-256 is kept: of so many random
//! bits a plain digest is as good as a slow one. A publishable key stands in the pages of a shop; its token is no secret and is
//! kept, so that it can be listed. The id of a key is the beginning of its digest: it tells nothing, and may stand in logs.
//!
//! A key that is being replaced stays good until its end. The successor and the end are one transaction: of two processes that rotate a
//! key at once one wins. When a key was last used is written once a minute and is no change of the keys: what was verified stays
//! remembered.
//!
//! There is no clock in here: the caller says what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kindred_model::records::Invalid;
use kindred_model::units::EventTime;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::records::{Expect, Outcome, PAGE_MAX, Range, RecordStore, Step, Version};
use crate::{NamedValues, StoreError};

/// What the token of a service key starts with.
pub const SERVICE_PREFIX: &str = "kd_sk_";
/// What the token of a publishable key starts with.
pub const PUBLISHABLE_PREFIX: &str = "kd_pk_";

/// How long a key that is rotated stays good unless told: a day, in which a shop's servers are told the new one.
pub const OVERLAP_DEFAULT: Duration = Duration::from_secs(86_400);
/// The longest it may: beyond it the old key would be as good as kept.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The table of the keys, and its one partition.
const TABLE: &str = "keys";
const ALL: &[u8] = b"all";
const KEY: &str = "key/";
const USED: &str = "used/";
/// Keys do not expire by the clock of the store.
const NOW: EventTime = EventTime(0);
/// Tries of a change that others get in the way of.
const TRIES_MAX: usize = 100;
const MINUTE_MS: i64 = 60_000;
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

/// The id of the key that a token is of, whether or not there is such a key.
pub fn id_of(token: &str) -> String {
    id(&digest(token))
}

/// Why a key was not made, rotated or revoked.
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
    /// There is no key of that id.
    #[error("there is no key {0}")]
    Unknown(String),
    /// It is being replaced already, by the key of this id.
    #[error("the key is being replaced by {0} already")]
    Replaced(String),
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
    /// When it ends, where it is being replaced.
    #[serde(flatten)]
    pub end: Option<End>,
    /// What it is good for.
    #[serde(flatten)]
    pub grant: Grant,
}

impl Key {
    /// Whether it is good at a time: it has no end, or that has not come.
    pub fn is_good(&self, now: EventTime) -> bool {
        self.end.as_ref().is_none_or(|end| now < end.expires_at)
    }
}

/// The end of a key that is being replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct End {
    /// From then on it is refused.
    pub expires_at: EventTime,
    /// The id of its successor.
    pub replaced_by: String,
}

/// When a key was last used, to the minute; shared by all who remember the key.
#[derive(Debug, Default)]
pub struct LastUse {
    /// Milliseconds since 1970 of the minute's beginning; 0 is never.
    noted: AtomicI64,
    /// As much of it as is known to lie in the store.
    saved: AtomicI64,
}

impl LastUse {
    /// Notes a use. Of the uses of a minute the first writes, the others only read.
    pub fn note(&self, now: EventTime) {
        let minute = now.0 - now.0.rem_euclid(MINUTE_MS);
        if self.noted.load(Ordering::Relaxed) < minute {
            self.noted.fetch_max(minute, Ordering::Relaxed);
        }
    }

    /// The minute of the last use that is known here.
    pub fn at(&self) -> Option<EventTime> {
        Some(EventTime(self.noted.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// What the store does not have yet.
    fn unsaved(&self) -> Option<EventTime> {
        self.at().filter(|at| at.0 > self.saved.load(Ordering::Relaxed))
    }

    /// The store has it.
    fn saved(&self, at: EventTime) {
        self.noted.fetch_max(at.0, Ordering::Relaxed);
        self.saved.fetch_max(at.0, Ordering::Relaxed);
    }
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

/// A successor that was drawn for a key, and is none yet: [`KeyStore::rotate`] makes it one.
pub struct Successor {
    of: Arc<Key>,
    token: String,
}

impl Successor {
    /// The id that it will have.
    pub fn id(&self) -> String {
        id_of(&self.token)
    }
}

/// A key that was replaced just now.
#[derive(Debug)]
pub struct Rotated {
    /// Its successor.
    pub made: NewKey,
    /// The id of the old one.
    pub replaces: String,
    /// Until when the old one stays good.
    pub expires_at: EventTime,
}

/// A key as it is stored.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    name: String,
    created_at_ms: i64,
    /// Of the token, hexadecimal.
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<StoredEnd>,
    #[serde(flatten)]
    grant: Grant,
}

/// The end of a key as it is stored.
#[derive(Clone, Serialize, Deserialize)]
struct StoredEnd {
    expires_at_ms: i64,
    replaced_by: String,
}

type TokenDigest = [u8; 32];

/// A key in memory.
struct Held {
    digest: TokenDigest,
    key: Arc<Key>,
    used: Arc<LastUse>,
}

impl Held {
    /// Whether it is the same key; that it was used is no difference.
    fn is(&self, other: &Self) -> bool {
        self.digest == other.digest && self.key == other.key
    }
}

/// The keys of an installation. Every change goes to the records first and is durable when it returns.
pub struct KeyStore {
    records: Arc<dyn RecordStore>,
    /// By the id, which is known of any token that is presented.
    keys: RwLock<Keys>,
    /// Counts the changes of `keys`.
    version: AtomicU64,
    /// A change and a reading of all of them come one after the other: neither undoes the other.
    turn: tokio::sync::Mutex<()>,
}

type Keys = FxHashMap<String, Held>;

impl KeyStore {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when one does not read; otherwise what the store says.
    pub async fn open(records: Arc<dyn RecordStore>) -> Result<Self, StoreError> {
        let keys = RwLock::new(read_all(&*records).await?);
        Ok(Self { records, keys, version: AtomicU64::new(0), turn: tokio::sync::Mutex::default() })
    }

    /// Reads the keys again: another process may have made, rotated, revoked or used some.
    ///
    /// # Errors
    /// As [`KeyStore::open`]; the keys stay as they were.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let mut read = read_all(&*self.records).await?;
        let mut keys = self.keys.write();
        let mut same = keys.len() == read.len();
        for (id, held) in &mut read {
            let Some(known) = keys.get(id) else {
                same = false;
                continue;
            };
            same &= known.is(held);
            // Who remembers the key goes on noting its uses there.
            if let Some(at) = held.used.at() {
                known.used.saved(at);
            }
            held.used = known.used.clone();
        }
        *keys = read;
        if !same {
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

    /// Makes the key of a token that was given out before a service key again: of a store that is built anew from the log, which has no
    /// keys.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where it is not the token of a service key.
    pub async fn adopt_service(&self, name: &str, token: &str, created_at: EventTime) -> Result<NewKey, KeyError> {
        let secret = token.strip_prefix(SERVICE_PREFIX).and_then(|secret| URL_SAFE_NO_PAD.decode(secret).ok());
        if secret.is_none_or(|secret| secret.len() != SECRET_BYTES) {
            return Err(Invalid::new("token", format!("is not the token of a service key, {SERVICE_PREFIX}…")).into());
        }
        self.create(name, created_at, Grant::Service, token.to_owned()).await
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
        check_origins(origins)?;
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
        let _turn = self.turn.lock().await;
        Ok(self.insert(name, created_at, grant, token).await?)
    }

    /// Writes a new key. The caller holds the turn.
    async fn insert(&self, name: &str, created_at: EventTime, grant: Grant, token: String) -> Result<NewKey, StoreError> {
        let (stored, digest) = Stored::of(name, created_at, grant, &token);
        let id = id(&digest);
        self.transact(&[Step::insert(sort(KEY, &id), encode(&stored), None)]).await?.then_some(()).ok_or_else(contended)?;
        Ok(NewKey { key: self.remember(&id, digest, &stored), token })
    }

    fn remember(&self, id: &str, digest: TokenDigest, stored: &Stored) -> Arc<Key> {
        let key = Arc::new(stored.key(id));
        let mut keys = self.keys.write();
        let used = keys.get(id).map(|held| held.used.clone()).unwrap_or_default();
        keys.insert(id.to_owned(), Held { digest, key: key.clone(), used });
        self.version.fetch_add(1, Ordering::AcqRel);
        key
    }

    async fn transact(&self, steps: &[Step]) -> Result<bool, StoreError> {
        Ok(matches!(self.records.transact(TABLE, ALL, steps, NOW).await?, Outcome::Done(_)))
    }

    async fn stored(&self, id: &str) -> Result<Option<(Stored, TokenDigest, Version)>, StoreError> {
        let Some(record) = self.records.read(TABLE, ALL, &sort(KEY, id), NOW).await? else { return Ok(None) };
        let (stored, digest) = read(id, &record.value)?;
        Ok(Some((stored, digest, record.version)))
    }

    /// Gives a publishable key other origins: it goes on as it is, with the text that stands in pages.
    ///
    /// # Errors
    /// [`KeyError::Invalid`]: an origin is none, or the key is a service key. [`KeyError::Unknown`]; [`KeyError::Store`].
    pub async fn set_origins(&self, id: &str, origins: &[String]) -> Result<Arc<Key>, KeyError> {
        check_origins(origins)?;
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES_MAX {
            let (mut stored, digest, version) = self.stored(id).await?.ok_or_else(|| KeyError::Unknown(id.to_owned()))?;
            let Grant::Publishable { origins: listed, .. } = &mut stored.grant else {
                return Err(Invalid::new("origins", "are those of a publishable key: a service key is not for pages").into());
            };
            *listed = origins.to_vec();
            if self.transact(&[Step::replace(sort(KEY, id), version, encode(&stored), None)]).await? {
                return Ok(self.remember(id, digest, &stored));
            }
        }
        Err(contended().into())
    }

    /// Draws a successor for a key, so that its id is known before anything is done.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Replaced`].
    pub fn draw_successor(&self, id: &str) -> Result<Successor, KeyError> {
        let of = self.keys.read().get(id).map(|held| held.key.clone()).ok_or_else(|| KeyError::Unknown(id.to_owned()))?;
        if let Some(end) = &of.end {
            return Err(KeyError::Replaced(end.replaced_by.clone()));
        }
        let token = match of.grant {
            Grant::Service => token::<SECRET_BYTES>(SERVICE_PREFIX)?,
            Grant::Publishable { .. } => token::<PUBLIC_BYTES>(PUBLISHABLE_PREFIX)?,
        };
        Ok(Successor { of, token })
    }

    /// Makes the successor a key, the same as the old one but for its token and the time it was made. The old one stays good for
    /// `overlap`, and is refused from then on in every process that has read of it by then.
    ///
    /// # Errors
    /// [`KeyError::Invalid`]: the overlap is longer than [`OVERLAP_MAX`]. [`KeyError::Unknown`], [`KeyError::Replaced`]: another
    /// process has revoked or rotated it. [`KeyError::Store`]: look at the list before it is repeated, it may have happened; a successor
    /// whose token was told to nobody can be revoked.
    pub async fn rotate(&self, successor: Successor, now: EventTime, overlap: Duration) -> Result<Rotated, KeyError> {
        if overlap > OVERLAP_MAX {
            let reason = format!("is {}; from 0 to {} is accepted", overlap.as_secs(), OVERLAP_MAX.as_secs());
            return Err(Invalid::new("overlap_seconds", reason).into());
        }
        let Successor { of, token } = successor;
        let ms = i64::try_from(overlap.as_millis()).expect("at most thirty days");
        let expires_at = EventTime(now.0.saturating_add(ms));
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES_MAX {
            let (old, old_digest, version) = self.stored(&of.id).await?.ok_or_else(|| KeyError::Unknown(of.id.clone()))?;
            if let Some(end) = old.end {
                return Err(KeyError::Replaced(end.replaced_by));
            }
            let mut grant = old.grant.clone();
            if let Grant::Publishable { token: shown, .. } = &mut grant {
                shown.clone_from(&token);
            }
            let (new, digest) = Stored::of(&old.name, now, grant, &token);
            let end = StoredEnd { expires_at_ms: expires_at.0, replaced_by: id(&digest) };
            let old = Stored { end: Some(end), ..old };
            let steps = [
                Step::insert(sort(KEY, &id(&digest)), encode(&new), None),
                Step::replace(sort(KEY, &of.id), version, encode(&old), None),
            ];
            if self.transact(&steps).await? {
                self.remember(&of.id, old_digest, &old);
                let made = NewKey { key: self.remember(&id(&digest), digest, &new), token };
                return Ok(Rotated { made, replaces: of.id.clone(), expires_at });
            }
        }
        Err(contended().into())
    }

    /// All keys, the oldest first; those that have ended as long as they were not swept away.
    pub fn list(&self) -> Vec<Arc<Key>> {
        let mut keys: Vec<Arc<Key>> = self.keys.read().values().map(|held| held.key.clone()).collect();
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        keys
    }

    /// Where it is noted when a key was last used; `None` if there is none of that id.
    pub fn last_use(&self, id: &str) -> Option<Arc<LastUse>> {
        self.keys.read().get(id).map(|held| held.used.clone())
    }

    /// Whether there is a key of that id, and it has not ended.
    pub fn is_good(&self, id: &str, now: EventTime) -> bool {
        self.keys.read().get(id).is_some_and(|held| held.key.is_good(now))
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
        self.delete(id).await
    }

    /// Writes when the keys were last used. It never moves back, whoever else writes it; repeating it changes nothing.
    ///
    /// # Errors
    /// What the store says; the next call writes it.
    pub async fn save_uses(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let unsaved: Vec<(String, Arc<LastUse>, EventTime)> = {
            let keys = self.keys.read();
            keys.iter().filter_map(|(id, held)| Some((id.clone(), held.used.clone(), held.used.unsaved()?))).collect()
        };
        for (id, used, at) in unsaved {
            self.save_use(&id, at).await?;
            used.saved(at);
        }
        Ok(())
    }

    async fn save_use(&self, id: &str, at: EventTime) -> Result<(), StoreError> {
        let sort = sort(USED, id);
        for _ in 0..TRIES_MAX {
            // Of a key that was revoked meanwhile nothing is written.
            let Some((.., key)) = self.stored(id).await? else { return Ok(()) };
            let there = self.records.read(TABLE, ALL, &sort, NOW).await?;
            let step = match there {
                Some(record) if used_at(&record.value).is_some_and(|stands| stands >= at) => return Ok(()),
                Some(record) => Step::replace(sort.clone(), record.version, encode(&at.0), None),
                None => Step::insert(sort.clone(), encode(&at.0), None),
            };
            if self.transact(&[step, Step::check(self::sort(KEY, id), Expect::Version(key))]).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Deletes the keys that have ended, and returns how many.
    ///
    /// # Errors
    /// What the store says. They are refused all the same; the next call deletes them.
    pub async fn sweep(&self, now: EventTime) -> Result<usize, StoreError> {
        let _turn = self.turn.lock().await;
        let ended: Vec<String> = {
            let keys = self.keys.read();
            keys.iter().filter(|(_, held)| !held.key.is_good(now)).map(|(id, _)| id.clone()).collect()
        };
        for id in &ended {
            self.delete(id).await?;
        }
        Ok(ended.len())
    }

    /// Deletes a key with what lies beside it. The caller holds the turn.
    async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        for _ in 0..TRIES_MAX {
            let mut steps = Vec::new();
            for sort in [sort(KEY, id), sort(USED, id)] {
                let record = self.records.read(TABLE, ALL, &sort, NOW).await?;
                steps.extend(record.map(|record| Step::delete(sort, record.version)));
            }
            if steps.is_empty() || self.transact(&steps).await? {
                let deleted = self.keys.write().remove(id);
                self.version.fetch_add(1, Ordering::AcqRel);
                return Ok(deleted.is_some());
            }
        }
        Err(contended())
    }

    /// The key that a token stands for, if it is good at that time. The digest is compared in constant time.
    pub fn verify(&self, presented: &str, now: EventTime) -> Option<Arc<Key>> {
        if presented.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let presented = digest(presented);
        let keys = self.keys.read();
        let held = keys.get(&id(&presented))?;
        (bool::from(held.digest.ct_eq(&presented)) && held.key.is_good(now)).then(|| held.key.clone())
    }
}

fn sort(kind: &str, id: &str) -> Vec<u8> {
    format!("{kind}{id}").into_bytes()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

fn used_at(value: &[u8]) -> Option<EventTime> {
    serde_json::from_slice(value).ok().map(EventTime)
}

fn contended() -> StoreError {
    StoreError::Unavailable("too many changes of the keys at once; try again".into())
}

async fn read_all(records: &dyn RecordStore) -> Result<Keys, StoreError> {
    let mut keys = Keys::default();
    let mut range = Range::default();
    loop {
        // Keys come before their uses.
        let page = records.scan(TABLE, ALL, &range, PAGE_MAX, NOW).await?;
        for (sort, record) in &page {
            let sort = String::from_utf8_lossy(sort);
            if let Some(id) = sort.strip_prefix(KEY) {
                let (stored, digest) = read(id, &record.value)?;
                keys.insert(id.to_owned(), Held { digest, key: Arc::new(stored.key(id)), used: Arc::default() });
            } else if let Some((held, at)) = sort.strip_prefix(USED).and_then(|id| keys.get(id)).zip(used_at(&record.value)) {
                held.used.saved(at);
            }
        }
        if page.len() < PAGE_MAX {
            return Ok(keys);
        }
        range.after = page.last().map(|(sort, _)| sort.clone());
    }
}

/// Moves the keys of an installation that kept them as named values, as earlier versions did. Repeating it changes nothing.
///
/// # Errors
/// What either store says; what was not moved stays where it was.
pub async fn move_from_named_values(records: &dyn RecordStore, named: &dyn NamedValues) -> Result<(), StoreError> {
    const BEFORE: [&str; 3] = ["key:", "key-end:", "key-used:"];
    let found = named.scan("key").await?;
    let beside = |prefix: &str, id: &str| found.iter().find(|(name, _)| name.strip_prefix(prefix) == Some(id));
    for (name, value) in &found {
        let Some(id) = name.strip_prefix(BEFORE[0]) else { continue };
        let (mut stored, _) = read(id, value)?;
        if let Some((_, end)) = beside(BEFORE[1], id) {
            stored.end = Some(serde_json::from_slice(end).map_err(|_| does_not_read(id))?);
        }
        let mut steps = vec![Step::insert(sort(KEY, id), encode(&stored), None)];
        steps.extend(beside(BEFORE[2], id).map(|(_, at)| Step::insert(sort(USED, id), at.clone(), None)));
        // A conflict: it was moved before.
        records.transact(TABLE, ALL, &steps, NOW).await?;
    }
    for (name, _) in found.iter().filter(|(name, _)| BEFORE.iter().any(|prefix| name.starts_with(prefix))) {
        named.delete(name).await?;
    }
    Ok(())
}

impl Stored {
    fn of(name: &str, created_at: EventTime, grant: Grant, token: &str) -> (Self, TokenDigest) {
        let digest = digest(token);
        (Self { name: name.to_owned(), created_at_ms: created_at.0, sha256: hex(&digest), end: None, grant }, digest)
    }

    fn key(&self, id: &str) -> Key {
        let end = self.end.clone().map(|end| End { expires_at: EventTime(end.expires_at_ms), replaced_by: end.replaced_by });
        let (name, grant) = (self.name.clone(), self.grant.clone());
        Key { id: id.to_owned(), name, created_at: EventTime(self.created_at_ms), end, grant }
    }
}

fn does_not_read(id: &str) -> StoreError {
    StoreError::Corrupt(format!("the API key {id} does not read"))
}

fn read(id: &str, value: &[u8]) -> Result<(Stored, TokenDigest), StoreError> {
    let parsed = || {
        let stored: Stored = serde_json::from_slice(value).ok()?;
        let mut digest = TokenDigest::default();
        if stored.sha256.len() != 2 * digest.len() {
            return None;
        }
        for (n, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(stored.sha256.get(2 * n..2 * n + 2)?, 16).ok()?;
        }
        (self::id(&digest) == id).then_some((stored, digest))
    };
    parsed().ok_or_else(|| does_not_read(id))
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

fn check_origins(origins: &[String]) -> Result<(), Invalid> {
    if origins.is_empty() || origins.len() > ORIGINS_MAX {
        return Err(Invalid::new("origins", format!("has {} entries; from 1 to {ORIGINS_MAX} are accepted", origins.len())));
    }
    for (n, origin) in origins.iter().enumerate() {
        check_origin(origin).map_err(|reason| Invalid::new(format!("origins[{n}]"), reason))?;
    }
    Ok(())
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
    use crate::records::embedded::EmbeddedRecords;

    const AT: EventTime = EventTime(1_767_600_000_000);

    fn store(dir: &tempfile::TempDir) -> Arc<dyn RecordStore> {
        Arc::new(EmbeddedRecords::open(&dir.path().join("records")).unwrap())
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
            assert!(keys.verify(&gone.token, AT).is_some());
            assert!(keys.revoke(&gone.key.id).await.unwrap());
            assert!(!keys.revoke(&gone.key.id).await.unwrap());
            assert_eq!(keys.verify(&gone.token, AT), None);
            (service, public, gone)
        };
        let keys = KeyStore::open(store(&dir)).await.unwrap();
        assert_eq!(keys.list(), [service.key.clone(), public.key.clone()]);
        assert_eq!(keys.verify(&service.token, AT).unwrap(), service.key);
        assert_eq!(keys.verify(&public.token, AT).unwrap(), public.key);
        assert_eq!(keys.verify(&gone.token, AT), None);
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
        assert_eq!(other.verify(&made.token, AT), None);
        other.refresh().await.unwrap();
        assert_eq!(other.verify(&made.token, AT).unwrap(), made.key);
        let version = other.version();
        other.refresh().await.unwrap();
        assert_eq!(other.version(), version, "nothing changed");
        one.revoke(&made.key.id).await.unwrap();
        other.refresh().await.unwrap();
        assert_eq!(other.verify(&made.token, AT), None);
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
        for (_, record) in store.scan(TABLE, ALL, &Range::default(), 10, NOW).await.unwrap() {
            assert!(!String::from_utf8_lossy(&record.value).contains(secret));
        }
        assert!(!serde_json::to_string(&*made.key).unwrap().contains(secret) && !format!("{made:?}").contains(secret));
    }

    /// If it failed, whoever upgrades would have to make new keys and put them into every page and server.
    #[tokio::test]
    async fn keys_of_before_are_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (records, before) = (store(&dir), EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let (stored, digest) = Stored::of("shop server", AT, Grant::Service, "kd_sk_x");
        let (id, named): (_, &dyn NamedValues) = (id(&digest), &before);
        named.put(&format!("key:{id}"), &encode(&stored)).await.unwrap();
        let end = br#"{"expires_at_ms":1767600060000,"replaced_by":"a"}"#;
        named.put(&format!("key-end:{id}"), end).await.unwrap();
        named.put(&format!("key-used:{id}"), b"1767600000000").await.unwrap();
        named.put("fingerprint", b"x").await.unwrap();
        for _ in 0..2 {
            move_from_named_values(&*records, named).await.unwrap();
            let keys = KeyStore::open(records.clone()).await.unwrap();
            let key = keys.verify("kd_sk_x", AT).unwrap();
            assert_eq!((&*key.name, keys.last_use(&id).unwrap().at()), ("shop server", Some(AT)));
            assert_eq!(key.end, Some(End { expires_at: EventTime(AT.0 + 60_000), replaced_by: "a".into() }));
        }
        let left: Vec<String> = named.scan("").await.unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["fingerprint"]);
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
            assert_eq!(keys.verify(wrong, AT), None);
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
