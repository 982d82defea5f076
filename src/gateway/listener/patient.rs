//! A client's connection that does not wait for ever for the head of a request.
//!
//! A client that has begun a request and does not go on is not one that is silent between two: it costs a buffer, and
//! hundreds of them are an old way to use a server up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::rates::InFlight;
use super::{Held, ResponseBody};

/// A connection whose heads must come within a time from their first byte.
#[derive(Debug)]
pub(super) struct Patient {
    stream: TcpStream,
    head: Duration,
    progress: Arc<Progress>,
    /// Until when the head has to be there, and how many requests there were when its first byte came.
    deadline: Option<(Pin<Box<Sleep>>, u64)>,
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
    pub(super) fn new(stream: TcpStream, head: Duration, answering: &Answering) -> Self {
        Patient { stream, head, progress: Arc::clone(&answering.0), deadline: None }
    }

    /// The connection itself.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
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
        let requests = self.progress.requests.load(Ordering::Relaxed);
        if self.progress.answering.load(Ordering::Relaxed) {
            self.deadline = None;
            return read;
        }
        // The head that it was for has come since.
        self.deadline.take_if(|(_, before)| *before != requests);
        if read.is_ready() {
            if buffer.filled().len() > before && self.deadline.is_none() {
                self.deadline = Some((Box::pin(sleep(self.head)), requests));
            }
            return read;
        }
        if let Some((deadline, _)) = &mut self.deadline {
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request did not come")));
        }
        Poll::Pending
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
