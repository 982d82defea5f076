//! What an in-process actor answers with.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greenroom_protocol::Headers;

use crate::host::{Body, Gone, KvError, Responder, ResponseWriter};

/// A response: status, headers, and a body that is there as a whole or is written bit by bit.
#[derive(Debug)]
#[must_use = "a response does nothing unless it is returned"]
pub struct Response {
    status: u16,
    headers: Headers,
    body: ResponseBody,
}

enum ResponseBody {
    Whole(Bytes),
    Stream(Write),
}

type Write = Box<dyn FnOnce(ResponseWriter) -> BoxFuture<'static, Result<(), StreamError>> + Send>;

/// Why a streamed body ended early; the client sees a response that breaks off. Made from any error by `?`.
#[derive(Debug)]
pub struct StreamError(Box<dyn std::error::Error + Send + Sync>);

impl Response {
    /// An empty response with this status.
    pub fn new(status: u16) -> Self {
        Response { status, headers: Headers::new(), body: ResponseBody::Whole(Bytes::new()) }
    }

    /// A 200 with plain text.
    pub fn text(text: impl Into<ByteString>) -> Self {
        Response::bytes(text.into().into_bytes()).header("content-type", "text/plain; charset=utf-8")
    }

    /// A 200 with JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        Response::bytes(value.to_string()).header("content-type", "application/json")
    }

    /// A 200 with bytes of no declared type.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Response { body: ResponseBody::Whole(bytes.into()), ..Response::new(200) }
    }

    /// A 200 that is written bit by bit, in the task of the request and as fast as the client reads. An error, or a
    /// writer dropped before its [`ResponseWriter::finish`], breaks the response off.
    pub fn stream<W, F>(write: W) -> Self
    where
        W: FnOnce(ResponseWriter) -> F + Send + 'static,
        F: Future<Output = Result<(), StreamError>> + Send + 'static,
    {
        let write = Box::new(move |writer| write(writer).boxed());
        Response { body: ResponseBody::Stream(write), ..Response::new(200) }
    }

    /// A 200 with a body as a request has it.
    pub fn body(body: Body) -> Self {
        match body {
            Body::Whole(bytes) => Response::bytes(bytes),
            Body::Pieces(mut pieces) => Response::stream(|mut writer| async move {
                while let Some(piece) = pieces.next().await {
                    writer.chunk(piece?).await?;
                }
                Ok(writer.finish().await?)
            }),
        }
    }

    /// The status.
    pub(super) fn code(&self) -> u16 {
        self.status
    }

    /// Sets the status.
    pub fn status(self, status: u16) -> Self {
        Response { status, ..self }
    }

    /// Adds a header; names are lower case and may repeat.
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) async fn send(self, responder: Responder) -> Result<(), Gone> {
        match self.body {
            ResponseBody::Whole(body) => responder.respond(self.status, self.headers, body).await,
            ResponseBody::Stream(write) => Box::pin(stream(responder, self.status, self.headers, write)).await,
        }
    }
}

async fn stream(responder: Responder, status: u16, headers: Headers, write: Write) -> Result<(), Gone> {
    let writer = responder.start(status, headers).await?;
    let actor = writer.actor().clone();
    match super::caught(write(writer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%actor, %error, "a response broke off"),
        Err(panic) => tracing::error!(%actor, %panic, "writing a response failed"),
    }
    Ok(())
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for StreamError {
    fn from(error: E) -> Self {
        StreamError(Box::new(error))
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<KvError> for Response {
    /// 503 when the storage is away, 500 otherwise, with the error as text.
    fn from(error: KvError) -> Self {
        let status = match &error {
            KvError::Unavailable | KvError::Stale | KvError::TooMany => 503,
            KvError::Refused(_) | KvError::Reserved | KvError::OutcomeUnknown => 500,
        };
        Response::text(error.to_string()).status(status)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseBody::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            ResponseBody::Stream(_) => f.write_str("a stream"),
        }
    }
}
