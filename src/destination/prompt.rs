//! A TCP stream that holds nothing back: what is written goes out at once, what is read is acknowledged at once. It counts
//! what it has taken.
//!
//! mosquitto leaves Nagle's algorithm on and sends each PUBACK by itself: the second waits until the kernel here has
//! acknowledged the first, which Linux delays by up to 40 ms unless it is asked not to.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a stream has taken, for who waits for it to take more.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<AtomicU64>);

impl Written {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the bytes that it counts.
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
        bytes
    }
}

/// A connected stream.
pub(super) struct Prompt {
    stream: TcpStream,
    written: Written,
}

impl Prompt {
    /// Connects to `HOST:PORT`.
    pub(super) async fn connect(address: String, written: Written) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, written })
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        // Linux forgets the wish now and then. Without it things are only slower.
        #[cfg(target_os = "linux")]
        if read.is_ready()
            && let Err(error) = self.stream.set_quickack(true)
        {
            tracing::debug!(%error, "cannot have the kernel acknowledge at once");
        }
        read
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write(context, bytes);
        taken.map_ok(|bytes| self.written.add(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        taken.map_ok(|bytes| self.written.add(bytes))
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
