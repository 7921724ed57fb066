//! Effective owners: sessions merged into members, and erased members.
//!
//! ```text
//! MemberFact by member ─┬─ erased? no ─▶ living (lines, invites; sessions ─▶ effective owners)
//! erased members ───────┴─ erased? yes ─▶ sessions ─▶ no owner
//! ```

use kindred_model::intern::Party;
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, MemberFact, MemberKey};

/// The effective owner of a raw owner's interactions, where it is not the raw owner itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EffectiveOwner {
    /// The raw owner: a session with `merged_into`, or an erased member.
    pub raw: Party,
    /// The member; `None` for an erased one.
    pub effective: Option<Party>,
}

/// Members' facts without the erased, and the effective owners that follow from links and erasures.
pub struct ResolvedOwners<'s> {
    /// Facts of members that are not erased.
    pub living: Facts<'s, (MemberKey, MemberFact)>,
    /// At most one per raw owner.
    pub effective_owners: Facts<'s, EffectiveOwner>,
}

/// Splits off erased members, once for every view. An erased member loses its facts; its interactions and those of its sessions
/// lose their owner. Arranges the facts and the erased members, each by member.
pub fn resolve_owners<'s>(facts: Facts<'s, (MemberKey, MemberFact)>, erased: Facts<'s, MemberKey>) -> ResolvedOwners<'s> {
    let of_erased = facts
        .clone()
        .arrange_by_key_named("Facts by member")
        .join_core(erased.clone().arrange_by_self_named("Erased members"), |member, fact, ()| Some((*member, *fact)));
    let living = facts.concat(of_erased.clone().negate());
    let effective_owners = living
        .clone()
        .flat_map(|(MemberKey(member), fact)| session(fact).map(|raw| EffectiveOwner { raw, effective: Some(member) }))
        .concat(of_erased.flat_map(|(_, fact)| session(fact).map(|raw| EffectiveOwner { raw, effective: None })))
        .concat(erased.map(|MemberKey(raw)| EffectiveOwner { raw, effective: None }));
    ResolvedOwners { living, effective_owners }
}

fn session(fact: MemberFact) -> Option<Party> {
    match fact {
        MemberFact::Session(session) => Some(session),
        MemberFact::Line(_) | MemberFact::Points(_) => None,
    }
}
