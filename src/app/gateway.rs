//! `greenroom gateway`: the embedded gateway alone.

use tracing::error;

use crate::app::Exit;
use crate::app::signals::Signals;
use crate::config::GatewaySettings;

/// Runs until it is told to stop.
pub(super) async fn run(_settings: GatewaySettings, _signals: Signals) -> Exit {
    error!("the gateway is not wired yet");
    Exit::Internal
}
