//! Where the daemon keeps its own notes in an actor's storage, out of the actor's sight.
//!
//! Every key begins with [`RESERVED`], whose digit is the version of the layout. What a life needs at its start is under
//! [`EVENTS`], so that one list reads it; whatever else the daemon keeps has another branch.
//!
//! | key | value |
//! |---|---|
//! | `EVENTS` `s` id | a client's socket: path and tags |
//! | `EVENTS` `i` id | how far its frames were taken |
//! | `EVENTS` `c` id | it has closed, and the actor is to be told |
//! | `EVENTS` `t` id | its attachment, as the actor gave it |
//! | `EVENTS` `a` … | alarms |

use std::time::Duration;

use bytes::Bytes;
use greenroom_protocol::{KvListQuery, KvRequest, KvResponse, StreamId};

use tokio::time::{Instant, sleep, timeout_at};

use crate::backoff::Backoff;
use crate::host::{ActorContext, KvError, StartError};

/// How every key begins that is the daemon's and not the actor's.
pub const RESERVED: &[u8] = b"\0greenroom/1/";

/// How the keys begin that a life reads when it starts.
pub const EVENTS: &[u8] = b"\0greenroom/1/e/";

/// How the keys of alarms begin.
pub const ALARMS: &[u8] = b"\0greenroom/1/e/a";

/// One kind of note about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    Socket,
    Index,
    Closed,
    Attachment,
}

impl Note {
    pub(super) const ALL: [Note; 4] = [Note::Socket, Note::Index, Note::Closed, Note::Attachment];

    fn letter(self) -> u8 {
        match self {
            Note::Socket => b's',
            Note::Index => b'i',
            Note::Closed => b'c',
            Note::Attachment => b't',
        }
    }

    /// The key of this note about a socket.
    pub(super) fn key(self, socket: StreamId) -> Bytes {
        [EVENTS, &[self.letter()], &socket.gateway, &socket.request].concat().into()
    }

    /// Reads a key; `None` when it is of something else.
    pub(super) fn parse(key: &[u8]) -> Option<(Note, StreamId)> {
        let (letter, id) = key.strip_prefix(EVENTS)?.split_first()?;
        let note = Note::ALL.into_iter().find(|note| note.letter() == *letter)?;
        let (gateway, request) = id.split_at_checked(4)?;
        Some((note, StreamId { gateway: gateway.try_into().ok()?, request: request.try_into().ok()? }))
    }
}

/// Everything under [`EVENTS`], in key order.
///
/// # Errors
/// [`KvError`] of the first page that was not answered.
async fn read(context: &ActorContext) -> Result<Vec<(Bytes, Bytes)>, KvError> {
    let mut all = Vec::new();
    let mut start = Bytes::from_static(EVENTS);
    loop {
        let query = KvListQuery::Range { start, end: Bytes::from_static(BEHIND_EVENTS), exclusive: true };
        let list = KvRequest::List { query, reverse: None, limit: Some(PAGE) };
        let (keys, values) = match context.kv_with_notes(list).await? {
            KvResponse::List { keys, values, .. } => (keys, values),
            other => {
                return Err(KvError::Refused(format!("the gateway answered a list with something else: {other:?}")));
            }
        };
        let full = keys.len() as u64 >= PAGE;
        all.extend(keys.into_iter().zip(values));
        match all.last() {
            Some((last, _)) if full => start = [last, &b"\0"[..]].concat().into(),
            Some(_) | None => return Ok(all),
        }
    }
}

/// [`read`], and again while the gateway is away.
///
/// # Errors
/// The start fails: the gateway refused, or was away until the deadline.
pub(in crate::host) async fn read_patiently(
    context: &ActorContext,
    within: Duration,
) -> Result<Vec<(Bytes, Bytes)>, StartError> {
    let deadline = Instant::now() + within;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1), rand::random());
    loop {
        let error = match timeout_at(deadline, read(context)).await {
            Ok(Ok(notes)) => return Ok(notes),
            Ok(Err(error)) => error,
            Err(_) => KvError::Unavailable,
        };
        let again = match error {
            KvError::Unavailable | KvError::OutcomeUnknown | KvError::TooMany => Instant::now() < deadline,
            KvError::Refused(_) | KvError::Reserved | KvError::Stale => false,
        };
        if !again {
            return Err(StartError::new(format!(
                "the sockets and alarms of its earlier lives cannot be read: {error}"
            )));
        }
        sleep(backoff.next_delay()).await;
    }
}

/// The first key behind those under [`EVENTS`].
const BEHIND_EVENTS: &[u8] = b"\0greenroom/1/e0";

/// How many notes are read at once: with the largest attachments still only half of a message.
const PAGE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_strange_ones_are_left_alone() {
        let socket = StreamId { gateway: [1, 2, 3, 4], request: [0, 0xff, 0, 9] };
        for note in Note::ALL {
            assert_eq!(Note::parse(&note.key(socket)), Some((note, socket)));
            assert!(note.key(socket).starts_with(RESERVED) && &note.key(socket)[..] < BEHIND_EVENTS);
            assert_eq!(Note::parse(&note.key(socket)[..EVENTS.len() + 8]), None);
        }
        for other in [ALARMS, EVENTS, b"", b"s12345678", b"\0greenroom/1/e/x12345678", b"\0greenroom/2/e/s12345678"] {
            assert_eq!(Note::parse(other), None);
        }
        assert!(ALARMS.starts_with(EVENTS) && EVENTS.starts_with(RESERVED));
    }
}
