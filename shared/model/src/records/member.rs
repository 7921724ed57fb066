//! `members`: the state of a member, or the member a session was merged into. Natural key: member or session. Merge: for a member
//! the greatest (is `erased`, version, rank of state, canonical bytes); a session keeps its first member, the least (version,
//! bytes).

use serde::Serialize;

use super::{Invalid, from_json, parsed, plain, record};
use crate::ids::{MemberId, Owner, SessionId};
use crate::units::{EventTime, Tier, words};

/// The natural key: a member or a session, two name spaces.
pub type MemberKey = Owner;

words! {
    /// The state of a member.
    MemberState, "state" {
        /// Has an unverified account.
        Registered "registered",
        /// Verified.
        Activated "activated",
        /// Locked by staff.
        Suspended "suspended",
        /// Erased: in no list, profile, tally or member report.
        Erased "erased",
    }
}

record! {
    /// One member at one version.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Membership, raw Raw {
        /// The member.
        member: MemberId,
        /// Greater is newer.
        version: u64,
        /// The state.
        state: MemberState,
        /// The level; normal if absent.
        tier: Option<Tier>,
        /// The inviter.
        invited_by: Option<MemberId>,
        /// When the account was created.
        registered_at: Option<EventTime>,
        /// When it was verified; from then on an invitee counts.
        activated_at: Option<EventTime>,
        /// Staff has approved the invite, beyond the inviter's limit.
        invite_approved: bool,
        /// When the invite qualified, where the program requires more than activation.
        qualified_at: Option<EventTime>,
    }
    new(member: MemberId, version: u64, state: MemberState);
    beside {
        session: SessionId,
        merged_into: MemberId,
    }
}

impl Membership {
    /// The record that erases `member`, given the merged one: a newer version that keeps only the invite's fields, because the
    /// inviter keeps the points.
    pub fn erased(member: MemberId, known: Option<Self>) -> Self {
        let version = known.as_ref().map_or(0, |known| known.version).saturating_add(1);
        let mut erased = Self::new(member, version, MemberState::Erased);
        if let Some(known) = known {
            (erased.invited_by, erased.activated_at, erased.qualified_at) =
                (known.invited_by, known.activated_at, known.qualified_at);
        }
        erased
    }
}

/// A record of `members`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum MemberRecord {
    /// A member's own record.
    Member(Membership),
    /// A session merged into a member.
    Session {
        /// The session.
        session: SessionId,
        /// Greater is newer.
        version: u64,
        /// The member; sessions do not chain.
        merged_into: MemberId,
    },
}

impl MemberRecord {
    /// Decodes and validates one JSON object.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut raw: Raw = from_json(bytes)?;
        match (&raw.member, raw.session.take()) {
            (Some(_), None) => {
                if raw.merged_into.is_some() {
                    return Err(Invalid::new("merged_into", "belongs to a session only"));
                }
                let record = Membership::of(raw)?;
                if record.state != MemberState::Erased {
                    return Ok(Self::Member(record));
                }
                // An erased record keeps only invited_by, activated_at and qualified_at; other fields are personal data.
                Ok(Self::Member(Membership { tier: None, registered_at: None, invite_approved: false, ..record }))
            }
            (None, Some(session)) => {
                let of_a_member = [
                    ("state", raw.state.is_some()),
                    ("tier", raw.tier.is_some()),
                    ("invited_by", raw.invited_by.is_some()),
                    ("registered_at", raw.registered_at.is_some()),
                    ("activated_at", raw.activated_at.is_some()),
                    ("invite_approved", raw.invite_approved.is_some()),
                    ("qualified_at", raw.qualified_at.is_some()),
                ];
                if let Some((field, _)) = of_a_member.into_iter().find(|(_, given)| *given) {
                    return Err(Invalid::new(field, "belongs to a member only"));
                }
                Ok(Self::Session {
                    version: plain("version", raw.version)?,
                    merged_into: plain("merged_into", raw.merged_into)?,
                    session: parsed("session", session)?,
                })
            }
            (None, None) => Err(Invalid::new("member", "is required, or a session in its place")),
            (Some(_), Some(_)) => Err(Invalid::new("session", "must not stand beside a member: a record is about one of them")),
        }
    }

    /// The natural key.
    pub fn key(&self) -> MemberKey {
        match self {
            Self::Member(membership) => Owner::Member(membership.member.clone()),
            Self::Session { session, .. } => Owner::Session(session.clone()),
        }
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        match self {
            Self::Member(membership) => membership.version,
            Self::Session { version, .. } => *version,
        }
    }

    /// Whether the member is erased.
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Member(membership) if membership.state == MemberState::Erased)
    }

    /// The latest time in it.
    pub fn time(&self) -> Option<EventTime> {
        match self {
            Self::Member(membership) => membership.qualified_at.max(membership.activated_at).max(membership.registered_at),
            Self::Session { .. } => None,
        }
    }

    /// The frozen encoding (version 1): JSON with the fields in the order of the schema, absent ones left out.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a member record serialises")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, an erasure would lose to an earlier record, keep personal data, or take an inviter's points.
    #[test]
    fn an_erased_record_is_newer_and_keeps_only_the_invite() {
        let json = r#"{"member":"m","version":7,"state":"activated","tier":"vip","invited_by":"i","registered_at":"2026-01-02T03:04:05Z","activated_at":"2026-01-03T03:04:05Z"}"#;
        let Ok(MemberRecord::Member(known)) = MemberRecord::decode(json.as_bytes()) else { panic!("{json} is a member's") };
        let member = known.member.clone();
        let erased = MemberRecord::Member(Membership::erased(member.clone(), Some(known.clone())));
        let MemberRecord::Member(kept) = &erased else { unreachable!("it was made above") };
        assert_eq!((kept.version, kept.state, kept.tier.as_ref()), (8, MemberState::Erased, None));
        assert_eq!((&kept.invited_by, kept.activated_at), (&known.invited_by, known.activated_at));
        assert!(known.tier.is_some() && known.registered_at.is_some() && kept.registered_at.is_none());
        assert_eq!(MemberRecord::decode(&erased.canonical()), Ok(erased));
        assert_eq!(Membership::erased(member.clone(), None).version, 1);
        let newest = Membership { version: u64::MAX, ..known };
        assert_eq!(Membership::erased(member, Some(newest)).version, u64::MAX);
    }
}
