//! See `import::import`.
#![no_main]

#[path = "../import.rs"]
#[allow(dead_code, reason = "each binary runs one of the targets")]
mod import;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| import::import(bytes));
