//! What services are made of. Each stands on a layer and sees what is in it: accounts with the parts that know no account, or above them
//! the core. It names what it uses beside that, and nothing below it can name it: there is no circle.

use std::ops::Deref;
use std::sync::Arc;

use crate::account::Accounts;
use crate::challenge::Challenges;
use crate::claims::Claims;
use crate::codes::Codes;
use crate::passwords::Passwords;
use crate::roles::Roles;
use crate::sessions::Sessions;

/// `NAME on LAYER, other: OTHER`
macro_rules! service {
    ($(#[$doc:meta])* $name:ident on $layer:ident $(, $field:ident: $other:ident)?) => {
        $(#[$doc])*
        pub struct $name {
            pub(crate) on: std::sync::Arc<$layer>,
            $(pub(crate) $field: std::sync::Arc<$other>,)?
        }

        impl std::ops::Deref for $name {
            type Target = $layer;

            fn deref(&self) -> &$layer {
                &self.on
            }
        }
    };
}
pub(crate) use service;

/// What is claimed, given out and begun for accounts.
pub struct Core {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) claims: Claims,
    pub(crate) codes: Arc<Codes>,
    pub(crate) passwords: Passwords,
    pub(crate) roles: Arc<Roles>,
    pub(crate) sessions: Arc<Sessions>,
}

impl Deref for Core {
    type Target = Accounts;

    fn deref(&self) -> &Accounts {
        &self.accounts
    }
}
