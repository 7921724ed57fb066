//! `points`: what a member has earned and what was taken back of it, by lot.
//!
//! points of orders and invites ─▶ (member, lot) with the points as differences ─▶ one row a member

use std::sync::Arc;

use differential_dataflow::AsCollection;
use kindred_model::intern::Party;
use kindred_model::views::points::{Difference, Earned};
use timely::dataflow::operators::vec::Map;
use tracing::warn;

use crate::facts::{Facts, MemberFact, MemberKey};
use crate::update::Stats;

/// One row a member that earned something. What a lot's sums lose leaves its entry; an entry of zeros and a row of none do not
/// exist. `facts` are without the erased: neither they nor erased inviters have rows. The points are the differences, so that the
/// sums are the arrangement's own work: it holds one entry a member and lot, and the rows once. They are of 128 bits; one that leaves
/// the 64 bits of a row saturates there, and is counted and told.
pub fn points<'s>(facts: Facts<'s, (MemberKey, MemberFact)>, stats: &Arc<Stats>) -> Facts<'s, (Party, Earned)> {
    let stats = Arc::clone(stats);
    facts
        .inner
        .flat_map(|((member, fact), time, diff)| {
            let MemberFact::Points(points) = fact else { return None };
            let sum = |points: i64| i128::from(points) * diff as i128;
            let from_invites = if points.is_invite { points.points } else { 0 };
            let sums = (sum(points.points), sum(points.level_points), sum(from_invites));
            (sums != (0, 0, 0)).then_some(((member, points.lot), time, sums))
        })
        .as_collection()
        .reduce_named("Points", move |member: &MemberKey, lots, rows| {
            let mut earned = Earned::default();
            for (lot, (points, level_points, from_invites)) in lots {
                let sums = [*points, *level_points, *from_invites];
                if sums.iter().any(|sum| i64::try_from(*sum).is_err()) {
                    Stats::add(&stats.saturated, 1);
                    warn!(member = %member.0.owner().id(), "a sum of points leaves 64 bits; the row holds the greatest number");
                }
                earned.differences.extend(Difference::of_sums(lot.lot(), sums));
            }
            earned.differences.sort_unstable();
            if !earned.is_nothing() {
                rows.push((earned, 1isize));
            }
        })
        .map(|(MemberKey(member), earned)| (member, earned))
}
