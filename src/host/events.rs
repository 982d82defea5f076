//! What the daemon tells an actor, one call each: frames of its clients' sockets and due alarms.
//!
//! The types here are what every kind of host speaks: an app gets them as `POST /_actor`, a Rust actor as methods, a
//! program without a server by long poll. [`Events`] is what one actor life has of it: its sockets, and the gate that
//! every event passes. Notes that outlive the life are kept in the actor's storage, see [`reserved`].

pub(in crate::host) mod activity;
pub mod alarms;
pub(in crate::host) mod delivery;
mod door;
pub(in crate::host) mod engine;
pub(in crate::host) mod gate;
pub(in crate::host) mod pull;
pub mod reserved;
pub(in crate::host) mod row;
mod schedule;
mod sockets;
mod table;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Headers, StreamId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use activity::{AwakeReason, KeepAwake, LEASE_MAX, LEASES_MAX, LeaseError, Work, Working};
pub use alarms::{ALARMS_MAX, AlarmError, AlarmInfo, Alarms, DATA_MAX as ALARM_DATA_MAX};
pub use delivery::HANDLER_TIMEOUT;
pub use pull::{Pull, PullError, PullEvent, PullReply};
pub use sockets::{ATTACHMENT_MAX, Sockets};
pub use table::{SocketError, SocketInfo};

use crate::host::{ActorContext, HostedActor, StartActor};
use activity::Activity;
use alarms::Clock;
use delivery::Teller;
use door::{EngineSender, Inputs};
use engine::Engine;
use gate::Gate;
use table::{Restored, Rules, Table};

/// What actors of a host take as events, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// Frames of client sockets come as events, and sockets outlive the actor's process.
    pub sockets: bool,
    /// Alarms have names and come as events.
    pub alarms: bool,
    /// How many events an actor is told at once; at least 1.
    pub concurrency: usize,
    /// How long an actor may take to answer one; after that it is told again.
    pub handler_timeout: Duration,
    /// Asks to sleep after this long without work; nothing for never.
    pub sleep_after: Option<Duration>,
}

/// The event side of one actor life. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    settings: EventSettings,
    gate: Gate,
    sockets: Sockets,
    clock: Clock,
    activity: Arc<Activity>,
    /// Set when the actor asks for its events.
    pull: OnceLock<Arc<Pull>>,
    tasks: TaskTracker,
    over: CancellationToken,
}

impl EventAnswer {
    /// Taken, with nothing to say.
    #[must_use]
    pub fn taken() -> Self {
        Self::default()
    }

    /// Taken, with this frame for the client.
    #[must_use]
    pub fn reply(frame: Outgoing) -> Self {
        EventAnswer { reply: Some(frame), ..Self::default() }
    }

    /// Gives a socket that is being opened a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<ByteString>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Closes the socket after that.
    #[must_use]
    pub fn close(self, code: u16, reason: impl Into<ByteString>) -> Self {
        EventAnswer { close: Some((code, reason.into())), ..self }
    }
}

impl Outgoing {
    /// A text frame.
    #[must_use]
    pub fn text(text: impl Into<ByteString>) -> Self {
        Outgoing { data: text.into().into_bytes(), binary: false }
    }

    /// A binary frame.
    #[must_use]
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Outgoing { data: data.into(), binary: true }
    }
}

impl EventError {
    /// A refusal with an HTTP status and a reason; a client whose socket is refused reads both.
    #[must_use]
    pub fn refused(status: u16, text: impl Into<String>) -> Self {
        EventError::Refused { status, text: text.into() }
    }
}

impl EventSettings {
    /// Whether the daemon keeps notes of its own in the storage of such actors.
    #[must_use]
    pub fn any(&self) -> bool {
        self.sockets || self.alarms
    }
}

impl Default for EventSettings {
    /// No events at all.
    fn default() -> Self {
        EventSettings {
            sockets: false,
            alarms: false,
            concurrency: CONCURRENCY,
            handler_timeout: HANDLER_TIMEOUT,
            sleep_after: None,
        }
    }
}

impl Events {
    pub(in crate::host) fn new(settings: EventSettings) -> Self {
        let gate = Gate::new(settings.concurrency);
        let inner = Inner {
            gate,
            sockets: Sockets::new(settings.sockets),
            settings,
            clock: Clock::new(),
            activity: Activity::new(),
            pull: OnceLock::new(),
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
        };
        Events { inner: Arc::new(inner) }
    }

    pub(in crate::host) fn settings(&self) -> &EventSettings {
        &self.inner.settings
    }

    /// The actor's hold on its clients' sockets.
    pub(in crate::host) fn sockets(&self) -> &Sockets {
        &self.inner.sockets
    }

    /// Its alarms.
    pub(in crate::host) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The events of an actor that asks for them.
    pub(in crate::host) fn pull(&self) -> Option<&Arc<Pull>> {
        self.inner.pull.get()
    }

    /// Makes the actor one that asks for its events.
    pub(in crate::host) fn pull_or_new(&self) -> Arc<Pull> {
        self.inner.pull.get_or_init(|| Arc::new(Pull::new())).clone()
    }

    /// What goes on.
    pub(in crate::host) fn activity(&self) -> &Arc<Activity> {
        &self.inner.activity
    }

    /// The actor is open to everyone: it is told its alarms, and sleeps when it has nothing to do. The notes are those
    /// of earlier lives.
    pub(in crate::host) fn open(&self, actor: &Arc<dyn HostedActor>, context: &ActorContext, notes: &[(Bytes, Bytes)]) {
        if self.settings().alarms {
            self.clock().begin(Teller::new(actor.clone(), self.clone()), context, notes);
        }
        if let Some(after) = self.settings().sleep_after {
            self.spawn(activity::sleep_when_idle(context.clone(), after));
        }
    }

    /// The actor runs: it is told events from now on. The notes are those of earlier lives. Gives the sockets it goes on
    /// with, and those that only the gateway knows.
    pub(in crate::host) fn begin(
        &self,
        actor: &Arc<dyn HostedActor>,
        context: &ActorContext,
        notes: &[(Bytes, Bytes)],
    ) -> (Vec<(StreamId, u16)>, Vec<StreamId>) {
        let hibernating = &context.start().hibernating;
        let Some(door) = self.sockets().door() else { return (Vec::new(), hibernating.clone()) };
        let needed = !notes.is_empty() || !hibernating.is_empty();
        let Some(inputs) = door.begin(needed) else { return (Vec::new(), Vec::new()) };
        let Restored { sockets, unknown } = self.make_engine(inputs, actor, context, notes);
        (sockets, unknown)
    }

    /// The way for a socket of an actor that runs. Nothing where none are served, and when the life is over.
    pub(in crate::host) fn engine(&self, actor: &Arc<dyn HostedActor>, context: &ActorContext) -> Option<EngineSender> {
        let make = |inputs| drop(self.make_engine(inputs, actor, context, &[]));
        self.sockets().door()?.for_socket(make)
    }

    fn make_engine(
        &self,
        inputs: Inputs,
        actor: &Arc<dyn HostedActor>,
        context: &ActorContext,
        notes: &[(Bytes, Bytes)],
    ) -> Restored {
        let hibernating = &context.start().hibernating;
        let now = std::time::Instant::now();
        let (table, restored) = Table::restore(notes, hibernating, Rules::default(), rand::random(), now);
        let teller = Teller::new(actor.clone(), self.clone());
        self.spawn(Box::new(Engine::new(table, inputs, teller, context.clone())).run());
        restored
    }

    /// What every event passes on its way to the actor.
    pub(in crate::host) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// Whether there may be notes of an earlier life.
    pub(in crate::host) fn may_have_notes(&self, start: &StartActor) -> bool {
        let new = start.reason == crate::actor::StartReason::Create && start.hibernating.is_empty();
        self.settings().any() && !new
    }

    /// Runs something until the life ends.
    pub(in crate::host) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let over = self.inner.over.clone();
        let task = async move {
            over.run_until_cancelled(task).await;
        };
        self.inner.tasks.spawn(task.in_current_span());
    }

    /// The tasks of [`Events::spawn`].
    pub(in crate::host) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Cancels what [`Events::spawn`] has started.
    pub(in crate::host) fn cancel(&self) {
        self.inner.over.cancel();
        self.clock().end();
        if let Some(door) = self.sockets().door() {
            door.end();
        }
    }

    /// Tells no more events, and resolves when those on their way were answered and what they changed is durable and
    /// acknowledged. What comes meanwhile stays at the gateway and wakes the actor again.
    pub(in crate::host) async fn quiesce(&self) {
        self.gate().shut().await;
        self.sockets().flush().await;
        self.clock().rearm().await;
    }

    /// Goes on telling events after all.
    pub(in crate::host) fn resume(&self) {
        self.gate().open();
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("settings", self.settings()).field("gate", self.gate()).finish_non_exhaustive()
    }
}

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

/// How many events an actor is told at once, unless its host says otherwise.
pub const CONCURRENCY: usize = 32;
