//! See `edges::password`.
#![no_main]

#[path = "../edges.rs"]
#[allow(dead_code, reason = "each binary runs one of the targets")]
mod edges;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edges::password(bytes));
