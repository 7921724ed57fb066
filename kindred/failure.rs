//! Errors for a person: message, help and exit code.

use std::fmt;

/// Exit codes, as `kindred --help` documents them.
pub mod exit {
    /// Done, and nothing was found wrong.
    pub const FINE: u8 = 0;
    /// Done, and something was found: differences, rejected rows.
    pub const FOUND: u8 = 1;
    /// The command line or the settings cannot be used.
    pub const USAGE: u8 = 2;
    /// It could not be done.
    pub const FAILED: u8 = 3;
    /// Not now: another process uses the data directory, or the rows do not reach the end of the log.
    pub const NOT_NOW: u8 = 4;
}

/// An error for a person: the message and what helps. Travels as an [`anyhow::Error`].
#[derive(Debug)]
pub struct Failure {
    message: String,
    help: Option<String>,
    code: u8,
}

impl Failure {
    /// With [`exit::FAILED`].
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, code: exit::FAILED }
    }

    /// With [`exit::USAGE`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, ..Self::new(message) }
    }

    /// Adds a line of help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints an error to stderr: `error: …`, its causes, `help: …`; returns the exit code.
pub fn report(error: &anyhow::Error) -> u8 {
    use std::io::Write;
    let mut text = format!("error: {error}\n");
    let mut last = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !last.contains(&cause) {
            text.push_str(&format!("  because {cause}\n"));
        }
        last = cause;
    }
    let failure = error.downcast_ref::<Failure>();
    if let Some(help) = failure.and_then(|failure| failure.help.as_deref()) {
        text.push_str(&format!("help: {help}\n"));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    failure.map_or(exit::FAILED, |failure| failure.code)
}

/// A number with thousands separators.
pub fn thousands(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun, singular or plural.
pub fn counted(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { several })
}

/// Bytes in a readable unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, -1_234_567].map(|n: i64| thousands(n)), ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }

    #[test]
    fn help_and_code_survive_context() {
        use anyhow::Context;
        let error = Err::<(), _>(Failure::usage("wrong").help("do right")).context("could not start").unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().help.as_deref(), Some("do right"));
        assert_eq!(report(&error), exit::USAGE);
    }
}
