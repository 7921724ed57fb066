//! `histories`: read from the merged interactions; nothing is maintained.

use kindred_model::settings::Switch;
use kindred_model::views::histories::Histories;

use crate::collections::{Collections, Maintained};
use crate::output::Sink;

impl Maintained for Histories {
    fn maintain(_from: &Collections<'_>, _settings: &Switch, _sink: &Sink) {}
}
