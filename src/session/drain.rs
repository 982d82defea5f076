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

/// Each step has its own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The gateway is to send its stop commands.
    Asking,
    /// Every actor was told to stop.
    Stopping,
    /// Every actor that had not ended was killed.
    Killing,
    /// All have ended, and the gateway is away.
    Unheard,
    /// All have ended and the gateway was told; it may still acknowledge.
    Settling { since: Instant },
    /// The socket is closing.
    Leaving { since: Instant },
}

impl Session {
    pub(super) fn start_drain(&mut self, within: Duration, now: Instant) {
        if self.drain.is_none() {
            self.drain = Some(Drain { started: now, within, step: Step::Asking });
            self.announce_drain();
        }
    }

    /// Tells the gateway, also one that we reach again in the middle of a drain.
    pub(super) fn announce_drain(&mut self) {
        if self.drain.is_some() && self.link.is_open() {
            self.effects.push_back(Effect::Send(ToServer::Stopping));
        }
    }

    /// Takes every step whose time has come or whose condition is met.
    pub(super) fn advance_drain(&mut self, now: Instant) {
        while let Some(step) = self.next_step(now)
            && let Some(drain) = &mut self.drain
        {
            drain.step = step;
        }
    }

    pub(super) fn drain_timeout(&self) -> Option<Instant> {
        if self.link.is_over() {
            return None;
        }
        let drain = self.drain.as_ref()?;
        match drain.step {
            // Ours acknowledges every end as soon as its disk has it; there may be time left to wait for that.
            Step::Settling { since } if !self.link.features.are_none() => {
                Some(drain.deadline().max((since + SETTLING_MOST).min(drain.started + drain.within)))
            }
            Step::Asking
            | Step::Stopping
            | Step::Killing
            | Step::Unheard
            | Step::Settling { .. }
            | Step::Leaving { .. } => Some(drain.deadline()),
        }
    }

    /// Does what the present step ends with, if it ends.
    fn next_step(&mut self, now: Instant) -> Option<Step> {
        let due = self.drain_timeout()?;
        let (step, late) = (self.drain.as_ref()?.step, due <= now);
        match step {
            Step::Asking | Step::Stopping | Step::Killing if self.actors.live() == 0 => Some(Step::Unheard),
            Step::Asking if late || !self.link.is_open() => {
                self.stop_all(StopReason::Drain);
                Some(Step::Stopping)
            }
            Step::Stopping if late => {
                for key in self.actors.live_keys() {
                    self.kill(&key);
                }
                Some(Step::Killing)
            }
            Step::Killing if late => {
                self.exit(Exit::DrainTimeout { actors: self.actors.live() });
                None
            }
            Step::Unheard if self.link.is_open() => Some(Step::Settling { since: now }),
            Step::Unheard if self.actors.untold() == 0 || !self.link.may_open_before(due) || late => {
                self.hang_up();
                Some(Step::Leaving { since: now })
            }
            Step::Settling { .. } if !self.link.is_open() => Some(Step::Unheard),
            Step::Settling { .. } if late || self.events_acknowledged() => {
                self.flush_acknowledgements();
                self.hang_up();
                Some(Step::Leaving { since: now })
            }
            Step::Leaving { .. } if late || !self.link.has_socket() => {
                let exit = match self.unheard() {
                    0 => Exit::Drained,
                    actors => Exit::DrainTimeout { actors },
                };
                self.exit(exit);
                None
            }
            Step::Asking
            | Step::Stopping
            | Step::Killing
            | Step::Unheard
            | Step::Settling { .. }
            | Step::Leaving { .. } => None,
        }
    }

    /// How many lives have an end that the gateway may not know. Ours acknowledges every end at once, so one without an
    /// acknowledgement may have been lost on its way. The Rivet engine leaves most of them without, but what it has
    /// read it keeps, and a connection that was closed as it should be has been read to its end. Of one that was not,
    /// the acknowledgements of commands may be lost as well, and the engine would give the next process a start again.
    fn unheard(&self) -> usize {
        match (self.link.features.are_none(), self.link.heard_out) {
            (false, _) => self.actors.unacknowledged(),
            (true, true) => self.actors.untold(),
            (true, false) => self.actors.iter().count(),
        }
    }
}

impl Drain {
    fn deadline(&self) -> Instant {
        match self.step {
            Step::Asking => self.started + self.asking(),
            Step::Stopping | Step::Unheard => self.started + self.within,
            Step::Killing => self.started + self.within + KILLING,
            Step::Settling { since } => since + SETTLING,
            Step::Leaving { since } => since + LEAVING,
        }
    }

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
/// The same with a gateway that acknowledges, as long as it is within the drain's time.
const SETTLING_MOST: Duration = Duration::from_secs(2);
/// How long the closing handshake may take.
const LEAVING: Duration = Duration::from_secs(2);
