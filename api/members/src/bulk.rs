//! Members who are there at once, for measurements with as many as a large shop has: a million registrations would hash for hours.
//!
//! ```text
//! NewMember (with a hash) ──▶ accounts[member], claims of identifiers and invite code, entries of the index
//! ```
//!
//! The tables that sign-in and search read are left as by registrations whose e-mail was verified; `tests/it/bulk.rs` holds them
//! against one. Nothing is told to the log, to the audit log or to anybody: nothing of it happened.

use std::collections::{BTreeMap, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use kindred_model::units::EventTime;
use kindred_store::records::{STEPS_MAX, Step};

use crate::account::{ACCOUNT, Account, State};
use crate::db::{self, ACCOUNTS, CLAIMS, INDEX};
use crate::error::Result;
use crate::register::invite_code;
use crate::validate::Identifier;
use crate::{Members, claims, index, random};

/// Transactions under way at once: enough for the embedded store to share an fsync among as many as it takes into one.
const AT_ONCE: usize = 1_024;

/// A member to be written.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// R9.
    pub username: String,
    /// R10.
    pub phone: String,
    /// R11.
    pub email: String,
    /// The PHC string of the password. Members may share one.
    pub password_hash: String,
    /// Whether the password has the length that staff needs.
    pub password_for_staff: bool,
    /// When they registered, and were activated.
    pub registered_at: EventTime,
}

impl Members {
    /// Writes members; their ids, in the same order.
    ///
    /// # Errors
    /// An identifier that is not accepted; [`crate::MemberError::Store`] where one is somebody's already: then a part is written,
    /// and the store is of no use for a measurement. What the store says.
    #[doc(hidden)]
    pub async fn write_for_measurement(&self, members: &[NewMember]) -> Result<Vec<String>> {
        let accounts = members.iter().map(|member| self.activated(member)).collect::<Result<Vec<_>>>()?;
        let mut codes = HashSet::new();
        let mut places: BTreeMap<(&'static str, String), Vec<Step>> = BTreeMap::new();
        let mut put = |table, partition, step| places.entry((table, partition)).or_default().push(step);
        for account in &accounts {
            let member = &account.member;
            put(ACCOUNTS, member.clone(), Step::insert(ACCOUNT, db::encode(account), None));
            for identifier in account.identifiers() {
                put(CLAIMS, claims::partition(identifier), claims::taken_by(member, None));
            }
            let code = claims::invite_partition(&account.invite_code);
            codes.insert(code.clone());
            put(CLAIMS, code, claims::taken_by(member, None));
            for ((partition, sort), member) in index::entries(account) {
                put(INDEX, partition, Step::insert(sort, db::encode(&member), None));
            }
        }
        let codes = &codes;
        let transactions = places.iter().flat_map(|((table, partition), steps)| {
            steps.chunks(STEPS_MAX).map(move |steps| async move {
                let written = self.core.db.transact(table, partition, steps).await?;
                // Of a million codes some are drawn twice; a registration draws another, and no measurement uses them.
                if written || codes.contains(partition) { Ok(()) } else { Err(db::contended(table)) }
            })
        });
        stream::iter(transactions).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(accounts.into_iter().map(|account| account.member).collect())
    }

    fn activated(&self, member: &NewMember) -> Result<Account> {
        let at = member.registered_at;
        let identifiers = [
            Identifier::username(&member.username, &self.core.config.shop_name)?,
            Identifier::phone(&member.phone, &self.core.config.registration.phone_regions)?,
            Identifier::email(&member.email)?,
        ];
        let password = (member.password_hash.clone(), member.password_for_staff);
        let mut account = Account::new(random::id(at), identifiers, password, at, &self.core.config, invite_code());
        // Both records of `members` are made, as for one that registers and is verified: the version counts them.
        account.state = State::Registered;
        let _not_told = account.event();
        (account.state, account.activated_at) = (State::Activated, Some(at));
        let _not_told = account.event();
        Ok(account)
    }
}
