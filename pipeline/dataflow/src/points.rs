//! `points`: what a member has earned, by source and by the as-of day from which it is available.
//!
//! lines, invites ─▶ (member, bucket) with the points as differences ─▶ one row a member

use kindred_model::Day;
use kindred_model::intern::Party;
use kindred_model::views::points::Earned;
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, MemberFact, MemberKey};
use crate::invariant::violated;

/// Where points go within a member's row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
enum Bucket {
    /// From invites; available at once.
    Invites,
    /// From items, available from this day since 1970.
    Items(i32),
}

/// One row a member that earned something. A line that counts no more takes its points out of its day; a row of zeros is no row.
/// `facts` are without the erased: neither they nor erased inviters have rows. The points are the differences, so that the sums
/// are the arrangement's own work: it holds one entry a member and day, and the rows once.
pub fn points<'s>(facts: Facts<'s, (MemberKey, MemberFact)>) -> Facts<'s, (Party, Earned)> {
    facts
        .flat_map(|(member, fact)| {
            let (bucket, points) = match fact {
                MemberFact::Line(line) => (Bucket::Items(line.available_from), line.points),
                MemberFact::Invited { points } => (Bucket::Invites, points),
                MemberFact::Session(_) => return None,
            };
            (points != 0).then_some(((member, bucket), points))
        })
        .explode(|(bucket, points)| Some((bucket, points as isize)))
        .reduce_named("Points", |_member, buckets, rows| {
            let mut earned = Earned::default();
            for (bucket, points) in buckets {
                if *points <= 0 {
                    violated(format_args!("{points} points in a bucket of a member"));
                }
                match bucket {
                    Bucket::Invites => earned.from_invites = *points as i64,
                    Bucket::Items(day) => earned.from_items.push((Day(*day), *points as i64)),
                }
            }
            rows.push((earned, 1));
        })
        .map(|(MemberKey(member), earned)| (member, earned))
}
