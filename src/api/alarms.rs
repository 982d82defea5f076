//! Alarms: list, set, remove.

use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Caller;
use super::error::ApiError;
use super::query::base64;
use crate::host::{AlarmInfo, now_ms};

/// What an alarm is set to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Milliseconds since the epoch.
    at: Option<i64>,
    in_ms: Option<u64>,
    every_ms: Option<u64>,
    /// Text as it is, everything else as JSON.
    data: Option<Value>,
    data_b64: Option<String>,
}

/// `GET /v1/alarms`
pub(super) async fn list(Caller(context): Caller) -> Result<Json<Value>, ApiError> {
    let alarms = context.alarms().list().await?;
    Ok(Json(json!({ "alarms": alarms.iter().map(described).collect::<Vec<_>>() })))
}

/// `PUT /v1/alarms/{name}`
pub(super) async fn set(
    Caller(context): Caller,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let body = body.map_err(|rejection| ApiError::body(rejection.status(), rejection.body_text()))?;
    // Whatever its content type says: shells send none worth having.
    let wanted: Wanted =
        serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(format!("the body: {error}"), HINT))?;
    let at = match (wanted.at, wanted.in_ms) {
        (Some(at), None) => at,
        (None, Some(delay)) => now_ms().saturating_add(i64::try_from(delay).unwrap_or(i64::MAX)),
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("expected one of `at` and `in_ms`", HINT));
        }
    };
    let data = match (wanted.data, wanted.data_b64) {
        (None | Some(Value::Null), None) => Bytes::new(),
        (Some(Value::String(text)), None) => text.into(),
        (Some(json), None) => json.to_string().into(),
        (None | Some(Value::Null), Some(data)) => base64(data.as_bytes())?,
        (Some(_), Some(_)) => return Err(ApiError::bad_request("expected one of `data` and `data_b64`", HINT)),
    };
    context.alarms().set(&name, at, wanted.every_ms.map(Duration::from_millis), data).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/alarms/{name}`
pub(super) async fn remove(Caller(context): Caller, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    context.alarms().remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn described(alarm: &AlarmInfo) -> Value {
    let mut described = json!({
        "name": alarm.name,
        "at": alarm.at,
        "every_ms": alarm.every_ms,
        "attempt": alarm.attempt,
        "next_at": alarm.next_at,
    });
    match std::str::from_utf8(&alarm.data) {
        Ok(text) => described["data"] = text.into(),
        Err(_) => described["data_b64"] = BASE64URL_NOPAD.encode(&alarm.data).into(),
    }
    described
}

const HINT: &str = "like {\"in_ms\": 60000, \"data\": \"…\"} or {\"at\": 1767225600000, \"every_ms\": 3600000}; \
                    times are milliseconds, `at` since the epoch; `data_b64` is base64url";
