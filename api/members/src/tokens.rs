//! Access tokens: JWT as RFC 9068 profiles them, signed with EdDSA by a ring of keys that all processes share.
//!
//! ```text
//! secrets[keys]/NUMBER ──▶ ring in memory ──▶ signs: the newest that every process has had time to read
//!                                         └─▶ checks: all of it, by `kid`; nothing a token names is ever fetched
//! ```
//!
//! A key is published some minutes before it signs and goes on checking for as long as its last token lives. Where a key may have leaked,
//! all are withdrawn at once: what they signed is worthless, and everybody refreshes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kindred_model::units::EventTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::db::{self, Db, Held, SECRETS, ms};
use crate::error::{MemberError, Result};
use crate::permission::{Actor, Permission};
use crate::random;
use crate::sealing::Sealing;
use kindred_config::members::TokenConfig;
use kindred_store::records::Step;

const KEYS: &str = "keys";
/// Between the writing of a key and its first signature, seconds: every process reads the ring within a minute.
const PUBLISHED_S: u64 = 300;
/// By how much clocks may differ, seconds.
const LEEWAY_S: i64 = 5;
/// Checked tokens that are remembered: a signature costs more to check than all the rest of a request.
const REMEMBERED_MAX: u64 = 100_000;
/// The last second that a token may name: 9999-12-31. Sums of it and of leeways are far from the end of an i64.
const SECONDS_MAX: i64 = 253_402_300_799;
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 4_096;
/// `acr` of a password alone, and with a second factor.
pub(crate) const ACR: [&str; 2] = ["aal1", "aal2"];

/// The claims of an access token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Issuer.
    pub iss: String,
    /// The member.
    pub sub: String,
    /// Who it is for.
    pub aud: String,
    /// The client.
    pub client_id: String,
    /// Seconds since 1970: until when it is good.
    pub exp: i64,
    /// From when.
    pub nbf: i64,
    /// When it was made.
    pub iat: i64,
    /// Its own id.
    pub jti: String,
    /// What may be done, words with spaces between.
    pub scope: String,
    /// The session.
    pub sid: String,
    /// When the person signed in.
    pub auth_time: i64,
    /// How: `aal1` by password, `aal2` with a second factor.
    pub acr: String,
    /// The epoch of the account that the session belongs to: what is revoked is named by it.
    #[serde(default)]
    pub epoch: u64,
    /// The key that its signature was checked with: it is good for as long as that is in the ring. No claim.
    #[serde(skip)]
    pub(crate) kid: String,
}

impl AccessClaims {
    /// What its holder may.
    pub fn permissions(&self) -> Vec<Permission> {
        self.scope.split(' ').filter_map(Permission::of).collect()
    }

    /// Whether it is good at a time, clocks apart by [`LEEWAY_S`] at most, where tokens live for so long.
    fn hold_at(&self, now: EventTime, access_s: u32) -> bool {
        let seconds = now.0.div_euclid(1_000);
        let times = [self.exp, self.iat, self.nbf].into_iter().all(|at| (0..=SECONDS_MAX).contains(&at));
        times
            && self.exp - self.iat <= i64::from(access_s)
            && seconds < self.exp + LEEWAY_S
            && self.nbf.max(self.iat) <= seconds + LEEWAY_S
    }

    /// Its holder, coming from an address.
    pub fn actor(&self, address: &str) -> Actor {
        Actor { id: self.sub.clone(), permissions: self.permissions(), address: address.to_owned() }
    }
}

/// A signing key as it is stored.
#[derive(Clone, Serialize, Deserialize)]
struct StoredKey {
    kid: String,
    /// The 32 bytes of the private key.
    seed: String,
    /// The public key.
    x: String,
    #[serde(with = "ms")]
    signs_from: EventTime,
}

struct RingKey {
    stored: StoredKey,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Default)]
struct Ring {
    keys: BTreeMap<String, RingKey>,
}

/// The key ring, and the tokens that were checked with it.
pub(crate) struct Tokens {
    db: Db,
    config: TokenConfig,
    sealing: Arc<Sealing>,
    ring: ArcSwap<Ring>,
    checked: moka::sync::Cache<[u8; 32], Arc<AccessClaims>>,
}

impl Tokens {
    pub fn new(db: Db, config: TokenConfig, sealing: Arc<Sealing>) -> Self {
        let life = std::time::Duration::from_secs(u64::from(config.access_s) + 2 * LEEWAY_S.unsigned_abs());
        let checked = moka::sync::Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(life).build();
        Self { db, config, sealing, ring: ArcSwap::default(), checked }
    }

    /// Whether claims are good at a time, in the life that tokens have now and by the keys that are in the ring now.
    pub fn hold(&self, claims: &AccessClaims, now: EventTime) -> bool {
        claims.hold_at(now, self.config.access_s) && self.ring.load().keys.contains_key(&claims.kid)
    }

    /// Reads the ring; makes the first key, or the next when the newest has signed long enough.
    pub async fn refresh(&self, rotation: Rotation) -> Result<()> {
        let db = &self.db;
        let mut rotate_now = rotation != Rotation::WhenDue;
        for _ in db::tries() {
            let now = db.now();
            let mut ring = Ring::default();
            let stored: Vec<(String, Held<StoredKey>)> = db.all(SECRETS, KEYS, "").await?;
            let last = stored.last().map(|(number, held)| (number.clone(), held.clone()));
            let mut steps = Vec::new();
            for (number, held) in stored {
                let (what, version, until) = (seed_of(&held.value.kid), held.version, held.expires_at);
                if !self.sealing.is_current(&what, &held.value.seed) {
                    let seed = self.sealing.seal(&what, &self.sealing.open(&what, &held.value.seed)?)?;
                    let sealed = db::encode(&StoredKey { seed, ..held.value.clone() });
                    steps.push(Step::replace(number, version, sealed, until));
                }
                let key = ring_key(held.value, &self.sealing)?;
                ring.keys.insert(key.stored.kid.clone(), key);
            }
            self.ring.store(Arc::new(ring));
            if !steps.is_empty() {
                db.transact(SECRETS, KEYS, &steps).await?;
                continue; // Read again: their versions are others now.
            }
            let signed_s = u64::from(self.config.key_days) * 86_400;
            let due = last.as_ref().is_none_or(|(_, held)| db::after(held.value.signs_from, signed_s) <= now);
            if !due && !rotate_now {
                return Ok(());
            }
            // The number is the claim: of many processes that find it due, one makes the next key.
            let number: u64 = last.as_ref().map_or(0, |(number, _)| number.parse().unwrap_or(0)) + 1;
            let at_once = last.is_none() || rotation == Rotation::Withdraw;
            let signs_from = if at_once { now } else { db::after(now, PUBLISHED_S) };
            let key = new_key(signs_from, &self.sealing)?;
            if rotate_now && rotation == Rotation::Withdraw {
                // In one transaction: no process ever finds a ring without a key that signs.
                let stored: Vec<(String, Held<StoredKey>)> = db.all(SECRETS, KEYS, "").await?;
                let mut steps = vec![Step::insert(format!("{number:010}"), db::encode(&key), None)];
                steps.extend(stored.into_iter().map(|(sort, held)| Step::delete(sort, held.version)));
                rotate_now = !db.transact(SECRETS, KEYS, &steps).await?;
            } else if db.insert(SECRETS, KEYS, &format!("{number:010}"), &key, None).await? {
                rotate_now = false;
                if let Some((sort, held)) = last {
                    // Its last token is made just before the next key signs.
                    let until = db::after(signs_from, u64::from(self.config.access_s) + 3_600);
                    let step = Step::replace(sort, held.version, db::encode(&held.value), Some(until));
                    db.transact(SECRETS, KEYS, &[step]).await?;
                }
            }
        }
        Err(db::contended(SECRETS))
    }

    /// Signs.
    pub fn sign(&self, claims: &AccessClaims, now: EventTime) -> Result<String> {
        let ring = self.ring.load();
        let signing = ring.keys.values().filter(|key| key.stored.signs_from <= now).max_by_key(|key| key.stored.signs_from);
        let key = signing.ok_or_else(|| MemberError::Internal("there is no signing key".into()))?;
        let header = Header { typ: Some("at+jwt".into()), kid: Some(key.stored.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|error| MemberError::Internal(format!("signing: {error}")))
    }

    /// The claims of a token that is ours, for us, and good now. Whether its session was revoked is asked elsewhere.
    pub fn check(&self, token: &str, now: EventTime) -> Option<Arc<AccessClaims>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let claims = match self.checked.get(&digest) {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.decode(token)?);
                self.checked.insert(digest, claims.clone());
                claims
            }
        };
        self.hold(&claims, now).then_some(claims)
    }

    fn decode(&self, token: &str) -> Option<AccessClaims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // The library does not look at `typ`; `jku`, `jwk`, `x5u` are never looked at.
        if header.alg != Algorithm::EdDSA || !header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt")) {
            return None;
        }
        let ring = self.ring.load();
        let kid = header.kid?;
        let key = ring.keys.get(&kid)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[&self.config.audience]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        // The times are compared with our own clock, each time anew: the library knows the machine's alone.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = jsonwebtoken::decode::<AccessClaims>(token, &key.decoding, &validation).ok()?.claims;
        (claims.client_id == self.config.client_id).then_some(AccessClaims { kid, ..claims })
    }

    /// The public keys (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        let ring = self.ring.load();
        let key = |key: &RingKey| {
            serde_json::json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.stored.kid, "x": key.stored.x,
            })
        };
        serde_json::json!({ "keys": ring.keys.values().map(key).collect::<Vec<_>>() })
    }
}

/// When the next key is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// When the newest has signed long enough.
    WhenDue,
    /// Now; the ones before go on checking.
    Now,
    /// Now, and the ones before are withdrawn.
    Withdraw,
}

/// What the seed of a key is sealed as.
fn seed_of(kid: &str) -> String {
    format!("the signing key {kid}")
}

fn new_key(signs_from: EventTime, sealing: &Sealing) -> Result<StoredKey> {
    let seed = random::bytes::<32>();
    let x = random::encode(SigningKey::from_bytes(&seed).verifying_key().as_bytes());
    // RFC 7638: the digest of the public key names it.
    let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    let kid = random::encode(&thumbprint);
    let seed = sealing.seal(&seed_of(&kid), &random::encode(&seed))?;
    Ok(StoredKey { kid, seed, x, signs_from })
}

fn ring_key(stored: StoredKey, sealing: &Sealing) -> Result<RingKey> {
    let damaged = || MemberError::Internal("a signing key in the store is damaged".into());
    let seed = sealing.open(&seed_of(&stored.kid), &stored.seed)?;
    let seed: [u8; 32] = random::decode(&seed).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
    let der = SigningKey::from_bytes(&seed).to_pkcs8_der().map_err(|_| damaged())?;
    let decoding = DecodingKey::from_ed_components(&stored.x).map_err(|_| damaged())?;
    Ok(RingKey { encoding: EncodingKey::from_ed_der(der.as_bytes()), decoding, stored })
}
