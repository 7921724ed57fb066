//! Checks the quotes of a CSV file while it is read. A lenient reader silently loses all rows after a quote that never closes;
//! RFC 4180 allows neither that nor text after a closing quote.
//!
//! ```text
//! bytes ──▶ StrictQuotes ──▶ csv
//!               └── an error that names the line on which the quote was opened
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// The state of the scanner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a value.
    Begin,
    /// In an unquoted value.
    Plain,
    /// In a quoted value.
    Quoted,
    /// After a quote that closes the value, or is the first of an escaped pair.
    Closed,
}

/// Checks quotes while reading.
pub struct StrictQuotes<R> {
    inner: R,
    delimiter: u8,
    state: State,
    /// The current line.
    line: u64,
    /// The last byte was a carriage return that ended a line.
    after_return: bool,
    /// The line of the open quote.
    opened: u64,
    /// The next byte that is no line end begins a row.
    before_row: bool,
    starts: Starts,
}

/// The start lines of rows read and not yet asked for, without empty lines. `csv` counts line feeds, which is off by one after
/// CRLF and wrong for lone carriage returns.
#[derive(Clone, Default)]
pub struct Starts(Rc<RefCell<VecDeque<u64>>>);

impl Starts {
    /// The line of the next row.
    pub fn next(&self) -> u64 {
        self.0.borrow_mut().pop_front().unwrap_or_default()
    }
}

impl<R: Read> StrictQuotes<R> {
    /// Reads from `inner`, which is at the start of a line.
    pub fn new(inner: R, delimiter: u8, line: u64) -> Self {
        Self {
            inner,
            delimiter,
            state: State::Begin,
            line,
            after_return: false,
            opened: 0,
            before_row: true,
            starts: Starts::default(),
        }
    }

    /// The start lines of the rows.
    pub fn starts(&self) -> Starts {
        self.starts.clone()
    }

    fn step(&mut self, byte: u8) -> io::Result<()> {
        let ends_line = byte == b'\n' || byte == b'\r';
        if self.before_row && !ends_line {
            self.starts.0.borrow_mut().push_back(self.line);
            self.before_row = false;
        }
        if ends_line && !(byte == b'\n' && self.after_return) {
            self.line += 1;
        }
        self.after_return = byte == b'\r';
        self.state = match (self.state, byte) {
            (State::Quoted, b'"') => State::Closed,
            (State::Quoted, _) | (State::Closed, b'"') => State::Quoted,
            (State::Begin, b'"') => {
                self.opened = self.line;
                State::Quoted
            }
            (_, byte) if byte == self.delimiter || ends_line => {
                self.before_row |= ends_line;
                State::Begin
            }
            (State::Closed, _) => {
                let why = "there is text behind its closing quote; a quote within a value is written twice (\"\")";
                return Err(self.error(why));
            }
            (State::Begin | State::Plain, _) => State::Plain,
        };
        Ok(())
    }

    fn error(&self, why: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("line {}: of the quoted value that begins here {why}", self.opened))
    }
}

impl<R: Read> Read for StrictQuotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 && !buffer.is_empty() && self.state == State::Quoted {
            return Err(self.error("the closing quote is missing: the file ends within it"));
        }
        for &byte in &buffer[..read] {
            self.step(byte)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let mut read = String::new();
        StrictQuotes::new(text.as_bytes(), b',', 1).read_to_string(&mut read).map(drop).map_err(|error| error.to_string())
    }

    /// If this failed, a stray quote would swallow the rows after it, or a valid file would be refused.
    #[test]
    fn a_quote_that_does_not_close_is_an_error_of_its_line() {
        for fine in
            ["", "a,b", "\"a\",\"b\"\r\n\"\",\"x\"\"y\"\n", "a,13\" ring,b\n", "\"two\nlines\",b\n", "a\r\"b\"\r", "\"a\""]
        {
            assert_eq!(check(fine), Ok(()), "{fine:?}");
        }
        for (bad, line) in [
            ("h\na,\"b\nc,d\n", 2),
            ("h\r\na,b\r\na,\"b\r\nc,d\r\n", 3),
            ("h\ra,\"b\rc\r", 2),
            ("h\n\"a\" ,b\n", 2),
            ("h\n\"a\\\" x\",b\n", 2),
            ("h\na,\"b\nc,\"d\n", 2),
            ("\"", 1),
            ("\"\"\"", 1),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{bad:?}: {error}");
        }
    }
}
