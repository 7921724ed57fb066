//! `points`: what a member has earned and what was taken back of it, by lot.
//!
//! points of orders and invites ─▶ (member, lot) with the points as differences ─▶ one row a member

use std::sync::Arc;

use differential_dataflow::AsCollection;
use kindred_model::settings::Switch;
use kindred_model::views::points::{Difference, Earned, Points};
use timely::dataflow::operators::vec::Map;
use tracing::warn;

use crate::collections::{Collections, Maintained};
use crate::facts::{Facts, LotPoints, MemberKey};
use crate::output::{Sink, upserts};
use crate::update::Stats;

impl Maintained for Points {
    fn maintain(from: &Collections<'_>, _settings: &Switch, sink: &Sink) {
        let rows = upserts(points(from.lots(), from.stats()), "Points rows");
        sink.rows::<Self, _>(rows, |(member, earned)| (member.member(), earned.clone()));
    }
}

/// One row a member that earned something. What a lot's sums lose leaves its entry; an entry of zeros and a row of none do not
/// exist. `lots` are without the erased: neither they nor erased inviters have rows. The points are the differences, so that the
/// sums are the arrangement's own work: it holds one entry a member and lot, and the rows once. They are of 128 bits; one that leaves
/// the 64 bits of a row saturates there, and is counted and told.
fn points<'s>(lots: Facts<'s, (MemberKey, LotPoints)>, stats: &Arc<Stats>) -> Facts<'s, (MemberKey, Earned)> {
    let stats = Arc::clone(stats);
    lots.inner
        .flat_map(|((member, points), time, diff)| {
            let sum = |points: i64| i128::from(points) * diff as i128;
            let from_invites = if points.is_invite { points.points } else { 0 };
            let sums = (sum(points.points), sum(points.level_points), sum(from_invites));
            (sums != (0, 0, 0)).then_some(((member, points.lot), time, sums))
        })
        .as_collection()
        .reduce_named("Points", move |_: &MemberKey, lots, rows| {
            let mut earned = Earned::default();
            for (lot, (points, level_points, from_invites)) in lots {
                let sums = [*points, *level_points, *from_invites];
                if sums.iter().any(|sum| i64::try_from(*sum).is_err()) {
                    Stats::add(&stats.saturated, 1);
                    warn!("a sum of a member's points leaves 64 bits; the row holds the greatest number");
                }
                earned.differences.extend(Difference::of_sums(lot.lot(), sums));
            }
            earned.differences.sort_unstable();
            if !earned.is_nothing() {
                rows.push((earned, 1isize));
            }
        })
}
