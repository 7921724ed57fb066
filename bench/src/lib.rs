//! Measures what the product promises: a command a promise, each with a table, a JSON file and a plot, the machine and the commit
//! beside every figure. `bench/README.md` says what each command measures and how.

pub mod generate;
pub mod http;
pub mod machine;
pub mod pace;
pub mod plot;
mod progress;
pub mod report;
pub mod synthetic;
pub mod usage;
