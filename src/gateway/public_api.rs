//! The gateway's JSON API: actors, runners, namespaces and pool settings, in the Rivet engine's words.
//!
//! Everything a caller gets wrong is told at once and by name: unknown parameters and fields, missing ones, values of
//! the wrong form. Lists come newest first with a cursor to the next page.

mod access;
pub(super) mod actors;
mod cors;
mod namespaces;
mod page;
mod query;
mod refusal;
mod runner_configs;
mod runners;
mod service;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, delete, get, post};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::service::Service as _;
use hyper::{Method, Request, Response};
use hyper_util::service::TowerToHyperService;
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GatewayHandle;
use super::callers::AllowedHosts;
use super::refusal::Refusal;

/// What the API answers with.
#[derive(Clone, Debug)]
pub struct PublicApi {
    router: Router,
    /// For bodies that are being read, in KiB.
    body_memory: Arc<Semaphore>,
}

/// How the API is set up.
#[derive(Clone, Debug, Default)]
pub struct ApiSettings {
    /// What callers must present as a bearer token; without it everyone is let in.
    pub admin_token: Option<SecretString>,
    /// What callers may call it by when there is no token.
    pub allowed_hosts: AllowedHosts,
    /// Where clients reach this gateway, for example `http://127.0.0.1:6420`; without it, what a caller called it.
    pub public_url: Option<String>,
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct Api {
    gateway: GatewayHandle,
    settings: Arc<ApiSettings>,
    workers: worker::Workers,
}

impl PublicApi {
    /// The largest request body, in bytes.
    pub const BODY_MAX: usize = 2 * 1024 * 1024;

    /// The most memory that request bodies may take together, in bytes.
    pub const BODY_MEMORY: usize = 64 * 1024 * 1024;

    /// The API of a gateway.
    #[must_use]
    pub fn new(gateway: GatewayHandle, settings: ApiSettings) -> Self {
        let api = Api { gateway, settings: Arc::new(settings), workers: worker::Workers::default() };
        let guarded = Router::new()
            .route("/actors", get(actors::list).post(actors::create).put(actors::get_or_create))
            .route("/actors/names", get(actors::names))
            .route("/actors/{id}", delete(actors::destroy))
            .route("/actors/{id}/sleep", post(actors::no_effect))
            .route("/actors/{id}/reschedule", post(actors::no_effect))
            .route("/actors/{id}/kv/keys/{key}", get(actors::kv_get))
            .route("/runners", get(runners::list))
            .route("/runners/names", get(runners::names))
            .route("/runner-configs", get(runner_configs::list))
            .route("/runner-configs/{name}", delete(runner_configs::delete).put(runner_configs::put))
            .route("/namespaces", get(namespaces::list).post(namespaces::create))
            .route("/datacenters", get(service::datacenters))
            .route("/worker", get(worker::list).put(worker::put))
            .route("/metrics", get(service::metrics))
            .route_layer(from_fn_with_state(api.clone(), access::require_token));
        let open = Router::new()
            .route("/health", get(service::health))
            .route("/metadata", get(service::metadata))
            .route("/", get(service::root))
            .route("/ui", any(service::ui))
            .route("/ui/", any(service::ui))
            .route("/ui/{*path}", any(service::ui))
            .route("/runners/connect", any(service::runner_connect));
        let router = guarded
            .merge(open)
            .fallback(service::not_found)
            .layer(DefaultBodyLimit::max(Self::BODY_MAX))
            .layer(from_fn(cors::allow))
            .with_state(api);
        PublicApi { router, body_memory: Arc::new(Semaphore::new(Self::BODY_MEMORY / 1024)) }
    }

    /// A share of the memory for a body that is still to come; small ones are free, since a connection costs as much.
    ///
    /// # Errors
    /// All of it is taken.
    fn share(&self, body: &Incoming) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let size = body.size_hint().upper().unwrap_or(u64::MAX).min(Self::BODY_MAX as u64);
        if size <= SMALL_BODY {
            return Ok(None);
        }
        let share =
            Arc::clone(&self.body_memory).try_acquire_many_owned(u32::try_from(size / 1024).unwrap_or(u32::MAX));
        share.map(Some).map_err(|_| {
            Refusal::new(
                "guard",
                "service_unavailable",
                "The gateway holds as many request bodies as it has memory for.",
            )
        })
    }

    /// Answers one request.
    pub async fn serve(&self, request: Request<Incoming>) -> Response<Bytes> {
        if *request.method() == Method::OPTIONS {
            return cors::preflight(request.headers());
        }
        let _share = match self.share(request.body()) {
            Ok(share) => share,
            Err(refusal) => return refusal.into_api_response(),
        };
        let service = TowerToHyperService::new(self.router.clone());
        let Ok(response) = service.call(request.map(Body::new)).await;
        let (parts, body) = response.into_parts();
        match to_bytes(body, usize::MAX).await {
            Ok(bytes) => Response::from_parts(parts, bytes),
            Err(_) => Refusal::internal("The answer could not be put together.").into_api_response(),
        }
    }
}

/// A request body up to this size, in bytes, is not counted.
const SMALL_BODY: u64 = 16 * 1024;
