//! Results of a command: a table on the terminal, JSON and SVG in `bench/results/<date>-<machine>/`, and histograms as
//! HdrHistogram V2 logs for other percentiles.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde::Serialize;
use serde_json::{Value, json};

use crate::machine::Circumstances;
use crate::plot::{self, Panel};

/// A target.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
}

impl Target {
    /// Whether a value meets it.
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    /// Its value.
    pub const fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) => value,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {}", number(most)),
            Self::AtLeast(least) => format!("at least {}", number(least)),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// `None` if it could not be measured; `note` says why.
    pub value: Option<f64>,
    /// The unit.
    pub unit: &'static str,
    /// The target, if any.
    pub target: Option<Target>,
    /// Whether it is met.
    pub met: Option<bool>,
    /// A remark for the reader.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// The title.
    pub title: String,
    /// Names of the columns, with units.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// The results of a command.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    circumstances: Circumstances,
    parameters: BTreeMap<&'static str, Value>,
    measures: Vec<Measure>,
    tables: Vec<Table>,
    panels: Vec<Panel>,
    histograms: Vec<(String, Histogram<u64>)>,
    details: BTreeMap<&'static str, Value>,
    began: SystemTime,
}

impl Report {
    /// An empty report; `command` names its files.
    pub fn new(command: &'static str) -> Self {
        Self {
            command,
            circumstances: Circumstances::observe(),
            parameters: BTreeMap::new(),
            measures: Vec::new(),
            tables: Vec::new(),
            panels: Vec::new(),
            histograms: Vec::new(),
            details: BTreeMap::new(),
            began: SystemTime::now(),
        }
    }

    /// Records a parameter.
    pub fn parameter(&mut self, name: &'static str, value: impl Into<Value>) {
        self.parameters.insert(name, value.into());
    }

    /// Adds a figure.
    pub fn measure(&mut self, name: impl Into<String>, value: f64, unit: &'static str, target: Option<Target>) {
        let met = target.map(|target| target.is_met_by(value));
        self.measures.push(Measure { name: name.into(), value: Some(value), unit, target, met, note: String::new() });
    }

    /// Adds a missing figure with the reason.
    pub fn not_measured(&mut self, name: impl Into<String>, unit: &'static str, target: Option<Target>, note: impl Into<String>) {
        self.measures.push(Measure { name: name.into(), value: None, unit, target, met: None, note: note.into() });
    }

    /// Adds a remark to the last figure.
    pub fn note(&mut self, note: impl Into<String>) {
        if let Some(last) = self.measures.last_mut() {
            last.note = note.into();
        }
    }

    /// Adds a table.
    pub fn table(&mut self, title: impl Into<String>, header: &[&str], rows: Vec<Vec<String>>) {
        self.tables.push(Table { title: title.into(), header: header.iter().map(ToString::to_string).collect(), rows });
    }

    /// Adds a plot.
    pub fn plot(&mut self, panel: Panel) {
        self.panels.push(panel);
    }

    /// Stores a histogram of nanoseconds as an HdrHistogram log, and its percentiles in the JSON.
    pub fn histogram(&mut self, name: impl Into<String>, histogram: &Histogram<u64>) {
        self.histograms.push((name.into(), histogram.clone()));
    }

    /// Stores other details in the JSON.
    pub fn detail(&mut self, name: &'static str, value: impl Serialize) -> Result<()> {
        self.details.insert(name, serde_json::to_value(value)?);
        Ok(())
    }

    /// The figures so far.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// Prints the tables and writes `<command>.json`, `<command>.svg` and the logs below `results`. Returns the path of the JSON.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn finish(self, results: &Path) -> Result<PathBuf> {
        let folder = results.join(self.circumstances.folder());
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        print!("{}", self.text());
        let mut percentiles = BTreeMap::new();
        for (name, histogram) in &self.histograms {
            percentiles.insert(name.clone(), percentiles_ms(histogram));
            let file = folder.join(format!("{}-{name}.hlog", self.command));
            write(&file, &interval_log(histogram, self.began)?)?;
        }
        let json = json!({
            "command": self.command,
            "circumstances": self.circumstances,
            "parameters": self.parameters,
            "measures": self.measures,
            "tables": self.tables,
            "latency_ms": percentiles,
            "details": self.details,
        });
        let path = folder.join(format!("{}.json", self.command));
        write(&path, format!("{json:#}\n").as_bytes())?;
        if !self.panels.is_empty() {
            let Circumstances { cpu, cores, commit, date, .. } = &self.circumstances;
            let caption = format!("{cpu}, {cores} cores, commit {commit}, {date}");
            write(&folder.join(format!("{}.svg", self.command)), plot::draw(&self.panels, &caption)?.as_bytes())?;
        }
        println!("results: {}", path.display());
        Ok(path)
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let Circumstances { cpu, cores, memory_mib, kernel, commit, load_average, .. } = &self.circumstances;
        let mut text = format!("\n{}: {cpu}, {cores} cores, {memory_mib} MiB, kernel {kernel}, commit {commit}\n", self.command);
        if !self.circumstances.optimised {
            text.push_str("NB: built without optimisation: the figures mean nothing; run it with --release\n");
        }
        if *load_average > 0.5 {
            let _ = writeln!(text, "NB: the machine was not quiet (load average {load_average})");
        }
        for table in &self.tables {
            let _ = write!(text, "\n{}\n{}", table.title, grid(&table.header, &table.rows));
        }
        let header = ["measure", "value", "unit", "target", "met", ""].map(ToOwned::to_owned);
        let rows: Vec<Vec<String>> = self.measures.iter().map(row).collect();
        let _ = write!(text, "\n{}", grid(&header, &rows));
        text
    }
}

fn row(measure: &Measure) -> Vec<String> {
    vec![
        measure.name.clone(),
        measure.value.map_or_else(|| "not run".to_owned(), number),
        measure.unit.to_owned(),
        measure.target.map(Target::text).unwrap_or_default(),
        measure.met.map(|met| if met { "yes" } else { "NO" }.to_owned()).unwrap_or_default(),
        measure.note.clone(),
    ]
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("could not write {}", path.display()))
}

/// Aligns columns; numbers to the right.
fn grid(header: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = std::iter::once(header).chain(rows.iter().map(Vec::as_slice));
        cells.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let mut written = String::new();
        for (cell, &width) in cells.iter().zip(&widths) {
            let is_number = cell.replace(',', "").parse::<f64>().is_ok();
            let _ = if is_number { write!(written, "{cell:>width$}  ") } else { write!(written, "{cell:<width$}  ") };
        }
        text.push_str(written.trim_end());
        text.push('\n');
    };
    line(header);
    line(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
    text
}

/// A number with three significant digits and thousands separators.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1_000.0 {
        let digits = format!("{value:.0}");
        let mut grouped = String::new();
        for (n, c) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) && !grouped.ends_with('-') {
                grouped.push(',');
            }
            grouped.push(c);
        }
        grouped
    } else if magnitude >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A histogram of nanoseconds up to ten minutes, with three significant digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("valid bounds")
}

/// Records a latency.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// A quantile in milliseconds.
pub fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e6
}

/// The percentiles in reports.
fn percentiles_ms(histogram: &Histogram<u64>) -> Value {
    json!({
        "count": histogram.len(),
        "p50": quantile_ms(histogram, 0.5),
        "p90": quantile_ms(histogram, 0.9),
        "p99": quantile_ms(histogram, 0.99),
        "p99.9": quantile_ms(histogram, 0.999),
        "max": histogram.max() as f64 / 1e6,
    })
}

/// A row of percentiles for a table: name, count, p50, p90, p99, p99.9, max.
pub fn percentile_row(name: &str, histogram: &Histogram<u64>) -> Vec<String> {
    let mut row = vec![name.to_owned(), number(histogram.len() as f64)];
    row.extend([0.5, 0.9, 0.99, 0.999].map(|quantile| number(quantile_ms(histogram, quantile))));
    row.push(number(histogram.max() as f64 / 1e6));
    row
}

/// The header of [`percentile_row`].
pub const PERCENTILES: [&str; 7] = ["latency, ms", "count", "p50", "p90", "p99", "p99.9", "max"];

/// The curve of a histogram: (nines of the quantile, milliseconds). Zero nines is the minimum, 1 is p90, 2 is p99.
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let most = (histogram.len().max(2) as f64).log10();
    let steps = 60;
    (0..=steps)
        .map(|step| {
            let nines = most * f64::from(step) / f64::from(steps);
            (nines, quantile_ms(histogram, 1.0 - 10f64.powf(-nines)))
        })
        .collect()
}

fn interval_log(histogram: &Histogram<u64>, began: SystemTime) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2Serializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("latencies in nanoseconds, HdrHistogram V2").with_start_time(began).with_max_value_divisor(1e6);
    let mut log = builder.begin_log_with(&mut bytes, &mut serializer).context("could not begin the histogram's log")?;
    let lasted = began.elapsed().unwrap_or_default();
    log.write_histogram(histogram, Duration::ZERO, lasted, None)
        .map_err(|error| anyhow::anyhow!("could not write a histogram: {error:?}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn numbers_read_like_numbers() {
        let texts = [0.0, 0.123, 1.5, 12.34, 123.4, 1_234.5, 1_234_567.0, -1_234.0].map(number);
        assert_eq!(texts, ["0", "0.12", "1.50", "12.3", "123", "1,234", "1,234,567", "-1,234"]);
    }

    /// The log must hold what was recorded, to verify percentiles.
    #[test]
    fn a_report_leaves_json_plot_and_a_readable_histogram() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::new("trial");
        let mut histogram = latencies();
        for ms in 1..=1_000 {
            record(&mut histogram, Duration::from_millis(ms));
        }
        report.parameter("rate", 1_000);
        report.measure("p99", quantile_ms(&histogram, 0.99), "ms", Some(Target::AtMost(30.0)));
        report.not_measured("scipy", "CPU s", None, "not run: pip install numpy scipy pandas");
        report.table("latencies", &PERCENTILES, vec![percentile_row("all", &histogram)]);
        report.histogram("all", &histogram);
        report.plot(Panel::lines("latency", "nines", "ms").with_series("all", curve(&histogram)).with_target(30.0));
        assert!(report.text().contains("NO"), "a target that was missed is shown as such: {}", report.text());
        let path = report.finish(folder.path()).unwrap();

        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["measures"][0]["met"], false);
        assert_eq!(json["measures"][0]["target"]["at_most"], 30.0);
        assert!(json["circumstances"]["command_line"].as_str().unwrap().starts_with("kindred-bench"));
        assert!((json["latency_ms"]["all"]["p50"].as_f64().unwrap() - 500.0).abs() < 1.0);
        let svg = std::fs::read_to_string(path.with_extension("svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("prefers-color-scheme"));

        let log = std::fs::read(path.with_file_name("trial-all.hlog")).unwrap();
        let entry = IntervalLogIterator::new(&log).find_map(|entry| match entry {
            Ok(LogEntry::Interval(interval)) => Some(interval.encoded_histogram().to_owned()),
            _ => None,
        });
        assert!(entry.is_some_and(|encoded| encoded.starts_with("HIST")), "a V2 histogram stands in the log");
    }
}
