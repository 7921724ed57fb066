//! Row counts: cached, and refreshed in the background when requested and old.
//!
//! A count reads every partition, so the next one starts after twenty times as long as the last took.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::connection::{Connection, Layout};
use super::session::{answered, unreadable};
use crate::StoreError;

/// Least time between two counts of a table.
const REST_MIN: Duration = Duration::from_secs(1);
/// Back-off in multiples of the last count's duration.
const REST_SHARE: u32 = 20;
/// Partitions counted concurrently.
const AT_A_TIME: usize = 4;

#[derive(Default)]
pub(super) struct Counts(Mutex<FxHashMap<&'static str, Count>>);

#[derive(Clone, Copy, Default)]
struct Count {
    rows: u64,
    running: bool,
    /// When the next count may start; `None` before the first.
    next: Option<Instant>,
}

impl Counts {
    /// The last count, and whether the caller has to make the next.
    pub fn last(&self, table: &'static str) -> (u64, bool) {
        let mut counts = self.0.lock();
        let count = counts.entry(table).or_default();
        let due = !count.running && count.next.is_none_or(|next| next <= Instant::now());
        count.running |= due;
        (count.rows, due)
    }

    pub fn counted(&self, table: &'static str, began: Instant, rows: Option<u64>) {
        let mut counts = self.0.lock();
        let count = counts.entry(table).or_default();
        count.running = false;
        count.next = Some(Instant::now() + (began.elapsed() * REST_SHARE).max(REST_MIN));
        count.rows = rows.unwrap_or(count.rows);
    }
}

impl Connection {
    pub async fn count(&self, generation: &str, layout: Layout) -> Result<u64, StoreError> {
        let count = &self.rows(layout).count;
        let each = (0..layout.buckets).map(|bucket| async move {
            let values = (generation, layout.name, i32::try_from(bucket).expect("buckets are few"));
            let result = answered(self.config.attempts, "count", || self.session.execute_unpaged(count, &values)).await?;
            let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
            let (rows,) = rows.first_row::<(i64,)>().map_err(|error| unreadable(&error))?;
            Ok(rows.unsigned_abs())
        });
        stream::iter(each).buffer_unordered(AT_A_TIME).try_fold(0, async |sum, rows| Ok(sum + rows)).await
    }
}
