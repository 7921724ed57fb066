//! Measures what the product promises: a command per promise, each with a table, a JSON file and a plot, with machine and commit.
//! `bench/README.md` describes the commands.

pub mod dataflow;
pub mod freshness;
pub mod generate;
pub mod growth;
pub mod http;
pub mod load;
pub mod machine;
pub mod members;
pub mod options;
pub mod pace;
pub mod people;
pub mod plot;
pub mod post;
mod progress;
pub mod replay;
pub mod report;
pub mod restart;
pub mod scipy;
pub mod search;
pub mod server;
pub mod services;
pub mod shards;
pub mod sign_in;
pub mod soak;
pub mod stats;
pub mod synthetic;
pub mod timing;
pub mod usage;
