//! The gateway's part of a trace: from a client's request to the end of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use crate::gateway::listener::{BoxError, ResponseBody};
use crate::telemetry::{Span, SpanKind, TRACEPARENT};

/// Begins the span of a request, and lets what comes of it belong to the span.
pub(super) fn begin(parts: &mut Parts) -> Span {
    let parent = || parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let mut span = Span::start(SpanKind::Server, "gateway request", parent);
    if let Some(traceparent) = span.traceparent().and_then(|text| HeaderValue::try_from(text).ok()) {
        parts.headers.insert(TRACEPARENT, traceparent);
        span.set("http.request.method", parts.method.as_str());
    }
    span
}

/// Ends the span with the answer's body.
pub(super) fn until_sent(span: Span, response: Response<ResponseBody>) -> Response<ResponseBody> {
    match span.traceparent() {
        Some(_) => response.map(|body| Sent { body, _span: span }.boxed()),
        None => response,
    }
}

/// A body that holds a span.
struct Sent {
    body: ResponseBody,
    _span: Span,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
