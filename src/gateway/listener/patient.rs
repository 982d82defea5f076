//! A client's connection that does not wait for ever for a request, or for the end of its head.
//!
//! A client that has begun a request and does not go on is not one that is silent between two: it costs a buffer, and
//! hundreds of them are an old way to use a server up. A busy connection costs no timer: there is one for each, which
//! looks at the time that is due when it fires, and is not moved with every request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::rates::InFlight;
use super::{Held, ResponseBody};

/// A connection whose requests must come within a time from the last answer, and their heads within one from their first
/// byte.
#[derive(Debug)]
pub(super) struct Patient {
    stream: TcpStream,
    head: Duration,
    idle: Duration,
    progress: Arc<Progress>,
    /// What the client is waited for, while no request is being answered.
    waits: Option<Waits>,
    /// Fires when what was waited for last time was due, or is.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
struct Waits {
    due: Instant,
    /// The first byte of a request has come.
    begun: bool,
    /// How many requests there were before.
    requests: u64,
}

/// Whether a request of a connection is being answered: what comes meanwhile is no late head.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    requests: AtomicU64,
    answering: AtomicBool,
}

/// A request is being answered until this is dropped.
#[derive(Debug)]
pub(super) struct Answer {
    progress: Arc<Progress>,
    in_flight: Option<InFlight>,
}

impl Patient {
    pub(super) fn new(stream: TcpStream, head: Duration, idle: Duration, answering: &Answering) -> Self {
        Patient { stream, head, idle, progress: Arc::clone(&answering.0), waits: None, timer: None }
    }

    /// The connection itself.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Resolves when the client is late.
    fn poll_late(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            // It fired for a request that has come since.
            timer.as_mut().reset(due);
        }
    }
}

impl Answering {
    /// A request has come.
    pub(super) fn begin(&self) -> Answer {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.answering.store(true, Ordering::Relaxed);
        Answer { progress: Arc::clone(&self.0), in_flight: None }
    }
}

impl Answer {
    /// The request counts as in flight until it is answered.
    pub(super) fn counts(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight;
    }

    /// The body of the answer, which ends it.
    pub(super) fn with(self, body: ResponseBody) -> ResponseBody {
        ResponseBody::new(Held { body, _until_sent: self })
    }

    /// The connection is no longer one for requests.
    pub(super) fn for_ever(self) {
        let progress = Arc::clone(&self.progress);
        drop(self);
        progress.answering.store(true, Ordering::Relaxed);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.progress.answering.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.progress.answering.load(Ordering::Relaxed) {
            self.waits = None;
            return read;
        }
        let requests = self.progress.requests.load(Ordering::Relaxed);
        // The head that was waited for may have come since.
        let waits = self.waits.filter(|waits| waits.requests == requests);
        let begins = read.is_ready() && buffer.filled().len() > before;
        let waits = match waits {
            Some(waits) if waits.begun || !begins => waits,
            Some(_) | None => {
                let due = Instant::now() + if begins { self.head } else { self.idle };
                Waits { due, begun: begins, requests }
            }
        };
        self.waits = Some(waits);
        if read.is_pending() {
            ready!(self.poll_late(waits.due, context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request did not come")));
        }
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
