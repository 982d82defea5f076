//! One connection of a runner: how it begins, that it is alive, what it says, how it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom_protocol::{Features, Init, ToClient, ToServer, Version, close};
use tracing::{debug, info, warn};

use super::timers::Timer;
use super::{ConnectionId, Core, Effect, Hello, Now};

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) by_id: BTreeMap<ConnectionId, Peer>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    namespace_id: Arc<str>,
    key: Arc<str>,
    pub(super) version: Version,
    pub(super) features: Features,
    state: State,
    /// The commit that makes durable who the runner is; nothing reaches it before.
    pub(super) greeted_by: u64,
    pub(super) life: Life,
    /// The highest event taken of each actor life, to be acknowledged.
    pub(super) acknowledge: BTreeMap<(Arc<str>, u32), i64>,
    pub(super) unacknowledged: u32,
    malformed: u64,
}

#[derive(Debug)]
enum State {
    /// It has yet to introduce itself.
    Greeting,
    /// It speaks for a runner.
    Open { runner_id: Arc<str> },
}

/// How alive a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) last_pong: Instant,
    pub(super) last_pong_ts: i64,
    pub(super) round_trip: Duration,
}

impl Peer {
    pub(super) fn runner_id(&self) -> Option<&Arc<str>> {
        match &self.state {
            State::Greeting => None,
            State::Open { runner_id } => Some(runner_id),
        }
    }
}

impl Core {
    pub(super) fn connected(&mut self, connection: ConnectionId, hello: Hello, now: Now) {
        if self.stopping {
            return self.close(connection, 1011, close::GOING_AWAY);
        }
        if self.peers.by_id.len() >= self.settings.limits.connections {
            return self.close(connection, 1011, "guard.service_unavailable");
        }
        let Some(namespace) = self.directory.namespaces.get(&*hello.namespace) else {
            return self.close(connection, 1011, "namespace.not_found");
        };
        let peer = Peer {
            namespace_id: namespace.id.clone(),
            key: hello.key.into(),
            version: hello.version,
            features: hello.features,
            state: State::Greeting,
            greeted_by: 0,
            life: Life { last_pong: now.instant, last_pong_ts: now.wall_ms, round_trip: Duration::ZERO },
            acknowledge: BTreeMap::new(),
            unacknowledged: 0,
            malformed: 0,
        };
        self.peers.by_id.insert(connection, peer);
        self.timers.set(Timer::Greeting(connection), now.instant + self.settings.thresholds.init);
    }

    pub(super) fn received(&mut self, connection: ConnectionId, message: ToServer, now: Now) {
        let Some(peer) = self.peers.by_id.get(&connection) else { return };
        let runner_id = match &peer.state {
            State::Open { runner_id } => runner_id.clone(),
            State::Greeting => {
                return match message {
                    ToServer::Init(init) => self.greet(connection, &init, now),
                    ToServer::Events(_)
                    | ToServer::AckCommands(_)
                    | ToServer::Stopping
                    | ToServer::Pong { .. }
                    | ToServer::Kv { .. }
                    | ToServer::Tunnel { .. } => self.close(connection, 1011, "ws.invalid_initial_packet"),
                };
            }
        };
        match message {
            ToServer::Init(_) => debug!(%runner_id, "second introduction ignored"),
            ToServer::Events(events) => self.events(connection, &runner_id, events, now),
            ToServer::AckCommands(checkpoints) => {
                let version = peer.version;
                self.commands_acknowledged(&runner_id, version, &checkpoints);
            }
            ToServer::Stopping => self.drain(&runner_id, now),
            ToServer::Pong { ts } => self.pong(connection, &runner_id, ts, now),
            ToServer::Kv { actor_id, request_id, request } => {
                self.kv(connection, &runner_id, &actor_id, request_id, request);
            }
            ToServer::Tunnel { id, message } => self.take_from_runner(connection, &runner_id, id, message, now),
        }
    }

    pub(super) fn malformed(&mut self, connection: ConnectionId, text: bool) {
        let Some(peer) = self.peers.by_id.get_mut(&connection) else { return };
        match &peer.state {
            State::Greeting if text => self.close(connection, 1011, "ws.invalid_initial_packet"),
            State::Greeting => self.close(connection, 1011, "ws.invalid_packet"),
            State::Open { runner_id } => {
                peer.malformed += 1;
                // The first few tell what is wrong, the powers of two how much of it there is.
                if peer.malformed <= 3 || peer.malformed.is_power_of_two() {
                    warn!(%runner_id, text, count = peer.malformed, "message from a runner dropped");
                }
            }
        }
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId, now: Now) {
        if let Some(peer) = self.remove_peer(connection)
            && let Some(runner_id) = peer.runner_id()
        {
            self.runner_disconnected(runner_id, connection, &peer.life, now);
        }
    }

    pub(super) fn greeting_timeout(&mut self, connection: ConnectionId) {
        self.close(connection, 1011, "ws.timed_out_waiting_for_init");
    }

    pub(super) fn ping(&mut self, connection: ConnectionId, now: Now) {
        let message = ToClient::Ping { ts: now.wall_ms };
        self.out.push_gated(Effect::Send { connection, message, after: 0 });
        let jitter = Duration::from_millis(self.random.below(128));
        self.timers.set(Timer::Ping(connection), now.instant + self.settings.thresholds.ping_interval + jitter);
    }

    /// The timer stands where the last pong seen then would be too old; by now there may be a newer one.
    pub(super) fn pong_timeout(&mut self, connection: ConnectionId, now: Now) {
        let Some(peer) = self.peers.by_id.get(&connection) else { return };
        let deadline = peer.life.last_pong + self.settings.thresholds.ping_timeout;
        if deadline > now.instant {
            return self.timers.set(Timer::Pong(connection), deadline);
        }
        let (life, runner_id) = (peer.life, peer.runner_id().cloned());
        self.close(connection, 1011, "core.internal_error");
        if let Some(runner_id) = runner_id {
            warn!(%runner_id, "runner does not answer pings, connection closed");
            self.runner_disconnected(&runner_id, connection, &life, now);
        }
    }

    /// Closes a connection and forgets it. Its runner, if it speaks for one, is the caller's to deal with.
    pub(super) fn close(&mut self, connection: ConnectionId, code: u16, reason: &'static str) {
        self.remove_peer(connection);
        self.out.push_gated(Effect::Close { connection, code, reason, after: 0 });
    }

    pub(super) fn close_all_peers(&mut self) {
        for connection in self.peers.by_id.keys().copied().collect::<Vec<_>>() {
            self.close(connection, 1011, close::GOING_AWAY);
        }
        self.runners.unlink_all();
    }

    fn greet(&mut self, connection: ConnectionId, init: &Init, now: Now) {
        self.timers.cancel(&Timer::Greeting(connection));
        if init.total_slots == 0 {
            // The engine accepts this and breaks later.
            return self.close(connection, 1011, "ws.invalid_total_slots");
        }
        let Some(peer) = self.peers.by_id.get_mut(&connection) else { return };
        let (namespace_id, key) = (peer.namespace_id.clone(), peer.key.clone());
        peer.greeted_by = self.out.next_seq();
        peer.life.last_pong = now.instant;
        let thresholds = &self.settings.thresholds;
        let (first_ping, first_check) = (now.instant + thresholds.ping_interval, now.instant + thresholds.ping_timeout);
        self.timers.set(Timer::Ping(connection), first_ping);
        self.timers.set(Timer::Pong(connection), first_check);
        let runner_id = self.register_runner(connection, namespace_id, key, init, now);
        if let Some(peer) = self.peers.by_id.get_mut(&connection) {
            peer.state = State::Open { runner_id: runner_id.clone() };
        }
        info!(%runner_id, pool = %init.name, version = init.version, "runner connected");
        self.runner_connected(connection, &runner_id, now);
    }

    fn pong(&mut self, connection: ConnectionId, runner_id: &str, ts: i64, now: Now) {
        let Some(peer) = self.peers.by_id.get_mut(&connection) else { return };
        let was_eligible = now.instant.duration_since(peer.life.last_pong) < self.settings.thresholds.eligible;
        let round_trip = u64::try_from(now.wall_ms.saturating_sub(ts)).unwrap_or(0);
        peer.life =
            Life { last_pong: now.instant, last_pong_ts: now.wall_ms, round_trip: Duration::from_millis(round_trip) };
        self.goodbyes_heard(runner_id, ts);
        if !was_eligible {
            self.runner_has_room(runner_id);
        }
    }

    fn remove_peer(&mut self, connection: ConnectionId) -> Option<Peer> {
        let peer = self.peers.by_id.remove(&connection)?;
        for timer in [Timer::Greeting, Timer::Ping, Timer::Pong, Timer::Acknowledge].map(|timer| timer(connection)) {
            self.timers.cancel(&timer);
        }
        Some(peer)
    }
}
