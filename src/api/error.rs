//! Refusals: `{"error":{"code","message","hint"}}` with a proper status.

use axum::Json;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::egress::EgressError;
use crate::host::{AlarmError, Gone, KvError, LeaseError, PullError, SocketError};
use crate::report::MetadataRefusal;
use crate::socket::CallError;

/// Why a call was refused.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        ApiError { status, code, message: message.into(), hint }
    }

    pub(super) fn no_token() -> Self {
        let hint = "send the content of the file that ACTOR_TOKEN_FILE names, as `Authorization: Bearer …`";
        Self::new(StatusCode::UNAUTHORIZED, "token_missing", "the call has no token", hint)
    }

    pub(super) fn bad_token() -> Self {
        let hint = "read the file that ACTOR_TOKEN_FILE names again; every start of an actor has a token of its own";
        Self::new(StatusCode::UNAUTHORIZED, "token_unknown", "the token belongs to no actor here", hint)
    }

    pub(super) fn stale() -> Self {
        let hint = "this process is to end; the actor may already run elsewhere";
        Self::new(StatusCode::GONE, "stale_generation", "this generation of the actor has ended", hint)
    }

    pub(super) fn not_built(feature: &str) -> Self {
        let message = format!("{feature}: not built yet in this version");
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_built", message, "see the release notes for when it is")
    }

    pub(super) fn no_such_route() -> Self {
        let hint = "the actor API begins with /v1/actor, /v1/input, /v1/kv, /v1/alarms, /v1/keep-awake, /v1/ws, /v1/metadata, /v1/egress, /v1/sleep and /v1/destroy";
        Self::new(StatusCode::NOT_FOUND, "no_such_route", "there is no such route", hint)
    }

    pub(super) fn method_not_allowed(method: &Method) -> Self {
        let message = format!("the route does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message, "")
    }

    pub(super) fn not_pull() -> Self {
        let hint = "listen = \"pull\" in the actors file makes it one that asks";
        Self::new(StatusCode::CONFLICT, "not_pull", "the actor is told its events as POST /_actor", hint)
    }

    pub(super) fn no_input() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_input", "the actor was created without input", "")
    }

    pub(super) fn no_such_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_key", "there is no value under this key", "")
    }

    pub(super) fn no_such_socket() -> Self {
        let hint = "GET /v1/ws lists the open sockets; one that has closed is told by its close event";
        Self::new(StatusCode::NOT_FOUND, "no_such_socket", SocketError::Unknown.to_string(), hint)
    }

    pub(super) fn bad_request(message: impl Into<String>, hint: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message, hint)
    }

    pub(super) fn body(status: StatusCode, message: String) -> Self {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "too_large", message, "a value has at most 128 KiB, a batch 976 KiB")
            }
            _ => Self::new(status, "bad_request", message, ""),
        }
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        let message = error.to_string();
        match error {
            KvError::Refused(_) => Self::new(StatusCode::BAD_REQUEST, "refused", message, ""),
            KvError::Stale => Self::stale(),
            KvError::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_away", message, "nothing was changed; try again")
            }
            KvError::OutcomeUnknown => {
                let hint = "read the key to see whether the write happened; writing the same again is safe";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", message, hint)
            }
            KvError::Reserved => Self::new(StatusCode::FORBIDDEN, "reserved_key", message, "choose another key"),
            KvError::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message, ""),
        }
    }
}

impl From<EgressError> for ApiError {
    fn from(error: EgressError) -> Self {
        let message = error.to_string();
        match error {
            EgressError::NotAllowed { .. } => {
                let hint = "list it in the actor's table of the actors file, as egress = [\"NAME\"]";
                Self::new(StatusCode::FORBIDDEN, "egress_not_allowed", message, hint)
            }
            EgressError::Path => {
                let hint = "give the path below the egress's url, without dots as segments";
                Self::new(StatusCode::BAD_REQUEST, "egress_path", message, hint)
            }
            EgressError::Job => Self::new(StatusCode::BAD_REQUEST, "egress_job", message, "send the id of the job"),
            EgressError::Busy { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "egress_busy", message, "wait for some to end")
            }
            EgressError::BodyTooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "egress_too_large", message, "")
            }
            EgressError::Credential { .. } => {
                let hint = "the operator has to mend the file; the next call reads it again";
                Self::new(StatusCode::BAD_GATEWAY, "egress_credential", message, hint)
            }
            EgressError::Unreachable(CallError::LinkLocal { .. }) => {
                let hint = "if that is meant, set allow_link_local = true in the egress's table";
                Self::new(StatusCode::FORBIDDEN, "egress_link_local", message, hint)
            }
            EgressError::Unreachable(_) => {
                let hint = "the server may have got the call";
                Self::new(StatusCode::BAD_GATEWAY, "egress_unreachable", message, hint)
            }
            EgressError::Timeout { .. } => {
                let hint = "the server may have got the call; timeout in the egress's table says how long it has";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "egress_timeout", message, hint)
            }
            EgressError::Redirect { .. } => {
                let hint = "set the egress's url to where the server is";
                Self::new(StatusCode::BAD_GATEWAY, "egress_redirect", message, hint)
            }
            EgressError::Upgrade => Self::new(StatusCode::BAD_GATEWAY, "egress_upgrade", message, ""),
        }
    }
}

impl From<MetadataRefusal> for ApiError {
    fn from(refusal: MetadataRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            MetadataRefusal::Reserved(_) => {
                Self::new(StatusCode::BAD_REQUEST, "reserved_key", message, "choose another key")
            }
            MetadataRefusal::ActorFull { .. } | MetadataRefusal::RunnerFull { .. } => {
                let hint = "set keys that are not needed to null; storage is the place for large values";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, hint)
            }
        }
    }
}

impl From<SocketError> for ApiError {
    fn from(error: SocketError) -> Self {
        let message = error.to_string();
        match error {
            SocketError::Unknown => Self::no_such_socket(),
            SocketError::NotOpen => {
                let hint = "answer the open event with a body to send a first frame";
                Self::new(StatusCode::CONFLICT, "not_open", message, hint)
            }
            SocketError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, ""),
            SocketError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_away", message, "try again"),
            SocketError::NotServed => {
                let hint = "set websocket = \"events\" in the actors file";
                Self::new(StatusCode::CONFLICT, "no_socket_events", message, hint)
            }
            SocketError::Over => Self::stale(),
        }
    }
}

impl From<AlarmError> for ApiError {
    fn from(error: AlarmError) -> Self {
        let message = error.to_string();
        match error {
            AlarmError::Storage(error) => error.into(),
            AlarmError::NotServed => Self::new(StatusCode::CONFLICT, "not_served", message, ""),
            AlarmError::TooMany => {
                let hint = "remove some, or set one for the earliest of many and keep the rest in storage";
                Self::new(StatusCode::CONFLICT, "too_many_alarms", message, hint)
            }
            AlarmError::TooLarge(_) => {
                let hint = "keep it in storage and name its key in the alarm";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, hint)
            }
            AlarmError::BadName | AlarmError::TooOften => Self::bad_request(message, ""),
        }
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        let message = error.to_string();
        match error {
            PullError::Unknown => Self::new(StatusCode::NOT_FOUND, "no_such_event", message, ""),
            PullError::Gone => {
                let hint = "an event that is not answered in time is told again, with a new id";
                Self::new(StatusCode::GONE, "event_gone", message, hint)
            }
        }
    }
}

impl From<LeaseError> for ApiError {
    fn from(error: LeaseError) -> Self {
        let message = error.to_string();
        match error {
            LeaseError::TooMany => Self::new(StatusCode::CONFLICT, "too_many_leases", message, "give some back"),
            LeaseError::BadName | LeaseError::TooLong => Self::bad_request(message, ""),
        }
    }
}

impl From<Gone> for ApiError {
    fn from(gone: Gone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "runner_stopped", gone.to_string(), "")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let hint = (!self.hint.is_empty()).then_some(self.hint);
        let body = Json(json!({"error": {"code": self.code, "message": self.message, "hint": hint}}));
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                (self.status, [(header::RETRY_AFTER, "1")], body).into_response()
            }
            status => (status, body).into_response(),
        }
    }
}
