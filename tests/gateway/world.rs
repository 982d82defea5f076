//! A gateway core with a store, whose time and runners are moved by hand.

#[path = "boot.rs"]
mod boot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::gateway::core::{
    Answer, CallId, CallRequest, ConnectionId, Core, Effect, Features, Hello, Input, Now, Settings, StreamRef,
};
use greenroom::gateway::{CreateActor, GatewayError, StreamHead, StreamUp, TunnelEvent};
use greenroom::protocol::{
    Checkpoint, Command, CommandWrapper, Event, EventWrapper, Init, MessageId, StreamId, ToClient, ToClientTunnel,
    ToServer, ToServerTunnel, Version,
};
use greenroom::store::{ActorRecord, CrashPolicy, Found, MemoryStore, Phase, Query, Store};

use boot::boot;

/// The gateway and everything around it.
pub struct World {
    pub core: Core,
    pub now: Now,
    pub store: MemoryStore,
    pub settings: Settings,
    /// What each connection was sent and has not been looked at.
    pub sent: BTreeMap<ConnectionId, Vec<ToClient>>,
    pub closed: BTreeMap<ConnectionId, (u16, &'static str)>,
    pub opened: Vec<StreamRef>,
    pub refused: BTreeMap<StreamRef, GatewayError>,
    pub delivered: BTreeMap<StreamRef, Vec<TunnelEvent>>,
    /// Grants of credit that clients' requests were given.
    pub granted: BTreeMap<StreamRef, usize>,
    pub answers: BTreeMap<CallId, Result<Answer, GatewayError>>,
    /// The disk takes its time: what was committed since is not durable.
    pub slow_disk: bool,
    pub held: Vec<Effect>,
    /// Questions to the store wait until [`World::answer_loads`].
    pub slow_loads: bool,
    pub loads: Vec<Effect>,
    durable: u64,
    next: u64,
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLI: Duration = Duration::from_millis(1);

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            thresholds: Default::default(),
            limits: Default::default(),
            gateway_id: [1, 2, 3, 4],
            seed: [5, 6],
        };
        change(&mut settings);
        let now = Now { instant: Instant::now(), wall_ms: 1_700_000_000_000 };
        Self::start(MemoryStore::new(), settings, now, 0)
    }

    fn start(mut store: MemoryStore, settings: Settings, now: Now, next: u64) -> Self {
        let boot = boot(&mut store);
        let mut world = World {
            core: Core::new(settings.clone(), boot, now),
            now,
            store,
            settings,
            sent: BTreeMap::new(),
            closed: BTreeMap::new(),
            opened: Vec::new(),
            refused: BTreeMap::new(),
            delivered: BTreeMap::new(),
            granted: BTreeMap::new(),
            answers: BTreeMap::new(),
            slow_disk: false,
            held: Vec::new(),
            slow_loads: false,
            loads: Vec::new(),
            durable: 0,
            next,
        };
        world.perform();
        world
    }

    /// The process is killed and started again; what was on disk stays.
    pub fn restart(self) -> Self {
        let settings = Settings { seed: [self.settings.seed[0] + 1, 6], ..self.settings };
        Self::start(self.store, settings, self.now, self.next)
    }

    /// Lets something happen.
    pub fn tell(&mut self, input: Input) {
        self.core.handle(input, self.now);
        self.perform();
    }

    /// Lets time pass, stopping at every timer on the way.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end.instant) {
            let step = due.saturating_duration_since(self.now.instant);
            // Timers count in nanoseconds, the wall in milliseconds.
            self.now = self.now.after(step);
            self.core.handle_timeout(self.now);
            self.perform();
        }
        self.now = end;
    }

    /// The disk has caught up.
    pub fn disk_done(&mut self) {
        self.slow_disk = false;
        for effect in std::mem::take(&mut self.held) {
            self.perform_one(effect);
        }
        self.perform();
    }

    /// The store answers.
    pub fn answer_loads(&mut self) {
        self.slow_loads = false;
        for effect in std::mem::take(&mut self.loads) {
            self.perform_one(effect);
        }
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            // The store does one thing after the other.
            let stored = matches!(effect, Effect::Commit { .. } | Effect::Load { .. } | Effect::Kv { .. });
            if self.slow_disk && (effect.after() > self.durable || stored) {
                self.held.push(effect);
            } else {
                self.perform_one(effect);
            }
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Commit { seq, changes } => {
                assert_eq!(seq, self.durable + 1);
                self.store.begin().expect("begins");
                for change in &changes {
                    self.store.apply(change).expect("applies");
                }
                self.store.commit().expect("commits");
                self.durable = seq;
            }
            Effect::Load { .. } if self.slow_loads => self.loads.push(effect),
            Effect::Load { load, query } => {
                let found = self.store.read(&query).expect("reads");
                self.core.handle(Input::Loaded { load, found }, self.now);
            }
            Effect::Kv { connection, request_id, actor_id, request } => {
                self.store.begin().expect("begins");
                let response = self.store.kv(&actor_id, &request, self.now.wall_ms).expect("works");
                self.store.commit().expect("commits");
                self.sent.entry(connection).or_default().push(ToClient::Kv { request_id, response });
            }
            Effect::Send { connection, message, after } => {
                assert!(after <= self.durable, "told before it was durable");
                assert!(!self.closed.contains_key(&connection), "{message:?} after the close");
                self.sent.entry(connection).or_default().push(message);
            }
            Effect::Close { connection, code, reason, after } => {
                assert!(after <= self.durable);
                assert_eq!(self.closed.insert(connection, (code, reason)), None);
            }
            Effect::Opened { stream } => self.opened.push(stream),
            Effect::Refused { stream, error } => {
                assert_eq!(self.refused.insert(stream, error), None);
            }
            Effect::Deliver { stream, event } => {
                let events = self.delivered.entry(stream).or_default();
                assert!(!events.last().is_some_and(TunnelEvent::is_last), "{event:?} after the last event");
                events.push(event);
            }
            Effect::Granted { stream } => *self.granted.entry(stream).or_default() += 1,
            Effect::Answer { call, answer, after } => {
                assert!(after <= self.durable, "answered before it was durable");
                assert_eq!(self.answers.insert(call, answer), None);
            }
            Effect::Namespace { .. } => {}
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A runner's socket, introduced.
    pub fn connect(&mut self, key: &str) -> Peer {
        self.connect_as(key, init(10), Features::default(), Version::V7)
    }

    pub fn connect_as(&mut self, key: &str, init: Init, features: Features, version: Version) -> Peer {
        let connection = ConnectionId(self.fresh());
        let hello = Hello { namespace: "default".into(), key: key.into(), version, features };
        self.tell(Input::Connected { connection, hello });
        self.tell(Input::Received { connection, message: ToServer::Init(init) });
        let sent = self.take_sent(connection);
        let Some(ToClient::Init { runner_id, .. }) = sent.first() else { panic!("no init in {sent:?}") };
        let peer = Peer { connection, runner_id: runner_id.to_string() };
        self.sent.insert(connection, sent[1..].to_vec());
        peer
    }

    pub fn disconnect(&mut self, peer: &Peer) {
        self.tell(Input::Disconnected { connection: peer.connection });
    }

    pub fn say(&mut self, peer: &Peer, message: ToServer) {
        self.tell(Input::Received { connection: peer.connection, message });
    }

    /// Events of one life, numbered from `first`.
    pub fn events(&mut self, peer: &Peer, life: &Checkpoint, first: i64, events: impl IntoIterator<Item = Event>) {
        let events = events
            .into_iter()
            .zip(first..)
            .map(|(event, index)| EventWrapper { checkpoint: Checkpoint { index, ..life.clone() }, event });
        let events = events.collect();
        self.say(peer, ToServer::Events(events));
    }

    pub fn take_sent(&mut self, connection: ConnectionId) -> Vec<ToClient> {
        self.sent.remove(&connection).unwrap_or_default()
    }

    /// The commands that a connection was sent since it was last looked at; the rest is dropped.
    pub fn commands(&mut self, peer: &Peer) -> Vec<CommandWrapper> {
        let sent = self.take_sent(peer.connection).into_iter();
        sent.flat_map(|message| if let ToClient::Commands(commands) = message { commands } else { Vec::new() })
            .collect()
    }

    /// What a connection was sent on streams since it was last looked at; the rest is dropped.
    pub fn tunnel(&mut self, peer: &Peer) -> Vec<(MessageId, ToClientTunnel)> {
        let sent = self.take_sent(peer.connection).into_iter();
        sent.filter_map(
            |message| if let ToClient::Tunnel { id, message } = message { Some((id, message)) } else { None },
        )
        .collect()
    }

    /// Answers pings for this long, every second.
    pub fn live(&mut self, peers: &[&Peer], time: Duration) {
        let end = self.now.after(time);
        while self.now.instant < end.instant {
            for peer in peers {
                self.say(peer, ToServer::Pong { ts: self.now.wall_ms });
            }
            self.pass(SECOND.min(end.instant - self.now.instant));
        }
    }

    pub fn call(&mut self, request: CallRequest) -> CallId {
        let call = CallId(self.fresh());
        self.tell(Input::Call { call, request });
        call
    }

    pub fn answer(&mut self, call: CallId) -> Result<Answer, GatewayError> {
        self.answers.remove(&call).expect("answered")
    }

    /// A new actor of the pool `pool`.
    pub fn create(&mut self, policy: CrashPolicy) -> Arc<str> {
        self.create_with(CreateActor { crash_policy: policy, ..actor() }).expect("created").id.clone()
    }

    pub fn create_with(&mut self, actor: CreateActor) -> Result<ActorRecord, GatewayError> {
        let call = self.call(CallRequest::Create(actor));
        self.answer(call).map(|answer| match answer {
            Answer::Actor { record, .. } => *record,
            other => panic!("{other:?}"),
        })
    }

    /// An actor that serves on the only runner there is; answers its life.
    pub fn running(&mut self, peer: &Peer, policy: CrashPolicy) -> Checkpoint {
        self.create(policy);
        let life = self.started(peer);
        self.events(peer, &life, 0, [Event::Running]);
        life
    }

    /// The life that the only new command starts.
    pub fn started(&mut self, peer: &Peer) -> Checkpoint {
        let commands = self.commands(peer);
        assert_eq!(commands.len(), 1, "{commands:?}");
        assert!(matches!(commands[0].command, Command::Start { .. }), "{commands:?}");
        commands[0].checkpoint.clone()
    }

    /// The life that the only new command stops.
    pub fn told_to_stop(&mut self, peer: &Peer) -> Checkpoint {
        let commands = self.commands(peer);
        assert_eq!(commands.len(), 1, "{commands:?}");
        assert_eq!(commands[0].command, Command::Stop);
        commands[0].checkpoint.clone()
    }

    pub fn open(&mut self, actor_id: &str) -> StreamRef {
        self.open_with(actor_id, get())
    }

    pub fn open_with(&mut self, actor_id: &str, head: StreamHead) -> StreamRef {
        let stream = StreamRef(u32::try_from(self.fresh()).expect("few"));
        self.tell(Input::Open { stream, actor_id: actor_id.into(), head });
        stream
    }

    pub fn up(&mut self, stream: StreamRef, up: StreamUp) {
        self.tell(Input::Client { stream, up });
    }

    pub fn reply(&mut self, peer: &Peer, stream: StreamRef, message: ToServerTunnel) {
        let id = MessageId { stream: self.wire(stream), index: 0 };
        self.say(peer, ToServer::Tunnel { id, message });
    }

    pub fn wire(&self, stream: StreamRef) -> StreamId {
        StreamId { gateway: self.settings.gateway_id, request: stream.0.to_be_bytes() }
    }

    /// What the client of a stream was handed since it was last looked at.
    pub fn got(&mut self, stream: StreamRef) -> Vec<TunnelEvent> {
        self.delivered.remove(&stream).unwrap_or_default()
    }

    /// An actor as it stands on disk.
    pub fn record(&mut self, actor_id: &str) -> ActorRecord {
        match self.store.read(&Query::Actor(actor_id.into())).expect("reads") {
            Found::Actor(Some(record)) => *record,
            other => panic!("{other:?}"),
        }
    }

    pub fn phase(&mut self, actor_id: &str) -> Phase {
        self.record(actor_id).phase
    }
}

/// A runner's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub connection: ConnectionId,
    pub runner_id: String,
}

pub fn init(slots: u32) -> Init {
    Init { name: "pool".into(), version: 1, total_slots: slots, prepopulate_actor_names: None, metadata: None }
}

pub fn actor() -> CreateActor {
    CreateActor {
        namespace: "default".into(),
        name: "counter".into(),
        key: None,
        pool: "pool".into(),
        crash_policy: CrashPolicy::Sleep,
        input: Some("input".into()),
    }
}

pub fn get() -> StreamHead {
    StreamHead::Request { method: "GET".into(), path: "/".into(), headers: Vec::new(), body: None, more: false }
}

pub fn socket() -> StreamHead {
    StreamHead::WebSocket { path: "/ws".into(), headers: Vec::new() }
}

pub fn text(text: &'static str) -> StreamUp {
    StreamUp::Message { data: text.into(), binary: false }
}

pub fn response() -> ToServerTunnel {
    ToServerTunnel::ResponseStart { status: 200, headers: Vec::new(), body: None, stream: false }
}

pub fn failed(message: &'static str) -> Event {
    Event::StoppedError { message: Some(message.into()) }
}

pub const OK: Event = Event::StoppedOk { message: None };
