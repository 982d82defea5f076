//! Request bodies on their way into an actor.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

/// A body that is there as a whole, or comes in pieces. It is a [`hyper::body::Body`], so it can be sent as it is.
#[derive(Debug)]
pub enum Body {
    /// All of it; empty when there is none.
    Whole(Bytes),
    /// Pieces, ending with the channel.
    Pieces(mpsc::Receiver<Result<Bytes, BodyError>>),
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
        let (sender, receiver) = mpsc::channel(pieces);
        (sender, Body::Pieces(receiver))
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

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Pieces(pieces) => pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
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
