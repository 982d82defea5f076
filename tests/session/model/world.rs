//! One schedule: the session between the gateway and the hosts of the model, and the laws.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use greenroom::actor::{ActorKey, Outcome};
use greenroom::protocol::{
    Command, CommandWrapper, KvRequest, KvResponse, MessageId, StreamId, ToClient, ToClientTunnel, ToServer,
    ToServerTunnel,
};
use greenroom::session::{DialFailure, Disconnect, Effect, Exit, Features, Input, LinkStatus};
use greenroom::stream::{StreamKey, StreamReply};
use proptest::sample::Index;

use super::gateway::{Gateway, is_end};
use super::lasting::{Taken, hibernates};
use crate::stage::{KV_TIMEOUT, LOST_AFTER, Stage, checkpoint, init, millis, request_start, secs, stream};

#[derive(Clone, Debug)]
pub enum Step {
    Pass(u64),
    Connect,
    FailDial,
    Cut { polite: bool },
    NewIdentity,
    GatewayReads(usize),
    GatewayStarts { actor: usize, lost: bool },
    GatewayStartsAnOldGeneration { actor: usize },
    GatewayStops { actor: usize },
    GatewayRepeats,
    GatewayAcknowledges { actor: usize },
    GatewayAnswersStorage,
    Opens { actor: usize, id: u8, socket: bool },
    ClientSends { id: u8, ahead: i32 },
    ClientLeaves { id: u8 },
    HostRuns(Index),
    HostEnds { pick: Index, well: bool },
    HostWishes { pick: Index, sleep: bool },
    OwnerStops { pick: Index, kill: bool },
    HostSetsAlarm(Index),
    HostAsksStorage { pick: Index, write: bool },
    HostReplies { pick: Index, what: u8 },
    Drain(u64),
    OpensLasting { actor: usize, id: u8 },
    ClientSays { id: u8 },
    LastingClientLeaves { id: u8 },
    HostTakes { id: u8, says_so: bool },
    HostSays { id: u8, closes: bool },
}

pub struct World {
    stage: Stage,
    pub socket: Socket,
    pub gateway: Gateway,
    pub taken: Taken,
    /// Lives on a host, with whether they were told to stop.
    pub hosted: BTreeMap<ActorKey, bool>,
    /// Lives that said they want to leave.
    pub wishes: BTreeSet<ActorKey>,
    /// The sockets that each life was told of when it was to start.
    pub listed: BTreeMap<ActorKey, Vec<StreamId>>,
    /// Lives that were started, ever.
    started: BTreeSet<ActorKey>,
    /// The streams handed to hosts, with their life and the client's last index.
    streams: BTreeMap<u8, Open>,
    /// Every opening that a host was given, for late replies.
    openings: Vec<StreamKey>,
    /// The stream that is being opened: what ends it gives it back.
    opening: Option<u8>,
    tickets: u64,
    waiting_tickets: BTreeSet<u64>,
    /// What was asked under each id, and the last index sent for each life on this connection.
    asked: BTreeMap<u32, KvRequest>,
    last_sent: BTreeMap<ActorKey, i64>,
    /// When the gateway began the newest life of each actor.
    begun: BTreeMap<usize, Instant>,
    identity: u32,
    exited: bool,
}

#[derive(Clone, Copy)]
struct Open {
    key: StreamKey,
    socket: bool,
    last_in: u16,
    /// The response has begun.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    None,
    Dialing,
    Fresh,
    Greeting,
    Open,
    Closing,
}

const ACTORS: [&str; 3] = ["a", "b", "c"];

impl World {
    /// With the gateway's end of what goes beyond the protocol.
    pub fn new(features: Features) -> Self {
        let mut stage = Stage::new();
        stage.features = features;
        let mut world = World {
            stage,
            socket: Socket::None,
            gateway: Gateway::default(),
            taken: Taken::default(),
            hosted: BTreeMap::new(),
            wishes: BTreeSet::new(),
            listed: BTreeMap::new(),
            started: BTreeSet::new(),
            streams: BTreeMap::new(),
            openings: Vec::new(),
            opening: None,
            tickets: 0,
            waiting_tickets: BTreeSet::new(),
            asked: BTreeMap::new(),
            last_sent: BTreeMap::new(),
            begun: BTreeMap::new(),
            identity: 0,
            exited: false,
        };
        let effects = world.stage.effects();
        world.check(effects);
        world
    }

    pub fn take(&mut self, step: Step) {
        if self.exited {
            return;
        }
        match step {
            Step::Pass(time) => self.pass(time),
            Step::Connect => self.connect(),
            Step::FailDial if self.socket == Socket::Dialing => {
                self.socket = Socket::None;
                self.input(Input::DialFailed(DialFailure("refused".into())));
            }
            Step::Cut { polite } => self.cut(polite),
            Step::NewIdentity => {
                self.cut(false);
                self.identity += 1;
                self.gateway.forget_runner();
            }
            Step::GatewayReads(messages) => self.read(messages),
            Step::GatewayStarts { actor, lost } => {
                self.begun.insert(actor, self.stage.now);
                let mut commands = self.gateway.start(ACTORS[actor], lost);
                // Only at first: a start that is given again has an empty list.
                if let Some(CommandWrapper { command: Command::Start { hibernating, .. }, .. }) = commands.last_mut() {
                    *hibernating = self.gateway.kept.of(ACTORS[actor]);
                }
                self.say(ToClient::Commands(commands));
            }
            Step::GatewayStartsAnOldGeneration { actor } => {
                // What overtakes a command does so by seconds; for longer than a minute nobody remembers a life that is
                // over and settled.
                let lately = |begun: &Instant| self.stage.now - *begun < secs(30);
                let overtaken = self.begun.get(&actor).is_some_and(lately);
                if let Some(command) = overtaken.then(|| self.gateway.start_old(ACTORS[actor])).flatten() {
                    self.say(ToClient::Commands(vec![command]));
                }
            }
            Step::GatewayStops { actor } => {
                if let Some(command) = self.gateway.stop(ACTORS[actor]) {
                    self.say(ToClient::Commands(vec![command]));
                }
            }
            Step::GatewayRepeats => self.say(ToClient::Commands(self.gateway.stored())),
            Step::GatewayAcknowledges { actor } => self.acknowledge(ACTORS[actor]),
            Step::GatewayAnswersStorage => self.answer_storage(),
            Step::Opens { actor, id, socket } => self.open(ACTORS[actor], id, socket),
            Step::ClientSends { id, ahead } => self.client_sends(id, ahead),
            Step::ClientLeaves { id } => {
                let bye = match self.streams.get(&id) {
                    Some(Open { socket: true, .. }) => ToClientTunnel::WebSocketClose { code: None, reason: None },
                    Some(Open { socket: false, .. }) | None => ToClientTunnel::RequestAbort,
                };
                self.say_on(id, 1, bye);
            }
            Step::HostRuns(pick) => {
                if let Some(key) = self.life(pick) {
                    if self.listed.contains_key(&key) {
                        self.restore(&key);
                    }
                    self.input(Input::Running(key));
                }
            }
            Step::HostEnds { pick, well } => {
                if let Some(key) = self.life(pick) {
                    self.end(&key, well);
                }
            }
            Step::HostWishes { pick, sleep } => {
                if let Some(key) = self.life(pick) {
                    self.wishes.insert(key.clone());
                    self.input(if sleep { Input::Sleep(key) } else { Input::Destroy(key) });
                }
            }
            Step::OwnerStops { pick, kill } => {
                if let Some(key) = self.life(pick) {
                    self.input(if kill { Input::Kill(key) } else { Input::Stop(key, Outcome::Wanted) });
                }
            }
            Step::HostSetsAlarm(pick) => {
                if let Some(key) = self.life(pick) {
                    self.input(Input::SetAlarm(key, Some(i64::try_from(self.tickets).expect("small"))));
                    self.tickets += 1;
                }
            }
            Step::HostAsksStorage { pick, write } => self.ask_storage(pick, write),
            Step::HostReplies { pick, what } => self.host_replies(pick, what),
            Step::Drain(seconds) => self.input(Input::Drain { within: secs(seconds) }),
            Step::OpensLasting { actor, id } => self.opens_lasting(ACTORS[actor], id),
            Step::ClientSays { id } => self.client_says(id),
            Step::LastingClientLeaves { id } => self.client_leaves_lasting(id),
            Step::HostTakes { id, says_so } => self.host_takes(id, says_so),
            Step::HostSays { id, closes } => self.host_says(id, closes),
            Step::FailDial => {}
        }
    }

    /// Brings everything to rest, and checks that nothing was forgotten.
    pub fn settle(&mut self) {
        self.come_back();
        self.settle_lasting();
        for _ in 0..3 {
            self.come_back();
            self.say(ToClient::Commands(self.gateway.stored()));
            self.pass(1000);
            self.read(usize::MAX);
            while !self.gateway.storage.is_empty() {
                self.answer_storage();
            }
            // Those of a link that closes for a drain wait for the end of it.
            let answered = self.waiting_tickets.is_empty() || self.socket != Socket::Open;
            assert!(answered, "not asked again: {:?}", self.waiting_tickets);
            while let Some(key) = self.hosted.keys().next().cloned()
                && !self.exited
            {
                self.end(&key, true);
            }
        }
        self.read(usize::MAX);
        if self.exited {
            assert!(self.waiting_tickets.is_empty(), "storage requests without an answer: {:?}", self.waiting_tickets);
            return;
        }
        assert_eq!(self.stage.session.live_actors(), 0);
        assert_eq!(self.gateway.stored(), [], "commands without an acknowledgement");
        for (name, actor) in &self.gateway.actors {
            for (generation, events) in &actor.events {
                let key = ActorKey::new(&**name, *generation);
                let indexes: Vec<i64> = events.keys().copied().collect();
                let first = indexes[0];
                let expected: Vec<i64> = (first..).take(indexes.len()).collect();
                assert_eq!(indexes, expected, "{key}: an event is missing");
                assert!(first == 0 || !self.started.contains(&key), "{key}: its first events are missing");
                let ends = events.values().filter(|event| is_end(event)).count();
                assert!(ends == 1 && events.values().next_back().is_some_and(is_end), "{key}: {events:?}");
            }
        }
        for key in self.started.iter().filter(|key| !self.gateway.has_forgotten(key)) {
            assert!(self.gateway.actors[&*key.id].has_ended(key.generation), "{key}: its end was not told");
        }
        self.pass(u64::try_from(KV_TIMEOUT.as_millis()).expect("small"));
        assert!(self.waiting_tickets.is_empty(), "storage requests without an answer: {:?}", self.waiting_tickets);
        assert!(self.streams.is_empty(), "streams without an end");
    }

    pub fn pass(&mut self, time: u64) {
        for _ in 0..time / 1000 {
            self.pass_briefly(1000);
            // A gateway that is there reads within a second.
            self.read(usize::MAX);
        }
        self.pass_briefly(time % 1000);
    }

    fn pass_briefly(&mut self, time: u64) {
        let until = self.stage.now + millis(time);
        while let Some(due) = self.stage.session.poll_timeout()
            && due <= until
        {
            self.stage.now = self.stage.now.max(due);
            self.stage.session.handle_timeout(self.stage.now);
            let effects = self.stage.effects();
            self.check(effects);
            let next = self.stage.session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.stage.now), "a timer was due and nothing came of it");
        }
        self.stage.now = until;
    }

    fn connect(&mut self) {
        match self.socket {
            Socket::Dialing => {
                self.socket = Socket::Fresh;
                let features = self.stage.features;
                self.input(Input::Dialed { features });
                assert_eq!(self.socket, Socket::Greeting, "an open socket is greeted on");
            }
            Socket::Greeting => {
                self.socket = Socket::Open;
                self.input(init(&format!("runner-{}", self.identity)));
                self.say(ToClient::Commands(self.gateway.stored()));
            }
            Socket::None | Socket::Fresh | Socket::Open | Socket::Closing => {}
        }
    }

    fn come_back(&mut self) {
        for _ in 0..100 {
            if self.exited || self.socket == Socket::Open {
                return;
            }
            match self.socket {
                Socket::Dialing | Socket::Greeting => self.connect(),
                Socket::Closing => self.cut(true),
                Socket::None | Socket::Fresh | Socket::Open => self.pass(1000),
            }
        }
        panic!("the session does not come back: {:?}", self.socket);
    }

    fn cut(&mut self, polite: bool) {
        match self.socket {
            Socket::Greeting | Socket::Open | Socket::Closing => {}
            Socket::None | Socket::Dialing | Socket::Fresh => return,
        }
        self.socket = Socket::None;
        self.gateway.disconnected();
        self.last_sent.clear();
        let disconnect = if polite {
            Disconnect::Closed { code: 1011, reason: "ws.going_away".into() }
        } else {
            Disconnect::Broken("cut".into())
        };
        self.input(Input::Disconnected(disconnect));
    }

    fn say(&mut self, message: ToClient) {
        if self.socket == Socket::Open {
            self.input(Input::Received(message));
        }
    }

    /// The gateway reads some of what was sent, and answers on sockets.
    pub fn read(&mut self, messages: usize) {
        self.gateway.read(messages);
        self.deliver_kept();
    }

    pub fn say_on(&mut self, id: u8, index: u16, message: ToClientTunnel) {
        self.say(ToClient::Tunnel { id: MessageId { stream: stream(id), index }, message });
    }

    pub fn input(&mut self, input: Input) {
        self.stage.session.handle(input, self.stage.now);
        let effects = self.stage.effects();
        self.check(effects);
    }

    fn acknowledge(&mut self, name: &str) {
        let Some(actor) = self.gateway.actors.get(name) else { return };
        let Some((generation, _)) = actor.newest else { return };
        let Some(events) = actor.events.get(&generation) else { return };
        let Some((last, _)) = events.last_key_value() else { return };
        self.say(ToClient::AckEvents(vec![checkpoint(name, generation, *last)]));
    }

    fn ask_storage(&mut self, pick: Index, write: bool) {
        let Some(actor) = self.life(pick) else { return };
        let ticket = self.tickets;
        self.tickets += 1;
        self.waiting_tickets.insert(ticket);
        // Each is like no other.
        let keys = vec![Bytes::from(ticket.to_string())];
        let request = match write {
            true => KvRequest::Put { values: keys.clone(), keys },
            false => KvRequest::Get { keys },
        };
        self.input(Input::Kv { actor, ticket, request });
    }

    fn answer_storage(&mut self) {
        let Some((request_id, write)) = self.gateway.storage.pop_front() else { return };
        let nothing = KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] };
        let response = if write { KvResponse::Put } else { nothing };
        self.say(ToClient::Kv { request_id, response });
    }

    fn open(&mut self, actor: &str, id: u8, socket: bool) {
        let message = if socket {
            ToClientTunnel::WebSocketOpen { actor_id: actor.into(), path: "/".into(), headers: vec![] }
        } else {
            request_start(actor)
        };
        if self.socket == Socket::Open {
            self.read(usize::MAX);
            self.gateway.ended_streams.remove(&id);
            self.opening = Some(id);
            self.say_on(id, 0, message);
            self.opening = None;
            self.read(usize::MAX);
            let open = self.streams.contains_key(&id);
            assert!(open || self.gateway.ended_streams.contains_key(&id), "neither taken nor given back");
        }
    }

    fn client_sends(&mut self, id: u8, ahead: i32) {
        let Some(Open { socket, last_in, .. }) = self.streams.get_mut(&id) else { return };
        if !*socket {
            let body = Bytes::from_static(b"more");
            return self.say_on(id, 1, ToClientTunnel::RequestChunk { body, finish: false });
        }
        let index = last_in.wrapping_add(u16::try_from(ahead.rem_euclid(65_536)).expect("in range"));
        if ahead == 1 {
            *last_in = index;
        }
        self.say_on(id, index, ToClientTunnel::WebSocketMessage { data: Bytes::new(), binary: true });
    }

    fn host_replies(&mut self, pick: Index, what: u8) {
        if self.openings.is_empty() {
            return;
        }
        // Any opening there ever was: late ones must not matter.
        let key = *pick.get(&self.openings);
        let body = Bytes::from_static(b"body");
        let reply = match what {
            0 => StreamReply::Response { status: 200, headers: vec![], body, more: false },
            1 => StreamReply::Response { status: 200, headers: vec![], body, more: true },
            2 => StreamReply::Chunk { body, finish: false },
            3 => StreamReply::Chunk { body, finish: true },
            4 => StreamReply::Open { can_hibernate: false },
            _ => StreamReply::Close { code: Some(1000), reason: None },
        };
        let id = key.id.request[0];
        let open = self.streams.get_mut(&id).filter(|open| open.key == key);
        let current = open.is_some();
        let last = open.is_some_and(|open| match what {
            0 => !open.socket && !open.begun,
            1 => {
                open.begun |= !open.socket;
                false
            }
            3 => open.begun,
            2 | 4 => false,
            _ => open.socket,
        });
        if last {
            // Sent now, or kept for the next connection.
            self.streams.remove(&id);
        }
        self.stage.session.handle(Input::Reply { stream: key, reply }, self.stage.now);
        let effects = self.stage.effects();
        if !current {
            assert_eq!(effects, [], "a late reply");
        }
        self.check(effects);
    }

    fn end(&mut self, key: &ActorKey, well: bool) {
        self.hosted.remove(key);
        let outcome = if well { Outcome::Wanted } else { Outcome::Failed("boom".into()) };
        self.input(Input::Ended(key.clone(), outcome));
    }

    fn life(&self, pick: Index) -> Option<ActorKey> {
        let keys: Vec<&ActorKey> = self.hosted.keys().collect();
        (!keys.is_empty()).then(|| (*pick.get(&keys)).clone())
    }

    /// The laws, effect by effect.
    fn check(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(!self.exited, "after the exit: {effect:?}");
            match effect {
                Effect::WebSocket { stream, .. }
                | Effect::WebSocketRestored { stream, .. }
                | Effect::WebSocketMessage { stream, .. }
                | Effect::WebSocketClosed { stream, .. }
                | Effect::Cancel { stream }
                    if hibernates(stream.id.request[0]) =>
                {
                    self.check_lasting(effect);
                }
                Effect::Dial => {
                    assert_eq!(self.socket, Socket::None, "a dial while a socket exists");
                    self.socket = Socket::Dialing;
                }
                Effect::Hangup { .. } => {
                    assert!(matches!(self.socket, Socket::Greeting | Socket::Open), "{:?}", self.socket);
                    self.socket = Socket::Closing;
                }
                Effect::Send(message) => self.check_sent(message),
                Effect::Start(command) => {
                    let key = command.key;
                    assert!(self.started.insert(key.clone()), "{key} started twice");
                    let other = self.hosted.keys().find(|other| other.id == key.id);
                    assert_eq!(other, None, "{key} started beside another life");
                    self.listed.insert(key.clone(), command.hibernating);
                    self.hosted.insert(key, false);
                }
                Effect::Stop { key, .. } => {
                    let told = self.hosted.get_mut(&key).expect("a stop of a life that is there");
                    assert!(!std::mem::replace(told, true), "{key} told twice to stop");
                }
                Effect::Kill { key } => {
                    *self.hosted.get_mut(&key).expect("a kill of a life that is there") = true;
                }
                Effect::Request { actor, stream, .. } => self.opened(&actor, stream, false),
                Effect::WebSocket { actor, stream, .. } => self.opened(&actor, stream, true),
                Effect::WebSocketRestored { stream, .. } => panic!("{stream} restored, which no life here asks for"),
                Effect::RequestChunk { stream, .. }
                | Effect::Granted { stream }
                | Effect::WebSocketMessage { stream, .. } => {
                    assert_eq!(self.streams[&stream.id.request[0]].key, stream, "a piece for an abandoned opening");
                }
                Effect::WebSocketClosed { stream, .. } | Effect::Cancel { stream } => {
                    let open = self.streams.remove(&stream.id.request[0]).expect("an open stream");
                    assert_eq!(open.key, stream);
                }
                Effect::KvDone { ticket, .. } => assert!(self.waiting_tickets.remove(&ticket), "answered twice"),
                Effect::Connected { lost_after, .. } => assert_eq!(lost_after, LOST_AFTER),
                Effect::Disconnected { .. } => assert_eq!(self.socket, Socket::None),
                Effect::Lost => {}
                Effect::Exit(exit) => {
                    assert!(exit != Exit::Drained || self.hosted.is_empty(), "drained, with {:?}", self.hosted);
                    self.exited = true;
                }
            }
        }
        if self.exited {
            assert_eq!(self.stage.session.poll_timeout(), None);
            assert_eq!(self.stage.session.link_status(), LinkStatus::Closed);
        }
    }

    fn opened(&mut self, actor: &ActorKey, key: StreamKey, socket: bool) {
        assert_eq!(self.hosted.get(actor), Some(&false), "a stream for {actor}, which is not there or stops");
        self.openings.push(key);
        let before = self.streams.insert(key.id.request[0], Open { key, socket, last_in: 0, begun: false });
        assert!(before.is_none(), "the earlier opening was not cancelled");
    }

    fn check_sent(&mut self, message: ToServer) {
        match &message {
            ToServer::Init(_) => {
                assert_eq!(self.socket, Socket::Fresh, "an init that does not come first");
                self.socket = Socket::Greeting;
                return;
            }
            ToServer::Events(_)
            | ToServer::AckCommands(_)
            | ToServer::Stopping
            | ToServer::Pong { .. }
            | ToServer::Kv { .. }
            | ToServer::Tunnel { .. } => assert_eq!(self.socket, Socket::Open, "{message:?}"),
        }
        match &message {
            ToServer::Events(events) => {
                for event in events {
                    let at = &event.checkpoint;
                    let key = ActorKey::new(&*at.actor_id, at.generation);
                    assert!(!self.gateway.has_forgotten(&key), "{key}: an event of another identity");
                    let last = self.last_sent.insert(key.clone(), at.index);
                    assert!(last.is_none_or(|last| last < at.index), "{key}: {last:?}, then {}", at.index);
                }
            }
            ToServer::Kv { request_id, request, actor_id } => {
                let first = self.asked.entry(*request_id).or_insert_with(|| request.clone());
                assert_eq!(first, request, "another request under the same id");
                // Whether an actor was deleted is asked of its storage, also once its life is over.
                let question = *request == KvRequest::Get { keys: Vec::new() };
                let lives = question || self.hosted.keys().any(|key| *key.id == **actor_id);
                assert!(lives, "asked for a life that is over");
            }
            ToServer::Tunnel { id, message } if hibernates(id.stream.request[0]) => {
                self.check_sent_on_lasting(id.stream.request[0], message);
            }
            ToServer::Tunnel { id, message } => {
                let last = match message {
                    ToServerTunnel::ResponseStart { stream, .. } => !stream,
                    ToServerTunnel::ResponseChunk { finish, .. } => *finish,
                    ToServerTunnel::ResponseAbort | ToServerTunnel::WebSocketClose { .. } => true,
                    ToServerTunnel::WebSocketOpen { .. }
                    | ToServerTunnel::WebSocketMessage { .. }
                    | ToServerTunnel::WebSocketMessageAck { .. } => false,
                };
                if last && self.opening != Some(id.stream.request[0]) {
                    self.streams.remove(&id.stream.request[0]);
                }
            }
            ToServer::Init(_) | ToServer::AckCommands(_) | ToServer::Stopping | ToServer::Pong { .. } => {}
        }
        self.gateway.unread.push_back(message);
    }
}
