//! `catalog`: what is sold. Natural key: item. Merge: greatest (version, `deleted`, not `available`, canonical bytes). It
//! decorates and filters what is served; no view depends on it.

use super::{Invalid, PRICE_MINOR_MAX, Plain, Text, from_json, record, text, within};
use crate::ids::ItemId;
use crate::units::{EventTime, words};

const TITLE_BYTES_MAX: usize = 1_024;
const DESCRIPTION_BYTES_MAX: usize = 65_536;
const URL_BYTES_MAX: usize = 2_048;
/// Levels of a category path.
const CATEGORY_DEPTH_MAX: usize = 16;
const TAGS_MAX: usize = 64;
/// Maximum tax rate: 100 percent, in basis points.
const TAX_BP_MAX: i64 = 10_000;
const STOCK_MAX: i64 = 1_000_000_000;

words! {
    /// The kind of item (R40: activities can be recommended too).
    ItemKind, "kind" {
        /// A product.
        Good "good",
        /// A service.
        Service "service",
        /// An activity or campaign.
        Activity "activity",
    }
}

words! {
    /// Who may see it (R7). Each level includes the ones before.
    Visibility, "visibility" {
        /// Everybody; the default.
        Public "public",
        /// Signed-in members.
        Registered "registered",
        /// VIP and above.
        Vip "vip",
        /// SVIP alone.
        Svip "svip",
    }
}

record! {
    /// One item at one version.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct CatalogRecord, raw Raw {
        /// The item.
        item: ItemId,
        /// Greater is newer.
        version: u64,
        /// Its kind.
        kind: ItemKind,
        /// Its title.
        title: Box<str> = title,
        /// Its description.
        description: Option<Box<str>> = text(DESCRIPTION_BYTES_MAX),
        /// Category path, widest first.
        category: Vec<Box<str>> = labels(CATEGORY_DEPTH_MAX),
        /// Free-form tags.
        tags: Vec<Box<str>> = labels(TAGS_MAX),
        /// Price in minor units of the shop's currency.
        price_minor: Option<i64> = within(0..=PRICE_MINOR_MAX),
        /// URL of its page.
        url: Option<Box<str>> = link,
        /// URL of its image.
        image: Option<Box<str>> = link,
        /// Whether it can be bought; true if absent.
        available: Option<bool>,
        /// Who may see it; public if absent.
        visibility: Option<Visibility>,
        /// When it was put on sale.
        listed_at: Option<EventTime>,
        /// Removed for good.
        deleted: bool,
        /// The product it is a variant of.
        group: Option<Box<str>>,
        /// Bought repeatedly: also recommended to members who bought it.
        repeatable: bool,
        /// Views of it are private.
        sensitive: bool,
        /// The tax rate included in its price, in basis points; the shop's if absent.
        tax_bp: Option<i64> = within(0..=TAX_BP_MAX),
        /// Units in stock; not tracked if absent.
        stock: Option<i64> = within(0..=STOCK_MAX),
    }
    new(item: ItemId, version: u64, kind: ItemKind, title: Box<str>);
}

fn title(field: &str, value: Text<'_>) -> Result<Box<str>, Invalid> {
    let title = text(TITLE_BYTES_MAX)(field, value)?;
    if title.trim().is_empty() { Err(Invalid::new(field, "must not be empty")) } else { Ok(title) }
}

fn labels(max: usize) -> impl Fn(&str, Vec<Text<'_>>) -> Result<Vec<Box<str>>, Invalid> {
    move |field, values| {
        if values.len() > max {
            return Err(Invalid::new(field, format!("has {} entries; at most {max} are accepted", values.len())));
        }
        Plain::rule(field, values)
    }
}

/// A link that a page may show: http, https or a path on the shop's site; never a script.
fn link(field: &str, value: Text<'_>) -> Result<Box<str>, Invalid> {
    let value = text(URL_BYTES_MAX)(field, value)?;
    let own_path = value.starts_with('/') && !value.starts_with("//");
    if own_path || value.starts_with("https://") || value.starts_with("http://") {
        Ok(value)
    } else {
        Err(Invalid::new(field, "must start with https://, http:// or /"))
    }
}

impl CatalogRecord {
    /// Decodes and validates one JSON object.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        Self::of(from_json(bytes)?)
    }

    /// The frozen encoding (version 1): JSON with the fields in the order of the schema, absent ones left out.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a catalog record serialises")
    }

    /// Who may see it.
    pub fn visibility(&self) -> Visibility {
        self.visibility.unwrap_or(Visibility::Public)
    }

    /// Whether it may be shown at all.
    pub fn is_offered(&self) -> bool {
        !self.deleted && self.available.unwrap_or(true)
    }
}
