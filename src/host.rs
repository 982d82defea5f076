//! Where actor code runs: child processes, upstream apps, in-process Rust.
//!
//! A kind of host implements [`ActorHost`]; starting an actor gives a [`HostedActor`]. [`supervise`] runs one task per
//! actor life around it: start with a deadline, admit requests, notice that it ended, stop it in order, and report
//! each step as a [`Call`]. The runner on the other end of the call channel never waits for actor code.
//!
//! This layer knows nothing of sessions, sockets to a gateway or the wire's framing.

mod actor;
mod body;
mod call;
pub mod child_process;
mod context;
mod doors;
pub mod events;
pub mod http;
pub mod in_process;
mod panics;
mod request;
mod tenant;
pub mod upstream;
mod visible;
mod websocket;
mod websocket_proxy;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use greenroom_protocol::StreamId;

pub use actor::{ActorHandle, StreamTask, WAITING_MAX, supervise};
pub use body::{Body, BodyError, BodySender, Grants, Pieces};
pub use call::{Call, CallSender};
pub use context::{ActorContext, Gone};
pub use doors::{Doors, TokenIssuer};
pub use events::alarms::now_ms;
pub use events::reserved::RESERVED;
pub use events::{
    AlarmError, AlarmInfo, Alarms, AwakeReason, Delivery, Event, EventAnswer, EventError, EventSettings, Events,
    KeepAwake, LeaseError, Outgoing, Pull, PullError, PullEvent, PullReply, SocketError, SocketInfo, Sockets, Work,
    Working,
};
pub use http::is_text;
pub use request::{Request, Responder, ResponseWriter};
pub use websocket::{Frame, WebSocket, WebSocketFeed, WebSocketRequest, WebSocketSender};

pub use crate::kv::KvError;
pub use crate::stream::{StreamKey, StreamReply};

use crate::actor::{ActorKey, StartReason, StopReason};

/// A way to run actors of one name.
pub trait ActorHost: Send + Sync + 'static {
    /// Starts one actor life and resolves when it serves.
    ///
    /// Dropping the future must leave nothing running: the caller drops it at the start deadline.
    fn start(
        &self,
        start: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>>;

    /// How long a start may take.
    fn start_timeout(&self) -> Duration;

    /// How long a stop may take before the actor is killed.
    fn stop_grace(&self) -> Duration;

    /// What its actors take as events. None unless it says so, and then events cost nothing.
    fn events(&self) -> EventSettings {
        EventSettings::default()
    }

    /// Whether this socket's frames come as events; else the actor is given the socket itself. Only asked when
    /// [`EventSettings::sockets`] is set.
    fn takes_as_events(&self, request: &WebSocketRequest) -> bool {
        let _ = request;
        true
    }
}

/// A running actor.
pub trait HostedActor: Send + Sync + 'static {
    /// Serves one request; runs in a task of its own. Answers through the responder; a responder that is dropped
    /// unanswered aborts the request.
    fn request(self: Arc<Self>, request: Request, responder: Responder) -> BoxFuture<'static, ()>;

    /// Serves one client socket; runs in a task of its own, and the socket closes when it returns.
    fn websocket(self: Arc<Self>, request: WebSocketRequest, socket: WebSocket) -> BoxFuture<'static, ()>;

    /// Tells the actor something and waits until it has taken it. Actors take no events unless they say how.
    fn event(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<EventAnswer, EventError>> {
        drop(delivery);
        Box::pin(std::future::ready(Err(EventError::NotServed)))
    }

    /// Resolves when the actor is no more, whoever ended it. `Err` says how it crashed: exit code or signal, and the
    /// last lines it wrote.
    fn ended(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>>;

    /// Asks the actor to end; returns at once or when it has done its part. [`HostedActor::ended`] tells the end.
    fn stop(self: Arc<Self>, reason: StopReason, grace: Duration) -> BoxFuture<'static, ()>;

    /// Ends the actor with everything it started, now.
    fn kill(&self);
}

/// What an actor life starts with.
#[derive(Clone, Debug)]
pub struct StartActor {
    /// Identity and generation.
    pub key: ActorKey,
    /// Which code: the name in the actors file or the builder.
    pub name: Arc<str>,
    /// The actor's key, unique within its name; for information only, never part of a path.
    pub actor_key: Option<ByteString>,
    /// When the gateway built the start command, in milliseconds since the epoch.
    pub create_ts: i64,
    /// Opaque start input.
    pub input: Option<Bytes>,
    /// Why it starts.
    pub reason: StartReason,
    /// Client sockets that stayed open at the gateway while the actor had no process.
    pub hibernating: Vec<StreamId>,
}

/// Why an actor did not start. The text reaches the gateway and the log, so it names the command and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    /// An error with this text.
    #[must_use]
    pub fn new(text: impl std::fmt::Display) -> Self {
        StartError(text.to_string())
    }
}

impl From<KvError> for StartError {
    fn from(error: KvError) -> Self {
        StartError(format!("reading or writing the actor's storage: {error}"))
    }
}

impl From<Gone> for StartError {
    fn from(error: Gone) -> Self {
        StartError::new(error)
    }
}
