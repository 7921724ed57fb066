//! The simulated shop of `kindred demo`: what it sells, who shops there, and the page on which a person watches Kindred work.
//!
//! ```text
//! seed ──▶ catalog, shoppers ──▶ simulator ──append──▶ EventLog ──▶ (Kindred) ──▶ <kindred-list> on the page
//!                                   buttons ──┘            └──▶ book, ticker ──▶ event stream on the page
//! ```
//!
//! It is a customer like any other: it writes records through the port of the log, shows lists with the public widget, and asks
//! for points through [`shop::Backend`], whose service key never reaches the browser. `kindred demo` opens it with
//! [`Shop::open`] and serves [`routes`] beside the API, with the pages on which a person becomes a member and a mailbox that shows
//! what would have been sent.

pub mod book;
pub mod catalog;
mod member_pages;
pub mod orders;
pub mod pictures;
pub mod random;
mod routes;
pub mod shop;
pub mod shoppers;
pub mod simulator;
#[cfg(test)]
mod testing;
pub mod ticker;

pub use routes::routes;
pub use shop::{Backend, BackendError, Buyer, Shop, ShopConfig, ShopError};
