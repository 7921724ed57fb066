//! `points`: what a member has earned and lost, by lot.
//!
//! points of orders and invites ─▶ (member, lot) with the points as diffs ─▶ one row per member

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

/// One row per member that earned something; sums of zero and empty rows do not exist. `lots` are without the erased: neither
/// they nor erased inviters have rows. The points are the diffs, so the arrangement does the sums: it holds one entry per member
/// and lot, and the rows once. Sums have 128 bits; one that overflows the 64 bits of a row saturates, is counted and logged.
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
                    warn!("a member's points overflow 64 bits; the row is saturated");
                }
                earned.differences.extend(Difference::of_sums(lot.lot(), sums));
            }
            earned.differences.sort_unstable();
            if !earned.is_nothing() {
                rows.push((earned, 1isize));
            }
        })
}
