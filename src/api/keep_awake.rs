//! Keep-awake leases: an actor with work that no counter sees asks not to be put to sleep for a while.

use std::time::Duration;

use axum::extract::Path;
use axum::http::{StatusCode, Uri};

use super::access::Caller;
use super::error::ApiError;
use super::query::Query;

/// `PUT /v1/keep-awake/{name}?ttl_ms=`
pub(super) async fn take(Caller(context): Caller, Path(name): Path<String>, uri: Uri) -> Result<StatusCode, ApiError> {
    let lasts = Query::parse(uri.query(), &["ttl_ms"])?.count("ttl_ms")?.map_or(USUAL, Duration::from_millis);
    context.lease_awake(&name, lasts)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/keep-awake/{name}`
pub(super) async fn give_back(Caller(context): Caller, Path(name): Path<String>) -> StatusCode {
    context.let_sleep(&name);
    StatusCode::NO_CONTENT
}

/// How long a lease lasts that names no time.
const USUAL: Duration = Duration::from_secs(60);
