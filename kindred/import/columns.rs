//! Maps CSV columns and JSON members to fields, and says how the text of each field is read.

use csv::{ByteRecord, StringRecord};
use kindred_model::records::Invalid;
use kindred_model::{OrderId, Topic};
use serde_json::{Map, Value};

use super::options::ImportOptions;
use super::values::{flag, has_decimals, whole_number};

/// Columns listed in a message.
const NAMES_SHOWN: usize = 20;
/// Longest column name that a message repeats.
const NAME_CHARS_MAX: usize = 40;

/// How the text of a field is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Text,
    /// An identity, trimmed.
    Id,
    Whole,
    /// Money, in minor units or, with `--decimal-money`, with decimals.
    Money,
    Decimal,
    /// A boolean ([`super::values::flag`]).
    Flag,
    /// A time, in any accepted form ([`ImportOptions::time`]).
    Time,
    /// `a|b`.
    List,
}

/// One field of a topic's records.
#[derive(Debug)]
struct Field {
    name: &'static str,
    /// Alternative headers.
    aliases: &'static [&'static str],
    reading: Reading,
    /// Whether the file must have it.
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

use Reading::{Decimal, Flag, Id, List, Money, Text, Time, Whole};

const INTERACTIONS: &[Field] = &[
    field("member", Id),
    field("session", Id),
    field("kind", Text).required(),
    field("item", Id),
    field("query", Text),
    field("at", Time).required().also(&["timestamp_ms"]),
    field("rating", Decimal),
    field("reco_id", Id),
    field("rank", Whole),
    field("generation", Id),
    field("retract", Flag),
    field("scenario", Text),
    field("variant", Id),
    field("source", Text),
];

const ORDERS: &[Field] = &[
    field("order", Id).required().also(&["order_id"]),
    field("member", Id),
    field("item", Id).required(),
    field("quantity", Whole).required(),
    field("unit_price_minor", Money).required().also(&["unit_price_cents"]),
    field("placed_at", Time).required().also(&["timestamp_ms"]),
    field("status", Text).required(),
    field("version", Whole),
    field("tier", Text),
    field("promotion", Id),
    field("currency", Text),
    field("discount_minor", Money).also(&["discount_cents"]),
    field("coupon", Id),
    field("paid_at", Time),
    field("completed_at", Time),
    field("cancelled_at", Time),
];

const CATALOG: &[Field] = &[
    field("item", Id).required(),
    field("version", Whole),
    field("kind", Text),
    field("title", Text).required(),
    field("description", Text),
    field("category", List),
    field("tags", List),
    field("price_minor", Money).also(&["price_cents"]),
    field("url", Text),
    field("image", Text),
    field("available", Flag),
    field("visibility", Text),
    field("listed_at", Time),
    field("deleted", Flag),
    field("group", Id),
    field("repeatable", Flag),
    field("sensitive", Flag),
    field("tax_bp", Whole),
    field("stock", Whole),
];

const MEMBERS: &[Field] = &[
    field("member", Id),
    field("session", Id),
    field("version", Whole),
    field("state", Text),
    field("tier", Text),
    field("invited_by", Id),
    field("registered_at", Time),
    field("activated_at", Time),
    field("invite_approved", Flag),
    field("qualified_at", Time),
    field("merged_into", Id),
];

/// The default kind of an item in a CSV file: product lists rarely have one.
const KIND_ABSENT: &str = "good";

const fn fields(topic: Topic) -> &'static [Field] {
    match topic {
        Topic::Interactions => INTERACTIONS,
        Topic::Orders => ORDERS,
        Topic::Catalog => CATALOG,
        Topic::Members => MEMBERS,
        // Written by the program, never imported.
        Topic::Ledger => &[],
    }
}

/// Nested fields of a JSON record: in its lines and refunds.
const NESTED: &[Field] = &[
    field("item", Id),
    field("quantity", Whole),
    field("line", Whole),
    field("unit_price_minor", Money),
    field("discount_minor", Money),
    field("amount_minor", Money),
    field("shipping_minor", Money),
    field("refund", Id),
    field("coupon", Id),
    field("id", Id),
    field("at", Time),
];

/// Checks that `--map` names fields of the topic.
///
/// # Errors
/// A sentence with the field and the valid ones.
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

/// The column of each field.
pub struct Columns {
    topic: Topic,
    of_field: Vec<Option<usize>>,
    /// The column of `--version-from`.
    version: Option<usize>,
    /// Columns of identities, and of money.
    ids: Vec<usize>,
    money: Vec<usize>,
    /// Columns that hold no field of the topic.
    pub unused: Vec<String>,
    count: usize,
}

impl Columns {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// When a required field, or a column that `--map` names, is missing.
    pub fn of(header: &StringRecord, options: &ImportOptions) -> Result<Self, String> {
        let names: Vec<&str> = header.iter().map(str::trim).collect();
        let listed = listed(&names);
        let place = |name: &str| names.iter().position(|column| *column == name);
        let mut of_field = Vec::new();
        for field in fields(options.topic) {
            let found = match mapped(options, field) {
                Some(column) => Some(
                    place(column)
                        .ok_or_else(|| format!("--map {}={column}: the file has no such column; {listed}", field.name))?,
                ),
                None => place(field.name).or_else(|| field.aliases.iter().find_map(|alias| place(alias))),
            };
            if field.required && found.is_none() {
                let known: Vec<&str> = std::iter::once(field.name).chain(field.aliases.iter().copied()).collect();
                return Err(format!(
                    "the file has no column {}; {listed}. Say which one it is with --map {}=COLUMN, or with --delimiter what stands \
                     between the columns",
                    known.join(" or "),
                    field.name
                ));
            }
            of_field.push(found);
        }
        if of_field.iter().all(Option::is_none) {
            return Err(format!("the file has no column that is known here; {listed}. Name its columns with --map FIELD=COLUMN"));
        }
        let version = options
            .version_from
            .as_deref()
            .map(|column| place(column).ok_or_else(|| format!("--version-from {column}: the file has no such column; {listed}")));
        let version = version.transpose()?;
        let used = |n: usize| of_field.contains(&Some(n)) || version == Some(n);
        let unused = names.iter().enumerate().filter(|(n, _)| !used(*n)).map(|(_, name)| cut(name)).collect();
        let of = |reading: Reading| {
            let columns = fields(options.topic).iter().zip(&of_field).filter(|(field, _)| field.reading == reading);
            columns.filter_map(|(_, column)| *column).collect::<Vec<_>>()
        };
        let (ids, money) = (of(Id), of(Money));
        Ok(Self { topic: options.topic, unused, count: names.len(), version, ids, money, of_field })
    }

    /// How many columns there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Identities of a row with surrounding blanks.
    pub fn blanks(&self, row: &StringRecord) -> u64 {
        self.ids.iter().filter(|column| row.get(**column).is_some_and(|text| text.trim().len() < text.len())).count() as u64
    }

    /// Identities of a row that are a null word such as `NULL`.
    pub fn null_words(&self, row: &StringRecord) -> u64 {
        let is_one =
            |text: &str| ["null", "nan", "none", "n/a", "na", "\\n"].contains(&text.trim().to_ascii_lowercase().as_str());
        self.ids.iter().filter(|column| row.get(**column).is_some_and(is_one)).count() as u64
    }

    /// Whether a row has money with decimals.
    pub fn has_decimal_money(&self, row: &StringRecord) -> bool {
        self.money.iter().any(|column| row.get(*column).is_some_and(|text| has_decimals(text.trim())))
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

    /// The text of the topic's n-th field; `None` when empty.
    fn text<'r>(&self, row: &'r StringRecord, n: usize) -> Option<&'r str> {
        self.of_field[n].and_then(|column| row.get(column)).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The order id of a row, if readable.
    pub fn order_of(&self, row: &ByteRecord) -> Option<OrderId> {
        let column = self.of_field[0].filter(|_| self.topic == Topic::Orders)?;
        OrderId::parse(str::from_utf8(row.get(column)?).ok()?.trim()).ok()
    }

    /// The text of a field by its name; `None` when empty.
    pub fn field<'r>(&self, row: &'r StringRecord, name: &str) -> Option<&'r str> {
        let n = fields(self.topic).iter().position(|field| field.name == name)?;
        self.text(row, n)
    }

    /// The version of a row, from the column of `--version-from` or else its own; `None` when empty.
    ///
    /// # Errors
    /// [`Invalid`] naming the field.
    pub fn version(&self, row: &StringRecord, options: &ImportOptions) -> Result<Option<u64>, Invalid> {
        let own =
            |text| u64::try_from(whole_number("version", text)?).map_err(|_| Invalid::new("version", "must not be negative"));
        match self.version {
            Some(_) => self.version_text(row).map(|text| version(text, options)).transpose(),
            None => self.field(row, "version").map(own).transpose(),
        }
    }

    /// The text that holds the version.
    fn version_text<'r>(&self, row: &'r StringRecord) -> Option<&'r str> {
        self.version.and_then(|column| row.get(column)).map(str::trim).filter(|text| !text.is_empty())
    }

    /// A row as a JSON object, for topics with one record a row.
    ///
    /// # Errors
    /// [`Invalid`] naming the unreadable field.
    pub fn object(&self, row: &StringRecord, options: &ImportOptions) -> Result<Map<String, Value>, Invalid> {
        let mut object = Map::new();
        for (n, field) in fields(self.topic).iter().enumerate() {
            if let Some(text) = self.text(row, n) {
                object.insert(field.name.to_owned(), read(field, text, options)?);
            }
        }
        if self.version.is_some() {
            object.remove("version");
        }
        if let Some(text) = self.version_text(row) {
            object.insert("version".to_owned(), Value::from(version(text, options)?));
        }
        if self.topic == Topic::Catalog {
            object.entry("kind").or_insert_with(|| Value::from(KIND_ABSENT));
        }
        complete(&mut object, options);
        Ok(object)
    }
}

fn read(field: &Field, text: &str, options: &ImportOptions) -> Result<Value, Invalid> {
    let name = field.name;
    Ok(match field.reading {
        Text | Id => Value::from(text),
        Whole => Value::from(whole_number(name, text)?),
        Money => Value::from(options.money(name, text)?),
        Decimal => {
            let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
            Value::from(number.ok_or_else(|| Invalid::new(name, format!("{text:?} is not a number")))?)
        }
        Flag => Value::from(flag(name, text)?),
        Time => Value::from(options.time(name, text)?.to_string()),
        List => text.split('|').map(str::trim).filter(|part| !part.is_empty()).collect(),
    })
}

/// The version in the column of `--version-from`: an integer, or a time in milliseconds.
fn version(text: &str, options: &ImportOptions) -> Result<u64, Invalid> {
    let column = options.version_from.as_deref().unwrap_or("version");
    if let Some(number) = text.parse::<u64>().ok().filter(|_| options.time_format.is_none()) {
        return Ok(number);
    }
    let at = options.time(column, text)?;
    u64::try_from(at.0).map_err(|_| Invalid::new(column, "lies before 1970"))
}

/// Truncates a name for a message.
fn cut(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

/// The columns of a file for a message. A first row of data is not shown: it may be about a person.
fn listed(names: &[&str]) -> String {
    let is_data = |name: &&&str| {
        name.contains('@')
            || name.parse::<f64>().is_ok()
            || name.starts_with(['{', '['])
            || name.chars().count() > 2 * NAME_CHARS_MAX
    };
    if names.iter().any(|name| is_data(&name)) {
        return "its first row looks like data, and a CSV file starts with a header".to_owned();
    }
    let more = if names.len() > NAMES_SHOWN { format!(" and {} more", names.len() - NAMES_SHOWN) } else { String::new() };
    format!("it has {}{more}", names.iter().take(NAMES_SHOWN).map(|name| cut(name)).collect::<Vec<_>>().join(", "))
}

/// Whether a JSON record of the topic can be used unchanged.
pub fn is_plain(options: &ImportOptions) -> bool {
    options.topic == Topic::Interactions && options.map.is_empty() && options.time_format.is_none()
}

/// Findings in JSON records.
#[derive(Default)]
pub struct Findings {
    /// Rows without a value.
    pub empty_rows: u64,
    /// Identities with surrounding blanks.
    pub blanks: u64,
    /// Identities that are a null word.
    pub null_words: u64,
    /// Whether money has decimals where minor units are expected.
    pub decimal_money: bool,
}

/// Applies `--map`, `--map-status`, the defaults and the value forms to a JSON record.
///
/// # Errors
/// [`Invalid`] naming the field.
pub fn adapt(object: &mut Map<String, Value>, options: &ImportOptions, found: &mut Findings) -> Result<(), Invalid> {
    if let Some(column) = &options.version_from {
        let said = match object.get(column) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(version(text.trim(), options)?),
            Some(Value::Number(number)) => Some(version(&number.to_string(), options)?),
            _ => None,
        };
        object.remove("version");
        if let Some(said) = said {
            object.insert("version".to_owned(), Value::from(said));
        }
    }
    for field in fields(options.topic) {
        if let Some(column) = mapped(options, field)
            && let Some(value) = object.remove(column)
        {
            object.insert(field.name.to_owned(), value);
        }
    }
    tidy(object, fields(options.topic), "", options, found)?;
    if options.topic == Topic::Orders
        && let Some(Value::String(word)) = object.get("status")
    {
        let status = options.status_of(word)?;
        object.insert("status".to_owned(), Value::from(status.name()));
    }
    complete(object, options);
    Ok(())
}

/// Reads the values of an object as those of a CSV row, unless they have the wanted type already.
fn tidy(
    object: &mut Map<String, Value>,
    fields: &[Field],
    path: &str,
    options: &ImportOptions,
    found: &mut Findings,
) -> Result<(), Invalid> {
    for (name, value) in object.iter_mut() {
        if let Value::Array(values) = value
            && fields.iter().all(|field| field.name != name)
        {
            for (n, value) in values.iter_mut().enumerate() {
                if let Value::Object(below) = value {
                    tidy(below, NESTED, &format!("{path}{name}[{n}]."), options, found)?;
                }
            }
            continue;
        }
        let Some(field) = fields.iter().find(|field| field.name == name) else { continue };
        if let (Id, Value::String(text)) = (field.reading, &*value) {
            let trimmed = text.trim();
            if trimmed.len() < text.len() {
                found.blanks += 1;
                *value = Value::from(trimmed);
            }
            continue;
        }
        let text = match &*value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        let reads = match field.reading {
            Flag | Time => true,
            Whole => value.as_i64().is_none() && value.is_number(),
            Money => {
                found.decimal_money |= !options.decimal_money && has_decimals(&text);
                options.decimal_money || !value.is_i64()
            }
            Text | Id | Decimal | List => false,
        };
        // The decoder reports an empty text best.
        if reads && !text.is_empty() {
            *value = read(field, &text, options).map_err(|error| Invalid::new(format!("{path}{}", error.field), error.reason))?;
        }
    }
    Ok(())
}

/// Fills in defaults: `--version`, `shop.currency`.
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
