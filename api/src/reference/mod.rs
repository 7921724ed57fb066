//! The contract for people: one page of HTML, made from it once. It asks no other host for anything and has no script, so that it is
//! read where there is no internet, too.
//!
//! ```text
//! openapi::text ──▶ Page (groups of operations, components) ──page.html──▶ GET /docs
//! ```

mod kinds;

use std::fmt::Write;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::problem::Code;

use self::kinds::{Field, Piece, fields, pieces};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// The methods of a path item, in the order in which they are shown.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page as HTML.
pub(crate) static PAGE: LazyLock<String> = LazyLock::new(|| {
    let contract: Value = serde_json::from_str(crate::openapi::TEXT).expect("the contract is JSON");
    render(&contract).expect("the template fits to the contract")
});

/// What the page may load: its own style, named by its digest, and nothing else.
pub(crate) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let policy =
        format!("default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    HeaderValue::from_str(&policy).expect("base64 is a header value")
});

fn render(contract: &Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    // By its name it is HTML: what is put into it is escaped.
    environment.add_filter("marked", marked);
    environment.add_template("page.html", TEMPLATE)?;
    environment.get_template("page.html")?.render(Serde(Page::of(contract)))
}

/// Text as HTML, what stands between backticks as code.
fn marked(text: &str) -> minijinja::Value {
    let mut html = String::new();
    for (n, part) in text.split('`').enumerate() {
        let part = HtmlEscape(part);
        let _ = if n % 2 == 1 { write!(html, "<code>{part}</code>") } else { write!(html, "{part}") };
    }
    minijinja::Value::from_safe_string(html)
}

#[derive(Serialize)]
struct Page<'c> {
    style: minijinja::Value,
    title: &'c str,
    description: &'c str,
    groups: Vec<Group<'c>>,
    problems: Vec<Problem>,
    components: Vec<Component<'c>>,
}

/// The operations of a tag.
#[derive(Serialize)]
struct Group<'c> {
    name: &'c str,
    description: &'c str,
    operations: Vec<Operation<'c>>,
}

#[derive(Serialize)]
struct Operation<'c> {
    id: &'c str,
    method: String,
    path: &'c str,
    summary: &'c str,
    description: &'c str,
    /// Each of them is enough.
    keys: Vec<&'c str>,
    parameters: Vec<Field<'c>>,
    bodies: Vec<Body<'c>>,
    answers: Vec<Answer<'c>>,
    curl: String,
}

/// A body of one content type.
#[derive(Serialize)]
struct Body<'c> {
    content_type: &'c str,
    kind: Vec<Piece<'c>>,
    /// As JSON, where there is one.
    example: Option<String>,
}

/// What the `code` of a problem says.
#[derive(Serialize)]
struct Problem {
    code: &'static str,
    status: u16,
    title: &'static str,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Answer<'c> {
    status: &'c str,
    description: &'c str,
    bodies: Vec<Body<'c>>,
    headers: Vec<&'c str>,
}

#[derive(Serialize)]
struct Component<'c> {
    name: &'c str,
    description: &'c str,
    fields: Vec<Field<'c>>,
    /// What it is, where it has no fields.
    kind: Vec<Piece<'c>>,
}

impl<'c> Page<'c> {
    fn of(contract: &'c Value) -> Self {
        let operations: Vec<(&str, Operation<'_>)> = entries(&contract["paths"])
            .flat_map(|(path, item)| METHODS.iter().filter_map(move |method| Some((path, *method, item.get(*method)?))))
            .map(|(path, method, operation)| (text(&operation["tags"][0]), Operation::of(contract, path, method, operation)))
            .collect();
        let mut groups: Vec<Group<'_>> = list(&contract["tags"])
            .map(|tag| Group { name: text(&tag["name"]), description: text(&tag["description"]), operations: Vec::new() })
            .collect();
        for (tag, operation) in operations {
            let group = groups.iter_mut().find(|group| group.name == tag).expect("every tag of an operation is described");
            group.operations.push(operation);
        }
        let component = |(name, schema): (&'c str, &'c Value)| {
            let fields = fields(schema);
            let kind = if fields.is_empty() { pieces(schema) } else { Vec::new() };
            Component { name, description: text(&schema["description"]), fields, kind }
        };
        let problem = |code: &Code| Problem {
            code: code.name(),
            status: code.status().as_u16(),
            title: code.title(),
            meaning: code.meaning(),
        };
        Self {
            style: minijinja::Value::from_safe_string(STYLE.to_owned()),
            title: text(&contract["info"]["title"]),
            description: text(&contract["info"]["description"]),
            groups,
            problems: Code::ALL.iter().map(problem).collect(),
            components: entries(&contract["components"]["schemas"]).map(component).collect(),
        }
    }
}

impl<'c> Operation<'c> {
    fn of(contract: &'c Value, path: &'c str, method: &'c str, operation: &'c Value) -> Self {
        let content = &operation["requestBody"]["content"];
        let keys: Vec<&str> = list(&operation["security"]).flat_map(entries).map(|(scheme, _)| scheme).collect();
        Self {
            id: text(&operation["operationId"]),
            method: method.to_uppercase(),
            path,
            summary: text(&operation["summary"]),
            description: text(&operation["description"]),
            parameters: list(&operation["parameters"]).map(Field::of_parameter).collect(),
            bodies: bodies(content),
            answers: entries(&operation["responses"]).map(|(status, answer)| Answer::of(contract, status, answer)).collect(),
            curl: curl(path, method, operation, !keys.is_empty()),
            keys,
        }
    }
}

impl<'c> Answer<'c> {
    fn of(contract: &'c Value, status: &'c str, answer: &'c Value) -> Self {
        let shared = answer["$ref"].as_str().and_then(|reference| contract.pointer(reference.strip_prefix('#')?));
        let answer = shared.unwrap_or(answer);
        Self {
            status,
            description: text(&answer["description"]),
            bodies: bodies(&answer["content"]),
            headers: entries(&answer["headers"]).map(|(name, _)| name).collect(),
        }
    }
}

fn bodies(content: &Value) -> Vec<Body<'_>> {
    let shown = |example: &Value| serde_json::to_string_pretty(example).expect("JSON");
    entries(content)
        .map(|(content_type, body)| Body { content_type, kind: pieces(&body["schema"]), example: body.get("example").map(shown) })
        .collect()
}

/// A request as it is typed.
fn curl(path: &str, method: &str, operation: &Value, has_key: bool) -> String {
    let mut line = String::from("curl -s");
    if method != "get" {
        line.push_str(&format!(" -X {}", method.to_uppercase()));
    }
    if has_key {
        line.push_str(" -H \"Authorization: Bearer $KEY\"");
    }
    for header in list(&operation["parameters"]).filter(|parameter| parameter["in"] == "header" && parameter["required"] == true)
    {
        line.push_str(&format!(" -H '{}: {}'", text(&header["name"]), header["schema"]["example"].as_str().unwrap_or("…")));
    }
    if let Some((content_type, _)) = entries(&operation["requestBody"]["content"]).next() {
        line.push_str(&format!(" -H 'Content-Type: {content_type}' -d @body"));
    }
    let mut path = path.to_owned();
    for parameter in list(&operation["parameters"]).filter(|parameter| parameter["in"] == "path") {
        let (name, schema) = (text(&parameter["name"]), &parameter["schema"]);
        if let Some(example) = schema["example"].as_str().or(schema["enum"][0].as_str()) {
            path = path.replace(&format!("{{{name}}}"), example);
        }
    }
    format!("{line} \"$URL{path}\"")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an operation or a component would be missing, or a link lead nowhere.
    #[test]
    fn the_page_has_all_of_the_contract_and_its_links_lead_somewhere() {
        let contract: Value = serde_json::from_str(crate::openapi::TEXT).unwrap();
        for (path, item) in entries(&contract["paths"]) {
            for (_, operation) in entries(item) {
                let id = text(&operation["operationId"]);
                assert!(PAGE.contains(&format!("id=\"op-{id}\"")), "{id} of {path}");
            }
        }
        for (name, _) in entries(&contract["components"]["schemas"]) {
            assert!(PAGE.contains(&format!("id=\"{name}\"")), "{name}");
        }
        let links: Vec<&str> = PAGE.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(links.len() > 200, "{}", links.len());
        for link in links.iter().filter_map(|link| link.strip_prefix('#')) {
            assert!(PAGE.contains(&format!("id=\"{link}\"")), "{link} leads nowhere");
        }
        for address in links.iter().filter(|link| !link.starts_with('#')) {
            assert_eq!(*address, "/openapi.json", "the page leads to another host");
        }
        assert!(!PAGE.contains("<script") && !PAGE.contains("src="), "the page loads something");
    }

    /// What a description says is shown, and never run.
    #[test]
    fn what_the_contract_says_is_escaped() {
        let contract = serde_json::json!({
            "info": { "title": "<b>", "description": "a & b" },
            "tags": [{ "name": "t", "description": "<i>" }],
            "paths": { "/x": { "get": { "tags": ["t"], "operationId": "x", "description": "<script> `<u>`", "responses": {} } } },
        });
        let page = render(&contract).unwrap();
        assert!(page.contains("&lt;script&gt; <code>&lt;u&gt;</code>") && page.contains("a &amp; b"), "{page}");
        assert!(!page.contains("<script") && !page.contains("<i>"), "{page}");
    }
}
