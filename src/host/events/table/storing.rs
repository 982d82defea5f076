//! Making notes durable: one write at a time, which carries what has gathered for all sockets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use greenroom_protocol::StreamId;
use greenroom_protocol::limits::KV_KEYS_MAX;

use super::{Bytes, Effect, Held, IndexRow, Note, Outgoing, Phase, Row, SocketError, StreamReply, Table, Ticket};
use crate::backoff::Backoff;
use crate::host::KvError;

#[derive(Debug)]
pub(super) struct Storing {
    dirty: BTreeSet<StreamId>,
    erase: BTreeSet<StreamId>,
    under_way: Option<UnderWay>,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug)]
enum UnderWay {
    Store(Vec<(StreamId, BTreeSet<Note>)>),
    Erase(Vec<StreamId>),
}

impl Storing {
    pub(super) fn new(seed: u64) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), seed);
        Storing { dirty: BTreeSet::new(), erase: BTreeSet::new(), under_way: None, retry_at: None, backoff }
    }

    /// The socket has something to write.
    pub(super) fn dirty(&mut self, id: StreamId) {
        self.dirty.insert(id);
    }

    /// The socket's notes are to go.
    pub(super) fn erase(&mut self, id: StreamId) {
        self.dirty.remove(&id);
        self.erase.insert(id);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    fn is_idle(&self) -> bool {
        self.dirty.is_empty() && self.erase.is_empty() && self.under_way.is_none()
    }
}

impl Table {
    /// Begins the next write, when none is under way and there is something to write.
    pub(super) fn store(&mut self) {
        if self.storing.under_way.is_some() {
            return;
        }
        if self.storing.dirty.is_empty() && !self.storing.erase.is_empty() {
            let ids: Vec<_> = self.storing.erase.iter().take(KV_KEYS_MAX / Note::ALL.len()).copied().collect();
            for id in &ids {
                self.storing.erase.remove(id);
            }
            let keys = ids.iter().flat_map(|id| Note::ALL.map(|note| note.key(*id))).collect();
            self.storing.under_way = Some(UnderWay::Erase(ids));
            self.effects.push_back(Effect::Erase(keys));
            return;
        }
        let (mut batch, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(&id) = self.storing.dirty.first() {
            if entries.len() + Note::ALL.len() > KV_KEYS_MAX || bytes > BATCH_BYTES {
                break;
            }
            self.storing.dirty.pop_first();
            let Some(socket) = self.sockets.get_mut(&id) else { continue };
            let notes = std::mem::take(&mut socket.dirty);
            if notes.is_empty() {
                continue;
            }
            for note in &notes {
                let value = match (note, &socket.phase) {
                    (Note::Socket, _) => socket.row.encode(),
                    (Note::Index, _) => IndexRow { taken: socket.taken, next_seq: socket.next_seq }.encode(),
                    (Note::Attachment, _) => socket.attachment.clone(),
                    (Note::Closed, Phase::Ending(ending)) => ending.row().encode(),
                    (Note::Closed, Phase::Asked { .. } | Phase::Taken { .. } | Phase::Open) => continue,
                };
                bytes += value.len();
                entries.push((note.key(id), value));
            }
            socket.outbox.cover();
            socket.stored_waiters.append(&mut socket.waiters);
            batch.push((id, notes));
        }
        if !entries.is_empty() {
            self.storing.under_way = Some(UnderWay::Store(batch));
            self.effects.push_back(Effect::Store(entries));
        } else if self.storing.is_idle() {
            self.answer_flushes();
        } else {
            self.store();
        }
    }

    /// What became of the last [`Effect::Store`] or [`Effect::Erase`].
    pub(in crate::host::events) fn stored(&mut self, result: Result<(), KvError>, now: Instant) {
        let Some(under_way) = self.storing.under_way.take() else { return };
        match result {
            Ok(()) => {
                self.storing.backoff.reset();
                self.storing.retry_at = None;
                if let UnderWay::Store(batch) = under_way {
                    for (id, notes) in batch {
                        self.is_durable(id, &notes, now);
                    }
                }
                self.store();
            }
            Err(error) => {
                let delay = self.storing.backoff.next_delay();
                if self.storing.backoff.attempt() == 3 {
                    tracing::warn!(%error, "notes about sockets cannot be written; their frames wait");
                }
                match under_way {
                    UnderWay::Store(batch) => {
                        for (id, notes) in batch {
                            let Some(socket) = self.sockets.get_mut(&id) else { continue };
                            socket.dirty.extend(notes);
                            socket.outbox.uncover();
                            socket.waiters.append(&mut socket.stored_waiters);
                            self.storing.dirty.insert(id);
                        }
                    }
                    UnderWay::Erase(ids) => self.storing.erase.extend(ids),
                }
                match error {
                    // Nothing becomes durable any more.
                    KvError::Stale => self.answer_flushes(),
                    KvError::Refused(_)
                    | KvError::Reserved
                    | KvError::Unavailable
                    | KvError::OutcomeUnknown
                    | KvError::TooMany => {
                        self.storing.retry_at = Some(now + delay);
                    }
                }
            }
        }
    }

    /// Answers when everything is durable and nothing is held back.
    pub(in crate::host::events) fn flush(&mut self, ticket: Ticket) {
        self.flushes.push(ticket);
        if self.storing.is_idle() {
            self.answer_flushes();
        }
    }

    fn answer_flushes(&mut self) {
        for ticket in std::mem::take(&mut self.flushes) {
            self.effects.push_back(Effect::Answer { ticket, result: Ok(()) });
        }
    }

    /// Notes about a socket are durable: its client hears what waited for that.
    fn is_durable(&mut self, id: StreamId, notes: &BTreeSet<Note>, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if notes.contains(&Note::Attachment) {
            for ticket in std::mem::take(&mut socket.stored_waiters) {
                self.effects.push_back(Effect::Answer { ticket, result: Ok(()) });
            }
        }
        if let Phase::Ending(ending) = &mut socket.phase {
            ending.durable |= notes.contains(&Note::Closed);
        }
        if let (Phase::Taken { first, close }, Some(stream)) = (&mut socket.phase, socket.stream) {
            let (first, close) = (first.take(), close.take());
            socket.phase = Phase::Open;
            self.effects.push_back(Effect::Reply { stream, reply: StreamReply::Open { can_hibernate: true } });
            if let Some(Outgoing { data, binary }) = first {
                self.effects.push_back(Effect::Reply { stream, reply: StreamReply::Message { data, binary } });
            }
            if let Some((code, reason)) = close {
                self.end_by_us(id, code, &reason, now);
            }
        } else if let Phase::Taken { .. } = socket.phase {
            // The gateway asks again, and is answered then.
            socket.phase = Phase::Open;
        }
        self.release(id);
        let socket = self.sockets.get(&id);
        if socket.is_some_and(|socket| socket.outbox.is_empty() && socket.phase.is_over()) {
            return self.forget(id);
        }
        self.advance(id, now);
    }

    fn release(&mut self, id: StreamId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let released = socket.outbox.release();
        let Some(stream) = socket.stream else { return };
        let mut newest = None;
        for Held { ack, reply, close } in released {
            newest = ack.or(newest);
            if let Some(Outgoing { data, binary }) = reply {
                self.effects.push_back(Effect::Reply { stream, reply: StreamReply::Message { data, binary } });
            }
            if let Some((code, reason)) = close {
                if let Some(socket) = self.sockets.get_mut(&id) {
                    socket.stream = None;
                }
                let reply = StreamReply::Close { code: Some(code), reason: Some(reason) };
                self.effects.push_back(Effect::Reply { stream, reply });
                return;
            }
        }
        if let Some(index) = newest {
            self.effects.push_back(Effect::Reply { stream, reply: StreamReply::MessageAck { index } });
        }
    }

    /// Somebody waits until the socket's attachment is durable.
    pub(in crate::host::events) fn attach(&mut self, id: StreamId, attachment: Bytes, ticket: Ticket) {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| socket.is_open()) else {
            return self.effects.push_back(Effect::Answer { ticket, result: Err(SocketError::Unknown) });
        };
        socket.attachment = attachment;
        socket.dirty.insert(Note::Attachment);
        socket.waiters.push(ticket);
        self.storing.dirty.insert(id);
        self.store();
    }
}

/// The most bytes of values in one write, with room for one more socket's below the limit of a put.
const BATCH_BYTES: usize = 800 * 1024;
