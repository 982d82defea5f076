//! The answers of one stream on their way to its client.
//!
//! The driver must never wait for a client, and the wire has no flow control of its own, so what a slow client has not
//! taken yet is kept here. It is bounded by bytes, not by pieces: a client may lag behind by thousands of small frames
//! or by a few large ones.

mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::queue::{Receiver, Sender, queue};
use super::TunnelEvent;
use crate::credit::Credit;

/// The driver's end.
#[derive(Clone, Debug)]
pub struct StreamEventSender {
    events: Sender<TunnelEvent>,
    backlog: Arc<Backlog>,
}

/// The client's end.
#[derive(Debug)]
pub struct StreamEvents {
    events: Receiver<TunnelEvent>,
    backlog: Arc<Backlog>,
}

/// What waits between the two ends.
#[derive(Debug)]
struct Backlog {
    bytes: AtomicUsize,
    max: usize,
    overflowed: CancellationToken,
    /// What the client's request travels on.
    upload: Credit,
}

/// A channel that holds at most `max` bytes, and one event whatever its size.
#[must_use]
pub fn stream_events(max: usize) -> (StreamEventSender, StreamEvents) {
    let (sender, receiver) = queue();
    let backlog = Arc::new(Backlog {
        bytes: AtomicUsize::new(0),
        max,
        overflowed: CancellationToken::new(),
        upload: Credit::new(),
    });
    (StreamEventSender { events: sender, backlog: Arc::clone(&backlog) }, StreamEvents { events: receiver, backlog })
}

impl StreamEventSender {
    /// Hands an event to the client.
    ///
    /// # Errors
    /// [`TrySendError::Full`] when the client lags behind too far; the stream is lost then.
    /// [`TrySendError::Closed`] when nobody listens any more.
    pub fn try_send(&self, event: TunnelEvent) -> Result<(), TrySendError<TunnelEvent>> {
        let weight = weight(&event);
        let before = self.backlog.bytes.fetch_add(weight, Ordering::Relaxed);
        if before > 0 && before.saturating_add(weight) > self.backlog.max {
            self.backlog.bytes.fetch_sub(weight, Ordering::Relaxed);
            self.backlog.overflowed.cancel();
            return Err(TrySendError::Full(event));
        }
        self.events.send(event).map_err(TrySendError::Closed)
    }

    /// The actor has taken as much of the request as one grant is for.
    pub fn grant(&self) {
        self.backlog.upload.grant();
    }

    /// Whether the client has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }
}

impl StreamEvents {
    /// The next event; `None` when the driver has dropped the stream. Cancel safe.
    pub async fn recv(&mut self) -> Option<TunnelEvent> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`StreamEvents::recv`], by hand.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<TunnelEvent>> {
        let event = self.events.poll_recv(context);
        if let Poll::Ready(Some(event)) = &event {
            self.backlog.bytes.fetch_sub(weight(event), Ordering::Relaxed);
        }
        event
    }

    /// Whether the client has lagged behind too far, and has lost its stream for that.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.backlog.overflowed.is_cancelled()
    }

    /// Resolves when the client has lagged behind too far. A writer that is stuck with this client needs to know.
    pub fn overflow(&self) -> WaitForCancellationFutureOwned {
        self.backlog.overflowed.clone().cancelled_owned()
    }

    /// What the client's request travels on, towards a runner that gives credit.
    #[must_use]
    pub fn upload(&self) -> Credit {
        self.backlog.upload.clone()
    }

    /// Whether nothing waits right now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
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
    async fn what_was_sent_is_received_after_the_sender_is_gone() {
        let (sender, mut events) = stream_events(10_000);
        sender.try_send(message(1)).expect("room");
        drop(sender);
        assert_eq!(events.recv().await, Some(message(1)));
        assert_eq!(events.recv().await, None);
    }
}
