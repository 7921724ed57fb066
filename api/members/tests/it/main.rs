//! Members as a whole, over a store in memory with a clock that is moved by hand; races over the embedded store as well.

mod admin;
mod background;
mod bulk;
mod epochs;
mod faults;
mod races;
mod registration;
mod resource;
mod senders;
mod sign_in;
mod sign_up;
mod support;
