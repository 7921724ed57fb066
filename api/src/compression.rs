//! Compresses responses with gzip for clients that accept it.
//!
//! ```text
//! text response of a GET, 1 KB or more, not an event stream ──Accept-Encoding──▶ gzip, compressed piece by piece as it is sent
//! ```

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream, TryStreamExt};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyStream;
use hyper::body::Body;
use warp::Reply;
use warp::reply::Response;

/// Smaller responses fit into one packet anyway.
const LEAST_BYTES: u64 = 1_000;
/// Bytes compressed at once (about 0.3 ms), so that a large response does not block others on its thread.
const PIECE_BYTES: usize = 32 << 10;

/// Whether a request accepts gzip (RFC 9110, 12.5.3).
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted =
        headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut any = None;
    for coding in accepted {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight: f32 = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse().ok()).unwrap_or(1.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return weight > 0.0,
            "*" => any = Some(weight > 0.0),
            _ => {}
        }
    }
    any.unwrap_or(false)
}

pub(crate) fn compress(accepts_gzip: bool, mut response: Response) -> Response {
    if !is_compressible(&response) {
        return response;
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    if !accepts_gzip {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // The encoded body needs a weak validator (RFC 9110, 8.8.1).
    let weak = parts.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).filter(|etag| !etag.starts_with("W/"));
    if let Some(weak) = weak.and_then(|etag| HeaderValue::from_str(&format!("W/{etag}")).ok()) {
        parts.headers.insert(ETAG, weak);
    }
    let body = warp::reply::stream(gzip(body)).into_response().into_body();
    Response::from_parts(parts, body)
}

fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let content_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = content_type.starts_with("text/") && content_type != "text/event-stream"
        || ["application/json", "application/javascript", "application/x-ndjson", "image/svg+xml"].contains(&&*content_type);
    // `If-Match` compares strongly, so the ETag of a versioned resource stays strong.
    let is_versioned = headers.contains_key(ETAG) && header(CACHE_CONTROL).contains("no-store");
    response.status() == StatusCode::OK
        && is_text
        && !is_versioned
        && !headers.contains_key(CONTENT_ENCODING)
        && response.body().size_hint().exact().is_none_or(|bytes| bytes >= LEAST_BYTES)
}

struct Gzip<S> {
    /// `None` after the end was sent.
    encoder: Option<GzEncoder<Vec<u8>>>,
    pieces: S,
    /// The rest of the current piece.
    rest: Bytes,
}

fn gzip(
    body: impl Body<Data = Bytes, Error = warp::Error> + Send + Sync + 'static,
) -> impl Stream<Item = Result<Bytes, warp::Error>> {
    let pieces = BodyStream::new(body).try_filter_map(async |frame| Ok(frame.into_data().ok()));
    let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    stream::try_unfold(Gzip { encoder, pieces: Box::pin(pieces), rest: Bytes::new() }, async |mut gzip| {
        loop {
            let Some(encoder) = &mut gzip.encoder else { return Ok(None) };
            let piece = if gzip.rest.is_empty() {
                match gzip.pieces.try_next().await? {
                    Some(piece) => gzip.rest = piece,
                    None => {
                        let end = gzip.encoder.take().map(GzEncoder::finish).and_then(Result::ok).unwrap_or_default();
                        return Ok(Some((Bytes::from(end), gzip)));
                    }
                }
                continue;
            } else {
                gzip.rest.split_to(gzip.rest.len().min(PIECE_BYTES))
            };
            // Writing to memory does not fail.
            let _ = encoder.write_all(&piece);
            let out = std::mem::take(encoder.get_mut());
            if !out.is_empty() {
                return Ok(Some((Bytes::from(out), gzip)));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn an_encoding_is_taken_by_its_weight() {
        let takes =
            |accepted: &'static str| accepts_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepted))]));
        assert!(takes("gzip, deflate, br") && takes("br;q=1, gzip;q=0.2") && takes("*") && takes("GZIP"));
        assert!(!takes("br") && !takes("gzip;q=0, *") && !takes("") && !takes("identity") && !takes("*;q=0"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    /// If it failed, a browser would be shown something else than was served.
    #[tokio::test]
    async fn what_is_compressed_reads_back() {
        let text: String = (0..60_000).map(|n| format!("{n} ")).collect();
        let answer = |text: &str, content_type: &'static str| {
            let mut response = Response::new(text.to_owned().into());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            response.headers_mut().insert(ETAG, HeaderValue::from_static("\"a\""));
            response
        };
        let packed = compress(true, answer(&text, "application/json; charset=utf-8"));
        assert!(packed.headers()[CONTENT_ENCODING] == "gzip" && packed.headers()[ETAG] == "W/\"a\"");
        let bytes = packed.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() * 2 < text.len());
        let mut read = String::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut read).unwrap();
        assert!(read == text);
        for (takes, text, content_type) in [
            (false, &*text, "text/html"),
            (true, "short", "text/html"),
            (true, &text, "text/event-stream"),
            (true, &text, "image/png"),
        ] {
            let plain = compress(takes, answer(text, content_type));
            assert!(!plain.headers().contains_key(CONTENT_ENCODING) && plain.headers()[ETAG] == "\"a\"", "{content_type}");
        }
    }
}
