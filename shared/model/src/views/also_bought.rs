//! `also_bought`: the items most often bought by the owners who bought an item, best first.
//!
//! Maintained by `pipeline::dataflow::also_bought`, checked by `oracle::also_bought`, served by `GET /v1/items/{item}/similar`.

use std::ops::ControlFlow;

use super::{Cell, EmitRow, ExportContext, ReadError, Rows, Table, TableInfo, View, get, scan};
use crate::codec::{Corrupt, RowCodec, put_text, put_varint, take_text, take_varint};
use crate::ids::ItemId;
use crate::settings::Similarity;
use crate::units::Kind;
use crate::similarity::{format_score, rank_key, score};

/// The view.
pub struct AlsoBought;

/// The table of lists: the N best neighbours of an item, ordered by the key with rounded supports.
pub struct Lists;

/// The table of supports: n(i), the baskets that hold an item. The empty item holds B, the number of baskets.
pub struct Supports;

/// (neighbour, c), best first; scores are computed from the supports when read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Neighbors(pub Vec<(ItemId, u64)>);

impl RowCodec for Neighbors {
    fn encode(&self, out: &mut Vec<u8>) {
        for (item, c) in &self.0 {
            put_text(out, item.as_str());
            put_varint(out, *c);
        }
    }
    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut neighbors = Vec::new();
        while !bytes.is_empty() {
            let item = ItemId::trusted(take_text(&mut bytes)?.to_owned());
            neighbors.push((item, take_varint(&mut bytes)?));
        }
        Ok(Self(neighbors))
    }
}

impl Table for Lists {
    const NAME: &'static str = "also_bought";
    type Key = ItemId;
    type Row = Neighbors;
}

impl Table for Supports {
    const NAME: &'static str = "also_bought_supports";
    type Key = ItemId;
    type Row = u64;
}

/// The key of B in [`Supports`]: no item is empty.
pub fn baskets_key() -> ItemId {
    ItemId::trusted("")
}

/// One neighbour as served.
#[derive(Clone, PartialEq, Debug)]
pub struct Scored {
    /// The neighbour.
    pub item: ItemId,
    /// c(i, j), in the unit of the pair weight.
    pub co_count: u64,
    /// n(j).
    pub support: u64,
    /// As [`score`] defines it.
    pub score: f64,
}

/// A list as served: ordered by the key with exact supports, then item bytes.
pub fn ranked(settings: &Similarity, n_i: u64, neighbors: Vec<(ItemId, u64, u64)>) -> Vec<Scored> {
    let damping = settings.popularity_damping;
    let mut keyed: Vec<(f64, Scored)> = neighbors
        .into_iter()
        .map(|(item, co_count, support)| {
            let score = score(damping, settings.pair_weight, co_count, n_i, support);
            (rank_key(damping, co_count, support), Scored { item, co_count, support, score })
        })
        .collect();
    keyed.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.item.cmp(&b.1.item)));
    keyed.into_iter().map(|(_, scored)| scored).collect()
}

impl View for AlsoBought {
    type Settings = Similarity;
    const SUMMARY: &'static str = "the items most often bought by the owners who bought an item, best first";
    const COLUMNS: &'static [&'static str] =
        &["item", "rank", "neighbor", "score", "co_count", "support_item", "support_neighbor"];
    const ROUTE: &'static str = "GET /v1/items/{item}/similar?view=also_bought";

    fn tables() -> Vec<TableInfo> {
        vec![TableInfo::of::<Lists>(), TableInfo::of::<Supports>()]
    }

    fn check(settings: &Similarity) -> Result<(), String> {
        if settings.kinds != [Kind::Purchase] {
            return Err("views.also_bought.kinds is [\"purchase\"]: the view is of what was bought".to_owned());
        }
        settings.check("also_bought")
    }

    fn export(rows: &dyn Rows, of: Option<&str>, context: ExportContext<'_>, emit: EmitRow<'_>) -> Result<(), ReadError> {
        let settings = &context.settings.views.also_bought;
        let mut emit_list = |item: &ItemId, n_i: u64, list: Vec<Scored>| {
            for (n, scored) in list.into_iter().enumerate() {
                let cells = [
                    Cell::text(item),
                    Cell::Number(n as i128 + 1),
                    Cell::text(&scored.item),
                    Cell::Decimal(format_score(scored.score)),
                    Cell::Number(i128::from(scored.co_count)),
                    Cell::Number(i128::from(n_i)),
                    Cell::Number(i128::from(scored.support)),
                ];
                emit(&cells)?;
            }
            ControlFlow::Continue(())
        };
        if let Some(item) = of {
            let item = ItemId::trusted(item.to_owned());
            let (n_i, list) = read_list(rows, settings, &item)?;
            let _all_or_broken = emit_list(&item, n_i, list);
            return Ok(());
        }
        let mut supports = std::collections::HashMap::new();
        scan::<Supports, _>(rows, &[], |item, n| {
            supports.insert(item, n);
        })?;
        let support = |item: &ItemId| supports.get(item).copied().unwrap_or(0);
        scan::<Lists, _>(rows, &[], |item, Neighbors(neighbors)| {
            let n_i = support(&item);
            let neighbors = neighbors.into_iter().map(|(j, c)| {
                let n_j = support(&j);
                (j, c, n_j)
            });
            emit_list(&item, n_i, ranked(settings, n_i, neighbors.collect()))
        })
    }
}

/// The list of one item as served and cached by the API, read from the tables.
///
/// # Errors
/// Those of reading.
pub fn read_list(rows: &dyn Rows, settings: &Similarity, item: &ItemId) -> Result<(u64, Vec<Scored>), ReadError> {
    let n_i = get::<Supports>(rows, item)?.unwrap_or(0);
    let Neighbors(neighbors) = get::<Lists>(rows, item)?.unwrap_or_default();
    let mut with_supports = Vec::with_capacity(neighbors.len());
    for (j, c) in neighbors {
        let n_j = get::<Supports>(rows, &j)?.unwrap_or(0);
        with_supports.push((j, c, n_j));
    }
    Ok((n_i, ranked(settings, n_i, with_supports)))
}
