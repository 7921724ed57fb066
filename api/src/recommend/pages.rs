//! Pages of the catalog: an item, the items of a category or tag, the categories, the tags; limited to what the caller may see
//! (R7, R19).
//!
//! ```text
//! row of the store ──▶ Product          Items ──sight, filter, order, place──▶ Found, Categories, Tags
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use kindred_model::EventTime;
use kindred_model::records::{CatalogRecord, ItemKind, Visibility};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::render::Price;
use super::state::{Card, Entry, Items};
use super::visibility::Sight;
use crate::params::opaque;

/// The body of `GET /v1/items/{item}`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Product<'a> {
    item: &'a str,
    /// `good`, `service` or `activity`.
    #[schema(value_type = String)]
    kind: ItemKind,
    title: &'a str,
    description: Option<&'a str>,
    /// The path from the widest category to the narrowest.
    #[schema(value_type = Vec<String>)]
    category: &'a [Box<str>],
    #[schema(value_type = Vec<String>)]
    tags: &'a [Box<str>],
    price: Option<Price<'a>>,
    url: Option<&'a str>,
    image: Option<&'a str>,
    /// Whether it can be had now.
    available: bool,
    /// Who may see it: `public`, `registered`, `vip` or `svip`.
    #[schema(value_type = String)]
    visibility: Visibility,
    /// When it was put on sale.
    #[schema(value_type = Option<String>)]
    listed_at: Option<EventTime>,
}

impl<'a> Product<'a> {
    /// Of a record; `None` if deleted or invisible.
    pub fn of(record: &'a CatalogRecord, sight: Sight, currency: &'a str) -> Option<Self> {
        if record.deleted || !sight.sees(record.visibility(), record.listed_at) {
            return None;
        }
        Some(Self {
            item: record.item.as_str(),
            kind: record.kind,
            title: &record.title,
            description: record.description.as_deref(),
            category: &record.category,
            tags: &record.tags,
            price: record.price_minor.map(|amount_minor| Price { amount_minor, currency }),
            url: record.url.as_deref(),
            image: record.image.as_deref(),
            available: record.available.unwrap_or(true),
            visibility: record.visibility(),
            listed_at: record.listed_at,
        })
    }
}

/// The order of a page; ties by item bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// Most buyers of the last 30 days first.
    Popular,
    /// Put on sale last first; what does not say when, last.
    Newest,
    /// Cheapest first; what has no price, last.
    Price,
    /// Dearest first; what has no price, last.
    PriceDescending,
}

impl Sort {
    /// The sorts by name.
    pub const ALL: [(&'static str, Self); 4] =
        [("popular", Self::Popular), ("newest", Self::Newest), ("price", Self::Price), ("-price", Self::PriceDescending)];

    /// The sort key, ascending.
    fn rank(self, entry: &Entry, card: &Card) -> i64 {
        match self {
            Self::Popular => -i64::try_from(entry.ranked()).unwrap_or(i64::MAX),
            Self::Newest => card.listed_at.map_or(i64::MAX, |listed| -listed.0),
            Self::Price => card.price_minor.unwrap_or(i64::MAX),
            Self::PriceDescending => card.price_minor.map_or(i64::MAX, |price| -price),
        }
    }
}

/// The end of a page: a key and not an offset, so that inserts and deletes do not shift pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The sort that it belongs to.
    pub sort: Sort,
    rank: i64,
    item: Box<str>,
}

/// The query of a page.
#[derive(Clone, Debug)]
pub(crate) struct PageOptions {
    /// In this category, its path joined by `/`, or below it.
    pub category: Option<Box<str>>,
    /// With this tag.
    pub tag: Option<Box<str>>,
    /// Of this kind.
    pub kind: Option<ItemKind>,
    /// In this order.
    pub sort: Sort,
    /// After this cursor.
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: usize,
    /// What the caller may see.
    pub sight: Sight,
}

impl PageOptions {
    fn asks_for(&self, card: &Card) -> bool {
        let in_category = |asked: &str| card.categories.iter().any(|known| **known == *asked);
        self.category.as_deref().is_none_or(in_category)
            && self.tag.as_ref().is_none_or(|asked| card.tags.contains(asked))
            && self.kind.is_none_or(|asked| card.kind == asked)
    }
}

/// The body of `GET /v1/items`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Found<'a> {
    /// All that fit, on this page and others.
    total: usize,
    items: Vec<FoundItem<'a>>,
    /// The `cursor` of the next page; null on the last.
    pub(super) next_cursor: Option<String>,
}

/// An item on a page.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundItem<'a> {
    item: &'a str,
    #[schema(value_type = String)]
    kind: ItemKind,
    title: &'a str,
    /// Its category path, joined by `/`.
    category: Option<&'a str>,
    price: Option<Price<'a>>,
    url: Option<&'a str>,
    image: Option<&'a str>,
    #[schema(value_type = String)]
    visibility: Visibility,
    /// Its buyers of the last 30 days.
    owners: u64,
}

/// The visible, available items with a catalog record. Items known only from events have no page.
fn seen(items: &Items, sight: Sight) -> impl Iterator<Item = (&Entry, &Card)> {
    let offered = items.iter().filter(move |entry| sight.is_shown(entry));
    offered.filter_map(|entry| Some((entry, entry.card.as_deref()?)))
}

impl<'a> Found<'a> {
    /// The requested page.
    pub fn of(options: &PageOptions, items: &'a Items, currency: &'a str) -> Self {
        let mut fitting: Vec<(i64, &'a Entry, &'a Card)> = seen(items, options.sight)
            .filter(|(_, card)| options.asks_for(card))
            .map(|(entry, card)| (options.sort.rank(entry, card), entry, card))
            .collect();
        let total = fitting.len();
        if let Some(after) = &options.after {
            fitting.retain(|(rank, entry, _)| (*rank, &*entry.id) > (after.rank, &*after.item));
        }
        let more = fitting.len() > options.limit;
        let order = |a: &(i64, &Entry, &Card), b: &(i64, &Entry, &Card)| (a.0, &a.1.id).cmp(&(b.0, &b.1.id));
        if more {
            fitting.select_nth_unstable_by(options.limit - 1, order);
            fitting.truncate(options.limit);
        }
        fitting.sort_unstable_by(order);
        let cursor = |(rank, entry, _): &(i64, &Entry, &Card)| {
            opaque(&Cursor { sort: options.sort, rank: *rank, item: (*entry.id).into() })
        };
        let next_cursor = fitting.last().filter(|_| more).map(cursor);
        let items = fitting
            .into_iter()
            .map(|(_, entry, card)| FoundItem {
                item: &entry.id,
                kind: card.kind,
                title: &card.title,
                category: card.categories.last().map(|category| &**category),
                price: card.price_minor.map(|amount_minor| Price { amount_minor, currency }),
                url: card.url.as_deref(),
                image: card.image.as_deref(),
                visibility: card.visibility,
                owners: entry.ranked(),
            })
            .collect();
        Self { total, items, next_cursor }
    }
}

/// The body of `GET /v1/categories`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Categories<'a> {
    /// By path, so that each stands before those below it.
    categories: Vec<Category<'a>>,
}

/// A category with something to see.
#[derive(Serialize, ToSchema)]
pub(crate) struct Category<'a> {
    /// The path joined by `/`: what `?category=` takes.
    category: &'a str,
    /// Its last word.
    label: &'a str,
    /// How many items it and those below it have.
    items: usize,
}

impl<'a> Categories<'a> {
    /// The visible categories.
    pub fn of(sight: Sight, items: &'a Items) -> Self {
        let mut counts: HashMap<&'a Arc<str>, (&'a str, usize)> = HashMap::new();
        for (_, card) in seen(items, sight) {
            // A label may contain `/`: it is what follows the parent's path and its `/`.
            let mut begin = 0;
            for category in &card.categories {
                counts.entry(category).or_insert((&category[begin..], 0)).1 += 1;
                begin = category.len() + 1;
            }
        }
        let mut categories: Vec<Category<'a>> =
            counts.into_iter().map(|(category, (label, items))| Category { category, label, items }).collect();
        categories.sort_unstable_by(|a, b| a.category.split('/').cmp(b.category.split('/')));
        Self { categories }
    }
}

/// The body of `GET /v1/tags`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tags<'a> {
    /// Those of most items first.
    tags: Vec<Tag<'a>>,
}

/// A tag with something to see.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tag<'a> {
    tag: &'a str,
    /// How many items have it.
    items: usize,
}

impl<'a> Tags<'a> {
    /// The visible tags, limited.
    pub fn of(sight: Sight, limit: usize, items: &'a Items) -> Self {
        let mut counts: HashMap<&'a str, usize> = HashMap::new();
        for tag in seen(items, sight).flat_map(|(_, card)| &card.tags) {
            *counts.entry(tag).or_default() += 1;
        }
        let mut tags: Vec<Tag<'a>> = counts.into_iter().map(|(tag, items)| Tag { tag, items }).collect();
        tags.sort_unstable_by(|a, b| b.items.cmp(&a.items).then_with(|| a.tag.cmp(b.tag)));
        tags.truncate(limit);
        Self { tags }
    }
}
