//! The records a gateway keeps. Times are milliseconds since the epoch.

use std::sync::Arc;

use bytes::Bytes;

/// A world of its own: actors, runners and names of one namespace never meet those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// Id.
    pub id: Arc<str>,
    /// Unique name, used in URLs.
    pub name: Arc<str>,
    /// For people.
    pub display_name: String,
    /// When it was created.
    pub create_ts: i64,
}

/// One actor over all its lives.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorRecord {
    /// Id.
    pub id: Arc<str>,
    /// Its namespace.
    pub namespace_id: Arc<str>,
    /// Which code runs it.
    pub name: Arc<str>,
    /// Unique among the living actors of namespace and name.
    pub key: Option<Arc<str>>,
    /// The pool of runners it is matched to.
    pub pool: Arc<str>,
    /// What happens after a crash.
    pub crash_policy: CrashPolicy,
    /// Opaque start input.
    pub input: Option<Bytes>,
    /// Where it is in its life.
    pub phase: Phase,
    /// The current or last life; 0 until the first start.
    pub generation: u32,
    /// The runner that holds it.
    pub runner_id: Option<Arc<str>>,
    /// The index of the next command of this generation.
    pub next_command: i64,
    /// Whether the runner acknowledged the last command of this generation.
    pub command_acknowledged: bool,
    /// The highest event index taken of this generation.
    pub last_event: Option<i64>,
    /// When to wake it.
    pub alarm_at: Option<i64>,
    /// It is to be started again as soon as it has stopped.
    pub wake_after_stop: bool,
    /// Restarts since it last ran well; sets the backoff.
    pub restarts: u32,
    /// What went wrong last.
    pub error: Option<ActorError>,
    /// When it was created.
    pub create_ts: i64,
    /// When it first ran; survives sleep.
    pub start_ts: Option<i64>,
    /// Since when it waits for a runner.
    pub pending_allocation_ts: Option<i64>,
    /// Since when it can be reached; kept after destroy.
    pub connectable_ts: Option<i64>,
    /// Since when it sleeps.
    pub sleep_ts: Option<i64>,
    /// When it will be started again after a crash.
    pub reschedule_ts: Option<i64>,
    /// When it was destroyed.
    pub destroy_ts: Option<i64>,
}

/// Where an actor is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waits for a runner with a free slot.
    Pending,
    /// A runner was told to start it.
    Starting,
    /// It serves.
    Running,
    /// Its runner was told to stop it, and then it sleeps.
    StoppingToSleep,
    /// Its runner was told to stop it, and then it is destroyed.
    StoppingToDestroy,
    /// Its runner drains and was told to stop it, and then its crash policy decides.
    StoppingToMove,
    /// It waits until `reschedule_ts` after a crash.
    Backoff,
    /// It has no process and no runner; its storage stays.
    Sleeping,
    /// It is gone for good.
    Destroyed,
}

/// What happens to an actor that crashed or was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashPolicy {
    /// It starts again, after a growing delay.
    Restart,
    /// It sleeps until somebody asks for it.
    Sleep,
    /// It is destroyed.
    Destroy,
}

/// What went wrong with an actor, as the public API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActorError {
    /// No runner had a free slot.
    NoCapacity,
    /// It crashed or did not start.
    Crashed {
        /// The reason its runner gave.
        message: Option<String>,
    },
    /// Its runner did not answer a command in time.
    RunnerNoResponse {
        /// Which runner.
        runner_id: Arc<str>,
    },
    /// Its runner was lost.
    RunnerConnectionLost {
        /// Which runner.
        runner_id: Arc<str>,
    },
    /// Its runner left before the actor had stopped.
    RunnerDrainingTimeout {
        /// Which runner.
        runner_id: Arc<str>,
    },
}

/// One runner, known by its key within namespace and pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerRecord {
    /// Id; stable for the key while the runner is not lost.
    pub id: Arc<str>,
    /// Its namespace.
    pub namespace_id: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its key.
    pub key: Arc<str>,
    /// The version of its code.
    pub version: u32,
    /// Actors it can hold.
    pub total_slots: u32,
    /// A JSON object.
    pub metadata: String,
    /// When it first connected.
    pub create_ts: i64,
    /// When it last connected.
    pub last_connected_ts: i64,
    /// When it last answered a ping, as far as stored.
    pub last_ping_ts: i64,
    /// Since when it drains.
    pub drain_ts: Option<i64>,
    /// When it left or was lost; its id is used up.
    pub stop_ts: Option<i64>,
}

/// A name that actors of a namespace can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorName {
    /// Its namespace.
    pub namespace_id: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// A JSON object.
    pub metadata: String,
}

/// The settings of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerConfigRecord {
    /// Its namespace.
    pub namespace_id: Arc<str>,
    /// The pool name.
    pub pool: Arc<str>,
    /// Older versions drain when a newer one connects.
    pub drain_on_version_upgrade: bool,
    /// A JSON object, as given.
    pub metadata: Option<String>,
}
