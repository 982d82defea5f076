//! Bodies of large pieces, which travel on credit: what one end has yet to send, and what the other has yet to read.
//!
//! The length of a piece says how many follow it, so that none can be missing, come twice or come too early unseen.

use std::collections::VecDeque;

use bytes::Bytes;
use greenroom::protocol::credit::{GRANT, Taken, WINDOW, cost};

use crate::laws::Law;

/// A body at the end that sends it.
#[derive(Clone, Debug)]
pub struct Sending {
    left: u32,
    /// None where bodies travel without.
    credit: Option<usize>,
}

/// A body at the end that reads it.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    left: Option<u32>,
    unread: VecDeque<usize>,
    taken: Taken,
}

impl Sending {
    pub fn new(pieces: u32, on_credit: bool) -> Self {
        Sending { left: pieces, credit: on_credit.then_some(WINDOW) }
    }

    /// The next piece and whether it is the last, if there is one and credit for it.
    pub fn next(&mut self) -> Option<(Bytes, bool)> {
        let left = self.left.checked_sub(1)?;
        let length = length(left);
        if let Some(credit) = &mut self.credit {
            *credit = credit.checked_sub(cost(length))?;
        }
        self.left = left;
        Some((Bytes::from_static(&ZEROS[..length]), left == 0))
    }

    /// The other end gives credit back; `false` when it never had it.
    pub fn granted(&mut self) -> bool {
        let Some(credit) = &mut self.credit else { return false };
        *credit += GRANT;
        *credit <= WINDOW
    }
}

impl Reading {
    /// A piece has come; answers which law it breaks.
    pub fn came(&mut self, bytes: usize, finish: bool) -> Result<(), (Law, String)> {
        let left = GRANT.checked_sub(bytes).and_then(|left| u32::try_from(left).ok());
        let before = std::mem::replace(&mut self.left, left);
        self.unread.push_back(bytes);
        let follows = left.is_some_and(|left| before.is_none_or(|before| before == left + 1) && finish == (left == 0));
        let held: usize = self.unread.iter().sum();
        match (follows, held <= WINDOW) {
            (false, _) => Err((Law::ABodyIsWhole, format!("{left:?} are left after {before:?}, and finish: {finish}"))),
            (true, false) => Err((Law::EverythingIsBounded, format!("{held} bytes of a body wait"))),
            (true, true) => Ok(()),
        }
    }

    /// Reads the next piece; answers how many grants are due for it.
    pub fn read(&mut self) -> usize {
        self.unread.pop_front().map_or(0, |bytes| self.taken.took(bytes))
    }

    pub fn has_more(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Everything has come and was read.
    pub fn is_over(&self) -> bool {
        self.left == Some(0) && self.unread.is_empty()
    }
}

/// The bytes of a whole body.
pub fn whole(pieces: u32) -> usize {
    (0..pieces).map(length).sum()
}

/// The length of a piece that so many follow.
fn length(left: u32) -> usize {
    GRANT - usize::try_from(left).expect("few")
}

static ZEROS: [u8; GRANT] = [0; GRANT];
