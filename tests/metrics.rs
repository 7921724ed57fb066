//! The metrics in docs/OPERATIONS.md are those that the code records, and appear after some traffic.

use std::collections::BTreeMap;
use std::path::Path;

use crate::place::{Backend, Place, on_both_back_ends};
use crate::support::{interaction, order, until_so};

/// The table of docs/OPERATIONS.md: metric and availability.
fn documented() -> BTreeMap<String, String> {
    let markdown = std::fs::read_to_string("docs/OPERATIONS.md").expect("docs/OPERATIONS.md");
    let rows = markdown.lines().skip_while(|line| !line.starts_with("| in `/metrics` |")).skip(2);
    let mut found = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let names: Vec<&str> = cells[0].split('`').skip(1).step_by(2).collect();
        let there: Vec<&str> = cells[1].split(", ").collect();
        for (n, name) in names.into_iter().enumerate() {
            let there = there[n.min(there.len() - 1)];
            assert!(["always", "services", "happened"].contains(&there), "{name} is there {there:?}");
            assert!(found.insert(name.to_owned(), there.to_owned()).is_none(), "{name} stands twice");
        }
    }
    found
}

/// The metrics recorded in a folder's source.
fn recorded(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            recorded(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            // Character literals of quotes do not delimit strings.
            let source = std::fs::read_to_string(&path).expect("source").replace("'\"'", "");
            let quoted = source.split('"').skip(1).step_by(2).filter(|text| {
                let is_name = text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                let ends = ["_total", "_seconds", "_bytes", "_rows", "_records"].iter().any(|end| text.ends_with(end));
                is_name && ends
            });
            // Settings and fields have similar names: a metric is in a macro, or in a constant or argument of one.
            let called = |name: &str| {
                ["counter!(", "gauge!(", "histogram!("].iter().any(|call| source.contains(&format!("{call}\"{name}\"")))
                    || source.contains(&format!("const DURATION: &str = \"{name}\""))
            };
            into.extend(quoted.filter(|name| called(name) && !name.starts_with("telemetry_test")).map(str::to_owned));
        }
    }
}

/// If it failed, an operator would look for a missing metric, or not know one that exists.
#[test]
fn the_table_lists_what_the_code_records() {
    let mut code = Vec::new();
    for folder in ["api/src", "pipeline/src", "shared", "kindred"] {
        recorded(Path::new(folder), &mut code);
    }
    code.sort();
    code.dedup();
    let documented = documented();
    // These have no common suffix, so the search misses them.
    let other = ["api_streams", "pipeline_state_size"];
    let listed: Vec<&String> = documented.keys().filter(|name| !other.contains(&name.as_str())).collect();
    assert_eq!(listed, code.iter().collect::<Vec<_>>(), "docs/OPERATIONS.md and the code");
}

/// If it failed, a documented metric would be missing.
fn what_the_table_lists_is_told_after_some_traffic(backend: Backend) {
    let Some(place) = Place::new(backend, "metrics", &[]) else { return };
    let server = place.start(&[]);
    let at = "2026-01-05T10:00:00Z";
    server.post_events("interactions", &[interaction("a", "x", "purchase", at), interaction("a", "y", "purchase", at)]);
    let position = server.post_events("orders", &[order("o", 1, "paid", "b", at, &["x", "y"])]);
    assert_eq!(server.list_items("x", &position), ["y"]);
    let expected: Vec<String> = documented()
        .into_iter()
        .filter(|(_, there)| there == "always" || there == "services" && backend == Backend::Services)
        .map(|(name, _)| name)
        .collect();
    assert!(expected.len() > 20);
    let lacks = || {
        let told = server.metrics();
        let value =
            |name: &str| told.lines().any(|line| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{")));
        let is_told = |name: &String| value(name) || value(&format!("{name}_bucket"));
        let missing: Vec<&String> = expected.iter().filter(|name| !is_told(name)).collect();
        // Gauges have caught up, too.
        let line = |start: &str, end: &str| told.lines().any(|line| line.starts_with(start) && line.ends_with(end));
        let settled = line("pipeline_frontier_age_seconds{", " 0") && line("pipeline_input_age_seconds{", " 0");
        let pairs = told.lines().any(|line| line.contains("what=\"pairs\"") && line.ends_with(" 2"));
        let lag = told.lines().filter(|line| line.starts_with("pipeline_lag_records{")).all(|line| line.ends_with(" 0"));
        let whole = missing.is_empty() && settled && pairs && lag;
        (!whole).then(|| format!("missing: {missing:?}; settled: {settled}, pairs: {pairs}, lag 0: {lag}\n{told}"))
    };
    until_so(|| format!("{:?}", lacks()), || lacks().is_none());
}
on_both_back_ends!(what_the_table_lists_is_told_after_some_traffic);
