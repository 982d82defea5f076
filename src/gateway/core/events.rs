//! What runners say happened to actors: each event counts once.

use std::sync::Arc;

use bytestring::ByteString;
use greenroom_protocol::delivery::{Arrival, Cursor};
use greenroom_protocol::{Checkpoint, Event, EventWrapper, ToClient};
use tracing::debug;

use super::rules::Ending;
use super::timers::Timer;
use super::{ConnectionId, Core, Effect, Now};

impl Core {
    pub(super) fn events(
        &mut self,
        connection: ConnectionId,
        runner_id: &Arc<str>,
        events: Vec<EventWrapper>,
        now: Now,
    ) {
        for EventWrapper { checkpoint, event } in events {
            let Checkpoint { actor_id, generation, index } = checkpoint;
            let Some(actor) = self.directory.actors.get_mut(&*actor_id) else {
                self.stray_event(connection, runner_id, &actor_id, generation, index, &event, now);
                continue;
            };
            if !actor.is_held_by(runner_id, generation) {
                self.stray_event(connection, runner_id, &actor_id, generation, index, &event, now);
                continue;
            }
            let id = actor.record.id.clone();
            let anew = event == Event::Running
                && actor.start_repeated
                && actor.events.last().is_some_and(|last| index <= last);
            if anew {
                // The runner took the repeated start for a new one and counts from the beginning. Were its events
                // taken for repeats, the actor could never be heard of again.
                actor.events = Cursor::default();
                actor.start_repeated = false;
            }
            let arrival = actor.events.arrive(index);
            self.note_event(connection, id.clone(), generation, index, now);
            match arrival {
                Arrival::Repeat => continue,
                Arrival::New => {}
            }
            actor_event_taken(self, &id, index);
            match event {
                Event::Running => {
                    self.actor_running(&id, now);
                    if anew {
                        self.resend_sockets(&id, now);
                    }
                }
                Event::SleepIntent => self.sleep_intent(&id, now),
                Event::StopIntent => self.stop_intent(&id, now),
                Event::SetAlarm { at } => self.set_alarm(&id, at),
                Event::StoppedOk { message: _ } => {
                    // The acknowledgement must be on its way before the next start: a runner that keeps one history
                    // per actor would take it for one of the next life.
                    self.acknowledge_events(connection);
                    self.actor_stopped(&id, Ending::Ok, now);
                }
                Event::StoppedError { message } => {
                    self.acknowledge_events(connection);
                    self.actor_stopped(&id, Ending::Failed(message.map(|message| message.to_string())), now);
                }
            }
        }
    }

    /// Sends what is to be acknowledged on a connection.
    pub(super) fn acknowledge_events(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.by_id.get_mut(&connection) else { return };
        peer.unacknowledged = 0;
        let checkpoints: Vec<Checkpoint> = std::mem::take(&mut peer.acknowledge)
            .into_iter()
            .map(|((actor_id, generation), index)| Checkpoint {
                actor_id: ByteString::from(&*actor_id),
                generation,
                index,
            })
            .collect();
        self.timers.cancel(&Timer::Acknowledge(connection));
        if !checkpoints.is_empty() {
            let message = ToClient::AckEvents(checkpoints);
            self.out.push_gated(Effect::Send { connection, message, after: 0 });
        }
    }

    fn note_event(&mut self, connection: ConnectionId, actor_id: Arc<str>, generation: u32, index: i64, now: Now) {
        let due = now.instant + self.settings.thresholds.acknowledge;
        let Some(peer) = self.peers.by_id.get_mut(&connection) else { return };
        let highest = peer.acknowledge.entry((actor_id, generation)).or_insert(index);
        *highest = index.max(*highest);
        peer.unacknowledged += 1;
        if peer.unacknowledged >= ACKNOWLEDGE_AT {
            self.acknowledge_events(connection);
        } else {
            self.timers.set_earlier(Timer::Acknowledge(connection), due);
        }
    }

    /// An event of a life that is no actor's: over, or never heard of.
    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    fn stray_event(
        &mut self,
        connection: ConnectionId,
        runner_id: &Arc<str>,
        actor_id: &ByteString,
        generation: u32,
        index: i64,
        event: &Event,
        now: Now,
    ) {
        debug!(%runner_id, %actor_id, generation, ?event, "event of a life that is over");
        // The runner keeps it until somebody has it; nobody needs it.
        let actor_id: Arc<str> = Arc::from(&**actor_id);
        self.note_event(connection, actor_id.clone(), generation, index, now);
        match event {
            Event::StoppedOk { .. } | Event::StoppedError { .. } => {
                self.acknowledge_events(connection);
                self.leftover_ended(runner_id, &actor_id, generation);
            }
            Event::Running => self.stop_stray(runner_id, &actor_id, generation, now),
            Event::SleepIntent | Event::StopIntent | Event::SetAlarm { .. } => {}
        }
    }
}

fn actor_event_taken(core: &mut Core, actor_id: &Arc<str>, index: i64) {
    if let Some(actor) = core.directory.actors.get_mut(actor_id) {
        actor.record.last_event = Some(index);
        core.out.touch(actor_id);
    }
}

/// Events are acknowledged at the latest when there are this many of them on a connection.
const ACKNOWLEDGE_AT: u32 = 50;
