//! The dataflow of one worker, from updates to outputs.

use std::sync::Arc;

use differential_dataflow::AsCollection;
use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::intern::{Item, Party};
use kindred_model::records::{MemberRecord, OrderRecord, Rules};
use kindred_model::views::points::Earned;
use kindred_model::views::{
    Table, also_bought as lists, inputs, member_orders as member_orders_view, points as points_view,
    popularity as popularity_view,
};
use kindred_model::{Kind, MemberId, Owner, Semantics, Topic};
use timely::dataflow::operators::vec::Input;
use timely::dataflow::{InputHandleVec, ProbeHandle, StreamVec};
use timely::worker::Worker;

use crate::also_bought::{SimilarityRows, also_bought};
use crate::facts::{self, MemberFact, MemberKey, OrderFact};
use crate::invariant::violated;
use crate::links::{Standing, standing};
use crate::member_orders::{Place, member_orders};
use crate::merge::interactions::{InteractionInput, InteractionRow, merged_interactions};
use crate::merge::ledger::{LedgerInput, LedgerRow, merged_ledger};
use crate::merge::versioned::{MergedRecord, VersionedUpdate, derived, merged_records};
use crate::output::{Encoding, Sink, upserts};
use crate::points::points;
use crate::popularity::{Deed, popularity};
use crate::update::{OutputFn, Stats, Update};

/// The inputs of one worker's dataflow, and the probe behind its outputs. Epochs start at 0.
pub struct Dataflow {
    interactions: InputHandleVec<u64, InteractionInput>,
    orders: InputHandleVec<u64, VersionedUpdate>,
    catalog: InputHandleVec<u64, VersionedUpdate>,
    members: InputHandleVec<u64, VersionedUpdate>,
    ledger: InputHandleVec<u64, LedgerInput>,
    probe: ProbeHandle<u64>,
}

impl Dataflow {
    /// Takes in an update at the current epoch.
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
                // Who is erased has no ledger, whether the ledger says so or not.
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

    /// Closes every epoch before this one, which is the current one from now on.
    pub fn advance_to(&mut self, epoch: u64) {
        self.interactions.advance_to(epoch);
        self.orders.advance_to(epoch);
        self.catalog.advance_to(epoch);
        self.members.advance_to(epoch);
        self.ledger.advance_to(epoch);
    }

    /// Whether all outputs of this and every earlier epoch have been given, on every worker.
    pub fn has_passed(&self, epoch: u64) -> bool {
        !self.probe.less_equal(&epoch)
    }

    /// Says that there is no more input. Workers that feed nothing call it right away.
    pub fn close(self) {}
}

/// Builds the dataflow of a worker; every worker of an installation builds the same. `output` hears of every changed row.
pub fn build(worker: &mut Worker, semantics: &Semantics, stats: &Arc<Stats>, output: &OutputFn) -> Dataflow {
    worker.dataflow_named::<u64, _, _>("Kindred", |scope| {
        let (interactions, interaction_inputs) = scope.new_input();
        let (orders, order_updates) = scope.new_input();
        let (catalog, catalog_updates) = scope.new_input();
        let (members, member_updates) = scope.new_input();
        let (ledger, ledger_inputs) = scope.new_input();
        let sink = Sink::new(output);
        let views = &semantics.views;

        let merged_orders = merged_records(order_updates, Topic::Orders, stats, |stats| Stats::add(&stats.orders, 1), output);
        let merged_catalog = merged_records(catalog_updates, Topic::Catalog, stats, |_| {}, output);
        let merged_members = merged_records(member_updates, Topic::Members, stats, |_| {}, output);
        emit_records(&sink, merged_orders.clone(), inputs::Orders::NAME);
        emit_records(&sink, merged_catalog, inputs::Catalog::NAME);
        emit_records(&sink, merged_members.clone(), inputs::Members::NAME);
        sink.emit(merged_ledger(ledger_inputs, stats, output), LEDGER);

        let rules = semantics.rules();
        let book = semantics.program.rulebook();
        let of_orders = derived(merged_orders, "Order facts", move |bytes| {
            decode_order(bytes, &rules).map(|order| facts::of_order(&order, &book)).unwrap_or_default()
        });
        let book = semantics.program.rulebook();
        let of_members = derived(merged_members.clone(), "Member facts", move |bytes| {
            decode_member(bytes).map(|record| facts::of_member(&record, &book)).unwrap_or_default()
        });
        let erased = derived(merged_members, "Erased members", |bytes| {
            decode_member(bytes).and_then(|record| facts::erased(&record)).into_iter().collect()
        });
        let ordered = of_orders.clone().flat_map(|fact| match fact {
            OrderFact::Line(owner, line) if owner.is_member() => Some((MemberKey(owner), MemberFact::Line(line))),
            OrderFact::Points(member, points) => Some((member, MemberFact::Points(points))),
            OrderFact::Line(..) | OrderFact::Place(_) => None,
        });
        let of_guests = of_orders.clone().flat_map(|fact| match fact {
            OrderFact::Line(owner, line) if !owner.is_member() => Some((owner, line)),
            OrderFact::Line(..) | OrderFact::Points(..) | OrderFact::Place(_) => None,
        });
        let Standing { living, fates } = standing(ordered.concat(of_members), erased);

        let cap = semantics.inputs.identities_per_owner;
        let (rows, fact_changes) = merged_interactions(interaction_inputs, fates.inner, cap, stats);
        let encoding =
            Encoding { table: inputs::Interactions::NAME, key: InteractionRow::encode_key, row: InteractionRow::encode_row };
        sink.emit(rows, encoding);

        let interacted = fact_changes.as_collection();
        let of_living = living.clone().flat_map(|(MemberKey(member), fact)| match fact {
            MemberFact::Line(line) => Some((member, line)),
            MemberFact::Points(_) | MemberFact::Session(_) => None,
        });
        let lines = of_living.concat(of_guests);

        if views.also_bought.enabled {
            let ordered = lines.clone().map(|(member, line)| (member, (line.item, line.placed_at)));
            let purchases = interacted
                .clone()
                .flat_map(|(owner, fact)| (fact.kind == Kind::Purchase).then_some((owner, (fact.item, fact.at))));
            let SimilarityRows { lists, supports } = also_bought(purchases.concat(ordered), &views.also_bought, stats);
            sink.emit(lists, LISTS);
            sink.emit(supports, SUPPORTS);
        }
        if views.popularity.enabled {
            sink.emit(upserts(popularity(interacted, lines), "Popularity rows"), POPULARITY);
        }
        if views.member_orders.enabled {
            sink.emit(member_orders(of_orders), MEMBER_ORDERS);
        }
        if views.points.enabled {
            sink.emit(upserts(points(living, stats), "Points rows"), POINTS);
        }
        Dataflow { interactions, orders, catalog, members, ledger, probe: sink.probe() }
    })
}

const LEDGER: Encoding<LedgerRow> = Encoding {
    table: inputs::Ledger::NAME,
    key: |(key, _), out| out.extend_from_slice(key),
    row: |(_, record), out| record.as_ref().map(|record| out.extend_from_slice(record)).is_some(),
};

/// The list of an item, or none any more.
type ListChange = (Item, Option<Box<[(Item, u64)]>>);

const LISTS: Encoding<ListChange> = Encoding {
    table: lists::Lists::NAME,
    key: |(item, _), out| item.id().encode(out),
    row: |(_, list), out| {
        let Some(list) = list else { return false };
        lists::Neighbors(list.iter().map(|(item, c)| (item.id(), *c)).collect()).encode(out);
        true
    },
};

const SUPPORTS: Encoding<(Option<Item>, Option<u64>)> = Encoding {
    table: lists::Supports::NAME,
    key: |(item, _), out| item.map_or_else(lists::baskets_key, Item::id).encode(out),
    row: |(_, support), out| encode_row(support.as_ref(), out),
};

const POPULARITY: Encoding<(Deed, Option<isize>)> = Encoding {
    table: popularity_view::Popularity::NAME,
    key: |(deed, _), out| (deed.item.id(), deed.kind(), deed.day()).encode(out),
    row: |(_, owners), out| encode_row(owners.map(|owners| owners as u64).as_ref(), out),
};

const MEMBER_ORDERS: Encoding<Place> = Encoding {
    table: member_orders_view::MemberOrders::NAME,
    key: |(place, ..), out| out.extend_from_slice(place),
    row: |(_, _, diff), _| *diff > 0,
};

const POINTS: Encoding<(Party, Option<Earned>)> = Encoding {
    table: points_view::Points::NAME,
    key: |(member, _), out| MemberId::trusted(member_text(*member)).encode(out),
    row: |(_, earned), out| encode_row(earned.as_ref(), out),
};

fn encode_row<R: RowCodec>(row: Option<&R>, out: &mut Vec<u8>) -> bool {
    row.map(|row| row.encode(out)).is_some()
}

fn member_text(member: Party) -> String {
    match member.owner() {
        Owner::Member(member) => member.as_str().to_owned(),
        other => unreachable!("{other:?} among members"),
    }
}

fn emit_records(sink: &Sink, records: StreamVec<'_, u64, MergedRecord>, table: &'static str) {
    let encoding = Encoding {
        table,
        key: |record: &MergedRecord, out| out.extend_from_slice(&record.key),
        row: |record, out| {
            out.extend_from_slice(&record.new);
            true
        },
    };
    sink.emit(records, encoding);
}

/// Reads a merged order. It was valid when it was taken in, so failing is a mistake of ours; it then counts as nothing.
fn decode_order(bytes: &[u8], rules: &Rules) -> Option<OrderRecord> {
    OrderRecord::decode(bytes, rules).inspect_err(|invalid| not_ours("order", invalid)).ok()
}

fn decode_member(bytes: &[u8]) -> Option<MemberRecord> {
    MemberRecord::decode(bytes).inspect_err(|invalid| not_ours("member", invalid)).ok()
}

fn not_ours(what: &str, invalid: &kindred_model::Invalid) {
    violated(format_args!("a merged {what} does not decode: {invalid}"));
}
