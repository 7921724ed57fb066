//! `popularity`: per item, kind and UTC day, the number of owners with an unhidden interaction of that key.
//!
//! Maintained by `pipeline::dataflow::popularity`, checked by `oracle::popularity`, served by `GET /v1/popular`. Sums and decay
//! over days are evaluated when read, for an as-of day.

use super::{Cell, EmitRow, ExportContext, ReadError, Rows, Table, TableInfo, View, prefix_of, scan};
use crate::ids::ItemId;
use crate::settings::Switch;
use crate::units::{Day, Kind};

/// The view, and its one table. A row counts the owners; a count of zero has no row.
pub struct Popularity;

impl Table for Popularity {
    const NAME: &'static str = "popularity";
    type Key = (ItemId, Kind, Day);
    type Row = u64;
}

impl View for Popularity {
    type Settings = Switch;
    const SUMMARY: &'static str = "how many owners did a thing with an item on a day";
    const COLUMNS: &'static [&'static str] = &["item", "kind", "day", "owners"];
    const ROUTE: &'static str = "GET /v1/popular";

    fn tables() -> Vec<TableInfo> {
        vec![TableInfo::of::<Self>()]
    }

    fn export(rows: &dyn Rows, of: Option<&str>, _context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError> {
        scan::<Self, _>(rows, &prefix_of(of), |(item, kind, day), owners| {
            let cells = [Cell::text(item), Cell::text(kind), Cell::text(day), Cell::Number(i128::from(owners))];
            emit(&cells)
        })
    }
}
