//! Actors that read and send bodies on credit, some of them slowly.

use greenroom::actor::ActorKey;
use greenroom::session::Input;
use greenroom::stream::{StreamKey, StreamReply};

use super::Act;
use crate::laws::Law;
use crate::world::World;
use crate::world::credit::{Reading, Sending};

/// A body that an actor reads, or sends.
#[derive(Debug)]
pub enum HostBody {
    Reads { actor: ActorKey, reading: Reading },
    Sends { sending: Sending, begun: bool },
}

impl World {
    /// Whether the request is one with a body on credit, or for one.
    pub fn host_begins_body(
        &mut self,
        runner: usize,
        actor: &ActorKey,
        stream: StreamKey,
        path: &str,
        credit: bool,
    ) -> bool {
        let body = if path.starts_with("/send/") {
            HostBody::Reads { actor: actor.clone(), reading: Reading::default() }
        } else if let Some(rest) = path.strip_prefix("/fetch/") {
            let pieces = rest.split('/').next().and_then(|pieces| pieces.parse().ok()).expect("a number");
            let after = self.slowly();
            self.host_later(runner, after, Act::SendPiece { stream });
            HostBody::Sends { sending: Sending::new(pieces, credit), begun: false }
        } else {
            return false;
        };
        self.runners[runner].bodies.insert(stream, body);
        true
    }

    /// A piece of a body has come for an actor that reads one.
    pub fn host_is_sent_piece(&mut self, runner: usize, stream: StreamKey, bytes: usize, finish: bool) -> bool {
        let Some(HostBody::Reads { reading, .. }) = self.runners[runner].bodies.get_mut(&stream) else { return false };
        let reads_already = reading.has_more();
        if let Err((law, what)) = reading.came(bytes, finish) {
            self.broken(law, format!("the actor of {stream}: {what}"));
        } else if !reads_already {
            let after = self.slowly();
            self.host_later(runner, after, Act::ReadPiece { stream });
        }
        true
    }

    pub fn host_reads(&mut self, runner: usize, stream: StreamKey) {
        let Some(HostBody::Reads { actor, reading }) = self.runners[runner].bodies.get_mut(&stream) else { return };
        let (actor, grants) = (actor.clone(), reading.read());
        let (more, over) = (reading.has_more(), reading.is_over());
        if more {
            let after = self.slowly();
            self.host_later(runner, after, Act::ReadPiece { stream });
        } else if over {
            self.tally.bodies += 1;
            self.runners[runner].bodies.remove(&stream);
            self.answer_some_time(runner, &actor, stream, u32::from_be_bytes(stream.id.request));
        }
        for _ in 0..grants {
            self.tell_runner(runner, Input::Reply { stream, reply: StreamReply::Grant });
        }
    }

    /// Sends the head of an answer, then what there is credit for.
    pub fn host_sends(&mut self, runner: usize, stream: StreamKey) {
        let Some(HostBody::Sends { sending, begun }) = self.runners[runner].bodies.get_mut(&stream) else { return };
        let reply = if !std::mem::replace(begun, true) {
            StreamReply::Response { status: 200, headers: Vec::new(), body: bytes::Bytes::new(), more: true }
        } else if let Some((body, finish)) = sending.next() {
            StreamReply::Chunk { body, finish }
        } else {
            return;
        };
        let after = self.slowly();
        self.host_later(runner, after, Act::SendPiece { stream });
        self.tell_runner(runner, Input::Reply { stream, reply });
    }

    /// The client has taken as much as one grant is for.
    pub fn host_granted(&mut self, runner: usize, stream: StreamKey) {
        let Some(HostBody::Sends { sending, .. }) = self.runners[runner].bodies.get_mut(&stream) else { return };
        let owed = sending.granted();
        self.hold(Law::EverythingIsBounded, owed, || format!("{stream} was granted more than was used up"));
        self.host_sends(runner, stream);
    }
}
