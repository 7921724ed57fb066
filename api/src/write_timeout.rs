//! Closes connections whose client does not read its response.
//!
//! ```text
//! hyper ──write──▶ WriteTimeout ──▶ socket      fewer than 16 KiB written within `stall` ──▶ TimedOut, which ends the connection
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Bytes to be written before the timer restarts: a client that reads one byte a second does not hold a connection for ever.
const PROGRESS_BYTES: usize = 16 << 10;
/// Socket send buffer; the default would grow to about 4 MB per client that does not read.
const SEND_BUFFER_BYTES: usize = 256 << 10;

pub(crate) struct WriteTimeout {
    stream: TcpStream,
    stall: Duration,
    /// The timer of a blocked write, and the bytes written since it started.
    waiting: Option<Pin<Box<Sleep>>>,
    passed: usize,
}

impl WriteTimeout {
    pub fn new(stream: TcpStream, stall: Duration) -> Self {
        let socket = SockRef::from(&stream);
        // Bounds unacknowledged data too, also after the response is complete.
        #[cfg(target_os = "linux")]
        if let Err(error) = socket.set_tcp_user_timeout(Some(stall)) {
            tracing::debug!("could not set TCP_USER_TIMEOUT: {error}");
        }
        if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER_BYTES) {
            tracing::debug!("could not set SO_SNDBUF: {error}");
        }
        Self { stream, stall, waiting: None, passed: 0 }
    }

    fn check(
        &mut self,
        context: &mut Context<'_>,
        requested: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(passed)) => {
                self.passed += passed;
                if passed == requested || self.passed >= PROGRESS_BYTES {
                    (self.waiting, self.passed) = (None, 0);
                }
                Poll::Ready(Ok(passed))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.stall)));
                waiting.as_mut().poll(context).map(|()| {
                    metrics::counter!("api_connections_cut_total").increment(1);
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
                })
            }
        }
    }
}

impl AsyncRead for WriteTimeout {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteTimeout {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.check(context, parts.iter().map(|part| part.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
