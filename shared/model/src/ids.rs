//! Identities: opaque strings of 1 to 128 bytes of UTF-8 without control characters (DESIGN, Events).
//!
//! Because no identity holds a control character, `0x00` ends one in a key of the store and byte order is string order.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::records::Invalid;

/// The longest identity, in bytes. Long enough for two UUIDs and a prefix, short enough to be a key of any store.
pub const ID_BYTES_MAX: usize = 128;

/// Checks the form of an identity. `field` names it in the error.
///
/// # Errors
/// [`Invalid`] when it is empty, longer than [`ID_BYTES_MAX`] bytes, or holds a control character.
pub fn check_id(field: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    if text.len() > ID_BYTES_MAX {
        return Err(Invalid::new(field, format!("is {} bytes long; at most {ID_BYTES_MAX} are accepted", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not contain control characters"));
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            /// Takes an identity that comes from outside.
            ///
            /// # Errors
            /// [`Invalid`] when the text has not the form of an identity ([`check_id`]).
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                check_id($field, text)?;
                Ok(Self(Cow::Owned(text.to_owned())))
            }

            /// An identity that was checked before: read back from the store or from the interner.
            pub fn trusted(text: impl Into<Cow<'static, str>>) -> Self {
                Self(text.into())
            }

            /// The identity as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::parse(text)
            }
        }
    };
}

id_type!(
    /// An entry of a member's ledger.
    EntryId,
    "entry"
);
id_type!(
    /// What is sold or recommended: a good, a service or an activity.
    ItemId,
    "item"
);
id_type!(
    /// A person with an account.
    MemberId,
    "member"
);
id_type!(
    /// An anonymous browser session.
    SessionId,
    "session"
);
id_type!(
    /// One order of the shop.
    OrderId,
    "order"
);

impl EntryId {
    /// What stands in a key where there is no entry.
    pub const NONE: Self = Self(Cow::Borrowed(""));
}

impl MemberId {
    /// The word that stands for whoever is signed in, in a path.
    pub const ME: &str = "me";

    /// Refuses the word that stands for whoever is signed in: a member of that name could not be asked for, nor forgotten. Asked where
    /// records come in; those that are in a log are what they are.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check_named(self) -> Result<Self, Invalid> {
        if self.as_str() == Self::ME {
            return Err(Invalid::new("member", "is \"me\", which stands for whoever is signed in and is no member's id"));
        }
        Ok(self)
    }
}

/// Whose basket it is: a member, an anonymous session or a guest's order, three name spaces. Interactions are of the first two.
///
/// Sessions sort before members, as an export's columns `member,session` do with the empty one first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Owner {
    /// An anonymous session.
    Session(SessionId),
    /// A member.
    Member(MemberId),
    /// The order of somebody without an account: an owner of its own.
    Guest(OrderId),
}

impl Owner {
    /// The member, if it is one.
    pub fn member(&self) -> Option<&MemberId> {
        match self {
            Self::Member(member) => Some(member),
            Self::Session(_) | Self::Guest(_) => None,
        }
    }

    /// The bare identity, without its name space.
    pub fn id(&self) -> &str {
        match self {
            Self::Member(member) => member.as_str(),
            Self::Session(session) => session.as_str(),
            Self::Guest(order) => order.as_str(),
        }
    }
}
