//! The dataflow of one worker, from updates to outputs.

use std::sync::Arc;

use differential_dataflow::AsCollection;
use kindred_model::records::MemberRecord;
use kindred_model::views::{Declared, Table, inputs};
use kindred_model::{Semantics, Topic};
use timely::dataflow::operators::vec::Input;
use timely::dataflow::{InputHandleVec, ProbeHandle, StreamVec};
use timely::worker::Worker;

use crate::collections::{Collections, Maintained, Ownership, ownership};
use crate::merge::interactions::{InteractionInput, merged_interactions};
use crate::merge::ledger::{LedgerInput, merged_ledger};
use crate::merge::versioned::{MergedRecord, VersionedUpdate, merged_records};
use crate::output::Sink;
use crate::update::{OutputFn, Stats, Update};

/// The inputs of one worker's dataflow, and the probe on its outputs. Epochs start at 0.
pub struct Dataflow {
    interactions: InputHandleVec<u64, InteractionInput>,
    orders: InputHandleVec<u64, VersionedUpdate>,
    catalog: InputHandleVec<u64, VersionedUpdate>,
    members: InputHandleVec<u64, VersionedUpdate>,
    ledger: InputHandleVec<u64, LedgerInput>,
    probe: ProbeHandle<u64>,
}

impl Dataflow {
    /// Feeds an update at the current epoch.
    pub fn send(&mut self, update: Update) {
        match update {
            Update::Interaction(interaction) => self.interactions.send(InteractionInput::Update(interaction)),
            Update::Purge(party) => self.interactions.send(InteractionInput::Purge(party)),
            Update::Tombstone(Topic::Ledger, key) => self.ledger.send(LedgerInput::tombstone(key)),
            Update::Tombstone(topic, key) => {
                let update = VersionedUpdate::tombstone(key);
                match topic {
                    Topic::Orders => self.orders.send(update),
                    Topic::Catalog => self.catalog.send(update),
                    Topic::Members => self.members.send(update),
                    Topic::Interactions | Topic::Ledger => {}
                }
            }
            Update::Order(order) => self.orders.send(VersionedUpdate::new(&order.order, &*order)),
            Update::Catalog(record) => self.catalog.send(VersionedUpdate::new(&record.item, &*record)),
            Update::Member(record) => {
                // An erased member has no ledger, whatever the ledger's own records say.
                if let MemberRecord::Member(membership) = &*record
                    && record.is_erased()
                {
                    self.ledger.send(LedgerInput::erased(&membership.member));
                }
                self.members.send(VersionedUpdate::new(&record.key(), &*record));
            }
            Update::Ledger(record) => self.ledger.send(LedgerInput::record(&record)),
        }
    }

    /// Closes every epoch before this one, which becomes the current one.
    pub fn advance_to(&mut self, epoch: u64) {
        self.interactions.advance_to(epoch);
        self.orders.advance_to(epoch);
        self.catalog.advance_to(epoch);
        self.members.advance_to(epoch);
        self.ledger.advance_to(epoch);
    }

    /// Whether all outputs up to this epoch have been given, on every worker.
    pub fn has_passed(&self, epoch: u64) -> bool {
        !self.probe.less_equal(&epoch)
    }

    /// Ends the input. Workers that feed nothing call it right away.
    pub fn close(self) {}
}

/// Builds a worker's dataflow; every worker of an installation builds the same. `output` receives every changed row.
pub fn build(worker: &mut Worker, semantics: &Semantics, stats: &Arc<Stats>, output: &OutputFn) -> Dataflow {
    worker.dataflow_named::<u64, _, _>("Kindred", |scope| {
        let (interactions, interaction_inputs) = scope.new_input();
        let (orders, order_updates) = scope.new_input();
        let (catalog, catalog_updates) = scope.new_input();
        let (members, member_updates) = scope.new_input();
        let (ledger, ledger_inputs) = scope.new_input();
        let sink = Sink::new(output);

        let merged_orders = merged_records(order_updates, Topic::Orders, stats, |stats| Stats::add(&stats.orders, 1), output);
        let merged_catalog = merged_records(catalog_updates, Topic::Catalog, stats, |_| {}, output);
        let merged_members = merged_records(member_updates, Topic::Members, stats, |_| {}, output);
        emit_records(&sink, merged_orders.clone(), inputs::Orders::NAME);
        emit_records(&sink, merged_catalog, inputs::Catalog::NAME);
        emit_records(&sink, merged_members.clone(), inputs::Members::NAME);
        sink.emit(merged_ledger(ledger_inputs, stats, output), inputs::Ledger::NAME, |(key, record), key_into, row_into| {
            key_into.extend_from_slice(key);
            record.as_ref().map(|record| row_into.extend_from_slice(record)).is_some()
        });

        let Ownership { orders: of_orders, living, effective_owners } = ownership(merged_orders, merged_members, semantics);
        let cap = semantics.inputs.identities_per_owner;
        let (rows, fact_changes) = merged_interactions(interaction_inputs, effective_owners.inner, cap, stats);
        sink.emit(rows, inputs::Interactions::NAME, |row, key_into, row_into| {
            row.encode_key(key_into);
            row.encode_row(row_into)
        });

        let collections = Collections::new(of_orders, living, fact_changes.as_collection(), stats);
        maintain_views(&collections, semantics, &sink);
        Dataflow { interactions, orders, catalog, members, ledger, probe: sink.probe() }
    })
}

macro_rules! maintain {
    ($($module:ident: $View:ident,)+) => {
        fn maintain_views(from: &Collections<'_>, semantics: &Semantics, sink: &Sink) {
            $(
                use kindred_model::views::$module::$View;
                if $View::is_kept(semantics) {
                    $View::maintain(from, $View::settings(semantics), sink);
                }
            )+
        }
    };
}

kindred_model::for_each_view!(maintain);

fn emit_records(sink: &Sink, records: StreamVec<'_, u64, MergedRecord>, table: &'static str) {
    sink.emit(records, table, |record, key_into, row_into| {
        key_into.extend_from_slice(&record.key);
        row_into.extend_from_slice(&record.new);
        true
    });
}
