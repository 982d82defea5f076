//! Bodies on their way through: counted, limited, and not waited for without end.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::usage::{Counters, Place};
use crate::socket::AnswerBody;

/// An actor's body on its way to the server.
pub(super) struct Counted<B> {
    body: B,
    left: u64,
    counters: Arc<Counters>,
    too_large: Arc<AtomicBool>,
}

/// A server's answer on its way to the actor. A server that falls silent ends it.
#[derive(Debug)]
pub struct EgressBody {
    body: AnswerBody,
    silence: Duration,
    /// Runs while the server is waited for.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    counters: Arc<Counters>,
    _place: Place,
}

/// The server has said nothing for too long, in the middle of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server fell silent in the middle of its answer")]
pub struct Silent;

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is too large")]
struct TooLarge;

impl<B> Counted<B> {
    pub(super) fn new(body: B, max: u64, counters: Arc<Counters>, too_large: Arc<AtomicBool>) -> Self {
        Counted { body, left: max, counters, too_large }
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else { return Poll::Ready(None) };
        let frame = frame.map_err(Into::into)?;
        if let Some(data) = frame.data_ref() {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    self.too_large.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(TooLarge.into())));
                }
            }
            self.counters.sent(data.len());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl EgressBody {
    pub(super) fn new(body: AnswerBody, silence: Duration, counters: Arc<Counters>, place: Place) -> Self {
        let timer = Box::pin(tokio::time::sleep(silence));
        EgressBody { body, silence, timer, waiting: false, counters, _place: place }
    }
}

impl Body for EgressBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = false;
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
                self.counters.received(data.len());
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Time in which the actor did not read is no silence of the server.
        if !self.waiting {
            self.waiting = true;
            let deadline = Instant::now() + self.silence;
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Some(Err(Silent.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
