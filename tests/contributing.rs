//! Executes CONTRIBUTING.md: applies its steps to a copy of the tree and tests the copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::text;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks below a heading: (language, text).
fn blocks(heading: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join("CONTRIBUTING.md")).expect("a page");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("a heading");
    let section = section.split("\n## ").next().expect("a section");
    section
        .split("\n```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').expect("a language"))
        .map(|(language, block)| (language.to_owned(), format!("{block}\n")))
        .collect()
}

/// Applies a step: a `diff` patches a file at its first lines, anything else is a file named in its first line.
fn take(step: &(String, String), tree: &Path) {
    let (language, block) = step;
    if language != "diff" {
        let (first, content) = block.split_once('\n').expect("a first line");
        std::fs::write(tree.join(first.trim_start_matches("// ")), content).expect("a file");
        return;
    }
    let path = tree.join(block.lines().next().and_then(|line| line.strip_prefix("--- a/")).expect("a file's name"));
    let before = std::fs::read_to_string(&path).expect("a file");
    let lines: Vec<&str> = block.lines().skip_while(|line| !line.starts_with("@@")).skip(1).collect();
    let side = |sign: char| -> String {
        lines.iter().filter(|line| line.starts_with([' ', sign])).map(|line| format!("{}\n", &line[1..])).collect()
    };
    assert_eq!(before.matches(&side('-')).count(), 1, "{} has what the step changes once", path.display());
    std::fs::write(&path, before.replace(&side('-'), &side('+'))).expect("a file");
}

/// Copies tracked and new files of the tree.
fn copied(to: &Path) {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the tree");
    for name in text(&listed.stdout).lines().filter(|name| root().join(name).is_file()) {
        let at = to.join(name);
        std::fs::create_dir_all(at.parent().expect("below")).expect("a folder");
        std::fs::copy(root().join(name), at).expect("a copy");
    }
}

/// If it failed, following the page to add a view would give a tree that does not build, or a wrong view; and a missing part
/// would go unnoticed.
#[test]
fn a_view_is_added_by_its_steps_and_lacks_no_part() {
    let temp = tempfile::tempdir().expect("a directory");
    let tree = temp.path();
    copied(tree);
    let steps = blocks("Add a view");
    assert_eq!(steps.len(), 5, "{steps:?}");
    steps.iter().for_each(|step| take(step, tree));
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("contributing");
    let cargo = |args: &[&str]| {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        let output = command.args(args).current_dir(tree).env("CARGO_TARGET_DIR", &target).output().expect("cargo runs");
        (output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let laws = ["any_order_cut_and_number_of_workers_gives_the_oracles_tables", "no_view_holds_an_erased_member"];
    let (held, told) = cargo(&["test", "-p", "kindred-dataflow", "--test", "law", "--", laws[0], laws[1]]);
    assert!(held && told.contains("2 passed"), "{told}");
    // Without one of its parts it does not compile.
    for (part, wanted) in
        [("pipeline/dataflow/src/item_counts.rs", "Maintained"), ("pipeline/oracle/src/item_counts.rs", "Recomputed")]
    {
        let whole = std::fs::read_to_string(tree.join(part)).expect("a file");
        std::fs::write(tree.join(part), "//! Nothing.\n").expect("a file");
        let (built, told) = cargo(&["test", "-p", "kindred-dataflow", "--test", "law", "--no-run"]);
        assert!(!built && told.contains(wanted), "without {part}: {told}");
        std::fs::write(tree.join(part), whole).expect("a file");
    }
}
