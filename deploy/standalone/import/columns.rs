//! Which column of a CSV file, or which member of a JSON object, holds which field, and how its text is read.

use csv::StringRecord;
use kindred_model::Topic;
use kindred_model::records::Invalid;
use serde_json::{Map, Value};

use super::options::ImportOptions;
use super::orders::{OrderRow, time, whole_number};

/// How the text of a field is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Text,
    Whole,
    Decimal,
    /// `true` or `false`.
    Flag,
    /// RFC 3339 with an offset, or milliseconds since 1970.
    Time,
    /// `a|b`.
    List,
}

/// One field of a topic's records.
#[derive(Debug)]
struct Field {
    name: &'static str,
    /// Other headers it is known by.
    aliases: &'static [&'static str],
    reading: Reading,
    /// Whether a file without it cannot be meant.
    required: bool,
}

const fn field(name: &'static str, reading: Reading) -> Field {
    Field { name, aliases: &[], reading, required: false }
}

impl Field {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }
    const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

use Reading::{Decimal, Flag, List, Text, Time, Whole};

const INTERACTIONS: &[Field] = &[
    field("member", Text),
    field("session", Text),
    field("kind", Text).required(),
    field("item", Text),
    field("query", Text),
    field("at", Time).required().also(&["timestamp_ms"]),
    field("rating", Decimal),
    field("reco_id", Text),
    field("rank", Whole),
    field("generation", Text),
    field("retract", Flag),
];

const ORDERS: &[Field] = &[
    field("order", Text).required().also(&["order_id"]),
    field("member", Text),
    field("item", Text).required(),
    field("quantity", Whole).required(),
    field("unit_price_minor", Whole).required().also(&["unit_price_cents"]),
    field("placed_at", Time).required().also(&["timestamp_ms"]),
    field("status", Text).required(),
    field("version", Whole),
    field("tier", Text),
    field("promotion", Text),
    field("currency", Text),
    field("discount_minor", Whole).also(&["discount_cents"]),
    field("coupon", Text),
    field("paid_at", Time),
    field("completed_at", Time),
    field("cancelled_at", Time),
];

const CATALOG: &[Field] = &[
    field("item", Text).required(),
    field("version", Whole),
    field("kind", Text),
    field("title", Text).required(),
    field("description", Text),
    field("category", List),
    field("tags", List),
    field("price_minor", Whole).also(&["price_cents"]),
    field("url", Text),
    field("image", Text),
    field("available", Flag),
    field("visibility", Text),
    field("listed_at", Time),
    field("deleted", Flag),
];

const MEMBERS: &[Field] = &[
    field("member", Text),
    field("session", Text),
    field("version", Whole),
    field("state", Text),
    field("tier", Text),
    field("invited_by", Text),
    field("registered_at", Time),
    field("activated_at", Time),
    field("merged_into", Text),
];

/// What an item without a kind is, in a CSV file: a shop's list of products seldom says so.
const KIND_ABSENT: &str = "good";

const fn fields(topic: Topic) -> &'static [Field] {
    match topic {
        Topic::Interactions => INTERACTIONS,
        Topic::Orders => ORDERS,
        Topic::Catalog => CATALOG,
        Topic::Members => MEMBERS,
    }
}

/// Checks that `--map` names fields of the topic.
///
/// # Errors
/// A sentence naming the field, and the fields there are.
pub fn check_map(options: &ImportOptions) -> Result<(), String> {
    let fields = fields(options.topic);
    for name in options.map.keys() {
        if !fields.iter().any(|field| field.is_called(name)) {
            let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            return Err(format!(
                "--map {name}=…: {} have no field {name:?}; their fields are {}",
                options.topic,
                names.join(", ")
            ));
        }
    }
    Ok(())
}

fn mapped<'a>(options: &'a ImportOptions, field: &Field) -> Option<&'a str> {
    options.map.iter().find(|(name, _)| field.is_called(name)).map(|(_, column)| column.as_str())
}

/// Where each field stands in a row.
pub struct Columns {
    topic: Topic,
    of_field: Vec<Option<usize>>,
    /// Columns that hold no field of the topic.
    pub unused: Vec<String>,
    count: usize,
}

impl Columns {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// A sentence when a required field, or a column that `--map` names, is not there.
    pub fn of(header: &StringRecord, options: &ImportOptions) -> Result<Self, String> {
        let names: Vec<&str> = header.iter().map(str::trim).collect();
        let place = |name: &str| names.iter().position(|column| *column == name);
        let mut of_field = Vec::new();
        for field in fields(options.topic) {
            let found = match mapped(options, field) {
                Some(column) => Some(place(column).ok_or_else(|| {
                    format!("--map {}={column}: the file has no such column; it has {}", field.name, names.join(", "))
                })?),
                None => place(field.name).or_else(|| field.aliases.iter().find_map(|alias| place(alias))),
            };
            if field.required && found.is_none() {
                let known: Vec<&str> = std::iter::once(field.name).chain(field.aliases.iter().copied()).collect();
                return Err(format!(
                    "the file has no column {}; it has {}. Say which one it is with --map {}=COLUMN",
                    known.join(" or "),
                    names.join(", "),
                    field.name
                ));
            }
            of_field.push(found);
        }
        let unused = names.iter().enumerate().filter(|(n, _)| !of_field.contains(&Some(*n))).map(|(_, name)| (*name).to_owned());
        Ok(Self { topic: options.topic, unused: unused.collect(), count: names.len(), of_field })
    }

    /// Checks that a row has a field for every column.
    ///
    /// # Errors
    /// [`Invalid`] with both numbers.
    pub fn check(&self, row: &StringRecord) -> Result<(), Invalid> {
        if row.len() == self.count {
            return Ok(());
        }
        Err(Invalid::new("row", format!("has {} fields where the header has {}", row.len(), self.count)))
    }

    /// The text of the n-th field of the topic; empty is absent.
    fn text<'r>(&self, row: &'r StringRecord, n: usize) -> Option<&'r str> {
        self.of_field[n].and_then(|column| row.get(column)).filter(|text| !text.is_empty())
    }

    /// The fields of a row of an order line.
    pub fn order_row<'r>(&self, row: &'r StringRecord) -> OrderRow<'r> {
        debug_assert_eq!(self.topic, Topic::Orders);
        // In the order of ORDERS.
        let mut texts = (0..ORDERS.len()).map(|n| self.text(row, n));
        let mut next = || texts.next().flatten();
        OrderRow {
            order: next(),
            member: next(),
            item: next(),
            quantity: next(),
            unit_price_minor: next(),
            placed_at: next(),
            status: next(),
            version: next(),
            tier: next(),
            promotion: next(),
            currency: next(),
            discount_minor: next(),
            coupon: next(),
            paid_at: next(),
            completed_at: next(),
            cancelled_at: next(),
        }
    }

    /// A row as the JSON object that it means, for topics of which a row is a record.
    ///
    /// # Errors
    /// [`Invalid`] naming the field whose text does not read.
    pub fn object(&self, row: &StringRecord, options: &ImportOptions) -> Result<Map<String, Value>, Invalid> {
        let mut object = Map::new();
        for (n, field) in fields(self.topic).iter().enumerate() {
            if let Some(text) = self.text(row, n) {
                object.insert(field.name.to_owned(), read(field, text)?);
            }
        }
        if self.topic == Topic::Catalog {
            object.entry("kind").or_insert_with(|| Value::from(KIND_ABSENT));
        }
        complete(&mut object, options);
        Ok(object)
    }
}

fn read(field: &Field, text: &str) -> Result<Value, Invalid> {
    let name = field.name;
    Ok(match field.reading {
        Text => Value::from(text),
        Whole => Value::from(whole_number(name, text)?),
        Decimal => {
            let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
            Value::from(number.ok_or_else(|| Invalid::new(name, format!("{text:?} is not a number")))?)
        }
        Flag => match text {
            "true" => Value::from(true),
            "false" => Value::from(false),
            _ => return Err(Invalid::new(name, format!("{text:?} is neither true nor false"))),
        },
        Time => Value::from(time(name, text)?.to_string()),
        List => text.split('|').map(str::trim).filter(|part| !part.is_empty()).collect(),
    })
}

/// Whether a JSON record of the topic can be taken as it is, without looking into it.
pub fn is_plain(options: &ImportOptions) -> bool {
    options.topic == Topic::Interactions && options.map.is_empty()
}

/// Applies `--map`, `--map-status` and the defaults to a JSON record.
///
/// # Errors
/// [`Invalid`] naming the field.
pub fn adapt(object: &mut Map<String, Value>, options: &ImportOptions) -> Result<(), Invalid> {
    for field in fields(options.topic) {
        if let Some(column) = mapped(options, field)
            && let Some(value) = object.remove(column)
        {
            let value = match value.as_i64() {
                Some(ms) if field.reading == Time => Value::from(time(field.name, &ms.to_string())?.to_string()),
                _ => value,
            };
            object.insert(field.name.to_owned(), value);
        }
    }
    if options.topic == Topic::Orders
        && let Some(Value::String(word)) = object.get("status")
    {
        let status = options.status(word).ok_or_else(|| Invalid::new("status", ImportOptions::unknown_status(word)))?;
        object.insert("status".to_owned(), Value::from(status.name()));
    }
    complete(object, options);
    Ok(())
}

/// What a record that does not say so means: `--version`, `shop.currency`.
fn complete(object: &mut Map<String, Value>, options: &ImportOptions) {
    let mut absent = |name: &str, value: Value| {
        if object.get(name).is_none_or(Value::is_null) {
            object.insert(name.to_owned(), value);
        }
    };
    if options.topic != Topic::Interactions {
        absent("version", Value::from(options.version));
    }
    if options.topic == Topic::Orders {
        absent("currency", Value::from(options.currency.as_str()));
    }
}
