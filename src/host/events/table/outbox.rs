//! What a client gets once the frames it answers are durably taken.

use std::collections::VecDeque;

use bytestring::ByteString;

use crate::host::Outgoing;

/// What is held back, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    held: VecDeque<Held>,
    /// How many of the first are covered by the write that is under way.
    covered: usize,
}

/// One thing that is held back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The frame to acknowledge.
    pub(super) ack: Option<u16>,
    pub(super) reply: Option<Outgoing>,
    pub(super) close: Option<(u16, ByteString)>,
}

impl Held {
    /// Whether it waits for nothing but what is before it.
    fn is_free(&self) -> bool {
        self.ack.is_none() && self.close.is_none()
    }
}

impl Outbox {
    pub(super) fn hold(&mut self, held: Held) {
        self.held.push_back(held);
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A write begins that covers all of it.
    pub(super) fn cover(&mut self) {
        self.covered = self.held.len();
    }

    /// The write failed.
    pub(super) fn uncover(&mut self) {
        self.covered = 0;
    }

    /// The write is durable: what it covers may go out, with what waits for nothing else.
    pub(super) fn release(&mut self) -> Vec<Held> {
        let mut free = std::mem::take(&mut self.covered).min(self.held.len());
        free += self.held.iter().skip(free).take_while(|held| held.is_free()).count();
        self.held.drain(..free).collect()
    }
}
