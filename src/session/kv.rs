//! Storage requests of actors: pipelined, sent again after a reconnect, answered exactly once.
//!
//! Every operation of the wire gives the same state when repeated in order, so everything unanswered is simply sent
//! again in the order it was asked, as long as the gateway still knows us by the same identity. When it does not, or
//! time runs out, a write that was sent has an unknown outcome and is answered so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use greenroom_protocol::{KvRequest, KvResponse, ToServer, Version};

use crate::actor::ActorKey;
use crate::kv::KvError;
use crate::session::{Effect, Session};

/// The requests without an answer.
#[derive(Debug)]
pub(super) struct Storage {
    timeout: Duration,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    actor: ActorKey,
    request: KvRequest,
    sent: Sent,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Never,
    /// On a connection that is gone.
    Before,
    Now,
}

impl Storage {
    pub(super) fn new(timeout: Duration) -> Self {
        Storage { timeout, next: 0, pending: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    pub(super) fn disconnected(&mut self) {
        for pending in self.pending.values_mut() {
            if pending.sent == Sent::Now {
                pending.sent = Sent::Before;
            }
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.deadlines.remove(&(pending.deadline, number));
        Some(pending)
    }

    /// The unanswered request behind an id on the wire: the number's low half, unique because the requests in flight
    /// are far fewer.
    fn by_wire_id(&self, id: u32) -> Option<u64> {
        let (&oldest, _) = self.pending.first_key_value()?;
        // The distance from the oldest tells which turn of the counter is meant.
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the low half")]
        let ahead = id.wrapping_sub(oldest as u32);
        let number = oldest + u64::from(ahead);
        self.pending.contains_key(&number).then_some(number)
    }
}

impl Session {
    pub(super) fn kv_request(&mut self, actor: ActorKey, ticket: u64, request: KvRequest, now: Instant) {
        let refusal = match self.actors.life(&actor) {
            None => Some(KvError::Stale),
            Some(life) if !life.is_live() || life.orphan => Some(KvError::Stale),
            Some(life) if life.kv_in_flight >= IN_FLIGHT_MAX => Some(KvError::TooMany),
            Some(_) if self.storage.pending.len() >= IN_FLIGHT_TOTAL_MAX => Some(KvError::TooMany),
            Some(_) if self.link.is_over() => Some(KvError::Unavailable),
            Some(_) => check(&request, self.settings.version).err().map(KvError::Refused),
        };
        if let Some(error) = refusal {
            self.effects.push_back(Effect::KvDone { ticket, result: Err(error) });
            return;
        }
        if let Some(life) = self.actors.life_mut(&actor) {
            life.kv_in_flight += 1;
        }
        let deadline = now + self.storage.timeout;
        let number = self.storage.next;
        self.storage.next += 1;
        let pending = Pending { ticket, actor, request, sent: Sent::Never, deadline };
        self.storage.pending.insert(number, pending);
        self.storage.deadlines.insert((deadline, number));
        if self.link.is_open() {
            self.send_storage(number);
        }
    }

    pub(super) fn kv_response(&mut self, request_id: u32, response: KvResponse, _now: Instant) {
        if let Some(number) = self.storage.by_wire_id(request_id) {
            self.answer_storage(number, Ok(response));
        }
    }

    /// Sends everything unanswered again, in order.
    pub(super) fn resend_storage(&mut self) {
        let numbers: Vec<u64> = self.storage.pending.keys().copied().collect();
        for number in numbers {
            self.send_storage(number);
        }
    }

    pub(super) fn storage_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, number)) = self.storage.deadlines.first() {
            if deadline > now {
                break;
            }
            self.give_up(number);
        }
    }

    /// The gateway cannot be asked any more.
    pub(super) fn storage_unreachable(&mut self) {
        let numbers: Vec<u64> = self.storage.pending.keys().copied().collect();
        for number in numbers {
            self.give_up(number);
        }
    }

    /// A life is over, and with it its right to its storage.
    pub(super) fn storage_of_ended(&mut self, key: &ActorKey) {
        if self.actors.life(key).is_none_or(|life| life.kv_in_flight == 0) {
            return;
        }
        let numbers: Vec<u64> =
            self.storage.pending.iter().filter(|(_, p)| p.actor == *key).map(|(number, _)| *number).collect();
        for number in numbers {
            let sent = self.storage.pending.get(&number).is_some_and(|pending| pending.sent != Sent::Never);
            if !sent {
                self.answer_storage(number, Err(KvError::Stale));
            }
        }
    }

    fn send_storage(&mut self, number: u64) {
        let Some(pending) = self.storage.pending.get_mut(&number) else { return };
        pending.sent = Sent::Now;
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the low half")]
        let request_id = number as u32;
        self.effects.push_back(Effect::Send(ToServer::Kv {
            actor_id: ByteString::from(&*pending.actor.id),
            request_id,
            request: pending.request.clone(),
        }));
    }

    fn give_up(&mut self, number: u64) {
        let Some(pending) = self.storage.pending.get(&number) else { return };
        let error = match (pending.sent, writes(&pending.request)) {
            (Sent::Before | Sent::Now, true) => KvError::OutcomeUnknown,
            (Sent::Before | Sent::Now, false) | (Sent::Never, _) => KvError::Unavailable,
        };
        self.answer_storage(number, Err(error));
    }

    fn answer_storage(&mut self, number: u64, result: Result<KvResponse, KvError>) {
        let Some(pending) = self.storage.remove(number) else { return };
        if let Some(life) = self.actors.life_mut(&pending.actor) {
            life.kv_in_flight -= 1;
        }
        self.effects.push_back(Effect::KvDone { ticket: pending.ticket, result });
    }
}

fn writes(request: &KvRequest) -> bool {
    match request {
        KvRequest::Get { .. } | KvRequest::List { .. } => false,
        KvRequest::Put { .. } | KvRequest::Delete { .. } | KvRequest::DeleteRange { .. } | KvRequest::Drop => true,
    }
}

/// Refuses what the gateway would refuse, with a text that says what is wrong: the Rivet engine answers every bad put
/// with the same two words.
fn check(request: &KvRequest, version: Version) -> Result<(), String> {
    if matches!(request, KvRequest::DeleteRange { .. }) && version < Version::V7 {
        return Err(format!(
            "deleting a range needs protocol version 7; this runner speaks {version} (--protocol-version)"
        ));
    }
    request.check().map_err(|violation| violation.to_string())
}

/// The most storage requests of one actor without an answer.
const IN_FLIGHT_MAX: usize = 1024;
/// The most storage requests of all actors without an answer.
const IN_FLIGHT_TOTAL_MAX: usize = 65_536;
