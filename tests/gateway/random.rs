//! Random schedules: runners that behave but break off, clients that come and go, a gateway that is killed. After each
//! the world comes to rest, and nothing may be left over.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::gateway::core::{CallId, CallRequest, Features, Input, StreamRef};
use greenroom::gateway::{CreateActor, StreamUp, TunnelEvent};
use greenroom::protocol::{
    Checkpoint, Command, Event, EventWrapper, MessageId, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel,
    Version, serial,
};
use greenroom::store::{CrashPolicy, Phase, Query, Store};

use crate::world::{OK, Peer, SECOND, World, actor, failed, get, init, response, socket};

#[test]
fn every_schedule_comes_to_rest_with_nothing_left_over() {
    for seed in 0..150 {
        let mut play = Play::new(seed);
        for _ in 0..120 {
            play.step();
        }
        play.rest();
        play.check();
    }
}

#[test]
fn sockets_that_outlive_their_actors_lose_nothing_in_any_schedule() {
    let mut taken = 0;
    for seed in 0..100 {
        let mut play = Play::new(seed);
        play.chatty = true;
        for _ in 0..150 {
            play.step();
        }
        play.rest();
        play.check();
        taken += play.taken;
    }
    assert!(taken > 1_000, "actors took only {taken} messages");
}

/// A world and what stands around it.
struct Play {
    world: World,
    chance: u64,
    seed: u64,
    runners: Vec<Runner>,
    actors: Vec<String>,
    calls: BTreeSet<CallId>,
    streams: BTreeSet<StreamRef>,
    /// Of these, sockets that outlive their actors, with how much their clients said.
    lasting: BTreeMap<StreamRef, u64>,
    /// What actors have noted of such sockets, which outlives their lives.
    noted: BTreeMap<StreamId, Noted>,
    /// Sockets of which actors have heard the end.
    parted: BTreeSet<StreamId>,
    /// How many messages were taken of all of them.
    taken: u64,
    /// Clients open sockets that last, and say a lot; nobody ends an actor.
    chatty: bool,
    /// Everything that is taken is acknowledged.
    diligent: bool,
}

/// What an actor notes of a socket.
#[derive(Clone, Debug)]
struct Noted {
    actor: String,
    /// The last index taken.
    last: u16,
    /// How many messages were taken.
    taken: u64,
    /// The last index that the gateway was told of.
    acknowledged: u16,
    /// The same when each runner last looked at what it was sent: what has come since must be newer.
    seen: [u16; 2],
}

/// A runner that keeps the protocol.
#[derive(Default)]
struct Runner {
    key: String,
    peer: Option<Peer>,
    id: String,
    lives: BTreeMap<(String, u32), Life>,
    requests: Vec<MessageId>,
}

/// One actor life on a runner.
#[derive(Debug, Default)]
struct Life {
    serves: bool,
    over: bool,
    next: i64,
    kept: Vec<(i64, Event)>,
}

impl Life {
    fn say(&mut self, event: Event) {
        if !self.over {
            self.over = matches!(event, Event::StoppedOk { .. } | Event::StoppedError { .. });
            self.serves = event == Event::Running || self.serves && !self.over;
            self.kept.push((self.next, event));
            self.next += 1;
        }
    }
}

impl Play {
    fn new(seed: u64) -> Self {
        let keys = ["a", "b"];
        let runners = keys.map(|key| Runner { key: key.to_owned(), ..Runner::default() });
        let mut play = Play {
            world: World::new(),
            chance: seed,
            seed,
            runners: runners.into(),
            actors: Vec::new(),
            calls: BTreeSet::new(),
            streams: BTreeSet::new(),
            lasting: BTreeMap::new(),
            noted: BTreeMap::new(),
            parted: BTreeSet::new(),
            taken: 0,
            chatty: false,
            diligent: false,
        };
        play.connect(0);
        play
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<T: Clone>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.into_iter().collect();
        if all.is_empty() {
            return None;
        }
        let place = usize::try_from(self.below(all.len() as u64)).expect("an index");
        Some(all[place].clone())
    }

    fn step(&mut self) {
        let which = usize::try_from(self.below(2)).expect("an index");
        let step = match self.below(100) {
            // A client speaks where otherwise it left or an actor's end was wanted.
            22..33 if self.chatty => 25,
            step => step,
        };
        match step {
            0..8 => self.create(),
            8..20 => self.open(),
            20..25 => {
                if let Some(stream) = self.pick(self.streams.clone()) {
                    self.world.tell(Input::ClientGone { stream });
                    self.streams.remove(&stream);
                }
            }
            25..30 => {
                for stream in self.lasting.keys().copied().collect::<Vec<_>>() {
                    self.say_something(stream);
                }
            }
            30..33 => self.destroy(),
            33..45 => self.connect(which),
            45..50 => self.disconnect(which),
            50..52 => {
                if let Some(peer) = self.runners[which].peer.clone() {
                    self.world.say(&peer, ToServer::Stopping);
                }
            }
            52..80 => {
                self.take(which);
                self.live_a_bit(which);
                self.speak(which);
            }
            80..82 => self.kill(),
            82..85 => {
                self.world.slow_disk = true;
            }
            85..90 => self.world.disk_done(),
            90..99 => {
                let millis = self.below(3_000);
                self.pass(std::time::Duration::from_millis(millis));
            }
            _ => self.pass(20 * SECOND),
        }
        self.collect();
    }

    fn create(&mut self) {
        let policies = [CrashPolicy::Restart, CrashPolicy::Sleep, CrashPolicy::Destroy];
        let policy = self.pick(policies.into_iter().take(if self.chatty { 2 } else { 3 })).expect("some");
        let key = self.pick([None, Some("x"), Some("y")]).expect("three").map(Into::into);
        let actor = CreateActor { crash_policy: policy, key: key.clone(), ..actor() };
        let request = if key.is_some() { CallRequest::GetOrCreate(actor) } else { CallRequest::Create(actor) };
        let call = self.world.call(request);
        self.calls.insert(call);
    }

    fn open(&mut self) {
        if let Some(actor) = self.pick(self.actors.clone()) {
            let head = if !self.chatty && self.below(2) == 0 { get() } else { socket() };
            let stream = self.world.open_with(&actor, head);
            self.streams.insert(stream);
        }
    }

    /// A client's message says how many it sent before.
    fn say_something(&mut self, stream: StreamRef) {
        let said = self.lasting.entry(stream).or_default();
        let data = said.to_string().into();
        *said += 1;
        self.world.up(stream, StreamUp::Message { data, binary: false });
    }

    /// A runner hears something on a socket.
    fn hear(&mut self, which: usize, peer: &Peer, id: MessageId, seen: u16, message: ToClientTunnel) {
        match message {
            ToClientTunnel::WebSocketOpen { actor_id, .. } => {
                let can_hibernate = self.chatty || self.below(3) > 0;
                if can_hibernate {
                    let noted = Noted {
                        actor: actor_id.to_string(),
                        last: id.index,
                        taken: 0,
                        acknowledged: id.index,
                        seen: [id.index; 2],
                    };
                    self.noted.insert(id.stream, noted);
                }
                self.world.say(peer, ToServer::Tunnel { id, message: ToServerTunnel::WebSocketOpen { can_hibernate } });
            }
            ToClientTunnel::WebSocketMessage { data, .. } => {
                let Some(noted) = self.noted.get_mut(&id.stream) else { return };
                let serves = |(key, life): (&(String, u32), &Life)| key.0 == noted.actor && life.serves && !life.over;
                if !self.runners[which].lives.iter().any(serves) {
                    return;
                }
                let seed = self.seed;
                assert!(serial::newer(id.index, seen), "{id:?} again, seed {seed}");
                if serial::newer(id.index, noted.last) {
                    assert_eq!(id.index, serial::next(noted.last), "a gap, seed {seed}");
                    assert_eq!(data, noted.taken.to_string(), "seed {seed}");
                    noted.last = id.index;
                    noted.taken += 1;
                    self.taken += 1;
                }
                if self.diligent || self.below(3) > 0 {
                    self.acknowledge(peer, id.stream);
                }
            }
            ToClientTunnel::WebSocketClose { .. } => {
                if self.noted.remove(&id.stream).is_some() {
                    self.parted.insert(id.stream);
                }
            }
            ToClientTunnel::RequestStart { .. } => self.runners[which].requests.push(id),
            ToClientTunnel::RequestChunk { .. } | ToClientTunnel::RequestAbort => {}
        }
    }

    fn acknowledge(&mut self, peer: &Peer, stream: StreamId) {
        let Some(noted) = self.noted.get_mut(&stream) else { return };
        noted.acknowledged = noted.last;
        let message = ToServerTunnel::WebSocketMessageAck { index: noted.last };
        self.world.say(peer, ToServer::Tunnel { id: MessageId { stream, index: 0 }, message });
    }

    /// An actor begins to live and is told which of its sockets are still open.
    fn restore(&mut self, peer: &Peer, actor: &str, sockets: &[StreamId]) {
        let seed = self.seed;
        for socket in sockets {
            match self.noted.get(socket) {
                Some(noted) => assert_eq!(noted.actor, actor, "seed {seed}"),
                None => {
                    // Its end was heard by a life that crashed before anybody could know.
                    assert!(self.parted.contains(socket), "{socket} is no socket of {actor}, seed {seed}");
                    let message = ToServerTunnel::WebSocketClose { code: Some(1000), reason: None, hibernate: false };
                    self.world.say(peer, ToServer::Tunnel { id: MessageId { stream: *socket, index: 0 }, message });
                }
            }
        }
        self.noted.retain(|socket, noted| noted.actor != actor || sockets.contains(socket));
    }

    fn destroy(&mut self) {
        if let Some(actor) = self.pick(self.actors.clone()) {
            let request = CallRequest::Destroy { namespace: "default".into(), actor_id: actor.into() };
            let call = self.world.call(request);
            self.calls.insert(call);
        }
    }

    fn connect(&mut self, which: usize) {
        self.world.disk_done();
        let key = self.runners[which].key.clone();
        let peer = self.world.connect_as(&key, init(3), Features::default(), Version::V7);
        let runner = &mut self.runners[which];
        if runner.id != peer.runner_id {
            // Somebody new: what it had is not its any more.
            runner.lives.clear();
            runner.requests.clear();
            runner.id.clone_from(&peer.runner_id);
        }
        runner.peer = Some(peer);
        self.take(which);
        // Everything that was not acknowledged, again and in order.
        self.speak(which);
    }

    fn disconnect(&mut self, which: usize) {
        if let Some(peer) = self.runners[which].peer.take() {
            self.world.disconnect(&peer);
        }
    }

    /// The gateway is killed: what was only in its memory is gone, and so are its clients.
    fn kill(&mut self) {
        let world = std::mem::replace(&mut self.world, World::new());
        self.world = world.restart();
        self.streams.clear();
        self.lasting.clear();
        self.calls.clear();
        for runner in &mut self.runners {
            runner.peer = None;
            runner.requests.clear();
        }
    }

    /// Takes what a runner was sent.
    fn take(&mut self, which: usize) {
        let Some(peer) = self.runners[which].peer.clone() else { return };
        let runner = &mut self.runners[which];
        if self.world.closed.contains_key(&peer.connection) {
            runner.peer = None;
            return;
        }
        let mut before = BTreeMap::new();
        for (socket, noted) in &mut self.noted {
            before.insert(*socket, noted.seen[which]);
            noted.seen[which] = noted.acknowledged;
        }
        let (mut acknowledge, mut started, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        for message in self.world.take_sent(peer.connection) {
            match message {
                ToClient::Commands(commands) => {
                    for command in commands {
                        let life = (command.checkpoint.actor_id.to_string(), command.checkpoint.generation);
                        match command.command {
                            Command::Start { hibernating, .. } => {
                                // A repeated start changes nothing.
                                if !runner.lives.contains_key(&life) {
                                    started.push((life.0.clone(), hibernating));
                                }
                                let (actor, generation) = &life;
                                for ((other, older), life) in &mut runner.lives {
                                    if other == actor && older < generation {
                                        life.say(failed("replaced"));
                                    }
                                }
                                runner.lives.entry(life).or_default();
                            }
                            Command::Stop => runner.lives.entry(life).or_default().say(OK),
                        }
                        acknowledge.push(command.checkpoint);
                    }
                }
                ToClient::AckEvents(checkpoints) => {
                    for Checkpoint { actor_id, generation, index } in checkpoints {
                        if let Some(life) = runner.lives.get_mut(&(actor_id.to_string(), generation)) {
                            life.kept.retain(|(kept, _)| *kept > index);
                        }
                    }
                }
                ToClient::Tunnel { id, message } => heard.push((id, message)),
                ToClient::Ping { ts } => self.world.say(&peer, ToServer::Pong { ts }),
                ToClient::Init { .. } | ToClient::Kv { .. } => {}
            }
        }
        for (actor, sockets) in started {
            self.restore(&peer, &actor, &sockets);
        }
        for (id, message) in heard {
            let seen = before.get(&id.stream).copied().unwrap_or(0);
            self.hear(which, &peer, id, seen, message);
        }
        if !acknowledge.is_empty() && self.below(2) == 0 {
            self.world.say(&peer, ToServer::AckCommands(acknowledge));
        }
        let runner = &self.runners[which];
        let mut serving: BTreeMap<&str, u32> = BTreeMap::new();
        for ((actor, _), life) in &runner.lives {
            *serving.entry(actor).or_default() += u32::from(!life.over);
        }
        assert!(serving.values().all(|lives| *lives <= 1), "two lives of an actor at once, seed {}", self.seed);
    }

    /// Lets actors do things.
    fn live_a_bit(&mut self, which: usize) {
        let lives: Vec<_> = self.runners[which].lives.keys().cloned().collect();
        for key in lives {
            let event = match self.below(12) {
                0..5 => Event::Running,
                5 => Event::SleepIntent,
                6 if self.chatty => continue,
                6 => Event::StopIntent,
                7 => failed("crash"),
                8 => Event::SetAlarm { at: Some(self.world.now.wall_ms + 10_000) },
                _ => continue,
            };
            if let Some(life) = self.runners[which].lives.get_mut(&key) {
                if life.serves && event == Event::Running {
                    continue;
                }
                life.say(event);
            }
        }
        let requests = std::mem::take(&mut self.runners[which].requests);
        for id in requests {
            match (self.below(3), self.runners[which].peer.clone()) {
                (0, Some(peer)) => self.world.say(&peer, ToServer::Tunnel { id, message: response() }),
                (1, Some(peer)) => {
                    self.world.say(&peer, ToServer::Tunnel { id, message: ToServerTunnel::ResponseAbort });
                }
                _ => self.runners[which].requests.push(id),
            }
        }
    }

    /// Sends every event that is kept.
    fn speak(&mut self, which: usize) {
        let Some(peer) = self.runners[which].peer.clone() else { return };
        for ((actor, generation), life) in &self.runners[which].lives {
            let events = life.kept.iter().map(|(index, event)| EventWrapper {
                checkpoint: Checkpoint { actor_id: (**actor).into(), generation: *generation, index: *index },
                event: event.clone(),
            });
            let events: Vec<_> = events.collect();
            if !events.is_empty() {
                self.world.say(&peer, ToServer::Events(events));
            }
        }
        self.take(which);
    }

    fn pass(&mut self, time: std::time::Duration) {
        self.world.disk_done();
        let end = self.world.now.after(time);
        while self.world.now.instant < end.instant {
            let step = SECOND.min(end.instant - self.world.now.instant);
            self.world.pass(step);
            self.take(0);
            self.take(1);
        }
    }

    /// Notes what calls and streams have come to.
    fn collect(&mut self) {
        for (call, answer) in std::mem::take(&mut self.world.answers) {
            self.calls.remove(&call);
            if let Ok(greenroom::gateway::core::Answer::Actor { record, .. }) = answer
                && !self.actors.contains(&record.id.to_string())
            {
                self.actors.push(record.id.to_string());
            }
        }
        for (stream, events) in &self.world.delivered {
            if events.first() == Some(&TunnelEvent::Open { can_hibernate: true }) && self.streams.contains(stream) {
                self.lasting.entry(*stream).or_default();
            }
        }
        for stream in std::mem::take(&mut self.world.refused).into_keys() {
            self.streams.remove(&stream);
        }
        let ended = self.world.delivered.iter().filter(|(_, events)| events.last().is_some_and(TunnelEvent::is_last));
        for stream in ended.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.streams.remove(&stream);
        }
        self.lasting.retain(|stream, _| self.streams.contains(stream));
    }

    /// Both runners come and do what they are told, for longer than anything waits.
    fn rest(&mut self) {
        self.diligent = true;
        self.world.disk_done();
        self.pass(20 * SECOND);
        for which in [0, 1] {
            self.connect(which);
        }
        for round in 0..50 {
            if round == 10 {
                for stream in self.lasting.keys().copied().collect::<Vec<_>>() {
                    self.say_something(stream);
                }
            }
            for which in [0, 1] {
                self.take(which);
                for life in self.runners[which].lives.values_mut() {
                    if !life.serves && round > 1 {
                        life.say(Event::Running);
                    }
                }
                self.speak(which);
                if self.runners[which].peer.is_none() {
                    self.connect(which);
                }
                self.acknowledge_everything(which);
            }
            self.pass(20 * SECOND);
        }
        self.collect();
    }

    fn acknowledge_everything(&mut self, which: usize) {
        let Some(peer) = self.runners[which].peer.clone() else { return };
        let runner = &self.runners[which];
        let serving = runner.lives.iter().filter(|(_, life)| life.serves && !life.over).map(|((actor, _), _)| actor);
        let serving: BTreeSet<_> = serving.collect();
        let sockets = self.noted.iter().filter(|(_, noted)| serving.contains(&noted.actor));
        for socket in sockets.map(|(socket, _)| *socket).collect::<Vec<_>>() {
            self.acknowledge(&peer, socket);
        }
    }

    fn check(&mut self) {
        let seed = self.seed;
        assert_eq!(self.calls, BTreeSet::new(), "calls without an answer, seed {seed}");
        assert_eq!(self.world.core.health().waiting_streams, 0, "seed {seed}");
        let mut running = 0;
        for actor in self.actors.clone() {
            let Ok(greenroom::store::Found::Actor(Some(record))) =
                self.world.store.read(&Query::Actor(actor.as_str().into()))
            else {
                panic!("{actor} is not on disk, seed {seed}")
            };
            match record.phase {
                Phase::Running => {
                    running += 1;
                    let runner_id = record.runner_id.clone().expect("placed");
                    let runner = self.runners.iter().find(|runner| *runner.id == *runner_id).expect("known");
                    let life = runner.lives.get(&(actor.clone(), record.generation));
                    let fine = life.is_some_and(|life| life.serves && life.kept.is_empty());
                    assert!(fine, "{actor} is {record:?} at its runner {life:?}, seed {seed}");
                }
                Phase::Sleeping | Phase::Destroyed => assert_eq!(record.runner_id, None, "seed {seed}"),
                Phase::Pending => assert_ne!(record.crash_policy, CrashPolicy::Sleep, "seed {seed}"),
                phase => panic!("{actor} is {phase:?} for ever, seed {seed}"),
            }
        }
        let used: u32 = self.world.core.live_runners().values().map(|live| 3 - live.remaining_slots).sum();
        assert_eq!(used, running, "slots without an actor, seed {seed}");
        let open = self.world.core.health().streams;
        assert!(open <= self.streams.len(), "streams without a client: {open} of {:?}, seed {seed}", self.streams);
        let health = self.world.core.health();
        assert_eq!((health.lasting_sockets, health.kept_bytes), (self.lasting.len(), 0), "seed {seed}");
        for (stream, said) in &self.lasting {
            let noted = &self.noted[&self.world.wire(*stream)];
            assert_eq!(noted.taken, *said, "{stream:?} {noted:?}, seed {seed}");
        }
    }
}
