//! The ingress over a driver played by the test.

mod hostile;
mod queries;
mod requests;
mod sockets;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Ingress, Patience};
use crate::gateway::fake::{ACTOR, FakeDriver, serve};
use crate::gateway::public_api::ApiSettings;

/// A server whose waits are short.
async fn start() -> (SocketAddr, FakeDriver, Arc<Ingress>) {
    serve(hasty(), ApiSettings::default()).await
}

fn hasty() -> Patience {
    Patience { first_wait: Duration::from_millis(1), ..Patience::default() }
}

fn path(rest: &str) -> String {
    format!("/gateway/{ACTOR}{rest}")
}
