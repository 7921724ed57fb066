//! Identities: opaque strings of 1 to 128 bytes of UTF-8 without control characters (schemas/README.md).
//!
//! Without control characters, `0x00` can terminate an identity in a key of the store, and byte order is string order.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::records::Invalid;

/// The longest identity in bytes: fits two UUIDs and a prefix, and any store's key.
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

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $field:literal;)+) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            /// Parses an identity from outside.
            ///
            /// # Errors
            /// [`Invalid`] when the text is not an identity ([`check_id`]).
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                check_id($field, text)?;
                Ok(Self(Cow::Owned(text.to_owned())))
            }

            /// A validated identity, from the store or the interner.
            pub fn trusted(text: impl Into<Cow<'static, str>>) -> Self {
                Self(text.into())
            }

            /// The identity as given.
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
    )+ };
}

ids! {
    /// An entry of a member's ledger.
    EntryId "entry";
    /// What is sold or recommended: a good, a service or an activity.
    ItemId "item";
    /// A person with an account.
    MemberId "member";
    /// An anonymous browser session.
    SessionId "session";
    /// One order of the shop.
    OrderId "order";
}

impl EntryId {
    /// Stands in a key for "no entry".
    pub const NONE: Self = Self(Cow::Borrowed(""));
}

impl MemberId {
    /// The word for the signed-in member in a path.
    pub const ME: &str = "me";

    /// Refuses [`MemberId::ME`]: such a member could not be addressed, nor erased. Checked on input only; records in a log are
    /// kept as they are.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check_named(self) -> Result<Self, Invalid> {
        if self.as_str() == Self::ME {
            return Err(Invalid::new("member", "is \"me\", which is reserved for the signed-in member"));
        }
        Ok(self)
    }
}

/// The owner of a basket: a member, an anonymous session or a guest's order, three name spaces. Interactions have the first two.
///
/// Sessions sort before members, like an export's columns `member,session` with the empty member first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Owner {
    /// An anonymous session.
    Session(SessionId),
    /// A member.
    Member(MemberId),
    /// An order without an account: an owner of its own.
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
