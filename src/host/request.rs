//! One client request and the way to answer it.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::credit::{GRANT, WINDOW};
use greenroom_protocol::{Headers, StreamId};

use crate::actor::ActorKey;
use crate::credit::Credit;
use crate::host::call::{send, send_from_drop};
use crate::host::{Body, Call, CallSender, Gone, StreamKey, StreamReply};
use crate::telemetry::{Span, SpanKind, TRACEPARENT};

/// A client's request, as it was sent.
#[derive(Debug)]
pub struct Request {
    /// Its id, for the log and for `Actor-Request-Id`.
    pub stream: StreamId,
    /// HTTP method, upper case by convention only.
    pub method: ByteString,
    /// Path and query, not decoded; begins with `/`.
    pub path: ByteString,
    /// Headers; names are lower case and may repeat.
    pub headers: Headers,
    /// The body.
    pub body: Body,
}

impl Request {
    /// Begins the span of serving it, and lets what comes of it belong to that.
    pub(super) fn begin_span(&mut self, kind: SpanKind, actor: &ActorKey) -> Span {
        let is_context = |name: &str| name.eq_ignore_ascii_case(TRACEPARENT);
        let came = || self.headers.iter().find(|(name, _)| is_context(name)).map(|(_, value)| &**value);
        let mut span = Span::start(kind, "actor request", came);
        if let Some(traceparent) = span.traceparent() {
            self.headers.retain(|(name, _)| !is_context(name));
            self.headers.push((TRACEPARENT.into(), traceparent.into()));
            span.set("http.request.method", &*self.method);
            span.set("greenroom.actor.id", &*actor.id);
        }
        span
    }
}

/// Answers one request, once. Dropped unanswered, it aborts the request, and the gateway may try it elsewhere.
#[derive(Debug)]
pub struct Responder {
    stream: Stream,
}

/// Writes the rest of a response body. Dropped unfinished, it aborts the response.
#[derive(Debug)]
pub struct ResponseWriter {
    stream: Stream,
}

impl Request {
    /// The path without its query.
    #[must_use]
    pub fn route(&self) -> &str {
        self.path.split_once('?').map_or(&*self.path, |(route, _)| route)
    }

    /// The query without its question mark, not decoded; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first value of a header; the name is lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| **other == *name).map(|(_, value)| &**value)
    }
}

/// The sending end of a stream, with its abort-on-drop.
#[derive(Debug)]
struct Stream {
    actor: ActorKey,
    key: StreamKey,
    calls: CallSender,
    open: bool,
    /// What the response travels on, to a gateway that gives credit.
    credit: Option<Credit>,
}

impl Responder {
    /// The responder of one stream of one actor life.
    #[must_use]
    pub fn new(actor: ActorKey, key: StreamKey, calls: CallSender) -> Self {
        Responder { stream: Stream { actor, key, calls, open: true, credit: None } }
    }

    /// The same, with a response that travels as far as there is credit for it.
    #[must_use]
    pub fn on_credit(mut self, credit: Credit) -> Self {
        self.stream.credit = Some(credit);
        self
    }

    /// Answers with a whole body.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn respond(mut self, status: u16, mut headers: Headers, body: Bytes) -> Result<(), Gone> {
        if self.stream.credit.is_some() && body.len() > WINDOW {
            // More than the gateway should have to keep for a client that reads slowly.
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
            headers.push(("content-length".into(), body.len().to_string().into()));
            return Box::pin(self.respond_in_pieces(status, headers, body)).await;
        }
        self.stream.open = false;
        self.stream.send(StreamReply::Response { status, headers, body, more: false }).await
    }

    async fn respond_in_pieces(self, status: u16, headers: Headers, body: Bytes) -> Result<(), Gone> {
        let mut writer = self.start(status, headers).await?;
        writer.chunk(body).await?;
        writer.finish().await
    }

    /// Answers with a head; the body follows through the writer.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn start(self, status: u16, headers: Headers) -> Result<ResponseWriter, Gone> {
        self.start_with(status, headers, Bytes::new()).await
    }

    /// Answers with a head and the first piece of the body; the rest follows through the writer.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn start_with(self, status: u16, headers: Headers, first: Bytes) -> Result<ResponseWriter, Gone> {
        let head = |body| StreamReply::Response { status, headers, body, more: true };
        if self.stream.credit.is_none() {
            self.stream.send(head(first)).await?;
            return Ok(ResponseWriter { stream: self.stream });
        }
        self.stream.send(head(Bytes::new())).await?;
        let mut writer = ResponseWriter { stream: self.stream };
        writer.chunk(first).await?;
        Ok(writer)
    }

    /// The actor life that was asked.
    #[must_use]
    pub fn actor(&self) -> &ActorKey {
        &self.stream.actor
    }

    /// Gives up: the gateway may try again elsewhere.
    pub fn abort(self) {
        drop(self);
    }
}

impl ResponseWriter {
    /// The actor life that was asked.
    #[must_use]
    pub fn actor(&self) -> &ActorKey {
        &self.stream.actor
    }

    /// Sends a piece of the body; waits while the client reads too slowly, and when the way to the gateway is full.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn chunk(&mut self, mut body: Bytes) -> Result<(), Gone> {
        let Some(credit) = self.stream.credit.clone() else {
            return self.stream.send(StreamReply::Chunk { body, finish: false }).await;
        };
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(GRANT));
            credit.spend(piece.len()).await;
            self.stream.send(StreamReply::Chunk { body: piece, finish: false }).await?;
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn finish(mut self) -> Result<(), Gone> {
        self.stream.open = false;
        self.stream.send(StreamReply::Chunk { body: Bytes::new(), finish: true }).await
    }
}

impl Stream {
    async fn send(&self, reply: StreamReply) -> Result<(), Gone> {
        let call = Call::Stream { actor: self.actor.clone(), stream: self.key, reply };
        send(&self.calls, call).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.open {
            let call = Call::Stream { actor: self.actor.clone(), stream: self.key, reply: StreamReply::Abort };
            send_from_drop(&self.calls, call);
        }
    }
}
