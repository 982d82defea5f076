//! An actor's hold on its clients' sockets.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::StreamId;
use tokio::sync::{mpsc, oneshot};

use super::engine::Input;
use super::table::{SocketError, SocketInfo};
use crate::host::Outgoing;

/// The sockets of an actor that takes them as events. Cheap to clone; whoever holds it may send at any time.
#[derive(Clone, Debug)]
pub struct Sockets {
    engine: Option<mpsc::Sender<Box<Input>>>,
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
    pub(in crate::host) fn new(engine: Option<mpsc::Sender<Box<Input>>>) -> Self {
        Sockets { engine }
    }

    pub(in crate::host) fn engine(&self) -> Option<&mpsc::Sender<Box<Input>>> {
        self.engine.as_ref()
    }

    /// The open sockets, those with the tag when one is given, in no order that means anything.
    ///
    /// # Errors
    /// [`SocketError::NotServed`] or [`SocketError::Over`].
    pub async fn list(&self, tag: Option<&str>) -> Result<Vec<SocketInfo>, SocketError> {
        let tag = tag.map(str::to_owned);
        self.ask(|answer| Wish::List { tag, answer }).await
    }

    /// Sends a frame to one client; waits while the way to the gateway is full. A socket whose client is not there at
    /// the moment loses it.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn send(&self, socket: StreamId, frame: Outgoing) -> Result<(), SocketError> {
        self.ask(|answer| Wish::Send { socket, frame, answer }).await?
    }

    /// Sends a frame to every client, or to those with the tag; gives how many there are.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn broadcast(&self, tag: Option<&str>, frame: Outgoing) -> Result<usize, SocketError> {
        let tag = tag.map(str::to_owned);
        self.ask(|answer| Wish::Broadcast { tag, frame, answer }).await?
    }

    /// Closes a socket. Codes that no close frame may carry become 1000, and a reason above 123 bytes is cut. The actor
    /// is told of it like of any other close.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn close(&self, socket: StreamId, code: u16, reason: &str) -> Result<(), SocketError> {
        let reason = ByteString::from(reason);
        self.ask(|answer| Wish::Close { socket, code, reason, answer }).await?
    }

    /// What is attached to a socket; empty when nothing.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn attachment(&self, socket: StreamId) -> Result<Bytes, SocketError> {
        self.ask(|answer| Wish::Attachment { socket, answer }).await?
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
        self.ask(|answer| Wish::Attach { socket, attachment, answer }).await?
    }

    /// Resolves when everything so far is durable and acknowledged.
    pub(super) async fn flush(&self) {
        // Where no sockets are served, or none any more, nothing is left to do.
        let _ = self.ask(|answer| Wish::Flush { answer }).await;
    }

    async fn ask<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish) -> Result<T, SocketError> {
        let engine = self.engine.as_ref().ok_or(SocketError::NotServed)?;
        let (answer, answered) = oneshot::channel();
        engine.send(Box::new(Input::Wish(wish(answer)))).await.map_err(|_| SocketError::Over)?;
        answered.await.map_err(|_| SocketError::Over)
    }
}

/// The most bytes attached to a socket.
pub const ATTACHMENT_MAX: usize = 16 * 1024;
