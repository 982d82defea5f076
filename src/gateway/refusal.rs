//! What a client is told when it does not get what it asked for.
//!
//! The Rivet engine's form: `{"group","code","message","metadata"?}`. Clients act on group and code; people read the
//! message, so it says what to do where that is known. The same refusal has one status on the public API, another on
//! the way to an actor, and becomes the reason of a close frame on a WebSocket.

use std::borrow::Cow;

use bytes::Bytes;
use greenroom_protocol::close;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::{GatewayError, Id};
use crate::store::ActorError;
use crate::telemetry::metrics::Rejection;

/// A refusal on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Which part of the gateway speaks.
    pub group: &'static str,
    /// What happened, unique within the group.
    pub code: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
    /// For programs.
    pub metadata: Option<Value>,
}

impl Refusal {
    /// A refusal without metadata.
    #[must_use]
    pub fn new(group: &'static str, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { group, code, message: message.into(), metadata: None }
    }

    /// Adds metadata.
    #[must_use]
    pub fn with(mut self, metadata: Value) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// `api.bad_request`: the request itself is wrong, for this reason.
    #[must_use]
    pub fn bad_request(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Refusal::new("api", "bad_request", format!("Request is invalid: {reason}")).with(json!({ "reason": reason }))
    }

    /// `api.forbidden`, for this reason.
    #[must_use]
    pub fn forbidden(reason: &'static str) -> Self {
        Refusal::new("api", "forbidden", format!("Access denied: {reason}")).with(json!({ "reason": reason }))
    }

    /// `api.not_found`: there is no such route.
    #[must_use]
    pub fn not_found() -> Self {
        Refusal::new("api", "not_found", "The requested resource was not found")
    }

    /// `validation.invalid_input`: the parameters do not go together.
    #[must_use]
    pub fn invalid_input(message: &'static str) -> Self {
        Refusal::new("validation", "invalid_input", message).with(json!({ "message": message }))
    }

    /// `actor.not_found`.
    #[must_use]
    pub fn actor_not_found() -> Self {
        Refusal::new("actor", "not_found", "The actor does not exist or was destroyed.")
    }

    /// `core.internal_error`: not the client's fault.
    #[must_use]
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Refusal::new("core", "internal_error", message)
    }

    /// The status on the public API: nearly everything there is a bad request.
    #[must_use]
    pub fn api_status(&self) -> StatusCode {
        match (self.group, self.code) {
            ("api", "not_found") => StatusCode::NOT_FOUND,
            ("api", "forbidden") => StatusCode::FORBIDDEN,
            ("api", "unauthorized") => StatusCode::UNAUTHORIZED,
            ("api", "not_implemented") => StatusCode::NOT_IMPLEMENTED,
            ("core", _) => StatusCode::INTERNAL_SERVER_ERROR,
            ("guard", "service_unavailable") => StatusCode::SERVICE_UNAVAILABLE,
            (_, _) => StatusCode::BAD_REQUEST,
        }
    }

    /// The status on the way to an actor.
    #[must_use]
    pub fn guard_status(&self) -> StatusCode {
        match (self.group, self.code) {
            ("actor", "not_found") | ("guard", "no_route") | ("api", "not_found") => StatusCode::NOT_FOUND,
            ("guard", "invalid_request_body") => StatusCode::PAYLOAD_TOO_LARGE,
            ("guard", "request_body_timeout") => StatusCode::REQUEST_TIMEOUT,
            ("guard", "rate_limit") => StatusCode::TOO_MANY_REQUESTS,
            ("guard", "upstream_error" | "retry_attempts_exceeded" | "invalid_response_body") => {
                StatusCode::BAD_GATEWAY
            }
            (
                "guard",
                "actor_ready_timeout"
                | "actor_stopped_while_waiting"
                | "tunnel_request_aborted"
                | "tunnel_response_closed"
                | "service_unavailable",
            ) => StatusCode::SERVICE_UNAVAILABLE,
            ("guard", "request_timeout" | "tunnel_message_timeout" | "gateway_response_start_timeout") => {
                StatusCode::GATEWAY_TIMEOUT
            }
            ("core", _) => StatusCode::INTERNAL_SERVER_ERROR,
            (_, _) => StatusCode::BAD_REQUEST,
        }
    }

    /// What kind of refusal it is, for counting.
    pub(super) fn rejection(&self) -> Rejection {
        match (self.group, self.code) {
            ("actor", _) => Rejection::Actor,
            (_, "actor_stopped_while_waiting" | "retry_attempts_exceeded" | "invalid_response_body") => {
                Rejection::Actor
            }
            (_, "tunnel_request_aborted" | "tunnel_response_closed" | "upstream_error") => Rejection::Runner,
            (_, "service_unavailable" | "rate_limit") => Rejection::Overload,
            (_, "forbidden" | "unauthorized") => Rejection::Forbidden,
            (_, code) if code.ends_with("_timeout") => Rejection::Timeout,
            ("core", _) => Rejection::Other,
            (_, _) => Rejection::Invalid,
        }
    }

    /// The response on the public API.
    #[must_use]
    pub fn into_api_response(self) -> Response<Bytes> {
        let status = self.api_status();
        self.into_response(status)
    }

    /// The response on the way to an actor; its header tells it from an answer of the actor.
    #[must_use]
    pub fn into_guard_response(self) -> Response<Bytes> {
        let name = HeaderValue::try_from(format!("{}.{}", self.group, self.code));
        let status = self.guard_status();
        let mut response = self.into_response(status);
        if let Ok(name) = name {
            response.headers_mut().insert(RIVET_ERROR, name);
        }
        response
    }

    /// The reason of a close frame: group, code and the ray to quote in a report.
    #[must_use]
    pub fn close_reason(&self, ray: Id) -> String {
        close::clip(&format!("{}.{}#{ray}", self.group, self.code)).to_owned()
    }

    fn into_response(self, status: StatusCode) -> Response<Bytes> {
        let body =
            Body { group: self.group, code: self.code, message: &self.message, metadata: self.metadata.as_ref() };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// The engine's form, in the engine's order.
#[derive(Serialize)]
struct Body<'a> {
    group: &'a str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
}

impl From<GatewayError> for Refusal {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::ActorNotFound => Refusal::actor_not_found(),
            GatewayError::DuplicateKey { existing_actor_id, key } => Refusal::new(
                "actor",
                "duplicate_key",
                format!("Actor key '{key}' already in use for actor '{existing_actor_id}'"),
            )
            .with(json!({ "existing_actor_id": &*existing_actor_id, "key": &*key })),
            GatewayError::ActorDestroyed => {
                Refusal::new("actor", "destroyed_during_creation", "Actor was destroyed during creation.")
            }
            GatewayError::NamespaceNotFound => Refusal::new("namespace", "not_found", "The namespace does not exist."),
            GatewayError::NamespaceNameNotUnique => {
                Refusal::new("namespace", "name_not_unique", "Namespace name must be unique.")
            }
            GatewayError::NoRunnerConfig { pool } => Refusal::new(
                "actor",
                "no_runner_config_configured",
                format!(
                    "No runner of pool '{pool}' has connected to this namespace yet, and no runner config names it. \
                     Start a runner with this pool as its runner name, or check runner_name_selector."
                ),
            )
            .with(json!({ "pool_name": &*pool })),
            GatewayError::ActorReadyTimeout { error } => {
                let message = match &error {
                    None => "The actor did not become ready in time.".to_owned(),
                    Some(error) => format!("The actor did not become ready in time: {}.", why(error)),
                };
                Refusal::new("guard", "actor_ready_timeout", message)
            }
            GatewayError::ActorStopped => {
                Refusal::new("guard", "actor_stopped_while_waiting", "The actor stopped before it answered.")
            }
            GatewayError::RequestAborted => {
                Refusal::new("guard", "tunnel_request_aborted", "The actor's runner gave up on the request.")
            }
            GatewayError::TunnelClosed => Refusal::new(
                "guard",
                "tunnel_response_closed",
                "The connection to the actor's runner was lost before the actor answered; the request may have run.",
            ),
            GatewayError::ResponseStartTimeout => Refusal::new(
                "guard",
                "gateway_response_start_timeout",
                "The actor did not begin to answer in time; the request may have run.",
            ),
            GatewayError::InvalidResponse(why) => Refusal::new("guard", "invalid_response_body", why),
            GatewayError::WholeBodyNeeded => {
                Refusal::internal("a request that was sent in pieces has to be sent whole to this runner")
            }
            GatewayError::Unavailable(why) => {
                Refusal::new("guard", "service_unavailable", why).with(json!({ "reason": why }))
            }
            GatewayError::Internal(why) => {
                // Tells of files and disks, which is the operator's business, not the client's.
                tracing::error!(error = why, "request failed inside the gateway");
                Refusal::internal("An internal error occurred")
            }
        }
    }
}

/// What kept an actor from becoming ready, and what helps.
fn why(error: &ActorError) -> Cow<'_, str> {
    match error {
        ActorError::NoCapacity => "no connected runner of its pool has a free slot".into(),
        ActorError::Crashed { message: Some(message) } => format!("it crashed: {message}").into(),
        ActorError::Crashed { message: None } => "it crashed".into(),
        ActorError::RunnerNoResponse { runner_id } => format!("runner {runner_id} did not start it in time").into(),
        ActorError::RunnerConnectionLost { runner_id } => format!("its runner {runner_id} was lost").into(),
        ActorError::RunnerDrainingTimeout { runner_id } => {
            format!("its runner {runner_id} left before it had stopped").into()
        }
    }
}

/// Stands on every response that is a refusal of the gateway instead of an answer of an actor.
pub const RIVET_ERROR: HeaderName = HeaderName::from_static("x-rivet-error");

/// Names the request, for the log and for reports; stands on every request and every response.
pub const RIVET_RAY: HeaderName = HeaderName::from_static("x-rivet-ray-id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_has_another_status_on_the_api_than_on_the_way_to_an_actor() {
        let refusal = Refusal::actor_not_found();
        assert_eq!(refusal.api_status(), 400);
        assert_eq!(refusal.guard_status(), 404);
    }

    #[test]
    fn a_refusal_names_itself_in_header_body_and_close_reason() {
        let refusal = Refusal::from(GatewayError::ActorStopped);
        let ray = Id::from_random([7; 16]);
        assert_eq!(refusal.close_reason(ray), format!("guard.actor_stopped_while_waiting#{ray}"));
        let response = refusal.into_guard_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RIVET_ERROR], "guard.actor_stopped_while_waiting");
        let body: Value = serde_json::from_slice(response.body()).expect("json");
        assert_eq!(body["group"], "guard");
        assert_eq!(body["code"], "actor_stopped_while_waiting");
        assert_eq!(body.get("metadata"), None);
    }

    #[test]
    fn every_error_of_the_gateway_has_the_status_of_the_engine() {
        let cases = [
            (GatewayError::ActorNotFound, 400, 404),
            (GatewayError::NamespaceNotFound, 400, 400),
            (GatewayError::NamespaceNameNotUnique, 400, 400),
            (GatewayError::DuplicateKey { existing_actor_id: "a".into(), key: "k".into() }, 400, 400),
            (GatewayError::NoRunnerConfig { pool: "p".into() }, 400, 400),
            (GatewayError::ActorReadyTimeout { error: None }, 400, 503),
            (GatewayError::ActorStopped, 400, 503),
            (GatewayError::RequestAborted, 400, 503),
            (GatewayError::TunnelClosed, 400, 503),
            (GatewayError::ResponseStartTimeout, 400, 504),
            (GatewayError::InvalidResponse("too large"), 400, 502),
            (GatewayError::Unavailable("stopping"), 503, 503),
            (GatewayError::Internal("disk".into()), 500, 500),
        ];
        for (error, api, guard) in cases {
            let refusal = Refusal::from(error.clone());
            assert_eq!(refusal.api_status(), api, "{error:?}");
            assert_eq!(refusal.guard_status(), guard, "{error:?}");
        }
    }
}
