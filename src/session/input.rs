//! What happens to a session.

use std::time::Duration;

use greenroom_protocol::{Features, KvRequest, StreamId, ToClient};

use crate::actor::{ActorKey, Outcome};
use crate::stream::{StreamKey, StreamReply};

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The socket is open; the gateway grants these features beyond the protocol.
    Dialed {
        /// What both ends understand.
        features: Features,
    },
    /// The socket could not be opened.
    DialFailed(DialFailure),
    /// The gateway said something.
    Received(ToClient),
    /// The socket is gone.
    Disconnected(Disconnect),
    /// An actor serves.
    Running(ActorKey),
    /// An actor that starts knows sockets from its earlier lives.
    Restored {
        /// Which life.
        actor: ActorKey,
        /// Sockets it goes on with, each with the index of the last client message it has taken.
        sockets: Vec<(StreamId, u16)>,
        /// Sockets that the gateway has kept and the actor does not know.
        unknown: Vec<StreamId>,
    },
    /// An actor is no more.
    Ended(ActorKey, Outcome),
    /// An actor wants to sleep.
    Sleep(ActorKey),
    /// An actor wants to be destroyed.
    Destroy(ActorKey),
    /// The runner's owner stops an actor and says how the gateway is to take it.
    Stop(ActorKey, Outcome),
    /// The runner's owner ends an actor without asking it.
    Kill(ActorKey),
    /// An actor wants to be woken at this time, in milliseconds since the epoch.
    SetAlarm(ActorKey, Option<i64>),
    /// An actor asks its storage.
    Kv {
        /// Who.
        actor: ActorKey,
        /// Comes back with the answer.
        ticket: u64,
        /// What.
        request: KvRequest,
    },
    /// An actor answers on a stream.
    Reply {
        /// Which opening of which stream; it says which life, too.
        stream: StreamKey,
        /// What it says.
        reply: StreamReply,
    },
    /// The runner is to stop, politely, within this time.
    Drain {
        /// The time for everything.
        within: Duration,
    },
}

/// Why a dial did not give a socket. The text says it for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DialFailure(pub String);

/// How a socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The gateway closed it.
    Closed {
        /// WebSocket close code.
        code: u16,
        /// WebSocket close reason, unparsed.
        reason: String,
    },
    /// It broke, or the gateway fell silent; the text says which.
    Broken(String),
}
