//! The figures of a running pipeline that are states and not events: lags, ages and sizes, refreshed for whoever scrapes.
//!
//! ```text
//! log.end() ──┬─▶ how long ago what is read here was all there was     pipeline_input_age_seconds
//!             └─▶ how long ago what is durable was all there was       pipeline_frontier_age_seconds, pipeline_lag_records
//! Stats, row_count ──▶ sizes of the state, by view and by table
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
use kindred_store::ViewStore;
use kindred_telemetry::fail_point;

use crate::{Context, PipelineError, block_on_runtime};

/// How often they are refreshed: the ages are exact to that.
const EVERY: Duration = Duration::from_secs(1);
/// How often rows are counted: a store may have to read them.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How long the log may take to say where it ends. While it does not answer, ages go on from what was known.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to sleep before looking whether to stop.
const NAP: Duration = Duration::from_millis(100);
/// Ends of the log that are remembered. Beyond it the ages are those of the oldest that is kept, an hour at least.
const ENDS_MAX: usize = 3_600;

pub(crate) struct Figures {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewStore>,
    pub context: Context,
    pub stats: Arc<Stats>,
    /// The generation, as a label: a process may keep several.
    pub generation: String,
    /// What this process reads.
    pub shares: Vec<Share>,
}

pub(crate) fn spawn(figures: Figures) -> Result<JoinHandle<()>, PipelineError> {
    let runtime = block_on_runtime()?;
    let context = figures.context.clone();
    context.spawn("kindred-figures", move || figures.run(&runtime))
}

impl Figures {
    fn run(&self, runtime: &tokio::runtime::Runtime) {
        // There from the start, so that an alert finds it.
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
                // One that catches up moves; one whose worker hangs does not.
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

    /// What of a position this process reads.
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
        // The similarity views share their state; points keep theirs with the merged orders, popularity and histories theirs with the
        // merged identities.
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
            // A store that does not answer is told of by those who need it.
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

/// A figure as metrics take it.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
pub(crate) fn double(figure: u64) -> f64 {
    figure as f64
}

/// Where the log ended when, as far as something has not come there yet.
#[derive(Default)]
struct Ends(VecDeque<(Instant, Position)>);

impl Ends {
    /// The log ends here now.
    fn was(&mut self, end: Position) {
        if self.0.len() < ENDS_MAX && self.0.back().is_none_or(|(_, last)| *last != end) {
            self.0.push_back((Instant::now(), end));
        }
    }

    /// For how long the log has had something that `position` does not reach; nothing if it reaches all that is known.
    fn age(&mut self, position: &Position) -> Duration {
        let mut age = Duration::ZERO;
        while let Some((when, end)) = self.0.front() {
            if !position.reaches(end) {
                age = when.elapsed();
                break;
            }
            // The last stays, to know that nothing is new.
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

    /// If it failed, a pipeline that keeps up under load would seem ever staler, or one that stands still fresh.
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
