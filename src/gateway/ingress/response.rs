//! An actor's answer on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use greenroom_protocol::Headers;
use greenroom_protocol::credit::Taken;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::headers;
use super::upload::Pump;
use crate::gateway::listener::{BoxError, ResponseBody};
use crate::gateway::refusal::Refusal;
use crate::gateway::{StreamEvents, StreamLink, TunnelEvent};

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// HTTP status as the actor gave it.
    pub status: u16,
    /// Headers as the actor gave them.
    pub headers: Headers,
    /// The body, or its first piece.
    pub body: Bytes,
    /// The way to the rest, if there is one.
    pub rest: Option<(StreamEvents, StreamLink)>,
    /// What still sends the request's body, if anything does.
    pub upload: Option<Pump>,
}

/// The answer as HTTP has it. Whatever the actor says of the length of its body, the client sees the length that it
/// has: a wrong one would hang the client or spill into the next response.
///
/// # Errors
/// A status or a header that HTTP does not allow in a response.
pub(super) fn response(head: Head, method: &Method) -> Result<Response<ResponseBody>, Refusal> {
    let status = StatusCode::from_u16(head.status).ok().filter(|status| !status.is_informational());
    let Some(status) = status else {
        let why = format!("The actor answered with status {}, which is no status of a response.", head.status);
        return Err(Refusal::internal(why));
    };
    let (headers, length) = headers::to_client(head.headers)?;
    // A length is the actor's to tell where the server cannot count: for a body that comes in pieces, which the server
    // then holds it to, and for the body that a HEAD request would have had.
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let length = match (&head.rest, *method == Method::HEAD) {
        (Some(_), _) if !bodiless => length,
        (None, true) if !bodiless && head.body.is_empty() => length,
        (_, _) => None,
    };
    let body = match head.rest {
        Some((events, link)) => {
            Pieces { first: head.body, events, link, _upload: head.upload, taken: Taken::default(), done: false }
                .boxed()
        }
        None => whole(head.body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

/// A body that is there as a whole.
pub(super) fn whole(bytes: Bytes) -> ResponseBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// A body that comes in pieces. Each is passed on as it comes; a body that breaks off breaks the client's connection,
/// so that it cannot be taken for complete. Dropped by a client that leaves, it tells the actor.
#[derive(Debug)]
struct Pieces {
    first: Bytes,
    events: StreamEvents,
    link: StreamLink,
    _upload: Option<Pump>,
    taken: Taken,
    done: bool,
}

impl Pieces {
    /// The client takes a piece, so that the actor may send more.
    fn hand_on(&mut self, piece: Bytes) -> Frame<Bytes> {
        for _ in 0..self.taken.took(piece.len()) {
            self.link.took();
        }
        Frame::data(piece)
    }
}

/// The rest of the body did not come.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off: {0}")]
struct BrokenOff(String);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(self.hand_on(first))));
        }
        while !self.done {
            match ready!(self.events.poll_recv(context)) {
                Some(TunnelEvent::Chunk { body, finish }) => {
                    self.done = finish;
                    if !body.is_empty() {
                        return Poll::Ready(Some(Ok(self.hand_on(body))));
                    }
                }
                Some(TunnelEvent::Failed(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(BrokenOff(error.to_string()).into())));
                }
                None => {
                    self.done = true;
                    let why = match self.events.overflowed() {
                        true => "the client reads too slowly",
                        false => "the gateway dropped it",
                    };
                    return Poll::Ready(Some(Err(BrokenOff(why.to_owned()).into())));
                }
                // A second head or something of a socket: the runner is confused, the client is not concerned.
                Some(
                    TunnelEvent::Response { .. }
                    | TunnelEvent::Open { .. }
                    | TunnelEvent::Message { .. }
                    | TunnelEvent::Close { .. },
                ) => {}
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.done && self.first.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
