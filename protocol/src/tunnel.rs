//! Client requests and sockets on their way to an actor and back.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use bytestring::ByteString;

/// Header names and values in wire order; a name stands at most once.
pub type Headers = Vec<(ByteString, ByteString)>;

/// One request or socket, from the gateway's point of view. Opaque to a runner.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StreamId {
    /// The gateway process.
    pub gateway: [u8; 4],
    /// Unique among the open streams of that process.
    pub request: [u8; 4],
}

impl StreamId {
    /// All of it as one number, in the order of its bytes.
    fn number(self) -> u64 {
        u64::from(u32::from_be_bytes(self.gateway)) << 32 | u64::from(u32::from_be_bytes(self.request))
    }
}

/// As one number: every message looks its stream up.
impl Hash for StreamId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.number());
    }
}

/// In the order of the bytes.
impl Ord for StreamId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for StreamId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The position of a message in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// The stream.
    pub stream: StreamId,
    /// Counts messages of one direction and wraps; see [`crate::serial`].
    pub index: u16,
}

/// A piece of a stream from the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServerTunnel {
    /// The head of a response, with its whole body unless `stream`.
    ResponseStart {
        /// HTTP status.
        status: u16,
        /// Response headers.
        headers: Headers,
        /// The body, or its first piece.
        body: Option<Bytes>,
        /// More of the body follows in chunks.
        stream: bool,
    },
    /// More of a response body.
    ResponseChunk {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        finish: bool,
    },
    /// There is no response, or not the rest of it.
    ResponseAbort,
    /// The actor takes the socket.
    WebSocketOpen {
        /// The socket may outlive the actor's process.
        can_hibernate: bool,
    },
    /// A frame for the client.
    WebSocketMessage {
        /// The payload.
        data: Bytes,
        /// Binary or text.
        binary: bool,
    },
    /// The actor has taken messages up to this index.
    WebSocketMessageAck {
        /// The index of the newest message taken.
        index: u16,
    },
    /// The actor closes or refuses the socket.
    WebSocketClose {
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
        /// Keep the client; the actor goes to sleep.
        hibernate: bool,
    },
}

/// A piece of a stream from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToClientTunnel {
    /// A request, with its whole body unless `stream`.
    RequestStart {
        /// The actor asked.
        actor_id: ByteString,
        /// HTTP method.
        method: ByteString,
        /// Path and query, not decoded.
        path: ByteString,
        /// Request headers.
        headers: Headers,
        /// The body, or its first piece.
        body: Option<Bytes>,
        /// More of the body follows in chunks.
        stream: bool,
    },
    /// More of a request body.
    RequestChunk {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        finish: bool,
    },
    /// The client went away.
    RequestAbort,
    /// A client opened a socket.
    WebSocketOpen {
        /// The actor asked.
        actor_id: ByteString,
        /// Path and query, not decoded.
        path: ByteString,
        /// Headers of the upgrade request.
        headers: Headers,
    },
    /// A frame from the client.
    WebSocketMessage {
        /// The payload.
        data: Bytes,
        /// Binary or text.
        binary: bool,
    },
    /// The client's socket closed.
    WebSocketClose {
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
    },
}

impl ToClientTunnel {
    /// The bytes of its body or data, headers and paths aside.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        match self {
            ToClientTunnel::RequestStart { body, .. } => body.as_ref().map_or(0, Bytes::len),
            ToClientTunnel::RequestChunk { body, .. } => body.len(),
            ToClientTunnel::WebSocketMessage { data, .. } => data.len(),
            ToClientTunnel::RequestAbort
            | ToClientTunnel::WebSocketOpen { .. }
            | ToClientTunnel::WebSocketClose { .. } => 0,
        }
    }

    /// It is the first of its stream.
    #[must_use]
    pub fn opens(&self) -> bool {
        match self {
            ToClientTunnel::RequestStart { .. } | ToClientTunnel::WebSocketOpen { .. } => true,
            ToClientTunnel::RequestChunk { .. }
            | ToClientTunnel::RequestAbort
            | ToClientTunnel::WebSocketMessage { .. }
            | ToClientTunnel::WebSocketClose { .. } => false,
        }
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.gateway.iter().chain(&self.request) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
