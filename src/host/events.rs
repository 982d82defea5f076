//! What the daemon tells an actor, one call each: frames of its clients' sockets and due alarms.
//!
//! The types here are what every kind of host speaks: an app gets them as `POST /_actor`, a Rust actor as methods, a
//! program without a server by long poll.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, StreamId};

/// Something an actor is told. It answers each; what it does not take is told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client wants a socket.
    Open {
        /// The socket; the same for as long as the client stays, over any number of the actor's lives.
        socket: StreamId,
        /// Path and query of the upgrade, not decoded.
        path: ByteString,
        /// Headers of the upgrade; names are lower case.
        headers: Headers,
    },
    /// A client sent a frame. Per socket one is told at a time, in order.
    Message {
        /// The socket.
        socket: StreamId,
        /// Rises by one with each frame of the socket, from 0, over all lives; the same when told again.
        seq: u64,
        /// The payload; UTF-8 when not `binary`.
        data: Bytes,
        /// Binary or text.
        binary: bool,
    },
    /// A socket is closed, also when that happened while the actor slept. Nothing of the socket follows.
    Close {
        /// The socket.
        socket: StreamId,
        /// WebSocket close code; 1005 when there was none.
        code: u16,
        /// WebSocket close reason.
        reason: ByteString,
    },
    /// An alarm is due.
    Alarm {
        /// Its name, unique within the actor.
        name: ByteString,
        /// What was given when it was set.
        data: Bytes,
        /// How many periods passed unnoticed before this one; 0 unless it repeats.
        missed: u32,
    },
}

/// An event on its way to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What it is told.
    pub event: Event,
    /// How often it was told within this life, this time included: 1 at first.
    pub attempt: u32,
}

/// The answer of an actor that has taken an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventAnswer {
    /// A frame for the client; on [`Event::Open`] the first one.
    pub reply: Option<Outgoing>,
    /// Tags the socket has from now on; only on [`Event::Open`].
    pub tags: Vec<ByteString>,
    /// Closes the socket with this code and reason, after the reply.
    pub close: Option<(u16, ByteString)>,
}

/// A frame for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The payload; UTF-8 when not `binary`.
    pub data: Bytes,
    /// Binary or text.
    pub binary: bool,
}

/// Why an actor has not taken an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It said no: an app with this HTTP status. An open is refused with it, anything else is told again.
    #[error("answered with {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The beginning of its answer.
        text: String,
    },
    /// There was no answer: it crashed, hangs, or does not speak what it should.
    #[error("{0}")]
    Failed(String),
    /// This actor takes no events.
    #[error("takes no events")]
    NotServed,
}
