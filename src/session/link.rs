//! The connection to the gateway: one at a time, dialled again with jittered backoff, given up only when the gateway
//! says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom_protocol::close::{self, CloseReason};
use greenroom_protocol::{Features, InitMetadata, ToClient, ToServer};

use super::commands::Acknowledgements;
use crate::actor::StopReason;
use crate::backoff::Backoff;
use crate::session::{DialFailure, Disconnect, Effect, Exit, Session};

/// The link and what belongs to it.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    backoff: Backoff,
    pub(super) features: Features,
    pub(super) acknowledgements: Acknowledgements,
    identity: Option<Identity>,
    lost: Lost,
    /// How often the gateway may still say that it does not know the namespace: one that was just started has yet to
    /// make it, and answers before.
    starting: u8,
    /// The gateway has answered our close, so it has read everything that was said before.
    pub(super) heard_out: bool,
}

/// What exists only while waiting lives only in `Waiting`.
#[derive(Debug)]
enum State {
    Dialing,
    Greeting {
        deadline: Instant,
    },
    Open {
        since: Instant,
    },
    /// The socket was told to close; nothing more is said on it.
    Closing {
        next: Next,
    },
    Waiting {
        redial_at: Instant,
    },
    /// There will be no other socket; a drain ends what is left.
    Gone,
    Over,
}

/// Since when the gateway is away.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// It is not, or never was there.
    No,
    Since(Instant),
    /// So long that our actors were stopped.
    TooLong,
}

/// Who the gateway says we are.
#[derive(Debug)]
struct Identity {
    runner_id: Arc<str>,
    lost_after: Duration,
}

/// What follows a connection that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
enum Next {
    Redial,
    RedialSoon,
    /// The gateway does not want us back.
    Refused(String),
    /// We left on purpose.
    Gone,
}

/// Where the link stands, for people and probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// A socket is being opened.
    Dialing,
    /// The socket is open, the gateway has not answered yet.
    Greeting,
    /// The session is initialised.
    Open,
    /// The next dial waits for its time.
    Waiting,
    /// The session is over or about to be.
    Closed,
}

impl Link {
    pub(super) fn new(seed: u64) -> Self {
        Link {
            state: State::Dialing,
            backoff: Backoff::new(REDIAL_FIRST, REDIAL_MOST, seed),
            features: Features::default(),
            acknowledgements: Acknowledgements::default(),
            identity: None,
            lost: Lost::No,
            starting: 0,
            heard_out: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The gateway was left for good.
    pub(super) fn is_gone(&self) -> bool {
        match self.state {
            State::Gone | State::Over => true,
            State::Dialing
            | State::Greeting { .. }
            | State::Open { .. }
            | State::Closing { .. }
            | State::Waiting { .. } => false,
        }
    }

    /// The gateway may take the next message; before its init, it may only greet.
    pub(super) fn takes(&self, message: &ToClient) -> bool {
        match self.state {
            State::Greeting { .. } => matches!(message, ToClient::Init { .. }),
            State::Open { .. } => true,
            State::Dialing | State::Closing { .. } | State::Waiting { .. } | State::Gone | State::Over => false,
        }
    }

    /// A socket exists, whatever its state.
    pub(super) fn has_socket(&self) -> bool {
        match self.state {
            State::Greeting { .. } | State::Open { .. } | State::Closing { .. } => true,
            State::Dialing | State::Waiting { .. } | State::Gone | State::Over => false,
        }
    }

    /// The link may be open again by then.
    pub(super) fn may_open_before(&self, deadline: Instant) -> bool {
        match self.state {
            State::Dialing | State::Greeting { .. } | State::Open { .. } => true,
            State::Closing { ref next } => matches!(next, Next::Redial | Next::RedialSoon),
            State::Waiting { redial_at } => redial_at < deadline,
            State::Gone | State::Over => false,
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        match self.state {
            State::Dialing => LinkStatus::Dialing,
            State::Greeting { .. } => LinkStatus::Greeting,
            State::Open { .. } => LinkStatus::Open,
            State::Waiting { .. } => LinkStatus::Waiting,
            State::Closing { .. } | State::Gone | State::Over => LinkStatus::Closed,
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let state = match self.state {
            State::Greeting { deadline } => Some(deadline),
            State::Waiting { redial_at } => Some(redial_at),
            State::Dialing | State::Open { .. } | State::Closing { .. } | State::Gone | State::Over => None,
        };
        [state, self.lost_at()].into_iter().flatten().min()
    }

    fn lost_at(&self) -> Option<Instant> {
        match (self.lost, &self.identity) {
            (Lost::Since(since), Some(identity)) => Some(since + identity.lost_after),
            (Lost::Since(_) | Lost::No | Lost::TooLong, _) => None,
        }
    }
}

impl Session {
    pub(super) fn dialed(&mut self, features: Features, now: Instant) {
        if !matches!(self.link.state, State::Dialing) {
            return;
        }
        self.link.features = features;
        self.link.state = State::Greeting { deadline: now + GREETING_TIMEOUT };
        self.effects.push_back(Effect::Send(ToServer::Init(self.settings.init.clone())));
    }

    pub(super) fn dial_failed(&mut self, failure: DialFailure, now: Instant) {
        if matches!(self.link.state, State::Dialing) {
            self.link.starting = UNKNOWN_WHILE_STARTING;
            self.wait_to_redial(failure.0, Next::Redial, now);
        }
    }

    pub(super) fn greeted(&mut self, runner_id: &str, metadata: InitMetadata, now: Instant) {
        if !matches!(self.link.state, State::Greeting { .. }) {
            return;
        }
        let changed = self.link.identity.as_ref().is_some_and(|known| &*known.runner_id != runner_id);
        if changed {
            self.forget_identity();
        }
        let lost_after = u64::try_from(metadata.runner_lost_threshold)
            .map_or(LOST_AFTER_LEAST, Duration::from_millis)
            .clamp(LOST_AFTER_LEAST, LOST_AFTER_MOST);
        let runner_id: Arc<str> = runner_id.into();
        self.link.identity = Some(Identity { runner_id: runner_id.clone(), lost_after });
        self.link.state = State::Open { since: now };
        self.link.lost = Lost::No;
        self.link.starting = 0;
        self.effects.push_back(Effect::Connected { runner_id, lost_after });
        self.announce_drain();
        self.flush_acknowledgements();
        self.affirm_running();
        self.resend_storage();
        self.resend_tunnel();
        self.resume_sockets(now);
    }

    pub(super) fn disconnected(&mut self, disconnect: Disconnect, now: Instant) {
        let next = match &self.link.state {
            State::Closing { next } => next.clone(),
            State::Greeting { .. } | State::Open { .. } => next_after(&disconnect, &mut self.link.starting),
            State::Dialing | State::Waiting { .. } | State::Gone | State::Over => return,
        };
        match next {
            Next::Redial | Next::RedialSoon => self.interrupted(disconnect, next, now),
            Next::Refused(reason) if self.drain.is_none() => self.exit(Exit::Refused(reason)),
            Next::Refused(_) | Next::Gone => {
                self.link.heard_out = is_answer(&disconnect);
                self.link.state = State::Gone;
                self.link.lost = Lost::No;
                self.actors_are_lost();
            }
        }
    }

    fn interrupted(&mut self, disconnect: Disconnect, next: Next, now: Instant) {
        let was_open = matches!(self.link.state, State::Open { .. });
        if let State::Open { since } = self.link.state {
            if now.duration_since(since) >= STABLE {
                self.link.backoff.reset();
            } else {
                // Accepted, so the gateway is there; waiting long now could cost every actor its life.
                self.link.backoff.rewind(SHORT_LIVED_STEPS);
            }
            self.link.lost = Lost::Since(now);
            self.actors.disconnected();
            self.hibernation.disconnected();
        }
        let text = match disconnect {
            Disconnect::Closed { code, reason } if reason.is_empty() => format!("closed by the gateway, code {code}"),
            Disconnect::Closed { code, reason } => format!("closed by the gateway, code {code}: {reason}"),
            Disconnect::Broken(text) => text,
        };
        self.wait_to_redial(text, next, now);
        if was_open {
            self.break_bodies_off();
        }
    }

    /// Dials again, or gives up waiting for the gateway, when it is time.
    pub(super) fn link_timeout(&mut self, now: Instant) {
        match self.link.state {
            State::Greeting { deadline } if deadline <= now => {
                self.link.state = State::Closing { next: Next::Redial };
                self.effects.push_back(Effect::Hangup { code: 1002, reason: "runner.no_init" });
            }
            State::Waiting { redial_at } if redial_at <= now => {
                self.link.state = State::Dialing;
                self.effects.push_back(Effect::Dial);
            }
            State::Greeting { .. }
            | State::Waiting { .. }
            | State::Dialing
            | State::Open { .. }
            | State::Closing { .. }
            | State::Gone
            | State::Over => {}
        }
        if self.link.lost_at().is_some_and(|at| at <= now) {
            self.link.lost = Lost::TooLong;
            if self.actors.live() > 0 {
                self.effects.push_back(Effect::Lost);
            }
            self.actors_are_lost();
        }
    }

    /// Leaves for good after everything sent so far.
    pub(super) fn hang_up(&mut self) {
        match self.link.state {
            State::Greeting { .. } | State::Open { .. } => {
                self.effects.push_back(Effect::Hangup { code: 1000, reason: close::RUNNER_SHUTDOWN });
            }
            // It is being closed already.
            State::Closing { .. } => {}
            State::Dialing | State::Waiting { .. } | State::Gone | State::Over => return,
        }
        self.link.state = State::Closing { next: Next::Gone };
    }

    pub(super) fn exit(&mut self, exit: Exit) {
        if !self.link.is_over() {
            self.link.state = State::Over;
            self.storage_unreachable();
            self.drop_streams();
            self.effects.push_back(Effect::Exit(exit));
        }
    }

    fn wait_to_redial(&mut self, reason: String, next: Next, now: Instant) {
        let delay = self.link.backoff.next_delay();
        let retry_in = match next {
            Next::RedialSoon if self.link.backoff.attempt() == 1 => REDIAL_SOON,
            Next::Redial | Next::RedialSoon | Next::Refused(_) | Next::Gone => delay,
        };
        self.link.state = State::Waiting { redial_at: now + retry_in };
        self.effects.push_back(Effect::Disconnected { reason, retry_in });
    }

    /// The gateway does not know us any more: actors of the old identity may already run elsewhere.
    fn forget_identity(&mut self) {
        self.actors.orphan_all();
        self.link.acknowledgements = Acknowledgements::default();
        self.actors_are_lost();
    }

    /// What runs here may already run elsewhere: stops it, and nothing it asked for or answers matters any more.
    fn actors_are_lost(&mut self) {
        self.stop_all(StopReason::Lost);
        self.storage_unreachable();
        self.drop_streams();
    }
}

/// Whether this is what a close of ours is answered with; a gateway that closes by itself has not read everything.
fn is_answer(disconnect: &Disconnect) -> bool {
    matches!(disconnect, Disconnect::Closed { code: 1000, .. })
        && !matches!(next_after(disconnect, &mut 0), Next::Refused(_))
}

/// The one place that turns an ended connection into a decision. `starting` counts down how often a gateway that was just
/// started may not know the namespace.
fn next_after(disconnect: &Disconnect, starting: &mut u8) -> Next {
    let Disconnect::Closed { reason, .. } = disconnect else { return Next::Redial };
    let parsed = CloseReason::parse(reason);
    let ray = parsed.ray.as_deref().map_or(String::new(), |ray| format!(" (gateway's reference: {ray})"));
    match (parsed.group.as_str(), parsed.code.as_str()) {
        ("ws", "eviction") => Next::Refused(format!(
            "evicted: another runner connected with the same namespace, name and key, or the gateway drained this one; \
             give each runner its own --runner-key{ray}"
        )),
        ("namespace", "not_found") if *starting > 0 => {
            *starting -= 1;
            Next::Redial
        }
        ("namespace", "not_found") => Next::Refused(format!(
            "unknown namespace: the gateway has no namespace of the name given by --namespace{ray}"
        )),
        ("api", "forbidden" | "unauthorized") => Next::Refused(format!(
            "bad token: the gateway does not accept the token given by --token-file or GREENROOM_TOKEN{ray}"
        )),
        ("guard", "missing_header") => Next::Refused(format!(
            "token missing: the gateway wants one; give it by --token-file or GREENROOM_TOKEN{ray}"
        )),
        ("ws", "invalid_url") => Next::Refused(format!(
            "refused: the gateway does not understand the connection's parameters; \
             check --endpoint and --protocol-version{ray}"
        )),
        ("ws", "going_away") => Next::RedialSoon,
        _ => Next::Redial,
    }
}

/// The first wait before dialling again.
const REDIAL_FIRST: Duration = Duration::from_secs(1);
/// The longest wait before dialling again, without jitter.
const REDIAL_MOST: Duration = Duration::from_secs(30);
/// The first wait after a gateway that said it restarts: another one may be there already.
const REDIAL_SOON: Duration = Duration::from_millis(100);
/// A connection that held this long starts the backoff afresh.
const STABLE: Duration = Duration::from_secs(5);
/// After one that was accepted and dropped sooner, the backoff is at most here: 4 s, well below any gateway's patience.
const SHORT_LIVED_STEPS: u32 = 2;
/// How long a gateway may take to answer our init.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a gateway that was away may say that it does not know the namespace.
const UNKNOWN_WHILE_STARTING: u8 = 3;
/// Bounds for the gateway's word on how long it keeps our actors.
const LOST_AFTER_LEAST: Duration = Duration::from_secs(1);
const LOST_AFTER_MOST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(reason: &str) -> Disconnect {
        Disconnect::Closed { code: 1011, reason: reason.to_owned() }
    }

    #[test]
    fn only_a_refusal_for_good_ends_the_session() {
        for reason in
            ["ws.eviction#r", "namespace.not_found#r", "api.forbidden#r", "guard.missing_header", "ws.invalid_url#r"]
        {
            assert!(matches!(next_after(&closed(reason), &mut 0), Next::Refused(_)), "{reason}");
        }
        for reason in ["", "core.internal_error#r", "ws.invalid_packet", "ws.timed_out_waiting_for_init", "bye"] {
            assert_eq!(next_after(&closed(reason), &mut 0), Next::Redial, "{reason}");
        }
        assert_eq!(next_after(&closed("ws.going_away#r"), &mut 0), Next::RedialSoon);
        assert_eq!(next_after(&Disconnect::Broken("reset".into()), &mut 0), Next::Redial);
    }
}
