//! The declarations: one table of merged input or of a view a file, and the list of all views.
//!
//! A view is one line of [`for_each_view`](crate::for_each_view). From it come its name, the module of its declaration, its settings below `views.*`, its
//! tables, its export and its rows over HTTP; and in `pipeline/dataflow` and `pipeline/oracle` the places that maintain and recompute
//! it. A view that lacks one of these parts does not compile. CONTRIBUTING.md has the steps.

pub mod inputs;

use std::fmt::{self, Debug, Display};
use std::ops::ControlFlow;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{Corrupt, KeyCodec, RowCodec, put_text};
use crate::settings::Semantics;
use crate::units::Day;

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
            /// Keeps these views alone: for tests and measurements of one.
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

/// There is no view of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no view {0:?}; there are {names}", names = NAMES.join(", "))]
pub struct NoView(pub String);

/// The settings of one view: a table that says at least whether it is kept.
pub trait Switched: Clone + PartialEq + Debug + Default + Serialize + DeserializeOwned {
    /// Whether the view is maintained.
    fn is_enabled(&self) -> bool;
    /// Decides it.
    fn set_enabled(&mut self, enabled: bool);
}

/// What [`for_each_view`](crate::for_each_view) says of a view.
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

/// The prefix of the keys of one item or member, or of all: identities are encoded alike.
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
    /// Its settings, below `views.NAME`; [`crate::settings::Switch`] where there are none.
    type Settings: Switched;
    /// One sentence: the meaning of a row.
    const SUMMARY: &'static str;
    /// The columns of its export.
    const COLUMNS: &'static [&'static str];
    /// The route that serves it.
    const ROUTE: &'static str;
    /// The tables that are its own: written by the sink, compared by `verify`. None where the view reads merged inputs back.
    fn tables() -> Vec<TableInfo>;
    /// What must hold for its settings.
    ///
    /// # Errors
    /// A sentence naming the setting.
    fn check(_settings: &Self::Settings) -> Result<(), String> {
        Ok(())
    }
    /// Its rows, sorted; where `of` names an item, a member or an owner, those of that one alone.
    ///
    /// # Errors
    /// What reading says.
    fn export(rows: &dyn Rows, of: Option<&str>, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError>;
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

/// [`View::export`] without its type.
pub type Export = fn(&dyn Rows, Option<&str>, ExportContext<'_>, EmitRow<'_>) -> Result<(), ReadError>;

/// What tools need to know of a view without its types.
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
    /// Whether its rows say something of single persons, by a column that names them: who exports it needs to be let see members.
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
        route: V::ROUTE,
        tables: V::tables,
        enabled: V::is_kept,
        export: V::export,
    }
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
