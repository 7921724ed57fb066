//! Decodes bytes to the raw form of a record, whose fields are all optional, so that errors name the missing or wrong field.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_path_to_error::Segment;

use super::{Invalid, RECORD_BYTES_MAX};

/// The longest field name of ours.
const FIELD_BYTES_MAX: usize = 32;

/// Decodes one JSON object to its raw form; the error names the field.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Invalid> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Invalid::new("", format!("the record has {} bytes; at most {RECORD_BYTES_MAX} are accepted", bytes.len())));
    }
    // The whole record, because a parser checks only the fields it reads.
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Invalid::new("", format!("the record is not UTF-8: byte {} begins no character", error.valid_up_to()))
    })?;
    let read: Result<Object<T>, _> = serde_json::from_str(text);
    read.map(|Object(raw)| raw).map_err(|first| {
        // Parse a failed record a second time, to find the path.
        let mut reader = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
            Err(error) => {
                let field = field(error.path()).unwrap_or_default();
                Invalid::new(field, reason(error.inner()))
            }
            Ok(_) => Invalid::new("", reason(&first)),
        }
    })
}

/// The path in our notation. NB: JSON may be cut within an unknown field, whose name is arbitrary.
fn field(path: &serde_path_to_error::Path) -> Option<String> {
    let mut field = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => field.push_str(&format!("[{index}]")),
            Segment::Map { key } => {
                let is_name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                if !is_name || key.len() > FIELD_BYTES_MAX {
                    return None;
                }
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(key);
            }
            Segment::Enum { .. } | Segment::Unknown => return None,
        }
    }
    Some(field)
}

fn reason(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
        serde_json::error::Category::Eof => "the record is not whole JSON: it ends too early".to_owned(),
        _ => format!("the record is not JSON: {error}"),
    }
}

/// A JSON object as a `T`. serde alone would also read a struct from an array, by position.
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// A text that borrows from the record unless it has escapes. (An optional `Cow` never borrows in serde.)
pub(crate) struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;

        impl<'de> Visitor<'de> for OfText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(OfText)
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<Text<'_>> for Box<str> {
    fn from(text: Text<'_>) -> Self {
        text.0.into()
    }
}
