//! Connections and runners of the engine.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use greenroom::gateway::core::{ConnectionId, Effect, Now};
use greenroom::protocol::{
    Checkpoint, Command, CommandWrapper, Init, InitMetadata, KvRequest, KvResponse, ToClient, ToServer,
};

use super::{Arrived, Engine, Timer, millis};

/// A connection.
#[derive(Debug)]
pub struct Connection {
    key: Arc<str>,
    runner: Option<Arc<str>>,
    last_pong: Instant,
}

/// A runner that has not expired.
#[derive(Debug)]
pub struct Runner {
    key: Arc<str>,
    pool: Arc<str>,
    pub link: Option<ConnectionId>,
    slots: u32,
    pub draining: bool,
    lost_at: Option<Instant>,
    /// Commands without an acknowledgement.
    pub stored: Vec<CommandWrapper>,
}

impl Engine {
    pub fn connected(&mut self, connection: ConnectionId, key: Arc<str>, now: Now) {
        self.connections.insert(connection, Connection { key, runner: None, last_pong: now.instant });
        self.later(now.instant + self.thresholds.init, Timer::Greeting(connection));
    }

    pub fn greeting_timeout(&mut self, connection: ConnectionId) {
        if self.connections.get(&connection).is_some_and(|known| known.runner.is_none()) {
            self.close(connection, 1011, "ws.timed_out_waiting_for_init");
        }
    }

    pub fn ping(&mut self, connection: ConnectionId, now: Now) {
        let Some(known) = self.connections.get(&connection) else { return };
        if now.instant.duration_since(known.last_pong) >= self.thresholds.ping_timeout {
            self.close(connection, 1011, "core.internal_error");
            return self.disconnected(connection, now);
        }
        self.send(connection, ToClient::Ping { ts: now.wall_ms });
        self.later(now.instant + self.thresholds.ping_interval, Timer::Ping(connection));
    }

    fn close(&mut self, connection: ConnectionId, code: u16, reason: &'static str) {
        self.effects.push_back(Effect::Close { connection, code, reason, after: 0 });
        if self.connections.get(&connection).is_some_and(|known| known.runner.is_none()) {
            self.connections.remove(&connection);
        }
    }

    pub fn disconnected(&mut self, connection: ConnectionId, now: Now) {
        let Some(known) = self.connections.remove(&connection) else { return };
        let Some(id) = known.runner else { return };
        let Some(runner) = self.runners.get_mut(&id).filter(|runner| runner.link == Some(connection)) else { return };
        runner.link = None;
        // The check restarts on every signal, so it may come late.
        let late = millis(&mut self.dice, 0, 10_000);
        let at = now.instant + self.thresholds.runner_lost + late;
        runner.lost_at = Some(at);
        self.later(at, Timer::Lost(id));
    }

    pub fn lost_timeout(&mut self, id: &Arc<str>, now: Now) {
        if self.runners.get(id).and_then(|runner| runner.lost_at).is_some_and(|at| at <= now.instant) {
            self.expire(id, now);
        }
    }

    /// A runner that drains has had its time, whether it still has actors or not.
    pub fn evict(&mut self, id: &Arc<str>, now: Now) {
        if let Some(link) = self.runners.get(id).and_then(|runner| runner.link) {
            self.close(link, 1000, "ws.eviction");
            self.connections.remove(&link);
        }
        self.expire(id, now);
    }

    fn expire(&mut self, id: &Arc<str>, now: Now) {
        if self.runners.remove(id).is_none() {
            return;
        }
        let held = self.actors.iter().filter(|(_, actor)| actor.runner.as_ref() == Some(id));
        for actor in held.map(|(actor, _)| actor.clone()).collect::<Vec<_>>() {
            self.actor_lost(&actor, now);
        }
    }

    pub fn received(&mut self, connection: ConnectionId, message: ToServer, now: Now) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        let Some(runner) = known.runner.clone() else {
            return match message {
                ToServer::Init(init) => self.greet(connection, &init, now),
                _ => self.close(connection, 1011, "ws.invalid_initial_packet"),
            };
        };
        match message {
            ToServer::Init(_) => {}
            ToServer::Pong { .. } => known.last_pong = now.instant,
            ToServer::Events(events) => {
                for event in events {
                    let at = event.checkpoint;
                    let actor: Arc<str> = (&*at.actor_id).into();
                    let arrived = self.arrived.entry(actor.clone()).or_default();
                    let (runner, event) = (runner.clone(), event.event);
                    arrived.push(Arrived { runner, generation: at.generation, index: at.index, event });
                    if arrived.len() == 1 {
                        let after = millis(&mut self.dice, 0, 20);
                        self.later(now.instant + after, Timer::Batch(actor));
                    }
                }
            }
            ToServer::AckCommands(checkpoints) => {
                if let Some(runner) = self.runners.get_mut(&runner) {
                    runner.stored.retain(|command| !checkpoints.iter().any(|at| covers(at, &command.checkpoint)));
                }
            }
            ToServer::Stopping => self.drain(&runner, now),
            ToServer::Kv { actor_id, request_id, request } => {
                self.kv(connection, &runner, &actor_id, request_id, request);
            }
            ToServer::Tunnel { id, message } => self.tunnel(connection, id, message, now),
        }
    }

    fn kv(&mut self, connection: ConnectionId, runner: &str, actor: &ByteString, request_id: u32, request: KvRequest) {
        let holder = self.actors.get(&**actor).and_then(|actor| actor.runner.clone());
        let refusal = match holder {
            Some(holder) if *holder == *runner => {
                let actor_id: Arc<str> = (&**actor).into();
                return self.effects.push_back(Effect::Kv { connection, request_id, actor_id, request });
            }
            Some(_) => "actor does not belong to runner",
            None => "actor does not exist",
        };
        let response = KvResponse::Error { message: refusal.into() };
        self.send(connection, ToClient::Kv { request_id, response });
    }

    fn greet(&mut self, connection: ConnectionId, init: &Init, now: Now) {
        let Some(known) = self.connections.get(&connection) else { return };
        let key = known.key.clone();
        let mut same = None;
        for (id, runner) in self.runners.iter().filter(|(_, runner)| runner.key == key) {
            same = same.or_else(|| (!runner.draining).then(|| id.clone()));
        }
        let evicted: Vec<ConnectionId> =
            self.runners.values().filter(|runner| runner.key == key).filter_map(|runner| runner.link).collect();
        for other in evicted {
            self.close(other, 1000, "ws.eviction");
            self.disconnected(other, now);
        }
        let id = same.unwrap_or_else(|| {
            self.numbers += 1;
            format!("engine-runner-{}", self.numbers).into()
        });
        let runner = self.runners.entry(id.clone()).or_insert_with(|| Runner {
            key,
            pool: (&*init.name).into(),
            link: None,
            slots: init.total_slots,
            draining: false,
            lost_at: None,
            stored: Vec::new(),
        });
        (runner.link, runner.lost_at) = (Some(connection), None);
        let mut stored = runner.stored.clone();
        if let Some(known) = self.connections.get_mut(&connection) {
            known.runner = Some(id.clone());
            known.last_pong = now.instant;
        }
        let threshold = |time: std::time::Duration| i64::try_from(time.as_millis()).expect("small");
        let metadata = InitMetadata {
            runner_lost_threshold: threshold(self.thresholds.runner_lost),
            actor_stop_threshold: Some(threshold(self.thresholds.actor_stop)),
            serverless_drain_grace_period: None,
        };
        self.send(connection, ToClient::Init { runner_id: ByteString::from(&*id), metadata });
        self.later(now.instant + self.thresholds.ping_interval, Timer::Ping(connection));
        // Given again, a start lists no sockets.
        for command in &mut stored {
            if let Command::Start { hibernating, .. } = &mut command.command {
                hibernating.clear();
            }
        }
        if !stored.is_empty() {
            self.send(connection, ToClient::Commands(stored));
        }
        self.allocate_waiting(now);
    }

    fn drain(&mut self, id: &Arc<str>, now: Now) {
        let Some(runner) = self.runners.get_mut(id).filter(|runner| !runner.draining) else { return };
        runner.draining = true;
        let early = self.dice.percent(20);
        let after = if early { millis(&mut self.dice, 100, 3_000) } else { self.thresholds.runner_lost };
        self.later(now.instant + after, Timer::Evict(id.clone()));
        self.move_actors_of(id, now);
    }

    /// A runner of the pool with a free slot that answered lately.
    pub fn free_runner(&mut self, pool: &str, now: Now) -> Option<Arc<str>> {
        let mut free = Vec::new();
        for (id, runner) in self.runners.iter().filter(|(_, runner)| !runner.draining && *runner.pool == *pool) {
            let Some(connection) = runner.link.and_then(|link| self.connections.get(&link)) else { continue };
            let held = self.actors.values().filter(|actor| actor.runner.as_ref() == Some(id)).count();
            let alive = now.instant.duration_since(connection.last_pong) < self.thresholds.eligible;
            if alive && held < usize::try_from(runner.slots).expect("few") {
                free.push(id.clone());
            }
        }
        let pick = crate::dice::place(self.dice.roll(), free.len().max(1));
        free.get(pick).cloned()
    }

    /// Stores a command for a runner, in the place of one with the same index, and sends it if the runner is there.
    pub fn command(&mut self, runner: &str, command: CommandWrapper) {
        let Some(runner) = self.runners.get_mut(runner) else { return };
        runner.stored.retain(|other| other.checkpoint != command.checkpoint);
        runner.stored.push(command.clone());
        let place = |at: &Checkpoint| (at.actor_id.to_string(), at.generation, at.index);
        runner.stored.sort_by_key(|command| place(&command.checkpoint));
        if let Some(link) = runner.link {
            self.send(link, ToClient::Commands(vec![command]));
        }
    }
}

fn covers(acknowledged: &Checkpoint, command: &Checkpoint) -> bool {
    acknowledged.actor_id == command.actor_id
        && acknowledged.generation == command.generation
        && acknowledged.index >= command.index
}
