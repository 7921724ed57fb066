//! People: registration, sign-in, their own account, and the administration of members. Rules and state are
//! [`kindred_members`]'s; here is what they look like over HTTP.
//!
//! ```text
//! Request + body ──▶ handler ──▶ Members ──▶ JSON, or a Problem in the language of who asks
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

/// All endpoints of people's own side.
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
