//! Outputs: changed rows, typed and interned, go to the sink's thread and are encoded there.
//!
//! ```text
//! (key, row or none), one a key and epoch ─▶ Output ─▶ OutputFn
//! collection of (key, row) ─▶ upserts ─▶ the same
//! ```
//!
//! The operators here emit before they release their capability: once the probe has passed an epoch, all of its outputs have been
//! given.

use std::collections::BTreeMap;
use std::sync::Arc;

use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::views::Table;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Capability, Probe};
use timely::dataflow::{ProbeHandle, StreamVec};

use crate::facts::Facts;
use crate::invariant::violated;
use crate::update::{Changes, EncodeInto, Output, OutputFn};

struct Batch<D, E> {
    table: &'static str,
    changes: Vec<D>,
    encode: E,
}

impl<D: Send, E: Fn(&D, &mut Vec<u8>, &mut Vec<u8>) -> bool + Send> Changes for Batch<D, E> {
    fn encode(&self, into: EncodeInto<'_>) {
        let (mut key, mut row) = (Vec::new(), Vec::new());
        for change in &self.changes {
            key.clear();
            row.clear();
            let is_row = (self.encode)(change, &mut key, &mut row);
            into(self.table, &key, is_row.then_some(row.as_slice()));
        }
    }

    fn len(&self) -> usize {
        self.changes.len()
    }
}

/// Where changes go, and the probe on it.
#[derive(Clone)]
pub struct Sink {
    output: OutputFn,
    probe: ProbeHandle<u64>,
}

impl Sink {
    /// Sends to `output`.
    pub fn new(output: &OutputFn) -> Self {
        Self { output: Arc::clone(output), probe: ProbeHandle::new() }
    }

    /// Passes an epoch once all workers have given its outputs.
    pub fn probe(&self) -> ProbeHandle<u64> {
        self.probe.clone()
    }

    /// Emits changes of a table: at most one per key and epoch over all workers. `row` turns a change into the table's key, and
    /// its row or `None` for a delete; it runs on the sink's thread.
    pub fn rows<T: Table, D: Send + Clone + 'static>(
        &self,
        changes: StreamVec<'_, u64, D>,
        row: impl Fn(&D) -> (T::Key, Option<T::Row>) + Copy + Send + 'static,
    ) {
        self.emit(changes, T::NAME, move |change, key_into, row_into| {
            let (key, row) = row(change);
            key.encode(key_into);
            row.map(|row| row.encode(row_into)).is_some()
        });
    }

    /// The same for changes that are bytes already: `encode` appends the key and the row; false is a delete.
    pub fn emit<D: Send + Clone + 'static>(
        &self,
        changes: StreamVec<'_, u64, D>,
        table: &'static str,
        encode: impl Fn(&D, &mut Vec<u8>, &mut Vec<u8>) -> bool + Copy + Send + 'static,
    ) {
        let output = Arc::clone(&self.output);
        let given: StreamVec<'_, u64, ()> =
            changes.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, table, move |_capability, _info| {
                move |input, _output| {
                    input.for_each(|capability, data| {
                        let Some(&epoch) = capability.least() else { return };
                        let changes = std::mem::take(data);
                        if !changes.is_empty() {
                            output(Output::Rows { epoch, changes: Box::new(Batch { table, changes, encode }) });
                        }
                    });
                }
            });
        given.probe_with(&self.probe);
    }
}

/// An epoch's rows so far, and the capability to emit at it.
type Open<D> = (Capability<u64>, Vec<(D, isize)>);

/// Turns a collection with at most one row per key into changes: an added row is an upsert, a key with only a retraction a
/// delete. All diffs of a key must be on one worker, as behind an arrangement by it. Keeps only open epochs.
pub fn upserts<'s, K, R>(rows: Facts<'s, (K, R)>, name: &str) -> StreamVec<'s, u64, (K, Option<R>)>
where
    K: Ord + Clone + 'static,
    R: Ord + Clone + 'static,
{
    let label = name.to_owned();
    rows.inner.unary_frontier(Pipeline, name, move |_capability, _info| {
        let mut open: BTreeMap<u64, Open<(K, R)>> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, data| {
                let Some(capability) = capability.retain_least(0) else { return };
                for (row, epoch, diff) in data.drain(..) {
                    // A message's diffs may have later epochs than the message.
                    let (_, rows) = open.entry(epoch).or_insert_with(|| (capability.delayed(&epoch), Vec::new()));
                    rows.push((row, diff));
                }
            });
            while let Some(entry) = open.first_entry() {
                if frontier.less_equal(entry.key()) {
                    return;
                }
                let (capability, mut rows) = entry.remove();
                differential_dataflow::consolidation::consolidate(&mut rows);
                let mut session = output.session(&capability);
                for changes in rows.chunk_by(|a, b| a.0.0 == b.0.0) {
                    let mut came = changes.iter().filter(|(_, diff)| *diff > 0);
                    let row = came.next().map(|((_, row), _)| row.clone());
                    if came.next().is_some() {
                        violated(format_args!("two rows under one key in {label}"));
                    }
                    session.give((changes[0].0.0.clone(), row));
                }
            }
        }
    })
}
