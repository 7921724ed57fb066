//! From files to records in time order: reading, decoding, gathering orders, linking credit notes, sorting. Pure but for the
//! reading of its inputs and the temporary files of the sort.
//!
//! ```text
//! files ──rows──▶ records ──(orders: gathered, linked)──▶ time order ──▶ what is appended
//!           └───▶ rejects, with line and reason
//! ```

use std::io::{BufRead, Read};

use anyhow::{Context, bail};
use kindred_model::records::{Invalid, OrderRecord, RECORD_BYTES_MAX, Record, Rules};
use kindred_model::{EventTime, Topic};
use serde_json::{Map, Value};

use super::columns::{Columns, adapt, check_map, is_plain};
use super::credit_notes::{CreditNoteReport, link};
use super::options::{Format, ImportOptions};
use super::orders::{OrderAssembly, SourcedOrder, sort_by_time};
use super::rejects::{Origin, RejectReport, Rejects};
use super::time_order::{InOrder, TimeOrder};

/// Rows between two looks at the progress bar.
const ROWS_A_TICK: u64 = 4_096;
/// Bytes looked at to tell the format of a file whose name does not.
const SNIFF_BYTES: usize = 4_096;

/// One file to import, decompressed.
pub struct Input {
    /// As it was named; `-` is standard input.
    pub name: String,
    /// Its contents.
    pub reader: Box<dyn Read>,
}

/// What a conversion made.
pub struct Converted {
    /// The records, earliest first.
    pub records: InOrder,
    /// How many.
    pub count: u64,
    /// Rows (or lines) read, blank ones not counted.
    pub rows: u64,
    /// What was turned away.
    pub rejects: RejectReport,
    /// What `--link-cancellations` did.
    pub credit_notes: Option<CreditNoteReport>,
    /// Columns that hold no field of the topic.
    pub unused_columns: Vec<String>,
}

/// Where rows become records.
struct Converter<'c, 'r> {
    options: &'c ImportOptions,
    rules: &'c Rules,
    rejects: Rejects<'r>,
    order: TimeOrder,
    /// Orders of NDJSON files, and of CSV files the rows on their way to become some.
    orders: Vec<SourcedOrder>,
    assembly: OrderAssembly<'c>,
    rows: u64,
    unused_columns: Vec<String>,
    tick: &'c mut dyn FnMut(),
}

/// Converts files. `tick` is called now and then, to show progress.
///
/// # Errors
/// When a file cannot be read or is not what the options say, or the sink of the rejects fails. A row that is no record is no
/// error: it is turned away.
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
        let mut reader = std::io::BufReader::with_capacity(1 << 18, input.reader);
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
        let mut line = Vec::new();
        let mut number = 0;
        while read_line(reader, &mut line)? {
            number += 1;
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            self.row_read();
            match self.json_record(text) {
                Ok(Record::Order(record)) => {
                    let origin = Origin { line: number, ..file.clone() };
                    let rows = vec![origin; record.lines.len()];
                    self.orders.push(SourcedOrder { record, rows });
                }
                Ok(record) => self.push(&record)?,
                Err(error) => {
                    self.rejects.add(&Origin { line: number, ..file.clone() }, &error.to_string(), text)?;
                }
            }
        }
        Ok(())
    }

    fn json_record(&self, text: &[u8]) -> Result<Record, Invalid> {
        let topic = self.options.topic;
        if is_plain(self.options) || text.len() > RECORD_BYTES_MAX {
            return Record::decode(topic, text, self.rules);
        }
        match serde_json::from_slice::<Map<String, Value>>(text) {
            Ok(mut object) => {
                adapt(&mut object, self.options)?;
                Record::decode(topic, &serde_json::to_vec(&object).expect("an object serialises"), self.rules)
            }
            // The decoder says best what is wrong with it.
            Err(_) => Record::decode(topic, text, self.rules),
        }
    }

    fn csv(&mut self, file: &Origin, reader: impl Read) -> anyhow::Result<()> {
        let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
        let header = rows.headers().context("the header is not UTF-8")?.clone();
        if header.iter().all(|name| name.trim().is_empty()) {
            bail!("the file is empty: a CSV file starts with a header");
        }
        let columns = Columns::of(&header, self.options).map_err(anyhow::Error::msg)?;
        let mut bytes = csv::ByteRecord::new();
        while rows.read_byte_record(&mut bytes)? {
            let line = bytes.position().map_or(0, csv::Position::line);
            self.row_read();
            let origin = Origin { line, ..file.clone() };
            let row = match csv::StringRecord::from_byte_record(bytes) {
                Ok(row) => row,
                Err(error) => {
                    bytes = error.into_byte_record();
                    self.rejects.add(&origin, "row: is not UTF-8", &raw_row(&bytes))?;
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
            return self.rejects.add(&origin, &reason, &raw());
        }
        if let Err(error) = columns.check(row) {
            return self.rejects.add(&origin, &error.to_string(), &raw());
        }
        if self.options.topic == Topic::Orders {
            return self.assembly.row(origin, &columns.order_row(row), &raw(), &mut self.rejects);
        }
        let json = columns.object(row, self.options).map(|object| serde_json::to_vec(&object).expect("an object serialises"));
        match json {
            Err(error) => self.rejects.add(&origin, &error.to_string(), &raw()),
            Ok(json) => match Record::decode(self.options.topic, &json, self.rules) {
                Ok(record) => self.push(&record),
                // Kept as the record that it would have been, so that it can be retried.
                Err(error) => self.rejects.add(&origin, &error.to_string(), &json),
            },
        }
    }

    fn row_read(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_A_TICK) {
            (self.tick)();
        }
    }

    fn push(&mut self, record: &Record) -> anyhow::Result<()> {
        // A record without a time comes first: it speaks of a state that was there before.
        let time = record.time().unwrap_or(EventTime::MIN);
        self.order.push(time.0, &record.to_json()).context("could not write a temporary file")
    }

    fn finish(mut self) -> anyhow::Result<Converted> {
        let assembly = std::mem::replace(&mut self.assembly, OrderAssembly::new(self.options));
        self.orders.extend(assembly.finish(self.rules, &mut self.rejects)?);
        let mut orders = std::mem::take(&mut self.orders);
        let mut credit_notes = None;
        if self.options.link_cancellations {
            let (linked, report) = link(orders);
            orders = self.checked(linked)?;
            credit_notes = Some(report);
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
        })
    }

    /// Orders with refunds go through the decoder again, so that what is appended is what every reader accepts.
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

/// What the name of a file says about its format, compression aside.
fn format_of_name(name: &str) -> Option<Format> {
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        _ => None,
    }
}

/// What the first bytes say: an object, or a header.
fn sniff(reader: &mut impl BufRead) -> anyhow::Result<Format> {
    let start = reader.fill_buf().context("could not be read")?;
    let first = start[..start.len().min(SNIFF_BYTES)].trim_ascii_start().first();
    Ok(if first == Some(&b'{') { Format::Ndjson } else { Format::Csv })
}

/// Reads one line; of one that no record can fill, only as much as shows that.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let limit = RECORD_BYTES_MAX as u64 + 2; // one byte too long, and its line feed
    let read = Read::take(&mut *reader, limit).read_until(b'\n', line)?;
    if read as u64 == limit && line.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

/// A row as CSV again, quoted where it must be.
fn raw_row(row: &csv::ByteRecord) -> Vec<u8> {
    let mut raw = Vec::with_capacity(row.as_slice().len() + row.len());
    for (n, field) in row.iter().enumerate() {
        if n > 0 {
            raw.push(b',');
        }
        if field.iter().any(|byte| b",\"\r\n".contains(byte)) {
            raw.push(b'"');
            for &byte in field {
                raw.push(byte);
                if byte == b'"' {
                    raw.push(byte);
                }
            }
            raw.push(b'"');
        } else {
            raw.extend_from_slice(field);
        }
    }
    raw
}
