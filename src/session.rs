//! The runner's side of the wire, as a pure state machine.
//!
//! The shell feeds [`Input`]s with the current time and performs the [`Effect`]s that come out; what an effect did
//! comes back as an input. In between the session keeps its promises: one connection at a time, every command applied
//! once, every event kept until it is acknowledged, every storage request answered, every stream tied to the actor
//! life that it was opened to, and a drain that ends.
//!
//! Holds no socket, task, clock or lock, and draws no random numbers: jitter comes from the seed in [`Settings`].

mod actors;
mod commands;
mod drain;
mod effect;
mod events;
#[cfg(test)]
mod fixture;
mod hibernation;
mod input;
mod kv;
mod lifecycle;
mod link;
mod timers;
mod tunnel;
mod turns;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use greenroom_protocol::{Init, ToClient, ToServer, Version};

pub use effect::{Effect, Exit, StartCommand};
pub use greenroom_protocol::Features;
pub use input::{DialFailure, Disconnect, Input};
pub use link::LinkStatus;
pub use turns::{Turns, When};

use actors::Actors;
use drain::Drain;
use hibernation::Hibernation;
use kv::Storage;
use link::Link;
use tunnel::Tunnel;

use crate::actor::{ActorKey, Outcome};

/// One runner's conversation with its gateway.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    link: Link,
    actors: Actors,
    storage: Storage,
    tunnel: Tunnel,
    hibernation: Hibernation,
    drain: Option<Drain>,
    effects: VecDeque<Effect>,
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the runner introduces itself.
    pub init: Init,
    /// The protocol version spoken.
    pub version: Version,
    /// How long a storage request may wait for its answer.
    pub kv_timeout: Duration,
    /// Lives that an earlier process with the same runner key left behind: reported as crashed.
    pub lost_lives: Vec<ActorKey>,
    /// Where the jitter of reconnects comes from.
    pub seed: u64,
}

impl Session {
    /// A session that wants to dial at once.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut session = Session {
            link: Link::new(settings.seed),
            actors: Actors::default(),
            storage: Storage::new(settings.kv_timeout),
            tunnel: Tunnel::default(),
            hibernation: Hibernation::default(),
            drain: None,
            effects: VecDeque::from([Effect::Dial]),
            settings,
        };
        for key in std::mem::take(&mut session.settings.lost_lives) {
            session.actors.add_lost(key);
        }
        session
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        if self.link.is_over() && !matches!(input, Input::Kv { .. }) {
            return;
        }
        match input {
            Input::Dialed { features } => self.dialed(features, now),
            Input::DialFailed(failure) => self.dial_failed(failure, now),
            Input::Received(message) => self.received(message, now),
            Input::Disconnected(disconnect) => self.disconnected(disconnect, now),
            Input::Running(key) => self.actor_running(&key, now),
            Input::Restored { actor, sockets, unknown } => self.restore(&actor, sockets, unknown, now),
            Input::Ended(key, outcome) => self.actor_ended(&key, outcome),
            Input::Sleep(key) => self.wish(&key, actors::Wish::Sleep),
            Input::Destroy(key) => self.wish(&key, actors::Wish::Destroy),
            Input::Stop(key, outcome) => self.stop_from_here(&key, outcome),
            Input::Kill(key) => self.kill(&key),
            Input::SetAlarm(key, at) => self.set_alarm(&key, at),
            Input::Kv { actor, ticket, request } => self.kv_request(actor, ticket, request, now),
            Input::Reply { stream, reply } => self.reply(stream, reply),
            Input::Drain { within } => self.start_drain(within, now),
        }
        self.advance_drain(now);
    }

    /// The next thing to do. Call until it answers `None`, then wait for an input or [`Session::poll_timeout`].
    pub fn poll_effect(&mut self, now: Instant) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        if !self.link.is_open() {
            return None;
        }
        self.collect_events(now).map(|events| Effect::Send(ToServer::Events(events)))
    }

    /// Where the link stands, for people and probes.
    #[must_use]
    pub fn link_status(&self) -> LinkStatus {
        self.link.status()
    }

    /// How many actor lives have not ended.
    #[must_use]
    pub fn live_actors(&self) -> usize {
        self.actors.live()
    }

    /// Whether a life goes on, or has ended and the gateway may yet ask for it: one that ended is forgotten a minute after
    /// its end was told on a connection that has lasted since.
    #[must_use]
    pub fn remembers(&self, key: &ActorKey) -> bool {
        self.actors.life(key).is_some()
    }

    /// How many events the gateway has not acknowledged.
    #[must_use]
    pub fn unacknowledged_events(&self) -> usize {
        self.actors.iter().map(|life| life.events.len()).sum()
    }

    /// How many frames of client sockets the gateway keeps because no actor has taken them yet.
    #[must_use]
    pub fn unacknowledged_messages(&self) -> usize {
        self.tunnel.streams.values().map(|stream| usize::from(stream.untaken())).sum()
    }

    fn received(&mut self, message: ToClient, now: Instant) {
        if !self.link.takes(&message) {
            return;
        }
        match message {
            ToClient::Init { runner_id, metadata } => self.greeted(&runner_id, metadata, now),
            ToClient::Commands(commands) => self.commands(commands, now),
            ToClient::AckEvents(checkpoints) => self.acknowledge_events(&checkpoints),
            ToClient::Kv { request_id, response } => self.kv_response(request_id, response, now),
            ToClient::Tunnel { id, message } => self.tunnel_message(id, message, now),
            ToClient::Ping { ts } => self.effects.push_back(Effect::Send(ToServer::Pong { ts })),
        }
    }

    fn actor_ended(&mut self, key: &ActorKey, outcome: Outcome) {
        self.storage_of_ended(key);
        self.life_ended(key, outcome);
    }
}
