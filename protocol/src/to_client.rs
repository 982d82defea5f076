//! What a gateway says to a runner.

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Checkpoint, KvResponse, MessageId, StreamId, ToClientTunnel};

/// One message from gateway to runner.
#[derive(Clone, Debug, PartialEq)]
pub enum ToClient {
    /// The answer to [`crate::Init`]; nothing comes before it.
    Init {
        /// The identity given to this runner; stable for its key while it is not lost.
        runner_id: ByteString,
        /// The thresholds the gateway works with.
        metadata: InitMetadata,
    },
    /// Actors to start and stop.
    Commands(Vec<CommandWrapper>),
    /// Events up to these positions are stored; the runner forgets them.
    AckEvents(Vec<Checkpoint>),
    /// The answer to a key-value request.
    Kv {
        /// As in the request.
        request_id: u32,
        /// The result.
        response: KvResponse,
    },
    /// A piece of a tunnelled request or socket.
    Tunnel {
        /// The stream it belongs to and its number there.
        id: MessageId,
        /// The piece.
        message: ToClientTunnel,
    },
    /// Asks for a pong.
    Ping {
        /// Milliseconds since the epoch on the gateway's clock.
        ts: i64,
    },
}

/// The gateway's thresholds, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitMetadata {
    /// How long after a disconnect the runner keeps its actors.
    pub runner_lost_threshold: i64,
    /// How long the gateway waits for an actor to stop. `None` in what was read before version 6, never sent there;
    /// from version 6 on it must be given.
    pub actor_stop_threshold: Option<i64>,
    /// Only for serverless pools, from version 6.
    pub serverless_drain_grace_period: Option<i64>,
}

/// A command with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandWrapper {
    /// Actor, generation and index of this command.
    pub checkpoint: Checkpoint,
    /// What to do.
    pub command: Command,
}

/// An order about one actor generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start it.
    Start {
        /// What to start.
        config: ActorConfig,
        /// Client sockets that stayed open while it slept; always empty on redelivery from the Rivet engine.
        hibernating: Vec<StreamId>,
    },
    /// Stop it.
    Stop,
}

/// What an actor is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorConfig {
    /// The actor's name: which code to run.
    pub name: ByteString,
    /// Its key, unique within namespace and name.
    pub key: Option<ByteString>,
    /// Milliseconds since the epoch when the command was built.
    pub create_ts: i64,
    /// Opaque start input.
    pub input: Option<Bytes>,
}
