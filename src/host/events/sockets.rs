//! An actor's hold on its clients' sockets.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::StreamId;
use tokio::sync::oneshot;

use super::door::{Door, Way};
use super::engine::Input;
use super::table::{SocketError, SocketInfo};
use crate::host::Outgoing;

/// The sockets of an actor that takes them as events. Cheap to clone; whoever holds it may send at any time.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// Nothing where none are served.
    door: Option<Arc<Door>>,
}

/// Something wanted of the engine, with the way back.
#[derive(Debug)]
pub(in crate::host) enum Wish {
    List { tag: Option<String>, answer: oneshot::Sender<Vec<SocketInfo>> },
    Send { socket: StreamId, frame: Outgoing, answer: Answer<()> },
    Broadcast { tag: Option<String>, frame: Outgoing, answer: Answer<usize> },
    Close { socket: StreamId, code: u16, reason: ByteString, answer: Answer<()> },
    Attachment { socket: StreamId, answer: Answer<Bytes> },
    Attach { socket: StreamId, attachment: Bytes, answer: Answer<()> },
    Flush { answer: Answer<()> },
}

type Answer<T> = oneshot::Sender<Result<T, SocketError>>;

impl Sockets {
    pub(super) fn new(served: bool) -> Self {
        Sockets { door: served.then(Arc::default) }
    }

    pub(super) fn door(&self) -> Option<&Door> {
        self.door.as_deref()
    }

    /// The open sockets, those with the tag when one is given, in no order that means anything.
    ///
    /// # Errors
    /// [`SocketError::NotServed`] or [`SocketError::Over`].
    pub async fn list(&self, tag: Option<&str>) -> Result<Vec<SocketInfo>, SocketError> {
        let tag = tag.map(str::to_owned);
        self.ask(|answer| Wish::List { tag, answer }, Vec::new()).await
    }

    /// Sends a frame to one client; waits while the way to the gateway is full. A socket whose client is not there at
    /// the moment loses it.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn send(&self, socket: StreamId, frame: Outgoing) -> Result<(), SocketError> {
        self.ask(|answer| Wish::Send { socket, frame, answer }, Err(SocketError::Unknown)).await?
    }

    /// Sends a frame to every client, or to those with the tag; gives how many there are.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn broadcast(&self, tag: Option<&str>, frame: Outgoing) -> Result<usize, SocketError> {
        let tag = tag.map(str::to_owned);
        self.ask(|answer| Wish::Broadcast { tag, frame, answer }, Ok(0)).await?
    }

    /// Closes a socket. Codes that no close frame may carry become 1000, and a reason above 123 bytes is cut. The actor
    /// is told of it like of any other close.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn close(&self, socket: StreamId, code: u16, reason: &str) -> Result<(), SocketError> {
        let reason = ByteString::from(reason);
        self.ask(|answer| Wish::Close { socket, code, reason, answer }, Err(SocketError::Unknown)).await?
    }

    /// What is attached to a socket; empty when nothing.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn attachment(&self, socket: StreamId) -> Result<Bytes, SocketError> {
        self.ask(|answer| Wish::Attachment { socket, answer }, Err(SocketError::Unknown)).await?
    }

    /// Attaches up to [`ATTACHMENT_MAX`] bytes to a socket; durable when this returns, and there for as long as the
    /// socket is.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn attach(&self, socket: StreamId, attachment: impl Into<Bytes>) -> Result<(), SocketError> {
        let attachment = attachment.into();
        if attachment.len() > ATTACHMENT_MAX {
            return Err(SocketError::TooLarge("an attachment has at most 16 KiB"));
        }
        self.ask(|answer| Wish::Attach { socket, attachment, answer }, Err(SocketError::Unknown)).await?
    }

    /// Resolves when everything so far is durable and acknowledged.
    pub(super) async fn flush(&self) {
        // Where no sockets are served, or none any more, nothing is left to do.
        let _ = self.ask(|answer| Wish::Flush { answer }, Ok(())).await;
    }

    /// Asks the engine; where there is none because there are no sockets, the answer is `without`.
    async fn ask<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish, without: T) -> Result<T, SocketError> {
        let door = self.door().ok_or(SocketError::NotServed)?;
        let engine = match door.way() {
            Way::To(engine) => engine,
            Way::NoEngine => return Ok(without),
            Way::Over => return Err(SocketError::Over),
        };
        let (answer, answered) = oneshot::channel();
        engine.send(Box::new(Input::Wish(wish(answer)))).await.map_err(|_| SocketError::Over)?;
        answered.await.map_err(|_| SocketError::Over)
    }
}

/// The most bytes attached to a socket.
pub const ATTACHMENT_MAX: usize = 16 * 1024;
