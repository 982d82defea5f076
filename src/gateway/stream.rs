//! Streams between a client and an actor, as everything above the wire sees them.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::Headers;

use super::GatewayError;

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
        /// More of the body follows as [`StreamUp::Chunk`]; a runner that cannot take it that way is answered for with
        /// [`GatewayError::WholeBodyNeeded`].
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
        /// Headers; a name may repeat.
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

impl TunnelEvent {
    /// Whether nothing can follow on the stream.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            TunnelEvent::Response { more, .. } => !more,
            TunnelEvent::Chunk { finish, .. } => *finish,
            TunnelEvent::Open { .. } | TunnelEvent::Message { .. } => false,
            TunnelEvent::Close { .. } | TunnelEvent::Failed(_) => true,
        }
    }
}
