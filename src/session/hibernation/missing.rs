//! Messages of clients that did not arrive.

use std::time::Instant;

use greenroom_protocol::{StreamId, serial};

use super::{ATTACHING, Lasting};
use crate::session::Session;
use crate::session::tunnel::{MESSAGES_LOST, Stream};

impl Lasting {
    /// A message arrived behind a gap; answers how often the oldest such one has, when this is it.
    pub(super) fn note_beyond(&mut self, index: u16) -> u8 {
        if self.beyond.is_none_or(|beyond| serial::newer(index, beyond)) {
            self.beyond = Some(index);
        }
        match &mut self.oldest_beyond {
            Some((oldest, times)) if *oldest == index => {
                *times = times.saturating_add(1);
                *times
            }
            Some((oldest, _)) if serial::newer(index, *oldest) => 0,
            Some(_) | None => {
                self.oldest_beyond = Some((index, 1));
                1
            }
        }
    }
}

impl Session {
    /// Messages were lost on the way, for example while we were disconnected, and the gateway keeps them. An actor that
    /// believes to have read everything would be worse off than one whose client has to come back.
    pub(super) fn ask_for_missing(&mut self, id: StreamId, now: Instant) {
        let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut) else { return };
        if lasting.asked >= ASKED_MAX {
            return self.close_websocket(id, 1008, MESSAGES_LOST);
        }
        let patience = ATTACHING * 4_u32.pow(lasting.asked.into());
        lasting.asked += 1;
        self.renew(id, now, patience);
    }
}

/// How often the gateway is asked for missing messages before the socket is closed; each time it is given four times as
/// long, because a connection can be slow, and together less than after what the engine closes the socket itself.
pub(super) const ASKED_MAX: u8 = 3;
/// The engine counts openings like messages and opens a socket up to this often, so that one of these numbers may be
/// that of an opening which was lost while the answer to an earlier one was not. No message fills such a gap.
pub(super) const OPENINGS_MAX: u16 = 8;
/// A message that came this often, as the first of what is kept, is the first there is: the engine loses one in bursts.
pub(super) const SENT_AGAIN: u8 = 4;
