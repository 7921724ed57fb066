//! A log and a store, and what the oracle says of them.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::Path;
use std::sync::Arc;

use kindred_clock::Clock;
use kindred_log::EventLog;
use kindred_log::embedded::EmbeddedLog;
use kindred_model::{EventTime, Record, Semantics, Topic};
use kindred_oracle::{first_differences, inputs, tables};
use kindred_pipeline::{Pipeline, PipelineConfig};
use kindred_store::ViewStore;
use kindred_store::embedded::EmbeddedStore;

pub struct Shop {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewStore>,
}

impl Shop {
    pub fn open(dir: &Path) -> Self {
        let log = Arc::new(EmbeddedLog::open(&dir.join("log")).expect("a log"));
        let store = Arc::new(EmbeddedStore::open(&dir.join("store")).expect("a store"));
        Self { log, store }
    }

    pub async fn start(&self, config: &PipelineConfig) -> Pipeline {
        let clock = Clock::fixed(EventTime(1_780_000_000_000));
        Pipeline::start(config.clone(), Arc::clone(&self.log), Arc::clone(&self.store), clock).await.expect("it starts")
    }

    pub async fn append(&self, records: &[Record]) {
        append(&self.log, records).await;
    }

    /// The rows that differ from the oracle's.
    pub fn differences(&self, records: &[Record], semantics: &Semantics) -> Vec<String> {
        differences(&*self.store, records, semantics)
    }

    #[track_caller]
    pub fn assert_is(&self, records: &[Record], semantics: &Semantics, when: &str) {
        let differences = self.differences(records, semantics);
        assert!(differences.is_empty(), "{when}: {differences:#?}");
    }
}

pub async fn append(log: &Arc<dyn EventLog>, records: &[Record]) {
    for topic in Topic::ALL {
        let payloads: Vec<Vec<u8>> = records.iter().filter(|record| record.topic() == *topic).map(Record::to_json).collect();
        if !payloads.is_empty() {
            log.append(*topic, payloads, None).await.expect("it appends");
        }
    }
}

pub fn differences(store: &dyn ViewStore, records: &[Record], semantics: &Semantics) -> Vec<String> {
    let expected = tables(&inputs(records.iter().cloned(), semantics), semantics);
    let snapshot = store.snapshot().expect("a snapshot");
    let differences = first_differences(&expected, &*snapshot.rows, 1_000).expect("rows");
    let shown = differences.iter().map(|of| {
        let (expected, stored) = (of.describe_expected(), of.describe_actual());
        format!("{} {}: expected {expected:?}, stored {stored:?}", of.table, of.describe_key())
    });
    shown.collect()
}
