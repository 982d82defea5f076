//! A gateway between runners that say anything at all and clients that come, talk and go, in an order that the bytes
//! decide, with limits so narrow that all of them are met. The world it stands in checks that nothing is told before
//! it is durable, after its end or twice; here every limit is checked after every step, and that everything ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use greenroom::gateway::core::{Answer, CallId, CallRequest, ConnectionId, Features, Hello, Input, StreamRef};
use greenroom::gateway::{CreateActor, StreamHead, StreamUp, TunnelEvent};
use greenroom::protocol::{
    ActorName, Checkpoint, Command, Event, EventWrapper, Init, KvRequest, MessageId, StreamId, ToClient,
    ToClientTunnel, ToServer, ToServerTunnel, Version,
};
use greenroom::store::CrashPolicy;

use super::choices::Choices;
use super::world::{OK, SECOND, World, actor};

pub fn gateway(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut play = Play::new();
    while !choices.is_over() {
        play.step(&mut choices);
        play.check();
    }
    play.rest();
}

struct Play {
    world: World,
    runners: BTreeMap<ConnectionId, Runner>,
    actors: Vec<Arc<str>>,
    calls: BTreeSet<CallId>,
    /// Streams without an end.
    streams: BTreeSet<StreamRef>,
    /// Of these, those that their client has closed: nobody may tell it anything any more.
    closing: BTreeSet<StreamRef>,
    /// The newest streams, ended or not.
    heard_of: Vec<StreamId>,
    connections: u64,
}

struct Runner {
    version: Version,
    /// Lives it was told to start, with the next index of their events.
    lives: BTreeMap<(Arc<str>, u32), i64>,
    /// Streams that were opened to it and it has not answered.
    asked: Vec<(MessageId, bool)>,
}

impl Play {
    fn new() -> Self {
        let world = World::with(|settings| {
            let limits = &mut settings.limits;
            limits.connections = 3;
            limits.waiting_per_actor = 3;
            limits.waiting = 5;
            limits.waiting_bytes = 1_000;
            limits.streams = 6;
            limits.backlog = 3;
            limits.backlog_bytes = 400;
            limits.kept_bytes = 1_500;
            limits.loads = 3;
        });
        Play {
            world,
            runners: BTreeMap::new(),
            actors: vec!["none".into()],
            calls: BTreeSet::new(),
            streams: BTreeSet::new(),
            closing: BTreeSet::new(),
            heard_of: vec![StreamId { gateway: [9; 4], request: [0; 4] }],
            connections: 0,
        }
    }

    fn step(&mut self, choices: &mut Choices) {
        match choices.below(32) {
            0 => self.connect(choices, true),
            1..=3 => self.call(choices),
            4..=6 => self.open(choices),
            7..=10 => self.behave(choices),
            11..=13 => self.answer(choices),
            14 => self.events(choices),
            15 => {
                let acknowledged = (0..=choices.below(2)).map(|_| self.checkpoint(choices)).collect();
                self.say(choices, ToServer::AckCommands(acknowledged));
            }
            16..=18 => {
                let id = MessageId { stream: self.heard_of(choices), index: u16::from(choices.byte()) };
                let message = tunnel(choices);
                self.say(choices, ToServer::Tunnel { id, message });
            }
            19 => {
                let actor_id = (*self.actor(choices)).into();
                let request = kv_request(choices);
                let request_id = u32::from(choices.byte());
                self.say(choices, ToServer::Kv { actor_id, request_id, request });
            }
            20 => {
                let ts = choices.pick(&[self.world.now.wall_ms, 0, i64::MIN, i64::MAX, -1]);
                self.say(choices, ToServer::Pong { ts });
            }
            21..=23 => self.client(choices),
            24 => {
                let millis = u64::from(choices.byte()) * choices.pick(&[1, 16, 256, 4_096]);
                self.world.pass(Duration::from_millis(millis));
            }
            25 => {
                if let Some(connection) = self.runner(choices) {
                    self.runners.remove(&connection);
                    self.world.tell(Input::Disconnected { connection });
                }
            }
            26 => match choices.below(8) {
                0 | 1 => self.say(choices, ToServer::Stopping),
                2 => self.connect(choices, false),
                3 => {
                    if let Some(connection) = self.runner(choices) {
                        self.world.tell(Input::Malformed { connection, text: choices.flag() });
                    }
                }
                4 => {
                    let message = ToServer::Init(init(choices));
                    self.say(choices, message);
                }
                _ => self.kill(),
            },
            27 => self.world.slow_disk = true,
            28 => self.world.disk_done(),
            29 => self.world.slow_loads = true,
            30 => self.world.answer_loads(),
            _ => {
                // Anything a runner can say at all.
                if let Some(connection) = self.runner(choices) {
                    let frame = Bytes::copy_from_slice(choices.bytes());
                    let message = ToServer::decode(frame, self.runners[&connection].version);
                    match message {
                        Ok(message) => self.world.tell(Input::Received { connection, message }),
                        Err(_) => self.world.tell(Input::Malformed { connection, text: false }),
                    }
                }
            }
        }
        self.collect();
    }

    fn connect(&mut self, choices: &mut Choices, introduced: bool) {
        self.connections += 1;
        // Apart from the numbers that the world gives.
        let connection = ConnectionId(1 << 40 | self.connections);
        let version = choices.pick(&[Version::V7, Version::V6, Version::V5, Version::V4]);
        let features =
            choices.pick(&[Features::ALL, Features::default(), Features { stream: true, ..Features::default() }]);
        let namespace = if choices.byte() == 255 { "nowhere" } else { "default" };
        let hello = Hello { namespace: namespace.into(), key: choices.pick(&["a", "b", ""]).into(), version, features };
        self.world.tell(Input::Connected { connection, hello });
        self.runners.insert(connection, Runner { version, lives: BTreeMap::new(), asked: Vec::new() });
        if introduced {
            let message = ToServer::Init(init(choices));
            self.world.tell(Input::Received { connection, message });
        }
    }

    fn call(&mut self, choices: &mut Choices) {
        let policy = choices.pick(&[CrashPolicy::Sleep, CrashPolicy::Restart, CrashPolicy::Destroy]);
        let namespace: Arc<str> = choices.pick(&["default", "default", "default", "more"]).into();
        let pool: Arc<str> = choices.pick(&["pool", "pool", "pool", "other"]).into();
        let create = |key: Option<&str>| CreateActor {
            namespace: namespace.clone(),
            pool: pool.clone(),
            crash_policy: policy,
            key: key.map(Into::into),
            ..actor()
        };
        let request = match choices.below(10) {
            0..=2 => CallRequest::Create(create(None)),
            3 => CallRequest::Create(create(Some("x"))),
            4 => CallRequest::GetOrCreate(create(Some("x"))),
            5 => CallRequest::Destroy { namespace, actor_id: self.actor(choices) },
            6 => CallRequest::CreateNamespace { name: "more".into(), display_name: String::new() },
            7 => CallRequest::PutRunnerConfig {
                namespace,
                pool,
                drain_on_version_upgrade: choices.flag(),
                metadata: None,
            },
            8 => CallRequest::DropRunnerConfig { namespace, pool },
            _ => CallRequest::Settle,
        };
        let call = self.world.call(request);
        self.calls.insert(call);
    }

    fn open(&mut self, choices: &mut Choices) {
        let actor_id = self.actor(choices);
        let headers = vec![("x-a".into(), "1".into()), ("x-a".into(), "2".into())];
        let head = if choices.flag() {
            let body = choices.flag().then(|| Bytes::from(vec![b'x'; usize::from(choices.byte())]));
            StreamHead::Request { method: "POST".into(), path: "/".into(), headers, body, more: choices.flag() }
        } else {
            StreamHead::WebSocket { path: "/ws".into(), headers }
        };
        let stream = self.world.open_with(&actor_id, head);
        self.streams.insert(stream);
        self.heard_of.push(self.world.wire(stream));
    }

    fn client(&mut self, choices: &mut Choices) {
        let place = choices.below(self.streams.len().clamp(1, 256));
        let Some(stream) = self.streams.iter().nth(place).copied() else { return };
        let bytes = Bytes::from(vec![b'x'; usize::from(choices.byte())]);
        match choices.below(8) {
            0 => self.world.up(stream, StreamUp::Chunk { body: bytes, finish: false }),
            1 => self.world.up(stream, StreamUp::Chunk { body: bytes, finish: true }),
            2..=4 => self.world.up(stream, StreamUp::Message { data: bytes, binary: choices.flag() }),
            5 => {
                let code = choices.pick(&[Some(1000), None, Some(0), Some(u16::MAX)]);
                self.closing.insert(stream);
                self.world.up(stream, StreamUp::Close { code, reason: None });
            }
            6 => self.world.tell(Input::ClientTook { stream }),
            _ => {
                self.streams.remove(&stream);
                self.world.tell(Input::ClientGone { stream });
            }
        }
    }

    /// A runner does what it is told.
    fn behave(&mut self, choices: &mut Choices) {
        let Some(connection) = self.runner(choices) else { return };
        let runner = self.runners.get_mut(&connection).expect("it was picked");
        let mut answers = Vec::new();
        for message in self.world.take_sent(connection) {
            check_written(&message, runner.version);
            match message {
                ToClient::Commands(commands) => {
                    let mut taken = Vec::new();
                    for command in commands {
                        let Checkpoint { actor_id, generation, .. } = command.checkpoint.clone();
                        taken.push(command.checkpoint);
                        let actor_id: Arc<str> = (&*actor_id).into();
                        let next = runner.lives.entry((actor_id.clone(), generation)).or_default();
                        let event = match command.command {
                            Command::Start { .. } => Event::Running,
                            Command::Stop => OK,
                        };
                        let checkpoint = Checkpoint { actor_id: (*actor_id).into(), generation, index: *next };
                        *next += 1;
                        answers.push(ToServer::Events(vec![EventWrapper { checkpoint, event }]));
                    }
                    answers.push(ToServer::AckCommands(taken));
                }
                ToClient::Ping { ts } => answers.push(ToServer::Pong { ts }),
                ToClient::Tunnel { id, message: ToClientTunnel::RequestStart { .. } } => runner.asked.push((id, false)),
                ToClient::Tunnel { id, message: ToClientTunnel::WebSocketOpen { .. } } => runner.asked.push((id, true)),
                ToClient::Tunnel { id, message: ToClientTunnel::WebSocketMessage { .. } } if choices.flag() => {
                    let message = ToServerTunnel::WebSocketMessageAck { index: id.index };
                    answers.push(ToServer::Tunnel { id, message });
                }
                ToClient::Init { .. } | ToClient::AckEvents(_) | ToClient::Kv { .. } | ToClient::Tunnel { .. } => {}
            }
        }
        for message in answers {
            self.world.tell(Input::Received { connection, message });
        }
    }

    /// A runner answers a request or takes a socket that it was asked for.
    fn answer(&mut self, choices: &mut Choices) {
        let Some(connection) = self.runner(choices) else { return };
        let Some((id, socket)) = self.runners.get_mut(&connection).and_then(|runner| runner.asked.pop()) else {
            return;
        };
        let body = Some(Bytes::from_static(b"body"));
        let message = match (socket, choices.below(4)) {
            (true, 0..=2) => ToServerTunnel::WebSocketOpen { can_hibernate: choices.below(4) > 0 },
            (true, _) => ToServerTunnel::WebSocketClose { code: Some(1000), reason: None, hibernate: false },
            (false, 0..=1) => ToServerTunnel::ResponseStart { status: 200, headers: vec![], body, stream: true },
            (false, 2) => ToServerTunnel::ResponseStart { status: 200, headers: vec![], body, stream: false },
            (false, _) => ToServerTunnel::ResponseAbort,
        };
        self.world.tell(Input::Received { connection, message: ToServer::Tunnel { id, message } });
    }

    /// A runner says of lives, its own and others, what it likes.
    fn events(&mut self, choices: &mut Choices) {
        let Some(connection) = self.runner(choices) else { return };
        let mut events = Vec::new();
        for _ in 0..=choices.below(3) {
            let event = match choices.below(7) {
                0 => Event::SleepIntent,
                1 => Event::StopIntent,
                2 => Event::Running,
                3 => OK,
                4 => Event::StoppedError { message: Some("crash".into()) },
                _ => Event::SetAlarm {
                    at: choices.pick(&[
                        Some(self.world.now.wall_ms + 100),
                        None,
                        Some(i64::MIN),
                        Some(i64::MAX),
                        Some(0),
                    ]),
                },
            };
            let lives = &mut self.runners.get_mut(&connection).expect("it was picked").lives;
            let place = choices.below(lives.len().clamp(1, 256));
            let checkpoint = match lives.iter_mut().nth(place) {
                Some(((actor_id, generation), next)) if choices.below(8) > 0 => {
                    *next += 1;
                    Checkpoint { actor_id: (&**actor_id).into(), generation: *generation, index: *next - 1 }
                }
                Some(_) | None => self.checkpoint(choices),
            };
            events.push(EventWrapper { checkpoint, event });
        }
        self.world.tell(Input::Received { connection, message: ToServer::Events(events) });
    }

    fn say(&mut self, choices: &mut Choices, message: ToServer) {
        if let Some(connection) = self.runner(choices) {
            self.world.tell(Input::Received { connection, message });
        }
    }

    /// The gateway is killed and comes back: what was only in its memory is gone.
    fn kill(&mut self) {
        let world = std::mem::replace(&mut self.world, World::new());
        self.world = world.restart();
        self.runners.clear();
        self.calls.clear();
        self.streams.clear();
        self.closing.clear();
    }

    fn runner(&self, choices: &mut Choices) -> Option<ConnectionId> {
        let place = choices.below(self.runners.len().clamp(1, 256));
        self.runners.keys().nth(place).copied()
    }

    fn actor(&self, choices: &mut Choices) -> Arc<str> {
        let back = choices.below(self.actors.len().min(6));
        self.actors[self.actors.len() - 1 - back].clone()
    }

    fn heard_of(&self, choices: &mut Choices) -> StreamId {
        let back = choices.below(self.heard_of.len().min(6));
        self.heard_of[self.heard_of.len() - 1 - back]
    }

    fn checkpoint(&self, choices: &mut Choices) -> Checkpoint {
        Checkpoint {
            actor_id: (*self.actor(choices)).into(),
            generation: choices.pick(&[0, 1, 2, u32::MAX]),
            index: choices.pick(&[0, 1, 2, 3, -1, 1 << 40, i64::MAX, i64::MIN]),
        }
    }

    /// Notes what came of calls and streams.
    fn collect(&mut self) {
        for (call, answer) in std::mem::take(&mut self.world.answers) {
            assert!(self.calls.remove(&call), "an answer nobody waits for");
            if let Ok(Answer::Actor { record, .. }) = answer
                && !self.actors.contains(&record.id)
            {
                self.actors.push(record.id.clone());
            }
        }
        for stream in std::mem::take(&mut self.world.refused).into_keys() {
            self.streams.remove(&stream);
        }
        let ended = self.world.delivered.iter().filter(|(_, events)| events.last().is_some_and(TunnelEvent::is_last));
        for stream in ended.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.streams.remove(&stream);
        }
        self.runners.retain(|connection, _| !self.world.closed.contains_key(connection));
    }

    fn check(&self) {
        let health = self.world.core.health();
        let limits = &self.world.settings.limits;
        assert!(health.waiting_streams <= limits.waiting, "{health:?}");
        assert!(health.streams <= limits.streams, "{health:?}");
        // A goodbye finds room in any case.
        assert!(health.kept_bytes <= limits.kept_bytes + 256 * health.lasting_sockets, "{health:?}");
    }

    /// The gateway is told to stop: everybody who waits is told so.
    fn rest(&mut self) {
        self.world.disk_done();
        self.world.answer_loads();
        self.collect();
        self.world.tell(Input::Shutdown);
        self.world.answer_loads();
        self.world.pass(120 * SECOND);
        self.collect();
        for (connection, messages) in std::mem::take(&mut self.world.sent) {
            let version = self.runners.get(&connection).map_or(Version::V7, |runner| runner.version);
            messages.iter().for_each(|message| check_written(message, version));
        }
        assert_eq!(self.calls, BTreeSet::new(), "calls without an answer");
        let open: Vec<_> = self.streams.difference(&self.closing).collect();
        assert!(open.is_empty(), "streams without an end: {open:?}");
        let health = self.world.core.health();
        assert_eq!((health.streams, health.waiting_streams), (0, 0), "{health:?}");
        assert!(self.runners.is_empty(), "connections that were not closed");
    }
}

fn check_written(message: &ToClient, version: Version) {
    let mut written = BytesMut::new();
    assert_eq!(message.encode(version, &mut written), Ok(()), "{message:?}");
}

fn init(choices: &mut Choices) -> Init {
    let names = vec![("counter".into(), ActorName { metadata: "{}".into() })];
    Init {
        name: choices.pick(&["pool", "pool", "pool", "other"]).into(),
        version: u32::from(choices.byte() % 3),
        total_slots: choices.pick(&[2, 3, 10, u32::MAX, 0]),
        prepopulate_actor_names: choices.flag().then_some(names),
        metadata: None,
    }
}

fn tunnel(choices: &mut Choices) -> ToServerTunnel {
    let bytes = Bytes::from(vec![b'x'; usize::from(choices.byte())]);
    match choices.below(12) {
        0 | 1 => ToServerTunnel::ResponseStart {
            status: choices.u16(),
            headers: vec![("x-a".into(), "1\n2".into())],
            body: Some(bytes),
            stream: choices.flag(),
        },
        2 | 3 => ToServerTunnel::ResponseChunk { body: bytes, finish: choices.flag() },
        4 => ToServerTunnel::ResponseAbort,
        5 => ToServerTunnel::WebSocketOpen { can_hibernate: choices.flag() },
        6 | 7 => ToServerTunnel::WebSocketMessage { data: bytes, binary: choices.flag() },
        8 | 9 => ToServerTunnel::WebSocketMessageAck { index: u16::from(choices.byte()) },
        _ => {
            let code = choices.pick(&[Some(1000), None, Some(0), Some(u16::MAX)]);
            ToServerTunnel::WebSocketClose { code, reason: None, hibernate: choices.flag() }
        }
    }
}

fn kv_request(choices: &mut Choices) -> KvRequest {
    let mut key = || Bytes::from(vec![choices.byte() % 4; 2]);
    let (start, end) = (key(), key());
    match choices.below(5) {
        0 => KvRequest::Get { keys: vec![start, end] },
        1 => KvRequest::Put { keys: vec![start.clone(), end], values: vec![start; 1 + choices.below(2)] },
        2 => KvRequest::Delete { keys: vec![start] },
        3 => KvRequest::DeleteRange { start, end },
        _ => KvRequest::Drop,
    }
}
