//! From the token of a call to the actor life it belongs to.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::error::ApiError;
use super::tokens::{Holder, Tokens};
use crate::host::ActorContext;

/// The life that calls.
pub(super) struct Caller(pub(super) ActorContext);

impl FromRequestParts<Arc<Tokens>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, tokens: &Arc<Tokens>) -> Result<Self, ApiError> {
        let value = parts.headers.get(AUTHORIZATION).ok_or_else(ApiError::no_token)?;
        let text = value.to_str().map_err(|_| ApiError::bad_token())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(ApiError::bad_token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::bad_token());
        }
        match tokens.holder(token.trim()) {
            Some(Holder::Live(context)) => Ok(Caller(context)),
            Some(Holder::Over) => Err(ApiError::stale()),
            None => Err(ApiError::bad_token()),
        }
    }
}
