//! Connections between runners and the gateway, and everything that can go wrong with one.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use greenroom::gateway::core::{self, ConnectionId, Features, Hello};
use greenroom::protocol::{Init, ToClient, ToServer, ToServerTunnel, Version};
use greenroom::session::{DialFailure, Disconnect, Input};

use super::{Happening, World, note};
use crate::laws::Law;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    /// The runner and its process; none for another process under its key.
    runner: Option<(usize, u64)>,
    version: Version,
    /// Each end, as long as it takes the connection for open.
    runner_end: bool,
    gateway_end: bool,
    /// The gateway has read everything that the runner said, and its close.
    read_out: bool,
    /// Nothing arrives any more.
    dead: bool,
    /// Per direction, when the last message arrives: nothing overtakes anything.
    up_until: Instant,
    down_until: Instant,
    /// When the runner heard something last.
    heard: Instant,
}

/// How a runner hears of the end.
#[derive(Clone, Debug)]
pub enum Ended {
    Closed { code: u16, reason: String },
    Broken(&'static str),
}

impl World {
    pub fn dial(&mut self, runner: usize) {
        let process = self.runners[runner].process;
        let delay = self.travel() + self.travel();
        self.later(delay, Happening::Dialed { runner, process });
    }

    pub fn dialed(&mut self, runner: usize, process: u64) {
        if self.runners[runner].process != process || self.runners[runner].session.is_none() {
            return;
        }
        let refused = &mut self.runners[runner].refused_dials;
        if !self.gateway.is_up() || *refused > 0 {
            *refused = refused.saturating_sub(1);
            // Some dials fail on their way back: the gateway has a connection on which nobody speaks.
            if self.gateway.is_up() && self.dice.percent(30) {
                self.open_wire(None, runner);
            }
            return self.tell_runner(runner, Input::DialFailed(DialFailure("refused".into())));
        }
        let wire = self.open_wire(Some((runner, process)), runner);
        self.tally.reconnects += 1;
        let silence = self.conditions.silence;
        self.later(silence, Happening::Listen(wire));
        let features = self.features();
        self.hold(Law::OneConnection, self.runners[runner].wire.is_none(), || "dialled while connected".into());
        self.runners[runner].wire = Some(wire);
        self.tell_runner(runner, Input::Dialed { features });
    }

    /// Our gateway grants everything, the engine nothing.
    pub fn features(&self) -> Features {
        if self.conditions.engine { Features::default() } else { Features::ALL }
    }

    fn open_wire(&mut self, speaker: Option<(usize, u64)>, runner: usize) -> ConnectionId {
        let connection = ConnectionId(self.number());
        let now = self.now.instant;
        let wire = Wire {
            runner: speaker,
            version: self.conditions.versions[runner],
            runner_end: true,
            gateway_end: true,
            read_out: false,
            dead: false,
            up_until: now,
            down_until: now,
            heard: now,
        };
        self.wires.insert(connection, wire);
        let hello = Hello {
            namespace: "default".into(),
            key: self.runners[runner].key.clone(),
            version: self.conditions.versions[runner],
            features: self.features(),
        };
        note!(self, "{connection:?} of {}", hello.key);
        self.tell_gateway(core::Input::Connected { connection, hello });
        connection
    }

    /// Another process that has the runner's key: it introduces itself and says nothing more.
    pub fn connect_double(&mut self, runner: usize) {
        if !self.gateway.is_up() {
            return;
        }
        self.tally.doubles += 1;
        let wire = self.open_wire(None, runner);
        let init = self.init(runner);
        let stays = self.dice.millis(10, 8_000);
        self.later(Duration::ZERO, Happening::Up(wire, ToServer::Init(init)));
        self.later(stays, Happening::DoubleLeaves(wire));
    }

    pub fn double_leaves(&mut self, connection: ConnectionId) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.runner_end = false;
            self.gone_at_gateway(connection);
        }
    }

    pub fn init(&self, runner: usize) -> Init {
        Init {
            name: self.conditions.pool_of(runner).into(),
            version: 1,
            total_slots: self.conditions.slots,
            prepopulate_actor_names: None,
            metadata: None,
        }
    }

    /// How long something is on its way.
    fn travel(&mut self) -> Duration {
        let (least, most) = if self.calm { (0, 2) } else { self.conditions.travel };
        self.dice.millis(least, most)
    }

    pub fn send_up(&mut self, connection: ConnectionId, message: ToServer) {
        let arrives = self.now.instant + self.travel();
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.runner_end && !wire.dead) else { return };
        wire.up_until = wire.up_until.max(arrives);
        let (after, version) = (wire.up_until - self.now.instant, wire.version);
        let message = if self.conditions.encoded { self.travelled_up(message, version) } else { message };
        self.later(after, Happening::Up(connection, message));
    }

    /// What was held until it was durable may have lost the connection that it was for.
    pub fn is_open_at_gateway(&self, connection: ConnectionId) -> bool {
        self.wires.get(&connection).is_some_and(|wire| wire.gateway_end)
    }

    pub fn send_down(&mut self, connection: ConnectionId, message: ToClient) {
        let arrives = self.now.instant + self.travel();
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.gateway_end && !wire.dead) else { return };
        wire.down_until = wire.down_until.max(arrives);
        let (after, version) = (wire.down_until - self.now.instant, wire.version);
        let message = if self.conditions.encoded { self.travelled_down(message, version) } else { message };
        self.later(after, Happening::Down(connection, message));
    }

    /// A message as it arrives: a version cannot say everything, and the runner counts from another number.
    fn travelled_up(&self, mut message: ToServer, version: Version) -> ToServer {
        if let ToServer::Tunnel { message: ToServerTunnel::WebSocketMessageAck { index }, .. } = &mut message {
            *index = index.wrapping_sub(self.conditions.first_index);
        }
        let mut frame = BytesMut::new();
        message.encode(version, &mut frame).expect("every version can say it");
        ToServer::decode(frame.freeze(), version).expect("what was encoded can be decoded")
    }

    fn travelled_down(&self, mut message: ToClient, version: Version) -> ToClient {
        if let ToClient::Tunnel { id, .. } = &mut message {
            id.index = id.index.wrapping_add(self.conditions.first_index);
        }
        let mut frame = BytesMut::new();
        message.encode(version, &mut frame).expect("every version can say it");
        ToClient::decode(frame.freeze(), version).expect("what was encoded can be decoded")
    }

    pub fn arrives_at_gateway(&mut self, connection: ConnectionId, message: ToServer) {
        let Some(wire) = self.wires.get(&connection).filter(|wire| wire.gateway_end && !wire.dead) else { return };
        let speaker = wire.runner;
        self.gateway_hears(connection, speaker, message);
    }

    pub fn arrives_at_runner(&mut self, connection: ConnectionId, message: ToClient) {
        let now = self.now.instant;
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.runner_end && !wire.dead) else { return };
        wire.heard = now;
        if let Some((runner, process)) = wire.runner
            && self.runners[runner].process == process
        {
            self.runner_hears(runner, message);
        }
    }

    /// The gateway closes a connection, behind everything it said.
    pub fn close_down(&mut self, connection: ConnectionId, code: u16, reason: &str) {
        self.hold(Law::ARefusalHasAReason, !reason.is_empty(), || format!("closed with {code}"));
        let arrives = self.now.instant + self.travel();
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.gateway_end) else { return };
        wire.gateway_end = false;
        if !wire.dead {
            let after = wire.down_until.max(arrives) - self.now.instant;
            let ended = Ended::Closed { code, reason: format!("{reason}#ray") };
            self.later(after, Happening::GoneDown(connection, ended));
        }
        self.forget_wire(connection);
    }

    /// A runner closes its connection, behind everything it said. The answer may never come.
    pub fn close_up(&mut self, connection: ConnectionId, code: u16) {
        let arrives = self.now.instant + self.travel();
        let back = self.travel();
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        if !wire.dead {
            let after = wire.up_until.max(arrives) - self.now.instant;
            let answer = (after + back).max(wire.down_until.saturating_duration_since(self.now.instant));
            self.later(after, Happening::GoneUp(connection));
            self.later(answer, Happening::Answered(connection, code));
        }
        self.later(HANGUP_PATIENCE, Happening::GoneDown(connection, Ended::Broken("no answer to the close")));
    }

    pub fn gone_at_gateway(&mut self, connection: ConnectionId) {
        if let Some(wire) = self.wires.get_mut(&connection)
            && std::mem::take(&mut wire.gateway_end)
        {
            wire.read_out = true;
            note!(self, "the gateway hears that {connection:?} is gone");
            self.tell_gateway(core::Input::Disconnected { connection });
            self.forget_wire(connection);
        }
    }

    pub fn gone_at_runner(&mut self, connection: ConnectionId, ended: Ended) {
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.runner_end) else { return };
        wire.runner_end = false;
        let Some((runner, process)) = wire.runner else { return };
        self.forget_wire(connection);
        if self.runners[runner].process != process || self.runners[runner].wire != Some(connection) {
            return;
        }
        note!(self, "{} hears that {connection:?} is gone: {ended:?}", self.runners[runner].key);
        // What is said of that is lost.
        self.take_all_turns(runner);
        self.runners[runner].disconnected();
        let disconnect = match ended {
            Ended::Closed { code, reason } => Disconnect::Closed { code, reason },
            Ended::Broken(why) => Disconnect::Broken(why.to_owned()),
        };
        self.tell_runner(runner, Input::Disconnected(disconnect));
    }

    /// The answer to a runner's close: the gateway has read everything before it. One that closes by itself meanwhile
    /// does not answer.
    pub fn close_answered(&mut self, connection: ConnectionId, code: u16) {
        if self.wires.get(&connection).is_some_and(|wire| wire.runner_end && wire.read_out && !wire.dead) {
            self.gone_at_runner(connection, Ended::Closed { code, reason: String::new() });
        }
    }

    /// A runner that hears nothing for long gives its connection up.
    pub fn listen(&mut self, connection: ConnectionId) {
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.runner_end) else { return };
        let due = wire.heard + self.conditions.silence;
        if due > self.now.instant {
            let after = due - self.now.instant;
            return self.later(after, Happening::Listen(connection));
        }
        wire.dead = true;
        let delay = self.travel();
        self.later(delay, Happening::GoneUp(connection));
        self.gone_at_runner(connection, Ended::Broken("silent"));
    }

    fn forget_wire(&mut self, connection: ConnectionId) {
        if self.wires.get(&connection).is_some_and(|wire| !wire.runner_end && !wire.gateway_end) {
            self.wires.remove(&connection);
        }
    }

    pub fn cut(&mut self, runner: usize) {
        let Some(connection) = self.runners[runner].wire else { return };
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.dead = true;
        }
        let (up, down) = (self.dice.millis(0, 3_000), self.dice.millis(0, 3_000));
        self.later(up, Happening::GoneUp(connection));
        self.later(down, Happening::GoneDown(connection, Ended::Broken("reset")));
    }

    /// One end hears of the break now; the other, or both, find out by themselves.
    pub fn half_open(&mut self, runner: usize, both: bool) {
        let Some(connection) = self.runners[runner].wire else { return };
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.dead = true;
        }
        if !both {
            self.gone_at_runner(connection, Ended::Broken("reset"));
        }
    }

    pub fn stall(&mut self, runner: usize, up: bool, time: Duration) {
        let Some(connection) = self.runners[runner].wire else { return };
        let until = self.now.instant + time;
        if let Some(wire) = self.wires.get_mut(&connection) {
            let pipe = if up { &mut wire.up_until } else { &mut wire.down_until };
            *pipe = until.max(*pipe);
        }
    }

    /// The process at the runner's end is gone. The gateway hears of it soon, or when it misses it.
    pub fn lose_runner_end(&mut self, connection: ConnectionId) {
        let heard = self.calm || self.dice.percent(70);
        let delay = self.dice.millis(0, 200);
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        wire.runner_end = false;
        wire.dead |= !heard;
        if heard {
            self.later(delay, Happening::GoneUp(connection));
        }
        self.forget_wire(connection);
    }

    /// The process at the gateway's end is gone. Runners hear of it soon, or when they miss it.
    pub fn lose_gateway_ends(&mut self) {
        let open = self.wires.iter().filter(|(_, wire)| wire.gateway_end).map(|(connection, _)| *connection);
        for connection in open.collect::<Vec<_>>() {
            let heard = self.calm || self.dice.percent(70);
            let delay = self.dice.millis(0, 200);
            let Some(wire) = self.wires.get_mut(&connection) else { continue };
            wire.gateway_end = false;
            wire.dead |= !heard;
            if heard {
                self.later(delay, Happening::GoneDown(connection, Ended::Broken("reset")));
            }
            self.forget_wire(connection);
        }
    }
}

/// How long a closing handshake may take.
const HANGUP_PATIENCE: Duration = Duration::from_secs(3);
