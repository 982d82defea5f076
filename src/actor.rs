//! What everyone agrees an actor is: its identity and why it starts and stops.

use std::fmt;
use std::sync::Arc;

/// One life of an actor. The generation rises with every start, so that the past cannot reach the present.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorKey {
    /// The actor's id at the gateway; opaque.
    pub id: Arc<str>,
    /// Which life of it.
    pub generation: u32,
}

/// Why an actor starts, as far as the gateway lets a runner know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartReason {
    /// It never ran before.
    Create,
    /// It slept.
    Wake,
    /// It crashed, or was lost with its runner.
    Restart,
}

/// Why an actor is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// It asked to sleep.
    Sleep,
    /// It asked to be destroyed.
    Destroy,
    /// The gateway said so: a destroy, a move, or a sleep from outside.
    Stop,
    /// The runner drains.
    Drain,
    /// The gateway was away for so long that the actor may already run elsewhere.
    Lost,
    /// A newer generation of the same actor is to start.
    Replaced,
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted by the actor or the gateway.
    Wanted,
    /// It did not start, or crashed; the text says why and reaches the gateway.
    Failed(String),
}

impl ActorKey {
    /// The key of this generation of the actor.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>, generation: u32) -> Self {
        ActorKey { id: id.into(), generation }
    }
}

impl fmt::Debug for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.generation)
    }
}

impl StartReason {
    /// The word used in `ACTOR_START_REASON`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StartReason::Create => "create",
            StartReason::Wake => "wake",
            StartReason::Restart => "restart",
        }
    }
}

impl StopReason {
    /// The word used in `Actor-Reason` and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::Sleep => "sleep",
            StopReason::Destroy => "destroy",
            StopReason::Stop => "stop",
            StopReason::Drain => "drain",
            StopReason::Lost => "lost",
            StopReason::Replaced => "replaced",
        }
    }
}
