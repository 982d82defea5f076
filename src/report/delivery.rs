//! When which patch is sent.
//!
//! There are two slots: what is in flight, and what waits, merged into one. After a failure both are merged again, the
//! older first, so what arrived meanwhile is part of the next try. Tries never end by themselves; what ends them is
//! [`Input::Close`], after which nothing is sent any more.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::report::Patch;

/// Decides what is sent when. Holds no socket and never reads the clock.
#[derive(Debug)]
pub struct Delivery {
    in_flight: Option<Patch>,
    waiting: Option<Patch>,
    /// What waits is not sent before this.
    retry_at: Option<Instant>,
    stage: Stage,
    backoff: Backoff,
    refused: Backoff,
}

/// How long it waits after failures.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After the first failure; doubles with each one.
    pub first: Duration,
    /// After many.
    pub most: Duration,
    /// After a refusal: what it takes to be accepted is somebody's decision, and asking more often helps nobody.
    pub refused: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The state has changed.
    Patch(Patch),
    /// The request in flight came to this.
    Answered(Answer),
    /// The last change there will be: it is sent at once, and when it is taken the delivery is closed.
    Last(Patch),
    /// Nothing is to be sent from now on, not even what waits.
    Close,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The control plane has it.
    Taken,
    /// It may or may not have it: no connection, no answer in time, or an error on its side.
    Failed,
    /// It does not want it from us.
    Refused,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this, and tell what came of it.
    Send(Patch),
    /// All is over; a request in flight is dropped.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// No more changes come; what waits is the end.
    Closing,
    Closed {
        told: bool,
    },
}

impl Delivery {
    /// A delivery with nothing to send.
    #[must_use]
    pub fn new(pace: Pace, seed: u64) -> Self {
        Delivery {
            in_flight: None,
            waiting: None,
            retry_at: None,
            stage: Stage::Open,
            backoff: Backoff::new(pace.first, pace.most, seed),
            refused: Backoff::new(pace.refused, pace.refused, seed),
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match (input, self.stage) {
            (Input::Patch(patch), Stage::Open) => self.wait(patch),
            (Input::Last(patch), Stage::Open) => {
                self.wait(patch);
                self.stage = Stage::Closing;
                self.retry_at = None;
                self.backoff.reset();
            }
            (Input::Patch(_), Stage::Closing) | (Input::Last(_), Stage::Closing) => {}
            (Input::Answered(answer), Stage::Open | Stage::Closing) => self.answered(answer, now),
            (Input::Close, Stage::Open | Stage::Closing) => self.close(),
            (_, Stage::Closed { .. }) => {}
        }
    }

    /// What is to be done now, until there is nothing.
    pub fn poll_effect(&mut self, now: Instant) -> Option<Effect> {
        if self.stage == Stage::Closing && self.in_flight.is_none() && self.waiting.is_none() {
            self.close();
        }
        if self.stage == (Stage::Closed { told: false }) {
            self.stage = Stage::Closed { told: true };
            return Some(Effect::Closed);
        }
        if self.in_flight.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let patch = self.waiting.take()?;
        self.retry_at = None;
        self.in_flight = Some(patch.clone());
        Some(Effect::Send(patch))
    }

    /// When to poll again without an input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.in_flight.is_none() && self.waiting.is_some())
    }

    /// Tries since the last success, for logs.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.attempt()
    }

    fn wait(&mut self, patch: Patch) {
        if patch.is_empty() {
            return;
        }
        match &mut self.waiting {
            Some(waiting) => waiting.absorb(patch),
            None => self.waiting = Some(patch),
        }
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        let Some(mut sent) = self.in_flight.take() else { return };
        match answer {
            Answer::Taken => self.backoff.reset(),
            Answer::Refused if self.stage == Stage::Closing => self.close(),
            Answer::Failed | Answer::Refused => {
                if let Some(newer) = self.waiting.take() {
                    sent.absorb(newer);
                }
                self.waiting = Some(sent);
                let delay = self.backoff.next_delay();
                let delay = if answer == Answer::Refused { self.refused.next_delay() } else { delay };
                self.retry_at = Some(now + delay);
            }
        }
    }

    fn close(&mut self) {
        (self.in_flight, self.waiting, self.retry_at) = (None, None, None);
        self.stage = Stage::Closed { told: false };
    }

    /// How many patches it holds.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        usize::from(self.in_flight.is_some()) + usize::from(self.waiting.is_some())
    }
}
