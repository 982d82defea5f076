//! What the gateway says of itself, and the routes that are not there.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap};
use serde_json::{Value, json};

use super::Api;
use super::actors::DATACENTER;
use crate::gateway::refusal::Refusal;
use crate::telemetry::metrics::{self, Format, GatewayNumbers};

pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let (status, word) = match api.gateway.health().await {
        Ok(_) => (StatusCode::OK, "ok"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let body = json!({
        "runtime": "engine",
        "status": word,
        "version": env!("CARGO_PKG_VERSION"),
        "implementation": "greenroom",
    });
    (status, Json(body))
}

pub(super) async fn metadata() -> Json<Value> {
    Json(json!({
        "runtime": "engine",
        "version": env!("CARGO_PKG_VERSION"),
        "implementation": "greenroom",
        "runner_protocol_versions": { "min": 4, "max": 7 },
    }))
}

pub(super) async fn datacenters(State(api): State<Api>, headers: HeaderMap) -> Json<Value> {
    let url = api.settings.public_url.clone().unwrap_or_else(|| {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("http://{host}/")
    });
    Json(json!({
        "datacenters": [{ "label": 1, "name": DATACENTER, "url": url }],
        "pagination": { "cursor": null },
    }))
}

pub(super) async fn root() -> Redirect {
    Redirect::permanent("/ui/")
}

pub(super) async fn ui() -> Refusal {
    not_built("The dashboard")
}

/// The gateway's numbers, in the form that the scraper reads.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refusal> {
    let health = api.gateway.health().await?;
    let numbers = GatewayNumbers {
        placed: health.awake_actors.saturating_sub(health.waiting_actors),
        waiting: health.waiting_actors,
        runners: health.connected_runners,
        streams: health.streams,
        waiting_streams: health.waiting_streams,
        hibernating_sockets: health.lasting_sockets,
    };
    let format = Format::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let text = metrics::gateway().encode(numbers, format);
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

/// A runner that forgot to ask for an upgrade.
pub(super) async fn runner_connect() -> &'static str {
    "runner WebSocket endpoint"
}

pub(super) async fn not_found() -> Response {
    Refusal::not_found().into_response()
}

fn not_built(what: &str) -> Refusal {
    Refusal::new("api", "not_implemented", format!("{what} is not part of this version."))
}
