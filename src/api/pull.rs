//! Pull mode: the events of an actor without a server.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::extract::rejection::BytesRejection;
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::access::Caller;
use super::error::ApiError;
use super::query::Query;
use crate::host::{ActorContext, PullReply};

/// `GET /v1/next?wait_ms=`
pub(super) async fn next(Caller(context): Caller, uri: Uri) -> Result<Response, ApiError> {
    let wait = Query::parse(uri.query(), &["wait_ms"])?.count("wait_ms")?.map_or(WAIT, Duration::from_millis);
    let Some(event) = context.pull().ok_or_else(ApiError::not_pull)?.next(wait.min(WAIT_MAX)).await else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Response::new(Body::from(event.body));
    *response.headers_mut() = event.headers;
    response.headers_mut().insert(EVENT_ID, HeaderValue::from(event.id));
    Ok(response)
}

/// `POST /v1/reply/{id}?status=`
pub(super) async fn reply(
    Caller(context): Caller,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let body = body.map_err(|rejection| ApiError::body(rejection.status(), rejection.body_text()))?;
    let status = Query::parse(uri.query(), &["status"])?.count("status")?.unwrap_or(200);
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let status =
        status.ok_or_else(|| ApiError::bad_request("`status` is no HTTP status", "200 to 599; 200 by default"))?;
    let id = id.parse().map_err(|_| ApiError::bad_request("the id of an event is a number", EVENT_ID_HINT))?;
    answered(&context, id, PullReply { status, headers, body })
}

fn answered(context: &ActorContext, id: u64, reply: PullReply) -> Result<StatusCode, ApiError> {
    context.pull().ok_or_else(ApiError::not_pull)?.reply(id, reply)?;
    Ok(StatusCode::NO_CONTENT)
}

const EVENT_ID: HeaderName = HeaderName::from_static("actor-event-id");

const EVENT_ID_HINT: &str = "it comes in the header Actor-Event-Id of /v1/next";

/// How long a call waits for an event that names no time: below what clients and proxies usually wait.
const WAIT: Duration = Duration::from_secs(30);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
