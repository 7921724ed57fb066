//! Renders the contract as one HTML page without scripts or external resources.
//!
//! ```text
//! openapi::TEXT ──page.html──▶ GET /docs
//! ```

use std::fmt::Write;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape, UndefinedBehavior, Value, context};
use sha2::{Digest, Sha256};

use crate::problem::Code;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

pub(crate) static PAGE: LazyLock<String> = LazyLock::new(|| {
    let contract = serde_json::from_str(crate::openapi::TEXT).expect("the contract is JSON");
    render(contract).expect("the template fits the contract")
});

/// The CSP of the page: its own style, by digest, and nothing else.
pub(crate) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let policy =
        format!("default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    HeaderValue::from_str(&policy).expect("base64 is a header value")
});

fn render(contract: serde_json::Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.add_filter("marked", marked);
    environment.add_filter("pretty", |value: Value| serde_json::to_string_pretty(&value).expect("JSON"));
    // The extension of the name turns escaping on.
    environment.add_template("page.html", TEMPLATE)?;
    let problems: Vec<_> =
        Code::ALL.iter().map(|code| (code.name(), code.status().as_u16(), code.title(), code.meaning())).collect();
    let style = Value::from_safe_string(STYLE.to_owned());
    environment.get_template("page.html")?.render(context! { contract => Serde(contract), problems => Serde(problems), style })
}

/// Escapes text; text in backticks becomes code.
fn marked(text: &str) -> Value {
    let mut html = String::new();
    for (n, part) in text.split('`').enumerate() {
        let part = HtmlEscape(part);
        let _ = if n % 2 == 1 { write!(html, "<code>{part}</code>") } else { write!(html, "{part}") };
    }
    Value::from_safe_string(html)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// If it failed, an operation or a component would be missing, or a link lead nowhere.
    #[test]
    fn the_page_has_all_of_the_contract_and_its_links_lead_somewhere() {
        let contract: serde_json::Value = serde_json::from_str(crate::openapi::TEXT).unwrap();
        for operation in contract["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values()) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(PAGE.contains(&format!("id=\"op-{id}\"")), "{id}");
        }
        for name in contract["components"]["schemas"].as_object().unwrap().keys() {
            assert!(PAGE.contains(&format!("id=\"{name}\"")), "{name}");
        }
        let links: Vec<&str> = PAGE.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(links.len() > 200, "{}", links.len());
        for link in links {
            match link.strip_prefix('#') {
                Some(id) => assert!(PAGE.contains(&format!("id=\"{id}\"")), "{id} leads nowhere"),
                None => assert_eq!(link, "/openapi.json", "the page leads to another host"),
            }
        }
        assert!(!PAGE.contains("<script") && !PAGE.contains("src="), "the page loads something");
    }

    /// Descriptions are shown and never run.
    #[test]
    fn what_the_contract_says_is_escaped() {
        let page = render(json!({
            "info": { "title": "<b>", "description": "a & b" },
            "tags": [{ "name": "t", "description": "<i>" }],
            "paths": { "/x": { "get": { "tags": ["t"], "operationId": "x", "description": "<script> `<u>`", "responses": {} } } },
            "components": { "schemas": {} },
        }));
        let page = page.unwrap();
        assert!(page.contains("&lt;script&gt; <code>&lt;u&gt;</code>") && page.contains("a &amp; b"), "{page}");
        assert!(!page.contains("<script") && !page.contains("<i>"), "{page}");
    }

    #[test]
    fn types_are_described_in_words() {
        let described = |schema: serde_json::Value| {
            let schemas = json!({ "X": { "properties": { "x": schema }, "allOf": [{ "required": ["x"] }] } });
            let contract =
                json!({ "info": { "description": "" }, "tags": [], "paths": {}, "components": { "schemas": schemas } });
            let page = render(contract).unwrap();
            let row = page.split("id=\"X\"").nth(1).unwrap();
            row.split("<td>").nth(1).unwrap().split("</td>").next().unwrap().to_owned()
        };
        assert_eq!(described(json!({ "type": "integer", "minimum": 0, "maximum": 50 })), "integer, 0 to 50");
        assert_eq!(described(json!({ "type": ["string", "null"], "maxLength": 9 })), "string, to 9 characters or null");
        let orders = json!({ "type": "array", "items": { "$ref": "#/components/schemas/Order" } });
        assert_eq!(described(orders), "list of <a href=\"#Order\">Order</a>");
        assert_eq!(described(json!({ "enum": ["a", null] })), "“a” or null");
        let choice = json!({ "anyOf": [{ "type": "object", "properties": { "y": {} } }, { "type": "null" }] });
        assert_eq!(described(choice), "object of y or null");
        assert_eq!(described(json!({})), "any");
    }
}
