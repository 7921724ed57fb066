//! Collects the comparison from two sets of rows: A is scanned in key order, B looked up by key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use kindred_model::records::CatalogRecord;
use kindred_model::settings::Semantics;
use kindred_model::similarity::format_score;
use kindred_model::views::also_bought::{self, Neighbors, Scored, ranked};
use kindred_model::views::inputs::Catalog;
use kindred_model::views::points::saturated;
use kindred_model::views::popularity::Popularity;
use kindred_model::views::{Cell, ExportContext, ReadError, Rows, ViewInfo, get, input_tables, scan, view_tables};
use kindred_model::{Day, ItemId, Kind};
use sha2::{Digest, Sha256};

use crate::measure::{overlap, rank_biased_overlap};
use crate::{
    DEPTHS, EXAMPLE_ENTRIES, EXAMPLES_MAX, Entry, Example, HISTOGRAM_DEPTH, InputTable, Lists, Pair, Side, Sums, ViewTable,
    counted,
};

/// n(i) of every item.
pub struct Supports(HashMap<ItemId, u64>);

impl Supports {
    pub fn read(rows: &dyn Rows) -> Result<Self, ReadError> {
        let mut supports = HashMap::new();
        scan::<also_bought::Supports, _>(rows, &[], |item, n| {
            supports.insert(item, n);
        })?;
        Ok(Self(supports))
    }

    fn of(&self, item: &ItemId) -> u64 {
        self.0.get(item).copied().unwrap_or(0)
    }
}

/// How often each item was viewed, over all days.
pub fn views_by_item(rows: &dyn Rows) -> Result<BTreeMap<ItemId, u64>, ReadError> {
    let mut views = BTreeMap::new();
    scan::<Popularity, _>(rows, &[], |(item, kind, _day), owners| {
        if kind == Kind::View {
            *views.entry(item).or_insert(0) += owners;
        }
    })?;
    Ok(views)
}

/// An item whose list changed, before its example is rendered.
struct Candidate {
    impact: f64,
    item: ItemId,
}

/// Sums over the lists.
pub struct Figures<'a> {
    sides: Pair<Side<'a>>,
    supports: Pair<Supports>,
    views: BTreeMap<ItemId, u64>,
    pub covered: Pair<HashSet<ItemId>>,
    lists: Lists,
    overlaps: [f64; DEPTHS.len()],
    rbo: f64,
    views_all: u64,
    views_moved: u64,
    candidates: Vec<Candidate>,
}

impl<'a> Figures<'a> {
    pub fn new(a: Side<'a>, b: Side<'a>, supports: Pair<Supports>, views: BTreeMap<ItemId, u64>) -> Self {
        Self {
            sides: Pair { a, b },
            supports,
            views,
            covered: Pair { a: HashSet::new(), b: HashSet::new() },
            lists: Lists { histogram: vec![0; HISTOGRAM_DEPTH + 1], ..Lists::default() },
            overlaps: [0.0; DEPTHS.len()],
            rbo: 0.0,
            views_all: 0,
            views_moved: 0,
            candidates: Vec::new(),
        }
    }

    /// Reads every list of either: those of A in key order with B's beside it, then those of B alone.
    pub fn read(&mut self) -> Result<(), ReadError> {
        let Pair { a, b } = self.sides;
        scan::<also_bought::Lists, _>(a.rows, &[], |item, ours| {
            let theirs = get::<also_bought::Lists>(b.rows, &item)?;
            self.take(item, ours, theirs.unwrap_or_default());
            Ok::<_, ReadError>(())
        })?;
        scan::<also_bought::Lists, _>(b.rows, &[], |item, theirs| {
            if get::<also_bought::Lists>(a.rows, &item)?.is_none() {
                self.take(item, Neighbors::default(), theirs);
            }
            Ok::<_, ReadError>(())
        })
    }

    fn ranked(&self, item: &ItemId, a: Neighbors, b: Neighbors) -> Pair<Vec<Scored>> {
        let rank = |settings: &Semantics, supports: &Supports, Neighbors(list): Neighbors| {
            let list = list.into_iter().map(|(j, c)| {
                let n_j = supports.of(&j);
                (j, c, n_j)
            });
            ranked(&settings.views.also_bought, supports.of(item), list.collect())
        };
        Pair { a: rank(self.sides.a.settings, &self.supports.a, a), b: rank(self.sides.b.settings, &self.supports.b, b) }
    }

    fn take(&mut self, item: ItemId, a: Neighbors, b: Neighbors) {
        let Pair { a, b } = self.ranked(&item, a, b);
        let lists = &mut self.lists;
        lists.items += 1;
        lists.with_list.a += u64::from(!a.is_empty());
        lists.with_list.b += u64::from(!b.is_empty());
        let (a, b): (Vec<ItemId>, Vec<ItemId>) =
            (a.into_iter().map(|scored| scored.item).collect(), b.into_iter().map(|scored| scored.item).collect());
        for (sum, depth) in self.overlaps.iter_mut().zip(DEPTHS) {
            *sum += overlap(&a, &b, depth);
        }
        // The quotient of small numbers is exact enough to put a tenth into its own bucket.
        let step = (overlap(&a, &b, HISTOGRAM_DEPTH) * HISTOGRAM_DEPTH as f64 + 1e-9) as usize;
        lists.histogram[step.min(HISTOGRAM_DEPTH)] += 1;
        let rbo = rank_biased_overlap(&a, &b);
        self.rbo += rbo;
        let views = self.views.get(&item).copied().unwrap_or(0);
        self.views_all += views;
        if a != b {
            lists.moved += 1;
            self.views_moved += views;
            let baskets = self.supports.a.of(&item).max(self.supports.b.of(&item));
            let traffic = if self.views.is_empty() { baskets } else { views };
            self.candidates.push(Candidate { impact: traffic as f64 * (1.0 - rbo), item });
            if self.candidates.len() >= 64 * EXAMPLES_MAX {
                self.keep_most_moved();
            }
        }
        self.covered.a.extend(a);
        self.covered.b.extend(b);
    }

    /// Ties go to the smaller item, so that the same rows give the same examples.
    fn keep_most_moved(&mut self) {
        let order = |a: &Candidate, b: &Candidate| b.impact.total_cmp(&a.impact).then_with(|| a.item.cmp(&b.item));
        self.candidates.sort_by(order);
        self.candidates.truncate(EXAMPLES_MAX);
    }

    /// The means, and the rendered examples.
    pub fn finish(mut self) -> Result<(Lists, Vec<Example>), ReadError> {
        self.keep_most_moved();
        let items = self.lists.items;
        let mean = |sum: f64, of_none: f64| if items == 0 { of_none } else { sum / items as f64 };
        self.lists.moved_share = mean(self.lists.moved as f64, 0.0);
        self.lists.moved_share_by_views = (self.views_all > 0).then(|| self.views_moved as f64 / self.views_all as f64);
        self.lists.overlap = DEPTHS.iter().zip(self.overlaps).map(|(&depth, sum)| (depth, mean(sum, 1.0))).collect();
        self.lists.rank_biased_overlap = mean(self.rbo, 1.0);
        let candidates = std::mem::take(&mut self.candidates);
        let examples = candidates.into_iter().map(|candidate| self.example(candidate.item)).collect::<Result<_, _>>()?;
        Ok((self.lists, examples))
    }

    fn example(&self, item: ItemId) -> Result<Example, ReadError> {
        let Pair { a, b } = self.sides;
        let list = |side: Side<'_>| Ok::<_, ReadError>(get::<also_bought::Lists>(side.rows, &item)?.unwrap_or_default());
        let Pair { a: ours, b: theirs } = self.ranked(&item, list(a)?, list(b)?);
        let ids = |list: &[Scored]| list.iter().map(|scored| scored.item.clone()).collect::<Vec<_>>();
        let rank_biased_overlap = rank_biased_overlap(&ids(&ours), &ids(&theirs));
        Ok(Example {
            title: self.title(&item)?,
            views: (!self.views.is_empty()).then(|| self.views.get(&item).copied().unwrap_or(0)),
            support: Pair { a: self.supports.a.of(&item), b: self.supports.b.of(&item) },
            rank_biased_overlap,
            a: self.entries(&ours, &theirs)?,
            b: self.entries(&theirs, &ours)?,
            item: item.to_string(),
        })
    }

    fn entries(&self, list: &[Scored], other: &[Scored]) -> Result<Vec<Entry>, ReadError> {
        let entry = |scored: &Scored| {
            Ok(Entry {
                title: self.title(&scored.item)?,
                item: scored.item.to_string(),
                co_count: scored.co_count,
                support: scored.support,
                score: format_score(scored.score),
                other_rank: other.iter().position(|theirs| theirs.item == scored.item).map(|rank| rank + 1),
            })
        };
        list.iter().take(EXAMPLE_ENTRIES).map(entry).collect()
    }

    fn title(&self, item: &ItemId) -> Result<Option<String>, ReadError> {
        for side in [self.sides.a, self.sides.b] {
            if let Some(row) = get::<Catalog>(side.rows, item)?
                && let Ok(record) = CatalogRecord::decode(&row.0)
            {
                return Ok(Some(record.title.into()));
            }
        }
        Ok(None)
    }
}

/// Items of the catalog, and how many of them are `covered`.
pub fn count_catalog(rows: &dyn Rows, covered: &HashSet<ItemId>) -> Result<(u64, u64), ReadError> {
    let (mut all, mut within) = (0, 0);
    scan::<Catalog, _>(rows, &[], |item, _| {
        all += 1;
        within += u64::from(covered.contains(&item));
    })?;
    Ok((all, within))
}

/// Digests of the merged inputs of both. Rows come in key order, so equal sets of events have equal digests.
pub fn digests(a: &dyn Rows, b: &dyn Rows) -> Result<Vec<InputTable>, ReadError> {
    let digest = |rows: &dyn Rows, table: &str| {
        let (mut count, mut digest) = (0_u64, Sha256::new());
        rows.scan(table, &[], &mut |key, row| {
            count += 1;
            for part in [key, row] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            ControlFlow::Continue(())
        })?;
        Ok::<_, ReadError>((count, digest.finalize()))
    };
    let table = |name: &'static str| {
        let ((rows_a, a), (rows_b, b)) = (digest(a, name)?, digest(b, name)?);
        Ok(InputTable { table: name.to_owned(), rows_a, rows_b, equal: a == b })
    };
    input_tables().iter().map(|info| table(info.name)).collect()
}

/// Compares the view tables of both, row by row.
pub fn table_changes(a: &dyn Rows, b: &dyn Rows) -> Result<Vec<ViewTable>, ReadError> {
    // Counts the rows of one side, and those for which `differs` holds.
    let count = |rows: &dyn Rows, other: &dyn Rows, table: &str, differs: fn(&[u8], Option<&[u8]>) -> bool| {
        let (mut all, mut different) = (0_u64, 0_u64);
        rows.scan(table, &[], &mut |key, row| match other.get(table, key) {
            Ok(theirs) => {
                all += 1;
                different += u64::from(differs(row, theirs.as_deref()));
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Err(error)),
        })?;
        Ok::<_, ReadError>((all, different))
    };
    let table = |name: &'static str| {
        let (rows_a, changed) = count(a, b, name, |row, theirs| theirs != Some(row))?;
        let (rows_b, added) = count(b, a, name, |_, theirs| theirs.is_none())?;
        Ok(ViewTable { table: name.to_owned(), rows_a, rows_b, different: changed + added })
    };
    view_tables().iter().map(|info| table(info.name)).collect()
}

/// The sums of a view over all rows, as exported.
pub fn sums_of(view: &ViewInfo, side: Side<'_>, as_of: Day) -> Result<Sums, ReadError> {
    let column = |name: &&str| view.columns.iter().position(|column| column == name).expect("a column of the view");
    let columns: Vec<usize> = view.summed.iter().map(column).collect();
    let (mut rows, mut sums) = (0, vec![0_i128; columns.len()]);
    (view.export)(side.rows, None, ExportContext { settings: side.settings, as_of }, &mut |cells| {
        rows += 1;
        for (sum, column) in sums.iter_mut().zip(&columns) {
            *sum += if let Cell::Number(number) = cells[*column] { number } else { 0 };
        }
        ControlFlow::Continue(())
    })?;
    let sums = view.summed.iter().zip(sums).map(|(name, sum)| ((*name).to_owned(), saturated(sum)));
    Ok(sums.chain([(counted(view), rows)]).collect())
}
