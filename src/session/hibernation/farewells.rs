//! Closing sockets that the gateway may not listen to yet: what is said too early is lost, and the client would wait
//! for ever. So it is said when the gateway should listen, once more a little later, and again whenever the client's
//! messages show that it was not heard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use greenroom_protocol::{StreamId, ToServerTunnel, serial};

use super::super::actors::Phase;
use super::super::tunnel::{Kind, Stream, websocket_close};
use super::{ATTACHING, Attachment, weight_of};
use crate::actor::ActorKey;
use crate::session::Session;

/// The last words on a socket.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) actor: ActorKey,
    next_out: u16,
    /// What was said before.
    pub(super) held: VecDeque<ToServerTunnel>,
    close: ToServerTunnel,
    /// How often it was said.
    said: u8,
}

impl Session {
    /// The last words on a socket that the gateway may not listen to yet.
    pub(in crate::session) fn bid_farewell(&mut self, id: StreamId, stream: Stream, close: ToServerTunnel) {
        let Stream { actor, next_out, kind, .. } = stream;
        let Kind::WebSocket { lasting: Some(lasting), .. } = kind else { return };
        let due = match lasting.attachment {
            Attachment::Expected(at) => Some(at),
            Attachment::Sure | Attachment::WhenRunning => None,
        };
        self.tunnel.held_bytes += weight_of(&lasting.held);
        self.note_farewell(id, Farewell { actor, next_out, held: lasting.held, close, said: 0 }, due);
    }

    /// Closes a socket that the gateway has kept and nobody here takes.
    pub(super) fn refuse_socket(
        &mut self,
        id: StreamId,
        actor: &ActorKey,
        code: u16,
        reason: &'static str,
        now: Instant,
    ) {
        let running = self.actors.life(actor).is_some_and(|life| matches!(life.phase, Phase::Running));
        let close = websocket_close(code, reason);
        let farewell = Farewell { actor: actor.clone(), next_out: 0, held: VecDeque::new(), close, said: 0 };
        self.note_farewell(id, farewell, running.then(|| now + ATTACHING));
    }

    /// Without a time it waits until the life runs.
    fn note_farewell(&mut self, id: StreamId, farewell: Farewell, due: Option<Instant>) {
        let actor = farewell.actor.clone();
        if let Some((forgotten, farewell)) = self.hibernation.farewells.note(id, farewell) {
            self.drop_farewell(forgotten, &farewell);
        }
        self.hibernation.unsaid.entry(actor).or_default().insert(id);
        if let Some(due) = due {
            self.hibernation.farewells_due.insert((due, id));
        }
    }

    /// The life runs, and the gateway listens soon.
    pub(super) fn farewells_of_running(&mut self, actor: &ActorKey, now: Instant) {
        let hibernation = &mut self.hibernation;
        for id in hibernation.unsaid.get(actor).into_iter().flatten() {
            hibernation.farewells_due.insert((now + ATTACHING, *id));
        }
    }

    /// The life is over: what it did not say before, it says now.
    pub(in crate::session) fn farewells_of_ended(&mut self, actor: &ActorKey) {
        for id in self.hibernation.unsaid.remove(actor).unwrap_or_default() {
            self.say_farewell(id);
            self.forget_farewell(id);
        }
    }

    pub(super) fn farewells_timeout(&mut self, now: Instant) {
        while let Some((due, id)) = self.hibernation.farewells_due.first().copied()
            && due <= now
        {
            self.hibernation.farewells_due.pop_first();
            let Some(farewell) = self.hibernation.farewells.get(id) else { continue };
            if self.actors.life(&farewell.actor).is_none_or(|life| !life.is_live()) {
                self.forget_farewell(id);
                continue;
            }
            let actor = farewell.actor.clone();
            let again = AGAIN_AFTER.get(usize::from(farewell.said)).copied();
            self.say_farewell(id);
            if let Some(after) = again {
                self.hibernation.farewells_due.insert((now + after, id));
            }
            self.tell_sleep(&actor);
        }
    }

    /// A message of a client whose socket was closed. Answers whether there is a farewell to it.
    pub(super) fn repeat_farewell(&mut self, id: StreamId) -> bool {
        let Some(farewell) = self.hibernation.farewells.get(id) else { return false };
        let life = self.actors.life(&farewell.actor);
        if farewell.said > SAID_MAX || life.is_none_or(|life| !life.is_live()) {
            self.forget_farewell(id);
        } else if farewell.said > 0 {
            self.say_farewell(id);
        }
        true
    }

    /// Nothing has to be said any more: the gateway has closed the socket, or opened it anew. Answers whether there was.
    pub(in crate::session) fn forget_farewell(&mut self, id: StreamId) -> bool {
        let Some(farewell) = self.hibernation.farewells.take(id) else { return false };
        self.drop_farewell(id, &farewell);
        true
    }

    fn drop_farewell(&mut self, id: StreamId, farewell: &Farewell) {
        self.tunnel.held_bytes -= weight_of(&farewell.held);
        self.hibernation.said(&farewell.actor, id);
    }

    fn say_farewell(&mut self, id: StreamId) {
        let Some(farewell) = self.hibernation.farewells.get_mut(id) else { return };
        farewell.said = farewell.said.saturating_add(1);
        let mut words = std::mem::take(&mut farewell.held);
        self.tunnel.held_bytes -= weight_of(&words);
        words.push_back(farewell.close.clone());
        let first = farewell.next_out;
        farewell.next_out = words.iter().fold(first, |index, _| serial::next(index));
        let actor = farewell.actor.clone();
        self.hibernation.said(&actor, id);
        let mut index = first;
        for message in words {
            self.send_tunnel(id, index, message);
            index = serial::next(index);
        }
    }
}

/// When a farewell is said again, after it was said for the first time and for the second.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// A gateway that has not heard it by then does not want to.
const SAID_MAX: u8 = 16;
