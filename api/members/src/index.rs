//! Where administrators find members: entries that follow the accounts, checked against them when read.
//!
//! ```text
//! member_index  username/FIRST LETTER   canonical NUL member          month/2026-11      time NUL member
//!               email/FIRST LETTER      canonical NUL member          role/NAME          member
//!               phone/+86138            canonical NUL member          state/suspended    member
//! ```
//!
//! An entry is put there and taken away by steps that may be repeated; an entry that is behind its account is not shown.

use kindred_model::units::EventTime;

use crate::account::{Account, Accounts, State};
use crate::db::INDEX;
use crate::error::Result;
use crate::outbox::Work;
use crate::validate::Kind;

/// Bytes of a phone by which its partition is named: country and the first digits. A shorter search asks several.
pub(crate) const PHONE_PREFIX: usize = 6;

/// The partition of an identifier, or of the beginning of one.
pub(crate) fn partition(kind: Kind, canonical: &str) -> String {
    let chars = if kind == Kind::Phone { PHONE_PREFIX } else { 1 };
    format!("{}/{}", kind.name(), canonical.chars().take(chars).collect::<String>())
}

/// The partition of a month.
pub(crate) fn month(time: EventTime) -> String {
    format!("month/{}", &time.day().to_string()[..7])
}

/// Every entry of an account as ((partition, sort), member).
pub(crate) fn entries(account: &Account) -> Vec<((String, String), String)> {
    if matches!(account.state, State::Pending | State::Erased) {
        return Vec::new();
    }
    let member = &account.member;
    let mut at: Vec<(String, String)> = account
        .identifiers()
        .map(|identifier| (partition(identifier.kind, &identifier.canonical), format!("{}\0{member}", identifier.canonical)))
        .collect();
    at.push((month(account.registered_at), format!("{:015}\0{member}", account.registered_at.0)));
    if let Some(role) = &account.role {
        at.push((format!("role/{role}"), member.clone()));
    }
    if account.state == State::Suspended {
        at.push(("state/suspended".into(), member.clone()));
    }
    at.into_iter().map(|at| (at, member.clone())).collect()
}

/// The index follows an account that is about to change: whatever stands of it now may be wrong then.
pub(crate) fn follow(account: &Account) -> Work {
    Work::Index { stale: entries(account).into_iter().map(|(at, _)| at).collect() }
}

impl Accounts {
    /// Makes the index what the account says: adds what is missing, takes away of `stale` what is no longer so. Where the account
    /// changed meanwhile it begins again, so that of two that run at once the later account decides.
    pub(crate) async fn reindex(&self, member: &str, stale: &[(String, String)]) -> Result<()> {
        loop {
            let held = self.account(member).await?;
            let (version, expires_at) = held.as_ref().map_or((None, None), |held| (Some(held.version), held.expires_at));
            let wanted = held.map_or_else(Vec::new, |held| entries(&held.value));
            for ((partition, sort), member) in &wanted {
                // Replaced, because what is there may expire with an account that was not verified.
                self.db.update(INDEX, partition, sort, |_: Option<String>| (Some((member, expires_at)), ())).await?;
            }
            for (partition, sort) in stale {
                if !wanted.iter().any(|((own, sorted), _)| (own, sorted) == (partition, sort)) {
                    self.db.remove(INDEX, partition, sort).await?;
                }
            }
            if self.account(member).await?.map(|held| held.version) == version {
                return Ok(());
            }
        }
    }
}
