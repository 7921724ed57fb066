//! Converts files to records in time order: reads, decodes, groups orders, links credit notes, sorts. Its only I/O is the inputs
//! and the temporary files of the sort.
//!
//! ```text
//! files ──rows──▶ records ──(orders: gathered, linked)──▶ time order ──▶ what is appended
//!           └───▶ rejects, with line and reason
//! ```

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use anyhow::{Context, bail};
use kindred_model::records::{Invalid, OrderRecord, OrderStatus, RECORD_BYTES_MAX, Record, Rules};
use kindred_model::{EventTime, Topic};
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::columns::{Columns, Findings, adapt, check_map, is_plain};
use super::conflicts::Versions;
use super::credit_notes::{CreditNoteReport, link, resemble};
use super::options::{Format, ImportOptions};
use super::orders::{OrderAssembly, OrderRow, SourcedOrder, sort_by_time};
use super::quotes::StrictQuotes;
use super::rejects::{Origin, RejectReport, Rejects};
use super::text::text_of;
use super::time_order::{InOrder, TimeOrder};
use crate::failure::Failure;

/// Rows between updates of the progress bar.
const ROWS_A_TICK: u64 = 4_096;
/// Bytes read to detect the format when the file name does not tell.
const SNIFF_BYTES: usize = 4_096;
/// From this many columns on, a line within a quoted value counts as a row if it has as many delimiters as one.
const COLUMNS_TELLING: usize = 4;

/// One file to import, decompressed.
pub struct Input {
    /// The name given; `-` is standard input.
    pub name: String,
    /// Its contents.
    pub reader: Box<dyn Read>,
}

/// The result of a conversion.
pub struct Converted {
    /// The records, earliest first.
    pub records: InOrder,
    /// Their number.
    pub count: u64,
    /// Rows (or lines) read, without blank ones.
    pub rows: u64,
    /// The rejects.
    pub rejects: RejectReport,
    /// What `--link-cancellations` did.
    pub credit_notes: Option<CreditNoteReport>,
    /// Columns that hold no field of the topic.
    pub unused_columns: Vec<String>,
    /// Identities with surrounding blanks.
    pub blanks: u64,
    /// Identities that are a null word, such as `NULL`.
    pub null_words: u64,
    /// Skipped rows without a value.
    pub empty_rows: u64,
    /// Rows repeated in another file, and the first of them.
    pub overlap: (u64, Option<Origin>),
    /// Orders by status.
    pub statuses: BTreeMap<OrderStatus, u64>,
    /// Cancelled orders that look like credit notes and were not linked.
    pub unlinked: u64,
    /// The versions of the records.
    pub versions: Versions,
}

/// Turns rows into records.
struct Converter<'c, 'r> {
    options: &'c ImportOptions,
    rules: &'c Rules,
    rejects: Rejects<'r>,
    order: TimeOrder,
    /// Orders of NDJSON files, and those assembled from CSV rows.
    orders: Vec<SourcedOrder>,
    assembly: OrderAssembly<'c>,
    rows: u64,
    unused_columns: Vec<String>,
    found: Findings,
    /// The first row with unexpected decimals in its money.
    decimals_at: Option<Origin>,
    versions: Versions,
    tick: &'c mut dyn FnMut(),
}

/// Converts files. `tick` is called regularly, to show progress.
///
/// # Errors
/// When a file cannot be read or contradicts the options, or the sink of the rejects fails. Invalid rows are rejected instead.
pub fn convert(
    inputs: Vec<Input>,
    options: &ImportOptions,
    rules: &Rules,
    rejects: Rejects<'_>,
    memory_bytes: usize,
    tick: &mut dyn FnMut(),
) -> anyhow::Result<Converted> {
    check_map(options).map_err(anyhow::Error::msg)?;
    let mut converter = Converter {
        options,
        rules,
        rejects,
        order: TimeOrder::new(memory_bytes),
        orders: Vec::new(),
        assembly: OrderAssembly::new(options),
        rows: 0,
        unused_columns: Vec::new(),
        found: Findings::default(),
        decimals_at: None,
        versions: Versions::default(),
        tick,
    };
    for (index, input) in inputs.into_iter().enumerate() {
        let name = input.name.clone();
        converter.file(index, input).with_context(|| format!("could not import {name}"))?;
    }
    converter.finish()
}

impl Converter<'_, '_> {
    fn file(&mut self, index: usize, input: Input) -> anyhow::Result<()> {
        let text = text_of(input.reader, self.options.encoding)?;
        let mut reader = std::io::BufReader::with_capacity(1 << 18, text);
        let format = match self.options.format.or_else(|| format_of_name(&input.name)) {
            Some(format) => format,
            None => sniff(&mut reader)?,
        };
        let origin = Origin { file: input.name.into(), index, line: 0 };
        match format {
            Format::Ndjson => self.ndjson(&origin, &mut reader),
            Format::Csv => self.csv(&origin, reader),
        }
    }

    fn ndjson(&mut self, file: &Origin, reader: &mut dyn BufRead) -> anyhow::Result<()> {
        let start = reader.fill_buf().context("could not be read")?;
        let begins = start.trim_ascii_start();
        let first_line = begins.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
        match begins.first() {
            Some(b'[') => return self.json_values(file, reader, true),
            // An object over several lines.
            Some(b'{') if first_line == b"{" => return self.json_values(file, reader, false),
            _ => {}
        }
        let mut line = Vec::new();
        let mut number = 0;
        while read_line(reader, &mut line)? {
            number += 1;
            let text = line.trim_ascii();
            if !text.is_empty() {
                self.json_row(Origin { line: number, ..file.clone() }, text)?;
            }
        }
        Ok(())
    }

    /// An array of records, or records over several lines.
    fn json_values(&mut self, file: &Origin, reader: &mut dyn BufRead, array: bool) -> anyhow::Result<()> {
        let lines = Cell::new(1);
        // The parser reads byte by byte, so the count is its current line.
        let mut parser = serde_json::Deserializer::from_reader(CountedLines { inner: reader, lines: &lines });
        let mut failed = None;
        let mut take = |raw: &RawValue| {
            let text = raw.get().as_bytes();
            let line = lines.get() - text.iter().filter(|byte| **byte == b'\n').count() as u64;
            match self.json_row(Origin { line, ..file.clone() }, text) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        };
        let parsed = if array {
            Values { take: &mut take }.deserialize(&mut parser).and_then(|()| parser.end())
        } else {
            let mut values = parser.into_iter::<Box<RawValue>>();
            values.try_for_each(|raw| if take(&raw?) { Ok(()) } else { Err(serde::de::Error::custom("stopped")) })
        };
        match (failed, parsed) {
            (Some(error), _) => Err(error),
            (None, parsed) => parsed.context(if array { "it is no whole JSON array" } else { "it is no whole JSON" }),
        }
    }

    fn json_row(&mut self, origin: Origin, text: &[u8]) -> anyhow::Result<()> {
        self.row_read();
        let read = checked(self.json_record(text));
        if std::mem::take(&mut self.found.decimal_money) {
            self.decimals_at.get_or_insert_with(|| origin.clone());
        }
        match read {
            Ok(Record::Order(record)) => {
                let rows = vec![origin; record.lines.len()];
                self.orders.push(SourcedOrder { record, rows });
                Ok(())
            }
            Ok(record) => self.push(&record),
            Err(error) => self.rejects.add(&origin, &error.to_string(), text),
        }
    }

    fn json_record(&mut self, text: &[u8]) -> Result<Record, Invalid> {
        let topic = self.options.topic;
        if text.len() > RECORD_BYTES_MAX {
            return Record::decode(topic, text, self.rules);
        }
        // Most interactions need no change.
        if is_plain(self.options)
            && let Ok(record) = Record::decode(topic, text, self.rules)
            && !has_blanks(&record)
        {
            return Ok(record);
        }
        match serde_json::from_slice::<Map<String, Value>>(text) {
            Ok(mut object) => {
                adapt(&mut object, self.options, &mut self.found)?;
                Record::decode(topic, &serde_json::to_vec(&object).expect("an object serialises"), self.rules)
            }
            // The decoder reports the error best.
            Err(_) => Record::decode(topic, text, self.rules),
        }
    }

    fn csv(&mut self, file: &Origin, mut reader: impl BufRead) -> anyhow::Result<()> {
        let (delimiter, above) = delimiter_of(&mut reader, self.options.delimiter)?;
        let checked = StrictQuotes::new(reader, delimiter, above + 1);
        let starts = checked.starts();
        let mut rows = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter).from_reader(checked);
        let header = rows.headers().map_err(in_csv)?.clone();
        if header.iter().all(|name| name.trim().is_empty()) {
            bail!("the file is empty: a CSV file starts with a header");
        }
        let columns = Columns::of(&header, self.options).map_err(anyhow::Error::msg)?;
        starts.next();
        let mut bytes = csv::ByteRecord::new();
        while rows.read_byte_record(&mut bytes).map_err(in_csv)? {
            let origin = Origin { line: starts.next(), ..file.clone() };
            if bytes.iter().all(|cell| cell.trim_ascii().is_empty()) {
                // Spreadsheets write empty rows below their data.
                self.found.empty_rows += 1;
                continue;
            }
            self.row_read();
            if let Some(lines) = rows_within(&bytes, columns.count(), delimiter) {
                let why =
                    format!("row: a quoted value runs on over what look like rows ({lines}); is its closing quote missing?");
                self.reject(&columns, &origin, &why, &bytes)?;
                continue;
            }
            let row = match csv::StringRecord::from_byte_record(bytes) {
                Ok(row) => row,
                Err(error) => {
                    bytes = error.into_byte_record();
                    let why = "row: is not UTF-8; name the file's encoding, as in --encoding windows-1252 or --encoding gbk";
                    self.reject(&columns, &origin, why, &bytes)?;
                    continue;
                }
            };
            self.csv_row(&columns, origin, &row)?;
            bytes = row.into_byte_record();
        }
        for column in columns.unused {
            if !self.unused_columns.contains(&column) {
                self.unused_columns.push(column);
            }
        }
        Ok(())
    }

    fn csv_row(&mut self, columns: &Columns, origin: Origin, row: &csv::StringRecord) -> anyhow::Result<()> {
        let raw = || raw_row(row.as_byte_record());
        let bytes = row.as_slice().len();
        if bytes > RECORD_BYTES_MAX {
            let reason = format!("row: has {bytes} bytes; at most {RECORD_BYTES_MAX} are accepted");
            return self.reject(columns, &origin, &reason, row.as_byte_record());
        }
        if let Err(error) = columns.check(row) {
            return self.reject(columns, &origin, &error.to_string(), row.as_byte_record());
        }
        self.found.blanks += columns.blanks(row);
        self.found.null_words += columns.null_words(row);
        if !self.options.decimal_money && self.decimals_at.is_none() && columns.has_decimal_money(row) {
            self.decimals_at = Some(origin.clone());
        }
        if self.options.topic == Topic::Orders {
            return self.assembly.row(origin, &OrderRow { columns, row }, &raw(), &mut self.rejects);
        }
        let json = columns.object(row, self.options).map(|object| serde_json::to_vec(&object).expect("an object serialises"));
        match json {
            Err(error) => self.rejects.add(&origin, &error.to_string(), &raw()),
            Ok(json) => match checked(Record::decode(self.options.topic, &json, self.rules)) {
                Ok(record) => self.push(&record),
                // Kept as the record it would have been, so that it can be retried.
                Err(error) => self.rejects.add(&origin, &error.to_string(), &json),
            },
        }
    }

    /// Rejects an unreadable row together with its order.
    fn reject(&mut self, columns: &Columns, origin: &Origin, why: &str, row: &csv::ByteRecord) -> anyhow::Result<()> {
        if let Some(order) = columns.order_of(row) {
            self.assembly.mark_broken(&order, origin);
        }
        self.rejects.add(origin, why, &raw_row(row))
    }

    fn row_read(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_A_TICK) {
            (self.tick)();
        }
    }

    fn push(&mut self, record: &Record) -> anyhow::Result<()> {
        self.versions.add(record);
        // A record without a time comes first: it describes prior state.
        let time = record.time().unwrap_or(EventTime::MIN);
        self.order.push(time.0, &record.to_json()).context("could not write a temporary file")
    }

    fn finish(mut self) -> anyhow::Result<Converted> {
        if let Some(origin) = self.decimals_at {
            // In such a column `3` means 3.00, so values without decimals are not minor units either.
            let message =
                format!("line {} of {}: money is written with decimals, and minor units are expected", origin.line, origin.file);
            let help = "give --decimal-money where 12.99 means 12.99 and 3 means 3.00; nothing was imported";
            return Err(Failure::new(message).help(help).into());
        }
        let assembly = std::mem::replace(&mut self.assembly, OrderAssembly::new(self.options));
        let overlap = assembly.overlap();
        self.orders.extend(assembly.finish(self.rules, &mut self.rejects)?);
        let mut orders = std::mem::take(&mut self.orders);
        let (mut credit_notes, mut unlinked) = (None, 0);
        if self.options.link_cancellations {
            let (linked, report) = link(orders);
            orders = linked;
            credit_notes = Some(report);
        } else {
            unlinked = resemble(&orders);
        }
        orders = self.checked(orders)?;
        let mut statuses = BTreeMap::new();
        for order in &orders {
            *statuses.entry(order.record.status).or_default() += 1;
        }
        sort_by_time(&mut orders);
        for order in orders {
            self.push(&Record::Order(order.record))?;
        }
        Ok(Converted {
            count: self.order.records(),
            records: self.order.finish().context("could not read a temporary file")?,
            rows: self.rows,
            rejects: self.rejects.finish()?,
            credit_notes,
            unused_columns: self.unused_columns,
            blanks: self.found.blanks,
            null_words: self.found.null_words,
            empty_rows: self.found.empty_rows,
            overlap,
            statuses,
            unlinked,
            versions: self.versions,
        })
    }

    /// Decodes orders with refunds again, so that every reader accepts what is appended.
    fn checked(&mut self, orders: Vec<SourcedOrder>) -> anyhow::Result<Vec<SourcedOrder>> {
        let mut checked = Vec::with_capacity(orders.len());
        for mut order in orders {
            if !order.record.refunds.is_empty() {
                let json = order.record.canonical();
                match OrderRecord::decode(&json, self.rules) {
                    Ok(record) => order.record = record,
                    Err(error) => {
                        self.rejects.add(&order.rows[0], &error.to_string(), &json)?;
                        continue;
                    }
                }
            }
            checked.push(order);
        }
        Ok(checked)
    }
}

/// Rejects records of invalid members.
fn checked(record: Result<Record, Invalid>) -> Result<Record, Invalid> {
    record.and_then(|record| record.check_members().map(|()| record))
}

fn has_blanks(record: &Record) -> bool {
    let blank = |text: &str| text.trim().len() < text.len();
    let Record::Interaction(interaction) = record else { return false };
    blank(interaction.owner.id()) || interaction.payload.item.as_ref().is_some_and(|item| blank(item.as_str()))
}

/// A CSV error without the crate's wording.
fn in_csv(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        csv::ErrorKind::Utf8 { .. } => {
            anyhow::anyhow!("the header is not UTF-8; name the file's encoding, as in --encoding windows-1252 or --encoding gbk")
        }
        other => anyhow::anyhow!("{other:?}"),
    }
}

/// The delimiter, and the number of lines above the header (Excel writes `sep=;`). By default a comma if the header has one, else
/// a semicolon, tab or bar.
fn delimiter_of(reader: &mut impl BufRead, configured: Option<char>) -> anyhow::Result<(u8, u64)> {
    let start = reader.fill_buf().context("could not be read")?;
    let line = |text: &[u8]| text.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(text.len());
    let end = line(start);
    if end == 5 && start[..4].eq_ignore_ascii_case(b"sep=") {
        let delimiter = start[4];
        let end = end + if start[end..].starts_with(b"\r\n") { 2 } else { usize::from(start.len() > end) };
        reader.consume(end);
        return Ok((configured.map_or(delimiter, |configured| configured as u8), 1));
    }
    if let Some(configured) = configured {
        return Ok((configured as u8, 0));
    }
    let mut quoted = false;
    let plain: Vec<u8> = start[..end]
        .iter()
        .copied()
        .filter(|&byte| {
            quoted ^= byte == b'"';
            !quoted
        })
        .collect();
    let delimiter = b",;\t|".iter().find(|delimiter| plain.contains(delimiter));
    Ok((delimiter.copied().unwrap_or(b','), 0))
}

/// Lines within one value that look like rows.
fn rows_within(row: &csv::ByteRecord, columns: usize, delimiter: u8) -> Option<usize> {
    if columns < COLUMNS_TELLING || !row.as_slice().contains(&b'\n') {
        return None;
    }
    let is_row = |line: &&[u8]| line.iter().filter(|byte| **byte == delimiter).count() + 1 == columns;
    let within = row.iter().map(|value| value.split(|byte| *byte == b'\n').skip(1).filter(is_row).count()).max().unwrap_or(0);
    (within > 0).then_some(within)
}

/// Yields the values of an array one by one.
struct Values<'t> {
    take: &'t mut dyn FnMut(&RawValue) -> bool,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while let Some(value) = values.next_element::<Box<RawValue>>()? {
            if !(self.take)(&value) {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Counts line feeds.
struct CountedLines<'r> {
    inner: &'r mut dyn BufRead,
    lines: &'r Cell<u64>,
}

impl Read for CountedLines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.lines.set(self.lines.get() + buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64);
        Ok(read)
    }
}

/// The format by the file name, ignoring compression.
fn format_of_name(name: &str) -> Option<Format> {
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        _ => None,
    }
}

/// The format by the first bytes: object, array or header.
fn sniff(reader: &mut impl BufRead) -> anyhow::Result<Format> {
    let start = reader.fill_buf().context("could not be read")?;
    let first = start[..start.len().min(SNIFF_BYTES)].trim_ascii_start().first();
    Ok(if matches!(first, Some(b'{' | b'[')) { Format::Ndjson } else { Format::Csv })
}

/// Reads one line; of a line too long for a record only as much as shows that.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let limit = RECORD_BYTES_MAX as u64 + 2; // one byte too long, and its line feed
    let read = Read::take(&mut *reader, limit).read_until(b'\n', line)?;
    if read as u64 == limit && line.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

/// A row as CSV, quoted where necessary.
fn raw_row(row: &csv::ByteRecord) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().flexible(true).buffer_capacity(row.as_slice().len() + 64).from_writer(Vec::new());
    writer.write_byte_record(row).expect("memory takes it");
    let mut raw = writer.into_inner().expect("memory takes it");
    raw.pop(); // the line feed
    raw
}
