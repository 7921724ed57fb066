//! Sorts records by time in bounded memory.
//!
//! ```text
//! push ──▶ memory ──(full)──▶ a sorted run in a temporary file      finish ──▶ runs merged, earliest first
//! ```
//!
//! The sort is stable: at equal times, push order. So a repeated import gives the same sequence and can resume by count.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};

/// Bytes of records in memory, a quarter of a small machine's; beyond, they spill to a temporary file.
pub const MEMORY_BYTES: usize = 512 << 20;
/// The memory of a record besides its bytes.
const OVERHEAD_BYTES: usize = size_of::<Entry>();

#[derive(Clone, Copy)]
struct Entry {
    time: i64,
    start: usize,
    len: u32,
}

/// An external merge sort by time.
pub struct TimeOrder {
    memory_bytes: usize,
    arena: Vec<u8>,
    entries: Vec<Entry>,
    runs: Vec<File>,
    records: u64,
}

impl TimeOrder {
    /// Holds up to `memory_bytes` in memory.
    pub fn new(memory_bytes: usize) -> Self {
        Self { memory_bytes, arena: Vec::new(), entries: Vec::new(), runs: Vec::new(), records: 0 }
    }

    /// The number of records pushed.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Adds a record with its time.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push(&mut self, time: i64, record: &[u8]) -> io::Result<()> {
        let len = u32::try_from(record.len()).expect("a record is at most a mebibyte");
        self.entries.push(Entry { time, start: self.arena.len(), len });
        self.arena.extend_from_slice(record);
        self.records += 1;
        if self.arena.len() + self.entries.len() * OVERHEAD_BYTES >= self.memory_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        // Imports are mostly sorted, which a stable merge sort exploits.
        self.entries.sort_by_key(|entry| entry.time);
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut run = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        for entry in &self.entries {
            run.write_all(&entry.time.to_le_bytes())?;
            run.write_all(&entry.len.to_le_bytes())?;
            run.write_all(&self.arena[entry.start..entry.start + entry.len as usize])?;
        }
        let mut file = run.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.runs.push(file);
        self.arena.clear();
        self.entries.clear();
        Ok(())
    }

    /// The records in time order.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn finish(mut self) -> io::Result<InOrder> {
        self.sort();
        let mut runs = Vec::new();
        let mut heads = BinaryHeap::new();
        for file in self.runs {
            let mut run = Run { file: BufReader::with_capacity(256 << 10, file), record: Vec::new() };
            if let Some(time) = run.advance()? {
                heads.push(Reverse((time, runs.len())));
            }
            runs.push(run);
        }
        let in_memory = runs.len(); // after every run: what it holds was pushed last
        if let Some(first) = self.entries.first() {
            heads.push(Reverse((first.time, in_memory)));
        }
        Ok(InOrder { arena: self.arena, entries: self.entries, next: 0, runs, heads })
    }
}

struct Run {
    file: BufReader<File>,
    record: Vec<u8>,
}

impl Run {
    /// Reads the next record and returns its time.
    fn advance(&mut self) -> io::Result<Option<i64>> {
        let mut head = [0; 12];
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.file.read_exact(&mut head)?;
        let (time, len) = head.split_at(8);
        self.record.resize(u32::from_le_bytes(len.try_into().expect("four bytes")) as usize, 0);
        self.file.read_exact(&mut self.record)?;
        Ok(Some(i64::from_le_bytes(time.try_into().expect("eight bytes"))))
    }
}

/// Records in time order.
pub struct InOrder {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    next: usize,
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(i64, usize)>>,
}

impl InOrder {
    /// The next record.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn next_record(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(Reverse((_, from))) = self.heads.pop() else { return Ok(None) };
        if let Some(run) = self.runs.get_mut(from) {
            let record = std::mem::take(&mut run.record);
            if let Some(time) = run.advance()? {
                self.heads.push(Reverse((time, from)));
            }
            return Ok(Some(record));
        }
        let entry = self.entries[self.next];
        self.next += 1;
        if let Some(following) = self.entries.get(self.next) {
            self.heads.push(Reverse((following.time, from)));
        }
        Ok(Some(self.arena[entry.start..entry.start + entry.len as usize].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(memory_bytes: usize, times: &[i64]) -> Vec<String> {
        let mut order = TimeOrder::new(memory_bytes);
        for (n, time) in times.iter().enumerate() {
            order.push(*time, format!("{time}:{n}").as_bytes()).unwrap();
        }
        let mut sorted = order.finish().unwrap();
        std::iter::from_fn(|| sorted.next_record().unwrap()).map(|record| String::from_utf8(record).unwrap()).collect()
    }

    /// Spilling must not change the sequence: a resumed import skips by count and would lose or repeat records.
    #[test]
    fn the_order_is_stable_whether_in_memory_or_spilled() {
        let times: Vec<i64> = (0..500).map(|n: i64| (n * 7_919) % 23 - 5).collect();
        let in_memory = ordered(usize::MAX, &times);
        let mut expected: Vec<(i64, usize)> = times.iter().copied().zip(0..).collect();
        expected.sort();
        assert_eq!(in_memory, expected.iter().map(|(time, n)| format!("{time}:{n}")).collect::<Vec<_>>());
        for memory_bytes in [1, 100, 1_000, 5_000] {
            assert_eq!(ordered(memory_bytes, &times), in_memory, "{memory_bytes} bytes");
        }
        assert!(ordered(100, &[]).is_empty());
    }
}
