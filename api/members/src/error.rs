//! What can go wrong, as a caller acts on it. Each has a stable machine code; the text for people is in [`crate::messages`].

use kindred_config::members::Language;
use kindred_store::StoreError;

use crate::permission::Permission;

/// A field that was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// The field.
    pub field: &'static str,
    /// Stable code: the key of its message.
    pub code: &'static str,
    /// What would be accepted, where it depends on the settings.
    pub named: Option<String>,
}

impl FieldError {
    /// One about which nothing more is to be said.
    pub(crate) const fn of(field: &'static str, code: &'static str) -> Self {
        Self { field, code, named: None }
    }
}

/// Why something was not done.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MemberError {
    /// Fields that are not accepted, each with its code (422).
    #[error("{} fields are not accepted", .0.len())]
    Invalid(Vec<FieldError>),
    /// The username is somebody's (409).
    #[error("the username is taken")]
    UsernameTaken,
    /// One of username, phone, e-mail is somebody's; said only where the settings say so, or to whoever has signed in (409).
    #[error("username, phone or e-mail is taken")]
    IdentifierTaken,
    /// The challenge is not solved, not ours, expired or spent (422).
    #[error("the challenge is not solved, expired or used before")]
    ChallengeFailed,
    /// A code is wrong, expired or spent (422).
    #[error("the code is wrong or expired")]
    CodeWrong,
    /// A token of a mail is spent, expired or was never given (410).
    #[error("the link is used or expired")]
    TokenGone,
    /// Who asks is not known, or the credentials are wrong: one answer for all of it (401).
    #[error("not signed in")]
    Unauthenticated,
    /// The password that was asked for again is wrong or missing (403).
    #[error("the current password is wrong")]
    ReauthenticationFailed,
    /// The permission is missing (403).
    #[error("this needs {}", .0.name())]
    Forbidden(Permission),
    /// There is none (404).
    #[error("there is none")]
    NotFound,
    /// It was changed meanwhile (412).
    #[error("it was changed meanwhile")]
    Changed,
    /// The state does not allow it (409); why, by a code of [`crate::messages`].
    #[error("{}", crate::messages::text(.0, Language::En).unwrap_or(.0))]
    Refused(&'static str),
    /// Too often (429).
    #[error("too many tries; wait {retry_after_s} s")]
    Throttled {
        /// When it may be tried again, seconds.
        retry_after_s: u32,
    },
    /// As many passwords wait to be hashed as may (503).
    #[error("too much to do; try again in a second")]
    Busy,
    /// The store did not do it, or not for certain; trying again helps (503).
    #[error("{0}")]
    Store(String),
    /// The store has no room left: it did not happen, and trying again helps once somebody makes room (507).
    #[error("{0}")]
    Full(String),
    /// Something of ours is wrong; logged where it was noticed (500).
    #[error("internal: {0}")]
    Internal(String),
}

impl From<StoreError> for MemberError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Store(error.to_string()),
            StoreError::Full(_) => Self::Full(error.to_string()),
            // Trying again helps with neither, so nobody is told to.
            StoreError::Refused(_) | StoreError::Corrupt(_) => {
                tracing::error!(%error, "the store of members is damaged, or refuses what it is given");
                Self::Internal(error.to_string())
            }
        }
    }
}

impl MemberError {
    /// One field.
    pub(crate) fn field(field: &'static str, code: &'static str) -> Self {
        Self::Invalid(vec![FieldError::of(field, code)])
    }

    /// The stable code of the answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::UsernameTaken => "username_taken",
            Self::IdentifierTaken => "identifier_taken",
            Self::ChallengeFailed => "challenge_failed",
            Self::CodeWrong => "code_wrong",
            Self::TokenGone => "token_gone",
            Self::Unauthenticated => "unauthenticated",
            Self::ReauthenticationFailed => "reauthentication_failed",
            Self::Forbidden(_) => "insufficient_scope",
            Self::NotFound => "not_found",
            Self::Changed => "changed",
            Self::Refused(_) => "refused",
            Self::Throttled { .. } => "throttled",
            Self::Busy => "busy",
            Self::Store(_) => "store_unavailable",
            Self::Full(_) => "store_full",
            Self::Internal(_) => "internal",
        }
    }
}

/// What the functions of this crate give.
pub type Result<T, E = MemberError> = std::result::Result<T, E>;
