//! An API, asked: that of a running server, over HTTP with its service key, or one of this process.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kindred_api::InProcess;
use kindred_config::Loaded;
use kindred_model::{Position, Topic};
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body};

use crate::cli::TargetArgs;
use crate::directory::read_service_key;
use crate::failure::Failure;
use crate::installation::Place;

const URL_VARIABLE: &str = "KINDRED_URL";
const KEY_VARIABLE: &str = "KINDRED_KEY";
const KEY_FILE_VARIABLE: &str = "KINDRED_KEY_FILE";
/// Where a service key is looked for, as a message says it.
const KEY_HELP: &str =
    "give it with --key-file or KINDRED_KEY_FILE (or --key, KINDRED_KEY); it lies in service.key of the server's data directory";
/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to ask how far the views are.
const LOOK: Duration = Duration::from_millis(200);
const JSON: &str = "application/json";
/// Reasons of refused records that are shown of one batch.
const REASONS_SHOWN: usize = 3;
/// The largest answer that is read whole.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the data of a command is.
pub enum Target {
    /// In a directory of this machine, or on services.
    Here(Place),
    /// Behind a running server.
    Server(Remote),
}

impl Target {
    /// What the command line and the environment say: `--url`; else `--data`; else `KINDRED_URL`; else what the settings
    /// name: services, or `data.dir`.
    ///
    /// # Errors
    /// A URL without a key, or one that is none.
    pub fn of(args: &TargetArgs, loaded: &Loaded) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = match (&args.url, &args.data) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(_)) => None,
            (None, None) => variable(URL_VARIABLE),
        };
        let Some(url) = url else {
            return Ok(Self::Here(Place::of(args.data.as_ref(), loaded)?));
        };
        // What the command line says goes before the environment, and both before what lies in the directory.
        let key = match (&args.key, &args.key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(file)) => Some(key_in(file)?),
            (None, None) => match (variable(KEY_VARIABLE), variable(KEY_FILE_VARIABLE)) {
                (Some(key), _) => Some(key),
                (None, Some(file)) => Some(key_in(Path::new(&file))?),
                (None, None) => args.data.as_deref().map(read_service_key).transpose()?.flatten(),
            },
        };
        let key = key.ok_or_else(|| Failure::usage(format!("no service key for {url}")).help(KEY_HELP))?;
        Ok(Self::Server(Remote::new(&url, &key)?))
    }
}

/// The key in a file.
fn key_in(file: &Path) -> Result<String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("could not read the service key in {shown}"))?;
    let key = text.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(Failure::usage(format!("{shown} does not hold a service key alone")).into());
    }
    Ok(key.to_owned())
}

/// An API answered, but not as hoped.
#[derive(Debug, thiserror::Error)]
#[error("{asked}{detail}")]
pub struct AnswerError {
    /// The HTTP status.
    pub status: u16,
    /// What a server was asked for; of the API of this process nothing is said of that.
    asked: String,
    /// What the API says, for a person.
    pub detail: String,
}

/// Adds what helps against an answer of a status.
pub fn helped(status: u16, help: impl Into<String>) -> impl FnOnce(anyhow::Error) -> anyhow::Error {
    move |error| match error.downcast_ref::<AnswerError>() {
        Some(answer) if answer.status == status => {
            let failure = Failure::new(answer.to_string()).help(help);
            error.context(failure)
        }
        _ => error,
    }
}

/// An API: of a server, with the key to it, or of this process.
#[derive(Clone)]
pub struct Remote {
    backend: Backend,
    authorization: String,
}

#[derive(Clone)]
enum Backend {
    Server { agent: Agent, base: String },
    InProcess(Arc<InProcess>),
}

/// What a server did with a batch of records.
pub struct Posted {
    /// The position after the last that was accepted.
    pub position: Position,
    /// How many were not accepted.
    pub refused: u64,
    /// Some of the reasons.
    pub reasons: Vec<String>,
    /// The places of those that met another content under their version.
    pub conflicts: Vec<usize>,
}

impl Remote {
    /// A server at a URL.
    ///
    /// # Errors
    /// When it is no URL of HTTP.
    pub fn new(url: &str, key: &str) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(Failure::usage(format!("{url:?} is no URL")).help("one looks like http://127.0.0.1:8080").into());
        }
        let agent = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            // The status is looked at here, where the body still says why.
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self { backend: Backend::Server { agent, base }, authorization: format!("Bearer {}", key.trim()) })
    }

    /// An API of this process.
    pub fn in_process(api: InProcess) -> Self {
        Self { backend: Backend::InProcess(Arc::new(api)), authorization: String::new() }
    }

    /// The same server, asked with another key or an access token.
    pub fn with_key(&self, key: &str) -> Self {
        Self { authorization: format!("Bearer {}", key.trim()), ..self.clone() }
    }

    /// `GET`, the answer as JSON.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, None)
    }

    /// `GET`, the answer as a stream.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>> {
        let answer = self.send(Method::GET, path, &[], None)?;
        Ok(self.checked(answer, path)?.into_body().into_reader())
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask(Method::POST, path, Some(body))
    }

    /// `PATCH` of JSON.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask(Method::PATCH, path, Some(body))
    }

    /// `PUT` of JSON to what was read just now (`If-Match` of the ETag of `read`): nobody's change is lost.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn change(&self, read: &str, path: &str, body: &Value) -> Result<Value> {
        let answer = self.checked(self.send(Method::GET, read, &[], None)?, read)?;
        let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(|| Failure::new("the server does not tell a version; is it of another version?"))?;
        let answer =
            self.send(Method::PUT, path, &[("content-type", JSON), ("if-match", etag)], Some(body.to_string().into()))?;
        self.json(answer, path)
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.ask(Method::DELETE, path, None)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let headers: &[_] = if body.is_some() { &[("content-type", JSON)] } else { &[] };
        let answer = self.send(method, path, headers, body.map(|body| body.to_string().into()))?;
        self.json(answer, path)
    }

    /// Sends a request with the key, in the language of the commands.
    fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(self.url(path)).header("accept-language", "en");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match &self.backend {
            Backend::Server { agent, base } => {
                let request = request.header("authorization", &self.authorization);
                let answer = match body {
                    Some(body) => agent.run(request.body(body)?),
                    None => agent.run(request.body(())?),
                };
                Ok(answer.map_err(|error| {
                    Failure::new(format!("{base} does not answer: {error}"))
                        .help("is the server running there? `kindred serve` starts one")
                })?)
            }
            Backend::InProcess(api) => {
                let answer = api.answer(request.body(body.unwrap_or_default())?);
                Ok(answer.map(|body| Body::builder().reader(body)))
            }
        }
    }

    /// The shop's currency.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn currency(&self) -> Result<String> {
        let status = self.status()?;
        let currency = status["settings"]["shop"]["currency"].as_str();
        Ok(currency
            .ok_or_else(|| Failure::new("the server does not tell the shop's currency; is it of another version?"))?
            .to_owned())
    }

    /// What `kindred status` shows.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn status(&self) -> Result<Value> {
        self.get("/v1/admin/status")
    }

    /// Posts a batch of records as NDJSON. Repeating it is harmless: records merge by their natural keys.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn post_events(&self, topic: Topic, records: &[Vec<u8>]) -> Result<Posted> {
        let mut body = Vec::new();
        for record in records {
            body.extend_from_slice(record);
            body.push(b'\n');
        }
        let path = format!("/v1/events/{topic}");
        let answer = self.send(Method::POST, &path, &[("content-type", "application/x-ndjson")], Some(body))?;
        if answer.status() == StatusCode::UNPROCESSABLE_ENTITY {
            // Not one of them is acceptable to the server.
            let problem = read_json(answer).unwrap_or_default();
            let reasons = problem["errors"].as_array().into_iter().flatten().take(REASONS_SHOWN);
            let reasons = reasons.map(|error| format!("{} {}", text(&error["pointer"]), text(&error["message"]))).collect();
            return Ok(Posted { position: Position::beginning(), refused: records.len() as u64, reasons, conflicts: Vec::new() });
        }
        let receipt = self.json(answer, &path)?;
        let position = text(&receipt["position"]).parse().map_err(|_| Failure::new("the server gave no position"))?;
        let results = receipt["results"].as_array().into_iter().flatten();
        let refused = results.filter(|result| result["status"] == "rejected");
        let reasons = refused
            .take(REASONS_SHOWN)
            .map(|result| format!("{} {}", text(&result["error"]["pointer"]), text(&result["error"]["message"])));
        let conflicts = receipt["results"].as_array().into_iter().flatten().enumerate();
        let conflicts = conflicts.filter(|(_, result)| result["conflict"] == true).map(|(n, _)| n).collect();
        let refused = receipt["rejected"].as_u64().unwrap_or(0);
        Ok(Posted { position, refused, reasons: reasons.collect(), conflicts })
    }

    /// Waits until the server's views reach a position.
    ///
    /// # Errors
    /// As [`Remote::get`], and when its pipeline has ended.
    pub fn wait_for(&self, position: &Position) -> Result<()> {
        loop {
            let status = self.status()?;
            let reached: Option<Position> = text(&status["position"]).parse().ok();
            if reached.is_some_and(|reached| reached.reaches(position)) {
                return Ok(());
            }
            if status["pipeline"]["state"] == "failed" {
                let reason = text(&status["pipeline"]["reason"]);
                return Err(Failure::new(format!("the server's pipeline has ended: {reason}")).into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn url(&self, path: &str) -> String {
        match &self.backend {
            Backend::Server { base, .. } => format!("{base}{path}"),
            Backend::InProcess(_) => path.to_owned(),
        }
    }

    fn checked(&self, answer: Response<Body>, path: &str) -> Result<Response<Body>> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem = read_json(answer).unwrap_or_default();
        let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("it says no more");
        let asked = match &self.backend {
            Backend::Server { .. } => format!("the server answered {status} to {path}: "),
            Backend::InProcess(_) => String::new(),
        };
        let answer = AnswerError { status: status.as_u16(), asked, detail: detail.to_owned() };
        let text = answer.to_string();
        Err(match status {
            StatusCode::UNAUTHORIZED => anyhow::Error::from(answer).context(Failure::new(text).help(KEY_HELP)),
            // What was given on the command line.
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                anyhow::Error::from(answer).context(Failure::usage(text))
            }
            _ => answer.into(),
        })
    }

    fn json(&self, answer: Response<Body>, path: &str) -> Result<Value> {
        let answer = self.checked(answer, path)?;
        // 204, and 202 where there is nothing to tell.
        if matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::ACCEPTED) {
            return Ok(read_json(answer).unwrap_or(Value::Null));
        }
        read_json(answer).with_context(|| format!("could not read the server's answer to {path}"))
    }
}

fn read_json(answer: Response<Body>) -> Result<Value> {
    let mut bytes = Vec::new();
    answer.into_body().into_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// A member of an answer as text; empty where it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text as a segment of a path.
pub fn segment(text: &str) -> String {
    let mut segment = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id with a slash would name another route.
    #[test]
    fn a_segment_is_percent_encoded() {
        assert_eq!(segment("import:a/b c.csv:0:7"), "import%3Aa%2Fb%20c.csv%3A0%3A7");
        assert_eq!(segment("é~-_."), "%C3%A9~-_.");
    }

    #[test]
    fn a_server_has_a_url_of_http() {
        assert!(Remote::new("127.0.0.1:8080", "k").is_err());
        assert_eq!(Remote::new("http://127.0.0.1:8080/", " k\n").unwrap().url("/livez"), "http://127.0.0.1:8080/livez");
    }
}
