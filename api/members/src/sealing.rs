//! What is stored sealed: signing seeds, TOTP secrets, and the secret that refresh tokens and other marks are derived from. Whoever reads
//! the database alone, or a copy of it, can neither sign nor pass a second factor.
//!
//! ```text
//! members.sealing.key: KEY KEY …      the first seals, all of them open
//! value ──▶ "sealed.1." base64(nonce, ChaCha20-Poly1305(value; what it is and whose))
//! ```
//!
//! Without a key values are stored as they are. What was stored so, or under a key that is not the first, is read, and sealed under the
//! first when it is written next.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::error::{MemberError, Result};
use crate::random;

/// How a sealed value begins. No value that is stored as it is does: they are base64 or base32.
const SEALED: &str = "sealed.1.";

/// The keys.
pub(crate) struct Sealing(Vec<LessSafeKey>);

/// A new key, as `members.sealing.key` and key files hold it.
pub fn draw_sealing_key() -> String {
    random::text::<32>()
}

impl Sealing {
    /// Of the text of `members.sealing.key`: keys with white space between.
    pub fn new(keys: &str) -> Result<Self> {
        let key = |text: &str| {
            let bytes = random::decode(text).filter(|bytes| bytes.len() == 32);
            let key = bytes.and_then(|bytes| UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok());
            let wrong = "a key of members.sealing is not 32 bytes in base64url without padding, which has 43 characters";
            key.map(LessSafeKey::new).ok_or_else(|| MemberError::Internal(wrong.to_owned()))
        };
        keys.split_whitespace().map(key).collect::<Result<_>>().map(Self)
    }

    /// Whether a value is stored as it would be written now.
    pub fn is_current(&self, what: &str, stored: &str) -> bool {
        match (self.0.first(), stored.strip_prefix(SEALED)) {
            (None, sealed) => sealed.is_none(),
            (Some(first), Some(sealed)) => open(first, what, sealed).is_some(),
            (Some(_), None) => false,
        }
    }

    /// The value as it is stored. `what` says what it is and whose: sealed as another's it does not open.
    pub fn seal(&self, what: &str, value: &str) -> Result<String> {
        let Some(key) = self.0.first() else { return Ok(value.to_owned()) };
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let mut bytes = value.as_bytes().to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(what), &mut bytes)
            .map_err(|_| MemberError::Internal("a secret could not be sealed".into()))?;
        Ok(format!("{SEALED}{}", random::encode(&[&nonce[..], &bytes].concat())))
    }

    /// The value of what is stored.
    pub fn open(&self, what: &str, stored: &str) -> Result<String> {
        let Some(sealed) = stored.strip_prefix(SEALED) else { return Ok(stored.to_owned()) };
        let opened = self.0.iter().find_map(|key| open(key, what, sealed));
        opened.ok_or_else(|| {
            let reason = if self.0.is_empty() { "and no key is set" } else { "and none of the keys that are set opens it" };
            MemberError::Internal(format!("{what} is sealed, {reason}: set members.sealing.key or members.sealing.key_file"))
        })
    }
}

fn open(key: &LessSafeKey, what: &str, sealed: &str) -> Option<String> {
    let bytes = random::decode(sealed)?;
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
    let mut sealed = sealed.to_vec();
    let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(what), &mut sealed).ok()?;
    String::from_utf8(opened.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V13.3.1: if it failed, a value could be read without the key, or put in the place of another.
    #[test]
    fn a_value_opens_under_its_key_and_in_its_place_alone() {
        let (one, other) = (draw_sealing_key(), draw_sealing_key());
        let sealing = |keys: &str| Sealing::new(keys).unwrap();
        let sealed = sealing(&one).seal("totp of m1", "JBSWY3DP").unwrap();
        assert!(sealed.starts_with(SEALED) && !sealed.contains("JBSWY3DP"));
        assert_eq!(sealing(&one).open("totp of m1", &sealed).unwrap(), "JBSWY3DP");
        assert_eq!(sealing(&format!("{other}\n{one}\n")).open("totp of m1", &sealed).unwrap(), "JBSWY3DP");
        for (keys, what) in [("", "totp of m1"), (other.as_str(), "totp of m1"), (one.as_str(), "totp of m2")] {
            assert!(sealing(keys).open(what, &sealed).is_err(), "{what}");
        }
        assert_eq!(sealing(&one).open("totp of m1", "JBSWY3DP").unwrap(), "JBSWY3DP", "what was stored before there was a key");
        assert!(sealing(&one).is_current("totp of m1", &sealed));
        assert!(!sealing(&format!("{other} {one}")).is_current("totp of m1", &sealed));
        assert!(!sealing(&one).is_current("totp of m1", "JBSWY3DP") && sealing("").is_current("totp of m1", "JBSWY3DP"));
        assert!(Sealing::new("short").is_err());
    }
}
