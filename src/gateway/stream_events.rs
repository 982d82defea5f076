//! The answers of one stream on their way to its client.
//!
//! The driver must never wait for a client, and the wire has no flow control of its own, so what a slow client has not
//! taken yet is kept here. It is bounded by bytes, not by pieces: a client may lag behind by thousands of small frames
//! or by a few large ones.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::mpsc::error::TrySendError;

use super::{GatewayError, TunnelEvent};
use crate::credit::Credit;
use crate::queue::Queue;

/// The driver's end.
#[derive(Debug)]
pub struct StreamEventSender(Arc<Shared>);

/// The client's end.
#[derive(Debug)]
pub struct StreamEvents(Arc<Shared>);

/// Resolves when the client has lagged behind too far. There is one for each stream.
#[derive(Debug)]
pub struct Overflow(Arc<Shared>);

/// What both ends share, in one piece of memory: there is one for every request, and for every client's socket.
#[derive(Debug)]
struct Shared {
    events: Queue<TunnelEvent>,
    /// What waits between the two ends.
    bytes: AtomicUsize,
    max: usize,
    opened: AtomicBool,
    overflowed: AtomicBool,
    overflow: AtomicWaker,
    refusal: OnceLock<Box<GatewayError>>,
    /// What the client's request travels on, if it needs any.
    upload: OnceLock<Credit>,
}

/// A channel that holds at most `max` bytes, and one event whatever its size.
#[must_use]
pub fn stream_events(max: usize) -> (StreamEventSender, StreamEvents) {
    let shared = Arc::new(Shared {
        events: Queue::default(),
        bytes: AtomicUsize::new(0),
        max,
        opened: AtomicBool::new(false),
        overflowed: AtomicBool::new(false),
        overflow: AtomicWaker::new(),
        refusal: OnceLock::new(),
        upload: OnceLock::new(),
    });
    (StreamEventSender(Arc::clone(&shared)), StreamEvents(shared))
}

impl StreamEventSender {
    /// Hands an event to the client.
    ///
    /// # Errors
    /// [`TrySendError::Full`] when the client lags behind too far; the stream is lost then.
    /// [`TrySendError::Closed`] when nobody listens any more.
    pub fn try_send(&self, event: TunnelEvent) -> Result<(), TrySendError<TunnelEvent>> {
        let weight = weight(&event);
        let before = self.0.bytes.fetch_add(weight, Ordering::Relaxed);
        if before > 0 && before.saturating_add(weight) > self.0.max {
            self.0.bytes.fetch_sub(weight, Ordering::Relaxed);
            self.0.overflowed.store(true, Ordering::Release);
            self.0.overflow.wake();
            return Err(TrySendError::Full(event));
        }
        self.0.events.send(event).map_err(TrySendError::Closed)
    }

    /// The stream is open. Wakes nobody.
    pub fn opened(&self) {
        self.0.opened.store(true, Ordering::Relaxed);
    }

    /// The stream is not opened, and nothing of it has reached its actor: ends the events with the reason.
    pub fn refuse(self, error: GatewayError) {
        // Refused once, since that takes this end.
        let _ = self.0.refusal.set(Box::new(error));
    }

    /// The actor has taken as much of the request as one grant is for.
    pub fn grant(&self) {
        if let Some(upload) = self.0.upload.get() {
            upload.grant();
        }
    }

    /// Whether the client has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.events.is_closed()
    }
}

impl StreamEvents {
    /// The next event; `None` when the driver has dropped or refused the stream. Cancel safe.
    pub async fn recv(&mut self) -> Option<TunnelEvent> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`StreamEvents::recv`], by hand.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<TunnelEvent>> {
        let event = self.0.events.poll_recv(context);
        if let Poll::Ready(Some(event)) = &event {
            self.0.bytes.fetch_sub(weight(event), Ordering::Relaxed);
        }
        event
    }

    /// Whether the stream was opened, as far as the driver has told.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.opened.load(Ordering::Relaxed)
    }

    /// Why the stream was not opened, when the events ended for that.
    #[must_use]
    pub fn refusal(&self) -> Option<&GatewayError> {
        self.0.refusal.get().map(|error| &**error)
    }

    /// Whether the client has lagged behind too far, and has lost its stream for that.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.0.overflowed.load(Ordering::Acquire)
    }

    /// Resolves when the client has lagged behind too far. A writer that is stuck with this client needs to know.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        Overflow(Arc::clone(&self.0))
    }

    /// What the client's request travels on, towards a runner that gives credit. To be asked for before the stream is
    /// opened: what was granted earlier counts for nothing.
    #[must_use]
    pub fn upload(&self) -> Credit {
        self.0.upload.get_or_init(Credit::new).clone()
    }

    /// Whether nothing waits right now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.events.is_empty()
    }
}

impl Future for Overflow {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.overflow.register(context.waker());
        if self.0.overflowed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for StreamEventSender {
    fn drop(&mut self) {
        self.0.events.end();
    }
}

impl Drop for StreamEvents {
    fn drop(&mut self) {
        self.0.events.close();
    }
}

/// What an event costs in memory, roughly. Never 0, so that empty events are bounded too.
fn weight(event: &TunnelEvent) -> usize {
    let content = match event {
        TunnelEvent::Response { headers, body, .. } => {
            let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            headers + body.as_ref().map_or(0, |body| body.len())
        }
        TunnelEvent::Chunk { body, .. } => body.len(),
        TunnelEvent::Message { data, .. } => data.len(),
        TunnelEvent::Close { reason, .. } => reason.as_ref().map_or(0, |reason| reason.len()),
        TunnelEvent::Open { .. } | TunnelEvent::Failed(_) => 0,
    };
    content + size_of::<TunnelEvent>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(size: usize) -> TunnelEvent {
        TunnelEvent::Message { data: Bytes::from(vec![0; size]), binary: true }
    }

    #[tokio::test]
    async fn a_client_may_lag_behind_by_bytes_and_no_further() {
        let (sender, mut events) = stream_events(2_000);
        assert_eq!(sender.try_send(message(800)), Ok(()));
        assert_eq!(sender.try_send(message(800)), Ok(()));
        assert!(!events.overflowed());
        assert_eq!(sender.try_send(message(800)), Err(TrySendError::Full(message(800))));
        assert!(events.overflowed());
        assert_eq!(events.recv().await, Some(message(800)));
        assert_eq!(sender.try_send(message(800)), Ok(()));
    }

    #[tokio::test]
    async fn one_event_is_taken_whatever_its_size() {
        let (sender, mut events) = stream_events(10);
        assert_eq!(sender.try_send(message(5_000)), Ok(()));
        assert_eq!(events.recv().await, Some(message(5_000)));
        assert_eq!(sender.try_send(message(5_000)), Ok(()));
    }

    #[tokio::test]
    async fn a_writer_that_is_stuck_learns_that_its_client_lags_behind() {
        let (sender, events) = stream_events(10);
        let stuck = tokio::spawn(events.overflow());
        sender.try_send(message(5)).expect("room");
        tokio::task::yield_now().await;
        assert!(!stuck.is_finished());
        assert!(sender.try_send(message(5)).is_err());
        stuck.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_ends_with_the_reason() {
        let (sender, mut events) = stream_events(10);
        assert_eq!((events.is_open(), events.refusal()), (false, None));
        sender.refuse(GatewayError::ActorNotFound);
        assert_eq!(events.recv().await, None);
        assert_eq!((events.is_open(), events.refusal()), (false, Some(&GatewayError::ActorNotFound)));
    }

    #[tokio::test]
    async fn what_was_sent_is_received_after_the_sender_is_gone() {
        let (sender, mut events) = stream_events(10_000);
        sender.try_send(message(1)).expect("room");
        drop(sender);
        assert_eq!(events.recv().await, Some(message(1)));
        assert_eq!(events.recv().await, None);
    }
}
