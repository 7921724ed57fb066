//! Secrets and ids. A secret is 32 bytes of the system's generator (V11.5.1); a uuid names a thing and is no secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use uuid::{NoContext, Timestamp, Uuid};

use kindred_model::units::EventTime;

/// Random bytes.
///
/// # Panics
/// Where the system has none: nothing may go on with guessable secrets.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// `N` random bytes as text for URLs and headers.
pub(crate) fn text<const N: usize>() -> String {
    encode(&bytes::<N>())
}

/// Six digits, each of the million equally likely: 19.9 bits, as ASVS V6.5.4 takes for codes that live minutes.
pub(crate) fn digits() -> String {
    loop {
        // Above the last multiple of a million the first ones would be likelier.
        let drawn = u32::from_be_bytes(bytes());
        if drawn < 4_294_000_000 {
            return format!("{:06}", drawn % 1_000_000);
        }
    }
}

/// A name for a thing that is made at `now`, in the order of making.
pub(crate) fn id(now: EventTime) -> String {
    let ms = now.0.max(0) as u64;
    Uuid::new_v7(Timestamp::from_unix(NoContext, ms / 1_000, (ms % 1_000) as u32 * 1_000_000)).to_string()
}

/// Digits 0 to f.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 for URLs, without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// And back.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// What is stored of a secret of 32 random bytes: nothing slower is needed against guessing 256 bits.
pub(crate) fn digest(secret: &str) -> String {
    encode(&Sha256::digest(secret.as_bytes()))
}

/// A keyed digest of parts; no two lists of parts give the same input.
pub(crate) fn mac(key: &[u8; 32], purpose: &str, parts: &[&str]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length of key is taken");
    for part in std::iter::once(&purpose).chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

/// Whether two texts are equal, in a time that does not say where they differ.
pub(crate) fn same(one: &str, other: &str) -> bool {
    bool::from(subtle::ConstantTimeEq::ct_eq(one.as_bytes(), other.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V11.5.1, V6.5.3: if it failed, tokens could be guessed.
    #[test]
    fn v11_5_1_secrets_are_random() {
        let drawn: std::collections::HashSet<String> = (0..1_000).map(|_| text::<32>()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|text| decode(text).is_some_and(|bytes| bytes.len() == 32)));
        let codes: Vec<String> = (0..20_000).map(|_| digits()).collect();
        assert!(codes.iter().all(|code| code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit())));
        for digit in b'0'..=b'9' {
            let leading = codes.iter().filter(|code| code.as_bytes()[0] == digit).count();
            assert!((1_700..2_300).contains(&leading), "{leading} of 20000 begin with {}", digit as char);
        }
        assert_ne!(mac(&[7; 32], "p", &["ab", "c"]), mac(&[7; 32], "p", &["a", "bc"]));
    }
}
