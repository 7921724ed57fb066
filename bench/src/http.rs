//! A minimal HTTP/1.1 client for load: one keep-alive connection, one request at a time, a parser for our servers only. A client
//! library would take the CPU to be measured; all compared servers are driven by this one.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest accepted head; ours have some hundred bytes.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Longest accepted body; a list has a few thousand bytes.
const BODY_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed; a new one may work.
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    /// The response is not supported by this client.
    #[error("could not read the response: {0}")]
    Response(&'static str),
}

/// One response, borrowed from the connection.
#[derive(Debug)]
pub struct Response<'a> {
    /// 200 and so on.
    pub status: u16,
    head: &'a [u8],
    /// The complete body.
    pub body: &'a [u8],
}

impl<'a> Response<'a> {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { address, stream: connect(address).await?, buffer: Vec::with_capacity(16 * 1_024) })
    }

    /// Sends a request, as bytes from [`get`] or [`post`], and reads its response.
    ///
    /// # Errors
    /// [`HttpError`]; then the connection is unusable until [`Connection::reopen`].
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Response<'_>, HttpError> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head_end = loop {
            let seen = self.buffer.len();
            self.read().await?;
            // The blank line may span two reads.
            let from = seen.saturating_sub(3);
            if let Some(place) = self.buffer[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break from + place + 4;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(HttpError::Response("its head is too long"));
            }
        };
        let (status, length) = read_head(&self.buffer[..head_end])?;
        while self.buffer.len() < head_end + length {
            self.read().await?;
        }
        if self.buffer.len() > head_end + length {
            return Err(HttpError::Response("more bytes came than it announced"));
        }
        let (head, body) = self.buffer.split_at(head_end);
        Ok(Response { status, head, body })
    }

    /// Reconnects after a failure.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn reopen(&mut self) -> io::Result<()> {
        self.stream = connect(self.address).await?;
        Ok(())
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Status and body length.
fn read_head(head: &[u8]) -> Result<(u16, usize), HttpError> {
    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let status: u16 = status.filter(|_| head.starts_with(b"HTTP/1.1 ")).ok_or(HttpError::Response("it is no HTTP/1.1"))?;
    if matches!(status, 204 | 304) {
        return Ok((status, 0));
    }
    let length = header(head, "content-length").ok_or(HttpError::Response("it has no content-length"))?;
    let length = length.parse().ok().filter(|length| *length <= BODY_BYTES_MAX);
    Ok((status, length.ok_or(HttpError::Response("its content-length is none"))?))
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (given, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        given.eq_ignore_ascii_case(name.as_bytes()).then(|| std::str::from_utf8(value).ok().map(str::trim)).flatten()
    })
}

/// A GET as bytes. `key` is a service key or a publishable one.
pub fn get(path: &str, host: SocketAddr, key: Option<&str>) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{}\r\n", authorization(key)).into_bytes()
}

/// A POST as bytes.
pub fn post(path: &str, host: SocketAddr, key: Option<&str>, content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let authorization = authorization(key);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn authorization(key: Option<&str>) -> String {
    key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warp::Filter;

    use super::*;

    #[test]
    fn heads_are_read_whatever_the_case_of_their_names() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nkindred-as-of:  i0.7 \r\n\r\n";
        assert_eq!(read_head(head).unwrap(), (200, 5));
        assert_eq!(header(head, "kindred-as-of"), Some("i0.7"));
        assert_eq!(header(head, "kindred"), None);
        assert_eq!(read_head(b"HTTP/1.1 304 Not Modified\r\n\r\n").unwrap(), (304, 0));
        for wrong in
            ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "ICY 200"]
        {
            assert!(read_head(wrong.as_bytes()).is_err(), "{wrong:?} was read");
        }
    }

    /// Responses are read completely, over one connection, against the real server library.
    #[tokio::test]
    async fn a_connection_is_kept_and_bodies_are_whole() {
        let large = "x".repeat(300_000);
        let body = large.clone();
        let read = warp::path!("large").map(move || body.clone());
        let echo = warp::path!("echo").and(warp::post()).and(warp::body::bytes()).map(|bytes: Bytes| {
            let response = warp::http::Response::builder().status(202).header("kindred-as-of", "i0.1");
            response.body(bytes).expect("a valid response")
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(read.or(echo)).incoming(listener).run());

        let mut connection = Connection::open(address).await.unwrap();
        for _ in 0..3 {
            let response = connection.exchange(&get("/large", address, None)).await.unwrap();
            assert_eq!((response.status, response.body.len()), (200, large.len()));
        }
        let request = post("/echo", address, Some("k"), "application/json", b"[1]");
        let response = connection.exchange(&request).await.unwrap();
        assert_eq!((response.status, response.body, response.header("kindred-as-of")), (202, &b"[1]"[..], Some("i0.1")));
        assert_eq!(connection.exchange(&get("/none", address, None)).await.unwrap().status, 404);
    }
}
