//! Actors written in Rust that run inside the runner: no process, no serialization, the fastest path.
//!
//! ```
//! use greenroom::host::{ActorContext, Request, StartError};
//! use greenroom::host::in_process::{Actor, InProcess, Response};
//!
//! struct Greeter {
//!     context: ActorContext,
//! }
//!
//! impl Greeter {
//!     async fn start(context: ActorContext) -> Result<Self, StartError> {
//!         Ok(Greeter { context })
//!     }
//! }
//!
//! impl Actor for Greeter {
//!     async fn request(&self, request: Request) -> Response {
//!         Response::text(format!("{} was asked for {}", self.context.key(), request.path))
//!     }
//! }
//!
//! let host = InProcess::new(Greeter::start);
//! ```
//!
//! What the actors of a name share goes through the closure: `InProcess::new(move |context| Greeter::start(context,
//! shared.clone()))`.

mod events;
mod response;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use events::{Alarm, Closed, Message, Open};
pub use response::{Response, StreamError};

use crate::actor::StopReason;
use crate::host::panics::caught;
use crate::host::{
    ActorContext, ActorHost, Delivery, EventAnswer, EventError, EventSettings, HostedActor, Request, Responder,
    StartActor, StartError, WebSocket, WebSocketRequest,
};
use crate::telemetry::SpanKind;

/// One actor life inside the runner. Its value is made by the function given to [`InProcess::new`] and dropped after
/// the stop.
///
/// Requests and sockets run concurrently, each in a task of its own, which is cancelled when its client goes away. A
/// panic ends the one request with a 500, or the one socket with 1011, and nothing else.
pub trait Actor: Send + Sync + 'static {
    /// Answers a request.
    fn request(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Serves a client's socket until it returns; it first accepts or closes it. Refuses by default.
    fn websocket(&self, request: WebSocketRequest, socket: WebSocket) -> impl Future<Output = ()> + Send {
        let _ = request;
        async move {
            // Without a runner there is no client to tell.
            let _ = socket.close(1003, "this actor takes no WebSockets").await;
        }
    }

    /// A client wants a socket whose frames come as events, see [`InProcess::events`]. Refuses by default.
    fn open(&self, open: Open) -> impl Future<Output = Result<EventAnswer, EventError>> + Send {
        drop(open);
        async { Err(EventError::NotServed) }
    }

    /// Takes a frame; what is not taken is told again. Per socket one at a time, in order.
    fn message(&self, message: Message) -> impl Future<Output = Result<EventAnswer, EventError>> + Send {
        drop(message);
        async { Err(EventError::NotServed) }
    }

    /// A socket that was taken has closed, now or while the actor slept.
    fn close(&self, closed: Closed) -> impl Future<Output = ()> + Send {
        drop(closed);
        async {}
    }

    /// An alarm is due; one that is not taken is told again. Refuses by default.
    fn alarm(&self, alarm: Alarm) -> impl Future<Output = Result<(), EventError>> + Send {
        drop(alarm);
        async { Err(EventError::NotServed) }
    }

    /// Does what is left to do before the end; requests in flight are done or soon cancelled. Storage still works.
    fn stop(&self, reason: StopReason) -> impl Future<Output = ()> + Send {
        let _ = reason;
        async {}
    }
}

/// The host of the actors of one name.
pub struct InProcess {
    factory: Box<Factory>,
    start_timeout: Duration,
    stop_grace: Duration,
    events: EventSettings,
    as_events: fn(&WebSocketRequest) -> bool,
}

type Factory = dyn Fn(ActorContext) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> + Send + Sync;

impl InProcess {
    /// A host whose actors are made by this function, one per life.
    pub fn new<A, F, S>(start: F) -> Self
    where
        A: Actor,
        F: Fn(ActorContext) -> S + Send + Sync + 'static,
        S: Future<Output = Result<A, StartError>> + Send + 'static,
    {
        let factory = move |context| {
            let starting = start(context);
            async move {
                let life = Life { actor: starting.await?, over: CancellationToken::new() };
                Ok(Arc::new(life) as Arc<dyn HostedActor>)
            }
            .boxed()
        };
        InProcess {
            factory: Box::new(factory),
            start_timeout: START_TIMEOUT,
            stop_grace: STOP_GRACE,
            events: EventSettings::default(),
            as_events: |_| true,
        }
    }

    /// Takes client sockets as events: [`Actor::open`], [`Actor::message`] and [`Actor::close`] instead of
    /// [`Actor::websocket`]. Such sockets stay open while the actor sleeps.
    #[must_use]
    pub fn events(mut self) -> Self {
        self.events.sockets = true;
        self
    }

    /// [`InProcess::events`] for the sockets that this function picks; [`Actor::websocket`] gets the others.
    #[must_use]
    pub fn events_for(self, as_events: fn(&WebSocketRequest) -> bool) -> Self {
        InProcess { as_events, ..self.events() }
    }

    /// Serves alarms with names, see [`ActorContext::alarms`]: they come as [`Actor::alarm`].
    #[must_use]
    pub fn alarms(mut self) -> Self {
        self.events.alarms = true;
        self
    }

    /// Puts an actor to sleep after this long without requests, sockets of its own, events and leases; never by default.
    #[must_use]
    pub fn sleep_after(mut self, sleep_after: Duration) -> Self {
        self.events.sleep_after = Some(sleep_after);
        self
    }

    /// Sets how many events an actor is told at once; 32 by default.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.events.concurrency = concurrency;
        self
    }

    /// Sets how long an actor may take to answer an event; 30 s by default.
    #[must_use]
    pub fn handler_timeout(mut self, handler_timeout: Duration) -> Self {
        self.events.handler_timeout = handler_timeout;
        self
    }

    /// Sets how long a start may take; 20 s by default.
    #[must_use]
    pub fn start_timeout(self, start_timeout: Duration) -> Self {
        InProcess { start_timeout, ..self }
    }

    /// Sets how long a stop may take before what still runs is cancelled; 10 s by default.
    #[must_use]
    pub fn stop_grace(self, stop_grace: Duration) -> Self {
        InProcess { stop_grace, ..self }
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl ActorHost for InProcess {
    fn start(
        &self,
        _start: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> {
        (self.factory)(context)
    }

    fn start_timeout(&self) -> Duration {
        self.start_timeout
    }

    fn stop_grace(&self) -> Duration {
        self.stop_grace
    }

    fn events(&self) -> EventSettings {
        self.events.clone()
    }

    fn takes_as_events(&self, request: &WebSocketRequest) -> bool {
        (self.as_events)(request)
    }
}

struct Life<A> {
    actor: A,
    over: CancellationToken,
}

impl<A: Actor> HostedActor for Life<A> {
    fn request(self: Arc<Self>, mut request: Request, responder: Responder) -> BoxFuture<'static, ()> {
        async move {
            let mut span = request.begin_span(SpanKind::Server, responder.actor());
            let answered = match caught(self.actor.request(request)).await {
                Ok(response) => {
                    span.status(response.code());
                    response.send(responder).await
                }
                Err(panic) => {
                    span.failed("the request handler failed");
                    error!(actor = %responder.actor(), %panic, "a request handler failed");
                    Response::text("Internal Server Error").status(500).send(responder).await
                }
            };
            // Without a runner there is no client to tell.
            let _ = answered;
        }
        .boxed()
    }

    fn websocket(self: Arc<Self>, request: WebSocketRequest, socket: WebSocket) -> BoxFuture<'static, ()> {
        async move {
            let key = socket.actor().clone();
            if let Err(panic) = caught(self.actor.websocket(request, socket)).await {
                error!(actor = %key, %panic, "a socket handler failed");
            }
        }
        .boxed()
    }

    fn event(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<EventAnswer, EventError>> {
        async move { events::tell(&self.actor, delivery).await }.boxed()
    }

    fn ended(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move {
            self.over.cancelled().await;
            Ok(())
        }
        .boxed()
    }

    fn stop(self: Arc<Self>, reason: StopReason, _grace: Duration) -> BoxFuture<'static, ()> {
        async move {
            let _over = self.over.clone().drop_guard();
            self.actor.stop(reason).await;
        }
        .boxed()
    }

    fn kill(&self) {
        self.over.cancel();
    }
}

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_GRACE: Duration = Duration::from_secs(10);
