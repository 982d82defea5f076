//! One socket that outlives its actor's process: what its client said and the actor has not taken.

use std::sync::Arc;
use std::time::Instant;

use greenroom_protocol::ToClientTunnel;
use greenroom_protocol::delivery::Outbox;

use crate::gateway::StreamUp;

/// A socket. What identifies it is where it is kept.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) actor_id: Arc<str>,
    /// The runner that has, or had last, the actor.
    pub(super) runner_id: Arc<str>,
    /// What the client said, its goodbye last. The index on the wire is the lower half of this one.
    said: Outbox<StreamUp>,
    /// What is kept, in bytes.
    bytes: usize,
    /// What of it is on its way to the actor's present life, in bytes.
    in_flight: usize,
    /// Since when the actor has been given something to take and has taken nothing.
    pub(super) waits_since: Option<Instant>,
    /// Somebody will look at [`Socket::waits_since`] in time.
    pub(super) watched: bool,
    /// The client is gone; only the actor has yet to be told.
    pub(super) closing: bool,
    /// Lives of the actor that ended, one after the other, without taking anything.
    pub(super) fruitless: u8,
}

/// What an acknowledgement has freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) in_flight: usize,
}

impl Socket {
    /// A socket that the actor has just taken, whose next message has this index.
    pub(super) fn new(actor_id: Arc<str>, runner_id: Arc<str>, next_index: u16) -> Self {
        Socket {
            actor_id,
            runner_id,
            said: Outbox::new(i64::from(next_index), MESSAGES_MAX),
            bytes: 0,
            in_flight: 0,
            waits_since: None,
            watched: false,
            closing: false,
            fruitless: 0,
        }
    }

    /// What is kept, in bytes, with what it costs to keep it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is on its way, in bytes.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The actor has something to take.
    pub(super) fn wants(&self) -> bool {
        !self.said.is_empty()
    }

    /// Whether a message of this size is more than is kept.
    pub(super) fn has_no_room_for(&self, payload: usize) -> bool {
        let payloads = self.bytes.saturating_sub(self.said.len() * OVERHEAD);
        self.said.len() >= MESSAGES_MAX || payloads + payload > BYTES_MAX
    }

    /// The actor has taken everything but that the client is gone, which nobody acknowledges.
    pub(super) fn wants_only_goodbye(&self) -> bool {
        self.closing && self.said.len() == 1
    }

    /// Keeps something until it is taken.
    pub(super) fn keep(&mut self, up: StreamUp) {
        self.bytes += weight(&up);
        self.said.push_beyond(up);
    }

    /// The next thing to send to the actor's present life, with its index and weight; none while enough is on its way.
    pub(super) fn send_next(&mut self) -> Option<(u16, ToClientTunnel, usize)> {
        if self.said.in_flight() >= WINDOW || self.in_flight >= WINDOW_BYTES {
            return None;
        }
        let (index, up) = self.said.send_next()?;
        let weight = weight(up);
        self.in_flight += weight;
        let message = match up {
            StreamUp::Message { data, binary } => {
                ToClientTunnel::WebSocketMessage { data: data.clone(), binary: *binary }
            }
            StreamUp::Close { code, reason } => ToClientTunnel::WebSocketClose { code: *code, reason: reason.clone() },
            StreamUp::Chunk { body, finish } => ToClientTunnel::RequestChunk { body: body.clone(), finish: *finish },
        };
        Some((wire_index(index), message, weight))
    }

    /// Something is on its way.
    pub(super) fn is_sending(&self) -> bool {
        self.said.in_flight() > 0
    }

    /// The actor has taken everything up to this index, as far as it was sent.
    pub(super) fn take(&mut self, index: u16) -> Freed {
        let Some((first, _)) = self.said.iter().next() else { return Freed::default() };
        // Where it lies behind the oldest that is kept. What lies further than all of them was taken before.
        let ahead = index.wrapping_sub(wire_index(first));
        if usize::from(ahead) >= self.said.len() {
            return Freed::default();
        }
        let in_flight = self.said.in_flight();
        let mut freed = Freed::default();
        for up in self.said.release(first.saturating_add(i64::from(ahead))) {
            let weight = weight(&up);
            freed.bytes += weight;
            if freed.messages < in_flight {
                freed.in_flight += weight;
            }
            freed.messages += 1;
        }
        self.bytes -= freed.bytes;
        self.in_flight -= freed.in_flight;
        freed
    }

    /// The actor's life, or the way to it, is over: everything kept has to be sent again.
    pub(super) fn detach(&mut self) {
        self.said.disconnected();
        self.in_flight = 0;
        self.waits_since = None;
        if self.said.is_empty() {
            // An idle socket costs nothing for what it once said.
            self.said = Outbox::new(self.said.next_index(), MESSAGES_MAX);
        }
    }

    /// Forgets what the client said; nobody will take it.
    pub(super) fn forget(&mut self) {
        self.said.clear();
        self.bytes = 0;
        self.in_flight = 0;
        self.waits_since = None;
    }
}

/// Indexes wrap on the wire.
fn wire_index(index: i64) -> u16 {
    u16::try_from(index & i64::from(u16::MAX)).unwrap_or_default()
}

fn weight(up: &StreamUp) -> usize {
    OVERHEAD
        + match up {
            StreamUp::Chunk { body, .. } => body.len(),
            StreamUp::Message { data, .. } => data.len(),
            StreamUp::Close { .. } => 0,
        }
}

/// What a kept message costs beside its payload, in bytes.
const OVERHEAD: usize = size_of::<(i64, StreamUp)>();
/// How many messages are kept for one socket, as in the engine: one less than there are indexes.
pub(super) const MESSAGES_MAX: usize = 65_535;
/// How many bytes of payload are kept for one socket, as in the engine.
pub(super) const BYTES_MAX: usize = 128 * 1024 * 1024;
/// How many messages may be on their way to the actor. An index further behind its newest than this would look newer
/// to it, so what is sent again could not be told from what is missing.
const WINDOW: usize = 32_000;
/// How many bytes may be on their way to the actor; one message more, whatever its size.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(next_index: u16) -> Socket {
        Socket::new("actor".into(), "runner".into(), next_index)
    }

    fn message(payload: usize) -> StreamUp {
        StreamUp::Message { data: vec![0; payload].into(), binary: true }
    }

    fn send_all(socket: &mut Socket) -> Vec<u16> {
        std::iter::from_fn(|| socket.send_next()).map(|(index, ..)| index).collect()
    }

    #[test]
    fn an_acknowledgement_frees_what_it_covers_across_the_wrap() {
        let mut socket = socket(65_534);
        for _ in 0..4 {
            socket.keep(message(10));
        }
        assert_eq!(send_all(&mut socket), [65_534, 65_535, 0, 1]);
        assert_eq!(socket.take(65_533), Freed::default(), "taken before");
        assert_eq!(socket.take(2), Freed::default(), "never sent");
        assert_eq!(socket.take(0).messages, 3);
        assert_eq!(socket.bytes(), OVERHEAD + 10);
        assert_eq!(socket.take(1).messages, 1);
        assert_eq!((socket.bytes(), socket.in_flight(), socket.wants()), (0, 0, false));
    }

    #[test]
    fn what_was_not_taken_is_sent_again_with_the_same_index() {
        let mut socket = socket(1);
        socket.keep(message(1));
        socket.keep(message(1));
        assert_eq!(send_all(&mut socket), [1, 2]);
        socket.detach();
        assert_eq!(socket.in_flight(), 0);
        // It arrived before the connection broke, and is acknowledged on the next one.
        assert_eq!(socket.take(1).messages, 1);
        assert_eq!(send_all(&mut socket), [2]);
        socket.keep(message(1));
        assert_eq!(socket.take(3).messages, 1, "the third was not sent yet");
        assert_eq!(send_all(&mut socket), [3]);
    }

    #[test]
    fn a_full_circle_of_messages_is_kept_and_only_half_of_it_on_its_way() {
        let mut socket = socket(1);
        for _ in 0..MESSAGES_MAX {
            assert!(!socket.has_no_room_for(0));
            socket.keep(message(0));
        }
        assert!(socket.has_no_room_for(0));
        assert_eq!(send_all(&mut socket).len(), WINDOW);
        assert_eq!(socket.take(0), Freed::default(), "the one before the oldest");
        assert_eq!(socket.take(31_000).messages, 31_000);
        assert_eq!(send_all(&mut socket).len(), 31_000);
    }

    #[test]
    fn bytes_are_limited_by_what_is_kept_and_not_by_what_ever_was() {
        let mut socket = socket(1);
        for round in 0..3_u16 {
            socket.keep(message(BYTES_MAX));
            assert!(socket.has_no_room_for(1));
            assert_eq!(send_all(&mut socket), [round + 1]);
            assert_eq!(socket.take(round + 1).messages, 1);
        }
        assert!(!socket.has_no_room_for(BYTES_MAX));
    }
}
