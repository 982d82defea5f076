//! What callers are told who cannot have what they asked for, and in which form.

use axum::Json;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// A refusal, with what to do about it where there is something.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: &'static str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), hint: "" }
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The runner's driver did not answer in time, or has ended.
    pub(super) fn no_answer(why: impl Into<String>) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "runner_unavailable", why)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.hint.is_empty() {
            error["hint"] = self.hint.into();
        }
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}

/// A sentence for people, or JSON for programs that ask for it.
pub(super) fn sentence(status: StatusCode, text: String, json: &impl Serialize, as_json: bool) -> Response {
    if as_json {
        return (status, Json(json)).into_response();
    }
    (status, text + "\n").into_response()
}

/// Whether a caller wants JSON: `?format=json`, or an `Accept` that names it.
pub(super) fn wants_json(format: Option<&str>, headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("application/json"));
    format == Some("json") || (format.is_none() && headers.get(ACCEPT).is_some_and(accepts))
}

pub(super) async fn method_not_allowed(method: Method) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{method} is not for this route"))
}

pub(super) async fn no_such_route() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no such route").hint(
        "routes: /livez /readyz /metrics /status /actors /actors/ID /actors/ID/explain /actors/ID/logs, POST \
         /actors/ID/sleep /actors/ID/stop /drain, PUT /log",
    )
}

/// Nothing here is for caches or for scripts of other sites.
pub(super) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
