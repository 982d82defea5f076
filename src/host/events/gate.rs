//! How many events an actor is told at once, and when none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The gate that every event passes on its way to the actor.
#[derive(Debug)]
pub(in crate::host) struct Gate {
    places: Arc<Semaphore>,
    concurrency: u32,
    shut: AtomicBool,
    opened: Notify,
}

/// An event that is being told.
#[derive(Debug)]
pub(in crate::host) struct Passage(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Gate {
    /// A gate that is open to this many at once.
    pub(in crate::host) fn new(concurrency: usize) -> Self {
        let concurrency = u32::try_from(concurrency.clamp(1, Semaphore::MAX_PERMITS >> 3)).unwrap_or(u32::MAX >> 3);
        let places = Arc::new(Semaphore::new(concurrency as usize));
        Gate { places, concurrency, shut: AtomicBool::new(false), opened: Notify::new() }
    }

    /// Waits for a place, and while the gate is shut. First come, first served.
    pub(in crate::host) async fn pass(&self) -> Passage {
        loop {
            let place = self.places.clone().acquire_owned().await.expect("nobody closes the semaphore");
            // Heard from here on, so that it cannot open unnoticed between the look and the wait.
            let opened = self.opened.notified();
            if !self.is_shut() {
                return Passage(place);
            }
            drop(place);
            opened.await;
        }
    }

    /// Lets nothing more pass, and resolves when nothing is on its way any more.
    pub(in crate::host) async fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        let all = self.places.acquire_many(self.concurrency).await;
        debug_assert!(all.is_ok(), "nobody closes the semaphore");
    }

    /// Opens it again.
    pub(in crate::host) fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// Whether it is shut.
    pub(in crate::host) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// How many events are being told.
    pub(in crate::host) fn in_flight(&self) -> usize {
        (self.concurrency as usize).saturating_sub(self.places.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_more_pass_than_there_are_places() {
        let gate = Gate::new(2);
        let (first, second) = (gate.pass().await, gate.pass().await);
        assert_eq!(gate.in_flight(), 2);
        assert!(gate.pass().now_or_never().is_none());
        drop(first);
        assert!(gate.pass().now_or_never().is_some());
        drop(second);
        assert_eq!(gate.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_shut_gate_waits_for_those_on_their_way_and_lets_nobody_follow() {
        let gate = Gate::new(1);
        let first = gate.pass().await;
        let mut waiting = Box::pin(gate.pass());
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut shutting = Box::pin(gate.shut());
        assert!(shutting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiting.as_mut().now_or_never().is_none(), "it came before the shutting and passes no more");
        shutting.await;
        assert!(waiting.as_mut().now_or_never().is_none());
        gate.open();
        waiting.await;
    }
}
