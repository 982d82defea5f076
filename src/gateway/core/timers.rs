//! Everything that happens because time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::ConnectionId;

/// What is waited for. Each has one time at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A socket without an introduction is closed.
    Greeting(ConnectionId),
    /// The next ping.
    Ping(ConnectionId),
    /// The next look at how long ago the last pong came.
    Pong(ConnectionId),
    /// Events taken are acknowledged.
    Acknowledge(ConnectionId),
    /// A runner is lost, or its drain is over.
    Runner(Arc<str>),
    /// The slot of a life that a runner was told to stop is free, whatever the runner says.
    Leftovers(Arc<str>),
    /// A start, a stop, a place in the queue or a backoff has lasted long enough.
    Actor(Arc<str>),
    /// The oldest stream waiting for an actor has waited long enough.
    Waiting(Arc<str>),
    /// An actor may have stopped taking what is said on a socket.
    Unacknowledged,
    /// A sleeping actor's alarm.
    Alarm,
}

/// Times by what they are for, and the other way around.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets or moves a time.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(before) = self.at.insert(timer.clone(), at) {
            self.due.remove(&(before, timer.clone()));
        }
        self.due.insert((at, timer));
    }

    /// Sets a time unless there is an earlier one.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.at.get(&timer).is_none_or(|before| at < *before) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.due.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes out one that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}
