//! The admin address of a runner: probes, metrics, status, and what an operator may ask of it.
//!
//! It serves on a thread of its own, so that it answers while everything else is stuck, and asks the runner's driver
//! with a deadline. Over TCP it can only be read, unless a write token is set and shown; the Unix socket in the runtime
//! directory is open to the runner's own user and to root, who may do everything.

mod actors;
mod answer;
mod doors;
mod explain;
mod health;
mod log;
mod server;
mod state;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

pub use server::{Admin, AdminDoors, AdminFailure, AdminOptions};

use doors::Door;
use state::Shared;

/// All routes, for callers who came in through this door.
fn router(shared: Shared, door: Door) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/status", get(health::status))
        .route("/actors", get(actors::list))
        .route("/actors/{id}", get(actors::show))
        .route("/actors/{id}/explain", get(actors::explain))
        .route("/actors/{id}/logs", get(actors::logs))
        .route("/actors/{id}/sleep", post(actors::sleep))
        .route("/actors/{id}/stop", post(actors::stop))
        .route("/drain", post(health::drain))
        .route("/log", get(log::show).put(log::set))
        .method_not_allowed_fallback(answer::method_not_allowed)
        .fallback(answer::no_such_route)
        .layer(from_fn_with_state((shared.clone(), door), doors::guard))
        .layer(from_fn(answer::add_headers))
        .with_state(shared)
}
