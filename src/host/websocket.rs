//! One client socket, as an actor sees it.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, StreamId};
use tokio::sync::mpsc;

use crate::actor::ActorKey;
use crate::host::request::send_from_drop;
use crate::host::{Call, CallSender, Gone, StreamKey, StreamReply};

/// The upgrade request of a socket, as the client sent it.
#[derive(Clone, Debug)]
pub struct WebSocketRequest {
    /// The socket's id, for the log.
    pub stream: StreamId,
    /// Path and query, not decoded.
    pub path: ByteString,
    /// Headers of the upgrade; names are lower case.
    pub headers: Headers,
}

/// What comes from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message {
        /// The payload; UTF-8 when not `binary`.
        data: Bytes,
        /// Binary or text.
        binary: bool,
        /// The message's index at the gateway, for acknowledging.
        index: u16,
    },
    /// The client or the gateway closed the socket; nothing follows.
    Closed {
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
    },
}

/// Feeds the client's frames to a [`WebSocket`]; bounded by [`WebSocket::BACKLOG`].
pub type WebSocketFeed = mpsc::Sender<Frame>;

/// A client's socket. The actor first accepts or refuses it; dropped, it closes: with 1000, or 1011 in a panic.
#[derive(Debug)]
pub struct WebSocket {
    actor: ActorKey,
    key: StreamKey,
    calls: CallSender,
    frames: mpsc::Receiver<Frame>,
    closed: bool,
}

impl WebSocket {
    /// How many client frames may wait for the actor. A socket whose actor falls further behind is closed with 1013,
    /// so that it slows no other.
    pub const BACKLOG: usize = 1024;

    /// The socket of one stream of one actor life, with the feed for its frames.
    #[must_use]
    pub fn new(actor: ActorKey, key: StreamKey, calls: CallSender) -> (WebSocketFeed, Self) {
        let (feed, frames) = mpsc::channel(Self::BACKLOG);
        (feed, WebSocket { actor, key, calls, frames, closed: false })
    }

    /// The actor life that was asked.
    #[must_use]
    pub fn actor(&self) -> &ActorKey {
        &self.actor
    }

    /// Takes the socket; the client's frames arrive from now on.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn accept(&mut self) -> Result<(), Gone> {
        self.send(StreamReply::Open { can_hibernate: false }).await
    }

    /// The next frame; `None` when the runner has dropped the socket.
    pub async fn receive(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await;
        if matches!(frame, None | Some(Frame::Closed { .. })) {
            self.closed = true;
        }
        frame
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn send_text(&self, text: impl Into<ByteString>) -> Result<(), Gone> {
        self.send(StreamReply::Message { data: text.into().into_bytes(), binary: false }).await
    }

    /// Sends a binary frame.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn send_binary(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.send(StreamReply::Message { data: data.into(), binary: true }).await
    }

    /// Closes or refuses the socket.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn close(mut self, code: u16, reason: &str) -> Result<(), Gone> {
        self.closed = true;
        self.send(StreamReply::Close { code: Some(code), reason: Some(reason.into()) }).await
    }

    async fn send(&self, reply: StreamReply) -> Result<(), Gone> {
        let call = Call::Stream { actor: self.actor.clone(), stream: self.key, reply };
        self.calls.send(call).await.map_err(|_| Gone)
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if !self.closed {
            let reply = if std::thread::panicking() {
                StreamReply::Close { code: Some(1011), reason: Some(SERVER_ERROR) }
            } else {
                StreamReply::Close { code: Some(1000), reason: None }
            };
            send_from_drop(&self.calls, Call::Stream { actor: self.actor.clone(), stream: self.key, reply });
        }
    }
}

/// What the client of a socket is told whose handler failed.
const SERVER_ERROR: ByteString = ByteString::from_static("Server Error");
