//! What happens to a gateway.

use std::sync::Arc;

use greenroom_protocol::{Features, ToServer, Version};

use crate::gateway::{CreateActor, StreamHead, StreamUp};
use crate::store::Found;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A runner's socket is open; it has yet to introduce itself.
    Connected {
        /// The socket.
        connection: ConnectionId,
        /// What its URL says.
        hello: Hello,
    },
    /// A runner said something.
    Received {
        /// Its socket.
        connection: ConnectionId,
        /// What.
        message: ToServer,
    },
    /// A runner said something that cannot be read.
    Malformed {
        /// Its socket.
        connection: ConnectionId,
        /// It was text; only binary messages are part of the protocol.
        text: bool,
    },
    /// A runner's socket is gone.
    Disconnected {
        /// The socket.
        connection: ConnectionId,
    },
    /// A client wants a stream to an actor.
    Open {
        /// One for which [`Core::has_stream`](super::Core::has_stream) is false.
        stream: StreamRef,
        /// The actor.
        actor_id: Arc<str>,
        /// The first message.
        head: StreamHead,
    },
    /// A client says more on its stream.
    Client {
        /// The stream.
        stream: StreamRef,
        /// What.
        up: StreamUp,
    },
    /// A client has taken as much of a response as one grant of credit is for.
    ClientTook {
        /// Its stream.
        stream: StreamRef,
    },
    /// A client is gone, or took its answers too slowly.
    ClientGone {
        /// Its stream.
        stream: StreamRef,
    },
    /// Somebody wants something done.
    Call {
        /// Comes back with the answer.
        call: CallId,
        /// What.
        request: CallRequest,
    },
    /// The answer to [`Effect::Load`](super::Effect::Load).
    Loaded {
        /// As in the effect.
        load: LoadId,
        /// What the store knows.
        found: Found,
    },
    /// The gateway is to stop.
    Shutdown,
}

/// One socket of a runner; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One open or waiting stream; on the wire this is the request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef(pub u32);

/// One call; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One question to the store; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// What the URL and the headers of a runner's socket say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Namespace name.
    pub namespace: String,
    /// The runner's key.
    pub key: String,
    /// The protocol version spoken.
    pub version: Version,
    /// What was granted beyond the protocol.
    pub features: Features,
}

/// What can be called for.
#[derive(Clone, Debug, PartialEq)]
pub enum CallRequest {
    /// A new actor.
    Create(CreateActor),
    /// The actor that has the key, or a new one.
    GetOrCreate(CreateActor),
    /// The end of an actor.
    Destroy {
        /// Namespace name.
        namespace: Arc<str>,
        /// The actor.
        actor_id: Arc<str>,
    },
    /// A new namespace.
    CreateNamespace {
        /// Unique name.
        name: Arc<str>,
        /// For people.
        display_name: String,
    },
    /// New settings for a pool.
    PutRunnerConfig {
        /// Namespace name.
        namespace: Arc<str>,
        /// The pool.
        pool: Arc<str>,
        /// Older versions drain when a newer one connects.
        drain_on_version_upgrade: bool,
        /// A JSON object, as given.
        metadata: Option<String>,
    },
    /// No settings for a pool any more.
    DropRunnerConfig {
        /// Namespace name.
        namespace: Arc<str>,
        /// The pool.
        pool: Arc<str>,
    },
    /// Nothing but the answer, once everything decided before is durable.
    Settle,
}
