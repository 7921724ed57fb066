//! Names of settings: the dotted paths of the leaves of a tree of tables, and the nearest name to an unknown one.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::Settings;

/// Every setting with its default: `views.also_bought.window` → 50. An array is one value.
pub(crate) fn defaults() -> BTreeMap<String, Value> {
    leaves(&tree(&Settings::default()))
}

/// The tables as TOML.
pub(crate) fn tree<T: serde::Serialize>(of: &T) -> Table {
    Table::try_from(of).expect("settings are tables")
}

/// The leaves of a tree by dotted name.
pub(crate) fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut into = BTreeMap::new();
    collect("", table, &mut into);
    into
}

fn collect(above: &str, table: &Table, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let name = join(above, key);
        match value {
            Value::Table(table) => collect(&name, table, into),
            leaf => {
                into.insert(name, leaf.clone());
            }
        }
    }
}

/// `above.key`.
pub(crate) fn join(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// The setting nearest to `name`: one that starts with it, then one with the same last word, then by edit distance.
pub(crate) fn nearest(name: &str) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |setting: &str| {
        let edits = strsim::damerau_levenshtein(&last(setting), &last(name));
        // The setting may be in another table, so its last word weighs more than its path.
        let all = strsim::damerau_levenshtein(setting, name).min(2 * edits + setting.matches('.').count());
        (if setting.starts_with(name) { 1 } else { all }, edits)
    };
    defaults().into_keys().min_by_key(|setting| distance(setting)).expect("there are settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        for (typed, meant) in [
            ("views.also_bought.windw", "views.also_bought.window"),
            ("veiws.also_bought.window", "views.also_bought.window"),
            ("also_bought.window", "views.also_bought.window"),
            ("window", "views.also_bought.window"),
            ("pipeline.worker", "pipeline.workers"),
            ("workers", "pipeline.workers"),
            ("api.adminlisten", "api.admin_listen"),
            ("shop.curency", "shop.currency"),
            ("program.hold", "program.hold_days"),
            ("log", "telemetry.log"),
            ("views.points.enable", "views.points.enabled"),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }
}
