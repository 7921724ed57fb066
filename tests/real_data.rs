//! A year of real orders of a gift shop, imported, exported, and compared with an independent script that implements the
//! definitions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::place::{Backend, Place, on_both_back_ends};
use crate::support::text;

/// The last day of the data.
const AS_OF: &str = "2011-12-31";

/// Set by `tests/run` if the data is there.
fn orders() -> Option<PathBuf> {
    let data = std::env::var_os("KINDRED_DATA")?;
    let orders = Path::new(&data).join("online-retail/orders.csv.zst");
    assert!(orders.is_file(), "KINDRED_DATA names no folder with online-retail/orders.csv.zst");
    Some(orders)
}

const COMPARED: [&str; 3] = ["also_bought", "points", "popularity"];

/// What the script says of them: once for both back ends.
static EXPECTED: OnceLock<[String; COMPARED.len()]> = OnceLock::new();

fn expected(orders: &str) -> [String; COMPARED.len()] {
    let out = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/online_retail_check.py");
    let mut command = Command::new("python3");
    command.arg(script).args([orders, "--as-of", AS_OF, "--out"]).arg(out.path());
    let output = command.output().expect("python3 runs: tests/run checks that it is there");
    assert!(output.status.success(), "{}", text(&output.stderr));
    COMPARED.map(|view| std::fs::read_to_string(out.path().join(format!("{view}.csv"))).expect("the script wrote it"))
}

/// If this fails, the import or a view has another meaning than the definitions.
fn a_year_of_real_orders_equals_the_independent_script(backend: Backend) {
    let Some(orders) = orders() else {
        eprintln!("not run: KINDRED_DATA is not set");
        return;
    };
    let set = ["shop.currency=GBP", "views.also_bought.window=1000000", "views.also_bought.support_rounding=1"];
    let Some(place) = Place::new(backend, "real_data", &set.map(str::to_owned)) else { return };
    let orders = orders.to_str().expect("a path");
    let pipeline = place.beside_commands();
    place.ok(&["import", "orders", orders, "--format", "csv", "--map-status", "placed=completed", "--link-cancellations"]);

    for (view, theirs) in COMPARED.iter().zip(EXPECTED.get_or_init(|| expected(orders))) {
        let ours = place.ok(&["export", view, "--format", "csv", "--as-of", AS_OF]);
        let difference = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        assert!(difference.is_none(), "{view}: we say {:?}, the script says {:?}", difference.unwrap().0, difference.unwrap().1);
        assert_eq!(ours.lines().count(), theirs.lines().count(), "{view} has another number of rows");
    }
    place.ok(&["verify"]);
    drop(pipeline);
}
on_both_back_ends!(a_year_of_real_orders_equals_the_independent_script);
