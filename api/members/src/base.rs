//! What services are made of. Each stands on a layer and sees what is in it: accounts with the parts that know no account, or above them
//! the core. It names what it uses beside that, and nothing below it can name it: there is no circle.

use crate::account::Accounts;
use crate::challenge::Challenges;
use crate::claims::Claims;
use crate::codes::Codes;
use crate::passwords::Passwords;
use crate::permission::Roles;
use crate::sessions::Sessions;

/// `NAME on LAYER, other: OTHER`
macro_rules! service {
    ($(#[$doc:meta])* $name:ident on $layer:ident $(, $field:ident: $other:ident)*) => {
        $(#[$doc])*
        pub struct $name {
            on: std::sync::Arc<$layer>,
            $(pub(crate) $field: std::sync::Arc<$other>,)*
        }

        impl $name {
            pub(crate) fn new(on: &std::sync::Arc<$layer>, $($field: &std::sync::Arc<$other>),*) -> std::sync::Arc<Self> {
                std::sync::Arc::new(Self { on: on.clone(), $($field: $field.clone()),* })
            }
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

service! {
    /// What is claimed, given out and begun for accounts.
    Core on Accounts, challenges: Challenges, claims: Claims, codes: Codes, passwords: Passwords, roles: Roles, sessions: Sessions
}
