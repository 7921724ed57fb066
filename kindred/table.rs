//! Lists for people: columns that stand below each other. The header goes to standard error, so that what a program reads of a list is
//! its rows alone.

use std::io::{self, Write};

/// Writes rows below a header.
///
/// # Errors
/// When standard output cannot be written; that its reader went away is none.
pub fn print(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    eprintln!("{}", line(&mut header.iter().copied()));
    let mut out = io::stdout().lock();
    let written = rows.iter().try_for_each(|row| writeln!(out, "{}", line(&mut row.iter().map(String::as_str))));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
