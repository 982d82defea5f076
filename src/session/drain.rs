//! The polite end: admit nothing, tell the gateway, let every actor stop, make sure the gateway knows, leave.

use std::time::{Duration, Instant};

use greenroom_protocol::ToServer;

use crate::actor::StopReason;
use crate::session::{Effect, Exit, Session};

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    started: Instant,
    within: Duration,
    step: Step,
}

/// Each step has its own deadline, and each ends at the latest with the drain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The gateway is to send its stop commands.
    Asking,
    /// Every actor was told to stop.
    Stopping,
    /// Every actor that had not ended was killed.
    Killing,
    /// All have ended; the gateway may still acknowledge.
    Settling { since: Instant },
    /// The socket is closing.
    Leaving { since: Instant },
}

impl Session {
    pub(super) fn start_drain(&mut self, within: Duration, now: Instant) {
        if self.drain.is_some() || self.link.is_over() {
            return;
        }
        self.drain = Some(Drain { started: now, within, step: Step::Asking });
        self.announce_drain();
    }

    /// Tells the gateway, also one that we reach again in the middle of a drain.
    pub(super) fn announce_drain(&mut self) {
        if self.drain.is_some() && self.link.is_open() {
            self.effects.push_back(Effect::Send(ToServer::Stopping));
        }
    }

    /// Takes every step whose time has come or whose condition is met.
    pub(super) fn advance_drain(&mut self, now: Instant) {
        let before = self.drain.as_ref().map(|drain| drain.step);
        self.advance_drain_once(now);
        if self.drain.as_ref().map(|drain| drain.step) != before {
            self.advance_drain(now);
        }
    }

    pub(super) fn drain_timeout(&self) -> Option<Instant> {
        let drain = self.drain.as_ref()?;
        if self.link.is_over() {
            return None;
        }
        Some(match drain.step {
            Step::Asking => drain.started + drain.asking(),
            Step::Stopping => drain.started + drain.within,
            Step::Killing => drain.started + drain.within + KILLING,
            Step::Settling { since } => since + SETTLING,
            Step::Leaving { since } => since + LEAVING,
        })
    }

    fn advance_drain_once(&mut self, now: Instant) {
        let (Some(drain), Some(due)) = (&self.drain, self.drain_timeout()) else { return };
        let (step, late) = (drain.step, due <= now);
        let next = match step {
            Step::Asking | Step::Stopping | Step::Killing
                if self.actors.live() == 0 && self.events_sent_or_offline() =>
            {
                Step::Settling { since: now }
            }
            Step::Asking if late || !self.link.is_open() => {
                for key in self.actors.live_keys() {
                    self.stop_life(&key, StopReason::Drain);
                }
                Step::Stopping
            }
            Step::Stopping if late => {
                for key in self.actors.live_keys() {
                    self.kill(&key);
                }
                Step::Killing
            }
            Step::Killing if late => {
                return self.exit(Exit::DrainTimeout { actors: self.actors.live().max(1) });
            }
            Step::Settling { .. } if !self.link.has_socket() => {
                return self.exit(self.drained());
            }
            Step::Settling { .. } if late || (self.events_acknowledged() && self.link.is_open()) => {
                self.flush_acknowledgements();
                self.hang_up();
                Step::Leaving { since: now }
            }
            Step::Leaving { .. } if late || !self.link.has_socket() => {
                return self.exit(self.drained());
            }
            Step::Asking | Step::Stopping | Step::Killing | Step::Settling { .. } | Step::Leaving { .. } => step,
        };
        if let Some(drain) = &mut self.drain {
            drain.step = next;
        }
    }

    fn events_sent_or_offline(&self) -> bool {
        self.events_sent() || !self.link.is_open()
    }

    fn drained(&self) -> Exit {
        match self.actors.unsent.len() {
            0 => Exit::Drained,
            actors => Exit::DrainTimeout { actors },
        }
    }
}

impl Drain {
    /// How long the gateway may take to answer the announcement with its stop commands; after that we stop the actors
    /// ourselves, so that their own grace still fits.
    fn asking(&self) -> Duration {
        (self.within / 8).min(ASKING_MOST)
    }
}

/// The longest wait for the gateway's stop commands.
const ASKING_MOST: Duration = Duration::from_millis(1500);
/// What ending processes may take after the drain's time is up.
const KILLING: Duration = Duration::from_secs(2);
/// How long we wait for the last acknowledgements; the Rivet engine sends none for short-lived actors.
const SETTLING: Duration = Duration::from_millis(500);
/// How long the closing handshake may take.
const LEAVING: Duration = Duration::from_secs(2);
