//! Probes, metrics and the status of the whole runner.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, sentence, wants_json};
use super::state::Shared;
use crate::runner::{Census, LinkStatus, Status};
use crate::telemetry;
use crate::telemetry::metrics::{self, Format};

#[derive(Debug, Deserialize)]
pub(super) struct Form {
    format: Option<String>,
}

/// 200 while the runner's driver turns.
pub(super) async fn live(State(shared): State<Shared>) -> Result<&'static str, Refusal> {
    shared.census().await.map(|_| "alive\n")
}

/// 200 only when the session is initialised and not draining; the body says why not and since when.
pub(super) async fn ready(State(shared): State<Shared>, Query(form): Query<Form>, headers: HeaderMap) -> Response {
    let (status, since) = shared.link();
    let as_json = wants_json(form.format.as_deref(), &headers);
    let why_not = why_not_ready(&shared, &status);
    let since_text = telemetry::rfc3339(since);
    let ago = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    let (code, text) = match &why_not {
        None => (StatusCode::OK, format!("ready since {since_text}")),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}, since {since_text} ({ago} s ago)")),
    };
    let body = json!({ "ready": why_not.is_none(), "reason": why_not, "since": since_text });
    sentence(code, text, &body, as_json)
}

pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    // Brings the gauges up to date that only the driver knows; a driver that is stuck must not hide the others.
    let _ = shared.census().await;
    let format = Format::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    ([(CONTENT_TYPE, format.content_type())], metrics::runner().encode(format)).into_response()
}

pub(super) async fn status(State(shared): State<Shared>) -> Json<Value> {
    let (status, since) = shared.link();
    let (census, trouble) = match shared.census().await {
        Ok(census) => (census, None),
        Err(_) => (Census::default(), Some("the runner does not answer; actors are not counted")),
    };
    let counts = |[starting, running, stopping]: [usize; 3]| json!({ "starting": starting, "running": running, "stopping": stopping });
    let actors: BTreeMap<&str, Value> =
        census.by_name.iter().map(|(name, numbers)| (&**name, counts(*numbers))).collect();
    let identity = shared.runner.identity();
    let log = telemetry::control().map(telemetry::LogControl::status);
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started_at": telemetry::rfc3339(shared.started.0),
        "uptime_s": shared.started.1.elapsed().as_secs(),
        "state": state_word(&status),
        "ready": why_not_ready(&shared, &status).is_none(),
        "draining": status.draining,
        "trouble": trouble,
        "gateway": {
            "endpoint": identity.endpoint.to_string(),
            "namespace": identity.namespace,
            "link": link_word(status.link),
            "since": telemetry::rfc3339(since),
            "reason": status.reason,
        },
        "runner": {
            "id": status.runner_id.as_deref(),
            "pool": identity.pool,
            "key": identity.key,
            "version": identity.version,
            "protocol_version": identity.protocol_version,
        },
        "slots": { "used": status.actors, "total": identity.slots },
        "actors": actors,
        "last_error": census.last_error.map(|(at, error)| json!({ "at": telemetry::rfc3339(at), "error": error })),
        "log_filter": log.map(|log| log.filter.to_string()),
    }))
}

/// Begins a drain; the process ends when it is done.
pub(super) async fn drain(State(shared): State<Shared>) -> Response {
    let before = shared.runner.status();
    shared.runner.drain(shared.drain_timeout).await;
    let body = json!({
        "draining": true,
        "already": before.draining,
        "actors": before.actors,
        "within_ms": u64::try_from(shared.drain_timeout.as_millis()).unwrap_or(u64::MAX),
    });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn why_not_ready(shared: &Shared, status: &Status) -> Option<String> {
    if status.draining {
        return Some("the runner is draining".to_owned());
    }
    let endpoint = &shared.runner.identity().endpoint;
    let reason = status.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    match status.link {
        LinkStatus::Open => None,
        LinkStatus::Dialing => Some(format!("dialling the gateway at {endpoint}{reason}")),
        LinkStatus::Greeting => Some(format!("the gateway at {endpoint} has not answered the greeting yet{reason}")),
        LinkStatus::Waiting => Some(format!("not connected to the gateway at {endpoint}{reason}")),
        LinkStatus::Closed => Some(format!("the session with the gateway at {endpoint} is over{reason}")),
    }
}

fn state_word(status: &Status) -> &'static str {
    match status.link {
        _ if status.draining => "draining",
        LinkStatus::Open => "ready",
        LinkStatus::Dialing | LinkStatus::Greeting | LinkStatus::Waiting => "connecting",
        LinkStatus::Closed => "stopped",
    }
}

fn link_word(link: LinkStatus) -> &'static str {
    match link {
        LinkStatus::Dialing => "dialing",
        LinkStatus::Greeting => "greeting",
        LinkStatus::Open => "open",
        LinkStatus::Waiting => "waiting",
        LinkStatus::Closed => "closed",
    }
}
