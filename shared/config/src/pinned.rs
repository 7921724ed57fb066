//! Pinned settings: those that results depend on, stored as TOML when a data directory is created.

use std::collections::BTreeMap;

use kindred_model::Semantics;
use toml::Value;

use crate::ConfigError;
use crate::names::{leaves, tree};

/// A setting given with another value than the pinned one.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// The setting.
    pub name: String,
    /// What the directory pins.
    pub pinned: Value,
    /// What was given.
    pub given: Value,
}

/// The settings as stored in the directory; deterministic.
pub fn pinned_toml(semantics: &Semantics) -> String {
    toml::to_string_pretty(semantics).expect("settings serialise")
}

/// Reads what [`pinned_toml`] wrote. A setting newer than the directory gets its default, which keeps the earlier behaviour.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub fn read_pinned(text: &str) -> Result<Semantics, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable(reason.trim_end().replace('\n', " "));
    let semantics: Semantics = toml::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    semantics.check().map_err(unreadable)?;
    Ok(semantics)
}

/// The settings a command uses on a directory that pins `pinned`: the pinned ones. `explicit` are the names the user set
/// ([`crate::Loaded::explicit`]), `wanted` the resulting settings.
///
/// # Errors
/// [`ConfigError::Pinned`] with every setting that was given another value.
pub fn check_pinned(
    pinned: &Semantics,
    explicit: &BTreeMap<String, Value>,
    wanted: &Semantics,
) -> Result<Semantics, ConfigError> {
    let (held, wanted) = (leaves(&tree(pinned)), leaves(&tree(wanted)));
    let differences: Vec<_> = held
        .into_iter()
        .filter(|(name, _)| explicit.contains_key(name))
        .filter_map(|(name, pinned)| {
            let given = wanted.get(&name)?.clone();
            (given != pinned).then_some(Difference { name, pinned, given })
        })
        .collect();
    if differences.is_empty() { Ok(pinned.clone()) } else { Err(ConfigError::Pinned(differences)) }
}

/// The settings of another generation beside one with `pinned`: the same except for explicit ones. Arguments as of
/// [`check_pinned`].
///
/// # Errors
/// [`ConfigError::Unreadable`]: the combination is invalid.
pub fn varied(pinned: &Semantics, explicit: &BTreeMap<String, Value>, wanted: &Semantics) -> Result<Semantics, ConfigError> {
    let (mut held, wanted) = (Value::Table(tree(pinned)), leaves(&tree(wanted)));
    for name in explicit.keys() {
        let Some(value) = wanted.get(name) else { continue };
        let mut at = &mut held;
        for part in name.split('.') {
            at = at.get_mut(part).expect("both are trees of the same settings");
        }
        *at = value.clone();
    }
    read_pinned(&toml::to_string(&held).expect("settings serialise"))
}

/// The message of [`ConfigError::Pinned`].
pub(crate) fn explain(differences: &[Difference]) -> String {
    let mut text = String::from("the data directory pins other settings:\n");
    for Difference { name, pinned, given } in differences {
        text.push_str(&format!("  {name} is {pinned} there, {given} was given\n"));
    }
    text.push_str(
        "leave them out to go on with what it pins, or create another directory with them (data.dir) and bring the events there",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sources, load_from};

    fn loaded(set: &[&str]) -> crate::Loaded {
        let set = set.iter().map(|&set| set.to_owned()).collect();
        let nowhere = tempfile::tempdir().unwrap();
        load_from(&Sources { config: None, set }, std::iter::empty(), nowhere.path()).unwrap()
    }

    /// If this failed, a replay would be computed with other settings than requested.
    #[test]
    fn what_is_set_varies_what_is_pinned() {
        let pinned = loaded(&["views.also_bought.window=7", "views.also_bought.top=9"]).settings.semantics;
        let given = loaded(&["views.also_bought.window=8", "program.earn_item=11"]);
        let varied = varied(&pinned, &given.explicit, &given.settings.semantics).unwrap();
        assert_eq!((varied.views.also_bought.window, varied.views.also_bought.top), (8, 9));
        assert_eq!(varied.program, given.settings.semantics.program);
    }

    #[test]
    fn pinned_settings_read_back_and_are_the_same_bytes_again() {
        let semantics = loaded(&[
            "views.also_bought.window=7",
            "views.also_bought.support_rounding=1",
            "views.also_bought.popularity_damping=0.25",
            "program.revisions=[{effective_from=\"2026-11-01\",earn_item=1,earn_invite=2,hold_days=3,multiplier_pct={vip=110}}]",
        ])
        .settings
        .semantics;
        let text = pinned_toml(&semantics);
        assert_eq!(read_pinned(&text).unwrap(), semantics);
        assert_eq!(pinned_toml(&read_pinned(&text).unwrap()), text);
        assert_eq!(semantics.program.revisions[0].multiplier_pct.vip, 110);
        assert!(matches!(read_pinned("views = 1"), Err(ConfigError::Unreadable(_))));
    }

    /// The rule: inherit, repeat, or be refused.
    #[test]
    fn a_directory_s_settings_are_inherited_repeated_or_refused() {
        let pinned = loaded(&["views.also_bought.window=100", "program.hold_days=3"]).settings.semantics;
        let check = |set: &[&str]| {
            let loaded = loaded(set);
            check_pinned(&pinned, &loaded.explicit, &loaded.settings.semantics)
        };
        assert_eq!(check(&[]).unwrap(), pinned);
        assert_eq!(check(&["views.also_bought.window=100", "pipeline.workers=2"]).unwrap(), pinned);
        let error = check(&["views.also_bought.window=50", "program.hold_days=3", "shop.currency=USD"]).unwrap_err().to_string();
        assert!(error.contains("views.also_bought.window is 100 there, 50 was given"), "{error}");
        assert!(error.contains("shop.currency is \"EUR\" there, \"USD\" was given"), "{error}");
        assert!(!error.contains("hold_days"), "{error}");
        // An integer equal to the pinned number is a repetition.
        let exact = loaded(&["views.also_bought.support_rounding=1.0"]).settings.semantics;
        let repeated = loaded(&["views.also_bought.support_rounding=1"]);
        assert_eq!(check_pinned(&exact, &repeated.explicit, &repeated.settings.semantics).unwrap(), exact);
    }
}
