//! `points`: what a member has earned, by source and by the day from which it is available.
//!
//! Maintained by `pipeline::dataflow::points`, checked by `oracle::points`, served by `GET /v1/members/{member}/points`. The
//! row holds event-time buckets; pending and available are evaluated when read, for an as-of day. This view knows no expiry,
//! invite limit, spending or debt.

use super::{Cell, EmitRow, ExportContext, ReadError, Rows, Table, TableInfo, View, scan};
use crate::codec::{Corrupt, RowCodec, put_signed, take_signed};
use crate::ids::MemberId;
use crate::settings::Semantics;
use crate::units::Day;

/// The view, and its one table.
pub struct Points;

/// What one member has earned. A row of zeros is no row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Earned {
    /// From invites; available at once.
    pub from_invites: i64,
    /// From items: (available from, points), ascending by day, no bucket of nought.
    pub from_items: Vec<(Day, i64)>,
}

impl Earned {
    /// (pending, available) as of a day: item points move from the one to the other on their day; invites count at once. Points
    /// dated later than the day are pending, never left out.
    pub fn as_of(&self, day: Day) -> (i64, i64) {
        let available: i64 = self.from_items.iter().filter(|(from, _)| *from <= day).map(|(_, points)| points).sum();
        (self.items_total() - available, available + self.from_invites)
    }

    /// All points from items.
    pub fn items_total(&self) -> i64 {
        self.from_items.iter().map(|(_, points)| points).sum()
    }

    /// Whether it is a row at all.
    pub fn is_nothing(&self) -> bool {
        self.from_invites == 0 && self.from_items.is_empty()
    }
}

impl RowCodec for Earned {
    fn encode(&self, out: &mut Vec<u8>) {
        put_signed(out, self.from_invites);
        for (day, points) in &self.from_items {
            put_signed(out, i64::from(day.0));
            put_signed(out, *points);
        }
    }
    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut earned = Self { from_invites: take_signed(&mut bytes)?, from_items: Vec::new() };
        while !bytes.is_empty() {
            let day = i32::try_from(take_signed(&mut bytes)?).map_err(|_| Corrupt("a day out of range"))?;
            earned.from_items.push((Day(day), take_signed(&mut bytes)?));
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
    const NAME: &'static str = "points";
    const SUMMARY: &'static str = "the points a member has earned, pending and available as of a day";
    const COLUMNS: &'static [&'static str] = &["member", "pending", "available", "from_items", "from_invites"];
    const ROUTE: &'static str = "GET /v1/members/{member}/points";

    fn tables() -> Vec<TableInfo> {
        vec![TableInfo::of::<Self>()]
    }

    fn enabled(settings: &Semantics) -> bool {
        settings.views.points.enabled
    }

    fn export(rows: &dyn Rows, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError> {
        let mut open = true;
        scan::<Self>(rows, &[], |member, earned| {
            let (pending, available) = earned.as_of(context.as_of);
            let numbers = [pending, available, earned.items_total(), earned.from_invites];
            let mut cells = vec![Cell::text(member)];
            cells.extend(numbers.map(|number| Cell::Number(i128::from(number))));
            open = open && emit(&cells).is_continue();
        })
    }
}
