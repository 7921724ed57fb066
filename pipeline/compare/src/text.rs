//! The comparison as a table for a terminal.

use std::fmt::Write;

use crate::{Comparison, Entry};

/// Examples shown in a terminal; the page has more.
const EXAMPLES: usize = 5;
/// Neighbours of each.
const ENTRIES: usize = 5;

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A share of a count; "none" of zero.
pub(crate) fn share(part: u64, of: u64) -> String {
    if of == 0 { "none".to_owned() } else { format!("{part} of {of}, {}", percent(part as f64 / of as f64)) }
}

/// Whether both sides have the same events.
pub(crate) fn events_sentence(comparison: &Comparison) -> String {
    if comparison.same_events() {
        return "the same events: what differs comes from the settings".to_owned();
    }
    let differ: Vec<&str> = comparison.inputs.iter().filter(|table| !table.equal).map(|table| &*table.table).collect();
    format!("NOT the same events ({} differ): what differs may come from them", differ.join(", "))
}

/// The metrics, and the first of the examples.
pub fn table(comparison: &Comparison) -> String {
    let Comparison { names, as_of, lists, .. } = comparison;
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a string takes all");
    line(format_args!("{:<38}{:>26}{:>26}", "", names.a, names.b));
    line(format_args!("{:<38}{:>26}{:>26}", "as of", as_of.a, as_of.b));
    for change in &comparison.settings {
        line(format_args!("{:<38}{:>26}{:>26}", change.name, change.a, change.b));
    }
    if comparison.settings.is_empty() {
        line(format_args!("{:<38}{:>26}", "settings", "the same"));
    }
    line(format_args!("{:<38}{:>26}{:>26}", "items with a list", lists.with_list.a, lists.with_list.b));
    let covered = |covered, catalog| share(covered, catalog);
    line(format_args!("{:<38}{}", format!("catalog in lists, {}", names.a), covered(lists.covered.a, lists.catalog.a)));
    line(format_args!("{:<38}{}", format!("catalog in lists, {}", names.b), covered(lists.covered.b, lists.catalog.b)));
    for (what, a, b) in comparison.summed() {
        line(format_args!("{what:<38}{a:>26}{b:>26}"));
    }
    line(format_args!("\nevents     {}", events_sentence(comparison)));
    line(format_args!("moved      {} of the lists", share(lists.moved, lists.items)));
    match lists.moved_share_by_views {
        Some(moved) => line(format_args!("           {} weighted by views", percent(moved))),
        None => line(format_args!("           no views are known to weight them by")),
    }
    for (depth, overlap) in &lists.overlap {
        line(format_args!("overlap@{depth:<3}{}", percent(*overlap)));
    }
    line(format_args!("ranks      {:.4} rank-biased overlap, p = {}", lists.rank_biased_overlap, crate::measure::PERSISTENCE));
    line(format_args!("\n{:<38}{:>17}{:>17}{:>17}", "rows", names.a, names.b, "different"));
    for table in &comparison.inputs {
        let different = if table.equal { "no" } else { "yes" };
        line(format_args!("{:<38}{:>17}{:>17}{:>17}", table.table, table.rows_a, table.rows_b, different));
    }
    for table in &comparison.tables {
        line(format_args!("{:<38}{:>17}{:>17}{:>17}", table.table, table.rows_a, table.rows_b, table.different));
    }
    if !comparison.examples.is_empty() {
        line(format_args!(
            "\nmoved most, of what is seen most ({} more with --html):",
            comparison.examples.len().saturating_sub(EXAMPLES)
        ));
    }
    for example in comparison.examples.iter().take(EXAMPLES) {
        let views = example.views.map(|views| format!(", {views} views")).unwrap_or_default();
        line(format_args!(
            "\n{}{views}, overlap of ranks {:.2}",
            shown(example.title.as_deref(), &example.item),
            example.rank_biased_overlap
        ));
        for rank in 0..ENTRIES.min(example.a.len().max(example.b.len())) {
            line(format_args!("  {:>2}  {:<38} {:<38}", rank + 1, entry(example.a.get(rank)), entry(example.b.get(rank))));
        }
    }
    out
}

fn entry(entry: Option<&Entry>) -> String {
    entry.map_or_else(String::new, |entry| {
        let counts = format!(" ({} of {})", entry.co_count, entry.support);
        format!("{}{counts}", shown(entry.title.as_deref(), &entry.item))
    })
}

/// The title, cut to fit; without a title the item. Control characters, which could move the cursor, are removed.
fn shown(title: Option<&str>, item: &str) -> String {
    const MOST: usize = 24;
    let text: String = title.unwrap_or(item).chars().filter(|c| !c.is_control()).collect();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST - 1).chain(['…']).collect() }
}
