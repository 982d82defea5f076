//! Events for a program without a server: it asks for the next one, and answers it in a call of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// What one actor is to be told, and what it was told and has not answered.
#[derive(Debug)]
pub struct Pull {
    open: Mutex<Open>,
    offered: Notify,
    /// Whether the program has ever asked.
    asked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    /// Oldest first.
    events: BTreeMap<u64, Offer>,
}

#[derive(Debug)]
struct Offer {
    /// Nothing once it was told.
    event: Option<(HeaderMap, Bytes)>,
    reply: oneshot::Sender<PullReply>,
}

/// An event that is told.
#[derive(Clone, Debug)]
pub struct PullEvent {
    /// To be named in the reply.
    pub id: u64,
    /// What `POST /_actor` would carry.
    pub headers: HeaderMap,
    /// Its payload.
    pub body: Bytes,
}

/// The answer to an event.
#[derive(Clone, Debug)]
pub struct PullReply {
    /// HTTP status.
    pub status: u16,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Body of the answer.
    pub body: Bytes,
}

/// Why a reply was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// There was never such an event, or it was not told yet.
    #[error("no such event was told")]
    Unknown,
    /// It was answered, told again, or taken back.
    #[error("the event was answered already, or is not waited for any more")]
    Gone,
}

impl Pull {
    pub(in crate::host) fn new() -> Self {
        Pull { open: Mutex::default(), offered: Notify::new(), asked: watch::Sender::new(false) }
    }

    /// Waits at most this long for an event.
    pub async fn next(&self, wait: Duration) -> Option<PullEvent> {
        self.asked.send_replace(true);
        let deadline = Instant::now() + wait;
        loop {
            let offered = self.offered.notified();
            if let Some(event) = self.take() {
                return Some(event);
            }
            timeout_at(deadline, offered).await.ok()?;
        }
    }

    /// Answers an event.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn reply(&self, id: u64, reply: PullReply) -> Result<(), PullError> {
        let mut open = self.open();
        match open.events.get(&id) {
            Some(Offer { event: None, .. }) => {}
            None if id < open.next_id => return Err(PullError::Gone),
            Some(Offer { event: Some(_), .. }) | None => return Err(PullError::Unknown),
        }
        let offer = open.events.remove(&id).ok_or(PullError::Gone)?;
        offer.reply.send(reply).map_err(|_| PullError::Gone)
    }

    /// Tells an event and waits for the answer; dropped before that, it is taken back. Nothing when too many wait.
    pub(in crate::host) async fn offer(&self, headers: HeaderMap, body: Bytes) -> Option<PullReply> {
        let (reply, replied) = oneshot::channel();
        let place = {
            let mut open = self.open();
            if open.events.len() >= EVENTS_MAX {
                return None;
            }
            let id = open.next_id;
            open.next_id += 1;
            open.events.insert(id, Offer { event: Some((headers, body)), reply });
            Place { pull: self, id }
        };
        self.offered.notify_one();
        let reply = replied.await.ok();
        drop(place);
        reply
    }

    /// Resolves when the program has asked for the first time.
    pub(in crate::host) async fn asked(&self) {
        // The sender is borrowed with the queue.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }

    fn take(&self) -> Option<PullEvent> {
        let mut open = self.open();
        let mut waiting = open.events.iter_mut().filter_map(|(id, offer)| Some((*id, offer.event.take()?)));
        let (id, (headers, body)) = waiting.next()?;
        if open.events.values().any(|offer| offer.event.is_some()) {
            self.offered.notify_one();
        }
        Some(PullEvent { id, headers, body })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of an event among those without an answer.
struct Place<'a> {
    pull: &'a Pull,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pull.open().events.remove(&self.id);
    }
}

/// The most events and requests of one actor without an answer; more are refused.
const EVENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn reply(body: &'static str) -> PullReply {
        PullReply { status: 200, headers: HeaderMap::new(), body: body.into() }
    }

    #[tokio::test]
    async fn events_come_in_order_and_each_reply_finds_its_own() {
        let pull = Pull::new();
        let mut offers: Vec<_> =
            ["a", "b"].into_iter().map(|body| Box::pin(pull.offer(HeaderMap::new(), body.into()))).collect();
        for offer in &mut offers {
            assert!(offer.as_mut().now_or_never().is_none());
        }
        let (first, second) = (pull.next(NOW).await.unwrap(), pull.next(NOW).await.unwrap());
        assert_eq!((&first.body[..], &second.body[..]), (&b"a"[..], &b"b"[..]));
        assert!(pull.next(NOW).await.is_none());
        pull.reply(second.id, reply("to b")).unwrap();
        pull.reply(first.id, reply("to a")).unwrap();
        assert_eq!(pull.reply(first.id, reply("again")), Err(PullError::Gone));
        assert_eq!(pull.reply(7, reply("x")), Err(PullError::Unknown));
        let answers = futures_util::future::join_all(offers).await;
        assert_eq!(answers.into_iter().map(|answer| answer.unwrap().body).collect::<Vec<_>>(), ["to a", "to b"]);
    }

    #[tokio::test]
    async fn an_event_that_nobody_waits_for_is_taken_back() {
        let pull = Pull::new();
        let mut untold = Box::pin(pull.offer(HeaderMap::new(), Bytes::new()));
        assert!(untold.as_mut().now_or_never().is_none());
        assert_eq!(pull.reply(0, reply("too early")), Err(PullError::Unknown));
        drop(untold);
        assert!(pull.next(NOW).await.is_none());
        let mut told = Box::pin(pull.offer(HeaderMap::new(), Bytes::new()));
        assert!(told.as_mut().now_or_never().is_none());
        let event = pull.next(NOW).await.unwrap();
        drop(told);
        assert_eq!(pull.reply(event.id, reply("too late")), Err(PullError::Gone));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_and_too_many_are_refused() {
        let pull = std::sync::Arc::new(Pull::new());
        let waiting = tokio::spawn({
            let pull = pull.clone();
            async move { pull.next(Duration::from_secs(60)).await }
        });
        pull.asked().await;
        let mut offers: Vec<_> =
            (0..EVENTS_MAX).map(|_| Box::pin(pull.offer(HeaderMap::new(), Bytes::new()))).collect();
        for offer in &mut offers {
            assert!(offer.as_mut().now_or_never().is_none());
        }
        assert!(waiting.await.unwrap().is_some());
        assert!(pull.offer(HeaderMap::new(), Bytes::new()).await.is_none());
    }
}
