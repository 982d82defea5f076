//! Browsers may use the API from any page, as with the engine: what protects it is the token, which no browser sends on
//! its own.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};

/// Adds what lets a page read the answer.
pub(super) async fn allow(request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = next.run(request).await;
    mirror(response.headers_mut(), origin);
    response
}

/// Answers a browser that asks before it calls: whatever it wants to do, it may.
pub(super) fn preflight(request: &HeaderMap) -> hyper::Response<Bytes> {
    let mut response = hyper::Response::new(Bytes::new());
    let headers = response.headers_mut();
    mirror(headers, request.get(ORIGIN).cloned());
    let mut echo = |asked: HeaderName, name: HeaderName| {
        if let Some(asked) = request.get(asked) {
            headers.insert(name, asked.clone());
        }
    };
    echo(ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS);
    echo(ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS);
    response
}

fn mirror(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    let vary = HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
    headers.insert(VARY, vary);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}
