//! Sockets at their actors. Of one that hibernates the actor notes in its storage how far it has taken it, and only then
//! acknowledges.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use greenroom::actor::ActorKey;
use greenroom::kv::KvError;
use greenroom::protocol::{KvRequest, KvResponse, StreamId, serial};
use greenroom::session::Input;
use greenroom::stream::{StreamKey, StreamReply};

use super::{Act, Ask, STALE_AFTER};
use crate::laws::Law;
use crate::world::World;
use crate::world::durable::{read_row, read_row_key, row_key, write_row};

/// A socket that a life has.
#[derive(Debug)]
pub struct HostSocket {
    key: StreamKey,
    lasting: bool,
    /// The actor has answered its opening.
    open: bool,
    /// Something was heard of it in this life.
    heard: bool,
    /// Given and not taken, as index and number.
    given: VecDeque<(u16, u32)>,
    last_given: u32,
    last_index: u16,
    /// Something is being made durable.
    storing: bool,
    /// The client is gone.
    closed: bool,
    /// The actor wants it closed.
    closing: bool,
    said: u64,
}

impl World {
    pub fn rows_loaded(&mut self, runner: usize, actor: &ActorKey, keys: &[Bytes], values: &[Bytes]) {
        let after = if self.calm { Duration::ZERO } else { self.dice.millis(0, 300) };
        let Some(life) = self.runners[runner].lives.get_mut(actor) else { return };
        for (key, value) in keys.iter().zip(values) {
            if let Some(id) = read_row_key(key) {
                life.rows.insert(id, read_row(value));
            }
        }
        self.host_later(runner, after, Act::Ready(actor.clone()));
    }

    pub fn host_is_given_socket(&mut self, runner: usize, actor: &ActorKey, stream: StreamKey, path: &str, index: u16) {
        self.check_stream(runner, actor, stream);
        let lasting = path.ends_with("/lasting");
        let socket = HostSocket::new(stream, lasting, 0, index);
        if let Some(life) = self.runners[runner].lives.get_mut(actor) {
            life.sockets.insert(stream.id, socket);
        }
        let after = if self.calm { Duration::ZERO } else { self.dice.millis(0, 500) };
        self.host_later(runner, after, Act::Open { actor: actor.clone(), stream });
    }

    /// The actor decides on an opening.
    pub fn open_taken(&mut self, runner: usize, actor: &ActorKey, stream: StreamKey) {
        let refuses = !self.calm && self.dice.percent(5);
        let Some(socket) = self.host_socket(runner, actor, stream.id).filter(|socket| socket.key == stream) else {
            return;
        };
        let (lasting, index) = (socket.lasting, socket.last_index);
        if refuses {
            self.forget_host_socket(runner, actor, stream.id);
            let reply = StreamReply::Close { code: Some(4003), reason: Some("not now".into()) };
            self.tell_runner(runner, Input::Reply { stream, reply });
        } else if lasting {
            socket.storing = true;
            let (keys, values) = (vec![row_key(stream.id).into()], vec![write_row(index, 0)]);
            self.ask_storage(runner, actor, Ask::Open(stream, index), KvRequest::Put { keys, values });
        } else {
            socket.open = true;
            self.tell_runner(runner, Input::Reply { stream, reply: StreamReply::Open { can_hibernate: false } });
        }
    }

    /// The session gives a life a socket that it has from an earlier one.
    pub fn host_is_given_back(&mut self, runner: usize, actor: &ActorKey, stream: StreamKey) {
        self.check_stream(runner, actor, stream);
        let Some(life) = self.runners[runner].lives.get_mut(actor) else { return };
        let Some((index, number)) = life.rows.get(&stream.id).copied() else {
            return self.broken(Law::ASocketIsReadInOrder, format!("{stream} was given back to {actor} unasked"));
        };
        let mut socket = HostSocket::new(stream, true, number, index);
        socket.open = true;
        socket.heard = life.listed.contains(&stream.id);
        life.sockets.insert(stream.id, socket);
    }

    pub fn host_hears(&mut self, runner: usize, stream: StreamKey, data: &[u8], index: u16) {
        let number: u32 = std::str::from_utf8(data).ok().and_then(|data| data.parse().ok()).expect("a number");
        let Some(actor) = self.life_of(runner, stream) else {
            // The host has refused or given it up, and the session is about to hear so.
            return;
        };
        let life = &self.runners[runner].lives[&actor];
        let (listens, by_engine) = (!life.told_stop && !life.wants_out, self.conditions.engine);
        let Some(socket) = self.host_socket(runner, &actor, stream.id) else { return };
        socket.heard = true;
        let lasting = socket.lasting;
        let (last, last_index) = (socket.last_given, socket.last_index);
        // The engine numbers openings like messages, so the first message may follow one that was lost.
        let follows = number == last + 1 && (index == serial::next(last_index) || last == 0 && by_engine);
        (socket.last_given, socket.last_index) = (number, index);
        if lasting {
            socket.given.push_back((index, number));
        }
        self.hold(Law::ASocketIsReadInOrder, follows, || {
            format!("{stream} of {actor}: {number} ({index}) after {last} ({last_index})")
        });
        self.hold(Law::ASocketIsReadInOrder, listens || !lasting, || {
            format!("{stream}: {number} for {actor}, which wants to leave")
        });
        self.tally.taken += u64::from(!lasting);
        if lasting {
            let after = if self.calm { Duration::ZERO } else { self.dice.millis(0, 300) };
            self.host_later(runner, after, Act::Take { actor, socket: stream.id });
        }
    }

    pub fn host_hears_close(&mut self, runner: usize, stream: StreamKey) {
        let Some(actor) = self.life_of(runner, stream) else { return };
        let Some(socket) = self.host_socket(runner, &actor, stream.id) else { return };
        socket.closed = true;
        if socket.lasting {
            self.take_next(runner, &actor, stream.id);
        } else {
            self.forget_host_socket(runner, &actor, stream.id);
        }
    }

    /// The session goes on without the life.
    pub fn host_is_cancelled(&mut self, runner: usize, stream: StreamKey) {
        self.runners[runner].uploads.remove(&stream);
        self.runners[runner].bodies.remove(&stream);
        let Some(actor) = self.life_of(runner, stream) else { return };
        self.forget_host_socket(runner, &actor, stream.id);
        self.host_later(runner, STALE_AFTER, Act::Stale { actor, socket: stream.id });
    }

    /// Makes durable what comes next on a socket: one thing at a time.
    pub fn take_next(&mut self, runner: usize, actor: &ActorKey, id: StreamId) {
        let Some(socket) = self.host_socket(runner, actor, id) else { return };
        if socket.storing || !socket.open && !socket.closed {
            return;
        }
        if let Some((index, number)) = socket.given.front().copied() {
            socket.storing = true;
            let (keys, values) = (vec![row_key(id).into()], vec![write_row(index, number)]);
            let ask = Ask::Take { socket: id, index, number };
            self.ask_storage(runner, actor, ask, KvRequest::Put { keys, values });
        } else if socket.closed || socket.closing {
            socket.storing = true;
            self.ledger.closed_by_actor.insert(id);
            let Some(socket) = self.host_socket(runner, actor, id) else { return };
            let ask = Ask::Forget { socket: id, says: !socket.closed };
            self.ask_storage(runner, actor, ask, KvRequest::Delete { keys: vec![row_key(id).into()] });
        }
    }

    pub fn socket_stored(&mut self, runner: usize, actor: &ActorKey, ask: Ask, result: Result<KvResponse, KvError>) {
        let done = matches!(result, Ok(KvResponse::Put | KvResponse::Delete));
        let (Ask::Open(StreamKey { id, .. }, _) | Ask::Take { socket: id, .. } | Ask::Forget { socket: id, .. }) = ask
        else {
            return;
        };
        let Some(life) = self.runners[runner].lives.get_mut(actor) else { return };
        match &ask {
            Ask::Open(_, index) if done => drop(life.rows.insert(id, (*index, 0))),
            Ask::Take { index, number, .. } if done => drop(life.rows.insert(id, (*index, *number))),
            Ask::Forget { .. } if done => drop(life.rows.remove(&id)),
            _ => {}
        }
        let Some(socket) = life.sockets.get_mut(&id) else { return };
        socket.storing = false;
        let stream = socket.key;
        match (ask, done) {
            (Ask::Open(opening, _), true) if opening == stream => {
                socket.open = true;
                self.tell_runner(runner, Input::Reply { stream, reply: StreamReply::Open { can_hibernate: true } });
            }
            (Ask::Open(..), _) => {
                let reply = StreamReply::Close { code: Some(1011), reason: Some("cannot be noted".into()) };
                socket.closing = true;
                self.tell_runner(runner, Input::Reply { stream, reply });
            }
            (Ask::Take { index, .. }, true) => {
                socket.given.pop_front();
                self.tally.taken += 1;
                self.tell_runner(runner, Input::Reply { stream, reply: StreamReply::MessageAck { index } });
            }
            (Ask::Forget { says, .. }, true) => {
                self.forget_host_socket(runner, actor, id);
                if says {
                    let reply = StreamReply::Close { code: Some(4001), reason: Some("enough".into()) };
                    self.tell_runner(runner, Input::Reply { stream, reply });
                }
                return;
            }
            // Whether it was written or not, writing it again does no harm.
            (Ask::Take { .. } | Ask::Forget { .. }, false) => {
                let again = Act::Take { actor: actor.clone(), socket: id };
                return self.host_later(runner, Duration::from_millis(500), again);
            }
            _ => {}
        }
        self.take_next(runner, actor, id);
    }

    pub fn socket_stale(&mut self, runner: usize, actor: &ActorKey, id: StreamId) {
        let Some(life) = self.runners[runner].lives.get_mut(actor).filter(|life| !life.told_stop) else { return };
        if !life.rows.contains_key(&id) {
            return;
        }
        match life.sockets.get_mut(&id) {
            Some(socket) if socket.heard => {}
            Some(socket) => {
                socket.closing = true;
                self.take_next(runner, actor, id);
            }
            None => {
                self.ledger.closed_by_actor.insert(id);
                let ask = Ask::Forget { socket: id, says: false };
                self.ask_storage(runner, actor, ask, KvRequest::Delete { keys: vec![row_key(id).into()] });
            }
        }
    }

    pub fn speak(&mut self, pick: u64, closes: bool) {
        let Some((runner, actor, id)) = self.any_host_socket(pick) else { return };
        let Some(socket) = self.host_socket(runner, &actor, id).filter(|socket| socket.open) else { return };
        let stream = socket.key;
        if closes && socket.lasting {
            socket.closing = true;
            return self.take_next(runner, &actor, id);
        }
        let reply = if closes {
            self.forget_host_socket(runner, &actor, id);
            StreamReply::Close { code: Some(4001), reason: None }
        } else {
            socket.said += 1;
            // Numbers rise from life to life.
            let number = u64::from(actor.generation) * 1_000_000 + socket.said;
            StreamReply::Message { data: number.to_string().into(), binary: false }
        };
        self.tell_runner(runner, Input::Reply { stream, reply });
    }

    /// The life that has a stream.
    fn life_of(&self, runner: usize, stream: StreamKey) -> Option<ActorKey> {
        let lives = &self.runners[runner].lives;
        let has = |life: &super::Life| life.sockets.get(&stream.id).is_some_and(|socket| socket.key == stream);
        lives.iter().find(|(_, life)| has(life)).map(|(key, _)| key.clone())
    }

    fn host_socket(&mut self, runner: usize, actor: &ActorKey, id: StreamId) -> Option<&mut HostSocket> {
        self.runners[runner].lives.get_mut(actor)?.sockets.get_mut(&id)
    }

    fn forget_host_socket(&mut self, runner: usize, actor: &ActorKey, id: StreamId) {
        if let Some(life) = self.runners[runner].lives.get_mut(actor) {
            life.sockets.remove(&id);
        }
    }
}

impl HostSocket {
    fn new(key: StreamKey, lasting: bool, last_given: u32, last_index: u16) -> Self {
        HostSocket {
            key,
            lasting,
            open: false,
            heard: false,
            given: VecDeque::new(),
            last_given,
            last_index,
            storing: false,
            closed: false,
            closing: false,
            said: 0,
        }
    }
}
