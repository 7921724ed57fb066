//! `points`: what a member has earned and lost, as differences by the day from which each is known.
//!
//! Maintained by `pipeline::dataflow::points`, checked by `oracle::points`, served by `GET /v1/members/{member}/points`. Pending
//! and available points are evaluated when read, for an as-of day: later dates are unknown, so a past day's values do not change.
//! This view knows no invite limit, spending or debt.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Cell, EmitRow, ExportContext, ReadError, Rows, Table, TableInfo, View, prefix_of, scan};
use crate::codec::{Corrupt, RowCodec, put_signed, take, take_day, take_signed};
use crate::ids::MemberId;
use crate::loyalty::Lot;
use crate::settings::Switch;
use crate::units::Day;

/// The view, and its one table.
pub struct Points;

/// The sum of points earned and lost in one lot; saturates at 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Difference {
    /// Which lot.
    pub lot: Lot,
    /// Points.
    pub points: i64,
    /// Points that count for levels.
    pub level_points: i64,
    /// The part of the points from invites.
    pub from_invites: i64,
}

impl Difference {
    /// From sums, which saturate; `None` if all are 0.
    pub fn of_sums(lot: Lot, [points, level_points, from_invites]: [i128; 3]) -> Option<Self> {
        let is_nothing = (points, level_points, from_invites) == (0, 0, 0);
        (!is_nothing).then(|| Self {
            lot,
            points: saturated(points),
            level_points: saturated(level_points),
            from_invites: saturated(from_invites),
        })
    }
}

/// Saturates a sum to a row's 64 bits.
pub fn saturated(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

/// What one member has earned. A row of zeros does not exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Earned {
    /// Ascending by lot, each lot once, no sums of 0.
    pub differences: Vec<Difference>,
}

/// A member's points as of a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AsOf {
    /// Not available yet.
    pub pending: i64,
    /// Available and not expired.
    pub available: i64,
    /// Earned by items, whether pending, available or expired.
    pub from_items: i64,
    /// Earned by invites.
    pub from_invites: i64,
}

impl Earned {
    fn known(&self, day: Day) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(move |difference| difference.lot.known_from <= day)
    }

    /// Points as of a day: a lot moves from pending to available on its day.
    pub fn as_of(&self, day: Day) -> AsOf {
        let (mut pending, mut available, mut from_items, mut from_invites) = (0i128, 0i128, 0i128, 0i128);
        for Difference { lot, points, from_invites: of_invites, .. } in self.known(day) {
            let points = i128::from(*points);
            if lot.available_from > day {
                pending += points;
            } else if lot.expires_on.is_none_or(|expires_on| expires_on > day) {
                available += points;
            }
            from_invites += i128::from(*of_invites);
            from_items += points - i128::from(*of_invites);
        }
        AsOf {
            pending: saturated(pending),
            available: saturated(available),
            from_items: saturated(from_items),
            from_invites: saturated(from_invites),
        }
    }

    /// Points from items known on a day, by the day from which they are available; none of 0.
    pub fn items_as_of(&self, day: Day) -> Vec<(Day, i64)> {
        let mut by_day: BTreeMap<Day, i128> = BTreeMap::new();
        for difference in self.known(day) {
            *by_day.entry(difference.lot.available_from).or_default() +=
                i128::from(difference.points) - i128::from(difference.from_invites);
        }
        by_day.into_iter().filter(|(_, points)| *points != 0).map(|(day, points)| (day, saturated(points))).collect()
    }

    /// Whether the row is empty and must not exist.
    pub fn is_nothing(&self) -> bool {
        self.differences.is_empty()
    }
}

/// The first byte of a row. Format 1 rows began with an even one.
const FORMAT_2: u8 = 1;

impl RowCodec for Earned {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT_2);
        for Difference { lot, points, level_points, from_invites } in &self.differences {
            put_signed(out, i64::from(lot.known_from.0));
            put_signed(out, i64::from(lot.available_from.0));
            // -1, the day before 1970, stands for never: no lot expires on it.
            put_signed(out, lot.expires_on.map_or(-1, |day| i64::from(day.0)));
            put_signed(out, *points);
            put_signed(out, *level_points);
            put_signed(out, *from_invites);
        }
    }
    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        if take(&mut bytes)? != [FORMAT_2] {
            return Err(Corrupt("a row of points of an older format"));
        }
        let mut earned = Self::default();
        while !bytes.is_empty() {
            let (known_from, available_from, expires_on) = (take_day(&mut bytes)?, take_day(&mut bytes)?, take_day(&mut bytes)?);
            let lot = Lot { known_from, available_from, expires_on: Some(expires_on).filter(|day| day.0 != -1) };
            let (points, level_points) = (take_signed(&mut bytes)?, take_signed(&mut bytes)?);
            let from_invites = take_signed(&mut bytes)?;
            earned.differences.push(Difference { lot, points, level_points, from_invites });
        }
        Ok(earned)
    }
}

impl Table for Points {
    const NAME: &'static str = "points";
    type Key = MemberId;
    type Row = Earned;
}

impl View for Points {
    type Settings = Switch;
    const SUMMARY: &'static str = "the points a member has earned, pending and available as of a day";
    const COLUMNS: &'static [&'static str] = &["member", "pending", "available", "from_items", "from_invites"];
    const SUMMED: &'static [&'static str] = &["available", "pending"];
    const ROUTE: &'static str = "GET /v1/members/{member}/points";

    fn tables() -> Vec<TableInfo> {
        vec![TableInfo::of::<Self>()]
    }

    /// A member without anything known or left on the day has no row.
    fn export(rows: &dyn Rows, of: Option<&str>, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError> {
        scan::<Self, _>(rows, &prefix_of(of), |member, earned| {
            let AsOf { pending, available, from_items, from_invites } = earned.as_of(context.as_of);
            let numbers = [pending, available, from_items, from_invites];
            if numbers == [0; 4] {
                return ControlFlow::Continue(());
            }
            let mut cells = vec![Cell::text(member)];
            cells.extend(numbers.map(|number| Cell::Number(i128::from(number))));
            emit(&cells)
        })
    }
}
