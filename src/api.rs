//! The actor API: what out-of-process actors call to reach their storage and their clients' sockets, to
//! sleep and to be destroyed.
//!
//! One server for all actors of a runner, on a loopback port and on a Unix socket. Who calls is told by the token
//! alone: it belongs to one actor generation, and when that is over, calls answer 410 and change nothing.

mod access;
mod actor;
mod alarms;
mod egress;
mod error;
mod keep_awake;
mod kv;
mod metadata;
mod pull;
mod query;
mod server;
mod tokens;
mod ws;

pub use server::{Api, ApiFailure, Services};
pub use tokens::Tokens;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::routing::{any, get, post, put};
use axum::{Extension, Router};

use access::Caller;
use error::ApiError;

/// All routes.
fn router(tokens: Arc<Tokens>, services: Services) -> Router {
    let mut router = Router::new()
        .route("/v1/actor", get(actor::who_am_i))
        .route("/v1/input", get(actor::input))
        .route("/v1/sleep", post(actor::sleep))
        .route("/v1/destroy", post(actor::destroy))
        .route("/v1/alarms", get(alarms::list))
        .route("/v1/alarms/{name}", put(alarms::set).delete(alarms::remove))
        .route("/v1/keep-awake/{name}", put(keep_awake::take).delete(keep_awake::give_back))
        .route("/v1/next", get(pull::next))
        .route("/v1/reply/{id}", post(pull::reply).layer(DefaultBodyLimit::max(ws::FRAME_BODY_MAX)))
        .route("/v1/metadata", get(metadata::read).patch(metadata::patch))
        .route("/v1/egress/{*rest}", any(egress::call))
        .route("/v1/kv", get(kv::list).delete(kv::clear))
        .route("/v1/kv:batch", post(kv::batch))
        .route("/v1/kv/", get(kv::read).put(kv::write).delete(kv::delete))
        .route("/v1/ws", get(ws::list))
        .route("/v1/ws:broadcast", post(ws::broadcast).layer(DefaultBodyLimit::max(ws::FRAME_BODY_MAX)))
        .route("/v1/ws/{id}", post(ws::send).delete(ws::close).layer(DefaultBodyLimit::max(ws::FRAME_BODY_MAX)))
        .route("/v1/ws/{id}/attachment", get(ws::attachment).put(ws::attach))
        .route("/v1/kv/{*key}", get(kv::read).put(kv::write).delete(kv::delete));
    for (path, feature) in NOT_BUILT {
        router = router.route(path, any(move |_: Caller| async move { ApiError::not_built(feature) }));
    }
    router
        .method_not_allowed_fallback(async |method: Method| ApiError::method_not_allowed(&method))
        .fallback(async || ApiError::no_such_route())
        .layer(Extension(services.egress))
        .layer(Extension(services.metadata))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(tokens)
}

/// Routes of the contract that are not built yet, with what they are for.
const NOT_BUILT: &[(&str, &str)] = &[
    ("/v1/workflows/{*rest}", "workflows"),
    ("/v1/runs", "workflows"),
    ("/v1/runs/{*rest}", "workflows"),
    ("/v1/jobs", "jobs"),
    ("/v1/jobs/{*rest}", "jobs"),
];

/// The largest body of a call, in bytes: a full batch in base64 and its JSON.
const BODY_MAX: usize = 4 * 1024 * 1024;
