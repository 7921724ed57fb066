//! The services and what they stand on. Each sees its layer (accounts with the parts that know no account, or above them the core) and
//! what its line here names; it is made of those, so that there is no circle.

use std::ops::Deref;
use std::sync::Arc;

use crate::account::Accounts;
use crate::hasher::Hasher;
use crate::password::Policy;

/// `NAME on LAYER, other: OTHER`
macro_rules! services {
    ($($(#[$doc:meta])* $name:ident on $layer:ident $(, $field:ident: $other:ident)*;)+) => {$(
        $(#[$doc])*
        pub struct $name {
            on: Arc<$layer>,
            $(pub(crate) $field: Arc<$other>,)*
        }

        impl $name {
            pub(crate) fn new(on: &Arc<$layer>, $($field: &Arc<$other>),*) -> Arc<Self> {
                Arc::new(Self { on: on.clone(), $($field: $field.clone()),* })
            }
        }

        impl Deref for $name {
            type Target = $layer;

            fn deref(&self) -> &$layer {
                &self.on
            }
        }
    )+};
}

services! {
    /// The keys of requests that are done once, with what was answered.
    Idempotency on Accounts;
    /// Gives proofs of work to be done, and takes each solution once.
    Challenges on Accounts;
    /// Gives codes to phones and tokens in mails, and takes them.
    Codes on Accounts;
    /// Which identifiers are which member's.
    Claims on Accounts, codes: Codes;
    /// Passwords: chosen, and shown again.
    Passwords on Accounts, policy: Policy, hasher: Hasher;
    /// Staff roles.
    Roles on Accounts;
    /// Sessions and their tokens.
    Sessions on Accounts, roles: Roles;
    /// What is claimed, given out and begun for accounts.
    Core on Accounts, challenges: Challenges, claims: Claims, codes: Codes, passwords: Passwords, roles: Roles, sessions: Sessions;

    /// Second factors.
    Factors on Core;
    /// Signing in.
    SignIns on Core, factors: Factors;
    /// Password, phone and e-mail are changed.
    Credentials on Core;
    /// Registrations.
    Registrations on Core;
    /// What members see and change of their accounts.
    Profiles on Core;
    /// Administration.
    Staff on Core, registrations: Registrations;
}
