//! Writes: the changes of an epoch, grouped by partition into small unlogged batches, several under way at a time.
//!
//! ```text
//! changes ──by (table, bucket)──▶ batches of one partition (rows, bytes) ──▶ n under way ──▶ all acknowledged
//! ```
//!
//! A batch within one partition is a single mutation: it is applied whole, needs no log of batches, and is some twelve times cheaper a
//! row than rows sent one by one. Its timestamp is that of the epoch (`frontier`), so sending it again changes nothing.

use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};

use super::bucket::bucket;
use super::connection::{Connection, Place};
use super::session::answered;
use crate::{Change, StoreError};

/// What a change costs in a batch besides its key and row, about.
const ROW_BYTES: usize = 64;

/// One change with its partition.
struct Placed<'a> {
    place: Place,
    bucket: i32,
    change: &'a Change,
}

/// The values of one statement of a batch.
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
    /// Writes changes under a timestamp and returns when all of them are acknowledged.
    pub async fn write(&self, generation: &str, timestamp: i64, changes: &[Change]) -> Result<(), StoreError> {
        let mut placed = Vec::with_capacity(changes.len());
        for change in changes {
            let place = self.place(change.table)?;
            placed.push(Placed { place, bucket: bucket(&change.key, place.buckets), change });
        }
        placed.sort_unstable_by(|a, b| (a.place.name, a.bucket, &a.change.key).cmp(&(b.place.name, b.bucket, &b.change.key)));
        let mut under_way = FuturesUnordered::new();
        for batch in split(&placed, self.config.batch_rows, self.config.batch_bytes) {
            if under_way.len() == self.config.writes_in_flight {
                under_way.try_next().await?;
            }
            under_way.push(self.send(generation, timestamp, batch));
        }
        under_way.try_collect().await
    }

    async fn send(&self, generation: &str, timestamp: i64, placed: &[Placed<'_>]) -> Result<(), StoreError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_timestamp(Some(timestamp));
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(placed.len());
        for Placed { place, bucket, change } in placed {
            let statements = self.rows(*place);
            match &change.row {
                Some(row) => {
                    batch.append_statement(statements.put.clone());
                    values.push(Bound::Put((generation, place.name, *bucket, &change.key, row)));
                }
                None => {
                    batch.append_statement(statements.delete.clone());
                    values.push(Bound::Delete((generation, place.name, *bucket, &change.key)));
                }
            }
        }
        answered(self.config.attempts, "write", || self.session.batch(&batch, &values)).await?;
        metrics::histogram!("store_batch_rows").record(placed.len() as f64);
        Ok(())
    }

    /// Deletes what partitions of a table hold from up to a timestamp: one statement a partition, however many rows it has.
    pub async fn clear(&self, generation: &str, table: &str, timestamp: i64) -> Result<(), StoreError> {
        let place = self.place(table)?;
        let clear = &self.rows(place).clear;
        let sent = (0..place.buckets).map(|bucket| async move {
            let values = (timestamp, generation, place.name, i32::try_from(bucket).expect("buckets are few"));
            answered(self.config.attempts, "clear", || self.session.execute_unpaged(clear, &values)).await.map(drop)
        });
        stream::iter(sent).buffer_unordered(self.config.writes_in_flight).try_collect::<()>().await
    }
}

/// Sorted changes as batches: each of one partition, of so many rows and bytes at most, or one row.
fn split<'a, 'b>(placed: &'b [Placed<'a>], rows_max: usize, bytes_max: usize) -> Vec<&'b [Placed<'a>]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, next) in placed.iter().enumerate() {
        let size = next.change.key.len() + next.change.row.as_ref().map_or(0, Vec::len) + ROW_BYTES;
        let first = &placed[from];
        let fits = at - from < rows_max && bytes + size <= bytes_max;
        if at > from && (!fits || (first.place.name, first.bucket) != (next.place.name, next.bucket)) {
            batches.push(&placed[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += size;
    }
    if from < placed.len() {
        batches.push(&placed[from..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, rows would be lost, or a batch refused by the database.
    #[test]
    fn batches_hold_every_row_once_within_their_bounds() {
        let change = |key: u8, bytes: usize| Change { table: "t", key: vec![key], row: Some(vec![0; bytes]) };
        let changes = [change(0, 10), change(1, 10), change(2, 10), change(3, 900), change(4, 10), change(5, 10)];
        let place = Place { name: "t", input: false, buckets: 2 };
        let placed: Vec<Placed<'_>> =
            changes.iter().map(|change| Placed { place, bucket: i32::from(change.key[0] > 4), change }).collect();
        let batches = split(&placed, 2, 500);
        let keys: Vec<Vec<u8>> = batches.iter().map(|batch| batch.iter().map(|placed| placed.change.key[0]).collect()).collect();
        assert_eq!(keys, [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]);
        assert!(split(&[], 2, 500).is_empty());
    }
}
