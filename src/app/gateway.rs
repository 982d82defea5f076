//! `greenroom gateway`: the embedded gateway alone.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::app::Exit;
use crate::app::open_files;
use crate::app::signals::Signals;
use crate::app::systemd::ServiceManager;
use crate::config::GatewaySettings;
use crate::gateway::callers::AllowedHosts;
use crate::gateway::listener::RateLimit;
use crate::gateway::{GatewayFailure, GatewayHandle, GatewayOptions, RunningGateway};
use crate::telemetry::{self, fields};

/// Runs until it is told to stop.
pub(super) async fn run(settings: GatewaySettings, mut signals: Signals) -> Exit {
    open_files::take_all();
    let mut gateway = match start(&settings).await {
        Ok(gateway) => gateway,
        Err(exit) => return exit,
    };
    let handle = gateway.handle().clone();
    let manager = ServiceManager::of_process();
    manager.ready(&format!("serves on {}", gateway.local_addr()));
    let failure = tokio::select! {
        failure = gateway.failed() => Some(failure),
        () = manager.feed_watchdog(&handle) => None,
        () = signals.stop(async || report(&handle).await, async || reload(&settings)) => None,
    };
    manager.stopping("stopping", STOPPING);
    stop(gateway, failure, &mut signals).await
}

/// Nothing of a gateway's settings can change without a restart but the log filter, which a command may have changed.
fn reload(settings: &GatewaySettings) {
    if let Some(control) = telemetry::control() {
        control.configure(&settings.log.filter);
    }
    info!("reloaded; the log filter is as configured, everything else needs a restart");
}

/// Starts a gateway with these settings.
pub(super) async fn start(settings: &GatewaySettings) -> Result<RunningGateway, Exit> {
    let mut options = GatewayOptions::new(settings.listen, &settings.data_dir);
    options.admin_token.clone_from(&settings.admin_token);
    options.thresholds.runner_lost = settings.runner_lost_after;
    options.listener.connections = open_files::connections(options.listener.connections);
    options.listener.rate_limit = settings.rate_limit.map(|rate| RateLimit {
        requests: rate.count,
        window: rate.per,
        in_flight: settings.in_flight_limit,
        loopback: settings.rate_limit_on_loopback,
    });
    if settings.listen.ip().is_loopback() {
        options.allowed_hosts = AllowedHosts::local_and(&settings.allowed_hosts);
    }
    RunningGateway::start(options).await.map_err(|error| failed(&error))
}

/// Stops a gateway; one more signal stops waiting for it.
pub(super) async fn stop(gateway: RunningGateway, failure: Option<GatewayFailure>, signals: &mut Signals) -> Exit {
    let stopped = tokio::select! {
        stopped = gateway.stop() => stopped,
        () = signals.stop(async || info!("status: the gateway is stopping"), async || ()) => {
            warn!("stopped before everyone was told; what was acknowledged is on disk");
            Ok(())
        }
    };
    match (failure, stopped) {
        (Some(error), _) | (None, Err(error)) => failed(&error),
        (None, Ok(())) => Exit::Clean,
    }
}

/// Writes to the log how the gateway is doing.
pub(super) async fn report(gateway: &GatewayHandle) {
    match gateway.health().await {
        Ok(health) => info!(
            runners = health.connected_runners,
            awake_actors = health.awake_actors,
            streams = health.streams,
            waiting_streams = health.waiting_streams,
            "status of the gateway"
        ),
        Err(error) => warn!({ fields::ERROR } = %error, "status of the gateway"),
    }
}

fn failed(error: &GatewayFailure) -> Exit {
    error!({ fields::ERROR } = %error, "the gateway cannot go on");
    Exit::Internal
}

/// More than a gateway takes to tell everyone.
const STOPPING: Duration = Duration::from_secs(20);
