//! The simulated shop of `kindred demo`: its products, its shoppers, and the page that shows Kindred at work.
//!
//! ```text
//! seed ──▶ catalog, shoppers ──▶ simulator ──append──▶ EventLog ──▶ (Kindred) ──▶ <kindred-list> on the page
//!                                   buttons ──┘            └──▶ book, ticker ──▶ event stream on the page
//! ```
//!
//! A customer like any other: it writes records through the port of the log, shows lists with the public widget, and reads points
//! through [`shop::Backend`], whose service key never reaches the browser. `kindred demo` opens it with [`Shop::open`] and serves
//! [`routes`] beside the API, with account pages and a mailbox of all sent messages.

pub mod catalog;
mod member_pages;
pub mod order_book;
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
