//! Claims: each identifier belongs to one member at most, however many ask for it at once.
//!
//! ```text
//! claims[kind/canonical] ──▶ claim { member }     expires unless the identifier is verified
//! ```
//!
//! Every step may be repeated. A claim of a crashed registration expires; one of a verified account stays until it is given back.

use kindred_model::units::EventTime;
use kindred_store::records::Step;
use serde::{Deserialize, Serialize};

use crate::db::{self, CLAIMS, INVITEES};
use crate::error::Result;
use crate::validate::{Identifier, Kind};
use crate::{Members, random};

const CLAIM: &str = "claim";
/// Invite codes are claimed beside the identifiers: they lead to a member as well.
const INVITE: &str = "invite";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Claim {
    member: String,
}

/// Where the claim of an identifier lies.
pub(crate) fn partition(identifier: &Identifier) -> String {
    format!("{}/{}", identifier.kind.name(), identifier.canonical)
}

/// Where the claim of an invite code lies.
pub(crate) fn invite_partition(code: &str) -> String {
    format!("{INVITE}/{code}")
}

/// The step by which what nobody has claimed becomes a member's.
pub(crate) fn taken_by(member: &str, expires_at: Option<EventTime>) -> Step {
    Step::insert(CLAIM, db::encode(&Claim { member: member.to_owned() }), expires_at)
}

impl Members {
    /// Takes an identifier for a member, or changes when their claim expires; false if it is another's.
    pub(crate) async fn claim(&self, identifier: &Identifier, member: &str, expires_at: Option<EventTime>) -> Result<bool> {
        self.claim_at(&partition(identifier), member, expires_at, |now| now == expires_at).await
    }

    /// Takes an identifier for a member until then at least: a claim of theirs that lasts longer stays as it is.
    pub(crate) async fn hold(&self, identifier: &Identifier, member: &str, until: EventTime) -> Result<bool> {
        self.claim_at(&partition(identifier), member, Some(until), |now| now.is_none_or(|now| now >= until)).await
    }

    /// Takes an invite code for good.
    pub(crate) async fn claim_invite(&self, code: &str, member: &str) -> Result<bool> {
        self.claim_at(&invite_partition(code), member, None, |now| now.is_none()).await
    }

    /// `fits` says of the expiry of a claim that is the member's already whether it may stay.
    async fn claim_at(
        &self,
        partition: &str,
        member: &str,
        expires_at: Option<EventTime>,
        fits: impl Fn(Option<EventTime>) -> bool,
    ) -> Result<bool> {
        for tried in db::tries() {
            let held = self.db.read::<Claim>(CLAIMS, partition, CLAIM).await?;
            let step = match held {
                None => taken_by(member, expires_at),
                Some(held) if held.value.member != member => return Ok(false),
                Some(held) if fits(held.expires_at) => return Ok(true),
                Some(held) => Step::replace(CLAIM, held.version, db::encode(&held.value), expires_at),
            };
            if self.db.transact(CLAIMS, partition, &[step]).await? {
                return Ok(true);
            }
            db::pause(tried).await;
        }
        Err(db::contended(CLAIMS))
    }

    /// Whose it is.
    pub(crate) async fn claimant(&self, identifier: &Identifier) -> Result<Option<String>> {
        Ok(self.db.read::<Claim>(CLAIMS, &partition(identifier), CLAIM).await?.map(|held| held.value.member))
    }

    /// Whose invite code it is.
    pub(crate) async fn inviter(&self, code: &str) -> Result<Option<String>> {
        let code = code.trim().to_ascii_uppercase();
        if code.is_empty() || code.len() > 32 || !code.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        Ok(self.db.read::<Claim>(CLAIMS, &invite_partition(&code), CLAIM).await?.map(|held| held.value.member))
    }

    /// Whether a person was never invited before, by what they are known by: an invitation pays once a person, also after an erasure and a
    /// new registration. They are remembered by keyed digests alone, and for good. It may be done again for the same member.
    pub(crate) async fn first_invitation(&self, member: &str, identifiers: impl Iterator<Item = &Identifier>) -> Result<bool> {
        let mut first = true;
        // A name is chosen anew each time.
        for identifier in identifiers.filter(|identifier| identifier.kind != Kind::Username) {
            let person = random::encode(&random::mac(&self.secret, "invitee", &[identifier.kind.name(), &identifier.canonical]));
            let by = random::encode(&random::mac(&self.secret, "invited member", &[member]));
            let remembered = |before: Option<String>| match before {
                Some(before) => (None, before == by),
                None => (Some((by.clone(), None)), true),
            };
            first &= self.db.update(INVITEES, &person, "invited", remembered).await?;
        }
        Ok(first)
    }

    async fn release_at(&self, partition: &str, member: &str) -> Result<()> {
        for tried in db::tries() {
            match self.db.read::<Claim>(CLAIMS, partition, CLAIM).await? {
                Some(held) if held.value.member == member => {
                    if self.db.transact(CLAIMS, partition, &[Step::delete(CLAIM, held.version)]).await? {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
            db::pause(tried).await;
        }
        Err(db::contended(CLAIMS))
    }

    /// Gives back a claim of a member, if it is theirs.
    pub(crate) async fn release(&self, identifier: &Identifier, member: &str) -> Result<()> {
        self.release_at(&partition(identifier), member).await
    }

    /// Gives back an invite code.
    pub(crate) async fn release_invite(&self, code: &str, member: &str) -> Result<()> {
        self.release_at(&invite_partition(code), member).await
    }

    /// Gives back the claims that the member's account does not hold (any more).
    pub(crate) async fn release_unused(&self, member: &str, identifiers: &[Identifier]) -> Result<()> {
        let account = self.account(member).await?;
        for identifier in identifiers {
            let holds = account.as_ref().is_some_and(|held| {
                let own = held.value.identifier(identifier.kind).map(|own| &own.canonical) == Some(&identifier.canonical);
                let coming = held
                    .value
                    .changing
                    .as_ref()
                    .is_some_and(|new| (new.kind, &new.canonical) == (identifier.kind, &identifier.canonical));
                own || coming
            });
            if !holds {
                self.release(identifier, member).await?;
            }
        }
        Ok(())
    }

    /// The member whose verified identifier it is, with the account.
    pub(crate) async fn member_of(&self, identifier: &Identifier) -> Result<Option<db::Held<crate::account::Account>>> {
        let Some(member) = self.claimant(identifier).await? else { return Ok(None) };
        let held = self.account(&member).await?;
        Ok(held.filter(|held| held.value.identifier(identifier.kind).map(|own| &own.canonical) == Some(&identifier.canonical)))
    }

    /// Whether a kind of identifier may sign in.
    pub(crate) fn signs_in(&self, kind: Kind) -> bool {
        kind != Kind::Email || self.config.sign_in.email
    }
}
