//! The gateway's part of a trace: from a client's request to the end of the answer.

use hyper::Response;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use crate::gateway::listener::{Held, ResponseBody};
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
        Some(_) => response.map(|body| ResponseBody::new(Held { body, _until_sent: span })),
        None => response,
    }
}
