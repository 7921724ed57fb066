//! `points` by brute force: every counting line and every invite, summed.

use std::collections::BTreeMap;

use kindred_model::loyalty::Program;
use kindred_model::records::MemberRecord;
use kindred_model::views::points::{Earned, Points};
use kindred_model::{Day, MemberId, Semantics};

use crate::Inputs;
use crate::tables::Tables;

/// What each member has earned.
pub fn points(inputs: &Inputs, program: &Program) -> BTreeMap<MemberId, Earned> {
    let mut from_items: BTreeMap<(&str, Day), i64> = BTreeMap::new();
    inputs.bought(|member, order, _item, net| {
        let earned = program.line_points(order, net);
        *from_items.entry((member, earned.available_from)).or_default() += earned.points;
    });
    let mut from_invites: BTreeMap<&str, i64> = BTreeMap::new();
    let erased = inputs.erased_members();
    for record in inputs.members.values() {
        let MemberRecord::Member(invitee) = record else { continue };
        let (Some(inviter), Some(activated_at)) = (&invitee.invited_by, invitee.activated_at) else { continue };
        if *inviter != invitee.member && !erased.contains(inviter.as_str()) {
            *from_invites.entry(inviter.as_str()).or_default() += program.invite_points(activated_at);
        }
    }
    let mut rows: BTreeMap<MemberId, Earned> = BTreeMap::new();
    for ((member, day), points) in from_items {
        if points != 0 {
            rows.entry(MemberId::trusted(member.to_owned())).or_default().from_items.push((day, points));
        }
    }
    for (member, points) in from_invites {
        rows.entry(MemberId::trusted(member.to_owned())).or_default().from_invites += points;
    }
    rows.retain(|_, earned| !earned.is_nothing());
    rows
}

/// The view's table.
pub(crate) fn tables(inputs: &Inputs, semantics: &Semantics) -> Tables {
    let mut tables = Tables::default();
    for (member, earned) in points(inputs, &semantics.program) {
        tables.put::<Points>(&member, &earned);
    }
    tables
}
