//! `catalog`: what is sold. Natural key: item. Merge: greatest (version, `deleted`, not `available`, canonical bytes). It
//! decorates and filters what is served; no view depends on it.

use serde::{Deserialize, Serialize};

use super::{Invalid, Text, bounded, from_json, required, text, word};
use crate::ids::{ItemId, check_id};
use crate::records::order::PRICE_MINOR_MAX;
use crate::units::EventTime;

const TITLE_BYTES_MAX: usize = 1_024;
const DESCRIPTION_BYTES_MAX: usize = 65_536;
const URL_BYTES_MAX: usize = 2_048;
/// Levels of a category path.
const CATEGORY_DEPTH_MAX: usize = 16;
const TAGS_MAX: usize = 64;
/// Maximum tax rate: 100 percent, in basis points.
const TAX_BP_MAX: i64 = 10_000;
const STOCK_MAX: i64 = 1_000_000_000;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $field:literal { $($(#[$vdoc:meta])* $variant:ident $text:literal),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl std::str::FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(Invalid::new($field, format!("{text:?} is none of {}", [$($text),+].join(", ")))),
                }
            }
        }
    };
}

words!(
    /// The kind of item (R40: activities can be recommended too).
    ItemKind, "kind" {
        /// A product.
        Good "good",
        /// A service.
        Service "service",
        /// An activity or campaign.
        Activity "activity"
    }
);

words!(
    /// Who may see it (R7). Each level includes the ones before.
    Visibility, "visibility" {
        /// Everybody; the default.
        Public "public",
        /// Signed-in members.
        Registered "registered",
        /// VIP and above.
        Vip "vip",
        /// SVIP alone.
        Svip "svip"
    }
);

/// One item at one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CatalogRecord {
    /// The item.
    pub item: ItemId,
    /// Greater is newer.
    pub version: u64,
    /// Its kind.
    pub kind: ItemKind,
    /// Its title.
    pub title: Box<str>,
    /// Its description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Box<str>>,
    /// Category path, widest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<Box<str>>,
    /// Free-form tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Box<str>>,
    /// Price in minor units of the shop's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_minor: Option<i64>,
    /// URL of its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Box<str>>,
    /// URL of its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<str>>,
    /// Whether it can be bought; true if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
    /// Who may see it; public if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// When it was put on sale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed_at: Option<EventTime>,
    /// Removed for good.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The product it is a variant of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<str>>,
    /// Bought repeatedly: also recommended to members who bought it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeatable: bool,
    /// Views of it are private.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// The tax rate included in its price, in basis points; the shop's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tax_bp: Option<i64>,
    /// Units in stock; not tracked if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<i64>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    item: Option<Text<'a>>,
    version: Option<u64>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    title: Option<Text<'a>>,
    #[serde(borrow)]
    description: Option<Text<'a>>,
    #[serde(borrow)]
    category: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    tags: Option<Vec<Text<'a>>>,
    price_minor: Option<i64>,
    #[serde(borrow)]
    url: Option<Text<'a>>,
    #[serde(borrow)]
    image: Option<Text<'a>>,
    available: Option<bool>,
    #[serde(borrow)]
    visibility: Option<Text<'a>>,
    #[serde(borrow)]
    listed_at: Option<Text<'a>>,
    deleted: Option<bool>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    repeatable: Option<bool>,
    sensitive: Option<bool>,
    tax_bp: Option<i64>,
    stock: Option<i64>,
}

fn labels(field: &str, values: Option<Vec<Text<'_>>>, max: usize) -> Result<Vec<Box<str>>, Invalid> {
    let values = values.unwrap_or_default();
    if values.len() > max {
        return Err(Invalid::new(field, format!("has {} entries; at most {max} are accepted", values.len())));
    }
    values.into_iter().enumerate().map(|(n, value)| check_id(&format!("{field}[{n}]"), &value).map(|()| value.into())).collect()
}

/// A link that a page may show: http, https or a path on the shop's site; never a script.
fn link(field: &str, value: Option<Text<'_>>) -> Result<Option<Box<str>>, Invalid> {
    let Some(value) = text(field, value, URL_BYTES_MAX)? else { return Ok(None) };
    let own_path = value.starts_with('/') && !value.starts_with("//");
    if own_path || value.starts_with("https://") || value.starts_with("http://") {
        Ok(Some(value))
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
        let raw: Raw = from_json(bytes)?;
        let title = required("title", text("title", raw.title, TITLE_BYTES_MAX)?)?;
        if title.trim().is_empty() {
            return Err(Invalid::new("title", "must not be empty"));
        }
        Ok(Self {
            item: ItemId::parse(&required("item", raw.item)?)?,
            version: required("version", raw.version)?,
            kind: word("kind", &required("kind", raw.kind)?)?,
            title,
            description: text("description", raw.description, DESCRIPTION_BYTES_MAX)?,
            category: labels("category", raw.category, CATEGORY_DEPTH_MAX)?,
            tags: labels("tags", raw.tags, TAGS_MAX)?,
            price_minor: raw.price_minor.map(|price| bounded("price_minor", price, 0, PRICE_MINOR_MAX)).transpose()?,
            url: link("url", raw.url)?,
            image: link("image", raw.image)?,
            available: raw.available,
            visibility: raw.visibility.as_deref().map(|visibility| word("visibility", visibility)).transpose()?,
            listed_at: raw.listed_at.map(|time| EventTime::parse("listed_at", &time)).transpose()?,
            deleted: raw.deleted.unwrap_or(false),
            group: raw.group.map(|group| check_id("group", &group).map(|()| group.into())).transpose()?,
            repeatable: raw.repeatable.unwrap_or(false),
            sensitive: raw.sensitive.unwrap_or(false),
            tax_bp: raw.tax_bp.map(|rate| bounded("tax_bp", rate, 0, TAX_BP_MAX)).transpose()?,
            stock: raw.stock.map(|stock| bounded("stock", stock, 0, STOCK_MAX)).transpose()?,
        })
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
