//! The caller's client sockets: list, send, broadcast, close, attachments.

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::Path;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use greenroom_protocol::StreamId;
use greenroom_protocol::close::sendable_code;
use serde_json::{Value, json};

use super::access::Caller;
use super::error::ApiError;
use super::query::Query;
use crate::host::{Outgoing, SocketError, SocketInfo, is_text};

/// `GET /v1/ws?tag=`
pub(super) async fn list(Caller(context): Caller, uri: Uri) -> Result<Json<Value>, ApiError> {
    let query = Query::parse(uri.query(), &["tag"])?;
    let sockets = context.sockets().list(query.text("tag")?.as_deref()).await?;
    Ok(Json(json!({ "sockets": sockets.iter().map(described).collect::<Vec<_>>() })))
}

/// `POST /v1/ws/{id}`
pub(super) async fn send(
    Caller(context): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    context.sockets().send(socket(&id)?, frame(&headers, body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/ws:broadcast?tag=`
pub(super) async fn broadcast(
    Caller(context): Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let query = Query::parse(uri.query(), &["tag"])?;
    let sockets = context.sockets().broadcast(query.text("tag")?.as_deref(), frame(&headers, body)?).await?;
    Ok(Json(json!({ "sockets": sockets })))
}

/// `DELETE /v1/ws/{id}?code=&reason=`
pub(super) async fn close(Caller(context): Caller, Path(id): Path<String>, uri: Uri) -> Result<StatusCode, ApiError> {
    let query = Query::parse(uri.query(), &["code", "reason"])?;
    let code = query.count("code")?.unwrap_or(1000);
    let code = u16::try_from(code).ok().filter(|code| sendable_code(Some(*code)) == *code).ok_or_else(|| {
        let hint = "1000 to 1003, 1007 to 1013, or 3000 to 4999";
        ApiError::bad_request("`code` is no code that a server may close a WebSocket with", hint)
    })?;
    let reason = query.text("reason")?.unwrap_or_default();
    context.sockets().close(socket(&id)?, code, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/ws/{id}/attachment`
pub(super) async fn attachment(Caller(context): Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let attachment = context.sockets().attachment(socket(&id)?).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], attachment).into_response())
}

/// `PUT /v1/ws/{id}/attachment`
pub(super) async fn attach(
    Caller(context): Caller,
    Path(id): Path<String>,
    body: Result<Body, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let attachment = body.map_err(|rejection| refused(&rejection, "an attachment has at most 16 KiB"))?;
    context.sockets().attach(socket(&id)?, attachment).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn described(socket: &SocketInfo) -> Value {
    json!({
        "id": socket.id.to_string(),
        "path": socket.path,
        "tags": socket.tags,
        "attachment": (!socket.attachment.is_empty()).then(|| BASE64URL_NOPAD.encode(&socket.attachment)),
        "connected": socket.connected,
    })
}

fn socket(id: &str) -> Result<StreamId, ApiError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok();
    let id: Option<[u8; 8]> = bytes.and_then(|bytes| bytes.try_into().ok());
    let [a, b, c, d, e, f, g, h] = id.ok_or_else(ApiError::no_such_socket)?;
    Ok(StreamId { gateway: [a, b, c, d], request: [e, f, g, h] })
}

/// A body as a frame: its content type says whether it is text.
fn frame(headers: &HeaderMap, body: Result<Body, BytesRejection>) -> Result<Outgoing, ApiError> {
    let data = body.map_err(|rejection| refused(&rejection, "a frame has at most 20 MiB"))?;
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_text);
    if text && std::str::from_utf8(&data).is_err() {
        return Err(ApiError::bad_request("the body is not UTF-8", "send it as application/octet-stream"));
    }
    Ok(Outgoing { data, binary: !text })
}

/// Why a body was not read; `limit` says how much it may have.
fn refused(rejection: &BytesRejection, limit: &'static str) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => SocketError::TooLarge(limit).into(),
        status => ApiError::body(status, rejection.body_text()),
    }
}

/// The largest frame, in bytes: what the wire carries, and a little so that one above it gets the error that says so.
pub(super) const FRAME_BODY_MAX: usize = greenroom_protocol::limits::PAYLOAD_MAX + 1024;
