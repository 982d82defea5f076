//! What an in-process actor is told, as arguments.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, StreamId};

use super::Actor;
use crate::host::{Delivery, Event, EventAnswer, EventError};

/// A client wants a socket.
#[derive(Clone, Debug)]
pub struct Open {
    /// The socket; the same for as long as the client stays.
    pub socket: StreamId,
    /// Path and query, not decoded.
    pub path: ByteString,
    /// Headers of the upgrade; names are lower case.
    pub headers: Headers,
}

/// A frame of a client.
#[derive(Clone, Debug)]
pub struct Message {
    /// The socket.
    pub socket: StreamId,
    /// Rises by one with each frame of the socket, over all lives.
    pub seq: u64,
    /// The payload; UTF-8 when not `binary`.
    pub data: Bytes,
    /// Binary or text.
    pub binary: bool,
    /// How often it was told within this life: 1 at first.
    pub attempt: u32,
}

/// A socket has closed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The socket.
    pub socket: StreamId,
    /// WebSocket close code; 1005 when there was none.
    pub code: u16,
    /// WebSocket close reason.
    pub reason: ByteString,
}

/// An alarm is due.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// Its name.
    pub name: ByteString,
    /// What was given when it was set.
    pub data: Bytes,
    /// How many periods passed unnoticed before this one.
    pub missed: u32,
    /// How often it was told within this life: 1 at first.
    pub attempt: u32,
}

/// Calls the method that the event is for.
pub(super) async fn tell<A: Actor>(actor: &A, delivery: Delivery) -> Result<EventAnswer, EventError> {
    let Delivery { event, attempt } = delivery;
    match event {
        Event::Open { socket, path, headers } => actor.open(Open { socket, path, headers }).await,
        Event::Message { socket, seq, data, binary } => {
            actor.message(Message { socket, seq, data, binary, attempt }).await
        }
        Event::Close { socket, code, reason } => {
            actor.close(Closed { socket, code, reason }).await;
            Ok(EventAnswer::default())
        }
        Event::Alarm { name, data, missed } => {
            actor.alarm(Alarm { name, data, missed, attempt }).await.map(|()| EventAnswer::default())
        }
    }
}
