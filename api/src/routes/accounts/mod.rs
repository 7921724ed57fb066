//! Accounts over HTTP: registration, sign-in, own account, member administration. Rules and state are in [`kindred_members`].
//!
//! ```text
//! Request + body ──▶ handler ──▶ Members ──▶ JSON, or a Problem in the language of the client
//! ```

pub(crate) mod cookies;
pub(crate) mod credentials;
pub(crate) mod export;
pub(crate) mod factor;
pub(crate) mod jwks;
pub(crate) mod own_sessions;
pub(crate) mod profile;
pub(crate) mod registration;
pub(crate) mod sessions;
pub(crate) mod staff;

use super::endpoint::Endpoint;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let modules = [
        profile::endpoints(),
        export::endpoints(),
        own_sessions::endpoints(),
        credentials::endpoints(),
        factor::endpoints(),
        registration::endpoints(),
        sessions::endpoints(),
        jwks::endpoints(),
    ];
    modules.into_iter().flatten().collect()
}
