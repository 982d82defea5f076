//! Who may use the API.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::bearer;
use crate::gateway::refusal::Refusal;

/// Lets in who presents the admin token; where there is none, who calls the gateway by an allowed name.
pub(super) async fn require_token(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(token) = &api.settings.admin_token else {
        return match api.settings.allowed_hosts.check(&request) {
            Ok(()) => next.run(request).await,
            Err(why) => Refusal::forbidden(why).into_response(),
        };
    };
    match bearer::of(request.headers()) {
        None => Refusal::forbidden("Token not provided").into_response(),
        Some(given) if bearer::is(given, token) => next.run(request).await,
        Some(_) => Refusal::forbidden("Invalid token").into_response(),
    }
}
