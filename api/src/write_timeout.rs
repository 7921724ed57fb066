//! A connection whose caller has to read: one that takes nothing of an answer for too long is cut.
//!
//! ```text
//! hyper ──write──▶ WriteTimeout ──▶ socket      no room for `stall`, without 16 KiB going through ──▶ an error, which ends the connection
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Bytes that have to go through for the caller to be given its time once more: whoever reads a byte a second does not go on for ever.
const PROGRESS_BYTES: usize = 16 << 10;
/// Bytes of an answer that the system keeps for a caller who does not read: by itself it would grow to some 4 MB.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// A stream whose writes have to go on.
pub(crate) struct WriteTimeout {
    stream: TcpStream,
    stall: Duration,
    /// Since when writes have had to wait, and what went through meanwhile.
    waiting: Option<Pin<Box<Sleep>>>,
    passed: usize,
}

impl WriteTimeout {
    /// Of an accepted connection.
    pub fn new(stream: TcpStream, stall: Duration) -> Self {
        let socket = SockRef::from(&stream);
        // What was written and is not taken by the other side ends with the same time, also after the answer is complete.
        #[cfg(target_os = "linux")]
        if let Err(error) = socket.set_tcp_user_timeout(Some(stall)) {
            tracing::debug!("could not set TCP_USER_TIMEOUT: {error}");
        }
        if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER_BYTES) {
            tracing::debug!("could not set SO_SNDBUF: {error}");
        }
        Self { stream, stall, waiting: None, passed: 0 }
    }

    fn pace(&mut self, context: &mut Context<'_>, asked: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(passed)) => {
                self.passed += passed;
                if passed == asked || self.passed >= PROGRESS_BYTES {
                    (self.waiting, self.passed) = (None, 0);
                }
                Poll::Ready(Ok(passed))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.stall)));
                waiting.as_mut().poll(context).map(|()| {
                    metrics::counter!("api_connections_cut_total").increment(1);
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the caller does not read"))
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
        self.pace(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.pace(context, parts.iter().map(|part| part.len()).sum(), written)
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
