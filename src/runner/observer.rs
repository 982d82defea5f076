//! What the driver sees going by, kept for people and for Prometheus.
//!
//! Decides nothing and is asked by nobody who does. Holds the lives of now, the ends of the last [`ENDED_MAX`] lives,
//! and the beginning of each open stream and storage request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use greenroom_protocol::{EventWrapper, KvRequest, KvResponse};

use crate::actor::{ActorKey, Outcome, StopReason};
use crate::host::{AwakeReason, KvError, StartActor};
use crate::number_map::NumberMap;
use crate::stream::{StreamKey, StreamReply};
use crate::telemetry::metrics::{self, ActorMetrics, KvOperation, KvResult, Overrun, RunnerMetrics, State};

/// The observer of one runner.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: &'static RunnerMetrics,
    slots: u32,
    lives: BTreeMap<ActorKey, Life>,
    ended: VecDeque<ActorLife>,
    census: BTreeMap<Arc<str>, [usize; 3]>,
    streams: NumberMap<StreamKey, Open>,
    storage: NumberMap<u64, (KvOperation, Instant)>,
    link: Link,
}

/// An actor's life, as far as a runner sees it.
#[derive(Clone, Debug)]
pub struct ActorLife {
    /// What it was started with.
    pub start: Arc<StartActor>,
    /// Where it is.
    pub state: LifeState,
    /// Since when it is there.
    pub since: SystemTime,
    /// When it was told to start.
    pub started_at: SystemTime,
    /// Why it was told to stop, once it was.
    pub stop_reason: Option<StopReason>,
    /// What it asked for: to sleep or to be destroyed.
    pub wish: Option<LifeWish>,
    /// Client requests it serves.
    pub requests: usize,
    /// How long the oldest of them has been served.
    pub oldest_request: Option<Duration>,
    /// Client sockets it serves, those that would outlive its sleep included.
    pub sockets: usize,
    /// What keeps it awake, while it serves.
    pub awake_because: Vec<AwakeReason>,
}

/// Where a life is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeState {
    /// Not ended yet.
    Live(State),
    /// It is no more; this is how it ended.
    Ended(Outcome),
}

/// What an actor asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeWish {
    /// To sleep.
    Sleep,
    /// To be destroyed.
    Destroy,
}

/// How many lives there are, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Lives that start, run and stop, in this order, by actor name.
    pub by_name: BTreeMap<Arc<str>, [usize; 3]>,
    /// The last error of any actor, and when.
    pub last_error: Option<(SystemTime, String)>,
}

#[derive(Debug)]
struct Life {
    life: ActorLife,
    began: Instant,
    state: State,
    last_event: i64,
    metrics: Arc<ActorMetrics>,
}

#[derive(Debug)]
struct Open {
    actor: ActorKey,
    kind: StreamKind,
    began: Instant,
    status: Option<u16>,
    metrics: Arc<ActorMetrics>,
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    Request,
    WebSocket,
}

/// The session with the gateway, as it is counted.
#[derive(Debug)]
enum Link {
    Never,
    Open,
    /// Counted as an outage up to here.
    Lost(Instant),
}

impl Observer {
    pub(super) fn new(slots: u32, names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let metrics = metrics::runner();
        metrics.know(names);
        metrics.slots_total.inc_by(slots.into());
        Observer {
            metrics,
            slots,
            lives: BTreeMap::new(),
            ended: VecDeque::new(),
            census: BTreeMap::new(),
            streams: NumberMap::default(),
            storage: NumberMap::default(),
            link: Link::Never,
        }
    }

    /// These names are configured from now on, too.
    pub(super) fn know(&self, names: impl IntoIterator<Item = Arc<str>>) {
        self.metrics.know(names);
    }

    /// A life begins.
    pub(super) fn started(&mut self, start: &Arc<StartActor>) {
        let now = SystemTime::now();
        let metrics = self.metrics.actor(&start.name);
        metrics.state(State::Starting).inc();
        self.metrics.slots_used.inc();
        self.census.entry(start.name.clone()).or_default()[State::Starting as usize] += 1;
        let life = ActorLife {
            start: start.clone(),
            state: LifeState::Live(State::Starting),
            since: now,
            started_at: now,
            stop_reason: None,
            wish: None,
            requests: 0,
            oldest_request: None,
            sockets: 0,
            awake_because: Vec::new(),
        };
        let life = Life { life, began: Instant::now(), state: State::Starting, last_event: i64::MIN, metrics };
        self.lives.insert(start.key.clone(), life);
    }

    /// A start was refused: there is no such actor here.
    pub(super) fn refused(&mut self, name: &str, reason: &'static str) {
        self.metrics.actor(name).started(reason, "failed");
    }

    pub(super) fn running(&mut self, key: &ActorKey) {
        let Some(life) = self.lives.get(key).filter(|life| life.state == State::Starting) else { return };
        life.metrics.start_seconds.observe(life.began.elapsed());
        life.metrics.started(life.life.start.reason.as_str(), "ok");
        self.move_to(key, State::Running);
    }

    /// A life was told to stop; without a reason, to end at once.
    pub(super) fn stopping(&mut self, key: &ActorKey, reason: Option<StopReason>) {
        let Some(life) = self.lives.get_mut(key) else { return };
        if life.state == State::Starting {
            life.metrics.started(life.life.start.reason.as_str(), "stopped");
        }
        life.life.stop_reason = life.life.stop_reason.or(reason);
        if life.state != State::Stopping {
            self.move_to(key, State::Stopping);
        }
    }

    pub(super) fn wished(&mut self, key: &ActorKey, wish: LifeWish) {
        if let Some(life) = self.lives.get_mut(key) {
            life.life.wish = Some(wish);
        }
    }

    pub(super) fn ended(&mut self, key: &ActorKey, outcome: &Outcome) {
        let Some(life) = self.lives.remove(key) else { return };
        let failed = matches!(outcome, Outcome::Failed(_));
        if life.state == State::Starting {
            life.metrics.started(life.life.start.reason.as_str(), if failed { "failed" } else { "stopped" });
        }
        let reason = life.life.stop_reason.map_or("none", StopReason::as_str);
        life.metrics.stopped(reason, if failed { "error" } else { "ok" });
        life.metrics.state(life.state).dec();
        self.metrics.slots_used.dec();
        if let Some(counts) = self.census.get_mut(&life.life.start.name) {
            counts[life.state as usize] -= 1;
        }
        if life.life.requests + life.life.sockets > 0 {
            // Their tasks are gone; whatever they still had to say is not awaited.
            let left: Vec<StreamKey> =
                self.streams.iter().filter(|(_, open)| open.actor == *key).map(|(stream, _)| *stream).collect();
            left.into_iter().for_each(|stream| self.finished(stream));
        }
        let state = LifeState::Ended(outcome.clone());
        let ended = ActorLife { state, since: SystemTime::now(), requests: 0, sockets: 0, ..life.life };
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// A request or socket goes to an actor.
    pub(super) fn opened(&mut self, actor: &ActorKey, stream: StreamKey, kind: StreamKind) {
        let Some(life) = self.lives.get_mut(actor) else { return };
        match kind {
            StreamKind::Request => {
                life.life.requests += 1;
                life.metrics.inflight.inc();
            }
            StreamKind::WebSocket => {
                life.life.sockets += 1;
                life.metrics.sockets.inc();
            }
        }
        let metrics = life.metrics.clone();
        let open = Open { actor: actor.clone(), kind, began: Instant::now(), status: None, metrics };
        self.streams.insert(stream, open);
    }

    /// Part of a request's body goes to an actor.
    pub(super) fn body_in(&self, bytes: usize) {
        self.metrics.bytes_in.inc_by(bytes as u64);
    }

    /// A client's frame goes to an actor.
    pub(super) fn message_in(&self, bytes: usize) {
        self.metrics.messages_in.inc();
        self.metrics.bytes_in.inc_by(bytes as u64);
    }

    /// An actor says something on a stream.
    pub(super) fn reply(&mut self, stream: StreamKey, reply: &StreamReply) {
        match reply {
            StreamReply::Response { status, body, more, .. } => {
                self.metrics.bytes_out.inc_by(body.len() as u64);
                if let Some(open) = self.streams.get_mut(&stream) {
                    open.status = Some(*status);
                }
                if !more {
                    self.finished(stream);
                }
            }
            StreamReply::Chunk { body, finish } => {
                self.metrics.bytes_out.inc_by(body.len() as u64);
                if *finish {
                    self.finished(stream);
                }
            }
            StreamReply::Abort => self.given_up(stream),
            StreamReply::Message { data, .. } => {
                self.metrics.messages_out.inc();
                self.metrics.bytes_out.inc_by(data.len() as u64);
            }
            StreamReply::Close { .. } => self.finished(stream),
            StreamReply::Open { .. } | StreamReply::MessageAck { .. } | StreamReply::Grant => {}
        }
    }

    /// Nobody waits for a stream any more.
    pub(super) fn given_up(&mut self, stream: StreamKey) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.status = None;
        }
        self.finished(stream);
    }

    /// A stream is over.
    pub(super) fn finished(&mut self, stream: StreamKey) {
        let Some(open) = self.streams.remove(&stream) else { return };
        let life = self.lives.get_mut(&open.actor).map(|life| &mut life.life);
        match open.kind {
            StreamKind::Request => {
                open.metrics.inflight.dec();
                open.metrics.request_ended(open.status, open.began.elapsed());
                life.into_iter().for_each(|life| life.requests -= 1);
            }
            StreamKind::WebSocket => {
                open.metrics.sockets.dec();
                life.into_iter().for_each(|life| life.sockets -= 1);
            }
        }
    }

    /// A bounded queue was full.
    pub(super) fn overrun(&self, queue: Overrun) {
        self.metrics.overrun(queue);
    }

    pub(super) fn kv_asked(&mut self, ticket: u64, request: &KvRequest) {
        self.storage.insert(ticket, (request.into(), Instant::now()));
    }

    pub(super) fn kv_answered(&mut self, ticket: u64, result: &Result<KvResponse, KvError>) {
        let Some((operation, began)) = self.storage.remove(&ticket) else { return };
        let result = match result {
            Ok(KvResponse::Error { .. }) | Err(KvError::Refused(_) | KvError::Reserved) => KvResult::Refused,
            Ok(_) => KvResult::Ok,
            Err(KvError::Unavailable) => KvResult::Unavailable,
            Err(KvError::OutcomeUnknown) => KvResult::OutcomeUnknown,
            Err(KvError::Stale) => KvResult::Stale,
            Err(KvError::TooMany) => KvResult::TooMany,
        };
        self.metrics.kv(operation, result, began.elapsed());
    }

    pub(super) fn alarm_changed(&self) {
        self.metrics.alarm_changes.inc();
    }

    pub(super) fn events_sent(&mut self, events: &[EventWrapper]) {
        self.metrics.events.inc_by(events.len() as u64);
        for event in events {
            let checkpoint = &event.checkpoint;
            let key = ActorKey::new(&*checkpoint.actor_id, checkpoint.generation);
            let Some(life) = self.lives.get_mut(&key) else { continue };
            if checkpoint.index <= life.last_event {
                self.metrics.event_resends.inc();
            }
            life.last_event = life.last_event.max(checkpoint.index);
        }
    }

    /// How many events the gateway has not acknowledged, and how many frames of clients were not acknowledged to it.
    pub(super) fn backlog(&self, events: usize, frames: usize) {
        self.metrics.event_backlog.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.metrics.unacked_messages.set(i64::try_from(frames).unwrap_or(i64::MAX));
    }

    pub(super) fn connected(&mut self) {
        self.count_outage();
        self.link = Link::Open;
        self.metrics.connected.set(1);
        self.metrics.connects.inc();
    }

    /// A session ended, or did not begin.
    pub(super) fn disconnected(&mut self) {
        self.count_outage();
        match self.link {
            Link::Open => self.link = Link::Lost(Instant::now()),
            Link::Never | Link::Lost(_) => drop(self.metrics.failed_connects.inc()),
        }
        self.metrics.connected.set(0);
    }

    fn count_outage(&mut self) {
        if let Link::Lost(since) = &mut self.link {
            let now = Instant::now();
            self.metrics.outage(now.duration_since(*since));
            *since = now;
        }
    }

    /// The lives of now, then the last ones that ended, the newest end first.
    pub(super) fn lives(&self) -> Vec<ActorLife> {
        let mut oldest: BTreeMap<&ActorKey, Instant> = BTreeMap::new();
        for open in self.streams.values().filter(|open| open.kind == StreamKind::Request) {
            let began = oldest.entry(&open.actor).or_insert(open.began);
            *began = open.began.min(*began);
        }
        let live = self.lives.iter().map(|(key, life)| ActorLife {
            oldest_request: oldest.get(key).map(Instant::elapsed),
            ..life.life.clone()
        });
        live.chain(self.ended.iter().rev().cloned()).collect()
    }

    pub(super) fn census(&self) -> Census {
        let failure = |life: &ActorLife| match &life.state {
            LifeState::Ended(Outcome::Failed(why)) => Some((life.since, format!("{}: {why}", life.start.key))),
            LifeState::Ended(Outcome::Wanted) | LifeState::Live(_) => None,
        };
        Census { by_name: self.census.clone(), last_error: self.ended.iter().rev().find_map(failure) }
    }

    fn move_to(&mut self, key: &ActorKey, state: State) {
        let Some(life) = self.lives.get_mut(key) else { return };
        if let Some(counts) = self.census.get_mut(&life.life.start.name) {
            counts[life.state as usize] -= 1;
            counts[state as usize] += 1;
        }
        life.metrics.state(life.state).dec();
        life.metrics.state(state).inc();
        life.state = state;
        life.life.state = LifeState::Live(state);
        life.life.since = SystemTime::now();
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Another runner in this process goes on counting.
        self.metrics.slots_total.dec_by(self.slots.into());
        self.metrics.connected.set(0);
        for life in self.lives.values() {
            life.metrics.state(life.state).dec();
            self.metrics.slots_used.dec();
        }
        for open in self.streams.values() {
            match open.kind {
                StreamKind::Request => open.metrics.inflight.dec(),
                StreamKind::WebSocket => open.metrics.sockets.dec(),
            };
        }
    }
}

/// Lives that are remembered after their end: enough for a look at what happened, small beside the actors themselves.
const ENDED_MAX: usize = 256;
