//! The all-in-one process: `kindred`. Pipeline and API over an embedded log and store in one directory, and the commands
//! around them.

pub mod cli;
pub mod failure;
pub mod import;
