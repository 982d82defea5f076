//! A session between a gateway that says anything at all and hosts that keep their side of the bargain, in an order
//! that the bytes decide. Nothing is ever said twice, too late or to nobody, and what is kept has an end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use greenroom::actor::{ActorKey, Outcome};
use greenroom::protocol::{
    ActorConfig, Checkpoint, Command, CommandWrapper, Features, Headers, Init, InitMetadata, KvEntryMetadata,
    KvListQuery, KvRequest, KvResponse, MessageId, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel,
    Version,
};
use greenroom::session::{DialFailure, Disconnect, Effect, Exit, Input, Session, Settings};
use greenroom::stream::{StreamKey, StreamReply};

use super::choices::Choices;

pub fn session(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut play = Play::new(&mut choices);
    while !choices.is_over() {
        play.step(&mut choices);
    }
    play.rest();
}

struct Play {
    session: Session,
    now: Instant,
    version: Version,
    features: Features,
    socket: Socket,
    /// Lives on a host, with whether they were told to stop.
    hosted: BTreeMap<ActorKey, bool>,
    /// Every life there was.
    lives: Vec<ActorKey>,
    streams: BTreeMap<StreamId, Open>,
    /// Every opening there was: hosts answer late, too.
    openings: Vec<StreamKey>,
    tickets: u64,
    unanswered: BTreeSet<u64>,
    /// Ids of storage requests as they were sent.
    asked: Vec<u32>,
    draining: bool,
    flooded: bool,
    exited: bool,
}

struct Open {
    key: StreamKey,
    actor: ActorKey,
    /// The host said something that may have been the last word on it, or that lets it outlive the life.
    loose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    None,
    Dialing,
    Fresh,
    Greeting,
    Open,
    Closing,
}

impl Play {
    fn new(choices: &mut Choices) -> Self {
        let version = choices.pick(&[Version::V7, Version::V6, Version::V5, Version::V4]);
        let features = choices.pick(&[
            Features::ALL,
            Features::default(),
            Features { stream: true, ..Features::default() },
            Features { repeated_headers: true, ..Features::default() },
        ]);
        let init =
            Init { name: "pool".into(), version: 1, total_slots: 4, prepopulate_actor_names: None, metadata: None };
        let lost_lives = if choices.flag() { vec![ActorKey::new("a", 0), ActorKey::new("b", 1)] } else { Vec::new() };
        let settings = Settings { init, version, kv_timeout: Duration::from_secs(30), lost_lives, seed: 7 };
        let mut play = Play {
            session: Session::new(settings),
            now: Instant::now(),
            version,
            features,
            socket: Socket::None,
            hosted: BTreeMap::new(),
            lives: vec![ActorKey::new("a", 0)],
            streams: BTreeMap::new(),
            openings: Vec::new(),
            tickets: 0,
            unanswered: BTreeSet::new(),
            asked: Vec::new(),
            draining: false,
            flooded: false,
            exited: false,
        };
        play.perform();
        play
    }

    fn step(&mut self, choices: &mut Choices) {
        match choices.below(32) {
            // The first byte values do what leads furthest.
            0 | 1 => self.connect(choices),
            2..=5 => {
                let commands = (0..=choices.below(3)).map(|_| command(choices)).collect();
                self.hear(ToClient::Commands(commands));
            }
            6 | 7 => {
                let actor = self.pick_hosted(choices);
                self.tell_if(actor, Input::Running);
            }
            8..=12 => {
                let message = tunnel(choices);
                self.hear(ToClient::Tunnel {
                    id: MessageId { stream: stream(choices), index: index(choices) },
                    message,
                });
            }
            13..=16 => self.reply(choices),
            17 | 18 => self.ask(choices),
            19 => {
                let request_id = match choices.below(4) {
                    0 => choices.u32(),
                    back => self.asked.iter().rev().nth(back - 1).copied().unwrap_or(0),
                };
                self.hear(ToClient::Kv { request_id, response: kv_response(choices) });
            }
            20 => {
                let acknowledged = (0..=choices.below(2)).map(|_| checkpoint(choices)).collect();
                self.hear(ToClient::AckEvents(acknowledged));
            }
            21 => self.wish(choices),
            22 => self.end(choices),
            23 => self.restore(choices),
            24 => self.cut(choices),
            25 | 26 => {
                let millis = u64::from(choices.u16()) * choices.pick(&[1, 16, 256, 0]);
                self.pass(Duration::from_millis(millis));
            }
            27 => {
                // Anything a gateway can say at all.
                if let Ok(message) = ToClient::decode(Bytes::copy_from_slice(choices.bytes()), self.version) {
                    self.hear(message);
                }
            }
            28 => self.hear(ToClient::Ping { ts: choices.i64() }),
            29 => self.flood(choices),
            30 => {
                self.draining = true;
                let within = Duration::from_millis(u64::from(choices.u16()));
                self.tell(Input::Drain { within });
            }
            // An answer to a dial that nobody asked for.
            _ if self.socket != Socket::Dialing => {
                let features = self.features;
                self.tell(Input::Dialed { features });
                self.tell(Input::DialFailed(DialFailure("nobody asked for it".into())));
            }
            _ => {}
        }
    }

    fn connect(&mut self, choices: &mut Choices) {
        match self.socket {
            Socket::Dialing if choices.below(8) == 7 => {
                self.socket = Socket::None;
                self.tell(Input::DialFailed(DialFailure("refused".into())));
            }
            Socket::Dialing => {
                self.socket = Socket::Fresh;
                let features = self.features;
                self.tell(Input::Dialed { features });
            }
            Socket::Greeting => {
                let runner_id = choices.pick(&["runner", "other", ""]).into();
                let metadata = InitMetadata {
                    runner_lost_threshold: choices.pick(&[15_000, 0, -1, i64::MAX, i64::MIN, 1]),
                    actor_stop_threshold: choices.pick(&[Some(30_000), None, Some(i64::MIN), Some(i64::MAX)]),
                    serverless_drain_grace_period: None,
                };
                self.hear(ToClient::Init { runner_id, metadata });
            }
            Socket::Open => {
                let metadata = InitMetadata {
                    runner_lost_threshold: 1_000,
                    actor_stop_threshold: None,
                    serverless_drain_grace_period: None,
                };
                self.hear(ToClient::Init { runner_id: "again".into(), metadata });
            }
            Socket::None | Socket::Fresh | Socket::Closing => {}
        }
    }

    fn cut(&mut self, choices: &mut Choices) {
        if !matches!(self.socket, Socket::Greeting | Socket::Open | Socket::Closing) {
            return;
        }
        self.socket = Socket::None;
        let disconnect = match choices.below(8) {
            0..=2 => Disconnect::Broken("cut".into()),
            3 | 4 => Disconnect::Closed { code: 1011, reason: "ws.going_away".into() },
            5 => Disconnect::Closed { code: 1011, reason: "ws.eviction#ray".into() },
            6 => Disconnect::Closed { code: 1000, reason: String::new() },
            _ => Disconnect::Closed { code: choices.u16(), reason: choices.text() },
        };
        self.tell(Input::Disconnected(disconnect));
    }

    fn reply(&mut self, choices: &mut Choices) {
        let Some(back) = self.openings.len().checked_sub(1 + choices.below(4)) else { return };
        let stream = self.openings[back];
        let body = Bytes::copy_from_slice(choices.bytes());
        let (reply, loose) = match choices.below(10) {
            0 => (StreamReply::Response { status: 200, headers: headers(choices), body, more: false }, true),
            1 => (StreamReply::Response { status: choices.u16(), headers: headers(choices), body, more: true }, false),
            2 => (StreamReply::Chunk { body, finish: false }, false),
            3 => (StreamReply::Chunk { body, finish: true }, true),
            4 => (StreamReply::Grant, false),
            5 => (StreamReply::Abort, true),
            6 => (StreamReply::Open { can_hibernate: choices.flag() }, true),
            7 => (StreamReply::Message { data: body, binary: true }, false),
            8 => (StreamReply::MessageAck { index: index(choices) }, false),
            _ => {
                let code = choices.pick(&[Some(1000), None, Some(0), Some(1005), Some(u16::MAX)]);
                (StreamReply::Close { code, reason: Some(choices.text().into()) }, true)
            }
        };
        if let Some(open) = self.streams.get_mut(&stream.id).filter(|open| open.key == stream) {
            open.loose |= loose;
        }
        self.tell(Input::Reply { stream, reply });
    }

    fn ask(&mut self, choices: &mut Choices) {
        let actor = self.pick_life(choices);
        let request = kv_request(choices);
        let ticket = self.tickets;
        self.tickets += 1;
        self.unanswered.insert(ticket);
        self.tell_even_after_exit(Input::Kv { actor, ticket, request });
    }

    fn wish(&mut self, choices: &mut Choices) {
        let actor = self.pick_life(choices);
        let input = match choices.below(8) {
            0 | 1 => Input::Sleep(actor),
            2 => Input::Destroy(actor),
            3 => Input::Stop(actor, Outcome::Wanted),
            4 => Input::Stop(actor, Outcome::Failed(choices.text())),
            5 => Input::Kill(actor),
            _ => Input::SetAlarm(actor, choices.pick(&[Some(1), None, Some(i64::MIN), Some(i64::MAX)])),
        };
        self.tell(input);
    }

    fn end(&mut self, choices: &mut Choices) {
        let Some(key) = self.pick_hosted(choices) else { return };
        let outcome = if choices.flag() { Outcome::Failed("x".repeat(5_000)) } else { Outcome::Wanted };
        self.over(key, outcome);
    }

    fn over(&mut self, key: ActorKey, outcome: Outcome) {
        self.hosted.remove(&key);
        self.tell(Input::Ended(key.clone(), outcome));
        if self.exited {
            return;
        }
        for (id, open) in &self.streams {
            assert!(open.actor != key || open.loose, "{id} is still open to {key}, which is over");
        }
        self.streams.retain(|_, open| open.actor != key);
    }

    fn restore(&mut self, choices: &mut Choices) {
        let Some(actor) = self.pick_hosted(choices) else { return };
        let sockets = (0..choices.below(4)).map(|_| (stream(choices), index(choices))).collect();
        let unknown = (0..choices.below(4)).map(|_| stream(choices)).collect();
        self.tell(Input::Restored { actor, sockets, unknown });
    }

    /// The same thing again and again, more often than anything may be kept.
    fn flood(&mut self, choices: &mut Choices) {
        if std::mem::replace(&mut self.flooded, true) {
            return;
        }
        let actor = self.pick_life(choices);
        let kind = choices.below(4);
        // All of it takes its time, so rarely.
        let count = if choices.byte() > 250 { FLOOD } else { FLOOD / 300 };
        for number in 0..count {
            match kind {
                0 => self.tell(Input::SetAlarm(actor.clone(), Some(number))),
                1 => {
                    let ticket = self.tickets;
                    self.tickets += 1;
                    self.unanswered.insert(ticket);
                    let request = KvRequest::Get { keys: vec![Bytes::from_static(b"k")] };
                    self.tell_even_after_exit(Input::Kv { actor: actor.clone(), ticket, request });
                }
                2 => {
                    let Some(stream) = self.openings.last().copied() else { return };
                    let data = Bytes::from_static(b"frame");
                    self.tell(Input::Reply { stream, reply: StreamReply::Message { data, binary: false } });
                }
                _ => {
                    let low = u8::try_from(number % 256).expect("in range");
                    let high = u8::try_from(number / 256).expect("in range");
                    let id = StreamId { gateway: [9; 4], request: [1, 1, high, low] };
                    let message = ToClientTunnel::WebSocketMessage { data: Bytes::new(), binary: true };
                    self.hear(ToClient::Tunnel { id: MessageId { stream: id, index: 1 }, message });
                }
            }
        }
        let asked = self.unanswered.len();
        assert!(asked <= 4 * 1024, "{asked} storage requests are kept");
        // Alarms are folded, ends are not.
        let events = self.session.unacknowledged_events();
        assert!(events <= 10_000 * self.lives.len() + 1_000, "{events} events are kept");
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.session.poll_timeout()
            && due <= until
        {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            self.perform();
            let next = self.session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer was due and nothing came of it");
        }
        self.now = until;
    }

    /// Nobody says anything any more: every storage request comes to an end, and a drain does.
    fn rest(&mut self) {
        self.pass(Duration::from_secs(31));
        assert_eq!(self.unanswered, BTreeSet::new(), "storage requests without an answer");
        self.draining = true;
        self.tell(Input::Drain { within: Duration::from_secs(10) });
        self.pass(Duration::from_secs(20));
        while let Some(key) = self.hosted.keys().next().cloned()
            && !self.exited
        {
            self.over(key, Outcome::Wanted);
        }
        if self.socket == Socket::Closing && !self.exited {
            self.socket = Socket::None;
            self.tell(Input::Disconnected(Disconnect::Broken("cut".into())));
        }
        self.pass(Duration::from_secs(100_000));
        assert!(self.exited, "a drain that does not end: {:?}", self.session);
    }

    fn hear(&mut self, message: ToClient) {
        if matches!(self.socket, Socket::Greeting | Socket::Open | Socket::Closing) {
            self.tell(Input::Received(message));
        }
    }

    fn tell_if(&mut self, actor: Option<ActorKey>, input: fn(ActorKey) -> Input) {
        if let Some(actor) = actor {
            self.tell(input(actor));
        }
    }

    fn tell(&mut self, input: Input) {
        if !self.exited {
            self.tell_even_after_exit(input);
        }
    }

    fn tell_even_after_exit(&mut self, input: Input) {
        self.session.handle(input, self.now);
        self.perform();
    }

    fn pick_life(&self, choices: &mut Choices) -> ActorKey {
        let back = choices.below(self.lives.len().min(8));
        self.lives[self.lives.len() - 1 - back].clone()
    }

    fn pick_hosted(&self, choices: &mut Choices) -> Option<ActorKey> {
        let place = choices.below(self.hosted.len().clamp(1, 256));
        self.hosted.keys().nth(place).cloned()
    }

    fn perform(&mut self) {
        while let Some(effect) = self.session.poll_effect(self.now) {
            self.check(effect);
        }
        if self.exited {
            assert_eq!(self.session.poll_timeout(), None);
        }
    }

    fn check(&mut self, effect: Effect) {
        assert!(!self.exited || matches!(effect, Effect::KvDone { .. }), "after the exit: {effect:?}");
        match effect {
            Effect::Dial => {
                assert_eq!(self.socket, Socket::None, "a dial while a socket exists");
                self.socket = Socket::Dialing;
            }
            Effect::Hangup { code, .. } => {
                assert!(matches!(self.socket, Socket::Greeting | Socket::Open), "{:?}", self.socket);
                assert!((1000..5000).contains(&code));
                self.socket = Socket::Closing;
            }
            Effect::Send(message) => self.check_sent(&message),
            Effect::Start(command) => {
                let other = self.hosted.keys().find(|other| other.id == command.key.id);
                assert_eq!(other, None, "{} started beside another life", command.key);
                self.lives.push(command.key.clone());
                self.hosted.insert(command.key, false);
            }
            Effect::Stop { key, .. } => {
                let told = self.hosted.get_mut(&key).expect("a stop of a life that is there");
                assert!(!std::mem::replace(told, true), "{key} told twice to stop");
            }
            Effect::Kill { key } => *self.hosted.get_mut(&key).expect("a kill of a life that is there") = true,
            Effect::Request { actor, stream, .. } | Effect::WebSocket { actor, stream, .. } => {
                assert_eq!(self.hosted.get(&actor), Some(&false), "a stream for {actor}, which is not there or stops");
                self.opened(actor, stream);
            }
            Effect::WebSocketRestored { actor, stream } => {
                assert!(self.hosted.contains_key(&actor), "a socket for {actor}, which is not there");
                self.opened(actor, stream);
                if let Some(open) = self.streams.get_mut(&stream.id) {
                    open.loose = true;
                }
            }
            Effect::RequestChunk { stream, .. }
            | Effect::Granted { stream }
            | Effect::WebSocketMessage { stream, .. } => {
                let open = self.streams.get(&stream.id).map(|open| open.key);
                assert_eq!(open, Some(stream), "a piece for an abandoned opening");
            }
            Effect::WebSocketClosed { stream, .. } | Effect::Cancel { stream } => {
                let open = self.streams.remove(&stream.id).map(|open| open.key);
                assert_eq!(open, Some(stream), "the end of an opening that is not");
            }
            Effect::KvDone { ticket, .. } => assert!(self.unanswered.remove(&ticket), "answered twice"),
            Effect::Connected { lost_after, .. } => {
                assert!(self.socket == Socket::Greeting && lost_after >= Duration::from_secs(1));
                self.socket = Socket::Open;
            }
            Effect::Disconnected { retry_in, .. } => {
                assert!(self.socket == Socket::None && retry_in <= Duration::from_secs(60));
            }
            Effect::Lost => {}
            Effect::Exit(exit) => {
                assert!(exit != Exit::Drained || self.draining && self.hosted.is_empty(), "{exit:?}");
                self.exited = true;
            }
        }
    }

    fn check_sent(&mut self, message: &ToServer) {
        let mut written = BytesMut::new();
        assert_eq!(message.encode(self.version, &mut written), Ok(()), "{message:?}");
        match message {
            ToServer::Init(_) => {
                assert_eq!(self.socket, Socket::Fresh, "an init that does not come first");
                self.socket = Socket::Greeting;
            }
            ToServer::Kv { request_id, actor_id, .. } => {
                assert_eq!(self.socket, Socket::Open, "{message:?}");
                // After an end it is asked only whether the actor was destroyed, which nobody waits for.
                assert!(self.lives.iter().any(|key| *key.id == **actor_id), "asked for an actor that never was");
                self.asked.push(*request_id);
            }
            ToServer::Tunnel { id: _, message: ToServerTunnel::WebSocketClose { code: Some(code), .. } } => {
                assert!((1000..5000).contains(code), "{message:?}");
                assert_eq!(self.socket, Socket::Open, "{message:?}");
            }
            ToServer::Events(_)
            | ToServer::AckCommands(_)
            | ToServer::Stopping
            | ToServer::Pong { .. }
            | ToServer::Tunnel { .. } => assert_eq!(self.socket, Socket::Open, "{message:?}"),
        }
    }

    fn opened(&mut self, actor: ActorKey, key: StreamKey) {
        self.openings.push(key);
        let before = self.streams.insert(key.id, Open { key, actor, loose: false });
        assert!(before.is_none_or(|open| open.loose), "the earlier opening was not cancelled");
    }
}

fn command(choices: &mut Choices) -> CommandWrapper {
    let checkpoint = checkpoint(choices);
    let command = if choices.below(4) == 3 {
        Command::Stop
    } else {
        let config = ActorConfig { name: "counter".into(), key: None, create_ts: 1, input: None };
        let hibernating = (0..choices.below(4)).map(|_| stream(choices)).collect();
        Command::Start { config, hibernating }
    };
    CommandWrapper { checkpoint, command }
}

fn checkpoint(choices: &mut Choices) -> Checkpoint {
    Checkpoint {
        actor_id: choices.pick(&["a", "b", "c"]).into(),
        generation: choices.pick(&[0, 1, 2, 3, u32::MAX]),
        index: choices.pick(&[0, 1, 2, 3, 4, 5, 1 << 40, i64::MAX, -1, i64::MIN]),
    }
}

fn stream(choices: &mut Choices) -> StreamId {
    StreamId { gateway: [9; 4], request: [u8::try_from(choices.below(5)).expect("small"); 4] }
}

fn index(choices: &mut Choices) -> u16 {
    match choices.byte() {
        255 => choices.u16(),
        low => u16::from(low).wrapping_sub(3),
    }
}

fn tunnel(choices: &mut Choices) -> ToClientTunnel {
    let actor_id = choices.pick(&["a", "b", "c", "d"]).into();
    match choices.below(8) {
        0 | 1 => {
            let stream = choices.flag();
            let method = choices.pick(&["GET", "POST", "HEAD"]).into();
            let body = choices.flag().then(|| Bytes::copy_from_slice(choices.bytes()));
            ToClientTunnel::RequestStart { actor_id, method, path: "/".into(), headers: headers(choices), body, stream }
        }
        2 | 3 => ToClientTunnel::WebSocketOpen { actor_id, path: "/ws".into(), headers: headers(choices) },
        4 => {
            let body = match choices.below(3) {
                0 => Bytes::copy_from_slice(choices.bytes()),
                1 => Bytes::new(),
                // More than there is credit for, if it comes twice.
                _ => Bytes::from_static(&[0; 600_000]),
            };
            ToClientTunnel::RequestChunk { body, finish: choices.flag() }
        }
        5 => ToClientTunnel::WebSocketMessage { data: Bytes::copy_from_slice(choices.bytes()), binary: choices.flag() },
        6 => ToClientTunnel::RequestAbort,
        _ => {
            let code = choices.pick(&[None, Some(1000), Some(1005), Some(0), Some(u16::MAX)]);
            ToClientTunnel::WebSocketClose { code, reason: choices.flag().then(|| choices.text().into()) }
        }
    }
}

/// A map on the wire has no name twice; a host's answer may.
fn headers(choices: &mut Choices) -> Headers {
    const NAMES: [&str; 5] = ["x-a", "set-cookie", "content-length", "cookie", "Set-Cookie"];
    let count = choices.below(5);
    (0..count).map(|_| (choices.pick(&NAMES).into(), choices.pick(&["1", "", "a\nb", "9"]).into())).collect()
}

fn kv_request(choices: &mut Choices) -> KvRequest {
    match choices.below(6) {
        0 => KvRequest::Get { keys: keys(choices) },
        1 => KvRequest::Put { keys: keys(choices), values: keys(choices) },
        2 => KvRequest::Delete { keys: keys(choices) },
        3 => {
            let query = match choices.below(3) {
                0 => KvListQuery::All,
                1 => KvListQuery::Prefix { key: key(choices) },
                _ => KvListQuery::Range { start: key(choices), end: key(choices), exclusive: choices.flag() },
            };
            let limit = choices.pick(&[None, Some(0), Some(1), Some(u64::MAX)]);
            KvRequest::List { query, reverse: choices.pick(&[None, Some(false), Some(true)]), limit }
        }
        4 => KvRequest::DeleteRange { start: key(choices), end: key(choices) },
        _ => KvRequest::Drop,
    }
}

fn kv_response(choices: &mut Choices) -> KvResponse {
    match choices.below(7) {
        0 => KvResponse::Put,
        1 | 2 => {
            let (keys, values) = (keys(choices), keys(choices));
            let metadata = vec![KvEntryMetadata { version: Bytes::new(), update_ts: 1 }; choices.below(4)];
            KvResponse::List { keys, values, metadata }
        }
        3 => {
            let (keys, values) = (keys(choices), keys(choices));
            let metadata = vec![KvEntryMetadata { version: Bytes::new(), update_ts: 1 }; choices.below(4)];
            KvResponse::Get { keys, values, metadata }
        }
        4 => KvResponse::Delete,
        5 => KvResponse::Drop,
        _ => KvResponse::Error { message: choices.text().into() },
    }
}

fn keys(choices: &mut Choices) -> Vec<Bytes> {
    (0..choices.below(4)).map(|_| key(choices)).collect()
}

fn key(choices: &mut Choices) -> Bytes {
    match choices.byte() {
        255 => Bytes::from(vec![0; 3_000]),
        254 => Bytes::from(vec![0; 200_000]),
        small => Bytes::from(vec![small % 8; usize::from(small % 3)]),
    }
}

/// More than there may be unanswered storage requests of one actor and unacknowledged alarms.
const FLOOD: i64 = 12_000;
