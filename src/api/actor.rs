//! Who am I, and what becomes of me.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::access::Caller;
use super::error::ApiError;
use crate::host::AwakeReason;

/// `GET /v1/actor`
pub(super) async fn who_am_i(Caller(context): Caller) -> Json<Value> {
    let start = context.start();
    Json(json!({
        "id": &*start.key.id,
        "name": &*start.name,
        "key": start.actor_key.as_deref(),
        "generation": start.key.generation,
        "start_reason": start.reason.as_str(),
        "create_ts": start.create_ts,
        "awake_because": context.awake_because().iter().map(reason).collect::<Vec<_>>(),
    }))
}

fn reason(reason: &AwakeReason) -> Value {
    match reason {
        AwakeReason::Work(work, count) => json!({ "reason": work.as_str(), "count": count }),
        AwakeReason::KeepAwake(name, left) => {
            json!({ "reason": "keep_awake", "name": name, "left_ms": millis(*left) })
        }
        AwakeReason::AlarmSoon(at) => json!({ "reason": "alarm", "at": at }),
        AwakeReason::IdleFor { idle, of } => {
            json!({ "reason": "sleep_after", "idle_ms": millis(*idle), "sleep_after_ms": millis(*of) })
        }
        AwakeReason::NeverSleeps => json!({ "reason": "never_sleeps" }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `GET /v1/input`
pub(super) async fn input(Caller(context): Caller) -> Result<Response, ApiError> {
    let input = context.start().input.clone().ok_or_else(ApiError::no_input)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], input).into_response())
}

/// `POST /v1/sleep`
pub(super) async fn sleep(Caller(context): Caller) -> Result<(StatusCode, Json<Value>), ApiError> {
    context.sleep().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// `POST /v1/destroy`
pub(super) async fn destroy(Caller(context): Caller) -> Result<(StatusCode, Json<Value>), ApiError> {
    context.destroy().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}
