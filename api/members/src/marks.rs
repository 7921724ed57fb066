//! What this installation has given out and recognises again (cursors, challenges, refresh tokens, marks of browsers), and keys that
//! name no one.

use kindred_store::records::Step;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::db::{self, Db};
use crate::error::{MemberError, Result};
use crate::random;
use crate::sealing::Sealing;

/// Longest sealed value that is looked at.
const SEALED_BYTES_MAX: usize = 4_096;

/// The secret under which marks are made: one for all processes, kept in records.
#[derive(Clone)]
pub(crate) struct Marks(pub [u8; 32]);

impl Marks {
    /// The first process to ask makes the secret.
    pub async fn open(db: &Db, sealing: &Sealing) -> Result<Self> {
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
        random::decode(&secret).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(damaged)
    }

    /// A value that only we can have written, readable by whoever holds it.
    pub fn seal<T: Serialize>(&self, purpose: &str, value: &T) -> String {
        let body = random::encode(&serde_json::to_vec(value).expect("our values serialise"));
        format!("{body}.{}", self.digest(purpose, &[&body]))
    }

    /// The value, if we wrote it for this purpose.
    pub fn unseal<T: DeserializeOwned>(&self, purpose: &str, text: &str) -> Option<T> {
        let (body, mac) = text.split_once('.').filter(|_| text.len() <= SEALED_BYTES_MAX)?;
        let ours = random::same(mac, &self.digest(purpose, &[body]));
        serde_json::from_slice(&random::decode(body).filter(|_| ours)?).ok()
    }

    /// A keyed digest.
    pub fn digest(&self, purpose: &str, parts: &[&str]) -> String {
        random::encode(&random::mac(&self.0, purpose, parts))
    }

    /// A key that names no one: it is stored for hours, and an address is a person's.
    pub fn key(&self, purpose: &str, parts: &[&str]) -> String {
        random::encode(&random::mac(&self.0, purpose, parts)[..16])
    }
}
