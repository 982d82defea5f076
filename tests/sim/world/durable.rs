//! The reference: what happened to every life, what was acknowledged to whom, and the laws that compare it with what is
//! said on the wire and with what is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use greenroom::actor::{ActorKey, Outcome};
use greenroom::gateway::core::{ConnectionId, StreamRef};
use greenroom::protocol::{Command, Event, StreamId, ToClient, ToServer, ToServerTunnel, serial};
use greenroom::store::{ActorRecord, Found, Phase, Query, Store};

use super::World;
use super::alarms::Alarms;
use super::runners::key_of;
use crate::engine::Actor;
use crate::laws::Law;

/// What really happened.
#[derive(Debug, Default)]
pub struct Ledger {
    lives: BTreeMap<ActorKey, History>,
    pub writes: BTreeMap<Arc<str>, Writes>,
    /// Commands that went out.
    commands: BTreeSet<(ActorKey, i64)>,
    /// The same, for a bug.
    pub told_commands: BTreeSet<(String, u32, i64)>,
    /// Which life each request was given to.
    pub given: BTreeMap<u32, Vec<ActorKey>>,
    /// Sockets that their actors have closed, whether the client has heard so or not.
    pub closed_by_actor: BTreeSet<StreamId>,
    pub alarms: Alarms,
    /// Everything was acknowledged, so that nothing is to be told again.
    pub nothing_owed: bool,
}

/// What happened to a life.
#[derive(Debug, Default)]
pub struct History {
    pub started: bool,
    pub serves: bool,
    pub wants_sleep: bool,
    pub wants_end: bool,
    pub told_by_owner: bool,
    pub alarms: BTreeSet<Option<i64>>,
    over: bool,
}

/// What an actor wrote under one key: ever higher numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writes {
    pub issued: u64,
    pub acknowledged: u64,
}

impl Ledger {
    pub fn history(&mut self, key: &ActorKey) -> &mut History {
        self.lives.entry(key.clone()).or_default()
    }

    pub fn life_over(&mut self, key: &ActorKey, outcome: &Outcome) {
        let history = self.history(key);
        history.over = true;
        // An actor that ends itself without an error has nothing to do and sleeps.
        history.wants_sleep |= *outcome == Outcome::Wanted;
    }
}

impl World {
    /// An actor as it stands on disk.
    pub fn record(&mut self, actor_id: &str) -> Option<ActorRecord> {
        match self.gateway.store.read(&Query::Actor(actor_id.into())) {
            Ok(Found::Actor(record)) => record.map(|record| *record),
            other => panic!("{other:?}"),
        }
    }

    /// Whether an actor is gone for good, with its storage.
    pub fn is_destroyed(&mut self, actor_id: &Arc<str>) -> bool {
        match self.gateway.engine() {
            Some(engine) => engine.actors.get(actor_id).is_none_or(Actor::is_gone),
            None => self.record(actor_id).is_none_or(|record| record.phase == Phase::Destroyed),
        }
    }

    /// A stream as messages carry it.
    pub fn wire_id(&self, stream: StreamRef) -> StreamId {
        StreamId { gateway: self.gateway.gateway_id, request: stream.0.to_be_bytes() }
    }

    pub fn stored(&mut self, actor_id: &Arc<str>, key: &[u8]) -> Option<Bytes> {
        let query = Query::KvValue { actor_id: actor_id.clone(), key: Bytes::copy_from_slice(key) };
        match self.gateway.store.read(&query) {
            Ok(Found::KvValue(value)) => value.map(|(value, _)| value),
            other => panic!("{other:?}"),
        }
    }

    /// How far a socket was taken, as index and number.
    pub fn row(&mut self, actor_id: &Arc<str>, socket: StreamId) -> Option<(u16, u32)> {
        self.stored(actor_id, &row_key(socket)).map(|value| read_row(&value))
    }

    /// What a runner says, when it goes out.
    pub fn check_sent(&mut self, number: usize, message: &ToServer) {
        match message {
            ToServer::Events(events) => {
                for event in events {
                    let (key, index) = (key_of(&event.checkpoint), event.checkpoint.index);
                    let runner = &mut self.runners[number];
                    let affirmed = event.event == Event::Running && !runner.last_sent.contains_key(&key);
                    let acknowledged = runner.last_acknowledged.get(&key).copied().unwrap_or(-1);
                    if affirmed && index <= acknowledged {
                        // Said once more, and out of the order of the others.
                        continue;
                    }
                    let fits = match runner.last_sent.insert(key.clone(), index) {
                        Some(last) => index == last + 1,
                        None => index <= acknowledged + 1,
                    };
                    // A life whose history is not known begins far beyond all others.
                    self.hold(Law::NoEventIsSkipped, fits || index >= UNKNOWN_HISTORY, || {
                        format!("{key}: event {index} after {acknowledged}")
                    });
                }
            }
            ToServer::Tunnel { id, message: ToServerTunnel::WebSocketMessageAck { index } } => {
                let Some(actor) = self.clients.actor_of_lasting(self.gateway.gateway_id, id.stream) else { return };
                if let Some((taken, _)) = self.row(&actor, id.stream) {
                    self.hold(Law::NothingIsAcknowledgedBeforeItIsTaken, !serial::newer(*index, taken), || {
                        format!("{}: {index} acknowledged and only {taken} taken", id.stream)
                    });
                }
            }
            ToServer::Init(_)
            | ToServer::AckCommands(_)
            | ToServer::Stopping
            | ToServer::Pong { .. }
            | ToServer::Kv { .. }
            | ToServer::Tunnel { .. } => {}
        }
    }

    /// What a runner said, when it arrives.
    pub fn check_said(&mut self, number: usize, message: &ToServer) {
        let ToServer::Events(events) = message else { return };
        for event in events {
            let key = key_of(&event.checkpoint);
            let history = self.ledger.history(&key);
            let true_ = match &event.event {
                Event::Running => history.serves,
                Event::SleepIntent => history.wants_sleep,
                Event::StopIntent => history.wants_end,
                Event::StoppedOk { .. } => history.over || !history.started,
                Event::StoppedError { message } => {
                    let reason = message.as_ref().is_some_and(|message| !message.is_empty());
                    let over = history.over || !history.started;
                    self.hold(Law::ARefusalHasAReason, reason, || format!("{key} failed without a reason"));
                    over
                }
                Event::SetAlarm { at } => history.alarms.contains(at),
            };
            let name = &self.runners[number].key;
            let what = format!("{name} says of {key}: {:?}", event.event);
            self.hold(Law::EventsSayWhatHappened, true_, || what);
        }
    }

    /// What the gateway tells a runner, when it goes out.
    pub fn check_told(&mut self, connection: ConnectionId, message: &ToClient) {
        if self.conditions.engine {
            return;
        }
        match message {
            ToClient::Commands(commands) => {
                for command in commands {
                    let key = key_of(&command.checkpoint);
                    // An alarm may ring at any time.
                    let again = !self.ledger.commands.insert((key.clone(), command.checkpoint.index));
                    let repeated = again && self.ledger.nothing_owed;
                    self.hold(Law::AnAcknowledgedCommandIsNotRepeated, !repeated, || format!("{command:?}"));
                    let known = self.record(&key.id).map(|record| record.generation);
                    let durable = match &command.command {
                        Command::Start { .. } => known.is_some_and(|known| known >= key.generation),
                        Command::Stop => known.is_none_or(|known| known >= key.generation),
                    };
                    self.hold(Law::NothingIsToldBeforeItIsDurable, durable, || {
                        format!("a command for {key}, and on disk is {known:?}")
                    });
                }
            }
            ToClient::AckEvents(checkpoints) => {
                for at in checkpoints {
                    let Some(record) = self.record(&at.actor_id) else { continue };
                    let owed = record.generation == at.generation
                        && record.runner_id.as_deref() == self.gateway.identities.get(&connection).map(String::as_str);
                    let durable = !owed || record.last_event.is_some_and(|last| last >= at.index);
                    self.hold(
                        Law::NothingIsToldBeforeItIsDurable,
                        durable && record.generation >= at.generation,
                        || format!("event {} of {} acknowledged, on disk is {record:?}", at.index, key_of(at)),
                    );
                }
            }
            ToClient::Init { runner_id, .. } => {
                self.gateway.identities.insert(connection, runner_id.to_string());
                let runners = self.gateway.store.read(&Query::Runners);
                let known = matches!(&runners, Ok(Found::Runners(all)) if all.iter().any(|one| *one.id == **runner_id));
                self.hold(Law::NothingIsToldBeforeItIsDurable, known, || format!("{runner_id} is not on disk"));
            }
            ToClient::Kv { .. } | ToClient::Tunnel { .. } | ToClient::Ping { .. } => {}
        }
    }

    /// A write was acknowledged to an actor.
    pub fn check_write(&mut self, actor_id: &Arc<str>) {
        let acknowledged = self.ledger.writes.get(actor_id).map_or(0, |writes| writes.acknowledged);
        if acknowledged == 0 || self.is_destroyed(actor_id) {
            return;
        }
        let stored = self.stored(actor_id, WRITTEN).map(|value| read_number(&value));
        self.hold(Law::AnAcknowledgedWriteStays, stored.is_some_and(|stored| stored >= acknowledged), || {
            format!("{actor_id}: {acknowledged} was acknowledged and {stored:?} is on disk")
        });
    }

    /// After a crash, all that was acknowledged is on disk.
    pub fn check_everything_durable(&mut self) {
        for actor in self.ledger.writes.keys().cloned().collect::<Vec<_>>() {
            self.check_write(&actor);
        }
    }

    /// Whether a life is what its actor has, as it stands on disk.
    fn is_of_actor(&mut self, key: &ActorKey) -> bool {
        let record = self.record(&key.id);
        record.is_some_and(|record| record.generation == key.generation && record.phase != Phase::Destroyed)
    }

    /// What can be looked at after every step.
    pub fn check_books(&mut self) {
        self.check_runners();
        let Some(core) = self.gateway.core() else { return };
        let (health, limits) = (core.health(), &self.conditions.limits);
        let bounded = health.waiting_streams <= limits.waiting
            && health.streams <= limits.streams
            && health.kept_bytes <= limits.kept_bytes;
        let slots = core.live_runners().values().all(|live| live.remaining_slots <= self.conditions.slots);
        self.hold(Law::EverythingIsBounded, bounded && slots, || format!("{health:?}"));
        let slots = usize::try_from(self.conditions.slots).expect("few");
        for number in 0..self.runners.len() {
            let runner = &self.runners[number];
            let Some(session) = &runner.session else { continue };
            let hosted: Vec<ActorKey> =
                runner.lives.iter().filter(|(_, life)| !life.told_stop).map(|(key, _)| key.clone()).collect();
            let (live, runner) = (session.live_actors(), runner.key.clone());
            // A gateway that was started again has yet to hear of lives that are no actor's any more.
            let owned = hosted.iter().filter(|key| self.is_of_actor(key)).count();
            if owned > slots || live < hosted.len() {
                return self.broken(Law::EverythingIsBounded, format!("{runner} hosts {hosted:?} in {slots} slots"));
            }
        }
    }
}

pub fn row_key(socket: StreamId) -> Vec<u8> {
    [b"s", &socket.gateway[..], &socket.request[..]].concat()
}

pub fn read_row_key(key: &[u8]) -> Option<StreamId> {
    let id = key.strip_prefix(b"s")?;
    Some(StreamId { gateway: id.get(..4)?.try_into().ok()?, request: id.get(4..)?.try_into().ok()? })
}

pub fn write_row(index: u16, number: u32) -> Bytes {
    [&index.to_be_bytes()[..], &number.to_be_bytes()[..]].concat().into()
}

pub fn read_row(value: &[u8]) -> (u16, u32) {
    let index = u16::from_be_bytes(value[..2].try_into().expect("two bytes"));
    (index, u32::from_be_bytes(value[2..].try_into().expect("four bytes")))
}

pub fn read_number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().expect("eight bytes"))
}

/// The key that actors write to.
pub const WRITTEN: &[u8] = b"n";
/// Where a runner begins to count the events of a life of which it does not know how many there were.
const UNKNOWN_HISTORY: i64 = 1 << 40;
