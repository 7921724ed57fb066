//! Reads of rows: single ones, and scans in the order of keys over all partitions of a table.
//!
//! ```text
//! bucket 0 ──page, page, …──┐
//! bucket 1 ──page, page, …──┼─▶ merge by key ──▶ visitor (on the caller's thread)
//! bucket n ──page, page, …──┘      the next page of a bucket is on its way while this one is visited
//! ```
//!
//! There is no snapshot in a CQL database: a scan sees each row as it is when its page is read.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use kindred_model::views::{ReadError, Rows, Visit};
use scylla::response::{PagingState, PagingStateResponse};

use super::bridge::{Bridge, received};
use super::bucket::{bucket, buckets_below};
use super::connection::{Connection, Place};
use super::session::{answered, unreadable};
use crate::StoreError;
use crate::prefix::beyond;

/// Somebody waits for the row, and can ask again.
const GET_ATTEMPTS: u32 = 2;

impl Connection {
    /// One row.
    pub async fn get(&self, generation: &str, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let place = self.place(table)?;
        let values = (generation, place.name, bucket(key, place.buckets), key);
        let get = &self.rows(place).get;
        let result = answered(GET_ATTEMPTS, "get", || self.session.execute_unpaged(get, &values)).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let row = rows.maybe_first_row::<(&[u8],)>().map_err(|error| unreadable(&error))?;
        Ok(row.map(|(value,)| value.to_vec()))
    }

    async fn page(&self, scan: &Scan, bucket: i32, state: PagingState) -> Result<Page, StoreError> {
        let _turn = self.scans.acquire().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let statements = self.rows(scan.place);
        let partition = (scan.generation.as_str(), scan.place.name, bucket);
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

/// What a scan asks each partition for.
struct Scan {
    generation: String,
    place: Place,
    from: Vec<u8>,
    /// The first key beyond; none where nothing is.
    to: Option<Vec<u8>>,
}

/// Rows one after the other in one piece of memory.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// Where the key and the value of each row end.
    ends: Vec<(usize, usize)>,
    next: Option<PagingState>,
}

/// The rows of one generation, read when they are asked for.
pub(super) struct Reading {
    pub connection: Arc<Connection>,
    pub bridge: Arc<Bridge>,
    pub generation: String,
}

impl Reading {
    fn ask_page(&self, scan: &Arc<Scan>, bucket: i32, state: PagingState) -> Receiver<Result<Page, StoreError>> {
        let (connection, scan) = (Arc::clone(&self.connection), Arc::clone(scan));
        self.bridge.ask(async move { connection.page(&scan, bucket, state).await })
    }
}

fn read_error(error: StoreError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

impl Rows for Reading {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let (connection, generation) = (Arc::clone(&self.connection), self.generation.clone());
        let (table, key) = (table.to_owned(), key.to_vec());
        let answer = self.bridge.wait(async move { connection.get(&generation, &table, &key).await });
        answer.map_err(read_error)
    }

    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError> {
        let place = self.connection.place(table).map_err(read_error)?;
        self.scan_buckets(place, prefix, &buckets_below(prefix, place.buckets), visit)
    }

    fn scan_part(&self, table: &str, part: usize, of: usize, visit: Visit<'_>) -> Result<(), ReadError> {
        let place = self.connection.place(table).map_err(read_error)?;
        let buckets: Vec<i32> = buckets_below(&[], place.buckets).into_iter().skip(part).step_by(of).collect();
        self.scan_buckets(place, &[], &buckets, visit)
    }
}

impl Reading {
    fn scan_buckets(&self, place: Place, prefix: &[u8], buckets: &[i32], visit: Visit<'_>) -> Result<(), ReadError> {
        let scan = Scan { generation: self.generation.clone(), place, from: prefix.to_vec(), to: beyond(prefix) };
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
    /// The row within the page that comes next.
    at: usize,
    /// The page after this one.
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

/// The partitions of a scan as a heap: the one with the least key is first.
struct Merge<'a> {
    reading: &'a Reading,
    scan: Arc<Scan>,
    heap: Vec<Cursor>,
}

impl<'a> Merge<'a> {
    fn start(reading: &'a Reading, scan: &Arc<Scan>, buckets: &[i32]) -> Result<Self, StoreError> {
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

    /// Passes the head.
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

    /// Turns to the next page that has rows, and asks for the one after it. False at the end of the partition.
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

    /// Moves a cursor down to where its key belongs.
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
