//! What a session wants done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, KvResponse, StreamId, ToServer};

use crate::actor::{ActorKey, StartReason, StopReason};
use crate::kv::KvError;
use crate::stream::StreamKey;

/// Something to do. Only [`Effect::Exit`] is final.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Open a socket; answer with `Dialed` or `DialFailed`. Never asked for while another is open.
    Dial,
    /// Close the socket after what was sent before; answer with `Disconnected`.
    Hangup {
        /// WebSocket close code.
        code: u16,
        /// WebSocket close reason.
        reason: &'static str,
    },
    /// Send a message on the open socket.
    Send(ToServer),
    /// Start an actor life; answer with `Running` or `Ended`.
    Start(StartCommand),
    /// Ask an actor to stop; answer with `Ended`.
    Stop {
        /// Which life.
        key: ActorKey,
        /// Why.
        reason: StopReason,
    },
    /// End an actor without asking; answer with `Ended`.
    Kill {
        /// Which life.
        key: ActorKey,
    },
    /// Hand a request to an actor.
    Request {
        /// The life that serves the stream from now on.
        actor: ActorKey,
        /// The stream.
        stream: StreamKey,
        /// HTTP method.
        method: ByteString,
        /// Path and query.
        path: ByteString,
        /// Headers; names may repeat.
        headers: Headers,
        /// The body, or its first piece.
        body: Option<Bytes>,
        /// More of the body follows.
        more: bool,
        /// Bodies travel as far as there is credit for them, in both directions.
        credit: bool,
    },
    /// The client has taken as much of a response as one grant of credit is for.
    Granted {
        /// The stream.
        stream: StreamKey,
    },
    /// More of a request body.
    RequestChunk {
        /// The stream.
        stream: StreamKey,
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        finish: bool,
    },
    /// Hand a socket to an actor.
    WebSocket {
        /// The life that serves the stream from now on.
        actor: ActorKey,
        /// The stream.
        stream: StreamKey,
        /// Path and query.
        path: ByteString,
        /// Headers of the upgrade.
        headers: Headers,
        /// The index of the open: the client's messages count on from it.
        index: u16,
    },
    /// Hand a socket to an actor that knows it from an earlier life. It is open.
    WebSocketRestored {
        /// The life that serves the stream from now on.
        actor: ActorKey,
        /// The stream.
        stream: StreamKey,
    },
    /// Hand a client's frame to an actor.
    WebSocketMessage {
        /// The stream.
        stream: StreamKey,
        /// The payload.
        data: Bytes,
        /// Binary or text.
        binary: bool,
        /// Its index at the gateway.
        index: u16,
    },
    /// Tell an actor that a socket is closed.
    WebSocketClosed {
        /// The stream.
        stream: StreamKey,
        /// WebSocket close code.
        code: Option<u16>,
        /// WebSocket close reason.
        reason: Option<ByteString>,
    },
    /// Nobody waits for this stream any more: stop working on it.
    Cancel {
        /// The stream.
        stream: StreamKey,
    },
    /// Answer a storage request.
    KvDone {
        /// As in the request.
        ticket: u64,
        /// The answer.
        result: Result<KvResponse, KvError>,
    },
    /// The session is initialised.
    Connected {
        /// The identity the gateway gave.
        runner_id: Arc<str>,
        /// How long the gateway keeps our actors after a disconnect.
        lost_after: Duration,
    },
    /// The session is interrupted, or could not begin.
    Disconnected {
        /// For a person.
        reason: String,
        /// When the next dial follows.
        retry_in: Duration,
    },
    /// The gateway has been away for longer than it keeps our actors: all of them are being stopped.
    Lost,
    /// The session is over.
    Exit(Exit),
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Every actor stopped and the gateway knows.
    Drained,
    /// Time ran out first.
    DrainTimeout {
        /// Lives that had not ended, or whose end the gateway may not know.
        actors: usize,
    },
    /// The gateway does not want this runner; the text says why and what to do.
    Refused(String),
}

/// An actor life to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCommand {
    /// Which life.
    pub key: ActorKey,
    /// Which code.
    pub name: Arc<str>,
    /// The actor's key.
    pub actor_key: Option<ByteString>,
    /// When the gateway built the command, in milliseconds since the epoch.
    pub create_ts: i64,
    /// Opaque start input.
    pub input: Option<Bytes>,
    /// Why it starts.
    pub reason: StartReason,
    /// Client sockets that stayed open while it slept.
    pub hibernating: Vec<StreamId>,
}
