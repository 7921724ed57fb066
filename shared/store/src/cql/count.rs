//! How many rows a table has: counted in the background, when somebody asked and the last count is old.
//!
//! A count reads every partition, so it is not for every request: the next one starts after twenty times as long as the last took.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::connection::{Connection, Place};
use super::session::{answered, unreadable};
use crate::StoreError;

/// The least time between two counts of a table.
const REST_MIN: Duration = Duration::from_secs(1);
/// Times that a count took until the next may start.
const REST_SHARE: u32 = 20;
/// Partitions that are counted at a time.
const AT_A_TIME: usize = 4;

#[derive(Default)]
pub(super) struct Counts(Mutex<FxHashMap<&'static str, Count>>);

#[derive(Clone, Copy, Default)]
struct Count {
    rows: u64,
    running: bool,
    /// When the next count may start; none was made yet without it.
    next: Option<Instant>,
}

impl Counts {
    /// The last count, and whether it is time for the next, which the caller then has to make.
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
    pub async fn count(&self, generation: &str, place: Place) -> Result<u64, StoreError> {
        let count = &self.rows(place).count;
        let each = (0..place.buckets).map(|bucket| async move {
            let values = (generation, place.name, i32::try_from(bucket).expect("buckets are few"));
            let result = answered(self.config.attempts, "count", || self.session.execute_unpaged(count, &values)).await?;
            let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
            let (rows,) = rows.first_row::<(i64,)>().map_err(|error| unreadable(&error))?;
            Ok(rows.unsigned_abs())
        });
        stream::iter(each).buffer_unordered(AT_A_TIME).try_fold(0, async |sum, rows| Ok(sum + rows)).await
    }
}
