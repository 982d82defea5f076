//! What an actor adds to the worker state that its runner reports.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use super::access::Caller;
use super::error::ApiError;
use crate::reporter::Metadata;

/// `PATCH /v1/metadata`
pub(super) async fn patch(
    Caller(context): Caller,
    Extension(metadata): Extension<Arc<Metadata>>,
    body: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(patch) = body.map_err(|rejection| ApiError::body(rejection.status(), rejection.body_text()))?;
    metadata.patch(&context.key().id, patch)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/metadata`
pub(super) async fn read(
    Caller(context): Caller,
    Extension(metadata): Extension<Arc<Metadata>>,
) -> Json<Map<String, Value>> {
    Json(metadata.of(&context.key().id))
}
