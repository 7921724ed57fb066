//! The simulated shop of `kindred demo`.
pub mod catalog;
pub mod orders;
pub mod pictures;
pub mod random;
pub mod shoppers;
pub mod simulator;
