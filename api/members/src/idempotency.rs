//! What is asked for again under one `Idempotency-Key` is done once, whichever process is asked.
//!
//! ```text
//! absent ──begin_once──▶ under way (a lease) ──keep_answer──▶ answered (24 h)
//!   ▲                         │
//!   └──free_key, or the lease is over
//! ```
//!
//! An answer may hold what is told once (the text of a key, a TOTP secret), and a request a password. So the record is sealed under the
//! caller's key, of which nothing is stored: whoever reads the store reads neither.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::base::Idempotency;
use crate::db::IDEMPOTENCY;
use crate::error::{MemberError, Result};
use crate::random;

/// How long an answer is kept, seconds.
pub const ANSWER_S: u64 = 86_400;
/// Bytes of an answer that is kept: those of a person or an administrator have some hundreds.
pub const ANSWER_BYTES_MAX: usize = 128 << 10;
const SORT: &str = "answer";

/// What lies under a key.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// The keyed digest of the request.
    request: String,
    /// Whose turn it is: one whose lease is over does not write over the next one.
    attempt: String,
    /// Sealed; none while it is under way.
    answer: Option<String>,
}

/// What is to become of a request that names a key.
pub enum Once {
    /// It is the first: do it, then [`Idempotency::keep_answer`] or [`Idempotency::free_key`].
    First(Attempt),
    /// It was done; this was answered.
    Answered(Vec<u8>),
    /// Another is doing it.
    UnderWay,
    /// The key was of another request.
    AnotherRequest,
}

/// A request that is being done under a key.
pub struct Attempt {
    seal: [u8; 32],
    id: String,
}

impl Attempt {
    fn partition(&self) -> String {
        random::encode(&random::mac(&self.seal, "place", &[]))
    }

    fn sealing(&self) -> LessSafeKey {
        let key = random::mac(&self.seal, "answer", &[]);
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key of this cipher has 32 bytes"))
    }

    fn sealed(&self, answer: &[u8]) -> Result<String> {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let mut bytes = answer.to_vec();
        self.sealing()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes)
            .map_err(|_| MemberError::Internal("an answer could not be sealed".into()))?;
        Ok(random::encode(&[&nonce[..], &bytes].concat()))
    }

    fn opened(&self, sealed: &str) -> Option<Vec<u8>> {
        let bytes = random::decode(sealed)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let opened = self.sealing().open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut sealed).ok()?;
        Some(opened.to_vec())
    }
}

impl Idempotency {
    /// Begins a request, unless one of the same key has begun. `who` is the caller, whose keys are their own; `request` is all that
    /// makes it this one; another may begin it anew after `lease_s`, for the process that does it may die.
    ///
    /// # Errors
    /// What the store says.
    pub async fn begin_once(&self, who: &str, key: &str, request: &[&str], lease_s: u64) -> Result<Once> {
        let attempt = Attempt { seal: random::mac(&self.marks.0, "idempotency", &[who, key]), id: random::text::<16>() };
        let request = random::encode(&random::mac(&attempt.seal, "request", request));
        let (partition, lease) = (attempt.partition(), Some(self.db.in_s(lease_s)));
        let begun = self.db.update(IDEMPOTENCY, &partition, SORT, |held: Option<Entry>| match held {
            None => {
                let entry = Entry { request: request.clone(), attempt: attempt.id.clone(), answer: None };
                (Some((entry, lease)), Ok(None))
            }
            Some(entry) if !random::same(&entry.request, &request) => (None, Err(Once::AnotherRequest)),
            Some(Entry { answer: None, .. }) => (None, Err(Once::UnderWay)),
            Some(Entry { answer: Some(sealed), .. }) => (None, Ok(Some(sealed))),
        });
        match begun.await? {
            Ok(None) => Ok(Once::First(attempt)),
            Ok(Some(sealed)) => {
                let damaged = || MemberError::Internal("a kept answer is damaged".into());
                attempt.opened(&sealed).map(Once::Answered).ok_or_else(damaged)
            }
            Err(otherwise) => Ok(otherwise),
        }
    }

    /// Keeps what was answered, for [`ANSWER_S`].
    ///
    /// # Errors
    /// What the store says; it stays under way until its lease is over.
    pub async fn keep_answer(&self, attempt: &Attempt, answer: &[u8]) -> Result<()> {
        if answer.len() > ANSWER_BYTES_MAX {
            return self.free_key(attempt).await;
        }
        let (sealed, until) = (attempt.sealed(answer)?, Some(self.db.in_s(ANSWER_S)));
        let kept = |held: Option<Entry>| {
            let own = held.filter(|entry| entry.attempt == attempt.id && entry.answer.is_none());
            (own.map(|entry| (Entry { answer: Some(sealed.clone()), ..entry }, until)), ())
        };
        self.db.update(IDEMPOTENCY, &attempt.partition(), SORT, kept).await
    }

    /// It was not done: the key is free again.
    ///
    /// # Errors
    /// As [`Idempotency::keep_answer`].
    pub async fn free_key(&self, attempt: &Attempt) -> Result<()> {
        // Expired is as good as absent, and what another has begun meanwhile stays.
        let now = Some(self.db.now());
        let over = |held: Option<Entry>| (held.filter(|entry| entry.attempt == attempt.id).map(|entry| (entry, now)), ());
        self.db.update(IDEMPOTENCY, &attempt.partition(), SORT, over).await
    }
}
