//! Who is whom: sessions that became members', and members that were erased.
//!
//! ```text
//! MemberFact by member ─┬─ erased? no ─▶ living (lines, invites; sessions ─▶ fates)
//! erased members ───────┴─ erased? yes ─▶ sessions ─▶ fates: gone
//! ```

use kindred_model::intern::Party;
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, MemberFact, MemberKey};

/// Whose the interactions of a raw owner are, where they are not its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Fate {
    /// The raw owner: a session with `merged_into`, or an erased member.
    pub raw: Party,
    /// The member they are; `None`: an erased one's, so nobody's.
    pub effective: Option<Party>,
}

/// What is left of members' facts without the erased, and the fates that links and erasures make.
pub struct Standing<'s> {
    /// Facts of members that are not erased.
    pub living: Facts<'s, (MemberKey, MemberFact)>,
    /// At most one a raw owner.
    pub fates: Facts<'s, Fate>,
}

/// Separates the erased. A member that is erased loses its facts here, once for every view; its own interactions and those of its
/// sessions get the fate of having no owner. Arranges the facts and the erased once, each by member.
pub fn standing<'s>(facts: Facts<'s, (MemberKey, MemberFact)>, erased: Facts<'s, MemberKey>) -> Standing<'s> {
    let gone = facts
        .clone()
        .arrange_by_key_named("Facts by member")
        .join_core(erased.clone().arrange_by_self_named("Erased members"), |member, fact, ()| Some((*member, *fact)));
    let living = facts.concat(gone.clone().negate());
    let fates = living
        .clone()
        .flat_map(|(MemberKey(member), fact)| session(fact).map(|raw| Fate { raw, effective: Some(member) }))
        .concat(gone.flat_map(|(_, fact)| session(fact).map(|raw| Fate { raw, effective: None })))
        .concat(erased.map(|MemberKey(raw)| Fate { raw, effective: None }));
    Standing { living, fates }
}

fn session(fact: MemberFact) -> Option<Party> {
    match fact {
        MemberFact::Session(session) => Some(session),
        MemberFact::Line(_) | MemberFact::Points(_) => None,
    }
}
