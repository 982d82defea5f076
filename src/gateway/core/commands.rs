//! What runners are told to do with actors, until they acknowledge it.

use std::sync::Arc;

use bytestring::ByteString;
use greenroom_protocol::delivery::Outbox;
use greenroom_protocol::{ActorConfig, Checkpoint, Command, CommandWrapper, StreamId, ToClient, Version};

use super::directory::{Actor, is_placed};
use super::{ConnectionId, Core, Effect};
use crate::store::{ActorRecord, Phase};

/// A command without what the actor's record says anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Start it.
    Start {
        /// When this was decided, in milliseconds since the epoch.
        create_ts: i64,
    },
    /// Stop it.
    Stop,
}

/// The commands that a record leaves unacknowledged: at most a start and a stop.
pub(super) fn outstanding(record: &ActorRecord) -> Outbox<Order> {
    if !is_placed(record.phase) || record.command_acknowledged || record.next_command <= 0 {
        return Outbox::new(record.next_command, COMMANDS_MAX);
    }
    let start = Order::Start { create_ts: record.pending_allocation_ts.unwrap_or(record.create_ts) };
    let last = record.next_command - 1;
    match record.phase {
        Phase::StoppingToSleep | Phase::StoppingToDestroy | Phase::StoppingToMove if last > 0 => {
            // A runner that has sent events about this life has seen its start.
            let orders = if record.last_event.is_some() { vec![Order::Stop] } else { vec![start, Order::Stop] };
            filled(record.next_command, orders)
        }
        _ => filled(record.next_command, vec![start]),
    }
}

fn filled(next: i64, orders: Vec<Order>) -> Outbox<Order> {
    let first = i64::try_from(orders.len()).map_or(next, |count| next - count);
    let mut outbox = Outbox::new(first, COMMANDS_MAX);
    for order in orders {
        outbox.push_beyond(order);
    }
    outbox
}

impl Actor {
    /// Numbers a command; it goes out with the next [`Core::send_commands`].
    pub(super) fn order(&mut self, order: Order) {
        self.commands.push_beyond(order);
        self.record.next_command = self.commands.next_index();
        self.record.command_acknowledged = false;
    }

    fn wrap(&self, index: i64, order: Order, sockets: impl FnOnce() -> Vec<StreamId>) -> CommandWrapper {
        let command = match order {
            Order::Start { create_ts } => Command::Start {
                config: ActorConfig {
                    name: ByteString::from(&*self.record.name),
                    key: self.record.key.as_deref().map(ByteString::from),
                    create_ts,
                    input: self.record.input.clone(),
                },
                hibernating: sockets(),
            },
            Order::Stop => Command::Stop,
        };
        let checkpoint = Checkpoint { actor_id: self.wire_id.clone(), generation: self.record.generation, index };
        CommandWrapper { checkpoint, command }
    }

    /// Moves what its runner has not been sent to `commands`; a start names the sockets that wait for the actor.
    fn unsent(&mut self, commands: &mut Vec<CommandWrapper>, sockets: impl Fn(&Arc<str>) -> Vec<StreamId>) {
        while let Some((index, order)) = self.commands.send_next().map(|(index, order)| (index, *order)) {
            commands.push(self.wrap(index, order, || sockets(&self.record.id)));
        }
    }
}

impl Core {
    /// Sends what an actor's runner has not been sent on its connection.
    pub(super) fn send_commands(&mut self, actor_id: &str) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let Some(connection) = actor.record.runner_id.as_ref().and_then(|id| self.runners.link(id)) else { return };
        let mut commands = Vec::new();
        actor.unsent(&mut commands, |id| self.hibernation.ids(id, self.settings.gateway_id));
        self.send_gated_commands(connection, commands);
    }

    /// Sends everything a runner has not acknowledged, in one message, grouped by actor.
    pub(super) fn redeliver_commands(&mut self, runner_id: &str, connection: ConnectionId) {
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        let mut commands = Vec::new();
        for ((actor_id, generation), leftover) in &mut runner.leftovers {
            while let Some((index, Order::Stop)) = leftover.commands.send_next().map(|(index, order)| (index, *order)) {
                commands.push(stop(actor_id, *generation, index));
            }
        }
        for actor_id in &runner.actors {
            let Some(actor) = self.directory.actors.get_mut(actor_id) else { continue };
            actor.start_repeated = actor.commands.iter().any(|(_, order)| matches!(order, Order::Start { .. }));
            actor.unsent(&mut commands, |id| self.hibernation.ids(id, self.settings.gateway_id));
        }
        self.send_gated_commands(connection, commands);
    }

    /// Tells a runner to stop a life that is no actor's any more.
    pub(super) fn send_leftover_stop(&mut self, runner_id: &str, actor_id: &Arc<str>, generation: u32) {
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        let Some(connection) = runner.link else { return };
        let Some(leftover) = runner.leftovers.get_mut(&(actor_id.clone(), generation)) else { return };
        let mut commands = Vec::new();
        while let Some((index, _)) = leftover.commands.send_next() {
            commands.push(stop(actor_id, generation, index));
        }
        self.send_gated_commands(connection, commands);
    }

    /// A runner has taken commands up to these.
    pub(super) fn commands_acknowledged(&mut self, runner_id: &str, version: Version, checkpoints: &[Checkpoint]) {
        for checkpoint in checkpoints {
            let actor_id: &str = &checkpoint.actor_id;
            if let Some(actor) = self.directory.actors.get_mut(actor_id) {
                // Before version 5 an acknowledgement does not say which life it means: the one the runner has.
                let generation = if version < Version::V5 { actor.record.generation } else { checkpoint.generation };
                if actor.is_held_by(runner_id, generation) {
                    actor.commands.acknowledge(checkpoint.index);
                    if actor.commands.is_empty() && !actor.record.command_acknowledged {
                        actor.record.command_acknowledged = true;
                        let id = actor.record.id.clone();
                        self.out.touch(&id);
                    }
                    continue;
                }
            }
            if let Some(runner) = self.runners.by_id.get_mut(runner_id) {
                let key = (Arc::from(actor_id), checkpoint.generation);
                if let Some(leftover) = runner.leftovers.get_mut(&key) {
                    leftover.commands.acknowledge(checkpoint.index);
                }
            }
        }
    }

    fn send_gated_commands(&mut self, connection: ConnectionId, commands: Vec<CommandWrapper>) {
        if !commands.is_empty() {
            let message = ToClient::Commands(commands);
            self.out.push_gated(Effect::Send { connection, message, after: 0 });
        }
    }
}

fn stop(actor_id: &str, generation: u32, index: i64) -> CommandWrapper {
    let checkpoint = Checkpoint { actor_id: ByteString::from(actor_id), generation, index };
    CommandWrapper { checkpoint, command: Command::Stop }
}

/// A life has a start and a stop.
const COMMANDS_MAX: usize = 2;
