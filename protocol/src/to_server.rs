//! What a runner says to its gateway.

use bytestring::ByteString;

use crate::{Checkpoint, KvRequest, MessageId, ToServerTunnel};

/// One message from runner to gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum ToServer {
    /// The first message of every connection.
    Init(Init),
    /// State changes of actors, in order within an actor.
    Events(Vec<EventWrapper>),
    /// Commands up to these positions were taken; the gateway forgets them.
    AckCommands(Vec<Checkpoint>),
    /// The runner drains: no new actors, stop those it has.
    Stopping,
    /// The answer to a ping, with its timestamp.
    Pong {
        /// Milliseconds since the epoch on the gateway's clock, as received.
        ts: i64,
    },
    /// A key-value request for an actor this runner holds.
    Kv {
        /// The actor whose storage is meant.
        actor_id: ByteString,
        /// Chosen by the runner, echoed in the answer.
        request_id: u32,
        /// The operation.
        request: KvRequest,
    },
    /// A piece of a tunnelled request or socket.
    Tunnel {
        /// The stream it belongs to and its number there.
        id: MessageId,
        /// The piece.
        message: ToServerTunnel,
    },
}

/// The runner introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// The pool name that actors are matched to.
    pub name: ByteString,
    /// The version of the runner's code; new actors go to the highest.
    pub version: u32,
    /// Actors it can hold at once.
    pub total_slots: u32,
    /// Actor names to list before any actor exists.
    pub prepopulate_actor_names: Option<Vec<(ByteString, ActorName)>>,
    /// A JSON object shown beside the runner.
    pub metadata: Option<ByteString>,
}

/// What the gateway lists beside an actor name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorName {
    /// A JSON object.
    pub metadata: ByteString,
}

/// An event with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventWrapper {
    /// Actor, generation and index of this event.
    pub checkpoint: Checkpoint,
    /// What happened.
    pub event: Event,
}

/// Something that happened to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The actor wants to sleep; the gateway answers with a stop command.
    SleepIntent,
    /// The actor wants to be stopped for good.
    StopIntent,
    /// The actor serves.
    Running,
    /// The actor ended as it was told or as it wanted.
    StoppedOk {
        /// Anything worth saying.
        message: Option<ByteString>,
    },
    /// The actor failed to start or crashed.
    StoppedError {
        /// Why.
        message: Option<ByteString>,
    },
    /// Wake the actor at this time.
    SetAlarm {
        /// Milliseconds since the epoch; `None` clears the alarm.
        at: Option<i64>,
    },
}
