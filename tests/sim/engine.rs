//! A model of the Rivet engine with its irregularities, in place of our gateway.
//!
//! It takes the inputs of our core and answers with its effects, and does what was seen of the engine: a stop of an old
//! generation has index 0 and takes the place of its start; a start that is given again lists no sockets; events are
//! acknowledged late, if at all; batches are checked for repeats against what was known before the batch; what is said
//! on a socket before it is attached is lost, and so is everything that is sent while a runner is away; a runner that
//! drains is evicted, sometimes early; an actor that is deleted leaves its sockets open.

mod actors;
mod peers;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::gateway::GatewayError;
use greenroom::gateway::core::{
    Answer, CallRequest, ConnectionId, Effect, Input, Now, Settings, StreamRef, Thresholds,
};
use greenroom::protocol::{Event, ToClient};
use greenroom::store::{self, ActorRecord, Change, CrashPolicy};

use crate::dice::Dice;

pub use actors::{Actor, Phase};
use peers::{Connection, Runner};
use streams::{Kept, Stream};

/// The engine.
pub struct Engine {
    thresholds: Thresholds,
    gateway_id: [u8; 4],
    dice: Dice,
    numbers: u64,
    commits: u64,
    effects: VecDeque<Effect>,
    timers: BTreeSet<(Instant, u64, Timer)>,
    connections: BTreeMap<ConnectionId, Connection>,
    runners: BTreeMap<Arc<str>, Runner>,
    pub actors: BTreeMap<Arc<str>, Actor>,
    /// Events that arrived and were not looked at.
    arrived: BTreeMap<Arc<str>, Vec<Arrived>>,
    streams: BTreeMap<StreamRef, Stream>,
    kept: BTreeMap<StreamRef, Kept>,
    /// So many events are taken before they are acknowledged.
    acknowledge_after: i64,
    /// Nothing is lost for no reason any more.
    pub calm: bool,
}

/// An event and the runner that said it.
struct Arrived {
    runner: Arc<str>,
    generation: u32,
    index: i64,
    event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Greeting(ConnectionId),
    Ping(ConnectionId),
    Lost(Arc<str>),
    Evict(Arc<str>),
    Batch(Arc<str>),
    /// A start or a stop, if the actor is still in that generation and phase.
    Command(Arc<str>, u32),
    Backoff(Arc<str>),
    Alarm(Arc<str>),
    Ready(StreamRef),
    Retry(StreamRef),
    OpenLate(StreamRef, u32),
    Attach(StreamRef),
    Collect(StreamRef),
}

impl Engine {
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Engine {
            thresholds: settings.thresholds,
            gateway_id: settings.gateway_id,
            acknowledge_after: dice.pick(&[250, 250, 3]),
            dice,
            numbers: 0,
            commits: 0,
            effects: VecDeque::new(),
            timers: BTreeSet::new(),
            connections: BTreeMap::new(),
            runners: BTreeMap::new(),
            actors: BTreeMap::new(),
            arrived: BTreeMap::new(),
            streams: BTreeMap::new(),
            kept: BTreeMap::new(),
            calm: false,
        }
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Connected { connection, hello } => self.connected(connection, hello.key.into(), now),
            Input::Received { connection, message } => self.received(connection, message, now),
            Input::Disconnected { connection } => self.disconnected(connection, now),
            Input::Open { stream, actor_id, head } => self.open(stream, actor_id, head, now),
            Input::Client { stream, up } => self.client(stream, up, now),
            Input::ClientGone { stream } => self.client_gone(stream, now),
            Input::Call { call, request } => {
                let answer = self.call(request, now);
                self.effects.push_back(Effect::Answer { call, answer, after: 0 });
            }
            Input::Malformed { .. } | Input::ClientTook { .. } | Input::Loaded { .. } | Input::Shutdown => {}
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((due, ..)) = self.timers.first()
            && *due <= now.instant
            && let Some((_, _, timer)) = self.timers.pop_first()
        {
            match timer {
                Timer::Greeting(connection) => self.greeting_timeout(connection),
                Timer::Ping(connection) => self.ping(connection, now),
                Timer::Lost(runner) => self.lost_timeout(&runner, now),
                Timer::Evict(runner) => self.evict(&runner, now),
                Timer::Batch(actor) => self.batch(&actor, now),
                Timer::Command(actor, number) => self.command_timeout(&actor, number, now),
                Timer::Backoff(actor) => self.backoff_over(&actor, now),
                Timer::Alarm(actor) => self.alarm(&actor, now),
                Timer::Ready(stream) => self.ready_timeout(stream),
                Timer::Retry(stream) => self.retry(stream, now),
                Timer::OpenLate(stream, tries) => self.open_late(stream, tries, now),
                Timer::Attach(stream) => self.attach(stream, now),
                Timer::Collect(stream) => self.collect(stream, now),
            }
        }
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, ..)| *due)
    }

    /// The processes that hold connections are gone; what the cluster knows stays.
    pub fn reset(&mut self, now: Now) {
        self.streams.clear();
        self.kept.clear();
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.disconnected(connection, now);
        }
    }

    /// Kept messages of sockets whose actors run.
    pub fn untaken(&self) -> Option<String> {
        self.kept.iter().find(|(_, kept)| !kept.said.is_empty()).map(|(stream, kept)| format!("{stream:?} {kept:?}"))
    }

    fn later(&mut self, at: Instant, timer: Timer) {
        self.numbers += 1;
        self.timers.insert((at, self.numbers, timer));
    }

    fn send(&mut self, connection: ConnectionId, message: ToClient) {
        self.effects.push_back(Effect::Send { connection, message, after: 0 });
    }

    fn call(&mut self, request: CallRequest, now: Now) -> Result<Answer, GatewayError> {
        match request {
            CallRequest::Create(create) | CallRequest::GetOrCreate(create) => {
                let holder = create.key.as_ref().and_then(|key| {
                    self.actors.iter().find(|(_, actor)| !actor.is_gone() && actor.key.as_ref() == Some(key))
                });
                if let Some((id, actor)) = holder {
                    return Ok(Answer::Actor { record: Box::new(actor.record(id, now)), created: false });
                }
                self.numbers += 1;
                let id: Arc<str> = format!("actor-{}", self.numbers).into();
                let actor = Actor::new(create.crash_policy, create.key, create.pool);
                let record = actor.record(&id, now);
                self.actors.insert(id.clone(), actor);
                self.allocate(&id, now);
                Ok(Answer::Actor { record: Box::new(record), created: true })
            }
            CallRequest::Destroy { actor_id, .. } => {
                self.delete(&actor_id, now);
                Ok(Answer::Done)
            }
            CallRequest::CreateNamespace { .. }
            | CallRequest::PutRunnerConfig { .. }
            | CallRequest::DropRunnerConfig { .. }
            | CallRequest::Settle => Ok(Answer::Done),
        }
    }

    fn drop_storage(&mut self, actor: &Arc<str>) {
        self.commits += 1;
        self.effects.push_back(Effect::Commit { seq: self.commits, changes: vec![Change::DropKv(actor.clone())] });
    }
}

impl Actor {
    /// What the harness reads of an actor.
    fn record(&self, id: &Arc<str>, now: Now) -> ActorRecord {
        ActorRecord {
            id: id.clone(),
            namespace_id: "default".into(),
            name: "counter".into(),
            key: self.key.clone(),
            pool: self.pool.clone(),
            crash_policy: CrashPolicy::Sleep,
            input: None,
            phase: store::Phase::Pending,
            generation: self.generation,
            runner_id: self.runner.clone(),
            next_command: 0,
            command_acknowledged: false,
            last_event: None,
            alarm_at: None,
            wake_after_stop: false,
            restarts: 0,
            error: None,
            create_ts: now.wall_ms,
            start_ts: None,
            pending_allocation_ts: None,
            connectable_ts: None,
            sleep_ts: None,
            reschedule_ts: None,
            destroy_ts: None,
        }
    }
}

fn millis(dice: &mut Dice, least: u64, most: u64) -> Duration {
    dice.millis(least, most)
}
