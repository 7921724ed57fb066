//! The products of the simulated shop: 24 hand-written shelves of ten products (`data/shop.json`), and which complement each other.
//!
//! ```text
//! shelves (path, shape, titles and prices) ──build──▶ Catalog ──records──▶ topic `catalog`
//!                                                        └──▶ /demo/catalog.json, /demo/pictures/{item}.svg
//! ```

use std::collections::HashMap;
use std::sync::LazyLock;

use kindred_model::records::{CatalogRecord, ItemKind, Visibility};
use kindred_model::{EventTime, ItemId};
use serde::Deserialize;

use crate::random::Random;

/// What is written by hand about the shop: its products and the names of its shoppers.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
pub(crate) struct Words {
    shelves: [Shelf; SHELVES_LEN],
    /// Cheap items of their shelf.
    small: Vec<&'static str>,
    /// Pairs of shelves whose products are bought together: a tent and a sleeping bag.
    complements: Vec<[&'static str; 2]>,
    /// Last sentences of descriptions.
    promises: Vec<&'static str>,
    pub(crate) first_names: Vec<&'static str>,
    pub(crate) last_names: Vec<&'static str>,
}

pub(crate) static WORDS: LazyLock<Words> =
    LazyLock::new(|| serde_json::from_str(include_str!("../data/shop.json")).expect("the file is valid"));

/// A leaf of the category tree with its products.
#[derive(Deserialize)]
struct Shelf {
    path: [&'static str; 3],
    shape: &'static str,
    /// Lowest and highest price, in minor units.
    price_minor: (i64, i64),
    tags: [&'static str; 3],
    /// The purpose of every product; a phrase that follows the name of the shelf.
    purpose: &'static str,
    titles: [&'static str; SHELF_LEN],
}

/// Number of shelves.
pub const SHELVES_LEN: usize = 24;

/// Departments that shoppers prefer: ranges of shelves.
pub const DEPARTMENTS: [std::ops::Range<usize>; 7] = [0..5, 5..8, 8..13, 13..17, 17..20, 20..23, 23..24];

/// One product.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its id in the log.
    pub item: ItemId,
    /// Its name.
    pub title: &'static str,
    /// Category path, widest first.
    pub category: [&'static str; 3],
    /// The index of its shelf.
    pub shelf: usize,
    /// The drawing of its picture.
    pub shape: &'static str,
    /// In minor units of the shop's currency.
    pub price_minor: i64,
    /// Keywords.
    pub tags: Vec<&'static str>,
    /// Two sentences.
    pub description: String,
    /// Its weight within the shelf: few products are popular.
    pub popularity: f64,
    /// Who may see it: the least popular of each shelf is for members, VIPs or SVIPs.
    pub visibility: Visibility,
}

impl Product {
    /// Whether everybody may see it.
    pub fn is_public(&self) -> bool {
        self.visibility == Visibility::Public
    }
}

/// The catalog.
#[derive(Debug)]
pub struct Catalog {
    /// By index; ten a shelf, in the order of the shelves.
    pub products: Vec<Product>,
    by_item: HashMap<ItemId, usize>,
    complements: Vec<Vec<usize>>,
}

/// Products of one shelf.
pub const SHELF_LEN: usize = 10;

impl Catalog {
    /// The catalog of a seed: titles are fixed; prices, popularity and wording are drawn.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, "catalog");
        let mut products = Vec::with_capacity(SHELVES_LEN * SHELF_LEN);
        for (number, shelf) in WORDS.shelves.iter().enumerate() {
            let mut places: Vec<i32> = (1..=10).collect();
            for n in (1..places.len()).rev() {
                places.swap(n, random.index(n + 1));
            }
            for (n, (title, place)) in shelf.titles.into_iter().zip(places).enumerate() {
                let (low, high) = shelf.price_minor;
                // Small items are at the lower end of the price range, most others not far above; prices end in 90.
                let drawn = random.unit() * random.unit();
                let share = if WORDS.small.contains(&title) { 0.08 * drawn } else { 0.15 + 0.85 * drawn };
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    reason = "prices are small whole numbers"
                )]
                let price = low + ((high - low) as f64 * share) as i64;
                let category = shelf.path;
                let description = format!("{} {}. {}", category[2], shelf.purpose, random.pick(&WORDS.promises));
                let mut tags = shelf.tags.to_vec();
                tags.rotate_left(random.index(3));
                products.push(Product {
                    item: ItemId::trusted(format!("{}-{:02}", slug(category[2]), n + 1)),
                    title,
                    category,
                    shelf: number,
                    shape: shelf.shape,
                    price_minor: price / 100 * 100 + 90,
                    tags,
                    description,
                    popularity: 1.0 / f64::from(place).powf(0.8),
                    visibility: match (place, number % 3) {
                        (10, 0) => Visibility::Registered,
                        (10, 1) => Visibility::Vip,
                        (10, _) => Visibility::Svip,
                        _ => Visibility::Public,
                    },
                });
            }
        }
        let by_item = products.iter().enumerate().map(|(n, product)| (product.item.clone(), n)).collect();
        let mut complements = vec![Vec::new(); SHELVES_LEN];
        let shelf = |name: &str| WORDS.shelves.iter().position(|shelf| shelf.path[2] == name).expect("a shelf of this name");
        for [a, b] in &WORDS.complements {
            let (a, b) = (shelf(a), shelf(b));
            complements[a].push(b);
            complements[b].push(a);
        }
        Self { products, by_item, complements }
    }

    /// The product with an id.
    pub fn get(&self, item: &ItemId) -> Option<&Product> {
        self.by_item.get(item).map(|&n| &self.products[n])
    }

    /// Its index.
    pub fn number(&self, item: &ItemId) -> Option<usize> {
        self.by_item.get(item).copied()
    }

    /// A product of a shelf, by popularity.
    pub fn draw(&self, random: &mut Random, shelf: usize) -> usize {
        let start = shelf * SHELF_LEN;
        let weights: Vec<f64> = self.products[start..start + SHELF_LEN].iter().map(|product| product.popularity).collect();
        start + random.weighted(&weights)
    }

    /// A product that complements another. Products at the same index of two shelves share a style and are bought together more
    /// often, so that a list has a clear head.
    pub fn draw_complement(&self, random: &mut Random, product: usize) -> Option<usize> {
        let shelves = &self.complements[self.products[product].shelf];
        if shelves.is_empty() {
            return None;
        }
        let shelf = *random.pick(shelves);
        Some(if random.chance(0.45) { shelf * SHELF_LEN + product % SHELF_LEN } else { self.draw(random, shelf) })
    }

    /// The records of the topic `catalog`, listed at a time.
    pub fn records(&self, listed_at: EventTime) -> impl Iterator<Item = CatalogRecord> + '_ {
        self.products.iter().map(move |product| CatalogRecord {
            description: Some(product.description.as_str().into()),
            category: product.category.iter().map(|&level| level.into()).collect(),
            tags: product.tags.iter().map(|&tag| tag.into()).collect(),
            price_minor: Some(product.price_minor),
            url: Some(format!("{}?item={}", if product.is_public() { "/" } else { "/browse" }, product.item).into()),
            image: Some(format!("/demo/pictures/{}.svg", product.item).into()),
            visibility: Some(product.visibility).filter(|_| !product.is_public()),
            listed_at: Some(listed_at),
            ..CatalogRecord::new(product.item.clone(), 1, ItemKind::Good, product.title.into())
        })
    }
}

/// Lower case, words joined by hyphens: safe in a URL as it stands.
fn slug(name: &str) -> String {
    name.to_lowercase().split(' ').collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kindred_model::Topic;
    use kindred_model::records::{Record, Rules};

    use super::*;

    #[test]
    fn every_product_is_a_valid_record_with_an_identity_of_its_own() {
        let catalog = Catalog::new(1);
        assert_eq!(catalog.products.len(), 240);
        let listed = EventTime::parse("listed_at", "2026-01-05T00:00:00Z").unwrap();
        let mut items = HashSet::new();
        let mut titles = HashSet::new();
        for record in catalog.records(listed) {
            let record = Record::Catalog(record);
            assert_eq!(Record::decode(Topic::Catalog, &record.to_json(), &Rules::default()).as_ref(), Ok(&record));
            let Record::Catalog(record) = record else { unreachable!() };
            assert!(record.item.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{}", record.item);
            assert!(items.insert(record.item.clone()), "{} twice", record.item);
            assert!(titles.insert(record.title.clone()), "{} twice", record.title);
            assert!(catalog.get(&record.item).is_some());
        }
    }

    #[test]
    fn shelves_departments_and_complements_name_what_is_there() {
        assert_eq!(DEPARTMENTS.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..SHELVES_LEN).collect::<Vec<_>>());
        let catalog = Catalog::new(1);
        let mut random = Random::new(1, "test");
        for n in 0..catalog.products.len() {
            let other = catalog.draw_complement(&mut random, n).expect("every shelf goes with another");
            assert_ne!(catalog.products[other].shelf, catalog.products[n].shelf);
        }
        for shelf in &WORDS.shelves {
            assert!(shelf.price_minor.0 < shelf.price_minor.1);
        }
        for title in &WORDS.small {
            assert!(WORDS.shelves.iter().any(|shelf| shelf.titles.contains(title)), "{title} is on no shelf");
        }
    }
}
