//! A channel that costs next to nothing while it is empty.
//!
//! The runtime's own allocates room for 32 events before the first is sent. There is one channel for every client's
//! socket, and most of these are silent most of the time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The end that sends; the receiver learns when all of them are gone.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The end that receives.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    senders: usize,
    received: bool,
    receiver: Option<Waker>,
}

/// An empty channel. Whoever sends sees to it that it stays bounded.
pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), senders: 1, received: true, receiver: None };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Sends.
    ///
    /// # Errors
    /// What was to be sent, when nobody receives any more.
    pub(super) fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if !state.received {
            return Err(item);
        }
        state.waiting.push_back(item);
        let waker = state.receiver.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        !self.0.lock().received
    }
}

impl<T> Receiver<T> {
    /// The next item, or that there will be none. Remembers only who asked last.
    pub(super) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(item) = state.waiting.pop_front() {
            return Poll::Ready(Some(item));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        // Room for what may never come again.
        state.waiting = VecDeque::new();
        if !state.receiver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.receiver = Some(context.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().waiting.is_empty()
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let waker = if state.senders == 0 { state.receiver.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.received = false;
        state.receiver = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // Outside of the lock: what an item does when it is dropped is its own affair.
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn items_come_in_order_and_the_end_after_them() {
        let (sender, mut receiver) = queue();
        let other = sender.clone();
        let received = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(item) = poll_fn(|context| receiver.poll_recv(context)).await {
                all.push(item);
            }
            all
        });
        for item in 0..100 {
            let sender = if item % 2 == 0 { &sender } else { &other };
            sender.send(item).expect("received");
            tokio::task::yield_now().await;
        }
        drop(sender);
        drop(other);
        assert_eq!(received.await.expect("no panic"), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_takes_nothing() {
        let (sender, receiver) = queue();
        assert!(!sender.is_closed() && receiver.is_empty());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(1));
    }
}
