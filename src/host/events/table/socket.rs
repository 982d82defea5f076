//! One socket of the table.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom_protocol::StreamId;

use super::outbox::Outbox;
use super::{SocketInfo, Ticket};
use crate::backoff::Backoff;
use crate::host::events::reserved::Note;
use crate::host::events::row::{ClosedRow, IndexRow, SocketRow};
use crate::host::{Outgoing, StreamKey};

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) row: SocketRow,
    pub(super) attachment: Bytes,
    pub(super) phase: Phase,
    /// Where its client is, as far as the gateway has told this life.
    pub(super) stream: Option<StreamKey>,
    /// Until then the gateway has to confirm it.
    pub(super) stale_at: Option<Instant>,
    /// The index of the last frame that was taken.
    pub(super) taken: u16,
    /// The number of the next frame.
    pub(super) next_seq: u64,
    /// Frames that are not taken; the first may be under way.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) telling: Telling,
    pub(super) outbox: Outbox,
    /// Notes that are to be written.
    pub(super) dirty: BTreeSet<Note>,
    /// Who waits until the attachment is durable: not being written yet, and being written.
    pub(super) waiters: Vec<Ticket>,
    pub(super) stored_waiters: Vec<Ticket>,
}

/// A frame that waits for the actor.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) data: Bytes,
    pub(super) binary: bool,
    pub(super) index: u16,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The actor is asked whether it takes it.
    Asked {
        /// The client has gone meanwhile, with this code and reason.
        client_gone: Option<(u16, String)>,
    },
    /// It is taken, and is answered when that is durable and the gateway is there.
    Taken { first: Option<Outgoing>, close: Option<(u16, bytestring::ByteString)> },
    /// It is open.
    Open,
    /// It is closed; the frames before that and then the close are told.
    Ending(Ending),
}

#[derive(Debug)]
pub(super) struct Ending {
    pub(super) code: u16,
    pub(super) reason: String,
    /// Everything before it was told.
    pub(super) telling_close: bool,
    /// The close was told.
    pub(super) told: bool,
    /// An earlier life may have told it.
    pub(super) told_before: bool,
    /// There are notes about the socket.
    pub(super) noted: bool,
    /// Should the runner be killed, the next one knows that it is closed. Told before that, the actor could hear of
    /// frames after the close.
    pub(super) durable: bool,
    /// This side closed it.
    pub(super) by_us: bool,
    /// An earlier life has noted it, and the gateway still holds the socket: it sends what was not taken, and then says
    /// once more that the client is gone.
    pub(super) awaited: bool,
}

/// Where the telling of the next event stands.
#[derive(Debug)]
pub(super) enum Telling {
    Nothing,
    UnderWay { attempt: u32, backoff: Backoff },
    PutOff { attempt: u32, backoff: Backoff, until: Instant },
}

impl Socket {
    pub(super) fn new(row: SocketRow, index: IndexRow, attachment: Bytes) -> Self {
        Socket {
            row,
            attachment,
            phase: Phase::Asked { client_gone: None },
            stream: None,
            stale_at: None,
            taken: index.taken,
            next_seq: index.next_seq,
            waiting: VecDeque::new(),
            telling: Telling::Nothing,
            outbox: Outbox::default(),
            dirty: BTreeSet::new(),
            waiters: Vec::new(),
            stored_waiters: Vec::new(),
        }
    }

    /// Whether the actor has taken it and nobody has closed it.
    pub(super) fn is_open(&self) -> bool {
        match self.phase {
            Phase::Open | Phase::Taken { .. } => true,
            Phase::Asked { .. } | Phase::Ending(_) => false,
        }
    }

    pub(super) fn info(&self, id: StreamId) -> SocketInfo {
        SocketInfo {
            id,
            path: self.row.path.clone(),
            tags: self.row.tags.clone(),
            attachment: self.attachment.clone(),
            connected: self.stream.is_some(),
        }
    }

    pub(super) fn has_tag(&self, tag: Option<&str>) -> bool {
        tag.is_none_or(|tag| self.row.tags.iter().any(|own| own == tag))
    }
}

impl Phase {
    /// It has closed, and its gateway sends the frames from before that.
    pub(super) fn awaits_frames(&self) -> bool {
        match self {
            Phase::Ending(ending) => ending.awaited,
            Phase::Asked { .. } | Phase::Taken { .. } | Phase::Open => false,
        }
    }

    /// Nothing is left to tell the actor.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Phase::Ending(ending) => ending.told,
            Phase::Asked { .. } | Phase::Taken { .. } | Phase::Open => false,
        }
    }
}

impl Ending {
    pub(super) fn new(code: u16, reason: &str) -> Self {
        Ending {
            code,
            reason: reason.to_owned(),
            telling_close: false,
            told: false,
            told_before: false,
            noted: true,
            durable: false,
            by_us: false,
            awaited: false,
        }
    }

    /// The end of a socket that this side closes.
    pub(super) fn by_us(code: u16, reason: &str) -> Self {
        Ending { by_us: true, ..Self::new(code, reason) }
    }

    /// The end of a socket without notes.
    pub(super) fn without_note(code: u16, reason: &str) -> Self {
        Ending { noted: false, durable: true, ..Self::new(code, reason) }
    }

    /// The end that an earlier life has noted.
    pub(super) fn told_before(row: ClosedRow) -> Self {
        Ending { told_before: true, durable: true, by_us: row.by_us, ..Self::new(row.code, &row.reason) }
    }

    pub(super) fn row(&self) -> ClosedRow {
        ClosedRow { code: self.code, reason: self.reason.clone(), by_us: self.by_us }
    }
}

impl Telling {
    /// The first telling.
    pub(super) fn begin(backoff: Backoff) -> Self {
        Telling::UnderWay { attempt: 1, backoff }
    }

    pub(super) fn is_under_way(&self) -> bool {
        match self {
            Telling::UnderWay { .. } => true,
            Telling::Nothing | Telling::PutOff { .. } => false,
        }
    }

    /// How often it was told.
    pub(super) fn attempt(&self) -> u32 {
        match self {
            Telling::Nothing => 0,
            Telling::UnderWay { attempt, .. } | Telling::PutOff { attempt, .. } => *attempt,
        }
    }

    /// Tells once more; gives the number of the attempt.
    pub(super) fn next(&mut self, fresh: Backoff) -> u32 {
        let (attempt, backoff) = match std::mem::replace(self, Telling::Nothing) {
            Telling::Nothing => (1, fresh),
            Telling::UnderWay { attempt, backoff } | Telling::PutOff { attempt, backoff, .. } => (attempt + 1, backoff),
        };
        *self = Telling::UnderWay { attempt, backoff };
        attempt
    }

    /// It was not taken; gives the delay before the next time.
    pub(super) fn put_off(&mut self, now: Instant) -> Duration {
        match std::mem::replace(self, Telling::Nothing) {
            Telling::Nothing => Duration::ZERO,
            Telling::UnderWay { attempt, mut backoff } | Telling::PutOff { attempt, mut backoff, .. } => {
                let delay = backoff.next_delay();
                *self = Telling::PutOff { attempt, backoff, until: now + delay };
                delay
            }
        }
    }
}
