//! Sockets that hibernate, in the model: what the gateway keeps of them, and what the hosts have taken.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use greenroom::actor::ActorKey;
use greenroom::protocol::{Event, StreamId, ToClientTunnel, ToServerTunnel, serial};
use greenroom::session::{Effect, Input};
use greenroom::stream::{StreamKey, StreamReply};

use super::world::{Socket, World};
use crate::stage::stream;

/// The gateway's end, which works as the engine's does.
#[derive(Default)]
pub struct Kept {
    pub sockets: BTreeMap<u8, KeptSocket>,
    /// What is to be sent: id, index and number of each message.
    pub outbox: Vec<(u8, u16, u32)>,
}

pub struct KeptSocket {
    pub actor: String,
    /// Messages without an acknowledgement: index and number.
    kept: VecDeque<(u16, u32)>,
    next_index: u16,
    /// How many messages the client has sent.
    said: u32,
    /// The life that its messages go to.
    attached: Option<u32>,
}

/// The hosts' end.
#[derive(Default)]
pub struct Taken {
    /// What outlives lives: how far each socket was taken, as index and number.
    table: BTreeMap<u8, (String, u16, u32)>,
    open: BTreeMap<u8, OpenSocket>,
}

struct OpenSocket {
    key: StreamKey,
    actor: ActorKey,
    /// Given to the life and not taken.
    given: VecDeque<(u16, u32)>,
    last_given: u32,
}

/// Sockets with these ids hibernate.
pub fn hibernates(id: u8) -> bool {
    id >= 10
}

impl Kept {
    pub fn take(&mut self, id: u8, message: &ToServerTunnel, newest: impl Fn(&str) -> Option<u32>) {
        if let ToServerTunnel::WebSocketOpen { can_hibernate: true } = message {
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.attached = newest(&socket.actor);
            }
            return;
        }
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        match message {
            ToServerTunnel::WebSocketMessageAck { index } => {
                socket.kept.retain(|(kept, _)| serial::newer(*kept, *index));
            }
            ToServerTunnel::WebSocketClose { hibernate: true, .. } if socket.attached.is_some() => {
                self.outbox.extend(socket.kept.iter().map(|(index, number)| (id, *index, *number)));
            }
            // One that comes before the socket is attached is lost.
            ToServerTunnel::WebSocketClose { hibernate: false, .. } if socket.attached.is_some() => {
                self.sockets.remove(&id);
            }
            _ => {}
        }
    }

    pub fn event(&mut self, actor: &str, generation: u32, event: &Event) {
        for (id, socket) in self.sockets.iter_mut().filter(|(_, socket)| socket.actor == actor) {
            match event {
                Event::Running => {
                    socket.attached = Some(generation);
                    self.outbox.extend(socket.kept.iter().map(|(index, number)| (*id, *index, *number)));
                }
                Event::StoppedOk { .. } | Event::StoppedError { .. } if socket.attached == Some(generation) => {
                    socket.attached = None;
                }
                _ => {}
            }
        }
    }

    pub fn forget_runner(&mut self) {
        for socket in self.sockets.values_mut() {
            socket.attached = None;
        }
    }

    pub fn of(&self, actor: &str) -> Vec<StreamId> {
        self.sockets.iter().filter(|(_, socket)| socket.actor == actor).map(|(id, _)| stream(*id)).collect()
    }
}

impl World {
    pub fn opens_lasting(&mut self, actor: &str, id: u8) {
        if self.socket != Socket::Open
            || self.gateway.kept.sockets.contains_key(&id)
            || self.taken.open.contains_key(&id)
        {
            return;
        }
        self.read(usize::MAX);
        self.taken.table.remove(&id);
        let open = ToClientTunnel::WebSocketOpen { actor_id: actor.into(), path: "/".into(), headers: vec![] };
        self.say_on(id, 0, open);
        let Some(open) = self.taken.open.get(&id) else { return self.read(usize::MAX) };
        let key = open.key;
        self.taken.table.insert(id, (actor.to_owned(), 0, 0));
        let socket = KeptSocket { actor: actor.into(), kept: VecDeque::new(), next_index: 1, said: 0, attached: None };
        self.gateway.kept.sockets.insert(id, socket);
        self.input(Input::Reply { stream: key, reply: StreamReply::Open { can_hibernate: true } });
        self.read(usize::MAX);
    }

    pub fn client_says(&mut self, id: u8) {
        let Some(socket) = self.gateway.kept.sockets.get_mut(&id) else { return };
        let index = socket.next_index;
        socket.next_index = serial::next(index);
        socket.said += 1;
        socket.kept.push_back((index, socket.said));
        if socket.attached.is_some() {
            let message = (id, index, socket.said);
            self.gateway.kept.outbox.push(message);
            self.deliver_kept();
        }
    }

    /// The client goes; unless the actor hears of it now, it never does.
    pub fn client_leaves_lasting(&mut self, id: u8) {
        let Some(socket) = self.gateway.kept.sockets.remove(&id) else { return };
        if socket.attached.is_some() {
            self.say_on(id, socket.next_index, ToClientTunnel::WebSocketClose { code: Some(4000), reason: None });
        }
    }

    /// Sends what the gateway wants to send; without a connection it is lost.
    pub fn deliver_kept(&mut self) {
        for (id, index, number) in std::mem::take(&mut self.gateway.kept.outbox) {
            let data = Bytes::copy_from_slice(&number.to_be_bytes());
            self.say_on(id, index, ToClientTunnel::WebSocketMessage { data, binary: true });
        }
    }

    /// A life says which sockets it knows.
    pub fn restore(&mut self, actor: &ActorKey) {
        let known: Vec<(StreamId, u16)> = self
            .taken
            .table
            .iter()
            .filter(|(_, (name, ..))| **name == *actor.id)
            .map(|(id, (_, index, _))| (stream(*id), *index))
            .collect();
        let listed = self.listed.remove(actor).unwrap_or_default();
        let unknown = listed.into_iter().filter(|id| known.iter().all(|(known, _)| known != id)).collect();
        self.input(Input::Restored { actor: actor.clone(), sockets: known, unknown });
    }

    /// A host takes the oldest message of a socket for good, and may say so.
    pub fn host_takes(&mut self, id: u8, says_so: bool) {
        let Some(open) = self.taken.open.get_mut(&id) else { return };
        if !self.hosted.contains_key(&open.actor) {
            return;
        }
        if let Some((index, number)) = open.given.pop_front() {
            let (_, last, taken) = self.taken.table.get_mut(&id).expect("a socket that is open is in the table");
            assert_eq!(number, *taken + 1, "{id}: a message was skipped or came twice");
            (*last, *taken) = (index, number);
        }
        if says_so {
            let (_, index, _) = self.taken.table[&id];
            let stream = open.key;
            self.input(Input::Reply { stream, reply: StreamReply::MessageAck { index } });
        }
    }

    pub fn host_says(&mut self, id: u8, closes: bool) {
        let Some(open) = self.taken.open.get(&id) else { return };
        let stream = open.key;
        let reply = if closes {
            self.taken.table.remove(&id);
            self.taken.open.remove(&id);
            StreamReply::Close { code: Some(4001), reason: None }
        } else {
            StreamReply::Message { data: Bytes::from_static(b"hello"), binary: false }
        };
        self.input(Input::Reply { stream, reply });
    }

    /// The laws about an effect on a socket that hibernates.
    pub fn check_lasting(&mut self, effect: Effect) {
        match effect {
            Effect::WebSocket { actor, stream, .. } => {
                let open = OpenSocket { key: stream, actor, given: VecDeque::new(), last_given: 0 };
                self.taken.open.insert(stream.id.request[0], open);
            }
            Effect::WebSocketRestored { actor, stream } => {
                let id = stream.id.request[0];
                let last_given = self.taken.table[&id].2;
                let open = OpenSocket { key: stream, actor, given: VecDeque::new(), last_given };
                assert!(self.taken.open.insert(id, open).is_none(), "{id} restored while it is open");
            }
            Effect::WebSocketMessage { stream, data, index, .. } => {
                let number = u32::from_be_bytes(data[..].try_into().expect("a number"));
                let open = self.taken.open.get_mut(&stream.id.request[0]).expect("a message on an open socket");
                assert_eq!(open.key, stream);
                assert!(!self.wishes.contains(&open.actor), "{} wants to leave", open.actor);
                assert_eq!(self.hosted.get(&open.actor), Some(&false), "{} is not there or stops", open.actor);
                assert_eq!(number, open.last_given + 1, "{stream}: skipped, or given twice to one life");
                open.last_given = number;
                open.given.push_back((index, number));
            }
            Effect::WebSocketClosed { stream, .. } => {
                let id = stream.id.request[0];
                let open = self.taken.open.remove(&id).expect("a close of an open socket");
                // A life that is told to stop may not take note any more.
                if self.hosted.get(&open.actor) == Some(&false) {
                    self.taken.table.remove(&id);
                }
            }
            Effect::Cancel { stream } => {
                self.taken.open.remove(&stream.id.request[0]).expect("a cancelled socket is open");
            }
            other => panic!("not on such a socket: {other:?}"),
        }
    }

    pub fn check_sent_on_lasting(&mut self, id: u8, message: &ToServerTunnel) {
        if let ToServerTunnel::WebSocketMessageAck { index } = message
            && let Some((_, taken, _)) = self.taken.table.get(&id)
        {
            assert!(!serial::newer(*index, *taken), "{id}: {index} acknowledged and only {taken} taken");
        }
    }

    /// Everything that clients said to actors that run reaches them, when the gateway is there for a while.
    pub fn settle_lasting(&mut self) {
        for _ in 0..6 {
            self.pass(1000);
            self.read(usize::MAX);
            for id in self.taken.open.keys().copied().collect::<Vec<_>>() {
                while self.taken.open.get(&id).is_some_and(|open| !open.given.is_empty()) {
                    self.host_takes(id, true);
                }
            }
        }
        if self.socket != Socket::Open {
            return;
        }
        for (id, socket) in &self.gateway.kept.sockets {
            let Some(generation) = socket.attached else { continue };
            let actor = ActorKey::new(&*socket.actor, generation);
            let Some((_, _, taken)) = self.taken.table.get(id) else { continue };
            let serves = self.hosted.get(&actor) == Some(&false) && !self.wishes.contains(&actor);
            if serves && self.taken.open.get(id).is_some_and(|open| open.actor == actor) {
                assert_eq!(*taken, socket.said, "{id}: messages did not reach {actor}");
            }
        }
    }
}
