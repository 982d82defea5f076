//! What a gateway is made with.

use std::time::Duration;

use crate::store::{ActorName, ActorRecord, NamespaceRecord, RunnerConfigRecord, RunnerRecord};

/// What a gateway is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long things may take.
    pub thresholds: Thresholds,
    /// How much there may be of what costs memory.
    pub limits: Limits,
    /// Distinguishes the streams of this process from those of an earlier one.
    pub gateway_id: [u8; 4],
    /// Where chance comes from.
    pub seed: [u64; 2],
}

/// How long things may take. The defaults are those of the Rivet engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// From the open socket to the runner's introduction.
    pub init: Duration,
    /// Between two pings; up to 127 ms more by chance.
    pub ping_interval: Duration,
    /// Without a pong for this long, a connection is closed.
    pub ping_timeout: Duration,
    /// Without a pong for this long, a runner gets no new actors.
    pub eligible: Duration,
    /// A runner away for this long is lost; also how long a drain may take.
    pub runner_lost: Duration,
    /// From a start command to the actor serving.
    pub actor_start: Duration,
    /// From a stop command to the actor stopped.
    pub actor_stop: Duration,
    /// From an actor's destruction by a caller to its end, whether it has stopped or not.
    pub destroy_grace: Duration,
    /// A request waits for its actor to serve.
    pub actor_ready: Duration,
    /// An actor of policy `sleep` waits for a free slot.
    pub queue: Duration,
    /// Events taken are acknowledged at the latest.
    pub acknowledge: Duration,
    /// A drained runner may hang up by itself before it is told to.
    pub drained: Duration,
    /// An actor that takes nothing of a socket that outlives it loses the socket after this long.
    pub unacknowledged: Duration,
    /// An actor that served this long has forgotten its crashes.
    pub crash_memory: Duration,
}

/// How much there may be of what costs memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open runner sockets.
    pub connections: usize,
    /// Streams waiting for one actor.
    pub waiting_per_actor: usize,
    /// Streams waiting for any actor.
    pub waiting: usize,
    /// Bytes of bodies of waiting streams.
    pub waiting_bytes: usize,
    /// Open streams.
    pub streams: usize,
    /// Messages of one stream that wait for its runner to come back.
    pub backlog: usize,
    /// Bytes of one stream that wait for its runner to come back.
    pub backlog_bytes: usize,
    /// Bytes kept for all sockets that outlive their actors, until the actors take them.
    pub kept_bytes: usize,
    /// Questions to the store without an answer.
    pub loads: usize,
}

/// What an earlier gateway left in the store.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// All namespaces.
    pub namespaces: Vec<NamespaceRecord>,
    /// The settings of all pools.
    pub runner_configs: Vec<RunnerConfigRecord>,
    /// All actor names.
    pub actor_names: Vec<ActorName>,
    /// Runners not expired.
    pub runners: Vec<RunnerRecord>,
    /// Actors neither asleep nor destroyed.
    pub actors: Vec<ActorRecord>,
    /// The earliest alarm of a sleeping actor.
    pub next_alarm: Option<i64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            init: Duration::from_secs(5),
            ping_interval: Duration::from_secs(3),
            ping_timeout: Duration::from_secs(15),
            eligible: Duration::from_secs(10),
            runner_lost: Duration::from_secs(15),
            actor_start: Duration::from_secs(30),
            actor_stop: Duration::from_mins(30),
            destroy_grace: Duration::from_secs(5),
            actor_ready: Duration::from_secs(30),
            queue: Duration::from_mins(1),
            acknowledge: Duration::from_secs(1),
            drained: Duration::from_millis(500),
            unacknowledged: Duration::from_secs(30),
            crash_memory: Duration::from_mins(10),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 10_000,
            waiting_per_actor: 1_024,
            waiting: 16_384,
            waiting_bytes: 256 * 1024 * 1024,
            streams: 1_000_000,
            backlog: 1_024,
            backlog_bytes: 4 * 1024 * 1024,
            kept_bytes: 512 * 1024 * 1024,
            loads: 16_384,
        }
    }
}
