//! Request bodies on their way into an actor.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use greenroom_protocol::credit::{PIECES, Taken};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::actor::ActorKey;
use crate::host::call::send_from_drop;
use crate::host::{Call, CallSender, StreamKey, StreamReply};

/// A body that is there as a whole, or comes in pieces. It is a [`hyper::body::Body`], so it can be sent as it is.
#[derive(Debug)]
pub enum Body {
    /// All of it; empty when there is none.
    Whole(Bytes),
    /// Pieces as they come.
    Pieces(Pieces),
}

/// The pieces of a body, in order.
#[derive(Debug)]
pub struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes, BodyError>>,
    /// The end has to be told, by an empty piece; else the body is cut.
    end_is_told: bool,
    ended: bool,
    grants: Option<Grants>,
}

/// Tells the gateway that it may send more, as the pieces are read.
pub struct Grants {
    actor: ActorKey,
    stream: StreamKey,
    calls: CallSender,
    taken: Taken,
}

/// Feeds a [`Body::Pieces`].
pub type BodySender = mpsc::Sender<Result<Bytes, BodyError>>;

/// The rest of the body will not come: the client went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client went away before the whole body was sent")]
pub struct BodyError;

impl Body {
    /// A body in pieces with its sender; at most `pieces` wait unread.
    #[must_use]
    pub fn pieces(pieces: usize) -> (BodySender, Body) {
        let (sender, pieces) = mpsc::channel(pieces);
        (sender, Body::Pieces(Pieces { pieces, end_is_told: false, ended: false, grants: None }))
    }

    /// The body of a client's request, whose end is told by an empty piece: without that, the client went away. As many
    /// pieces wait unread as fit in a window of credit.
    #[must_use]
    pub fn upload(grants: Option<Grants>) -> (BodySender, Body) {
        // One more for the end.
        let (sender, pieces) = mpsc::channel(PIECES + 1);
        (sender, Body::Pieces(Pieces { pieces, end_is_told: true, ended: false, grants }))
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// [`BodyError`] when the client went away in between.
    pub async fn collect(self) -> Result<Bytes, BodyError> {
        match self {
            Body::Whole(bytes) => Ok(bytes),
            pieces @ Body::Pieces(_) => Ok(BodyExt::collect(pieces).await?.to_bytes()),
        }
    }
}

impl Pieces {
    /// The next piece; `None` at the end. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match std::task::ready!(self.pieces.poll_recv(context)) {
            Some(Ok(piece)) if piece.is_empty() && self.end_is_told => None,
            None if self.end_is_told => Some(Err(BodyError)),
            piece => piece,
        };
        match (&piece, &mut self.grants) {
            (Some(Ok(piece)), Some(grants)) => grants.took(piece.len()),
            (Some(Ok(_)), None) => {}
            (Some(Err(_)) | None, _) => self.ended = true,
        }
        Poll::Ready(piece)
    }
}

impl Grants {
    /// Grants for the body of this stream.
    #[must_use]
    pub fn new(actor: ActorKey, stream: StreamKey, calls: CallSender) -> Self {
        Grants { actor, stream, calls, taken: Taken::default() }
    }

    fn took(&mut self, bytes: usize) {
        for _ in 0..self.taken.took(bytes) {
            let call = Call::Stream { actor: self.actor.clone(), stream: self.stream, reply: StreamReply::Grant };
            send_from_drop(&self.calls, call);
        }
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grants({})", self.stream)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Pieces(pieces) => pieces.poll_next(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Pieces(_) => SizeHint::default(),
        }
    }
}
