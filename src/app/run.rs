//! `greenroom run`: the runner daemon.

use tracing::{error, warn};

use crate::app::Exit;
use crate::app::actors;
use crate::app::signals::Signals;
use crate::config::RunSettings;
use crate::telemetry::fields;

/// Runs until it is told to stop or the gateway refuses it for good.
pub(super) async fn run(settings: RunSettings, _signals: Signals) -> Exit {
    warn_of(&settings);
    let _hosts: Vec<_> = settings.actors.iter().map(actors::child_process).collect();
    error!("the runner is not wired yet");
    Exit::Internal
}

/// What is allowed and probably not meant.
pub(super) fn warn_of(settings: &RunSettings) {
    let endpoint = &settings.endpoint;
    if settings.token.is_some() && !endpoint.tls && !endpoint.is_loopback() {
        warn!({ fields::ENDPOINT } = %endpoint, "the token is sent in the clear; use https or wss");
    }
}
