//! `members`: the state of a member, or the member a session was merged into. Natural key: member or session. Merge: for a member
//! the greatest (is `erased`, version, rank of state, canonical bytes); a session keeps its first member, the least (version,
//! bytes).

use serde::{Deserialize, Serialize};

use super::{Invalid, Text, from_json, required, word};
use crate::ids::{MemberId, Owner, SessionId};
use crate::units::{EventTime, Tier};

/// The natural key: a member or a session, two name spaces.
pub type MemberKey = Owner;

/// The state of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Has an unverified account.
    Registered,
    /// Verified.
    Activated,
    /// Locked by staff.
    Suspended,
    /// Erased: in no list, profile, tally or member report.
    Erased,
}

impl std::str::FromStr for MemberState {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(match text {
            "registered" => Self::Registered,
            "activated" => Self::Activated,
            "suspended" => Self::Suspended,
            "erased" => Self::Erased,
            _ => {
                let reason = format!("{text:?} is none of registered, activated, suspended, erased");
                return Err(Invalid::new("state", reason));
            }
        })
    }
}

/// One member at one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Membership {
    /// The member.
    pub member: MemberId,
    /// Greater is newer.
    pub version: u64,
    /// The state.
    pub state: MemberState,
    /// The level; normal if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The inviter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invited_by: Option<MemberId>,
    /// When the account was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<EventTime>,
    /// When it was verified; from then on an invitee counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<EventTime>,
    /// Staff has approved the invite, beyond the inviter's limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invite_approved: bool,
    /// When the invite qualified, where the program requires more than activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualified_at: Option<EventTime>,
}

impl Membership {
    /// A member with only these fields.
    pub fn new(member: MemberId, version: u64, state: MemberState) -> Self {
        Self {
            member,
            version,
            state,
            tier: None,
            invited_by: None,
            registered_at: None,
            activated_at: None,
            invite_approved: false,
            qualified_at: None,
        }
    }

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

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    member: Option<Text<'a>>,
    #[serde(borrow)]
    session: Option<Text<'a>>,
    version: Option<u64>,
    #[serde(borrow)]
    state: Option<Text<'a>>,
    #[serde(borrow)]
    tier: Option<Text<'a>>,
    #[serde(borrow)]
    invited_by: Option<Text<'a>>,
    #[serde(borrow)]
    registered_at: Option<Text<'a>>,
    #[serde(borrow)]
    activated_at: Option<Text<'a>>,
    #[serde(borrow)]
    merged_into: Option<Text<'a>>,
    invite_approved: Option<bool>,
    #[serde(borrow)]
    qualified_at: Option<Text<'a>>,
}

impl MemberRecord {
    /// Decodes and validates one JSON object.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw: Raw = from_json(bytes)?;
        let version = required("version", raw.version)?;
        let time = |field: &str, value: Option<Text<'_>>| value.map(|text| EventTime::parse(field, &text)).transpose();
        match (raw.member, raw.session) {
            (Some(member), None) => {
                if raw.merged_into.is_some() {
                    return Err(Invalid::new("merged_into", "belongs to a session only"));
                }
                let state: MemberState = word("state", &required("state", raw.state)?)?;
                // An erased record keeps only invited_by, activated_at and qualified_at; other fields are personal data.
                let kept = state != MemberState::Erased;
                let tier = raw.tier.as_deref().map(|tier| word("tier", tier)).transpose()?;
                let registered_at = time("registered_at", raw.registered_at)?;
                Ok(Self::Member(Membership {
                    member: MemberId::parse(&member)?,
                    version,
                    state,
                    tier: tier.filter(|_| kept),
                    invited_by: match raw.invited_by.as_deref().map(MemberId::parse).transpose() {
                        Ok(invited_by) => invited_by,
                        Err(error) => return Err(Invalid::new("invited_by", error.reason)),
                    },
                    registered_at: registered_at.filter(|_| kept),
                    activated_at: time("activated_at", raw.activated_at)?,
                    invite_approved: kept && raw.invite_approved.unwrap_or(false),
                    qualified_at: time("qualified_at", raw.qualified_at)?,
                }))
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
                let merged_into = required("merged_into", raw.merged_into)?;
                let merged_into = MemberId::parse(&merged_into).map_err(|error| Invalid::new("merged_into", error.reason))?;
                Ok(Self::Session { session: SessionId::parse(&session)?, version, merged_into })
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
