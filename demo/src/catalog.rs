//! The products of the simulated shop: 24 hand-written shelves of ten products, and which shelves complement each other.
//!
//! ```text
//! SHELVES (path, shape, titles and prices) ──build──▶ Catalog ──records──▶ topic `catalog`
//!                                                        └──▶ /demo/catalog.json, /demo/pictures/{item}.svg
//! ```

use std::collections::HashMap;

use kindred_model::records::{CatalogRecord, ItemKind, Visibility};
use kindred_model::{EventTime, ItemId};

use crate::pictures::Shape;
use crate::random::Random;

/// A leaf of the category tree with its products.
struct Shelf {
    path: [&'static str; 3],
    shape: Shape,
    /// Lowest and highest price, in minor units.
    price_minor: (i64, i64),
    tags: [&'static str; 3],
    /// The purpose of every product; a phrase that follows the name of the shelf.
    purpose: &'static str,
    titles: [&'static str; 10],
}

macro_rules! shelf {
    ($shape:ident, $a:literal > $b:literal > $c:literal, $low:literal - $high:literal, [$($tag:literal),+], $purpose:literal, [$($title:literal),+ $(,)?]) => {
        Shelf {
            path: [$a, $b, $c],
            shape: Shape::$shape,
            price_minor: ($low, $high),
            tags: [$($tag),+],
            purpose: $purpose,
            titles: [$($title),+],
        }
    };
}

/// Number of shelves.
pub const SHELVES_LEN: usize = 24;

#[rustfmt::skip]
const SHELVES: [Shelf; SHELVES_LEN] = [
    shelf!(Tent, "Outdoor" > "Camping" > "Tents", 7900 - 48900, ["camping", "waterproof", "light"], "for nights far from the road", [
        "Marten 1 solo tent", "Marten 2 trekking tent", "Heron ridge tent", "Fjord 3 tunnel tent", "Lapwing dome tent",
        "Basecamp 4 family tent", "Drizzle tarp shelter", "Kite ultralight tent", "Moorland bell tent", "Weekend pop-up tent"]),
    shelf!(SleepingBag, "Outdoor" > "Camping" > "Sleeping bags", 4900 - 32900, ["camping", "warm", "packable"], "for sleeping warm and packing small", [
        "Dormouse down bag", "Dormouse summer bag", "Polar 600 sleeping bag", "Otter wide-cut bag", "Cloudberry quilt",
        "Snug kids' bag", "Nomad wool liner", "Aurora 3-season bag", "Hush double bag", "Minimalist 10° quilt"]),
    shelf!(Stove, "Outdoor" > "Camping" > "Camp kitchen", 1900 - 12900, ["camping", "cooking", "compact"], "for a hot meal anywhere", [
        "Ember gas stove", "Pocket spirit stove", "Twinflame camp cooker", "Birch twig stove", "Summit windproof burner",
        "Trail kettle 0.9 l", "Alpine pot set", "Titan solo cooker", "Firefly igniter stove", "Caravan two-ring hob"]),
    shelf!(Backpack, "Outdoor" > "Hiking" > "Backpacks", 5900 - 27900, ["hiking", "padded", "recycled"], "for a day on the hill or a month on the road", [
        "Ibex 28 daypack", "Ibex 45 touring pack", "Caravel 65 trekking pack", "Swift 18 summit pack", "Rucker canvas backpack",
        "Pilgrim 35 pack", "Courier roll-top pack", "Switchback 50 pack", "Junior 15 hiking pack", "Featherload 40 pack"]),
    shelf!(Boot, "Outdoor" > "Hiking" > "Boots", 8900 - 28900, ["hiking", "leather", "grip"], "for paths that are none", [
        "Granite mid boot", "Granite low shoe", "Scree mountain boot", "Heath leather boot", "Brook wading shoe",
        "Pathfinder light boot", "Tor winter boot", "Meadow walking shoe", "Ridge trail runner", "Ranger resoleable boot"]),
    shelf!(Helmet, "Cycling" > "Safety" > "Helmets", 3900 - 19900, ["cycling", "safety", "ventilated"], "for heads with plans", [
        "Commuter helmet", "Gust road helmet", "Trailhead helmet", "Nutshell city helmet", "Beacon helmet with light",
        "Foldaway helmet", "Sprint aero helmet", "Kiddo helmet", "Boulevard helmet", "Enduro full-cut helmet"]),
    shelf!(BikeLight, "Cycling" > "Safety" > "Lights", 1500 - 11900, ["cycling", "rechargeable", "bright"], "for being seen before it matters", [
        "Firefly front light", "Firefly rear light", "Lumen 80 dynamo light", "Nightjar light set", "Glow spoke light",
        "Comet 1000 headlight", "Dash bar-end lights", "Pillar tail light", "Owl brake light", "Dusk helmet light"]),
    shelf!(Pannier, "Cycling" > "Luggage" > "Panniers", 3900 - 16900, ["cycling", "waterproof", "touring"], "for carrying home more than planned", [
        "Cargo 20 pannier", "Cargo 20 pannier pair", "Market basket bag", "Rainproof roll pannier", "Office pannier 14",
        "Bikepack seat bag", "Handlebar harness", "Frame wedge bag", "Top-tube snack box", "Expedition pannier 40"]),
    shelf!(Grinder, "Kitchen" > "Coffee" > "Grinders", 3900 - 34900, ["coffee", "adjustable", "steel burrs"], "for coffee that was whole a minute ago", [
        "Kestrel hand grinder", "Kestrel travel grinder", "Burr No. 3 grinder", "Quiet mill grinder", "Dose espresso grinder",
        "Heritage wood mill", "Flat 64 grinder", "Nomad grinder", "Barista one-touch grinder", "Ceramic cone mill"]),
    shelf!(Brewer, "Kitchen" > "Coffee" > "Brewers", 1900 - 15900, ["coffee", "pour-over", "glass"], "for slow mornings", [
        "Cone 02 dripper", "Hourglass carafe", "Press 1 litre", "Moka 6 cups", "Gooseneck kettle", "Siphon brewer",
        "Cold drip tower", "Travel press mug", "Cloth filter brewer", "Copper dripper set"]),
    shelf!(Beans, "Kitchen" > "Coffee" > "Beans", 890 - 2490, ["coffee", "single origin", "fresh"], "roasted on Tuesdays, gone by Sunday", [
        "Yirgacheffe beans 500 g", "Huila beans 500 g", "House espresso 1 kg", "Sidamo natural 250 g", "Antigua beans 500 g",
        "Decaf mountain water 500 g", "Kenya AA 250 g", "Breakfast blend 1 kg", "Mandheling beans 500 g", "Roaster's choice 250 g"]),
    shelf!(Pan, "Kitchen" > "Cooking" > "Pans", 2900 - 18900, ["cooking", "cast iron", "oven-proof"], "for dinners that need a good crust", [
        "Skillet 24 cm", "Skillet 28 cm", "Carbon steel wok", "Sauté pan with lid", "Crêpe pan", "Dutch oven 5 l",
        "Milk pan 1.5 l", "Grill pan", "Copper sauce pan", "Egg pan 18 cm"]),
    shelf!(Knife, "Kitchen" > "Cooking" > "Knives", 1900 - 21900, ["cooking", "steel", "hand-ground"], "for onions that fall apart by themselves", [
        "Chef's knife 20 cm", "Santoku 17 cm", "Paring knife 9 cm", "Bread knife 25 cm", "Filleting knife", "Cleaver No. 6",
        "Nakiri 16 cm", "Steak knife set", "Herb knife", "Utility knife 13 cm"]),
    shelf!(Lamp, "Home" > "Light" > "Lamps", 2900 - 24900, ["home", "dimmable", "warm light"], "for reading longer than sensible", [
        "Arc desk lamp", "Crane work lamp", "Pebble bedside lamp", "Lantern table lamp", "Halo floor lamp", "Clip reading light",
        "Mushroom lamp", "Paper globe lamp", "Studio task lamp", "Dawn wake-up lamp"]),
    shelf!(Blanket, "Home" > "Textiles" > "Blankets", 2900 - 19900, ["home", "wool", "soft"], "for the good end of the sofa", [
        "Merino throw", "Herringbone blanket", "Highland check blanket", "Linen bedspread", "Waffle cotton throw",
        "Alpaca blanket", "Picnic blanket", "Quilted throw", "Felted wool plaid", "Baby blanket"]),
    shelf!(Plant, "Home" > "Plants" > "Houseplants", 990 - 6990, ["plants", "easy care", "air"], "content with little and glad of light", [
        "Monstera", "Fiddle-leaf fig", "Snake plant", "String of pearls", "Calathea", "Rubber tree", "Boston fern",
        "Aloe vera", "Prayer plant", "Olive tree"]),
    shelf!(Pot, "Home" > "Plants" > "Pots", 790 - 5990, ["plants", "ceramic", "drainage"], "for roots with taste", [
        "Terracotta pot 14 cm", "Terracotta pot 20 cm", "Glazed pot and saucer", "Hanging planter", "Self-watering pot",
        "Concrete cylinder", "Seagrass basket", "Window box", "Speckled stoneware pot", "Kitchen herb trough"]),
    shelf!(Notebook, "Office" > "Writing" > "Notebooks", 690 - 3490, ["paper", "dotted", "thread-bound"], "for thoughts worth keeping", [
        "Dotted notebook A5", "Ruled notebook A5", "Pocket notebook trio", "Sketchbook A4", "Five-year diary",
        "Field notes, waterproof", "Week planner", "Music manuscript book", "Recipe journal", "Linen guest book"]),
    shelf!(Pen, "Office" > "Writing" > "Pens", 390 - 14900, ["writing", "refillable", "smooth"], "for handwriting one can read", [
        "Fountain pen, fine", "Fountain pen, broad", "Brass ballpoint", "Gel pen set", "Drafting pencil 0.5", "Brush pen",
        "Cedar pencil dozen", "Ink bottle, night blue", "Rollerball", "Highlighter set"]),
    shelf!(Keyboard, "Office" > "Desk" > "Keyboards", 1900 - 22900, ["desk", "mechanical", "wireless"], "for long sentences", [
        "Tactile 75 keyboard", "Silent 65 keyboard", "Split ergo keyboard", "Full-size keyboard", "Travel keyboard",
        "Wooden wrist rest", "Number pad", "Low-profile keyboard", "Keycap set, cream", "Developer's 60"]),
    shelf!(Headphones, "Audio" > "Listening" > "Headphones", 2400 - 39900, ["audio", "wireless", "closed"], "for trains, offices and neighbours", [
        "Studio 40 headphones", "Hush noise-cancelling", "Open-back HD", "Commuter on-ear", "Kids' safe headphones",
        "DJ monitor headphones", "Planar one", "Sleep headband", "Gaming headset", "Folding travel headphones"]),
    shelf!(Speaker, "Audio" > "Listening" > "Speakers", 4900 - 49900, ["audio", "wireless", "room"], "for kitchens that sing", [
        "Bookshelf pair", "Kitchen radio speaker", "Pebble portable speaker", "Tower speaker", "Soundbar mini",
        "Garden speaker", "Desk monitors", "Walnut one-box", "Subwoofer 8", "Shower speaker"]),
    shelf!(Turntable, "Audio" > "Vinyl" > "Turntables", 1490 - 59900, ["audio", "vinyl", "belt drive"], "for records played to the end", [
        "Belt-drive turntable", "Direct-drive turntable", "Starter record player", "Suitcase player", "Record cleaning kit",
        "Cork slip mat", "Phono preamp", "Walnut record crate", "Carbon brush", "Automatic turntable"]),
    shelf!(Game, "Play" > "Table" > "Board games", 1290 - 6990, ["games", "2-4 players", "evening"], "for rainy Sundays", [
        "Harbour masters", "Nine villages", "The lighthouse", "Tiles of Porto", "Word orchard", "Night train",
        "Little astronomers", "Market day", "Hedge maze", "The cartographer"]),
];

/// Cheap items of their shelf.
#[rustfmt::skip]
const SMALL: [&str; 34] = [
    "Record cleaning kit", "Cork slip mat", "Carbon brush", "Walnut record crate", "Wooden wrist rest", "Keycap set, cream", "Number pad",
    "Ink bottle, night blue", "Highlighter set", "Cedar pencil dozen", "Gel pen set", "Rollerball", "Brass ballpoint", "Brush pen",
    "Drafting pencil 0.5", "Drizzle tarp shelter", "Nomad wool liner", "Trail kettle 0.9 l", "Glow spoke light", "Top-tube snack box",
    "Cloth filter brewer", "Shower speaker", "Kiddo helmet", "Clip reading light", "Baby blanket", "Milk pan 1.5 l", "Egg pan 18 cm",
    "Paring knife 9 cm", "Aloe vera", "Pocket spirit stove", "Pocket notebook trio", "Sleep headband", "Kids' safe headphones",
    "Terracotta pot 14 cm",
];

/// Pairs of shelves, by index in [`SHELVES`], whose products are bought together: a tent and a sleeping bag.
const COMPLEMENTS: [(usize, usize); 21] = [
    (0, 1),
    (0, 2),
    (1, 2),
    (3, 4),
    (3, 0),
    (5, 6),
    (6, 7),
    (8, 9),
    (9, 10),
    (8, 10),
    (11, 12),
    (13, 19),
    (13, 14),
    (15, 16),
    (17, 18),
    (18, 19),
    (19, 20),
    (20, 21),
    (21, 22),
    (14, 23),
    (2, 11),
];

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
    /// The subject of its picture.
    pub shape: Shape,
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

const MATERIALS: [&str; 6] = [
    "Made in small batches, and easy to mend.",
    "Comes with a spare part for the one that always breaks.",
    "Tested by us for a year before we sold it.",
    "Packed without plastic, and taken back when you are done with it.",
    "Our most modest one, and often the last one people buy.",
    "Five years of guarantee, longer if you write us a letter.",
];

impl Catalog {
    /// The catalog of a seed: titles are fixed; prices, popularity and wording are drawn.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, "catalog");
        let mut products = Vec::with_capacity(SHELVES_LEN * SHELF_LEN);
        for (number, shelf) in SHELVES.iter().enumerate() {
            let mut places: Vec<i32> = (1..=10).collect();
            for n in (1..places.len()).rev() {
                places.swap(n, random.index(n + 1));
            }
            for (n, (title, place)) in shelf.titles.into_iter().zip(places).enumerate() {
                let (low, high) = shelf.price_minor;
                // Small items are at the lower end of the price range, most others not far above; prices end in 90.
                let drawn = random.unit() * random.unit();
                let share = if SMALL.contains(&title) { 0.08 * drawn } else { 0.15 + 0.85 * drawn };
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    reason = "prices are small whole numbers"
                )]
                let price = low + ((high - low) as f64 * share) as i64;
                let category = shelf.path;
                let description = format!("{} {}. {}", category[2], shelf.purpose, random.pick(&MATERIALS));
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
        for (a, b) in COMPLEMENTS {
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
        for shelf in &SHELVES {
            assert!(shelf.price_minor.0 < shelf.price_minor.1);
        }
        for title in SMALL {
            assert!(SHELVES.iter().any(|shelf| shelf.titles.contains(&title)), "{title} is on no shelf");
        }
    }
}
