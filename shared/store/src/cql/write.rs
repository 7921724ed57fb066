//! Writes: an epoch's changes as small unlogged batches, one partition each, sent concurrently.
//!
//! ```text
//! changes ──by (table, bucket)──▶ batches of one partition (rows, bytes) ──▶ n under way ──▶ all acknowledged
//! ```
//!
//! A batch within one partition is a single mutation: atomic, without a batch log, and some twelve times cheaper a row than
//! single rows. It carries the timestamp of the epoch (`frontier`), so it is idempotent.

use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};

use super::bucket::bucket;
use super::connection::{Connection, Layout};
use super::session::answered;
use crate::{Change, StoreError};

/// Overhead of a change in a batch besides key and row.
const ROW_BYTES: usize = 64;

/// A change and its partition.
struct Located<'a> {
    layout: Layout,
    bucket: i32,
    change: &'a Change,
}

/// The bound values of a statement.
enum Bound<'a> {
    Put((&'a str, &'static str, i32, &'a [u8], &'a [u8])),
    Delete((&'a str, &'static str, i32, &'a [u8])),
}

impl SerializeRow for Bound<'_> {
    fn serialize(&self, context: &RowSerializationContext<'_>, writer: &mut RowWriter) -> Result<(), SerializationError> {
        match self {
            Self::Put(values) => values.serialize(context, writer),
            Self::Delete(values) => values.serialize(context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Connection {
    /// Writes changes under a timestamp; returns once all are acknowledged.
    pub async fn write(&self, generation: &str, timestamp: i64, changes: &[Change]) -> Result<(), StoreError> {
        let mut located = Vec::with_capacity(changes.len());
        for change in changes {
            let layout = self.layout(change.table)?;
            located.push(Located { layout, bucket: bucket(&change.key, layout.buckets), change });
        }
        located.sort_unstable_by(|a, b| (a.layout.name, a.bucket, &a.change.key).cmp(&(b.layout.name, b.bucket, &b.change.key)));
        let mut under_way = FuturesUnordered::new();
        for batch in split(&located, self.config.batch_rows, self.config.batch_bytes) {
            if under_way.len() == self.config.writes_in_flight {
                under_way.try_next().await?;
            }
            under_way.push(self.send(generation, timestamp, batch));
        }
        under_way.try_collect().await
    }

    async fn send(&self, generation: &str, timestamp: i64, located: &[Located<'_>]) -> Result<(), StoreError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_timestamp(Some(timestamp));
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(located.len());
        for Located { layout, bucket, change } in located {
            let statements = self.rows(*layout);
            match &change.row {
                Some(row) => {
                    batch.append_statement(statements.put.clone());
                    values.push(Bound::Put((generation, layout.name, *bucket, &change.key, row)));
                }
                None => {
                    batch.append_statement(statements.delete.clone());
                    values.push(Bound::Delete((generation, layout.name, *bucket, &change.key)));
                }
            }
        }
        answered(self.config.attempts, "write", || self.session.batch(&batch, &values)).await?;
        metrics::histogram!("store_batch_rows").record(located.len() as f64);
        Ok(())
    }

    /// Deletes the rows of a table up to a timestamp, with one statement a partition.
    pub async fn clear(&self, generation: &str, table: &str, timestamp: i64) -> Result<(), StoreError> {
        let layout = self.layout(table)?;
        let clear = &self.rows(layout).clear;
        let sent = (0..layout.buckets).map(|bucket| async move {
            let values = (timestamp, generation, layout.name, i32::try_from(bucket).expect("buckets are few"));
            answered(self.config.attempts, "clear", || self.session.execute_unpaged(clear, &values)).await.map(drop)
        });
        stream::iter(sent).buffer_unordered(self.config.writes_in_flight).try_collect::<()>().await
    }
}

/// Splits sorted changes into batches of one partition, limited in rows and bytes, or of one row.
fn split<'a, 'b>(located: &'b [Located<'a>], rows_max: usize, bytes_max: usize) -> Vec<&'b [Located<'a>]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, next) in located.iter().enumerate() {
        let size = next.change.key.len() + next.change.row.as_ref().map_or(0, Vec::len) + ROW_BYTES;
        let first = &located[from];
        let fits = at - from < rows_max && bytes + size <= bytes_max;
        if at > from && (!fits || (first.layout.name, first.bucket) != (next.layout.name, next.bucket)) {
            batches.push(&located[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += size;
    }
    if from < located.len() {
        batches.push(&located[from..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, rows would be lost, or a batch refused by the database.
    #[test]
    fn batches_hold_every_row_once_within_their_bounds() {
        let change = |key: u8, bytes: usize| Change { table: "t", key: vec![key], row: Some(vec![0; bytes]) };
        let changes = [change(0, 10), change(1, 10), change(2, 10), change(3, 900), change(4, 10), change(5, 10)];
        let layout = Layout { name: "t", input: false, buckets: 2 };
        let located: Vec<Located<'_>> =
            changes.iter().map(|change| Located { layout, bucket: i32::from(change.key[0] > 4), change }).collect();
        let batches = split(&located, 2, 500);
        let keys: Vec<Vec<u8>> =
            batches.iter().map(|batch| batch.iter().map(|located| located.change.key[0]).collect()).collect();
        assert_eq!(keys, [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]);
        assert!(split(&[], 2, 500).is_empty());
    }
}
