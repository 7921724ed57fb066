//! Gauges of a running pipeline: lags, ages and state sizes, refreshed every second.
//!
//! ```text
//! log.end() ──┬─▶ age of the oldest record not yet read       pipeline_input_age_seconds
//!             └─▶ age of the oldest record not yet durable    pipeline_frontier_age_seconds, pipeline_lag_records
//! Stats, row_count ──▶ state sizes by view, row counts by table
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kindred_dataflow::update::Stats;
use kindred_log::{EventLog, Share};
use kindred_model::Position;
use kindred_model::views::{input_tables, view_tables};
use kindred_store::ViewReader;
use kindred_telemetry::fail_point;

use crate::{Context, PipelineError, block_on_runtime};

/// Refresh interval, and so the resolution of the ages.
const EVERY: Duration = Duration::from_secs(1);
/// Row counts are refreshed less often: a store may have to read the rows to count them.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Timeout for asking the log's end. Ages keep growing from the last known end meanwhile.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the thread checks for a stop.
const NAP: Duration = Duration::from_millis(100);
/// Ends of the log kept, at least an hour of them. Beyond it the age is that of the oldest kept.
const ENDS_MAX: usize = 3_600;

pub(crate) struct Gauges {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewReader>,
    pub context: Context,
    pub stats: Arc<Stats>,
    /// The generation label: a process may run several.
    pub generation: String,
    /// The partitions this process reads.
    pub shares: Vec<Share>,
}

pub(crate) fn spawn(gauges: Gauges) -> Result<JoinHandle<()>, PipelineError> {
    let runtime = block_on_runtime()?;
    let context = gauges.context.clone();
    context.spawn("kindred-figures", move || gauges.run(&runtime))
}

impl Gauges {
    fn run(&self, runtime: &tokio::runtime::Runtime) {
        // Registered at the start, so that an alert on it finds the series.
        metrics::counter!("pipeline_retries_total").increment(0);
        metrics::counter!("pipeline_invariant_violations_total").absolute(0);
        let (mut read, mut durable) = (Ends::default(), Ends::default());
        let (mut refreshed, mut counted) = (None::<Instant>, None::<Instant>);
        let mut stood = None::<(Instant, Position)>;
        let due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
        while !self.context.stopping() {
            if due(refreshed, EVERY) {
                refreshed = Some(Instant::now());
                fail_point("thread: figures");
                let end = runtime.block_on(async { tokio::time::timeout(END_TIMEOUT, self.log.end()).await });
                if let Ok(Ok(end)) = end {
                    self.lags(&end);
                    read.was(self.share_of(&end));
                    durable.was(end);
                }
                let progress = &self.context.progress;
                let applied = progress.applied();
                let (input, frontier) = (read.age(&progress.read()), durable.age(&applied));
                // A pipeline that catches up moves its frontier; one whose worker hangs does not.
                if frontier.is_zero() || stood.as_ref().is_none_or(|(_, at)| *at != applied) {
                    stood = Some((Instant::now(), applied));
                }
                let stalled = stood.as_ref().map_or(Duration::ZERO, |(since, _)| since.elapsed()).min(frontier);
                progress.frontier_age_ms.store(millis(frontier), Ordering::Relaxed);
                progress.stalled_ms.store(millis(stalled), Ordering::Relaxed);
                metrics::gauge!("pipeline_input_age_seconds", "generation" => self.generation.clone()).set(input.as_secs_f64());
                metrics::gauge!("pipeline_frontier_age_seconds", "generation" => self.generation.clone())
                    .set(frontier.as_secs_f64());
                self.sizes();
            }
            if due(counted, COUNT_EVERY) {
                counted = Some(Instant::now());
                self.count_rows();
            }
            std::thread::sleep(NAP);
        }
    }

    /// The part of a position that this process reads.
    fn share_of(&self, end: &Position) -> Position {
        let mut mine = Position::beginning();
        for (topic, partition, next) in end.partitions() {
            if next > 0 && self.shares.iter().any(|share| share.holds(topic, partition)) {
                mine.passed(topic, partition, next - 1);
            }
        }
        mine
    }

    fn lags(&self, end: &Position) {
        let applied = self.context.progress.applied();
        for (topic, partition, next) in end.partitions() {
            let lag = next.saturating_sub(applied.next_offset(topic, partition));
            let labels =
                [("generation", self.generation.clone()), ("topic", topic.to_string()), ("partition", partition.to_string())];
            metrics::gauge!("pipeline_lag_records", &labels).set(double(lag));
        }
    }

    fn sizes(&self) {
        metrics::counter!("pipeline_invariant_violations_total").absolute(kindred_dataflow::invariant::violations());
        let stats = &self.stats;
        // The similarity views share one state. Points are kept with the merged orders, popularity and histories with the
        // identities.
        for (view, what, figure) in [
            ("inputs", "owners", &stats.owners),
            ("inputs", "identities", &stats.identities),
            ("inputs", "orders", &stats.orders),
            ("also_bought", "pairs", &stats.pairs),
            ("also_bought", "bytes", &stats.similarity_bytes),
        ] {
            let labels = [("generation", self.generation.clone()), ("view", view.to_owned()), ("what", what.to_owned())];
            metrics::gauge!("pipeline_state_size", &labels).set(double(Stats::get(figure)));
        }
    }

    fn count_rows(&self) {
        for table in input_tables().iter().chain(&view_tables()) {
            // Callers that need the store report its errors.
            if let Ok(rows) = self.store.row_count(table.name) {
                let labels = [("generation", self.generation.clone()), ("table", table.name.to_owned())];
                metrics::gauge!("store_table_rows", &labels).set(double(rows));
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Converts to a gauge's type.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
pub(crate) fn double(figure: u64) -> f64 {
    figure as f64
}

/// Past ends of the log that the position under watch has not reached.
#[derive(Default)]
struct Ends(VecDeque<(Instant, Position)>);

impl Ends {
    /// Records the current end of the log.
    fn was(&mut self, end: Position) {
        if self.0.len() < ENDS_MAX && self.0.back().is_none_or(|(_, last)| *last != end) {
            self.0.push_back((Instant::now(), end));
        }
    }

    /// Time since the log first held a record beyond `position`; zero if there is none.
    fn age(&mut self, position: &Position) -> Duration {
        let mut age = Duration::ZERO;
        while let Some((when, end)) = self.0.front() {
            if !position.reaches(end) {
                age = when.elapsed();
                break;
            }
            // The last end stays, so that an unchanged end is recognized.
            if self.0.len() == 1 {
                break;
            }
            self.0.pop_front();
        }
        age
    }
}

#[cfg(test)]
mod tests {
    use kindred_model::Topic;

    use super::*;

    /// If this failed, a pipeline that keeps up would report a growing age, or a stalled one an age of zero.
    #[test]
    fn ages_count_from_the_first_end_that_is_not_reached() {
        let at = |offset: u64| {
            let mut position = Position::beginning();
            position.passed(Topic::Orders, 0, offset);
            position
        };
        let mut ends = Ends::default();
        assert_eq!(ends.age(&Position::beginning()), Duration::ZERO);
        ends.was(at(1));
        std::thread::sleep(Duration::from_millis(40));
        ends.was(at(5));
        let stale = ends.age(&at(0));
        assert!(stale >= Duration::from_millis(40), "{stale:?}");
        let fresher = ends.age(&at(3));
        assert!(fresher < Duration::from_millis(40), "what came first is reached: {fresher:?}");
        assert_eq!(ends.age(&at(5)), Duration::ZERO);
        ends.was(at(5));
        assert_eq!(ends.age(&at(5)), Duration::ZERO, "nothing new came");
    }
}
