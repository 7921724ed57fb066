//! The declarations: one table of merged input or of a view a file, and the list of all views.
//!
//! A view is one word. `also_bought` names its declaration here, its dataflow function (`pipeline/dataflow`), its oracle
//! (`pipeline/oracle`), its settings, its export and its route. What is declared here drives sink, export, verify, status and
//! docs; a test refuses a view that lacks a part.

pub mod also_bought;
pub mod histories;
pub mod inputs;
pub mod member_orders;
pub mod points;
pub mod popularity;

use std::fmt::Debug;
use std::ops::ControlFlow;

use crate::codec::{Corrupt, KeyCodec, RowCodec};
use crate::settings::Semantics;
use crate::units::Day;

/// One table of the store: its name and the types of its keys and rows.
pub trait Table: 'static {
    /// The table's name.
    const NAME: &'static str;
    /// What a row stands under.
    type Key: KeyCodec;
    /// The row.
    type Row: RowCodec;
}

/// How a scan goes on: breaking ends it, well or with an error that it returns.
pub type Flow = ControlFlow<Result<(), ReadError>>;

/// Sees each row of a scan as (key, row).
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Flow;

/// What a visitor of [`scan`] may return.
pub trait Visited {
    /// How the scan goes on.
    fn flow(self) -> Flow;
}

/// To the end.
impl Visited for () {
    fn flow(self) -> Flow {
        Flow::Continue(())
    }
}

/// Until it breaks, which ends the scan well.
impl Visited for ControlFlow<()> {
    fn flow(self) -> Flow {
        self.map_break(Ok)
    }
}

/// Until something goes wrong.
impl Visited for Result<(), ReadError> {
    fn flow(self) -> Flow {
        self.map_or_else(|error| Flow::Break(Err(error)), Flow::Continue)
    }
}

impl Visited for Flow {
    fn flow(self) -> Flow {
        self
    }
}

/// Tables to read from: the store, or what the oracle computed. Rows come in the order of their keys.
pub trait Rows {
    /// The row under a key.
    ///
    /// # Errors
    /// What the store says; [`Corrupt`] as its own kind.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Every row whose key starts with `prefix`, until the visitor breaks.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError>;

    /// Every row of one of `of` parts, in the order of keys; between them the parts have each row once, and all rows of one
    /// identity are in one. How several processes read a table together. A store that one process owns is one part.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan_part(&self, table: &str, part: usize, of: usize, visit: Visit<'_>) -> Result<(), ReadError> {
        debug_assert!(part < of, "there is no part {part} of {of}");
        if part == 0 { self.scan(table, &[], visit) } else { Ok(()) }
    }
}

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store gave no answer; asking again is safe.
    #[error("the store could not be read: {0}")]
    Unavailable(String),
    /// The bytes are not what was written.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The row of a table under a key.
///
/// # Errors
/// As [`Rows::get`].
pub fn get<T: Table>(rows: &dyn Rows, key: &T::Key) -> Result<Option<T::Row>, ReadError> {
    rows.get(T::NAME, &key.to_bytes())?.map(|row| T::Row::decode(&row).map_err(ReadError::from)).transpose()
}

/// Every row of a table below a prefix of its key, decoded, until the visitor breaks.
///
/// # Errors
/// As [`Rows::scan`].
pub fn scan<T: Table, V: Visited>(
    rows: &dyn Rows,
    prefix: &[u8],
    mut visit: impl FnMut(T::Key, T::Row) -> V,
) -> Result<(), ReadError> {
    rows.scan(T::NAME, prefix, &mut |key, row| match T::Key::from_bytes(key).and_then(|key| Ok((key, T::Row::decode(row)?))) {
        Ok((key, row)) => visit(key, row).flow(),
        Err(corrupt) => Flow::Break(Err(corrupt.into())),
    })
}

/// One field of an exported row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Nothing: an empty field in CSV, `null` in NDJSON.
    Empty,
    /// Text, raw.
    Text(String),
    /// A whole number.
    Number(i128),
    /// A decimal number as it is to be written.
    Decimal(String),
}

impl Cell {
    /// A text.
    pub fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }
}

/// Takes one exported row; breaks when the reader went away.
pub type EmitRow<'a> = &'a mut dyn FnMut(&[Cell]) -> ControlFlow<()>;

/// What an export depends on besides the rows.
#[derive(Clone, Copy, Debug)]
pub struct ExportContext<'a> {
    /// The pinned settings.
    pub settings: &'a Semantics,
    /// Figures that depend on today are evaluated for this day.
    pub as_of: Day,
}

/// The declaration of a view.
pub trait View: 'static {
    /// Its one word.
    const NAME: &'static str;
    /// One sentence: the meaning of a row.
    const SUMMARY: &'static str;
    /// The columns of its export.
    const COLUMNS: &'static [&'static str];
    /// The route that serves it.
    const ROUTE: &'static str;
    /// The tables that are its own: written by the sink, compared by `verify`. None where the view reads merged inputs back.
    fn tables() -> Vec<TableInfo>;
    /// Whether the settings keep it.
    fn enabled(settings: &Semantics) -> bool;
    /// Its rows, sorted.
    ///
    /// # Errors
    /// What reading says.
    fn export(rows: &dyn Rows, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError>;
}

/// What tools need to know of a table without its types.
#[derive(Clone, Copy)]
pub struct TableInfo {
    /// The table's name.
    pub name: &'static str,
    /// A key for a person to read.
    pub describe_key: fn(&[u8]) -> String,
    /// A row for a person to read.
    pub describe_row: fn(&[u8]) -> String,
}

impl TableInfo {
    /// Of a table.
    pub fn of<T: Table>() -> Self {
        fn shown<V: Debug>(value: Result<V, Corrupt>) -> String {
            value.map_or_else(|corrupt| corrupt.to_string(), |value| format!("{value:?}"))
        }
        Self {
            name: T::NAME,
            describe_key: |bytes| shown(T::Key::from_bytes(bytes)),
            describe_row: |bytes| shown(T::Row::decode(bytes)),
        }
    }
}

/// What tools need to know of a view without its types.
#[derive(Clone, Copy)]
pub struct ViewInfo {
    /// Its one word.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Columns of the export.
    pub columns: &'static [&'static str],
    /// The route that serves it.
    pub route: &'static str,
    /// Its own tables.
    pub tables: fn() -> Vec<TableInfo>,
    /// Whether the settings keep it.
    pub enabled: fn(&Semantics) -> bool,
    /// [`View::export`].
    pub export: fn(&dyn Rows, ExportContext<'_>, EmitRow<'_>) -> Result<(), ReadError>,
}

impl ViewInfo {
    /// Whether its rows say something of single persons, by a column that names them: who exports it needs to be let see members.
    pub fn is_about_persons(&self) -> bool {
        self.columns.iter().any(|column| matches!(*column, "member" | "session" | "owner"))
    }
}

const fn info<V: View>() -> ViewInfo {
    ViewInfo {
        name: V::NAME,
        summary: V::SUMMARY,
        columns: V::COLUMNS,
        route: V::ROUTE,
        tables: V::tables,
        enabled: V::enabled,
        export: V::export,
    }
}

/// All views, by name.
pub const ALL: &[ViewInfo] = &[
    info::<also_bought::AlsoBought>(),
    info::<histories::Histories>(),
    info::<member_orders::MemberOrders>(),
    info::<points::Points>(),
    info::<popularity::Popularity>(),
];

/// The view of a name.
pub fn find(name: &str) -> Option<&'static ViewInfo> {
    ALL.iter().find(|view| view.name == name)
}

/// Every table of merged inputs.
pub fn input_tables() -> Vec<TableInfo> {
    vec![
        TableInfo::of::<inputs::Interactions>(),
        TableInfo::of::<inputs::Orders>(),
        TableInfo::of::<inputs::Catalog>(),
        TableInfo::of::<inputs::Members>(),
        TableInfo::of::<inputs::Ledger>(),
    ]
}

/// Every table that the views own.
pub fn view_tables() -> Vec<TableInfo> {
    ALL.iter().flat_map(|view| (view.tables)()).collect()
}
