//! The runners' processes: a session each, the lives it hosts, and the journal that outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use greenroom::actor::{ActorKey, Outcome};
use greenroom::gateway::core::ConnectionId;
use greenroom::protocol::{Checkpoint, KvRequest, ToClient, ToServer, Version};
use greenroom::session::{Effect, Exit, Input, Session, Settings, Turns};
use greenroom::stream::StreamKey;

use super::hosts::{Act, Ask, HostBody, Life};
use super::{Happening, World, note};
use crate::dice::place;
use crate::laws::Law;

/// A runner.
#[derive(Debug)]
pub struct Runner {
    pub key: String,
    /// Rises with every start.
    pub process: u64,
    pub session: Option<Session>,
    pub wire: Option<ConnectionId>,
    pub refused_dials: u32,
    pub lives: BTreeMap<ActorKey, Life>,
    /// Lives that were started, on disk, with when they ended.
    journal: BTreeMap<ActorKey, Option<Instant>>,
    /// Storage requests without an answer.
    pub tickets: BTreeMap<u64, Ticket>,
    next_ticket: u64,
    /// Commands that arrived and were not acknowledged: until when they may be.
    pub unacknowledged: BTreeMap<ActorKey, (i64, Instant)>,
    /// Per life the index of the last event that went out on this connection, and of the last that was acknowledged.
    pub last_sent: BTreeMap<ActorKey, i64>,
    pub last_acknowledged: BTreeMap<ActorKey, i64>,
    /// Every event that went out, for a bug.
    pub sent_events: BTreeSet<(String, u32, i64)>,
    /// By when a drain has ended.
    pub drained_by: Option<Instant>,
    /// Bodies that come in pieces: what has come, and for whom.
    pub uploads: BTreeMap<StreamKey, (ActorKey, String)>,
    /// Messages for actors that wait for a turn.
    pub turns: Turns,
    /// Bodies that travel on credit.
    pub bodies: BTreeMap<StreamKey, HostBody>,
    greeted: bool,
    /// It has closed its connection and reads no more.
    leaving: bool,
}

/// A storage request.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub actor: ActorKey,
    pub ask: Ask,
    since: Instant,
}

impl Runner {
    pub fn new(number: usize) -> Self {
        Runner {
            key: format!("runner-{number}"),
            process: 0,
            session: None,
            wire: None,
            refused_dials: 0,
            lives: BTreeMap::new(),
            journal: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            unacknowledged: BTreeMap::new(),
            last_sent: BTreeMap::new(),
            last_acknowledged: BTreeMap::new(),
            sent_events: BTreeSet::new(),
            drained_by: None,
            uploads: BTreeMap::new(),
            turns: Turns::default(),
            bodies: BTreeMap::new(),
            greeted: false,
            leaving: false,
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.session.as_ref()?.poll_timeout()
    }

    pub fn disconnected(&mut self) {
        self.wire = None;
        (self.greeted, self.leaving) = (false, false);
        self.unacknowledged.clear();
        self.last_sent.clear();
    }
}

impl World {
    pub fn start_runner(&mut self, number: usize) {
        if self.runners[number].session.is_some() {
            return;
        }
        let (init, seed, now) = (self.init(number), self.dice.roll(), self.now.instant);
        let runner = &mut self.runners[number];
        runner.process += 1;
        let lost_lives = runner.journal.keys().cloned().collect();
        // They stay noted for a while, since the next crash may come before the gateway is told.
        runner.journal.values_mut().for_each(|ended| *ended = Some(now));
        runner.session = Some(Session::new(Settings {
            init,
            version: self.conditions.versions[number],
            kv_timeout: self.conditions.kv_timeout,
            lost_lives,
            seed,
        }));
        note!(self, "{} starts", self.runners[number].key);
        self.perform_runner(number);
    }

    pub fn tell_runner(&mut self, number: usize, input: Input) {
        let now = self.now.instant;
        note!(self, "{} < {input:?}", self.runners[number].key);
        let Some(session) = &mut self.runners[number].session else { return };
        session.handle(input, now);
        self.perform_runner(number);
    }

    pub fn runner_timeout(&mut self, number: usize) {
        let now = self.now.instant;
        let Some(session) = &mut self.runners[number].session else { return };
        if session.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        session.handle_timeout(now);
        self.perform_runner(number);
        let next = self.runners[number].poll_timeout();
        self.hold(Law::NobodySpins, next.is_none_or(|next| next > now), || {
            "a timer of a runner was due and nothing came of it".to_owned()
        });
    }

    /// A message of the gateway has arrived.
    pub fn runner_hears(&mut self, number: usize, message: ToClient) {
        let (due, version) = (self.now.instant + ACKNOWLEDGED_WITHIN, self.conditions.versions[number]);
        let runner = &mut self.runners[number];
        match &message {
            ToClient::Commands(commands) if runner.greeted => {
                for command in commands {
                    let at = &command.checkpoint;
                    let waiting = runner.unacknowledged.entry(key_of(at)).or_insert((at.index, due));
                    waiting.0 = waiting.0.max(at.index);
                }
            }
            ToClient::AckEvents(checkpoints) => {
                for at in checkpoints {
                    let named = version != Version::V4;
                    let of_actor = |key: &ActorKey| *key.id == *at.actor_id && !named;
                    let mut lives: BTreeSet<ActorKey> =
                        runner.last_sent.keys().filter(|key| of_actor(key)).cloned().collect();
                    lives.extend(named.then(|| key_of(at)));
                    for key in lives {
                        let last = runner.last_acknowledged.entry(key).or_insert(at.index);
                        *last = at.index.max(*last);
                    }
                }
            }
            ToClient::Init { .. } => runner.greeted = !runner.leaving,
            ToClient::Commands(_) | ToClient::Kv { .. } | ToClient::Tunnel { .. } | ToClient::Ping { .. } => {}
        }
        self.take_turns(number, message);
    }

    fn perform_runner(&mut self, number: usize) {
        let now = self.now.instant;
        while let Some(effect) = self.runners[number].session.as_mut().and_then(|session| session.poll_effect(now)) {
            note!(self, "{} > {effect:?}", self.runners[number].key);
            self.do_for_runner(number, effect);
        }
    }

    fn do_for_runner(&mut self, number: usize, effect: Effect) {
        match effect {
            Effect::Dial => {
                self.hold(Law::OneConnection, self.runners[number].wire.is_none(), || "a dial while connected".into());
                self.dial(number);
            }
            Effect::Hangup { code, .. } => {
                (self.runners[number].greeted, self.runners[number].leaving) = (false, true);
                self.runners[number].unacknowledged.clear();
                if let Some(wire) = self.runners[number].wire {
                    self.close_up(wire, code);
                }
            }
            Effect::Send(message) => self.runner_says(number, message),
            Effect::Start(command) => {
                self.runners[number].journal.insert(command.key.clone(), None);
                self.start_life(number, command);
            }
            Effect::Stop { key, .. } => self.stop_life(number, &key),
            Effect::Kill { key } => self.kill_life(number, &key),
            Effect::Request { actor, stream, path, body, more, credit, .. } => {
                let upload = more.then(|| body.unwrap_or_default());
                self.host_is_asked(number, &actor, stream, &path, upload, credit);
            }
            Effect::RequestChunk { stream, body, finish } => self.host_is_sent(number, stream, &body, finish),
            Effect::WebSocket { actor, stream, path, index, .. } => {
                self.host_is_given_socket(number, &actor, stream, &path, index);
            }
            Effect::WebSocketRestored { actor, stream } => self.host_is_given_back(number, &actor, stream),
            Effect::WebSocketMessage { stream, data, index, .. } => self.host_hears(number, stream, &data, index),
            Effect::WebSocketClosed { stream, .. } => self.host_hears_close(number, stream),
            Effect::Cancel { stream } => self.host_is_cancelled(number, stream),
            Effect::Granted { stream } => self.host_granted(number, stream),
            Effect::Disconnected { .. } | Effect::Lost => {}
            Effect::KvDone { ticket, result } => {
                let known = self.runners[number].tickets.remove(&ticket);
                match known {
                    Some(ticket) => self.host_has_answer(number, ticket, result),
                    None => self.broken(Law::AStorageRequestIsAnswered, format!("{ticket} was answered twice")),
                }
            }
            Effect::Connected { .. } => {}
            Effect::Exit(exit) => self.runner_exits(number, &exit),
        }
    }

    fn runner_says(&mut self, number: usize, message: ToServer) {
        let Some(wire) = self.runners[number].wire else {
            return self.broken(Law::OneConnection, format!("said without a connection: {message:?}"));
        };
        if let ToServer::AckCommands(checkpoints) = &message {
            let dropped = self.sabotaged(number, message.clone()).is_none();
            if dropped {
                return;
            }
            for at in checkpoints {
                let waiting = self.runners[number].unacknowledged.get(&key_of(at)).copied();
                if waiting.is_some_and(|(index, _)| index <= at.index) {
                    self.runners[number].unacknowledged.remove(&key_of(at));
                }
            }
            return self.send_up(wire, message);
        }
        let Some(message) = self.sabotaged(number, message) else { return };
        self.check_sent(number, &message);
        self.send_up(wire, message);
    }

    /// Asks the storage of an actor.
    pub fn ask_storage(&mut self, number: usize, actor: &ActorKey, ask: Ask, request: KvRequest) {
        let runner = &mut self.runners[number];
        let ticket = runner.next_ticket;
        runner.next_ticket += 1;
        runner.tickets.insert(ticket, Ticket { actor: actor.clone(), ask, since: self.now.instant });
        self.tell_runner(number, Input::Kv { actor: actor.clone(), ticket, request });
    }

    /// A life is over, and its host says so.
    pub fn life_is_over(&mut self, number: usize, key: &ActorKey, outcome: Outcome) {
        let now = self.now.instant;
        let runner = &mut self.runners[number];
        if runner.lives.remove(key).is_none() {
            return;
        }
        runner.journal.insert(key.clone(), Some(now));
        let session = runner.session.as_ref();
        runner.journal.retain(|key, ended| {
            ended.is_none_or(|since| now.duration_since(since) <= NOTED_FOR)
                || session.is_some_and(|session| session.remembers(key))
        });
        self.ledger.life_over(key, &outcome);
        self.tell_runner(number, Input::Ended(key.clone(), outcome));
    }

    pub fn kill_runner(&mut self, number: usize) {
        if self.runners[number].session.take().is_none() {
            return;
        }
        note!(self, "{} is killed", self.runners[number].key);
        self.tally.crashes += 1;
        self.runner_is_gone(number);
    }

    /// The process is gone, and with it the data directory that held its key and its journal.
    pub fn lose_runner(&mut self, number: usize) {
        self.kill_runner(number);
        let runner = &mut self.runners[number];
        runner.journal.clear();
        if runner.session.is_none() {
            runner.key = format!("runner-{number}-{}", runner.process);
        }
    }

    pub fn drain(&mut self, number: usize, within: Duration) {
        if self.runners[number].session.is_some() && self.runners[number].drained_by.is_none() {
            self.runners[number].drained_by = Some(self.now.instant + within + DRAINED_AFTER);
            self.tell_runner(number, Input::Drain { within });
        }
    }

    fn runner_exits(&mut self, number: usize, exit: &Exit) {
        if let Exit::Refused(reason) = exit {
            self.hold(Law::ARefusalHasAReason, reason.len() > 10, || "refused without a reason".into());
        }
        let idle = self.runners[number].lives.is_empty();
        self.hold(Law::ADrainEnds, *exit != Exit::Drained || idle, || "drained, with lives that go on".into());
        let runner = &mut self.runners[number];
        if *exit == Exit::Drained {
            runner.journal.retain(|_, ended| ended.is_none());
        }
        // Who asked after the session had come to its end is answered behind it.
        let now = self.now.instant;
        while let Some(Effect::KvDone { ticket, .. }) =
            runner.session.as_mut().and_then(|session| session.poll_effect(now))
        {
            runner.tickets.remove(&ticket);
        }
        let unanswered = runner.tickets.len();
        self.hold(Law::AStorageRequestIsAnswered, unanswered == 0, || format!("{unanswered} without an answer"));
        self.runners[number].session = None;
        self.runners[number].turns = Turns::default();
        self.runner_is_gone(number);
    }

    /// The process is no more, and with it all that it hosted. Somebody starts it again.
    fn runner_is_gone(&mut self, number: usize) {
        let wire = self.runners[number].wire;
        if let Some(wire) = wire {
            self.lose_runner_end(wire);
        }
        let runner = &mut self.runners[number];
        runner.disconnected();
        runner.drained_by = None;
        runner.tickets.clear();
        runner.uploads.clear();
        runner.bodies.clear();
        runner.last_acknowledged.clear();
        runner.sent_events.clear();
        for key in std::mem::take(&mut runner.lives).into_keys() {
            self.ledger.life_over(&key, &Outcome::Failed("the process is gone".to_owned()));
        }
        let away = if self.calm { Duration::from_millis(100) } else { self.dice.millis(50, 20_000) };
        self.later(away, Happening::RunnerUp { runner: number });
    }

    pub fn owner_stops(&mut self, pick: u64, kill: bool) {
        if let Some((number, key)) = self.any_life(pick) {
            let input = if kill {
                Input::Kill(key)
            } else {
                self.ledger.history(&key).told_by_owner = true;
                Input::Stop(key, Outcome::Wanted)
            };
            self.tell_runner(number, input);
        }
    }

    /// One of all lives that go on, and where it is.
    pub fn any_life(&self, pick: u64) -> Option<(usize, ActorKey)> {
        let lives: Vec<(usize, &ActorKey)> = (0..)
            .zip(&self.runners)
            .flat_map(|(number, runner)| runner.lives.keys().map(move |key| (number, key)))
            .collect();
        if lives.is_empty() {
            return None;
        }
        let (number, key) = lives[place(pick, lives.len())];
        Some((number, key.clone()))
    }

    /// What is late on the runners' side.
    pub fn check_runners(&mut self) {
        let now = self.now.instant;
        for number in 0..self.runners.len() {
            let runner = &self.runners[number];
            if runner.session.is_none() {
                continue;
            }
            let late = runner.unacknowledged.iter().find(|(_, (_, due))| *due < now);
            if let Some((key, (index, _))) = late {
                let what = format!("{key}, command {index}");
                return self.broken(Law::ACommandIsAcknowledgedSoon, what);
            }
            let patience = self.conditions.kv_timeout + Duration::from_secs(1);
            let late = runner.tickets.iter().find(|(_, ticket)| now.duration_since(ticket.since) > patience);
            if let Some((ticket, Ticket { actor, ask, .. })) = late {
                let what = format!("{ticket} of {actor}: {ask:?}");
                return self.broken(Law::AStorageRequestIsAnswered, what);
            }
            if runner.drained_by.is_some_and(|by| by < now) {
                let what = format!("{} does not come to an end", runner.key);
                return self.broken(Law::ADrainEnds, what);
            }
        }
    }

    pub fn host_later(&mut self, runner: usize, after: Duration, act: Act) {
        let process = self.runners[runner].process;
        self.later(after, Happening::Host { runner, process, act });
    }
}

pub fn key_of(at: &Checkpoint) -> ActorKey {
    ActorKey::new(&*at.actor_id, at.generation)
}

/// Long enough for a batch of acknowledgements.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// How long the journal keeps lives that ended.
const NOTED_FOR: Duration = Duration::from_secs(60);
/// What a drain may take beyond its time: for killing, for the last acknowledgements, for the close.
const DRAINED_AFTER: Duration = Duration::from_secs(8);
