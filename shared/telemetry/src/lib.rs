//! Telemetry of a process: logs on stderr, metrics as Prometheus text, CPU and memory usage.
//!
//! ```text
//! tracing::info!(…)        ──▶ stderr, text or JSON lines            init
//! metrics::counter!(…)     ──▶ recorder ──render──▶ GET /metrics     metrics_handle
//! clock_gettime, /proc     ──▶ status, /metrics, bench               usage
//! a panic                  ──▶ stderr, and the end of the process     end_on_panic
//! ```
//!
//! Stdout is for data (exports), so nothing here writes to it.

mod fail_points;
mod usage;
mod vital;

use std::sync::{Mutex, OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

pub use fail_points::fail_point;
pub use usage::{cpu_by_thread, peak_rss_bytes, process_cpu, rss_bytes, spawn_named, thread_cpu};
pub use vital::{HASH_THREAD, IO_THREAD, end_on_panic, vital_task};

/// Errors of the setup.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error(
        "telemetry.log is {filter:?}: {reason}; a level, or levels by module as in \"info,kindred_pipeline=debug\", is accepted"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        reason: String,
    },
    /// Another subscriber or recorder is installed.
    #[error("{0} is already installed")]
    Taken(&'static str),
}

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people: one line per event, fields after the message.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Sends log lines that pass `filter` (the syntax of `tracing_subscriber::EnvFilter`) to stderr. Only the first call has an
/// effect.
///
/// # Errors
/// [`TelemetryError::Filter`]; [`TelemetryError::Taken`] when something other than this function set a subscriber.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let mut done = DONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *done {
        return Ok(());
    }
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let set = match format {
        LogFormat::Text => lines.with_ansi(colours).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| TelemetryError::Taken("the log"))?;
    *done = true;
    Ok(())
}

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Upper bounds of histograms named `*_ms`: from a memory read to a stalled disk, three per decade.
const LATENCY_BUCKETS_MS: &[f64] =
    &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
/// Upper bounds of histograms named `*_seconds`.
const LATENCY_BUCKETS_SECONDS: &[f64] =
    &[0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Upper bounds of other histograms: counts of records, rows and bytes.
const SIZE_BUCKETS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0, 100_000_000.0];

/// Installs the recorder behind `metrics::counter!` on the first call, and returns the handle that renders it. Call it at the
/// start: metrics recorded earlier are lost.
///
/// # Errors
/// [`TelemetryError::Taken`] when something other than this function installed a recorder.
pub fn metrics_handle() -> Result<Metrics, TelemetryError> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_ms".to_owned()), LATENCY_BUCKETS_MS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS_SECONDS))
            .and_then(|builder| builder.set_buckets(SIZE_BUCKETS))
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok().map(|()| handle)
    });
    handle.clone().map(Metrics).ok_or(TelemetryError::Taken("the metrics recorder"))
}

impl Metrics {
    /// All metrics as Prometheus text (version 0.0.4), including the process's CPU and memory usage.
    pub fn render(&self) -> String {
        metrics::gauge!("process_cpu_seconds").set(process_cpu().as_secs_f64());
        if let Some(bytes) = rss_bytes() {
            metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        if let Some(bytes) = peak_rss_bytes() {
            metrics::gauge!("process_peak_resident_memory_bytes").set(bytes as f64);
        }
        self.0.run_upkeep();
        self.0.render()
    }

    /// Moves recorded samples into their histogram buckets, as [`Metrics::render`] does. Call it regularly if nobody scrapes, so
    /// that samples do not pile up.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a second part of the process could not get the handle, or histograms would be rendered as summaries.
    #[test]
    fn metrics_are_rendered_with_buckets_from_any_handle() {
        let metrics = metrics_handle().unwrap();
        metrics::counter!("telemetry_test_total").increment(3);
        metrics::histogram!("telemetry_test_latency_ms").record(3.0);
        metrics::histogram!("telemetry_test_duration_seconds").record(0.003);
        let text = metrics_handle().unwrap().render();
        assert!(text.contains("telemetry_test_total 3"), "{text}");
        assert!(text.contains("telemetry_test_latency_ms_bucket{le=\"5\"} 1"), "{text}");
        assert!(text.contains("telemetry_test_latency_ms_bucket{le=\"2\"} 0"), "{text}");
        assert!(text.contains("telemetry_test_duration_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("telemetry_test_duration_seconds_bucket{le=\"0.002\"} 0"), "{text}");
        assert!(text.contains("process_cpu_seconds"), "{text}");
        metrics.upkeep();
    }

    #[test]
    fn a_wrong_filter_is_named_and_a_second_init_changes_nothing() {
        let error = init("kindred=nonsense", LogFormat::Text).unwrap_err().to_string();
        assert!(error.contains("telemetry.log is \"kindred=nonsense\""), "{error}");
        init("warn", LogFormat::Json).unwrap();
        init("info", LogFormat::Text).unwrap();
    }
}
