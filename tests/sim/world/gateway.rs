//! The gateway's process: its core, its store, and what is lost when it is killed.

#[path = "../../gateway/boot.rs"]
mod boot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use greenroom::gateway::core::{ConnectionId, Core, Effect, Input, LoadId, Now, Settings};
use greenroom::protocol::{
    CommandWrapper, KvRequest, KvResponse, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel, serial,
};
use greenroom::store::{Change, CommitFault, Found, MemoryStore, Query, Store};

use super::durable::{row_key, write_row};
use super::{Happening, World, note};
use crate::engine::Engine;
use crate::laws::Law;
use crate::saboteur::Bug;
use boot::boot;

/// The gateway.
#[derive(Default)]
pub struct Gateway {
    brain: Option<Brain>,
    pub store: MemoryStore,
    /// Rises with every start.
    pub process: u64,
    /// The last commit that is durable.
    durable: u64,
    /// What waits for a later one.
    held: BTreeMap<u64, Vec<Effect>>,
    /// What the store was asked and has not begun.
    queued: VecDeque<Job>,
    /// What the store makes durable right now, all at once.
    batch: Vec<Job>,
    /// Until when syncs are slow, and how long each takes.
    pub slow_until: Option<(Instant, u64)>,
    pub gateway_id: [u8; 4],
    /// Who speaks on each connection.
    pub identities: BTreeMap<ConnectionId, String>,
    /// Messages that were sent on each stream by this process, for a bug.
    sent: BTreeSet<(StreamId, u16)>,
}

/// What decides.
enum Brain {
    Ours(Box<Core>),
    Engine(Box<Engine>),
}

/// Something that the store was asked.
#[derive(Debug)]
enum Job {
    Commit { seq: u64, changes: Vec<Change> },
    Load { load: LoadId, query: Query },
    Kv { connection: ConnectionId, request_id: u32, actor_id: std::sync::Arc<str>, request: KvRequest, answered: bool },
}

impl Gateway {
    pub fn is_up(&self) -> bool {
        self.brain.is_some()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.brain.as_ref()? {
            Brain::Ours(core) => core.poll_timeout(),
            Brain::Engine(engine) => engine.poll_timeout(),
        }
    }

    /// Our core, while it is up.
    pub fn core(&self) -> Option<&Core> {
        match self.brain.as_ref()? {
            Brain::Ours(core) => Some(core),
            Brain::Engine(_) => None,
        }
    }

    /// The model of the engine, when that is the peer.
    pub fn engine(&self) -> Option<&Engine> {
        match self.brain.as_ref()? {
            Brain::Ours(_) => None,
            Brain::Engine(engine) => Some(engine),
        }
    }

    pub fn calm_down(&mut self) {
        if let Some(Brain::Engine(engine)) = &mut self.brain {
            engine.calm = true;
        }
    }

    pub fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.batch.is_empty()
    }
}

impl World {
    pub fn start_gateway(&mut self) {
        if self.gateway.is_up() {
            return;
        }
        let (now, seed) = (self.now, [self.dice.roll(), self.dice.roll()]);
        self.gateway.process += 1;
        let gateway_id = u32::try_from(self.gateway.process).expect("few").to_be_bytes();
        self.gateway.gateway_id = gateway_id;
        self.gateway.durable = 0;
        self.gateway.held.clear();
        self.gateway.sent.clear();
        let settings = Settings {
            thresholds: self.conditions.thresholds.clone(),
            limits: self.conditions.limits.clone(),
            gateway_id,
            seed,
        };
        note!(self, "the gateway starts");
        let boot = boot(&mut self.gateway.store);
        let brain = if self.conditions.engine {
            Brain::Engine(Box::new(Engine::new(settings, seed[0])))
        } else {
            Brain::Ours(Box::new(Core::new(settings, boot, now)))
        };
        self.gateway.brain = Some(brain);
        self.perform_gateway();
    }

    pub fn tell_gateway(&mut self, input: Input) {
        let now = self.now;
        self.ledger.note_reason(&input);
        note!(self, "gateway < {input:?}");
        match &mut self.gateway.brain {
            Some(Brain::Ours(core)) => core.handle(input, now),
            Some(Brain::Engine(engine)) => engine.handle(input, now),
            None => return,
        }
        self.perform_gateway();
    }

    pub fn gateway_timeout(&mut self) {
        let now = self.now;
        let ahead = if self.bug == Some(Bug::RingEarly) { 20_000 } else { 0 };
        let early = Now { wall_ms: now.wall_ms + ahead, ..now };
        match &mut self.gateway.brain {
            Some(Brain::Ours(core)) => core.handle_timeout(early),
            Some(Brain::Engine(engine)) => engine.handle_timeout(now),
            None => return,
        }
        self.perform_gateway();
        let next = self.gateway.poll_timeout();
        self.hold(Law::NobodySpins, next.is_none_or(|next| next > now.instant), || {
            "a timer of the gateway was due and nothing came of it".to_owned()
        });
        if self.aging {
            self.age_sockets();
        }
    }

    /// A runner's message has arrived.
    pub fn gateway_hears(&mut self, connection: ConnectionId, speaker: Option<(usize, u64)>, mut message: ToServer) {
        if self.bug == Some(Bug::DeliverAcrossGenerations)
            && let ToServer::Events(events) = &mut message
        {
            for event in events {
                let present = self.record(&event.checkpoint.actor_id).map(|record| record.generation);
                event.checkpoint.generation = present.unwrap_or(0).max(event.checkpoint.generation);
            }
        }
        if let Some((runner, _)) = speaker {
            self.check_said(runner, &message);
        }
        self.tell_gateway(Input::Received { connection, message });
    }

    fn perform_gateway(&mut self) {
        loop {
            let effect = match &mut self.gateway.brain {
                Some(Brain::Ours(core)) => core.poll_effect(),
                Some(Brain::Engine(engine)) => engine.poll_effect(),
                None => return,
            };
            let Some(effect) = effect else { return };
            let hasty = self.bug == Some(Bug::AcknowledgeEventsBeforeSync)
                && matches!(&effect, Effect::Send { message: ToClient::AckEvents(_), .. });
            if effect.after() > self.gateway.durable && !hasty {
                self.gateway.held.entry(effect.after()).or_default().push(effect);
            } else {
                self.do_for_gateway(effect);
            }
        }
    }

    fn do_for_gateway(&mut self, effect: Effect) {
        match effect {
            Effect::Commit { seq, changes } => self.ask_store(Job::Commit { seq, changes }),
            Effect::Load { load, query } => self.ask_store(Job::Load { load, query }),
            Effect::Kv { connection, request_id, actor_id, request } => {
                let writes = matches!(request, KvRequest::Put { .. });
                let answered = writes && self.bug == Some(Bug::AnswerStorageBeforeSync);
                if answered {
                    self.send_down(connection, ToClient::Kv { request_id, response: KvResponse::Put });
                }
                self.ask_store(Job::Kv { connection, request_id, actor_id, request, answered });
            }
            Effect::Send { connection, message, .. } => {
                note!(self, "gateway > {connection:?} {message:?}");
                if self.is_open_at_gateway(connection) {
                    self.check_told(connection, &message);
                }
                if !self.is_swallowed(&message) {
                    self.send_down(connection, message);
                }
            }
            Effect::Close { connection, code, reason, .. } => {
                note!(self, "gateway > {connection:?} closes, {code} {reason}");
                self.close_down(connection, code, reason);
            }
            Effect::Opened { stream } => self.stream_opened(stream),
            Effect::Refused { stream, error } => self.stream_refused(stream, &error),
            Effect::Deliver { stream, event } => self.client_hears(stream, event),
            Effect::Granted { stream } => self.client_granted(stream),
            Effect::Namespace { .. } => {}
            Effect::Answer { call, answer, .. } => self.call_answered(call, answer),
        }
    }

    /// Whether a bug swallows what the gateway says.
    fn is_swallowed(&mut self, message: &ToClient) -> bool {
        match (self.bug, message) {
            (Some(Bug::SkipEventAck), ToClient::AckEvents(_)) => self.dice.percent(20),
            (Some(Bug::ForgetToResendCommands), ToClient::Commands(commands)) => {
                let key = |command: &CommandWrapper| {
                    (command.checkpoint.actor_id.to_string(), command.checkpoint.generation, command.checkpoint.index)
                };
                let again = commands.iter().all(|command| self.ledger.told_commands.contains(&key(command)));
                self.ledger.told_commands.extend(commands.iter().map(key));
                again
            }
            (
                Some(Bug::ForgetToResendMessages),
                ToClient::Tunnel { id, message: ToClientTunnel::WebSocketMessage { .. } },
            ) => !self.gateway.sent.insert((id.stream, id.index)),
            _ => false,
        }
    }

    fn ask_store(&mut self, job: Job) {
        self.gateway.queued.push_back(job);
        self.begin_sync();
    }

    /// Makes everything that has queued up durable at once.
    fn begin_sync(&mut self) {
        if !self.gateway.batch.is_empty() || self.gateway.queued.is_empty() {
            return;
        }
        self.gateway.batch = self.gateway.queued.drain(..).collect();
        let slow = self.gateway.slow_until.filter(|(until, _)| *until > self.now.instant && !self.calm);
        let most = if self.calm { 0 } else { self.conditions.sync };
        let time = slow.map_or_else(|| self.dice.millis(0, most), |(_, millis)| Duration::from_millis(millis));
        let process = self.gateway.process;
        self.later(time, Happening::Synced { process });
    }

    pub fn synced(&mut self, process: u64) {
        if self.gateway.process != process || !self.gateway.is_up() {
            return;
        }
        let batch = std::mem::take(&mut self.gateway.batch);
        self.gateway.store.begin().expect("no transaction is open");
        let answers: Vec<Option<Answered>> = batch.iter().map(|job| self.apply(job)).collect();
        if let Err(error) = self.gateway.store.commit() {
            note!(self, "a commit fails: {error}");
            self.gateway.store.rollback();
            // Whoever runs it lets it start again.
            return self.gateway_is_gone();
        }
        for (job, answer) in batch.into_iter().zip(answers) {
            match (job, answer) {
                (Job::Commit { seq, changes }, _) => {
                    self.check_sleepers(&changes);
                    self.gateway.durable = seq;
                    while let Some(entry) = self.gateway.held.first_entry()
                        && *entry.key() <= seq
                    {
                        for effect in entry.remove() {
                            self.do_for_gateway(effect);
                        }
                    }
                }
                (Job::Load { load, .. }, Some(Answered::Found(found))) => {
                    self.tell_gateway(Input::Loaded { load, found });
                }
                (Job::Kv { connection, request_id, answered: false, .. }, Some(Answered::Kv(response))) => {
                    self.send_down(connection, ToClient::Kv { request_id, response });
                }
                (Job::Load { .. } | Job::Kv { .. }, _) => {}
            }
        }
        self.begin_sync();
    }

    fn apply(&mut self, job: &Job) -> Option<Answered> {
        let wall_ms = self.now.wall_ms;
        let store = &mut self.gateway.store;
        match job {
            Job::Commit { changes, .. } => {
                for change in changes {
                    store.apply(change).expect("a change that the core decides can be made");
                }
                None
            }
            Job::Load { query, .. } => Some(Answered::Found(store.read(query).expect("memory can be read"))),
            Job::Kv { actor_id, request, .. } => {
                Some(Answered::Kv(store.kv(actor_id, request, wall_ms).expect("memory can be written")))
            }
        }
    }

    pub fn fail_commit(&mut self, after: u64, written: bool) {
        let fault = if written { CommitFault::ConfirmationLost } else { CommitFault::NothingWritten };
        self.gateway.store.fail_commit_after(after, fault);
    }

    /// `kill -9`: of what was being written, any part may be there, but no later part without an earlier.
    pub fn kill_gateway(&mut self) {
        if !self.gateway.is_up() {
            return;
        }
        note!(self, "the gateway is killed");
        let batch = std::mem::take(&mut self.gateway.batch);
        let kept = usize::try_from(self.dice.below(batch.len() as u64 + 1)).expect("small");
        for job in batch.iter().take(kept) {
            self.gateway.store.begin().expect("no transaction is open");
            self.apply(job);
            if self.gateway.store.commit().is_err() {
                self.gateway.store.rollback();
                break;
            }
            if let Job::Commit { changes, .. } = job {
                self.check_sleepers(changes);
            }
        }
        self.gateway_is_gone();
    }

    /// A stop that everybody is told of; what was promised is written.
    pub fn stop_gateway(&mut self) {
        if !self.gateway.is_up() || self.conditions.engine {
            return self.kill_gateway();
        }
        note!(self, "the gateway stops");
        self.tell_gateway(Input::Shutdown);
        for _ in 0..100 {
            if self.gateway.is_idle() || !self.gateway.is_up() {
                break;
            }
            let process = self.gateway.process;
            self.synced(process);
        }
        self.gateway_is_gone();
    }

    fn gateway_is_gone(&mut self) {
        self.tally.crashes += 1;
        if self.conditions.engine {
            // The engine is a cluster: its processes go, what it knows stays.
            self.engine_connections_reset();
        } else {
            self.gateway.brain = None;
        }
        self.gateway.queued.clear();
        self.gateway.batch.clear();
        self.gateway.held.clear();
        self.lose_gateway_ends();
        self.clients_lose_gateway();
        let away = if self.calm { Duration::from_millis(10) } else { self.dice.millis(10, 8_000) };
        self.later(away, Happening::GatewayUp);
        self.check_everything_durable();
    }

    /// As if sockets of sleeping actors had had nearly as many messages as there are indexes, all of them taken.
    pub fn age_sockets(&mut self) {
        if !self.gateway.is_idle() {
            return;
        }
        let quiet = self.gateway.engine().map(Engine::quiet_sockets).unwrap_or_default();
        for (stream, actor, next) in quiet {
            let (id, messages) = (self.wire_id(stream), u16::MAX - 5);
            let Some((index, number)) = self.row(&actor, id) else { continue };
            if next > 1_000 || serial::next(index) != next {
                continue;
            }
            let (keys, values) = (vec![row_key(id).into()], vec![write_row(index.wrapping_add(messages), number)]);
            let (store, wall_ms) = (&mut self.gateway.store, self.now.wall_ms);
            store.begin().expect("no transaction is open");
            store.kv(&actor, &KvRequest::Put { keys, values }, wall_ms).expect("memory can be written");
            if store.commit().is_err() {
                return store.rollback();
            }
            note!(self, "{id} of {actor} has had {messages} more messages");
            if let Some(Brain::Engine(engine)) = &mut self.gateway.brain {
                engine.age(stream, messages);
            }
        }
    }

    fn engine_connections_reset(&mut self) {
        let now = self.now;
        if let Some(Brain::Engine(engine)) = &mut self.gateway.brain {
            engine.reset(now);
        }
    }

    /// Acknowledgements that a bug makes up or takes away on a runner's side of the wire.
    pub fn sabotaged(&mut self, runner: usize, message: ToServer) -> Option<ToServer> {
        match (self.bug, &message) {
            (Some(Bug::SkipCommandAck), ToServer::AckCommands(_)) if self.dice.percent(20) => None,
            (Some(Bug::ForgetToResendEvents), ToServer::Events(events)) => {
                let sent = &mut self.runners[runner].sent_events;
                let mut again = true;
                for event in events {
                    let at = &event.checkpoint;
                    again &= !sent.insert((at.actor_id.to_string(), at.generation, at.index));
                }
                (!again).then_some(message)
            }
            (Some(Bug::AcknowledgeMessagesBeforeTaken), ToServer::Tunnel { id, message: said }) => {
                if let ToServerTunnel::WebSocketMessageAck { index } = said {
                    let message = ToServerTunnel::WebSocketMessageAck { index: index.wrapping_add(1) };
                    return Some(ToServer::Tunnel { id: *id, message });
                }
                Some(message)
            }
            _ => Some(message),
        }
    }
}

enum Answered {
    Found(Found),
    Kv(KvResponse),
}
