//! Reads a request's body whole: an actor gets it in one message, and another attempt needs it again.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use greenroom_protocol::limits::PAYLOAD_MAX;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::gateway::refusal::Refusal;

/// The memory that all request bodies together may take. Small bodies are not counted: there are as many of them as
/// there are connections.
#[derive(Clone, Debug)]
pub(super) struct BodyMemory {
    blocks: Arc<Semaphore>,
}

/// A body, and its share of the memory until it is dropped.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
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
    /// Reads the body; the client may pause for `idle` between pieces.
    ///
    /// # Errors
    /// [`Unread`] when it is above [`PAYLOAD_MAX`] (told before reading any of it where the client says so), when it
    /// stops coming, and when the memory is used up.
    pub(super) async fn read(mut body: Incoming, memory: &BodyMemory, idle: Duration) -> Result<Self, Unread> {
        if body.is_end_stream() {
            return Ok(RequestBody::default());
        }
        let announced = body.size_hint().lower();
        if announced > PAYLOAD_MAX as u64 {
            return Err(Unread { refusal: too_large(), rest: body });
        }
        let mut read = RequestBody::default();
        let mut joined = BytesMut::new();
        loop {
            let frame = match timeout(idle, body.frame()).await {
                Err(_) => return Err(Unread { refusal: too_slow(idle), rest: body }),
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(Unread { refusal: broken(), rest: body }),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else {
                continue;
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

fn too_slow(idle: Duration) -> Refusal {
    let seconds = idle.as_secs();
    Refusal::new("guard", "request_body_timeout", format!("Nothing of the request body came for {seconds} seconds."))
}

fn broken() -> Refusal {
    Refusal::bad_request("the request body is damaged or was cut off")
}

fn no_memory() -> Refusal {
    Refusal::new("guard", "service_unavailable", "The gateway holds as many request bodies as it has memory for.")
}

/// What is counted. A body below it is free.
const BLOCK: usize = 64 * 1024;

/// How much is reserved at once on a client's word.
const FIRST_RESERVE: usize = 1024 * 1024;

/// How much of a refused body is read before the connection is closed: more than a client sends by mistake.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;

/// How long a refused body is read.
const DRAIN_TIME: Duration = Duration::from_secs(5);
