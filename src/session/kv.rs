//! Storage requests of actors: pipelined, sent again after a reconnect, answered exactly once.
//!
//! Every operation of the wire gives the same state when repeated in order, so everything unanswered is simply sent
//! again in the order it was asked, as long as the gateway still knows us by the same identity and the life that asked
//! goes on. When it is not so, or time runs out, a write that was sent has an unknown outcome and is answered so.

mod quirks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom_protocol::{KvRequest, KvResponse, ToServer, Version};

use self::quirks::Rereading;
use crate::actor::ActorKey;
use crate::kv::KvError;
use crate::session::{Effect, Session};

/// The requests without an answer, by number: also by age, and by deadline.
#[derive(Debug)]
pub(super) struct Storage {
    timeout: Duration,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    actor: ActorKey,
    request: KvRequest,
    bytes: usize,
    deadline: Instant,
    /// How many connections it was sent on.
    sent: u32,
    /// Its list was answered, and the values are being read again.
    rereading: Option<Rereading>,
}

impl Storage {
    pub(super) fn new(timeout: Duration) -> Self {
        Storage { timeout, next: 0, pending: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, pending)| pending.deadline)
    }

    /// An id on the wire that no request has.
    pub(super) fn spare_wire_id(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        wire_id(number)
    }

    fn numbers(&self) -> Vec<u64> {
        self.pending.keys().copied().collect()
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.pending.len() < IN_FLIGHT_TOTAL_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// The unanswered request behind an id on the wire: the number's low half, unique because the requests in flight
    /// are far fewer.
    fn by_wire_id(&self, id: u32) -> Option<u64> {
        let (&oldest, _) = self.pending.first_key_value()?;
        // The distance from the oldest tells which turn of the counter is meant.
        let number = oldest + u64::from(id.wrapping_sub(wire_id(oldest)));
        self.pending.contains_key(&number).then_some(number)
    }
}

impl Session {
    pub(super) fn kv_request(&mut self, actor: ActorKey, ticket: u64, request: KvRequest, now: Instant) {
        let bytes = weight(&request);
        let version = self.settings.version;
        let taken = match self.actors.life_mut(&actor) {
            Some(life) if life.is_live() && !life.orphan => {
                if life.kv_in_flight >= IN_FLIGHT_MAX || !self.storage.has_room_for(bytes) {
                    Err(KvError::TooMany)
                } else if self.link.is_gone() {
                    Err(KvError::Unavailable)
                } else {
                    check(&request, version).map(|()| life.kv_in_flight += 1)
                }
            }
            Some(_) | None => Err(KvError::Stale),
        };
        if let Err(error) = taken {
            self.effects.push_back(Effect::KvDone { ticket, result: Err(error) });
            return;
        }
        let number = self.storage.next;
        self.storage.next += 1;
        self.storage.bytes += bytes;
        let deadline = now + self.storage.timeout;
        let pending = Pending { ticket, actor, request, bytes, deadline, sent: 0, rereading: None };
        self.storage.pending.insert(number, pending);
        if self.link.is_open() {
            self.send_storage(number);
        }
    }

    pub(super) fn kv_response(&mut self, request_id: u32, response: KvResponse, now: Instant) {
        if self.is_answer_of_destroyed(request_id, &response, now) {
            return;
        }
        let Some(number) = self.storage.by_wire_id(request_id) else { return };
        let Some(pending) = self.storage.pending.get_mut(&number) else { return };
        let next = match (&mut pending.rereading, response) {
            (Some(rereading), response) => {
                let next = rereading.take(response);
                let bytes = weight(&pending.request) + rereading.bytes();
                self.storage.bytes += bytes - std::mem::replace(&mut pending.bytes, bytes);
                next
            }
            (None, KvResponse::List { keys, .. })
                if !keys.is_empty() && self.link.features.are_none() && quirks::may_be_cut(&pending.request) =>
            {
                pending.rereading = Some(Rereading::new(keys));
                quirks::Next::Ask
            }
            (None, response) => quirks::Next::Answer(response),
        };
        match next {
            quirks::Next::Ask if self.storage.bytes > BYTES_MAX => self.answer_storage(number, Err(KvError::TooMany)),
            quirks::Next::Ask => self.say_storage(number),
            quirks::Next::Answer(response) => self.answer_storage(number, Ok(response)),
            quirks::Next::TooLarge => self.answer_storage(number, Err(KvError::Refused(LIST_TOO_LARGE.to_owned()))),
        }
    }

    /// Sends everything unanswered again, in order.
    pub(super) fn resend_storage(&mut self) {
        for number in self.storage.numbers() {
            self.send_storage(number);
        }
    }

    pub(super) fn storage_timeout(&mut self, now: Instant) {
        while let Some((&number, pending)) = self.storage.pending.first_key_value()
            && pending.deadline <= now
        {
            self.give_up(number, KvError::Unavailable);
        }
    }

    /// The gateway cannot be asked any more.
    pub(super) fn storage_unreachable(&mut self) {
        for number in self.storage.numbers() {
            self.give_up(number, KvError::Unavailable);
        }
    }

    /// A life is over, and with it its right to its storage: what it wrote last must not be written again once a newer
    /// life writes.
    pub(super) fn storage_of_ended(&mut self, key: &ActorKey) {
        if self.actors.life(key).is_none_or(|life| life.kv_in_flight == 0) {
            return;
        }
        let of_life = self.storage.pending.iter().filter(|(_, pending)| pending.actor == *key);
        for number in of_life.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.give_up(number, KvError::Stale);
        }
    }

    /// Sends a request on this connection for the first time.
    fn send_storage(&mut self, number: u64) {
        let Some(pending) = self.storage.pending.get_mut(&number) else { return };
        if pending.sent >= CONNECTIONS_MAX {
            return self.give_up(number, KvError::Unavailable);
        }
        pending.sent += 1;
        self.say_storage(number);
    }

    fn say_storage(&mut self, number: u64) {
        let Some(pending) = self.storage.pending.get(&number) else { return };
        let Some(life) = self.actors.life(&pending.actor) else { return };
        let request = match &pending.rereading {
            Some(rereading) => rereading.request(),
            None if self.link.features.are_none() => quirks::reworded(&pending.request),
            None => pending.request.clone(),
        };
        let (actor_id, request_id) = (life.actor_id.clone(), wire_id(number));
        self.effects.push_back(Effect::Send(ToServer::Kv { actor_id, request_id, request }));
    }

    /// Answers without the gateway: with this error, unless a write may have happened.
    fn give_up(&mut self, number: u64, error: KvError) {
        let Some(pending) = self.storage.pending.get(&number) else { return };
        let unknown = pending.sent > 0 && writes(&pending.request);
        self.answer_storage(number, Err(if unknown { KvError::OutcomeUnknown } else { error }));
    }

    fn answer_storage(&mut self, number: u64, result: Result<KvResponse, KvError>) {
        let Some(pending) = self.storage.pending.remove(&number) else { return };
        self.storage.bytes -= pending.bytes;
        if let Some(life) = self.actors.life_mut(&pending.actor) {
            life.kv_in_flight -= 1;
        }
        self.effects.push_back(Effect::KvDone { ticket: pending.ticket, result });
    }
}

/// The id of a request on the wire.
#[expect(clippy::cast_possible_truncation, reason = "the wire carries the low half")]
fn wire_id(number: u64) -> u32 {
    number as u32
}

fn writes(request: &KvRequest) -> bool {
    match request {
        KvRequest::Get { .. } | KvRequest::List { .. } => false,
        KvRequest::Put { .. } | KvRequest::Delete { .. } | KvRequest::DeleteRange { .. } | KvRequest::Drop => true,
    }
}

/// What a kept request costs, about.
fn weight(request: &KvRequest) -> usize {
    let sum = |list: &[Bytes]| list.iter().map(|bytes| bytes.len() + 64).sum::<usize>();
    let content = match request {
        KvRequest::Get { keys } | KvRequest::Delete { keys } => sum(keys),
        KvRequest::Put { keys, values } => sum(keys) + sum(values),
        // A key or two.
        KvRequest::List { .. } | KvRequest::DeleteRange { .. } | KvRequest::Drop => 0,
    };
    content + 256
}

/// Refuses what the gateway would refuse, with a text that says what is wrong: the Rivet engine answers every bad put
/// with the same two words.
fn check(request: &KvRequest, version: Version) -> Result<(), KvError> {
    if matches!(request, KvRequest::DeleteRange { .. }) && version < Version::V7 {
        return Err(KvError::Refused(format!(
            "deleting a range needs protocol version 7; this runner speaks {version} (--protocol-version)"
        )));
    }
    request.check().map_err(|violation| KvError::Refused(violation.to_string()))
}

/// The most storage requests of one actor without an answer.
const IN_FLIGHT_MAX: usize = 1024;
/// The most storage requests of all actors without an answer.
const IN_FLIGHT_TOTAL_MAX: usize = 65_536;
/// The most bytes of all storage requests without an answer, with what was read for them so far.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// A request that this many connections broke under is taken for the reason: its answer may be larger than a socket
/// takes.
const CONNECTIONS_MAX: u32 = 5;

const LIST_TOO_LARGE: &str = "the entries are larger together than one answer carries; ask for fewer with a limit";

#[cfg(test)]
mod tests {
    use greenroom_protocol::ToClient;

    use super::*;
    use crate::session::Input;
    use crate::session::fixture::open_with_actor;

    #[test]
    fn requests_keep_their_answers_apart_when_the_id_on_the_wire_wraps() {
        let now = Instant::now();
        let mut session = open_with_actor(now);
        session.storage.next = u64::from(u32::MAX) - 1;
        let mut ids = Vec::new();
        for ticket in 0..4 {
            let request = KvRequest::Get { keys: vec![] };
            session.handle(Input::Kv { actor: ActorKey::new("a", 0), ticket, request }, now);
            while let Some(effect) = session.poll_effect(now) {
                if let Effect::Send(ToServer::Kv { request_id, .. }) = effect {
                    ids.push(request_id);
                }
            }
        }
        assert_eq!(ids, [u32::MAX - 1, u32::MAX, 0, 1]);
        for (ticket, id) in [(2, 0), (0, u32::MAX - 1), (3, 1), (1, u32::MAX)] {
            session.handle(Input::Received(ToClient::Kv { request_id: id, response: KvResponse::Put }), now);
            let answer = session.poll_effect(now);
            assert_eq!(answer, Some(Effect::KvDone { ticket, result: Ok(KvResponse::Put) }));
        }
        assert_eq!((session.storage.bytes, session.storage.pending.len()), (0, 0));
    }
}
