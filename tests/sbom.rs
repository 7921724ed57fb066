//! The software bill of materials (tests/sbom) names each crate of the binary, with its digest in the lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::support::text;

/// V15.1.2: if it failed, a search for a vulnerable crate would give a wrong answer.
#[test]
fn v15_1_2_the_inventory_names_what_is_built_in() {
    let Some(dir) = std::env::var_os("KINDRED_SBOM") else {
        eprintln!("NOT RUN: KINDRED_SBOM is not set (tests/sbom sets it once its tool is installed)");
        return;
    };
    let root = env!("CARGO_MANIFEST_DIR");
    let made = Command::new("tests/sbom").arg("--dir").arg(&dir).current_dir(root).output().expect("tests/sbom starts");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let inventory = std::fs::read(text(&made.stdout).trim()).expect("the inventory");
    let inventory: Value = serde_json::from_slice(&inventory).expect("JSON");
    assert_eq!((&inventory["bomFormat"], &inventory["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(inventory["metadata"]["component"]["name"], "kindred");

    // (name, version) → SHA-256.
    let named: BTreeMap<(&str, &str), Option<&str>> = inventory["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|component| {
            let field = |name: &str| component[name].as_str().unwrap_or_else(|| panic!("no {name}: {component}"));
            ((field("name"), field("version")), component["hashes"][0]["content"].as_str())
        })
        .collect();
    let lock: toml::Table = std::fs::read_to_string(format!("{root}/Cargo.lock")).expect("a lock file").parse().expect("TOML");
    for package in lock["package"].as_array().expect("packages") {
        let (name, version) = (package["name"].as_str().expect("a name"), package["version"].as_str().expect("a version"));
        if let Some(digest) = named.get(&(name, version)) {
            assert_eq!(*digest, package.get("checksum").and_then(|sum| sum.as_str()), "{name} {version}");
        }
    }
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "kindred",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--locked",
            "--offline",
        ])
        .current_dir(root)
        .output()
        .expect("cargo starts");
    assert!(tree.status.success(), "{}", text(&tree.stderr));
    let tree = text(&tree.stdout);
    let built: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .filter(|(name, _)| *name != "kindred")
        .collect();
    assert!(built.len() > 200, "{built:?}");
    let missing: Vec<_> = built.iter().filter(|package| !named.contains_key(*package)).collect();
    assert!(missing.is_empty(), "not in the inventory: {missing:?}");
}
