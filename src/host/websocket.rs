//! One client socket, as an actor sees it.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, StreamId, close};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::coop::cooperative;

use crate::actor::ActorKey;
use crate::host::call::{send, send_from_drop};
use crate::host::{Call, CallSender, Gone, StreamKey, StreamReply};
use crate::queue::Queue;

/// The upgrade request of a socket, as the client sent it.
#[derive(Clone, Debug)]
pub struct WebSocketRequest {
    /// The socket's id, for the log.
    pub stream: StreamId,
    /// Path and query, not decoded.
    pub path: ByteString,
    /// Headers of the upgrade; names are lower case.
    pub headers: Headers,
    /// The gateway's index of the upgrade: the client's messages count on from it.
    pub index: u16,
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

/// Feeds the client's frames to a [`WebSocket`]; dropped, it ends them.
#[derive(Debug)]
pub struct WebSocketFeed(Arc<Queue<Frame>>);

/// The frames of a client.
#[derive(Debug)]
pub(super) struct Frames(Arc<Queue<Frame>>);

/// A client's socket. The actor first accepts or refuses it; dropped, it closes: with 1000, or 1011 in a panic. One that
/// may outlive the actor's process stays open when dropped, and the next life has it again.
#[derive(Debug)]
pub struct WebSocket {
    sender: WebSocketSender,
    frames: Frames,
    accepted: bool,
    lasting: bool,
    closed: bool,
}

/// The sending end of a [`WebSocket`]; after the socket has closed, what it sends goes nowhere.
#[derive(Clone, Debug)]
pub struct WebSocketSender {
    actor: ActorKey,
    key: StreamKey,
    calls: CallSender,
}

impl WebSocketFeed {
    /// Hands on a frame.
    ///
    /// # Errors
    /// [`TrySendError::Full`] when [`WebSocket::BACKLOG`] frames wait, [`TrySendError::Closed`] when nobody takes any.
    pub fn try_send(&self, frame: Frame) -> Result<(), TrySendError<Frame>> {
        self.0.send_within(frame, WebSocket::BACKLOG)
    }
}

impl Drop for WebSocketFeed {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Frames {
    /// The next frame; `None` when there is no feed any more. Cancelling loses nothing.
    pub(super) async fn recv(&mut self) -> Option<Frame> {
        // A client that never pauses must not keep others of the same thread waiting.
        cooperative(poll_fn(|context| self.0.poll_recv(context))).await
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl WebSocket {
    /// How many client frames may wait for the actor. A socket whose actor falls further behind is closed with 1013,
    /// so that it slows no other.
    pub const BACKLOG: usize = 1024;

    /// The socket of one stream of one actor life, with the feed for its frames.
    #[must_use]
    pub fn new(actor: ActorKey, key: StreamKey, calls: CallSender) -> (WebSocketFeed, Self) {
        let frames = Arc::new(Queue::default());
        let feed = WebSocketFeed(frames.clone());
        let sender = WebSocketSender { actor, key, calls };
        (feed, WebSocket { sender, frames: Frames(frames), accepted: false, lasting: false, closed: false })
    }

    /// A socket that an earlier life took and that is still open.
    #[must_use]
    pub fn restored(actor: ActorKey, key: StreamKey, calls: CallSender) -> (WebSocketFeed, Self) {
        let (feed, mut socket) = Self::new(actor, key, calls);
        socket.accepted = true;
        socket.lasting = true;
        (feed, socket)
    }

    /// Takes the socket apart; from now on nothing closes it by being dropped.
    pub(super) fn detach(mut self) -> (StreamKey, Frames) {
        self.lasting = true;
        (self.sender.key, std::mem::replace(&mut self.frames, Frames(Arc::default())))
    }

    /// The actor life that was asked.
    #[must_use]
    pub fn actor(&self) -> &ActorKey {
        &self.sender.actor
    }

    /// Takes the socket; the client's frames arrive from now on.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn accept(&mut self) -> Result<(), Gone> {
        self.accepted = true;
        self.sender.reply(StreamReply::Open { can_hibernate: false }).await
    }

    /// Takes the socket for this and later lives of the actor: the gateway keeps it, and every message of its client
    /// until [`WebSocketSender::acknowledge`].
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn accept_lasting(&mut self) -> Result<(), Gone> {
        self.accepted = true;
        self.lasting = true;
        self.sender.reply(StreamReply::Open { can_hibernate: true }).await
    }

    /// The next frame; `None` when the runner has dropped the socket. Cancelling loses nothing.
    pub async fn receive(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await;
        if matches!(frame, None | Some(Frame::Closed { .. })) {
            self.closed = true;
        }
        frame
    }

    /// A sending end of its own, for tasks that send while another receives.
    #[must_use]
    pub fn sender(&self) -> WebSocketSender {
        self.sender.clone()
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn send_text(&self, text: impl Into<ByteString>) -> Result<(), Gone> {
        self.sender.send_text(text).await
    }

    /// Sends a binary frame.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn send_binary(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.sender.send_binary(data).await
    }

    /// Closes the socket, or refuses it for good. Codes that no close frame may carry become 1000, and a reason above
    /// 123 bytes is cut.
    ///
    /// A gateway tries a socket again that is closed before it was opened, so a refusal opens it first; to have it
    /// tried again, drop the socket instead.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn close(mut self, code: u16, reason: &str) -> Result<(), Gone> {
        if !self.accepted {
            self.accept().await?;
        }
        self.closed = true;
        let (code, reason) = (close::sendable_code(Some(code)), close::clip(reason));
        self.sender.reply(StreamReply::Close { code: Some(code), reason: Some(reason.into()) }).await
    }
}

impl WebSocketSender {
    /// Sends a text frame.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn send_text(&self, text: impl Into<ByteString>) -> Result<(), Gone> {
        self.send(text.into().into_bytes(), false).await
    }

    /// Sends a binary frame.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn send_binary(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.send(data.into(), true).await
    }

    /// Sends a frame; what is not `binary` is UTF-8.
    pub(super) async fn send(&self, data: Bytes, binary: bool) -> Result<(), Gone> {
        self.reply(StreamReply::Message { data, binary }).await
    }

    /// Tells the gateway that the client's messages up to this index are taken for good. Only for a lasting socket.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn acknowledge(&self, index: u16) -> Result<(), Gone> {
        self.reply(StreamReply::MessageAck { index }).await
    }

    async fn reply(&self, reply: StreamReply) -> Result<(), Gone> {
        send(&self.calls, self.call(reply)).await
    }

    fn call(&self, reply: StreamReply) -> Call {
        Call::Stream { actor: self.actor.clone(), stream: self.key, reply }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if !self.closed && !self.lasting {
            let reply = if std::thread::panicking() {
                StreamReply::Close { code: Some(1011), reason: Some(SERVER_ERROR) }
            } else {
                StreamReply::Close { code: Some(1000), reason: None }
            };
            send_from_drop(&self.sender.calls, self.sender.call(reply));
        }
    }
}

/// What the client of a socket is told whose handler failed.
const SERVER_ERROR: ByteString = ByteString::from_static("Server Error");
