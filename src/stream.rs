//! Streams as actors see them, and what an actor says on one.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, StreamId};

/// One opening of a stream. A gateway tries again under the same id, also at the same life of an actor; the number
/// keeps the answers of an abandoned try out of the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamKey {
    /// The stream's id at the gateway, the same in every try.
    pub id: StreamId,
    /// Which opening of it; never the same twice in a session.
    pub opening: u64,
}

/// The opening alone tells keys apart.
impl Hash for StreamKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.opening);
    }
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
    /// The actor has taken as much of the request's body as one grant of credit is for.
    Grant,
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

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.id, self.opening)
    }
}
