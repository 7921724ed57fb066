//! `popularity`: per item, kind and UTC day, the number of owners with an unhidden interaction of that key, or for `purchase` a
//! counting line placed that day.
//!
//! facts, lines ─▶ distinct (item, kind, day, owner) ─▶ count by (item, kind, day)

use std::hash::{Hash, Hasher};

use differential_dataflow::operators::{CountTotal, ThresholdTotal};
use kindred_model::intern::{Item, Party};
use kindred_model::settings::Switch;
use kindred_model::views::popularity::Popularity;
use kindred_model::{Day, EventTime, Kind};
use serde::{Deserialize, Serialize};

use crate::collections::{Collections, Maintained};
use crate::facts::{Fact, Facts, OrderLine};
use crate::output::{Sink, upserts};

/// The key that owners are counted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PopularityKey {
    /// The item.
    pub item: Item,
    /// The kind's code in the highest byte, the day since 1970 in the rest; packed, because there are many of them.
    kind_day: u32,
}

impl PopularityKey {
    fn new(item: Item, kind: Kind, day: Day) -> Self {
        Self { item, kind_day: (u32::from(kind.code()) << 24) | (day.0 as u32 & 0x00ff_ffff) }
    }

    /// What was done.
    pub fn kind(self) -> Kind {
        Kind::from_code((self.kind_day >> 24) as u8).expect("the code of a kind")
    }

    /// When.
    pub const fn day(self) -> Day {
        Day((self.kind_day & 0x00ff_ffff) as i32)
    }
}

impl Hash for PopularityKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.item.shard_hash());
        state.write_u32(self.kind_day);
    }
}

/// A key and an owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct OwnedKey {
    key: PopularityKey,
    owner: Party,
}

impl Hash for OwnedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.owner.shard_hash());
        self.key.hash(state);
    }
}

impl Maintained for Popularity {
    fn maintain(from: &Collections<'_>, _settings: &Switch, sink: &Sink) {
        let rows = upserts(popularity(from.interactions(), from.order_lines()), "Popularity rows");
        sink.rows::<Self, _>(rows, |(key, owners)| {
            ((key.item.id(), key.kind(), key.day()), owners.map(|owners| owners as u64))
        });
    }
}

/// One row per key: how many owners did it. `facts` and `lines` are by effective owner, without the erased; a guest's order is an
/// owner. An owner counts once, whatever its sessions and orders, until the last of them is retracted; a count of zero has no
/// row. Arranges the distinct (key, owner) once (some 40 bytes each), the counts once.
fn popularity<'s>(facts: Facts<'s, (Party, Fact)>, lines: Facts<'s, (Party, OrderLine)>) -> Facts<'s, (PopularityKey, isize)> {
    let interacted = facts.map(|(owner, fact)| OwnedKey { key: PopularityKey::new(fact.item, fact.kind, fact.day()), owner });
    let ordered = lines.map(|(owner, line)| {
        let day = EventTime(line.placed_at).day();
        OwnedKey { key: PopularityKey::new(line.item, Kind::Purchase, day), owner }
    });
    interacted
        .concat(ordered)
        .arrange_by_self_named("Popularity keys by owner")
        .distinct_total()
        .map(|owned| owned.key)
        .arrange_by_self_named("Popularity keys")
        .count_total()
}
