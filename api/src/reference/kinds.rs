//! JSON Schema in words: what a value is, with links to the components that it names.

use serde::Serialize;
use serde_json::Value;

use super::{entries, list, text};

/// A few words; a link where they are the name of a component.
#[derive(PartialEq, Eq, Debug, Serialize)]
pub(super) struct Piece<'c> {
    text: String,
    component: Option<&'c str>,
}

fn words(text: impl Into<String>) -> Piece<'static> {
    Piece { text: text.into(), component: None }
}

/// A field of an object, or a parameter.
#[derive(Serialize)]
pub(super) struct Field<'c> {
    name: &'c str,
    /// Where a parameter stands.
    place: &'c str,
    required: bool,
    kind: Vec<Piece<'c>>,
    description: &'c str,
}

impl<'c> Field<'c> {
    /// A parameter as the contract describes it.
    pub fn of_parameter(parameter: &'c Value) -> Self {
        Self {
            name: text(&parameter["name"]),
            place: text(&parameter["in"]),
            required: parameter["required"] == true,
            kind: pieces(&parameter["schema"]),
            description: text(&parameter["description"]),
        }
    }
}

/// The fields of an object; of what is put together by `allOf`, those of its own parts.
pub(super) fn fields(schema: &Value) -> Vec<Field<'_>> {
    let parts = std::iter::once(schema).chain(list(&schema["allOf"]));
    parts
        .flat_map(|part| {
            let required = move |name: &str| list(&part["required"]).any(|field| field == name);
            entries(&part["properties"]).map(move |(name, field)| Field {
                name,
                place: "",
                required: required(name),
                kind: pieces(field),
                description: text(&field["description"]),
            })
        })
        .fold(Vec::new(), |mut fields: Vec<Field<'_>>, field| {
            // A condition on a field repeats it.
            if fields.iter().all(|known| known.name != field.name) {
                fields.push(field);
            }
            fields
        })
}

/// What a value is.
pub(super) fn pieces(schema: &Value) -> Vec<Piece<'_>> {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return vec![Piece { text: name.to_owned(), component: Some(name) }];
    }
    for (choice, joint) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if let Some(choices) = schema[choice].as_array().filter(|_| schema["properties"].is_null()) {
            return joined(choices, joint);
        }
    }
    if let Some(taken) = schema["enum"].as_array() {
        let taken: Vec<String> =
            taken.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), |word| format!("“{word}”"))).collect();
        return vec![words(taken.join(" or "))];
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let mut pieces = Vec::new();
    for (n, kind) in types.iter().enumerate() {
        if n > 0 {
            pieces.push(words(" or "));
        }
        match *kind {
            "array" => {
                pieces.push(words("list of "));
                pieces.extend(self::pieces(&schema["items"]));
            }
            "object" => pieces.push(words(object(schema))),
            kind => pieces.push(words(scalar(kind, schema))),
        }
    }
    if pieces.is_empty() { vec![words("any")] } else { pieces }
}

fn joined<'c>(choices: &'c [Value], joint: &str) -> Vec<Piece<'c>> {
    let mut joined = Vec::new();
    for choice in choices {
        if !joined.is_empty() {
            joined.push(words(joint));
        }
        joined.extend(pieces(choice));
    }
    joined
}

fn object(schema: &Value) -> String {
    let names: Vec<&str> = entries(&schema["properties"]).map(|(name, _)| name).collect();
    if names.is_empty() { "object".to_owned() } else { format!("object of {}", names.join(", ")) }
}

/// Its type, its format and its bounds.
fn scalar(kind: &str, schema: &Value) -> String {
    let mut shown = match schema["format"].as_str() {
        Some(format) if kind == "string" => format!("{kind} ({format})"),
        _ => kind.to_owned(),
    };
    for (least, most, unit) in [("minimum", "maximum", ""), ("minLength", "maxLength", " characters")] {
        match (kind, &schema[least], &schema[most]) {
            ("null" | "boolean", ..) | (_, Value::Null, Value::Null) => {}
            (_, least, Value::Null) => shown.push_str(&format!(", from {least}{unit}")),
            (_, Value::Null, most) => shown.push_str(&format!(", to {most}{unit}")),
            (_, least, most) => shown.push_str(&format!(", {least} to {most}{unit}")),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_told_in_words() {
        let told = |schema: Value| pieces(&schema).into_iter().map(|piece| piece.text).collect::<String>();
        assert_eq!(told(json!({ "type": "integer", "minimum": 1, "maximum": 50 })), "integer, 1 to 50");
        assert_eq!(told(json!({ "type": ["string", "null"], "maxLength": 9 })), "string, to 9 characters or null");
        assert_eq!(told(json!({ "type": "array", "items": { "$ref": "#/components/schemas/Order" } })), "list of Order");
        assert_eq!(told(json!({ "enum": ["a", null] })), "“a” or null");
        assert_eq!(
            told(json!({ "anyOf": [{ "type": "object", "properties": { "x": {} } }, { "type": "null" }] })),
            "object of x or null"
        );
        assert_eq!(told(json!({})), "any");
    }
}
