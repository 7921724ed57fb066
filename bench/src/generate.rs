//! `generate`: writes the synthetic log as NDJSON, a file per topic, for imports and for comparison with other systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kindred_model::Topic;

use crate::progress;
use crate::synthetic::{Entry, Mix, Plan, ShopLog, purchase_record, purchases};

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The plan.
    #[command(flatten)]
    pub plan: Plan,
    /// The whole product's log: interactions of all kinds, orders with refunds, catalog and members
    #[arg(long)]
    pub whole: bool,
    /// Weights of the kinds in the whole product's log, like view=60,cart=10,purchase=5; a purchase becomes an order
    #[arg(long, requires = "whole")]
    pub kinds: Option<Mix>,
    /// A catalog of the items beside the purchases; the whole product's log always has one
    #[arg(long)]
    pub catalog: bool,
    /// Folder for the files
    #[arg(long, default_value = ".")]
    pub out: PathBuf,
    /// Compress the files
    #[arg(long)]
    pub zstd: bool,
}

/// Path and record count by topic.
pub type Written = BTreeMap<Topic, (PathBuf, u64)>;

/// Writes the files.
///
/// # Errors
/// When a file cannot be written.
pub fn run(options: &Options) -> Result<Written> {
    std::fs::create_dir_all(&options.out).with_context(|| format!("could not make {}", options.out.display()))?;
    let plan = &options.plan;
    let bar = progress::bar("writing the synthetic log", plan.events as u64);
    let mut files = Files { out: &options.out, zstd: options.zstd, open: BTreeMap::new() };
    if options.whole {
        for entry in ShopLog::catalog(plan).chain(ShopLog::members(plan)) {
            files.write(&entry)?;
        }
        for entry in bar.wrap_iter(ShopLog::new(plan, options.kinds.clone().unwrap_or_else(Mix::usual)).take(plan.events)) {
            files.write(&entry)?;
        }
    } else {
        for entry in ShopLog::catalog(plan).take(if options.catalog { usize::MAX } else { 0 }) {
            files.write(&entry)?;
        }
        for purchase in bar.wrap_iter(purchases(plan).take(plan.events)) {
            let json = purchase_record(purchase).to_json();
            files.write(&Entry { at: purchase.at, topic: Topic::Interactions, json })?;
        }
    }
    files.finish()
}

enum Sink {
    Plain(BufWriter<File>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

struct Files<'a> {
    out: &'a Path,
    zstd: bool,
    open: BTreeMap<Topic, (PathBuf, u64, Sink)>,
}

impl Files<'_> {
    fn write(&mut self, entry: &Entry) -> Result<()> {
        if !self.open.contains_key(&entry.topic) {
            let suffix = if self.zstd { ".zst" } else { "" };
            let path = self.out.join(format!("{}.ndjson{suffix}", entry.topic.name()));
            let file = BufWriter::new(File::create(&path).with_context(|| format!("could not write {}", path.display()))?);
            let sink = if self.zstd { Sink::Zstd(zstd::Encoder::new(file, 3)?) } else { Sink::Plain(file) };
            self.open.insert(entry.topic, (path, 0, sink));
        }
        let (path, count, sink) = self.open.get_mut(&entry.topic).expect("opened above");
        *count += 1;
        let writer: &mut dyn Write = match sink {
            Sink::Plain(file) => file,
            Sink::Zstd(encoder) => encoder,
        };
        writer
            .write_all(&entry.json)
            .and_then(|()| writer.write_all(b"\n"))
            .with_context(|| format!("could not write {}", path.display()))
    }

    fn finish(self) -> Result<Written> {
        let mut written = Written::new();
        for (topic, (path, count, sink)) in self.open {
            let flushed = match sink {
                Sink::Plain(mut file) => file.flush(),
                Sink::Zstd(encoder) => encoder.finish().and_then(|mut file| file.flush()),
            };
            flushed.with_context(|| format!("could not write {}", path.display()))?;
            written.insert(topic, (path, count));
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};

    use super::*;

    /// The files hold the records that the other commands measure, in a form that an import reads.
    #[test]
    fn files_hold_every_record_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { members: 100, items: 50, events: 2_000, seed: 7 };
        let plain = Options { plan, whole: false, kinds: None, catalog: false, out: folder.path().join("plain"), zstd: false };
        let written = run(&plain).unwrap();
        let (path, count) = &written[&Topic::Interactions];
        assert_eq!((written.len(), *count), (1, 2_000));
        let lines: Vec<String> = BufReader::new(File::open(path).unwrap()).lines().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2_000);
        let first = purchases(&plan).next().unwrap();
        assert_eq!(lines[0].as_bytes(), purchase_record(first).to_json());

        let written = run(&Options { catalog: true, out: folder.path().join("catalog"), ..plain }).unwrap();
        assert_eq!((written.len(), written[&Topic::Catalog].1), (2, 50));

        let whole = Options { plan, whole: true, kinds: None, catalog: false, out: folder.path().join("whole"), zstd: true };
        let written = run(&whole).unwrap();
        let total: u64 = written.values().map(|(_, count)| count).sum();
        assert_eq!((written.len(), total), (4, 2_000 + 100 + 50));
        let (path, count) = &written[&Topic::Orders];
        let mut text = String::new();
        zstd::Decoder::new(File::open(path).unwrap()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count() as u64, *count);
    }
}
