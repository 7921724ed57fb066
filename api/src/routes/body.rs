//! Request bodies, limited while they are read: `warp::body::bytes` reads without bound, and `content_length_limit` answers 411
//! to a chunked body. The bytes of all bodies in memory are bounded too, in total and per address.
//!
//! ```text
//! chunk ──BodyBudget──▶ Body, which returns its bytes to the budget when dropped      exceeded ──▶ 503
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::HeaderMap;
use parking_lot::Mutex;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::endpoint::Need;
use super::request::{Request, header};
use crate::api::Api;
use crate::problem::{Code, Problem};

pub(crate) type Incoming = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// Largest JSON body of an administrative request.
const SMALL_BODY_BYTES_MAX: usize = 1 << 20;

/// Largest JSON body of other requests: a profile with 20 addresses.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Initial allocation: a client need not send what `Content-Length` announces.
const FIRST_BYTES: usize = 64 << 10;

/// Limits the bytes of all request bodies in memory.
pub(crate) struct BodyBudget {
    most: usize,
    most_of_address: usize,
    held: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

impl BodyBudget {
    pub fn new(most: usize, most_of_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_address, held: Mutex::default() })
    }

    fn begin(self: &Arc<Self>, address: Option<IpAddr>, bytes: usize) -> Body {
        Body { bytes: Vec::with_capacity(bytes.min(FIRST_BYTES)), bodies: self.clone(), address, held: 0 }
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.held.lock().0
    }
}

/// A body in memory. Its bytes count until it is dropped.
pub(crate) struct Body {
    bytes: Vec<u8>,
    bodies: Arc<BodyBudget>,
    address: Option<IpAddr>,
    held: usize,
}

impl Body {
    fn take(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        let refused = |whose: &'static str| {
            metrics::counter!("api_bodies_refused_total").increment(1);
            Err(Problem::new(Code::Busy, whose).retry_after(1))
        };
        let mut held = self.bodies.held.lock();
        let (total, of_address) = &mut *held;
        if *total + chunk.len() > self.bodies.most {
            return refused("too many request bytes in progress");
        }
        if let Some(address) = self.address {
            let of_address = of_address.entry(address).or_default();
            if *of_address + chunk.len() > self.bodies.most_of_address {
                return refused("too many request bytes in progress from this address");
            }
            *of_address += chunk.len();
        }
        *total += chunk.len();
        self.held += chunk.len();
        drop(held);
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

impl std::ops::Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut held = self.bodies.held.lock();
        held.0 -= self.held;
        let Some(address) = self.address else { return };
        if let Some(of_address) = held.1.get_mut(&address) {
            *of_address -= self.held;
            if *of_address == 0 {
                held.1.remove(&address);
            }
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An unread body with the headers that describe it.
pub(crate) struct UnreadBody {
    content_type: Option<String>,
    content_length: Option<String>,
    content_encoding: Option<String>,
    address: Option<IpAddr>,
    incoming: Incoming,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BodyFormat {
    Json,
    Ndjson,
}

impl UnreadBody {
    pub fn of<B: Buf>(
        headers: &HeaderMap,
        address: Option<IpAddr>,
        body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Result<Self, Problem> {
        let owned = |name| header(headers, name).map(|value| value.map(str::to_owned));
        Ok(Self {
            content_type: owned("content-type")?,
            content_length: owned("content-length")?,
            content_encoding: owned("content-encoding")?,
            address,
            incoming: body.map_ok(|mut chunk| chunk.copy_to_bytes(chunk.remaining())).boxed(),
        })
    }

    /// The format, or a 415. HTML forms are refused, so other sites cannot post one.
    pub fn form(&self) -> Result<BodyFormat, Problem> {
        let refused = |what: &str| {
            let detail = format!("{what}; accepted: application/json or application/x-ndjson, in UTF-8 and uncompressed");
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        };
        if self.content_encoding.as_deref().is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return refused("the body is compressed");
        }
        let Some(content_type) = &self.content_type else { return refused("there is no Content-Type") };
        let mut parts = content_type.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") {
                return refused("the charset is not UTF-8");
            }
        }
        match &*essence {
            "application/json" => Ok(BodyFormat::Json),
            "application/x-ndjson" => Ok(BodyFormat::Ndjson),
            _ => refused("unsupported Content-Type"),
        }
    }

    /// Reads and drops the body of an endpoint that takes none: hyper closes a connection with an unread body.
    pub async fn ignore(self, api: &Api) -> Result<(), Problem> {
        self.read_small(api).await.map(drop)
    }

    pub async fn read_small(self, api: &Api) -> Result<Body, Problem> {
        self.read(api, SMALL_BODY_BYTES_MAX).await
    }

    /// Reads at most `most` bytes. Errors: 413, 408 after `body_read_ms`, 400 when the connection breaks, 503 when the budget is
    /// exceeded.
    pub async fn read(self, api: &Api, most: usize) -> Result<Body, Problem> {
        let too_large =
            || Problem::new(Code::PayloadTooLarge, format!("the body has more than {most} bytes; nothing was processed"));
        let announced = self.content_length.and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let mut incoming = self.incoming;
        let reading = async {
            let mut body = api.bodies.begin(self.address, usize::try_from(announced.unwrap_or(0)).unwrap_or(0));
            while let Some(chunk) = incoming.next().await {
                let chunk = chunk.map_err(|_| Problem::new(Code::MalformedRequest, "the body is incomplete"))?;
                if body.len() + chunk.len() > most {
                    return Err(too_large());
                }
                body.take(&chunk)?;
            }
            if body.starts_with(BYTE_ORDER_MARK) {
                body.bytes.drain(..BYTE_ORDER_MARK.len());
            }
            Ok(body)
        };
        let within = Duration::from_millis(api.config.limits.body_read_ms);
        tokio::time::timeout(within, reading)
            .await
            .unwrap_or_else(|_| Err(Problem::new(Code::RequestTimeout, format!("the body did not arrive within {within:?}"))))
    }

    /// Reads a JSON object. Unknown and repeated fields are refused; input is never echoed in the error.
    pub async fn json<T: DeserializeOwned>(self, request: &Request) -> Result<T, Problem> {
        if self.form()? != BodyFormat::Json {
            return Err(Problem::new(Code::UnsupportedMediaType, "the body must be application/json"));
        }
        let of_staff = matches!(request.endpoint.need, Need::Staff(_));
        let most = if of_staff { SMALL_BODY_BYTES_MAX } else { FORM_BYTES_MAX };
        let bytes = self.read(&request.api, most).await?;
        read_object(&bytes).map_err(|misread| match misread {
            BodyError::NotJson => Problem::new(Code::MalformedJson, "the body is not one valid JSON value"),
            BodyError::Field { pointer, code } => {
                let message = match code {
                    "unknown_field" => "unknown field",
                    "missing_field" => "required field",
                    "duplicate_field" => "duplicate field",
                    _ => "wrong type or not an accepted value",
                };
                request.invalid(pointer, code, message)
            }
        })
    }
}

#[derive(Debug)]
pub(crate) enum BodyError {
    NotJson,
    Field {
        /// JSON pointer (RFC 6901); empty for the whole body or an unknown place.
        pointer: String,
        /// `unknown_field`, `missing_field`, `duplicate_field` or `invalid`.
        code: &'static str,
    },
}

pub(crate) fn read_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    // First, since serde reports some type errors as syntax errors.
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|_| BodyError::NotJson)?;
    // serde accepts an array as a struct.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(BodyError::Field { pointer: String::new(), code: "invalid" });
    }
    let reader = &mut serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(reader).map_err(|error| misread(&error))
}

fn misread(error: &serde_path_to_error::Error<serde_json::Error>) -> BodyError {
    let reason = error.inner().to_string();
    let code = [("unknown field", "unknown_field"), ("missing field", "missing_field"), ("duplicate field", "duplicate_field")];
    let code = code.iter().find(|(begins, _)| reason.starts_with(begins)).map(|(_, code)| *code);
    let mut pointer = String::new();
    for segment in error.path().iter() {
        match segment {
            serde_path_to_error::Segment::Map { key } => pointer.push_str(&crate::problem::pointer(key)),
            serde_path_to_error::Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => {}
        }
    }
    if let Some(field) = named_in(&reason).filter(|_| code.is_some()) {
        let last = crate::problem::pointer(field);
        // The path of a missing field is that of its object.
        if code == Some("missing_field") || !pointer.ends_with(&last) {
            pointer.push_str(&last);
        }
    }
    BodyError::Field { pointer, code: code.unwrap_or("invalid") }
}

/// The field name in a serde message: "missing field `a` at line 1", "unknown field `a`, expected `b` or `c`". The name may
/// contain anything, quotes too.
fn named_in(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once('`')?;
    let end = ["`, expected ", "`, there are no fields", "`"].iter().find_map(|end| rest.rfind(end))?;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is read alone")]
    struct Named {
        name: String,
        #[serde(default)]
        list: Vec<Named>,
    }

    /// If it failed, a form would mark another field than the one that is wrong.
    #[test]
    fn a_field_is_pointed_at_whatever_its_name() {
        let pointed = |text: &str| match read_object::<Named>(text.as_bytes()).unwrap_err() {
            BodyError::Field { pointer, code, .. } => format!("{code} {pointer}"),
            BodyError::NotJson => "not JSON".to_owned(),
        };
        for (text, expected) in [
            (r#"{"name":"n","x`y/z":1}"#, "unknown_field /x`y~1z"),
            (r#"{"name":"n","list":[{"name":"m","`":1}]}"#, "unknown_field /list/0/`"),
            (r#"{"name":"n","list":[{"name":"m"},{}]}"#, "missing_field /list/1/name"),
            (r#"{"name":"n","name":"m"}"#, "duplicate_field /name"),
            (r#"{"name":"n","list":[{"name":5}]}"#, "invalid /list/0/name"),
            (r#"["n"]"#, "invalid "),
            (r#"{"name":"n"} x"#, "not JSON"),
        ] {
            assert_eq!(pointed(text), expected, "{text}");
        }
    }
}
