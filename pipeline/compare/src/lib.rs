//! Comparison of two generations: metrics, a terminal table, an HTML page.
//!
//! ```text
//! rows of A ──▶ compare ──▶ Comparison ──▶ text::table (a terminal), page::html (a browser)
//! rows of B ──▶    └ lists in key order, one at a time; in memory: a support and a view count per item, and the examples
//! ```
//!
//! Pure: it reads two [`Rows`] and nothing else, so the same rows give the same result.

mod collect;
pub mod measure;
pub mod page;
pub mod text;

use std::collections::BTreeMap;

use kindred_model::views::{self, Declared, ReadError, Rows, ViewInfo, popularity::Popularity};
use kindred_model::{Day, Semantics};
use serde::{Deserialize, Serialize};

use collect::{Figures, Supports, count_catalog, digests, sums_of, table_changes, views_by_item};

/// Lists shown, those that changed most.
pub const EXAMPLES_MAX: usize = 20;
/// Neighbours shown of each.
pub const EXAMPLE_ENTRIES: usize = 10;
/// Depths of the overlap.
pub const DEPTHS: [usize; 4] = [5, 10, 20, 50];
/// The depth whose overlaps are counted in [`Lists::histogram`].
pub const HISTOGRAM_DEPTH: usize = 10;

/// One of the two generations.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Its name.
    pub name: &'a str,
    /// The settings its rows were computed with.
    pub settings: &'a Semantics,
    /// The position it reaches, printable.
    pub as_of: &'a str,
    /// Its rows.
    pub rows: &'a dyn Rows,
}

/// A value of each side.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Pair<T> {
    /// Of the first.
    pub a: T,
    /// Of the second.
    pub b: T,
}

/// A setting that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettingChange {
    /// Its dotted name.
    pub name: String,
    /// In the first.
    pub a: String,
    /// In the second.
    pub b: String,
}

/// One table of merged inputs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InputTable {
    /// Its name.
    pub table: String,
    /// Rows of the first.
    pub rows_a: u64,
    /// Rows of the second.
    pub rows_b: u64,
    /// Whether both hold the same rows, by SHA-256 over keys and rows in key order.
    pub equal: bool,
}

/// One table of a view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ViewTable {
    /// Its name.
    pub table: String,
    /// Rows of the first.
    pub rows_a: u64,
    /// Rows of the second.
    pub rows_b: u64,
    /// Keys whose rows differ, or exist on one side only.
    pub different: u64,
}

/// The rows of a view's export, under its first column in the plural, and sums by column: of `points` the `members`, and the points
/// `available` and `pending`.
pub type Sums = BTreeMap<String, i64>;

/// How the lists differ. Means are over the items that have a list in either.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Lists {
    /// Items with a list in either.
    pub items: u64,
    /// Items with a list.
    pub with_list: Pair<u64>,
    /// Lists with other items or another order.
    pub moved: u64,
    /// `moved` divided by `items`; 0 without items.
    pub moved_share: f64,
    /// The same, weighted by the items' views; `None` where the first keeps no popularity or nothing was viewed.
    pub moved_share_by_views: Option<f64>,
    /// Mean overlap at each of [`DEPTHS`].
    pub overlap: Vec<(usize, f64)>,
    /// Mean rank-biased overlap ([`measure::rank_biased_overlap`]).
    pub rank_biased_overlap: f64,
    /// Lists by overlap at 10, in steps of a tenth from 0; the last bucket is full overlap.
    pub histogram: Vec<u64>,
    /// Items of the catalog.
    pub catalog: Pair<u64>,
    /// Items of the catalog in any list.
    pub covered: Pair<u64>,
}

/// One neighbour of an example.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The neighbour.
    pub item: String,
    /// Its title, where the catalog has one.
    pub title: Option<String>,
    /// How many baskets hold both, in the unit of the pair weight.
    pub co_count: u64,
    /// How many baskets hold the neighbour.
    pub support: u64,
    /// The score as served.
    pub score: String,
    /// Its rank in the other list, from 1.
    pub other_rank: Option<usize>,
}

/// A list that changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Example {
    /// The item.
    pub item: String,
    /// Its title, where the catalog has one.
    pub title: Option<String>,
    /// Its views, where known.
    pub views: Option<u64>,
    /// How many baskets hold it.
    pub support: Pair<u64>,
    /// Rank-biased overlap of the two lists.
    pub rank_biased_overlap: f64,
    /// The head of the first list.
    pub a: Vec<Entry>,
    /// The head of the second.
    pub b: Vec<Entry>,
}

/// The comparison of two generations.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Their names.
    pub names: Pair<String>,
    /// The positions they reach.
    pub as_of: Pair<String>,
    /// Settings that differ, by name.
    pub settings: Vec<SettingChange>,
    /// The merged inputs.
    pub inputs: Vec<InputTable>,
    /// The tables of views.
    pub tables: Vec<ViewTable>,
    /// The as-of day of the sums.
    pub day: String,
    /// The lists.
    pub lists: Lists,
    /// The lists that changed most: by views (baskets where unknown) times the distance to full overlap.
    pub examples: Vec<Example>,
    /// The sums of every view that declares some, where both keep it.
    #[serde(flatten)]
    pub sums: BTreeMap<String, Option<Pair<Sums>>>,
}

impl Comparison {
    /// The sums in the order of their declaration: what they count, and both values.
    pub(crate) fn summed(&self) -> impl Iterator<Item = (String, i64, i64)> + '_ {
        let kept = views::ALL.iter().filter_map(|view| Some((view, self.sums.get(view.name)?.as_ref()?)));
        kept.flat_map(|(view, Pair { a, b })| {
            let of = |key: &str| (a.get(key).copied().unwrap_or(0), b.get(key).copied().unwrap_or(0));
            let rows = counted(view);
            let columns = view.summed.iter().map(move |column| (format!("{} {column}", view.name), of(column)));
            let all = std::iter::once((format!("{rows} with {}", view.name), of(&rows))).chain(columns);
            all.map(|(what, (a, b))| (what, a, b)).collect::<Vec<_>>()
        })
    }

    /// Whether both were computed from the same events.
    pub fn same_events(&self) -> bool {
        self.inputs.iter().all(|table| table.equal)
    }
}

/// Compares two generations; `as_of` is the day of the points. Reads both a few times and keeps a few numbers per item, never the
/// lists.
///
/// # Errors
/// Those of reading.
pub fn compare(a: Side<'_>, b: Side<'_>, as_of: Day) -> Result<Comparison, ReadError> {
    let supports = Pair { a: Supports::read(a.rows)?, b: Supports::read(b.rows)? };
    let views = if Popularity::is_kept(a.settings) { views_by_item(a.rows)? } else { BTreeMap::new() };
    let mut figures = Figures::new(a, b, supports, views);
    figures.read()?;
    let mut sums = BTreeMap::new();
    for view in views::ALL.iter().filter(|view| !view.summed.is_empty()) {
        let both_keep = (view.enabled)(a.settings) && (view.enabled)(b.settings);
        let both = || Ok::<_, ReadError>(Pair { a: sums_of(view, a, as_of)?, b: sums_of(view, b, as_of)? });
        sums.insert(view.name.to_owned(), both_keep.then(both).transpose()?);
    }
    let catalog = Pair { a: count_catalog(a.rows, &figures.covered.a)?, b: count_catalog(b.rows, &figures.covered.b)? };
    let (mut lists, examples) = figures.finish()?;
    lists.catalog = Pair { a: catalog.a.0, b: catalog.b.0 };
    lists.covered = Pair { a: catalog.a.1, b: catalog.b.1 };
    Ok(Comparison {
        names: Pair { a: a.name.to_owned(), b: b.name.to_owned() },
        as_of: Pair { a: a.as_of.to_owned(), b: b.as_of.to_owned() },
        settings: setting_changes(a.settings, b.settings),
        inputs: digests(a.rows, b.rows)?,
        tables: table_changes(a.rows, b.rows)?,
        day: as_of.to_string(),
        lists,
        examples,
        sums,
    })
}

/// What the rows of a view's export count: its first column, in the plural.
fn counted(view: &ViewInfo) -> String {
    format!("{}s", view.columns[0])
}

/// The settings in which two generations differ, by dotted name.
pub fn setting_changes(a: &Semantics, b: &Semantics) -> Vec<SettingChange> {
    fn walk(above: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(table) => {
                for (key, value) in table {
                    walk(&if above.is_empty() { key.clone() } else { format!("{above}.{key}") }, value, into);
                }
            }
            leaf => drop(into.insert(above.to_owned(), leaf.to_string())),
        }
    }
    let leaves = |settings: &Semantics| {
        let mut leaves = BTreeMap::new();
        walk("", &serde_json::to_value(settings).expect("settings serialise"), &mut leaves);
        leaves
    };
    let (a, b) = (leaves(a), leaves(b));
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let of = |leaves: &BTreeMap<String, String>, name: &String| leaves.get(name).cloned().unwrap_or_else(|| "not set".to_owned());
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| SettingChange { name: name.clone(), a: of(&a, name), b: of(&b, name) })
        .collect()
}

#[cfg(test)]
mod tests;
