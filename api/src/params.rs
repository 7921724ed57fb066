//! Path and query parameters: bounded, decoded, known by name, given once.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kindred_model::{Day, Invalid, Position};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};
use crate::routes::endpoint::Endpoint;

/// Longest query in bytes; an identity is at most 384 bytes percent-encoded.
const QUERY_BYTES_MAX: usize = 4_096;

/// The same for queries with a repeatable parameter.
const REPEATED_BYTES_MAX: usize = 32_768;

/// A percent-decoded path segment, or a 400 when it is not UTF-8.
pub(crate) fn decoded(segment: &str) -> Result<Cow<'_, str>, Problem> {
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Problem::new(Code::MalformedRequest, "the path is not UTF-8 once percent-decoded"))
}

pub(crate) struct Params {
    given: Vec<(&'static str, String)>,
}

impl Params {
    pub fn of(endpoint: &Endpoint, raw: &str) -> Result<Self, Problem> {
        Self::parse(raw, &endpoint.query_names)
    }

    /// Parses a query. `known`: the accepted names and whether each may be repeated.
    pub fn parse(raw: &str, known: &[(&'static str, bool)]) -> Result<Self, Problem> {
        let most = if known.iter().any(|(_, repeated)| *repeated) { REPEATED_BYTES_MAX } else { QUERY_BYTES_MAX };
        if raw.len() > most {
            return Err(Problem::new(Code::MalformedRequest, format!("the query has more than {most} bytes")));
        }
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = form_decoded(key).ok_or_else(|| Problem::new(Code::MalformedRequest, "the query is not UTF-8"))?;
            let Some(&(name, repeated)) = known.iter().find(|(name, _)| *name == key) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let names = if known.is_empty() { "none".to_owned() } else { names.join(", ") };
                let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(Problem::query(&shown, format!("is unknown; accepted: {names}")));
            };
            if !repeated && given.iter().any(|(other, _)| *other == name) {
                return Err(Problem::query(name, "is given twice"));
            }
            let value = form_decoded(value).ok_or_else(|| Problem::query(name, "is not UTF-8"))?;
            given.push((name, value.into_owned()));
        }
        Ok(Self { given })
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given.iter().filter(move |(other, _)| *other == name).map(|(_, value)| &**value)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value)
    }

    pub fn number(&self, name: &str, default: u64, accepted: RangeInclusive<u64>) -> Result<u64, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let (least, most) = (accepted.start(), accepted.end());
        text.parse()
            .ok()
            .filter(|number| accepted.contains(number) && !text.starts_with('+'))
            .ok_or_else(|| Problem::query(name, format!("is not a whole number from {least} to {most}")))
    }

    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(Problem::query(name, "is neither true nor false")),
        }
    }

    pub fn parsed<T: FromStr<Err = Invalid>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.get(name).map(|text| text.parse().map_err(|error: Invalid| Problem::query(name, error.reason))).transpose()
    }

    pub fn day(&self, name: &str) -> Result<Option<Day>, Problem> {
        let accepted = kindred_model::EventTime::MIN.day()..kindred_model::EventTime::END.day();
        match self.parsed::<Day>(name)? {
            Some(day) if !accepted.contains(&day) => Err(Problem::query(name, "is outside of the accepted years 1990 to 2099")),
            day => Ok(day),
        }
    }

    /// The `cursor` parameter, encoded by [`opaque`].
    pub fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        let read = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let wrong = || Problem::query("cursor", "is not a cursor of this server");
        self.get("cursor").map(|text| read(text).ok_or_else(wrong)).transpose()
    }

    pub fn freshness(&self) -> Result<Option<Freshness>, Problem> {
        let wait_ms = self.number("wait_ms", WAIT_MS_DEFAULT, 0..=WAIT_MS_MAX)?;
        Ok(self.parsed::<Position>("min_position")?.map(|min_position| Freshness { min_position, wait_ms }))
    }
}

/// Encodes a cursor as an opaque token.
pub(crate) fn opaque<T: Serialize>(cursor: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(cursor).expect("a cursor serialises"))
}

/// Default of `wait_ms`; a healthy pipeline needs some milliseconds.
const WAIT_MS_DEFAULT: u64 = 1_000;
/// Longest `wait_ms`: below the timeouts of proxies.
pub(crate) const WAIT_MS_MAX: u64 = 10_000;

/// The position that a response must reach, and how long to wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Freshness {
    pub min_position: Position,
    pub wait_ms: u64,
}

/// Decodes `application/x-www-form-urlencoded` text; `None` when it is not UTF-8.
pub(crate) fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?.into_owned();
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, bool)] = &[("limit", false), ("fill", false), ("q", false)];

    #[test]
    fn each_parameter_is_known_and_given_once() {
        assert!(Params::parse("limit=3&fill=true", KNOWN).is_ok());
        for bad in ["limit=3&limit=4", "limit=3&other=1", "q=%ff", "%ff=1", "lim%69t=1&limit=1"] {
            assert!(Params::parse(bad, KNOWN).is_err(), "{bad} was accepted");
        }
        let params = Params::parse("q=a%20b+c&limit=50", KNOWN).ok().unwrap();
        assert_eq!(params.get("q"), Some("a b c"));
        assert_eq!(params.number("limit", 12, 1..=50).ok(), Some(50));
        for bad in ["limit=0", "limit=51", "limit=-1", "limit=%2B5", "limit=", "limit=1e1", "limit=NaN"] {
            assert!(Params::parse(bad, KNOWN).ok().unwrap().number("limit", 12, 1..=50).is_err(), "{bad} was accepted");
        }
        assert!(Params::parse("fill=1", KNOWN).ok().unwrap().boolean("fill", true).is_err());
        assert!(Params::parse(&"a".repeat(5_000), KNOWN).is_err());
    }
}
