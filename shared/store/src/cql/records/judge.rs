//! Decides the outcome of a transaction that was not acknowledged as applied, from its rows.
//!
//! ```text
//! steps, the versions tried, the rows as they are (SERIAL) ──▶ done, conflict, retry with these versions, or unknown
//! ```
//!
//! It relies on three facts. A transaction has one random version for all attempts, so a row that has it, or replaced it, proves
//! that it was applied. A replaced version never comes back, and a row is absent again only a day after it was deleted or expired
//! (`SWEPT_AFTER_MS`), later than any message: an attempt whose row has changed can never be applied, and of several attempts at
//! most one is. A row names the version it replaced, so one overtaker still shows whether ours was applied before it.

use kindred_model::units::EventTime;

use crate::records::{Effect, Expect, Step, Version};

/// A row, also a deleted or expired one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub version: Version,
    /// The version it replaced, if any.
    pub previous: Option<Version>,
    /// Milliseconds since 1970; absent from then on.
    pub expires_at: i64,
}

/// The outcome.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Done,
    /// It was not applied, and never will be.
    Conflict,
    /// Not applied yet. Retry with these versions, in the order of the steps.
    Again(Vec<Option<Version>>),
    /// An attempt without an answer may have been applied and overwritten twice since.
    Unknown,
}

/// `tried`: the versions that the last attempt expected; `unanswered`: whether such an attempt may still be applied; `seen`: the
/// rows. All in the order of the steps.
pub(super) fn judge(
    steps: &[Step],
    tried: &[Option<Version>],
    unanswered: bool,
    seen: &[Option<Seen>],
    ours: Version,
    now: EventTime,
) -> Verdict {
    let written = || steps.iter().zip(tried).zip(seen).filter(|((step, _), _)| step.effect != Effect::Check);
    if written().any(|(_, seen)| seen.is_some_and(|seen| seen.version == ours || seen.previous == Some(ours))) {
        return Verdict::Done;
    }
    // One row that is unchanged, or whose overtaker directly replaced what was there, shows that no attempt was applied, since
    // they are atomic. A transaction without writes cannot be half applied.
    let untouched = |tried: Option<Version>, seen: Option<Seen>| {
        seen.map(|seen| seen.version) == tried || seen.is_some_and(|seen| seen.previous == tried)
    };
    if unanswered && written().next().is_some() && !written().any(|((_, tried), seen)| untouched(*tried, *seen)) {
        return Verdict::Unknown;
    }
    let mut next = Vec::with_capacity(steps.len());
    for (step, seen) in steps.iter().zip(seen) {
        let lives = seen.filter(|seen| seen.expires_at > now.0).map(|seen| seen.version);
        match step.expect {
            Expect::Version(expected) if lives == Some(expected) => (),
            Expect::Absent if lives.is_none() => (),
            _ => return Verdict::Conflict,
        }
        next.push(seen.map(|seen| seen.version));
    }
    Verdict::Again(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: EventTime = EventTime(1_000);
    const OURS: Version = Version(99);
    const FOREVER: i64 = i64::MAX;

    fn row(version: u128, previous: Option<u128>, expires_at: i64) -> Option<Seen> {
        Some(Seen { version: Version(version), previous: previous.map(Version), expires_at })
    }

    fn of(steps: &[Step], unanswered: bool, seen: &[Option<Seen>]) -> Verdict {
        let tried: Vec<_> = steps
            .iter()
            .map(|step| match step.expect {
                Expect::Absent => None,
                Expect::Version(version) => Some(version),
            })
            .collect();
        judge(steps, &tried, unanswered, seen, OURS, NOW)
    }

    fn insert() -> Step {
        Step::insert("a", Vec::new(), None)
    }

    fn delete() -> Step {
        Step::delete("a", Version(1))
    }

    #[test]
    fn what_has_our_version_or_replaced_it_is_done() {
        for unanswered in [false, true] {
            assert_eq!(of(&[insert()], unanswered, &[row(99, None, FOREVER)]), Verdict::Done);
            assert_eq!(of(&[delete()], unanswered, &[row(99, Some(1), i64::MIN)]), Verdict::Done, "a deletion is remembered");
            assert_eq!(of(&[insert()], unanswered, &[row(5, Some(99), FOREVER)]), Verdict::Done, "somebody replaced ours");
            let both = [insert(), Step::replace("b", Version(2), Vec::new(), None)];
            assert_eq!(of(&both, unanswered, &[row(7, Some(5), FOREVER), row(99, Some(2), FOREVER)]), Verdict::Done);
        }
    }

    #[test]
    fn an_overtaker_that_came_right_before_us_is_a_conflict() {
        for unanswered in [false, true] {
            assert_eq!(of(&[insert()], unanswered, &[row(5, None, FOREVER)]), Verdict::Conflict);
            assert_eq!(of(&[delete()], unanswered, &[row(5, Some(1), i64::MIN)]), Verdict::Conflict, "another's deletion");
            let both = [Step::replace("b", Version(2), Vec::new(), None), insert()];
            assert_eq!(
                of(&both, unanswered, &[row(2, None, FOREVER), row(7, Some(6), FOREVER)]),
                Verdict::Conflict,
                "one is as it was"
            );
            let checked = [Step::check("b", Expect::Absent), insert()];
            assert_eq!(of(&checked, unanswered, &[row(7, Some(6), FOREVER), None]), Verdict::Conflict);
            assert_eq!(of(&[Step::check("b", Expect::Absent)], unanswered, &[row(7, Some(6), FOREVER)]), Verdict::Conflict);
        }
        assert_eq!(of(&[delete()], false, &[None]), Verdict::Conflict);
    }

    #[test]
    fn who_was_overtaken_twice_is_told_that_nobody_can_tell() {
        assert_eq!(of(&[insert()], true, &[row(7, Some(5), FOREVER)]), Verdict::Unknown);
        assert_eq!(of(&[insert()], true, &[row(7, Some(5), i64::MIN)]), Verdict::Unknown);
        assert_eq!(of(&[delete()], true, &[None]), Verdict::Unknown, "what we deleted, or another, was swept");
        assert_eq!(of(&[insert()], false, &[row(7, Some(5), FOREVER)]), Verdict::Conflict, "unless each attempt was answered");
    }

    #[test]
    fn what_is_as_expected_is_tried_again_on_what_is_there() {
        for unanswered in [false, true] {
            assert_eq!(of(&[insert()], unanswered, &[None]), Verdict::Again(vec![None]));
            assert_eq!(of(&[delete()], unanswered, &[row(1, None, 1_001)]), Verdict::Again(vec![Some(Version(1))]));
            assert_eq!(of(&[delete()], unanswered, &[row(1, None, 1_000)]), Verdict::Conflict, "but not once it has expired");
            // Deleted and expired rows are absent: the retry expects their version.
            assert_eq!(of(&[insert()], unanswered, &[row(5, None, 1_000)]), Verdict::Again(vec![Some(Version(5))]));
            assert_eq!(of(&[insert()], unanswered, &[row(5, None, i64::MIN)]), Verdict::Again(vec![Some(Version(5))]));
        }
    }
}
