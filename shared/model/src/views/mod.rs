//! The declarations: one file per table of merged input or view, and the list of all views.
//!
//! A view is one line of [`for_each_view`](crate::for_each_view), which generates its name, settings below `views.*`, tables,
//! export and HTTP rows; in `pipeline/dataflow` and `pipeline/oracle` it requires the code that maintains and recomputes it. A
//! view that lacks one of these does not compile. CONTRIBUTING.md has the steps.

pub mod inputs;

use std::fmt::{self, Debug, Display};
use std::ops::ControlFlow;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{Corrupt, KeyCodec, RowCodec, put_text};
use crate::settings::Semantics;
use crate::units::Day;

pub use inputs::input_tables;

/// The list of all views, by name: `module: Type`. Calls the macro `$each` with it.
#[macro_export]
macro_rules! for_each_view {
    ($each:ident) => {
        $each! {
            also_bought: AlsoBought,
            histories: Histories,
            member_orders: MemberOrders,
            points: Points,
            popularity: Popularity,
        }
    };
}

macro_rules! declare {
    ($($module:ident: $View:ident,)+) => {
        $(pub mod $module;)+

        /// The name of a view.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ViewName {
            $(#[doc = concat!("`", stringify!($module), "`")] $View,)+
        }

        impl ViewName {
            /// Its declaration.
            pub const fn info(self) -> &'static ViewInfo {
                &ALL[self as usize]
            }
        }

        /// The names of all views.
        pub const NAMES: [&str; [$(stringify!($module)),+].len()] = [$(stringify!($module)),+];

        /// All views, by name.
        pub const ALL: &[ViewInfo] = &[$(info::<$module::$View>()),+];

        /// `views.*`: one table a view.
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        pub struct ViewSettings {
            $(#[doc = concat!("`views.", stringify!($module), ".*`")] pub $module: <$module::$View as View>::Settings,)+
        }

        impl ViewSettings {
            /// Disables all other views: for tests and measurements.
            pub fn keep_only(&mut self, kept: &[ViewName]) {
                $(self.$module.set_enabled(kept.contains(&ViewName::$View));)+
            }

            pub(crate) fn check(&self) -> Result<(), String> {
                $(<$module::$View as View>::check(&self.$module)?;)+
                Ok(())
            }
        }

        $(impl Declared for $module::$View {
            const VIEW: ViewName = ViewName::$View;
            const NAME: &'static str = stringify!($module);
            fn settings(semantics: &Semantics) -> &Self::Settings {
                &semantics.views.$module
            }
        })+
    };
}

for_each_view!(declare);

impl Display for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

impl FromStr for ViewName {
    type Err = NoView;
    fn from_str(text: &str) -> Result<Self, NoView> {
        ALL.iter().find(|view| view.name == text).map(|view| view.view).ok_or_else(|| NoView(text.to_owned()))
    }
}

/// An unknown view.
#[derive(Debug, thiserror::Error)]
#[error("there is no view {0:?}; there are {names}", names = NAMES.join(", "))]
pub struct NoView(pub String);

/// The settings of one view: a table that at least enables or disables it.
pub trait Switched: Clone + PartialEq + Debug + Default + Serialize + DeserializeOwned {
    /// Whether the view is maintained.
    fn is_enabled(&self) -> bool;
    /// Enables or disables the view.
    fn set_enabled(&mut self, enabled: bool);
}

/// A view of [`for_each_view`](crate::for_each_view).
pub trait Declared: View {
    /// Its name.
    const VIEW: ViewName;
    /// Its name as a word.
    const NAME: &'static str;
    /// Its settings.
    fn settings(semantics: &Semantics) -> &Self::Settings;
    /// Whether the settings keep it.
    fn is_kept(semantics: &Semantics) -> bool {
        Self::settings(semantics).is_enabled()
    }
}

/// One table of the store: its name and the types of its keys and rows.
pub trait Table: 'static {
    /// The table's name.
    const NAME: &'static str;
    /// The key of a row.
    type Key: KeyCodec;
    /// The row.
    type Row: RowCodec;
}

/// Control flow of a scan: breaking ends it, with or without an error.
pub type Flow = ControlFlow<Result<(), ReadError>>;

/// Receives each row of a scan as (key, row).
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Flow;

/// A return value of a [`scan`] visitor.
pub trait Visited {
    /// As control flow.
    fn flow(self) -> Flow;
}

/// Scans to the end.
impl Visited for () {
    fn flow(self) -> Flow {
        Flow::Continue(())
    }
}

/// Scans until it breaks.
impl Visited for ControlFlow<()> {
    fn flow(self) -> Flow {
        self.map_break(Ok)
    }
}

/// Scans until an error.
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

/// Readable tables: the store's, or the oracle's. Rows come in key order.
pub trait Rows {
    /// The row under a key.
    ///
    /// # Errors
    /// Those of the store; [`Corrupt`] is a kind of its own.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Every row whose key starts with `prefix`, until the visitor breaks.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError>;

    /// Every row of one of `of` parts, in key order. Each row is in one part, and all rows of an identity are in the same one.
    /// Lets several processes read a table together. A store that one process owns is one part.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan_part(&self, table: &str, part: usize, of: usize, visit: Visit<'_>) -> Result<(), ReadError> {
        debug_assert!(part < of, "there is no part {part} of {of}");
        if part == 0 { self.scan(table, &[], visit) } else { Ok(()) }
    }
}

/// Errors of reading rows.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer; retrying is safe.
    #[error("the store could not be read: {0}")]
    Unavailable(String),
    /// The bytes do not decode.
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

/// The key prefix of one item or member, or of all: identities are encoded alike.
fn prefix_of(of: Option<&str>) -> Vec<u8> {
    let mut prefix = Vec::new();
    if let Some(of) = of {
        put_text(&mut prefix, of);
    }
    prefix
}

/// One field of an exported row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// An empty field in CSV, `null` in NDJSON.
    Empty,
    /// Text, raw.
    Text(String),
    /// An integer.
    Number(i128),
    /// A formatted decimal number.
    Decimal(String),
}

impl Cell {
    /// A text.
    pub fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }
}

/// Receives one exported row; breaks when the reader is gone.
pub type EmitRow<'a> = &'a mut dyn FnMut(&[Cell]) -> ControlFlow<()>;

/// What an export depends on, besides the rows.
#[derive(Clone, Copy, Debug)]
pub struct ExportContext<'a> {
    /// The pinned settings.
    pub settings: &'a Semantics,
    /// The as-of day.
    pub as_of: Day,
}

/// The declaration of a view.
pub trait View: 'static {
    /// Its settings below `views.NAME`; [`crate::settings::Switch`] without further ones.
    type Settings: Switched;
    /// One sentence: the meaning of a row.
    const SUMMARY: &'static str;
    /// The columns of its export.
    const COLUMNS: &'static [&'static str];
    /// The columns that a comparison of two generations sums.
    const SUMMED: &'static [&'static str] = &[];
    /// The route that serves it.
    const ROUTE: &'static str;
    /// The tables it owns, written by the sink and compared by `verify`. None if it reads merged inputs.
    fn tables() -> Vec<TableInfo>;
    /// Validates its settings.
    ///
    /// # Errors
    /// A sentence naming the setting.
    fn check(_settings: &Self::Settings) -> Result<(), String> {
        Ok(())
    }
    /// Its rows, sorted; `of` restricts them to one item, member or owner.
    ///
    /// # Errors
    /// Those of reading.
    fn export(rows: &dyn Rows, of: Option<&str>, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError>;
}

/// A table without its types, for tools.
#[derive(Clone, Copy)]
pub struct TableInfo {
    /// The table's name.
    pub name: &'static str,
    /// Prints a key.
    pub describe_key: fn(&[u8]) -> String,
    /// Prints a row.
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

/// [`View::export`] without its type.
pub type Export = fn(&dyn Rows, Option<&str>, ExportContext<'_>, EmitRow<'_>) -> Result<(), ReadError>;

/// A view without its types, for tools.
#[derive(Clone, Copy)]
pub struct ViewInfo {
    /// Its name.
    pub view: ViewName,
    /// Its name as a word.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Columns of the export.
    pub columns: &'static [&'static str],
    /// The columns that a comparison sums.
    pub summed: &'static [&'static str],
    /// The route that serves it.
    pub route: &'static str,
    /// Its own tables.
    pub tables: fn() -> Vec<TableInfo>,
    /// Whether the settings keep it.
    pub enabled: fn(&Semantics) -> bool,
    /// [`View::export`].
    pub export: Export,
}

impl ViewInfo {
    /// Whether its rows are about single persons, by a column that names them: exporting it requires the permission to see
    /// members.
    pub fn is_about_persons(&self) -> bool {
        self.columns.iter().any(|column| matches!(*column, "member" | "session" | "owner"))
    }
}

const fn info<V: Declared>() -> ViewInfo {
    ViewInfo {
        view: V::VIEW,
        name: V::NAME,
        summary: V::SUMMARY,
        columns: V::COLUMNS,
        summed: V::SUMMED,
        route: V::ROUTE,
        tables: V::tables,
        enabled: V::is_kept,
        export: V::export,
    }
}

/// Every table that the views own.
pub fn view_tables() -> Vec<TableInfo> {
    ALL.iter().flat_map(|view| (view.tables)()).collect()
}
