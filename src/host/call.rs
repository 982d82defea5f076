//! What actors and their hosts tell the runner.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, KvRequest, KvResponse, StreamId};
use tokio::sync::{mpsc, oneshot};

use crate::actor::{ActorKey, Outcome};

/// The bounded way into the runner: a sender that has to wait is how a slow gateway slows its actors.
pub type CallSender = mpsc::Sender<Call>;

/// Something that an actor life did or wants. Calls of a life that is over change nothing.
#[derive(Debug)]
pub enum Call {
    /// It serves.
    Running(ActorKey),
    /// It is no more, with everything it started.
    Ended(ActorKey, Outcome),
    /// It wants to sleep.
    Sleep(ActorKey),
    /// It wants to be destroyed.
    Destroy(ActorKey),
    /// It wants to be woken at this time, in milliseconds since the epoch.
    SetAlarm(ActorKey, Option<i64>),
    /// It reads or writes its storage.
    Kv {
        /// Who asks.
        actor: ActorKey,
        /// What.
        request: KvRequest,
        /// Gets exactly one answer.
        reply: oneshot::Sender<Result<KvResponse, KvError>>,
    },
    /// It answers on one of its streams.
    Stream {
        /// The life the stream was opened to.
        actor: ActorKey,
        /// Which stream.
        stream: StreamId,
        /// What it says.
        reply: StreamReply,
    },
}

/// A piece of an answer on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamReply {
    /// The head of a response. Names are lower case and may repeat.
    Response {
        /// HTTP status.
        status: u16,
        /// Response headers.
        headers: Headers,
        /// The body, or its first piece.
        body: Bytes,
        /// More of the body follows.
        more: bool,
    },
    /// More of the response body.
    Chunk {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        finish: bool,
    },
    /// There is no response, or not the rest of it.
    Abort,
    /// The actor takes the socket.
    Open {
        /// The socket may outlive the actor's process.
        can_hibernate: bool,
    },
    /// A frame for the client.
    Message {
        /// The payload; UTF-8 when not `binary`.
        data: Bytes,
        /// Binary or text.
        binary: bool,
    },
    /// The actor has taken the client's messages up to this index.
    MessageAck {
        /// The index as delivered.
        index: u16,
    },
    /// The actor closes or refuses the socket.
    Close {
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
    },
}

/// Why a storage request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The gateway refused it, for example for its size.
    #[error("{0}")]
    Refused(String),
    /// This life of the actor is over; another may be writing already.
    #[error("this generation of the actor has ended")]
    Stale,
    /// The gateway is away and the request was never sent.
    #[error("the gateway is not connected and the request was not sent in time")]
    Unavailable,
    /// The request was sent and no answer came: a write may or may not have happened.
    #[error("no answer came from the gateway in time; the write may or may not have happened")]
    OutcomeUnknown,
    /// Too many requests of this actor wait for their answers.
    #[error("too many storage requests of this actor are in flight; wait for some to finish")]
    TooMany,
}
