//! Claims: each identifier belongs to one member at most, however many ask for it at once.
//!
//! ```text
//! claims[kind/as it is unique] ──▶ claim { member, when and by which phone it was proved }     expires unless the account is verified
//! ```
//!
//! Every step may be repeated. A claim of a verified account stays until it is given back. One of a registration that is not verified
//! expires, and gives way to whoever proves more: a phone to a later code to it, a name to a later registration with the same phone, an
//! e-mail to whoever opens the link in the mail (docs/design/0008-sign-in.md).

use kindred_model::units::EventTime;
use kindred_store::records::Step;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::base::Claims;
use crate::db::{self, CLAIMS, INVITEES};
use crate::error::Result;
use crate::validate::{Identifier, Kind};

const CLAIM: &str = "claim";
/// Invite codes are claimed beside the identifiers: they lead to a member as well.
const INVITE: &str = "invite";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Claim {
    member: String,
    /// When it was proved that it is theirs, milliseconds; nought of one for good.
    #[serde(default)]
    proved_at: i64,
    /// A keyed digest of the phone by which it was registered: what a name is proved by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
}

/// What a registration that is not verified yet has shown.
#[derive(Clone)]
pub(crate) struct Proof {
    at: EventTime,
    phone: Option<String>,
}

/// Whose an identifier is, after somebody asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claimed {
    /// The asker's.
    Ours,
    /// Of a registration that proved more, or later.
    Passed,
    /// A member's.
    Taken,
}

/// Where the claim of an identifier lies.
pub(crate) fn partition(identifier: &Identifier) -> String {
    let kind = if identifier.kind == Kind::Username { "name" } else { identifier.kind.name() };
    format!("{kind}/{}", identifier.unique())
}

/// Where the claim of a name lies that was registered under earlier rules: of every name as many places, the present one among them at
/// times.
fn partitions_before(identifier: &Identifier) -> impl Iterator<Item = String> {
    let before = identifier.unique_before().map(|[raw, skeleton]| [format!("username/{raw}"), format!("name/{skeleton}")]);
    before.into_iter().flatten()
}

/// Where the claim of an invite code lies.
pub(crate) fn invite_partition(code: &str) -> String {
    format!("{INVITE}/{code}")
}

/// The step by which what nobody has claimed becomes a member's.
pub(crate) fn taken_by(member: &str, expires_at: Option<EventTime>) -> Step {
    Step::insert(CLAIM, db::encode(&Claim { member: member.to_owned(), proved_at: 0, phone: None }), expires_at)
}

impl Claims {
    /// What a registration at `at` with a phone has shown of a name and of that phone.
    pub(crate) fn proof(&self, phone: Option<&Identifier>, at: EventTime) -> Proof {
        Proof { at, phone: phone.map(|phone| self.marks.key("proved phone", &[&phone.canonical])) }
    }

    /// Takes an identifier for a member, or changes when their claim expires.
    pub(crate) async fn claim(
        &self,
        identifier: &Identifier,
        member: &str,
        expires_at: Option<EventTime>,
        proof: &Proof,
    ) -> Result<Claimed> {
        self.claim_at(identifier, member, expires_at, proof, |now| now == expires_at).await
    }

    /// Takes an identifier for a member until then at least: a claim of theirs that lasts longer stays as it is.
    pub(crate) async fn hold(&self, identifier: &Identifier, member: &str, until: EventTime, proof: &Proof) -> Result<bool> {
        let fits = |now: Option<EventTime>| now.is_none_or(|now| now >= until);
        Ok(self.claim_at(identifier, member, Some(until), proof, fits).await? == Claimed::Ours)
    }

    /// Takes an invite code for good.
    pub(crate) async fn claim_invite(&self, code: &str, member: &str) -> Result<bool> {
        let (place, proof) = (invite_partition(code), Proof { at: EventTime(0), phone: None });
        Ok(self.claim_in(&place, member, None, &proof, false, |now| now.is_none()).await? == Claimed::Ours)
    }

    async fn claim_at(
        &self,
        identifier: &Identifier,
        member: &str,
        expires_at: Option<EventTime>,
        proof: &Proof,
        fits: impl Fn(Option<EventTime>) -> bool,
    ) -> Result<Claimed> {
        let now = partition(identifier);
        for before in partitions_before(identifier) {
            let held = self.db.read::<Claim>(CLAIMS, &before, CLAIM).await?;
            if before != now && held.is_some_and(|held| held.value.member != member) {
                return Ok(Claimed::Taken);
            }
        }
        let by_phone = identifier.kind == Kind::Username;
        self.claim_in(&now, member, expires_at, proof, by_phone, fits).await
    }

    /// `by_phone`: it gives way to a later registration with its phone alone. `fits` says of the expiry of a claim that is the member's
    /// already whether it may stay.
    async fn claim_in(
        &self,
        partition: &str,
        member: &str,
        expires_at: Option<EventTime>,
        proof: &Proof,
        by_phone: bool,
        fits: impl Fn(Option<EventTime>) -> bool,
    ) -> Result<Claimed> {
        // One for good gives way to nothing: what was proved is not kept.
        let (proved_at, phone) = expires_at.map_or((0, None), |_| (proof.at.0, proof.phone.clone()));
        let ours = Claim { member: member.to_owned(), proved_at, phone };
        for tried in db::tries() {
            let held = self.db.read::<Claim>(CLAIMS, partition, CLAIM).await?;
            let step = match held {
                None => Step::insert(CLAIM, db::encode(&ours), expires_at),
                Some(held) if held.value.member == member && fits(held.expires_at) => return Ok(Claimed::Ours),
                Some(held) if held.value.member == member => {
                    let value = if expires_at.is_none() { &ours } else { &held.value };
                    Step::replace(CLAIM, held.version, db::encode(value), expires_at)
                }
                Some(held) if held.expires_at.is_none() => return Ok(Claimed::Taken),
                Some(held) => {
                    let later = held.value.proved_at <= proof.at.0;
                    let same_phone = proof.phone.is_some() && held.value.phone == proof.phone;
                    if !later || by_phone && !same_phone {
                        return Ok(Claimed::Passed);
                    }
                    Step::replace(CLAIM, held.version, db::encode(&ours), expires_at)
                }
            };
            if self.db.transact(CLAIMS, partition, &[step]).await? {
                return Ok(Claimed::Ours);
            }
            db::pause(tried).await;
        }
        Err(db::contended(CLAIMS))
    }

    /// Whose it is, and whether for good. As much is read of everybody.
    async fn held_by(&self, identifier: &Identifier) -> Result<Option<(String, bool)>> {
        let mut found = self.db.read::<Claim>(CLAIMS, &partition(identifier), CLAIM).await?;
        for before in partitions_before(identifier) {
            let there = self.db.read::<Claim>(CLAIMS, &before, CLAIM).await?;
            found = found.or(there);
        }
        Ok(found.map(|held| (held.value.member, held.expires_at.is_none())))
    }

    /// Whether it is another member's for good.
    pub(crate) async fn is_anothers(&self, identifier: &Identifier, member: &str) -> Result<bool> {
        Ok(self.held_by(identifier).await?.is_some_and(|(owner, lasts)| lasts && owner != member))
    }

    /// Whose invite code it is.
    pub(crate) async fn inviter(&self, code: &str) -> Result<Option<String>> {
        let code = crate::validate::code(code).to_ascii_uppercase();
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
            let person = self.marks.digest("invitee", &[identifier.kind.name(), &identifier.canonical]);
            let by = self.marks.digest("invited member", &[member]);
            let remembered = |before: Option<String>| match before {
                Some(before) => (None, before == by),
                None => (Some((by.clone(), None)), true),
            };
            first &= self.db.update(INVITEES, &person, "invited", remembered).await?;
        }
        Ok(first)
    }

    async fn release_at(&self, partition: &str, member: &str) -> Result<()> {
        self.db.remove_if(CLAIMS, partition, CLAIM, |claim: &Claim| claim.member == member).await
    }

    /// Gives back a claim of a member, if it is theirs.
    pub(crate) async fn release(&self, identifier: &Identifier, member: &str) -> Result<()> {
        for before in partitions_before(identifier) {
            self.release_at(&before, member).await?;
        }
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
                let own = held.value.identifier(identifier.kind).is_some_and(|own| own.is(identifier));
                own || held.value.changing.as_ref().is_some_and(|new| new.is(identifier))
            });
            if !holds {
                if identifier.kind == Kind::Phone {
                    self.codes.forget_code(identifier).await?;
                }
                self.release(identifier, member).await?;
            }
        }
        Ok(())
    }

    /// The member whose verified identifier it is, with the account.
    pub(crate) async fn member_of(&self, identifier: &Identifier) -> Result<Option<db::Held<Account>>> {
        let Some((member, _)) = self.held_by(identifier).await? else { return Ok(None) };
        let held = self.account(&member).await?;
        Ok(held.filter(|held| held.value.identifier(identifier.kind).is_some_and(|own| own.is(identifier))))
    }

    /// Whether a kind of identifier may sign in.
    pub(crate) fn signs_in(&self, kind: Kind) -> bool {
        kind != Kind::Email || self.config.sign_in.email
    }
}
