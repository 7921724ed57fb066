//! Renders a list from memory: rank by exact supports, drop hidden items, truncate, fill, explain.
//!
//! A body is a function of the events, the settings and the day. [`Rendered`] keeps its inputs, so that a cached body is served
//! only while a render would give the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;
use kindred_model::codec::Corrupt;
use kindred_model::settings::Semantics;
use kindred_model::similarity::format_score;
use kindred_model::views::also_bought::ranked;
use kindred_model::{Day, ItemId};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::ranking::DAYS_DEFAULT;
use super::state::{Items, State, neighbors};
use super::visibility::Sight;

/// The default length of a list: two rows of a product page.
pub const LIMIT_DEFAULT: u64 = 12;
/// The maximum length of a list: what a view keeps by default.
pub const LIMIT_MAX: u64 = 50;

/// The options of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListOptions {
    /// At most so many items, 1 to [`LIMIT_MAX`].
    pub limit: u8,
    /// Fill a short list from popularity.
    pub fill: bool,
    /// Add the counts behind each item.
    pub explain: bool,
    /// What the caller may see.
    pub sight: Sight,
}

/// The body of `GET /v1/items/{item}/similar`.
#[derive(Serialize, ToSchema)]
pub(crate) struct SimilarList<'a> {
    /// The item that was asked about.
    item: &'a str,
    /// The view that was read.
    view: &'a str,
    /// The generation that served it.
    generation: &'a str,
    /// Best first; empty when there is nothing to show.
    items: Vec<ListItem<'a>>,
}

/// One item of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListItem<'a> {
    item: &'a str,
    /// How close it is, to 6 decimals; null where the list was filled.
    score: Option<f64>,
    /// The weight of the baskets that hold both; null where the list was filled.
    co_count: Option<u64>,
    /// Why it is here.
    because: [Because<'a>; 1],
    title: Option<&'a str>,
    url: Option<&'a str>,
    image: Option<&'a str>,
    price: Option<Price<'a>>,
    /// The counts behind it, where `explain=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explanation>,
}

/// An amount of money.
#[derive(Serialize, ToSchema)]
pub(crate) struct Price<'a> {
    /// In minor units: cents.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: &'a str,
}

/// Why an item is in a list.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Because<'a> {
    /// It was bought with the seed.
    Seed {
        /// The seed.
        item: &'a str,
        view: &'a str,
        co_count: u64,
    },
    /// The list was short.
    Fill {
        /// `category_popularity` or `popularity`.
        fill: &'a str,
        /// The category that is meant, its path joined by `/`.
        #[serde(skip_serializing_if = "Option::is_none")]
        category: Option<&'a str>,
        /// Over so many days, today the last.
        days: u32,
        /// Its buyers in these days.
        owners: u64,
    },
}

/// The counts behind a pair, and what follows from them.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// n(i): baskets that hold the seed.
    n_i: u64,
    /// n(j): baskets that hold this item.
    n_j: u64,
    /// B: baskets.
    baskets: u64,
    /// c / B.
    support: f64,
    /// c / n(i).
    confidence: f64,
    /// c B / (n(i) n(j)): 1 is chance.
    lift: f64,
    /// Dunning's G2: how far beyond chance.
    g2: f64,
}

impl Explanation {
    fn of(c: f64, n_i: u64, n_j: u64, baskets: u64) -> Self {
        let (i, j, b) = (n_i as f64, n_j as f64, baskets as f64);
        let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { rounded(part / whole) };
        // The four cells of the contingency table of i and j: observed against expected.
        let cells = [(c, i * j), (i - c, i * (b - j)), (j - c, (b - i) * j), (b - i - j + c, (b - i) * (b - j))];
        let term = |(seen, margins): (f64, f64)| {
            if seen > 0.0 && margins > 0.0 { seen * (seen * b / margins).ln() } else { 0.0 }
        };
        let g2 = rounded(2.0 * cells.into_iter().map(term).sum::<f64>());
        Self {
            n_i,
            n_j,
            baskets,
            support: share(c, b),
            confidence: share(c, i),
            lift: share(c * b, i * j),
            g2: if g2 == 0.0 { 0.0 } else { g2 },
        }
    }
}

/// To 6 decimals, as scores are.
fn rounded(value: f64) -> f64 {
    format_score(value).parse().unwrap_or(0.0)
}

/// A body and its inputs.
#[derive(Debug)]
pub struct Rendered {
    /// The JSON.
    pub body: Bytes,
    /// Its strong validator.
    pub etag: HeaderValue,
    /// The version it was rendered at.
    made_at: u64,
    /// The latest version at which it was valid.
    seen: AtomicU64,
    item: Option<u32>,
    /// The items whose support or card it depends on.
    depends_on: Box<[u32]>,
    /// The rankings it depends on: overall, and of a category.
    filled: Option<Option<Arc<str>>>,
    explained: bool,
    sight: Sight,
    /// False if it depends on something that the memory cannot follow.
    pub(super) cacheable: bool,
}

impl Rendered {
    /// Its approximate size in bytes, with key and overhead.
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.body.len() + 4 * self.depends_on.len() + 512).unwrap_or(u32::MAX)
    }

    /// Whether it was valid at this version or a later one.
    pub(super) fn was_valid_at(&self, version: u64) -> bool {
        self.seen.load(Ordering::Acquire) >= version
    }

    /// Whether a render of this state would give the same.
    pub(super) fn is_valid(&self, item: &str, state: &State) -> bool {
        let unchanged = |index: u32| state.item(index).changed <= self.made_at;
        let valid = match self.item {
            Some(index) => state.item(index).list_changed <= self.made_at && unchanged(index),
            None => state.find(item).is_none(),
        } && self.depends_on.iter().all(|&index| unchanged(index))
            && (!self.explained || state.baskets_changed <= self.made_at)
            && self.filled.as_ref().is_none_or(|category| {
                let unchanged = |category| state.rankings.changed(self.sight.level, category) <= self.made_at;
                unchanged(None) && category.as_deref().is_none_or(|category| unchanged(Some(category)))
            });
        if valid {
            self.seen.fetch_max(state.version, Ordering::AcqRel);
        }
        valid
    }
}

/// A strong validator: a digest of the body.
pub(crate) fn etag_of(body: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(body);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..16]));
    HeaderValue::from_str(&tag).expect("base64 is a header value")
}

/// Renders the list of an item; `row` is the item's own, empty if it has none.
pub(super) fn render(
    settings: &Semantics,
    generation: &str,
    item: &str,
    options: ListOptions,
    (state, row): (&State, &[u8]),
) -> Result<Rendered, Corrupt> {
    const VIEW: &str = "also_bought";
    let view = &settings.views.also_bought;
    let limit = usize::from(options.limit);
    let known = state.find(item);
    // A hidden item is answered like an unknown one.
    let seed = known.filter(|&seed| options.sight.sees_card(state.item(seed).card.as_deref()));
    let mut cacheable = true;
    let mut depends_on = Vec::new();
    let mut listed: Vec<u32> = Vec::new();
    let mut items = Vec::with_capacity(limit);

    if let Some(seed) = seed.filter(|_| view.enabled) {
        let n_i = state.item(seed).support;
        let mut scored = Vec::new();
        for (id, c) in neighbors(row)? {
            let Some(index) = state.find(id) else {
                // Its support comes with the unit of the row. A row read from the store may be of a later unit; if this persists,
                // the store is damaged, and `kindred verify` reports it.
                tracing::debug!("a list names an item without a support");
                cacheable = false;
                continue;
            };
            depends_on.push(index);
            scored.push((ItemId::trusted(id.to_owned()), c, state.item(index).support));
        }
        for scored in ranked(view, n_i, scored) {
            if items.len() == limit {
                break;
            }
            let Some(index) = state.find(scored.item.as_str()).filter(|&index| options.sight.is_shown(state.item(index))) else {
                continue;
            };
            let because = Because::Seed { item, view: VIEW, co_count: scored.co_count };
            let mut shown = list_item(state, settings, index, because);
            shown.score = Some(rounded(scored.score));
            shown.co_count = Some(scored.co_count);
            let c = scored.co_count as f64 / view.pair_weight.unit() as f64;
            shown.explain = options.explain.then(|| Explanation::of(c, n_i, scored.support, state.baskets));
            listed.push(index);
            items.push(shown);
        }
    }

    let mut filled = None;
    if options.fill && items.len() < limit {
        let card = seed.and_then(|seed| state.item(seed).card.as_deref());
        let category = card.and_then(|card| card.categories.last());
        for category in category.map(|category| Some(&**category)).into_iter().chain([None]) {
            for (index, owners) in state.rankings.best_first(options.sight.level, category) {
                if items.len() == limit {
                    break;
                }
                if Some(index) == seed || listed.contains(&index) || !options.sight.is_shown(state.item(index)) {
                    continue;
                }
                let fill = if category.is_some() { "category_popularity" } else { "popularity" };
                let because = Because::Fill { fill, category, days: DAYS_DEFAULT, owners };
                depends_on.push(index);
                listed.push(index);
                items.push(list_item(state, settings, index, because));
            }
        }
        filled = Some(category.cloned());
    }

    let body = super::json(&SimilarList { item, view: VIEW, generation, items });
    Ok(Rendered {
        etag: etag_of(&body),
        body: body.into(),
        made_at: state.version,
        seen: AtomicU64::new(state.version),
        item: known,
        depends_on: depends_on.into(),
        filled,
        explained: options.explain,
        sight: options.sight,
        cacheable,
    })
}

fn list_item<'a>(state: &'a State, settings: &'a Semantics, index: u32, because: Because<'a>) -> ListItem<'a> {
    let entry = state.item(index);
    let card = entry.card.as_deref();
    let price = |amount_minor| Price { amount_minor, currency: &settings.shop.currency };
    ListItem {
        item: &entry.id,
        score: None,
        co_count: None,
        because: [because],
        title: card.map(|card| &*card.title),
        url: card.and_then(|card| card.url.as_deref()),
        image: card.and_then(|card| card.image.as_deref()),
        price: card.and_then(|card| card.price_minor).map(price),
        explain: None,
    }
}

/// The options of popularity.
#[derive(Clone, Debug)]
pub struct PopularOptions {
    /// The category, its path joined by `/`, with those below it.
    pub category: Option<Box<str>>,
    /// The kind of interaction.
    pub kind: kindred_model::Kind,
    /// The number of days.
    pub days: u32,
    /// The last day.
    pub as_of: Day,
    /// At most this many items.
    pub limit: usize,
    /// What the caller may see.
    pub sight: Sight,
}

/// The body of `GET /v1/popular`.
#[derive(Serialize, ToSchema)]
pub(crate) struct PopularList<'a> {
    /// The view that was read.
    view: &'a str,
    generation: &'a str,
    #[schema(value_type = String)]
    kind: kindred_model::Kind,
    /// Over so many days.
    days: u32,
    /// The last of them.
    #[schema(value_type = String)]
    as_of: Day,
    /// The category asked for.
    category: Option<&'a str>,
    /// The owners of all items of the category, or of all, that the caller may see; also of those that are deleted or unavailable.
    total: u64,
    /// Most owners first, then by item bytes.
    items: Vec<PopularItem<'a>>,
}

/// One popular item.
#[derive(Serialize, ToSchema)]
pub(crate) struct PopularItem<'a> {
    item: &'a str,
    /// Owners summed over the days.
    owners: u64,
    title: Option<&'a str>,
    url: Option<&'a str>,
    image: Option<&'a str>,
    price: Option<Price<'a>>,
}

/// Renders popularity. A pass over all items: some ms at 20,000.
pub(super) fn render_popular(settings: &Semantics, generation: &str, options: &PopularOptions, all: &Items) -> Vec<u8> {
    let mut total = 0;
    let mut sums = Vec::new();
    for entry in all.iter() {
        let within = options.category.as_ref().is_none_or(|category| {
            entry.card.as_ref().is_some_and(|card| card.categories.iter().any(|known| **known == **category))
        });
        // Items known only from browsers are ignored where there is a catalog.
        if !within || !all.is_sold(Some(entry)) || !options.sight.sees_card(entry.card.as_deref()) {
            continue;
        }
        let owners = entry.days.sum(options.kind, options.as_of, options.days);
        total += owners;
        if owners > 0 && entry.is_offered() {
            sums.push((owners, entry));
        }
    }
    sums.sort_unstable_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.id.cmp(&other.id)));
    sums.truncate(options.limit);
    let items = sums
        .into_iter()
        .map(|(owners, entry)| {
            let card = entry.card.as_deref();
            let price = |amount_minor| Price { amount_minor, currency: &settings.shop.currency };
            PopularItem {
                item: &entry.id,
                owners,
                title: card.map(|card| &*card.title),
                url: card.and_then(|card| card.url.as_deref()),
                image: card.and_then(|card| card.image.as_deref()),
                price: card.and_then(|card| card.price_minor).map(price),
            }
        })
        .collect();
    let list = PopularList {
        view: "popularity",
        generation,
        kind: options.kind,
        days: options.days,
        as_of: options.as_of,
        category: options.category.as_deref(),
        total,
        items,
    };
    super::json(&list)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dunning's G2 of a textbook table: 10 baskets hold both, 10 i alone, 20 j alone, 60 neither.
    #[test]
    fn explanations_follow_their_definitions() {
        let explained = Explanation::of(10.0, 20, 30, 100);
        assert_eq!((explained.support, explained.confidence), (0.1, 0.5));
        assert!((explained.lift - 1.666_667).abs() < 1e-9);
        let expected: f64 = 2.0
            * (10.0 * (10.0f64 / 6.0).ln()
                + 10.0 * (10.0f64 / 14.0).ln()
                + 20.0 * (20.0f64 / 24.0).ln()
                + 60.0 * (60.0f64 / 56.0).ln());
        assert!((explained.g2 - expected).abs() < 1e-6);
        let independent = Explanation::of(6.0, 20, 30, 100);
        assert_eq!((independent.lift, independent.g2), (1.0, 0.0));
        assert_eq!(Explanation::of(0.0, 0, 0, 0).g2, 0.0);
    }
}
