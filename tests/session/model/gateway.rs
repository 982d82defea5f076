//! The gateway of the model.

use std::collections::{BTreeMap, VecDeque};

use greenroom::actor::ActorKey;
use greenroom::protocol::{Command, CommandWrapper, Event, ToServer, ToServerTunnel};

use super::lasting::Kept;
use crate::stage::{start, stop};

/// What the gateway knows. It reads what the runner sent only when it is told to.
#[derive(Default)]
pub struct Gateway {
    /// Sent by the runner on this connection and not read.
    pub unread: VecDeque<ToServer>,
    pub actors: BTreeMap<String, Actor>,
    /// Storage requests read on this connection and not answered: id and whether it is a write.
    pub storage: VecDeque<(u32, bool)>,
    /// The last word of each stream that has one, since it was opened last.
    pub ended_streams: BTreeMap<u8, ToServerTunnel>,
    pub stopping: bool,
    /// Sockets that hibernate.
    pub kept: Kept,
}

#[derive(Default)]
pub struct Actor {
    /// The newest generation under the present identity of the runner, with its next command index.
    pub newest: Option<(u32, i64)>,
    next_generation: u32,
    /// Generations below were told to another identity of the runner.
    first_generation: u32,
    /// Commands that were not acknowledged.
    pub stored: Vec<CommandWrapper>,
    /// Events by generation and index.
    pub events: BTreeMap<u32, BTreeMap<i64, Event>>,
}

impl Gateway {
    /// Starts the next life of an actor. One that it thinks lost is stopped with the irregular index of the engine.
    pub fn start(&mut self, name: &str, lost: bool) -> Vec<CommandWrapper> {
        let actor = self.actors.entry(name.to_owned()).or_default();
        // Leaves room for an older generation that was never heard of.
        let generation = actor.next_generation + 1;
        actor.next_generation += 2;
        let mut commands = Vec::new();
        let mut index = 0;
        if let Some((old, _)) = actor.newest
            && lost
            && !actor.newest_has_ended()
        {
            actor.stored.retain(|command| command.checkpoint.generation != old);
            commands.push(stop(name, old, 0));
            index = 1;
        }
        commands.push(start(name, generation, index));
        actor.newest = Some((generation, index + 1));
        actor.stored.extend(commands.clone());
        commands
    }

    pub fn start_old(&mut self, name: &str) -> Option<CommandWrapper> {
        let actor = self.actors.get_mut(name)?;
        let (newest, _) = actor.newest?;
        let command = start(name, newest - 1, 0);
        actor.stored.push(command.clone());
        Some(command)
    }

    pub fn stop(&mut self, name: &str) -> Option<CommandWrapper> {
        let actor = self.actors.get_mut(name).filter(|actor| !actor.newest_has_ended())?;
        let (generation, index) = actor.newest.as_mut()?;
        let command = stop(name, *generation, *index);
        *index += 1;
        actor.stored.push(command.clone());
        Some(command)
    }

    /// The life was told to another identity of the runner.
    pub fn has_forgotten(&self, key: &ActorKey) -> bool {
        self.actors.get(&*key.id).is_none_or(|actor| key.generation < actor.first_generation)
    }

    /// Everything that was not acknowledged: by actor, then generation, then index.
    pub fn stored(&self) -> Vec<CommandWrapper> {
        let mut commands: Vec<_> = self.actors.values().flat_map(|actor| actor.stored.clone()).collect();
        commands.sort_by_key(|command| {
            let at = &command.checkpoint;
            (at.actor_id.to_string(), at.generation, at.index, command.command == Command::Stop)
        });
        commands
    }

    pub fn disconnected(&mut self) {
        self.unread.clear();
        self.storage.clear();
        self.kept.outbox.clear();
    }

    /// The runner is somebody else from now on.
    pub fn forget_runner(&mut self) {
        self.kept.forget_runner();
        for actor in self.actors.values_mut() {
            actor.first_generation = actor.next_generation;
            actor.newest = None;
            actor.stored.clear();
            actor.events.clear();
        }
    }

    pub fn read(&mut self, messages: usize) {
        for _ in 0..messages {
            let Some(message) = self.unread.pop_front() else { return };
            match message {
                ToServer::Init(_) | ToServer::Pong { .. } => {}
                ToServer::Stopping => self.stopping = true,
                ToServer::Events(events) => {
                    for event in events {
                        let (at, event) = (event.checkpoint, event.event);
                        let actor = self.actors.get_mut(&*at.actor_id).expect("an event of an actor that exists");
                        self.kept.event(&at.actor_id, at.generation, &event);
                        let known = actor.events.entry(at.generation).or_default();
                        match known.get(&at.index) {
                            Some(first) => assert_eq!(*first, event, "another event under the same index"),
                            None => drop(known.insert(at.index, event)),
                        }
                    }
                }
                ToServer::AckCommands(checkpoints) => {
                    for at in checkpoints {
                        let actor = self.actors.get_mut(&*at.actor_id).expect("an actor that exists");
                        actor.stored.retain(|command| {
                            command.checkpoint.generation != at.generation || command.checkpoint.index > at.index
                        });
                    }
                }
                ToServer::Kv { request_id, request, .. } => {
                    let writes = matches!(request, greenroom::protocol::KvRequest::Put { .. });
                    self.storage.push_back((request_id, writes));
                }
                ToServer::Tunnel { id, message } => {
                    let actors = &self.actors;
                    self.kept.take(id.stream.request[0], &message, |actor| {
                        actors.get(actor).and_then(|actor| actor.newest).map(|(generation, _)| generation)
                    });
                    let last = match &message {
                        ToServerTunnel::ResponseStart { stream, .. } => !stream,
                        ToServerTunnel::ResponseChunk { finish, .. } => *finish,
                        ToServerTunnel::ResponseAbort | ToServerTunnel::WebSocketClose { .. } => true,
                        ToServerTunnel::WebSocketOpen { .. }
                        | ToServerTunnel::WebSocketMessage { .. }
                        | ToServerTunnel::WebSocketMessageAck { .. } => false,
                    };
                    if last {
                        self.ended_streams.insert(id.stream.request[0], message);
                    }
                }
            }
        }
    }
}

impl Actor {
    fn newest_has_ended(&self) -> bool {
        self.newest.is_some_and(|(generation, _)| self.has_ended(generation))
    }

    pub fn has_ended(&self, generation: u32) -> bool {
        self.events.get(&generation).is_some_and(|events| events.values().any(is_end))
    }
}

pub fn is_end(event: &Event) -> bool {
    matches!(event, Event::StoppedOk { .. } | Event::StoppedError { .. })
}
