//! What reads the tokens and solutions that callers send, for `fuzz/edges.rs` and tests.

use std::sync::LazyLock;

use kindred_config::members::PasswordConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::marks::Marks;
use crate::password::Policy;
use crate::{Identifier, Kind, MemberError, Solution, challenge, claims, codes, sessions};

const MARKS: Marks = Marks([7; 32]);

/// A link's token as member and secret.
pub fn link_token(text: &str) -> Option<(&str, &str)> {
    codes::split_token(text).ok()
}

/// A refresh token as member, session, secret and mark.
pub fn refresh_token(text: &str) -> Option<[&str; 4]> {
    sessions::split_refresh(text)
}

/// A cursor or a challenge as it is given out, under a secret that is none.
pub fn seal<T: Serialize>(purpose: &str, value: &T) -> String {
    MARKS.seal(purpose, value)
}

/// And as it comes back.
pub fn unseal<T: DeserializeOwned>(purpose: &str, text: &str) -> Option<T> {
    MARKS.unseal(purpose, text)
}

/// Whether a proof of work is one of so many bits.
pub fn solves(solution: &Solution, bits: u32) -> bool {
    solution.solves(bits)
}

/// Where the claim of an identifier lies, by its canonical form: for the tests that look into the store.
pub fn claim_of(kind: Kind, canonical: &str) -> String {
    claims::partition(&Identifier { kind, shown: canonical.to_owned(), canonical: canonical.to_owned() })
}

/// Why a password is refused, by the rules of a shop with the usual settings; `None` where it is accepted.
pub fn judge(password: &str) -> Option<&'static str> {
    static POLICY: LazyLock<Policy> =
        LazyLock::new(|| Policy::new(&PasswordConfig::default(), "Tea House").expect("there is no file to read"));
    match POLICY.check(&password.to_owned().into(), &["margaret", "mara.quill@example.com"], false) {
        Err(MemberError::Invalid(errors)) => Some(errors[0].code),
        _ => None,
    }
}

/// What counts as one address.
pub fn address_group(address: &str) -> String {
    challenge::address_group(address)
}
