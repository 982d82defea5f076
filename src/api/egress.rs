//! Calls to servers outside.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;

use super::access::Caller;
use super::error::ApiError;
use crate::egress::{Egress, Target};

/// `ANY /v1/egress/{name}/…`
pub(super) async fn call(
    Caller(context): Caller,
    Extension(egress): Extension<Arc<Egress>>,
    request: Request,
) -> Result<Response, ApiError> {
    let uri = request.uri().clone();
    let path = uri.path_and_query().map_or("", |path| path.as_str()).strip_prefix("/v1/egress/").unwrap_or_default();
    let (name, rest) = path.split_at(path.find(['/', '?']).unwrap_or(path.len()));
    let answer = egress.call(&context, Target { egress: name, rest }, request).await?;
    Ok(answer.map(Body::new))
}
