//! Reads of rows: single ones, and scans in key order over all partitions of a table.
//!
//! ```text
//! bucket 0 ──page, page, …──┐
//! bucket 1 ──page, page, …──┼─▶ merge by key ──▶ visitor (on the caller's thread)
//! bucket n ──page, page, …──┘      each bucket prefetches its next page
//! ```
//!
//! CQL has no snapshots: a scan sees each row as of the read of its page.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use kindred_model::views::{ReadError, Rows, Visit};
use scylla::response::{PagingState, PagingStateResponse};

use super::bucket::{bucket, buckets_below};
use super::connection::{Connection, Layout};
use super::runtime::{StoreRuntime, received};
use super::session::{answered, unreadable};
use crate::StoreError;
use crate::prefix::beyond;

/// On the request path; the caller may retry.
const GET_ATTEMPTS: u32 = 2;

impl Connection {
    /// One row.
    pub async fn get(&self, generation: &str, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let layout = self.layout(table)?;
        let values = (generation, layout.name, bucket(key, layout.buckets), key);
        let get = &self.rows(layout).get;
        let result = answered(GET_ATTEMPTS, "get", || self.session.execute_unpaged(get, &values)).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let row = rows.maybe_first_row::<(&[u8],)>().map_err(|error| unreadable(&error))?;
        Ok(row.map(|(value,)| value.to_vec()))
    }

    async fn page(&self, scan: &Scan, bucket: i32, state: PagingState) -> Result<Page, StoreError> {
        let _turn = self.scans.acquire().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let statements = self.rows(scan.layout);
        let partition = (scan.generation.as_str(), scan.layout.name, bucket);
        let (generation, table, bucket) = partition;
        let read = || async {
            match &scan.to {
                Some(to) => {
                    let values = (generation, table, bucket, &scan.from, to);
                    self.session.execute_single_page(&statements.scan_between, values, state.clone()).await
                }
                None => {
                    let values = (generation, table, bucket, &scan.from);
                    self.session.execute_single_page(&statements.scan_from, values, state.clone()).await
                }
            }
        };
        let (result, next) = answered(self.config.attempts, "scan", read).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let mut page = Page { next: None, ..Page::default() };
        for row in rows.rows::<(&[u8], &[u8])>().map_err(|error| unreadable(&error))? {
            let (key, value) = row.map_err(|error| unreadable(&error))?;
            page.bytes.extend_from_slice(key);
            let key_end = page.bytes.len();
            page.bytes.extend_from_slice(value);
            page.ends.push((key_end, page.bytes.len()));
        }
        if let PagingStateResponse::HasMorePages { state } = next {
            page.next = Some(state);
        }
        Ok(page)
    }
}

/// The query of a scan.
struct Scan {
    generation: String,
    layout: Layout,
    from: Vec<u8>,
    /// The exclusive upper bound, if any.
    to: Option<Vec<u8>>,
}

/// Rows in one buffer.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// The ends of each row's key and value.
    ends: Vec<(usize, usize)>,
    next: Option<PagingState>,
}

/// The rows of one generation, read on demand.
pub(super) struct CqlRows {
    pub connection: Arc<Connection>,
    pub runtime: Arc<StoreRuntime>,
    pub generation: String,
}

impl CqlRows {
    fn ask_page(&self, scan: &Arc<Scan>, bucket: i32, state: PagingState) -> Receiver<Result<Page, StoreError>> {
        let (connection, scan) = (Arc::clone(&self.connection), Arc::clone(scan));
        self.runtime.ask(async move { connection.page(&scan, bucket, state).await })
    }
}

fn read_error(error: StoreError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

impl Rows for CqlRows {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let (connection, generation) = (Arc::clone(&self.connection), self.generation.clone());
        let (table, key) = (table.to_owned(), key.to_vec());
        let answer = self.runtime.wait(async move { connection.get(&generation, &table, &key).await });
        answer.map_err(read_error)
    }

    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError> {
        let layout = self.connection.layout(table).map_err(read_error)?;
        self.scan_buckets(layout, prefix, &buckets_below(prefix, layout.buckets), visit)
    }

    fn scan_part(&self, table: &str, part: usize, of: usize, visit: Visit<'_>) -> Result<(), ReadError> {
        let layout = self.connection.layout(table).map_err(read_error)?;
        let buckets: Vec<i32> = buckets_below(&[], layout.buckets).into_iter().skip(part).step_by(of).collect();
        self.scan_buckets(layout, &[], &buckets, visit)
    }
}

impl CqlRows {
    fn scan_buckets(&self, layout: Layout, prefix: &[u8], buckets: &[i32], visit: Visit<'_>) -> Result<(), ReadError> {
        let scan = Scan { generation: self.generation.clone(), layout, from: prefix.to_vec(), to: beyond(prefix) };
        let mut merge = Merge::start(self, &Arc::new(scan), buckets).map_err(read_error)?;
        while let Some((key, value)) = merge.head() {
            if let ControlFlow::Break(ended) = visit(key, value) {
                return ended;
            }
            merge.pop().map_err(read_error)?;
        }
        Ok(())
    }
}

/// One partition of a scan.
struct Cursor {
    bucket: i32,
    page: Page,
    /// The index of the next row in the page.
    at: usize,
    /// The prefetched page.
    coming: Option<Receiver<Result<Page, StoreError>>>,
}

impl Cursor {
    fn key(&self) -> &[u8] {
        let start = if self.at == 0 { 0 } else { self.page.ends[self.at - 1].1 };
        &self.page.bytes[start..self.page.ends[self.at].0]
    }

    fn value(&self) -> &[u8] {
        let (key_end, end) = self.page.ends[self.at];
        &self.page.bytes[key_end..end]
    }
}

/// The partitions of a scan as a heap by their next key.
struct Merge<'a> {
    reading: &'a CqlRows,
    scan: Arc<Scan>,
    heap: Vec<Cursor>,
}

impl<'a> Merge<'a> {
    fn start(reading: &'a CqlRows, scan: &Arc<Scan>, buckets: &[i32]) -> Result<Self, StoreError> {
        let mut merge = Self { reading, scan: Arc::clone(scan), heap: Vec::with_capacity(buckets.len()) };
        let asked: Vec<_> =
            buckets.iter().map(|&bucket| (bucket, reading.ask_page(scan, bucket, PagingState::start()))).collect();
        for (bucket, coming) in asked {
            let mut cursor = Cursor { bucket, page: Page::default(), at: 0, coming: Some(coming) };
            if merge.turn(&mut cursor)? {
                merge.heap.push(cursor);
            }
        }
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sink(at);
        }
        Ok(merge)
    }

    fn head(&self) -> Option<(&[u8], &[u8])> {
        self.heap.first().map(|cursor| (cursor.key(), cursor.value()))
    }

    /// Advances the partition with the least key.
    fn pop(&mut self) -> Result<(), StoreError> {
        let first = &mut self.heap[0];
        first.at += 1;
        if first.at == first.page.ends.len() {
            let mut cursor = self.heap.swap_remove(0);
            if self.turn(&mut cursor)? {
                self.heap.push(cursor);
                let last = self.heap.len() - 1;
                self.heap.swap(0, last);
            }
        }
        self.sink(0);
        Ok(())
    }

    /// Moves to the next non-empty page and prefetches the one after. False at the end of the partition.
    fn turn(&self, cursor: &mut Cursor) -> Result<bool, StoreError> {
        loop {
            let Some(coming) = cursor.coming.take() else { return Ok(false) };
            cursor.page = received(&coming)?;
            cursor.at = 0;
            if let Some(state) = cursor.page.next.take() {
                cursor.coming = Some(self.reading.ask_page(&self.scan, cursor.bucket, state));
            }
            if !cursor.page.ends.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Restores the heap order below a cursor.
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child].key() < self.heap[least].key() {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}
