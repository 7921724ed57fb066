//! Progress on standard error; silent if that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` steps under a name.
pub fn bar(name: &'static str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:28} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(total).with_prefix(name).with_style(style.expect("a valid template"))
}
