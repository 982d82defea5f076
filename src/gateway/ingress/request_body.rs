//! Reads a request's body: a small one whole, since an actor gets it in one message; of a larger one the beginning,
//! since the rest is to follow in pieces; and all of a larger one where the runner takes it in no other way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use greenroom_protocol::limits::PAYLOAD_MAX;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::upload::Upload;
use crate::gateway::refusal::Refusal;

/// The memory that all request bodies together may take. Small bodies are not counted: there are as many of them as
/// there are connections.
#[derive(Clone, Debug)]
pub(super) struct BodyMemory {
    blocks: Arc<Semaphore>,
}

/// A request's body.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// All of it.
    Whole(WholeBody),
    /// The rest of it is to follow.
    Upload(Box<Upload>),
    /// It is being sent, or was.
    Sent,
}

/// A body that is there, and its share of the memory until it is dropped.
#[derive(Debug, Default)]
pub(super) struct WholeBody {
    /// The bytes.
    pub bytes: Bytes,
    share: Option<OwnedSemaphorePermit>,
}

/// Why there is no body. What is left of it should be read and dropped, so that the client gets to read why.
#[derive(Debug)]
pub(super) struct Unread {
    /// What to tell the client.
    pub refusal: Refusal,
    /// The rest.
    pub rest: Incoming,
}

impl BodyMemory {
    /// Memory for this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        BodyMemory { blocks: Arc::new(Semaphore::new((bytes / BLOCK).min(Semaphore::MAX_PERMITS))) }
    }

    fn take(&self, blocks: usize) -> Option<OwnedSemaphorePermit> {
        let blocks = u32::try_from(blocks).ok()?;
        Arc::clone(&self.blocks).try_acquire_many_owned(blocks).ok()
    }
}

impl RequestBody {
    /// Reads a body that is known to be small, or is at hand; of another one the beginning. The client may pause for
    /// `idle` between pieces.
    ///
    /// # Errors
    /// [`Unread`] when it stops coming, and when the memory is used up.
    pub(super) async fn begin(mut body: Incoming, memory: &BodyMemory, idle: Duration) -> Result<Self, Unread> {
        if body.is_end_stream() {
            return Ok(RequestBody::Whole(WholeBody::default()));
        }
        let small = body.size_hint().upper().is_some_and(|length| length <= SMALL as u64);
        if small {
            return Box::pin(WholeBody::read(VecDeque::new(), body, memory, idle)).await.map(RequestBody::Whole);
        }
        let mut pieces = VecDeque::new();
        let mut length = 0;
        // A body that some runner may refuse for its size is left with the client until one has been asked.
        while length < SMALL && body.size_hint().lower() <= PAYLOAD_MAX as u64 {
            let frame = match pieces.is_empty() {
                true => match timeout(idle, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(Unread { refusal: too_slow(idle), rest: body }),
                },
                false => match body.frame().now_or_never() {
                    Some(frame) => frame,
                    None => break,
                },
            };
            match frame {
                None => {
                    return Box::pin(WholeBody::read(pieces, body, memory, idle)).await.map(RequestBody::Whole);
                }
                Some(Err(_)) => return Err(Unread { refusal: broken(), rest: body }),
                Some(Ok(frame)) => {
                    // Trailers are left out.
                    let piece = frame.into_data().unwrap_or_default();
                    length += piece.len();
                    pieces.extend((!piece.is_empty()).then_some(piece));
                }
            }
        }
        Ok(RequestBody::Upload(Box::new(Upload::new(pieces, body, idle))))
    }

    /// Makes a body whole, for a runner that takes it in no other way.
    ///
    /// # Errors
    /// As [`WholeBody::read`].
    pub(super) async fn make_whole(&mut self, memory: &BodyMemory, idle: Duration) -> Result<(), Unread> {
        if let RequestBody::Upload(upload) = std::mem::replace(self, RequestBody::Sent) {
            let (pieces, rest) = upload.into_parts();
            *self = RequestBody::Whole(Box::pin(WholeBody::read(pieces, rest, memory, idle)).await?);
        }
        Ok(())
    }

    /// Goes back to the beginning for another attempt; `false` when that is not there any more.
    pub(super) fn rewind(&mut self) -> bool {
        match self {
            RequestBody::Whole(_) => true,
            RequestBody::Upload(upload) => upload.rewind(),
            RequestBody::Sent => false,
        }
    }

    /// What the client has yet to send, when nobody wants it.
    pub(super) fn into_unread(self) -> Option<Incoming> {
        match self {
            RequestBody::Upload(upload) => Some(upload.into_parts().1).filter(|rest| !rest.is_end_stream()),
            RequestBody::Whole(_) | RequestBody::Sent => None,
        }
    }
}

impl WholeBody {
    /// Reads a body that begins with `pieces` to its end.
    ///
    /// # Errors
    /// [`Unread`] when it is above [`PAYLOAD_MAX`] (told before reading any of it where the client says so), when it
    /// stops coming, and when the memory is used up.
    async fn read(
        mut pieces: VecDeque<Bytes>,
        mut body: Incoming,
        memory: &BodyMemory,
        idle: Duration,
    ) -> Result<Self, Unread> {
        let here: usize = pieces.iter().map(Bytes::len).sum();
        let announced = body.size_hint().lower().saturating_add(here as u64);
        if announced > PAYLOAD_MAX as u64 {
            return Err(Unread { refusal: too_large(), rest: body });
        }
        let mut read = WholeBody::default();
        let mut joined = BytesMut::new();
        loop {
            let piece = match pieces.pop_front() {
                Some(piece) => piece,
                None if body.is_end_stream() => break,
                None => match timeout(idle, body.frame()).await {
                    Err(_) => return Err(Unread { refusal: too_slow(idle), rest: body }),
                    Ok(None) => break,
                    Ok(Some(Err(_))) => return Err(Unread { refusal: broken(), rest: body }),
                    // Trailers are left out.
                    Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                },
            };
            let length = read.bytes.len() + joined.len() + piece.len();
            if length > PAYLOAD_MAX {
                return Err(Unread { refusal: too_large(), rest: body });
            }
            if !read.account(length, memory) {
                return Err(Unread { refusal: no_memory(), rest: body });
            }
            // Most bodies are one piece, and that one is not copied.
            if read.bytes.is_empty() && joined.is_empty() {
                read.bytes = piece;
                continue;
            }
            if joined.is_empty() {
                let expected = usize::try_from(announced).unwrap_or(0).clamp(length, FIRST_RESERVE.max(length));
                joined.reserve(expected);
                joined.extend_from_slice(&std::mem::take(&mut read.bytes));
            }
            joined.extend_from_slice(&piece);
        }
        if !joined.is_empty() {
            read.bytes = joined.freeze();
        }
        Ok(read)
    }

    /// Takes the share of a body that has grown to `length`.
    fn account(&mut self, length: usize, memory: &BodyMemory) -> bool {
        let needed = length / BLOCK;
        let held = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if needed <= held {
            return true;
        }
        let Some(more) = memory.take(needed - held) else {
            return false;
        };
        match &mut self.share {
            Some(share) => share.merge(more),
            share @ None => *share = Some(more),
        }
        true
    }
}

impl Unread {
    /// Reads and drops the rest for a while: a connection that is closed while the client still sends may lose the
    /// response with it.
    pub(super) async fn drain(mut rest: Incoming) {
        let deadline = Instant::now() + DRAIN_TIME;
        let mut left = DRAIN_BYTES;
        while let Ok(Some(Ok(frame))) = timeout_at(deadline, rest.frame()).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    }
}

fn too_large() -> Refusal {
    Refusal::new("guard", "invalid_request_body", format!("The request body is larger than {PAYLOAD_MAX} bytes."))
}

pub(super) fn too_slow(idle: Duration) -> Refusal {
    let seconds = idle.as_secs();
    Refusal::new("guard", "request_body_timeout", format!("Nothing of the request body came for {seconds} seconds."))
}

pub(super) fn broken() -> Refusal {
    Refusal::bad_request("the request body is damaged or was cut off")
}

fn no_memory() -> Refusal {
    Refusal::new("guard", "service_unavailable", "The gateway holds as many request bodies as it has memory for.")
}

/// A body up to this size, in bytes, is sent whole when it is at hand or known to come.
const SMALL: usize = 64 * 1024;

/// What is counted. A body below it is free.
const BLOCK: usize = 64 * 1024;

/// How much is reserved at once on a client's word.
const FIRST_RESERVE: usize = 1024 * 1024;

/// How much of a refused body is read before the connection is closed: more than a client sends by mistake.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;

/// How long a refused body is read.
const DRAIN_TIME: Duration = Duration::from_secs(5);
