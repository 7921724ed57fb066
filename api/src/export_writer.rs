//! Writes exported views: CSV (RFC 4180) with a header, or NDJSON. Lines end in `\n`,
//! identities are raw and numbers are as in the view, so that exports compare with `diff`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::str::FromStr;

use kindred_model::Invalid;
use kindred_model::views::{Cell, ExportContext, Rows, ViewInfo};

/// The format of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// Comma-separated, the header first.
    Csv,
}

impl Format {
    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

impl FromStr for Format {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "ndjson" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            _ => Err(Invalid::new("format", "is neither ndjson nor csv")),
        }
    }
}

/// Writes the rows of one view.
pub struct ExportWriter<W> {
    format: Format,
    columns: &'static [&'static str],
    out: W,
    line: Vec<u8>,
}

impl<W: Write> ExportWriter<W> {
    /// Begins an export and writes the header of a CSV.
    pub fn begin(format: Format, columns: &'static [&'static str], mut out: W) -> io::Result<Self> {
        if format == Format::Csv {
            writeln!(out, "{}", columns.join(","))?;
        }
        Ok(Self { format, columns, out, line: Vec::with_capacity(256) })
    }

    /// Writes one row.
    pub fn row(&mut self, cells: &[Cell]) -> io::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has the view's columns");
        self.line.clear();
        match self.format {
            Format::Csv => {
                for (n, cell) in cells.iter().enumerate() {
                    if n > 0 {
                        self.line.push(b',');
                    }
                    put_csv(&mut self.line, cell)?;
                }
            }
            Format::Ndjson => {
                for (n, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
                    self.line.push(if n == 0 { b'{' } else { b',' });
                    serde_json::to_writer(&mut self.line, column)?;
                    self.line.push(b':');
                    put_json(&mut self.line, cell)?;
                }
                self.line.push(b'}');
            }
        }
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }

    /// Flushes and returns the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes the rows of a view, of one item or member or all.
pub(crate) fn write_view<W: Write>(
    view: &ViewInfo,
    rows: &dyn Rows,
    of: Option<&str>,
    context: ExportContext<'_>,
    format: Format,
    out: W,
) -> io::Result<W> {
    let mut writer = ExportWriter::begin(format, view.columns, out)?;
    let mut broken = Ok(());
    let read = (view.export)(rows, of, context, &mut |cells| match writer.row(cells) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            broken = Err(error);
            ControlFlow::Break(())
        }
    });
    broken?;
    read.map_err(|error| io::Error::other(error.to_string()))?;
    writer.finish()
}

fn put_csv(line: &mut Vec<u8>, cell: &Cell) -> io::Result<()> {
    match cell {
        Cell::Empty => Ok(()),
        Cell::Number(number) => write!(line, "{number}"),
        Cell::Decimal(decimal) => line.write_all(decimal.as_bytes()),
        Cell::Text(text) if text.contains([',', '"', '\n', '\r']) => {
            line.push(b'"');
            line.extend_from_slice(text.replace('"', "\"\"").as_bytes());
            line.push(b'"');
            Ok(())
        }
        Cell::Text(text) => line.write_all(text.as_bytes()),
    }
}

fn put_json(line: &mut Vec<u8>, cell: &Cell) -> io::Result<()> {
    match cell {
        Cell::Empty => line.write_all(b"null"),
        Cell::Number(number) => write!(line, "{number}"),
        Cell::Decimal(decimal) => line.write_all(decimal.as_bytes()),
        Cell::Text(text) => Ok(serde_json::to_writer(line, text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let mut writer = ExportWriter::begin(format, &["item", "rank", "score", "session"], Vec::new()).unwrap();
        let rows = [("plain", 1), ("a,\"b\" =1+1 ü", 2)];
        for (item, rank) in rows {
            writer.row(&[Cell::text(item), Cell::Number(rank), Cell::Decimal("0.500000".to_owned()), Cell::Empty]).unwrap();
        }
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    /// Identities go out raw: a spreadsheet's formula is no matter of programs, but a quote must not break the row.
    #[test]
    fn csv_quotes_only_what_it_must() {
        assert_eq!(written(Format::Csv), "item,rank,score,session\nplain,1,0.500000,\n\"a,\"\"b\"\" =1+1 ü\",2,0.500000,\n");
    }

    #[test]
    fn ndjson_has_one_object_a_line() {
        let text = written(Format::Ndjson);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last, serde_json::json!({"item": "a,\"b\" =1+1 ü", "rank": 2, "score": 0.5, "session": null}));
        assert!(text.ends_with("}\n") && text.lines().count() == 2);
    }
}
