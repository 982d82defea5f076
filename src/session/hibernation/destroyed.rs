//! Whether an actor that the gateway stops was destroyed.
//!
//! The Rivet engine does not say why it stops an actor. If it destroyed it, it leaves the sockets of its clients open,
//! without telling anyone; otherwise it keeps them for the next life. Storage tells which: that of a destroyed actor is
//! gone. It may go a little later than the stop comes, so one answer that it is there proves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use greenroom_protocol::{KvRequest, KvResponse, StreamId, ToServer};

use crate::actor::ActorKey;
use crate::session::tunnel::websocket_close;
use crate::session::{Effect, Session};

/// Questions to the gateway whether actors were destroyed.
#[derive(Debug, Default)]
pub(super) struct Destroyed {
    /// What was asked, by the id on the wire.
    asked: BTreeMap<u32, Question>,
    /// What is asked again, by when, for each time that it was asked before. The wait is the same for all in a queue, so
    /// the first is due first.
    again: [VecDeque<(Instant, Question)>; AGAIN_AFTER.len()],
}

#[derive(Debug)]
struct Question {
    actor: ActorKey,
    actor_id: ByteString,
    sockets: Vec<StreamId>,
    /// How often it was asked before.
    before: usize,
}

impl Destroyed {
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.again.iter().filter_map(|queue| queue.front()).map(|(due, _)| *due).min()
    }

    /// What was asked on this connection will not be answered on another.
    pub(super) fn disconnected(&mut self) {
        self.asked.clear();
        self.again.iter_mut().for_each(VecDeque::clear);
    }

    fn len(&self) -> usize {
        self.asked.len() + self.again.iter().map(VecDeque::len).sum::<usize>()
    }
}

impl Session {
    /// The gateway stops an actor unasked.
    pub(in crate::session) fn ask_whether_destroyed(&mut self, actor: &ActorKey) {
        if !self.link.features.are_none() || self.hibernation.destroyed.len() >= QUESTIONS_MAX {
            return;
        }
        let Some(life) = self.actors.life(actor).filter(|life| life.admits()) else { return };
        let actor_id = life.actor_id.clone();
        let mut sockets = self.streams_of(actor);
        sockets.retain(|id| self.tunnel.streams.get(id).is_some_and(|stream| stream.lasting().is_some()));
        if !sockets.is_empty() {
            self.ask(Question { actor: actor.clone(), actor_id, sockets, before: 0 });
        }
    }

    fn ask(&mut self, question: Question) {
        let request_id = self.storage.spare_wire_id();
        let actor_id = question.actor_id.clone();
        self.hibernation.destroyed.asked.insert(request_id, question);
        let request = KvRequest::Get { keys: Vec::new() };
        self.effects.push_back(Effect::Send(ToServer::Kv { actor_id, request_id, request }));
    }

    /// Whether it is the answer to a question of ours.
    pub(in crate::session) fn is_answer_of_destroyed(
        &mut self,
        request_id: u32,
        response: &KvResponse,
        now: Instant,
    ) -> bool {
        let Some(mut question) = self.hibernation.destroyed.asked.remove(&request_id) else { return false };
        if matches!(response, KvResponse::Error { message } if message.contains("does not exist")) {
            self.close_as_destroyed(&question);
            return true;
        }
        question.sockets.retain(|id| self.is_open_for(*id, &question.actor));
        if let Some(after) = AGAIN_AFTER.get(question.before)
            && !question.sockets.is_empty()
        {
            let queue = &mut self.hibernation.destroyed.again[question.before];
            question.before += 1;
            queue.push_back((now + *after, question));
        }
        true
    }

    pub(super) fn destroyed_timeout(&mut self, now: Instant) {
        for nth in 0..AGAIN_AFTER.len() {
            while let Some((due, _)) = self.hibernation.destroyed.again[nth].front()
                && *due <= now
                && let Some((_, question)) = self.hibernation.destroyed.again[nth].pop_front()
            {
                self.ask(question);
            }
        }
    }

    fn close_as_destroyed(&mut self, question: &Question) {
        for id in question.sockets.iter().copied() {
            if self.is_of(id, &question.actor) {
                self.close_websocket(id, 1000, ACTOR_DESTROYED);
            } else if self.is_open_for(id, &question.actor) {
                self.send_tunnel(id, 0, websocket_close(1000, ACTOR_DESTROYED));
            }
        }
    }

    /// Whether a life has a socket, or was the last to have it and its client has not closed it since.
    fn is_open_for(&self, id: StreamId, actor: &ActorKey) -> bool {
        let of_past = |gone: &super::Gone| gone.actor.as_ref() == Some(actor) && gone.closed.is_none();
        self.is_of(id, actor) || self.hibernation.gone.get(id).is_some_and(of_past)
    }
}

/// The engine deletes storage within milliseconds of the stop, under load within a second.
const AGAIN_AFTER: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];
/// The most questions without an end.
const QUESTIONS_MAX: usize = 4096;

const ACTOR_DESTROYED: &str = "actor.destroyed";
