//! The gateway's decisions, as a pure state machine.
//!
//! The shell feeds [`Input`]s with the current time and performs the [`Effect`]s that come out; what an effect did
//! comes back as an input. In between the core keeps its promises: an actor has one life at a time, its runner learns
//! every command until it acknowledges it, every event counts once, every stream ends, and nobody is told of anything
//! that is not durable.
//!
//! Only actors that are awake or asked for are in memory; sleeping and destroyed ones are asked from the store.
//! Holds no socket, task, clock or lock; chance comes from the seed in [`Settings`].

mod alarms;
mod calls;
mod commands;
mod directory;
mod effect;
mod events;
mod hibernation;
mod input;
mod kv;
mod lifecycle;
mod loads;
mod outbound;
mod peer;
mod placement;
mod random;
mod rules;
mod runners;
mod settings;
mod strays;
mod timers;
mod tunnel;
mod waiting;

use std::time::{Duration, Instant};

pub use effect::{Answer, Effect};
pub use greenroom_protocol::Features;
pub use input::{CallId, CallRequest, ConnectionId, Hello, Input, LoadId, StreamRef};
pub use settings::{Boot, Limits, Settings, Thresholds};

use directory::Directory;
use hibernation::Hibernation;
use loads::Loads;
use outbound::Outbound;
use peer::Peers;
use random::Random;
use runners::Runners;
use strays::Strays;
use timers::{Timer, Timers};
use tunnel::Tunnel;
use waiting::Waiting;

use super::GatewayHealth;

/// Everything the gateway knows and decides.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    random: Random,
    timers: Timers,
    directory: Directory,
    loads: Loads,
    runners: Runners,
    peers: Peers,
    tunnel: Tunnel,
    hibernation: Hibernation,
    strays: Strays,
    waiting: Waiting,
    out: Outbound,
    stopping: bool,
}

/// The current time, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For records and messages: milliseconds since the epoch.
    pub wall_ms: i64,
}

impl Core {
    /// A gateway that goes on where an earlier one stopped.
    #[must_use]
    pub fn new(settings: Settings, boot: Boot, now: Now) -> Self {
        let mut core = Core {
            random: Random::new(settings.seed),
            settings,
            timers: Timers::default(),
            tunnel: Tunnel::default(),
            hibernation: Hibernation::default(),
            strays: Strays::default(),
            directory: Directory::default(),
            loads: Loads::default(),
            runners: Runners::default(),
            peers: Peers::default(),
            waiting: Waiting::default(),
            out: Outbound::default(),
            stopping: false,
        };
        core.boot(boot, now);
        core.settle(now);
        core
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Connected { connection, hello } => self.connected(connection, hello, now),
            Input::Received { connection, message } => self.received(connection, message, now),
            Input::Malformed { connection, text } => self.malformed(connection, text),
            Input::Disconnected { connection } => self.disconnected(connection, now),
            Input::Open { stream, actor_id, head } => self.open(stream, actor_id, head, now),
            Input::Client { stream, up } => self.client(stream, up, now),
            Input::ClientGone { stream } => self.client_gone(stream, now),
            Input::ClientTook { stream } => self.client_took(stream),
            Input::Call { call, request } => self.call(call, request, now),
            Input::Loaded { load, found } => self.loaded(load, found, now),
            Input::Shutdown => self.shut_down(),
        }
        self.settle(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop(now.instant) {
            match timer {
                Timer::Greeting(connection) => self.greeting_timeout(connection),
                Timer::Ping(connection) => self.ping(connection, now),
                Timer::Pong(connection) => self.pong_timeout(connection, now),
                Timer::Acknowledge(connection) => self.acknowledge_events(connection),
                Timer::Runner(runner_id) => self.runner_timeout(&runner_id, now),
                Timer::Leftovers(runner_id) => self.leftovers_timeout(&runner_id, now),
                Timer::Actor(actor_id) => self.actor_timeout(&actor_id, now),
                Timer::Waiting(actor_id) => self.waiting_timeout(&actor_id, now),
                Timer::Unacknowledged => self.unacknowledged_timeout(now),
                Timer::Alarm => self.load_due_alarms(now),
            }
        }
        self.settle(now);
    }

    /// The next thing to do. Call until it answers `None`, then wait for an input or [`Core::poll_timeout`].
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop()
    }

    /// When [`Core::handle_timeout`] is due, whatever else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether a stream of this reference is open or waiting.
    #[must_use]
    pub fn has_stream(&self, stream: StreamRef) -> bool {
        self.tunnel.has(stream) || self.hibernation.has(stream) || self.waiting.has(stream)
    }

    /// How the gateway does.
    #[must_use]
    pub fn health(&self) -> GatewayHealth {
        GatewayHealth {
            connected_runners: self.runners.connected(),
            awake_actors: self.directory.actors.len(),
            waiting_actors: self.directory.queues.values().map(std::collections::BTreeSet::len).sum(),
            streams: self.tunnel.len() + self.hibernation.len(),
            waiting_streams: self.waiting.len(),
            lasting_sockets: self.hibernation.len(),
            kept_bytes: self.hibernation.bytes(),
        }
    }

    /// Ends every handled input: what was freed is given away, what was changed is committed, what waits for it goes
    /// out.
    fn settle(&mut self, now: Now) {
        self.fill_freed_slots(now);
        let directory = &self.directory;
        self.out.flush(|id| directory.actors.get(id).map(|actor| actor.record.clone()));
    }

    fn shut_down(&mut self) {
        self.stopping = true;
        self.refuse_all_waiting();
        self.fail_all_streams();
        self.close_all_peers();
    }
}

impl Now {
    /// The same moment shifted into the future.
    #[must_use]
    pub fn after(self, by: Duration) -> Now {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Now { instant: self.instant + by, wall_ms: self.wall_ms.saturating_add(millis) }
    }

    /// When the wall clock will show this, judged from now.
    fn instant_of(self, wall_ms: i64) -> Instant {
        let millis = u64::try_from(wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0);
        // A century is beyond every alarm, and within what an instant can hold.
        self.instant + Duration::from_millis(millis.min(CENTURY_MS))
    }
}

const CENTURY_MS: u64 = 100 * 366 * 24 * 3_600 * 1_000;
