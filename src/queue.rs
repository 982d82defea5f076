//! A channel that costs next to nothing while it is empty.
//!
//! The runtime's own allocates room for 32 items before the first is sent, and spreads what it knows over many lines of
//! memory. There is one channel for every client's socket on either end of the wire, and most of these are silent most of
//! the time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc::error::TrySendError;

/// A channel. Whoever sends sees to it that it stays bounded.
#[derive(Debug)]
pub(crate) struct Queue<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    /// The oldest item that waits. Mostly there is one at a time, and it needs no memory of its own here.
    first: Option<T>,
    /// The items behind it.
    rest: VecDeque<T>,
    ended: bool,
    closed: bool,
    receiver: Option<Waker>,
}

impl<T> Queue<T> {
    /// Sends.
    ///
    /// # Errors
    /// What was to be sent, when nobody receives any more.
    #[cfg(any(feature = "gateway", test))]
    pub(crate) fn send(&self, item: T) -> Result<(), T> {
        self.send_within(item, usize::MAX).map_err(TrySendError::into_inner)
    }

    /// Sends, unless so many items wait.
    ///
    /// # Errors
    /// What was to be sent.
    pub(crate) fn send_within(&self, item: T, most: usize) -> Result<(), TrySendError<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(TrySendError::Closed(item));
        }
        if state.rest.len() + usize::from(state.first.is_some()) >= most {
            return Err(TrySendError::Full(item));
        }
        match state.first {
            None => state.first = Some(item),
            Some(_) => state.rest.push_back(item),
        }
        wake(state);
        Ok(())
    }

    /// Nothing more is sent.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }

    /// Nobody receives any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let items = (state.first.take(), std::mem::take(&mut state.rest), state.receiver.take());
        drop(state);
        // Outside of the lock: what an item does when it is dropped is its own affair.
        drop(items);
    }

    #[cfg(any(feature = "gateway", test))]
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The next item, or that there will be none. Remembers only who asked last.
    pub(crate) fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.lock();
        if let Some(item) = state.first.take() {
            state.first = state.rest.pop_front();
            return Poll::Ready(Some(item));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        // Room for what may never come again.
        state.rest = VecDeque::new();
        if !state.receiver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.receiver = Some(context.waker().clone());
        }
        Poll::Pending
    }

    #[cfg(any(feature = "gateway", test))]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().first.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue(Mutex::new(State { first: None, rest: VecDeque::new(), ended: false, closed: false, receiver: None }))
    }
}

/// Wakes who receives, outside of the lock.
fn wake<T>(mut state: MutexGuard<'_, State<T>>) {
    let waker = state.receiver.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn items_come_in_order_and_the_end_after_them() {
        let queue = Arc::new(Queue::default());
        let receiver = Arc::clone(&queue);
        let received = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(item) = poll_fn(|context| receiver.poll_recv(context)).await {
                all.push(item);
            }
            all
        });
        for item in 0..100 {
            queue.send(item).expect("received");
            if item % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        queue.end();
        assert_eq!(received.await.expect("no panic"), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let queue = Queue::default();
        assert_eq!([1, 2, 3].map(|item| queue.send_within(item, 2)), [Ok(()), Ok(()), Err(TrySendError::Full(3))]);
        queue.close();
        assert_eq!(queue.send_within(4, 2), Err(TrySendError::Closed(4)));
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_takes_nothing() {
        let queue = Queue::default();
        assert!(!queue.is_closed() && queue.is_empty());
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(queue.send(1), Err(1));
    }
}
