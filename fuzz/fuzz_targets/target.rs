//! Every binary of this workspace: it fuzzes the target of its own name.
#![no_main]

use std::sync::LazyLock;

#[path = "../smoke.rs"]
#[macro_use]
#[allow(dead_code, reason = "the list of targets alone is needed here")]
mod smoke;

#[path = "../edges.rs"]
mod edges;
#[path = "../import.rs"]
mod import;
#[path = "../targets.rs"]
mod targets;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let mut all = [targets::ALL, edges::ALL, import::ALL].into_iter().flatten();
    all.find(|(name, _)| *name == env!("CARGO_BIN_NAME")).expect("a target of the binary's name").1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
