//! Record keys, by which Kafka partitions and compacts.
//!
//! ```text
//! interactions, members: member:ID or session:ID     orders: the order     catalog: the item     ledger: member, tab, entry
//! ```
//!
//! A member and a session may share a name, and compaction of `members` must not mix them up: hence the prefixes. Results depend
//! on no key: another producer may key differently, or not at all.

use std::borrow::Cow;

use kindred_model::Topic;
use serde::Deserialize;

/// The fields used in keys; the rest of a record is skipped.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    member: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    order: Option<Cow<'a, str>>,
    #[serde(borrow)]
    item: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entry: Option<Cow<'a, str>>,
}

/// The key of a record; `None` if it is not JSON or lacks the field.
pub(super) fn key(topic: Topic, payload: &[u8]) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(payload).ok()?;
    let key = match topic {
        Topic::Orders => fields.order?.into_owned(),
        Topic::Catalog => fields.item?.into_owned(),
        Topic::Interactions | Topic::Members => match (fields.member, fields.session) {
            (Some(member), _) => format!("member:{member}"),
            (None, Some(session)) => format!("session:{session}"),
            (None, None) => return None,
        },
        // Identities hold no tab.
        Topic::Ledger => format!("{}\t{}", fields.member?, fields.entry.unwrap_or_default()),
    };
    (!key.is_empty()).then(|| key.into_bytes())
}

/// A unique key: brokers refuse unkeyed records in a compacted topic, and a record without a key of its own must not be compacted
/// away before its reader rejects it.
pub(super) fn unique() -> Vec<u8> {
    format!("unkeyed:{}", uuid::Uuid::now_v7()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(topic: Topic, payload: &str) -> Option<String> {
        key(topic, payload.as_bytes()).map(|key| String::from_utf8(key).unwrap())
    }

    #[test]
    fn keys_are_the_natural_identities() {
        let interaction =
            r#"{"kind":"view","item":"i1","member":"caf\u00e9","nested":{"order":"x"},"at":"2026-01-05T10:11:12Z"}"#;
        assert_eq!(keyed(Topic::Interactions, interaction).as_deref(), Some("member:café"));
        assert_eq!(keyed(Topic::Catalog, interaction).as_deref(), Some("i1"));
        assert_eq!(keyed(Topic::Orders, interaction), None, "what lies deeper is not the order");
        let order = r#"{"order":"o1","member":null,"version":3}"#;
        assert_eq!(keyed(Topic::Orders, order).as_deref(), Some("o1"));
        assert_eq!(keyed(Topic::Members, order), None);
        let merged = r#"{"session":"s","version":1,"merged_into":"m"}"#;
        assert_eq!(keyed(Topic::Members, merged).as_deref(), Some("session:s"));
        let entry = r#"{"member":"m","entry":"e1","kind":"spend"}"#;
        assert_eq!(keyed(Topic::Ledger, entry).as_deref(), Some("m\te1"));
        assert_eq!(keyed(Topic::Ledger, r#"{"member":"m","erased":true}"#).as_deref(), Some("m\t"));
        for wrong in ["", "null", "[]", "{", r#"{"order":3}"#, r#"{"order":""}"#, r#"{"order":"a","order":"b"}"#] {
            assert_eq!(keyed(Topic::Orders, wrong), None, "{wrong} has a key");
        }
        assert_ne!(unique(), unique());
    }
}
