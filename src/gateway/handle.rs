//! How HTTP handlers reach the gateway's driver.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::Headers;
use tokio::sync::mpsc;

use crate::store::{ActorError, ActorRecord, CrashPolicy};

/// The door to the driver; cheap to clone. (The driver's engineer adds the channel and the methods' bodies.)
#[derive(Clone, Debug)]
pub struct GatewayHandle {}

/// What a new actor is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateActor {
    /// Namespace name.
    pub namespace: Arc<str>,
    /// Actor name.
    pub name: Arc<str>,
    /// Actor key.
    pub key: Option<Arc<str>>,
    /// The pool: `runner_name_selector`.
    pub pool: Arc<str>,
    /// What happens after a crash.
    pub crash_policy: CrashPolicy,
    /// Opaque start input.
    pub input: Option<Bytes>,
}

/// A stream a client wants to an actor. One attempt: retrying is the caller's.
#[derive(Debug)]
pub struct OpenStream {
    /// The actor's id.
    pub actor_id: Arc<str>,
    /// What is opened.
    pub head: StreamHead,
    /// Where the answers go; bounded by the caller.
    pub events: mpsc::Sender<TunnelEvent>,
}

/// The first message of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamHead {
    /// An HTTP request.
    Request {
        /// HTTP method.
        method: ByteString,
        /// Path and query as the actor sees them.
        path: ByteString,
        /// Lower-case names; may repeat here, joined on the wire as the protocol demands.
        headers: Headers,
        /// The body, or its first piece.
        body: Option<Bytes>,
        /// More of the body follows (only towards runners that understand it).
        more: bool,
    },
    /// A WebSocket.
    WebSocket {
        /// Path and query as the actor sees them.
        path: ByteString,
        /// Headers of the upgrade.
        headers: Headers,
    },
}

/// What an actor answers on a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum TunnelEvent {
    /// The head of the response.
    Response {
        /// HTTP status.
        status: u16,
        /// Headers.
        headers: Headers,
        /// The body, or its first piece.
        body: Option<Bytes>,
        /// More of the body follows.
        more: bool,
    },
    /// More of the response.
    Chunk {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        finish: bool,
    },
    /// The actor took the socket.
    Open {
        /// It may outlive the actor's process.
        can_hibernate: bool,
    },
    /// A frame for the client.
    Message {
        /// The payload.
        data: Bytes,
        /// Binary or text.
        binary: bool,
    },
    /// The actor closed the socket.
    Close {
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
    },
    /// The stream ended without an answer, or without the rest of it.
    Failed(GatewayError),
}

/// The client's side of an open stream; dropped, it tells the actor that the client is gone.
#[derive(Debug)]
pub struct StreamLink {}

/// What a client sends on an open stream.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamUp {
    /// More of the request body.
    Chunk {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        finish: bool,
    },
    /// A socket frame.
    Message {
        /// The payload.
        data: Bytes,
        /// Binary or text.
        binary: bool,
    },
    /// The client closed the socket.
    Close {
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
    },
}

/// An actor somebody named, with what a handler must know to answer about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorIdentity {
    /// The record as it stands on disk.
    pub record: ActorRecord,
    /// The name of its namespace.
    pub namespace: Arc<str>,
}

/// Why the gateway did not do what was asked. `group.code` and status as in the Rivet engine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GatewayError {
    /// `actor.not_found`.
    #[error("no such actor")]
    ActorNotFound,
    /// `actor.duplicate_key`.
    #[error("an actor with this name and key exists already")]
    DuplicateKey {
        /// The one that has it.
        existing_actor_id: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// `actor.destroyed_during_creation` and friends: it was destroyed while somebody waited for it.
    #[error("the actor was destroyed")]
    ActorDestroyed,
    /// `namespace.not_found`.
    #[error("no such namespace")]
    NamespaceNotFound,
    /// `actor.no_runner_config_configured`.
    #[error("no runner of pool `{pool}` has ever connected to this namespace")]
    NoRunnerConfig {
        /// The pool.
        pool: Arc<str>,
    },
    /// `guard.actor_ready_timeout`: the actor did not become ready in time; says what it waited for.
    #[error("the actor was not ready in time")]
    ActorReadyTimeout {
        /// What is known about why.
        error: Option<ActorError>,
    },
    /// `guard.actor_stopped_while_waiting`: the actor stopped before it answered. Worth another attempt.
    #[error("the actor stopped before it answered")]
    ActorStopped,
    /// `guard.tunnel_request_aborted`: the runner gave up. Worth another attempt.
    #[error("the runner aborted the request")]
    RequestAborted,
    /// `guard.tunnel_response_closed`: the runner's connection is gone. Worth another attempt only if the request had
    /// not reached the runner or may be repeated.
    #[error("the connection to the runner was lost before it answered")]
    TunnelClosed,
    /// `guard.gateway_response_start_timeout`.
    #[error("the actor did not begin to answer in time")]
    ResponseStartTimeout,
    /// `guard.service_unavailable`: too much is waiting, or the gateway stops.
    #[error("{0}")]
    Unavailable(&'static str),
    /// `core.internal_error`.
    #[error("{0}")]
    Internal(String),
}
