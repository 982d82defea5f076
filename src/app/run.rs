//! `greenroom run`: the runner daemon.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::admin::{Admin, AdminDoors, AdminFailure, AdminOptions};
use crate::app::Exit;
use crate::app::actors::{self, Hosts};
use crate::app::reload::Reloaded;
use crate::app::report::Reports;
use crate::app::signals::Signals;
use crate::app::systemd::ServiceManager;
use crate::config::{AdminSettings, RunSettings, Values, runner_key};
use crate::runner::{self, Runner, RunnerHandle};
use crate::telemetry::fields;

/// Runs until it is told to stop or the gateway refuses it for good.
pub(super) async fn run(settings: RunSettings, values: Values, mut signals: Signals) -> Exit {
    warn_of(&settings);
    if settings.actors.is_empty() {
        warn!("no actors are defined; give an actors file with --actors, or --actor NAME=COMMAND");
    }
    let hosts = match actors::hosts(&settings).await {
        Ok(hosts) => hosts,
        Err(exit) => return exit,
    };
    match serve(&settings, &hosts).await {
        Ok(started) => {
            let reloaded = Reloaded::new(settings, hosts, move || RunSettings::new(&values));
            started.until_stopped(reloaded, &mut signals).await
        }
        Err(exit) => exit,
    }
}

/// A runner with its admin address and its reports.
pub(super) struct Started {
    pub(super) runner: RunnerHandle,
    reports: Option<Reports>,
    /// Serves for as long as it lives.
    _admin: Admin,
}

/// Starts a runner with its admin address and its reports. The address is bound before the runner dials.
pub(super) async fn serve(settings: &RunSettings, hosts: &Hosts) -> Result<Started, Exit> {
    let unserved = |error: AdminFailure| {
        error!({ fields::ERROR } = %error, "the admin address does not serve");
        Exit::Misconfigured
    };
    let options = AdminOptions {
        address: settings.admin.address,
        insisted: settings.admin.insisted,
        socket: settings.runtime_dir.join(AdminSettings::SOCKET),
        write_token: settings.admin.write_token.clone(),
        drain_timeout: settings.drain_timeout,
    };
    let doors = AdminDoors::bind(options).await.map_err(unserved)?;
    let runner = start(settings, hosts)?;
    let others = doors.serve(runner.clone()).map_err(unserved);
    let others =
        others.and_then(|admin| Reports::start(settings, &runner, &hosts.services).map(|reports| (admin, reports)));
    match others {
        Ok((admin, reports)) => Ok(Started { runner, reports, _admin: admin }),
        Err(exit) => {
            runner.stop_now().await;
            // Its end is not what failed.
            let _ = runner.wait().await;
            Err(exit)
        }
    }
}

/// Starts a runner with these settings and hosts.
fn start(settings: &RunSettings, hosts: &Hosts) -> Result<RunnerHandle, Exit> {
    let key = match &settings.runner_key {
        Some(key) => Ok(key.clone()),
        None => runner_key::load_or_create(&settings.data_dir),
    };
    let key = key.map_err(|error| {
        error!(%error, "the runner has no identity");
        Exit::Misconfigured
    })?;
    let builder = builder(settings).key(key).data_dir(&settings.data_dir);
    let builder =
        hosts.by_name.iter().fold(builder, |builder, (name, host)| builder.shared_actor(name.as_str(), host.clone()));
    builder.start().map_err(|error| {
        error!(%error, "the runner did not start");
        Exit::Misconfigured
    })
}

impl Started {
    /// As [`until_stopped`]; the last report tells that it has stopped.
    pub(super) async fn until_stopped(self, reloaded: Reloaded, signals: &mut Signals) -> Exit {
        let exit = until_stopped(&self.runner, reloaded, signals).await;
        if let Some(reports) = self.reports {
            reports.stop().await;
        }
        exit
    }
}

/// A runner with these settings, without actors, a key or a data directory yet.
pub fn builder(settings: &RunSettings) -> runner::Builder {
    Runner::builder(settings.endpoint.clone())
        .namespace(&settings.namespace)
        .name(&settings.runner_name)
        .version(settings.runner_version)
        .slots(settings.slots)
        .protocol_version(settings.protocol_version)
        .token(settings.token.clone())
}

/// Waits for the end of the runner: by itself, or drained at the first request to stop, or at once at the second.
async fn until_stopped(runner: &RunnerHandle, mut reloaded: Reloaded, signals: &mut Signals) -> Exit {
    let manager = ServiceManager::of_process();
    let followed = manager.follow(runner.clone());
    tokio::pin!(followed);
    let report = async || report(runner);
    let drain_timeout = reloaded.drain_timeout();
    let stop = signals.stop(&report, async || reloaded.reload(runner, manager).await);
    tokio::select! {
        exit = runner.wait() => return ended(exit),
        () = stop => {
            manager.stopping("draining", drain_timeout + STOPPING);
            runner.drain(drain_timeout).await;
        }
        () = &mut followed => {}
    }
    let stop = signals.stop(&report, async || info!("the runner stops; nothing is reloaded"));
    tokio::select! {
        exit = runner.wait() => return ended(exit),
        () = stop => runner.stop_now().await,
        () = followed => {}
    }
    ended(runner.wait().await)
}

/// What is allowed and probably not meant.
pub(super) fn warn_of(settings: &RunSettings) {
    let endpoint = &settings.endpoint;
    if settings.token.is_some() && !endpoint.tls && !endpoint.is_loopback() {
        warn!({ fields::ENDPOINT } = %endpoint, "the token is sent in the clear; use https or wss");
    }
    let outward = settings.egress.iter().map(|egress| (&egress.url, egress.credential.is_some()));
    let report = settings.report.iter().map(|report| (&report.url, report.token.is_some()));
    for (url, _) in outward.chain(report).filter(|(url, secret)| *secret && !url.tls && !url.is_loopback()) {
        warn!({ fields::ENDPOINT } = %url, "a credential is sent in the clear; use https");
    }
}

pub(super) fn report(runner: &RunnerHandle) {
    let status = runner.status();
    info!(
        link = ?status.link,
        { fields::RUNNER_ID } = status.runner_id.as_deref(),
        { fields::REASON } = status.reason,
        actors = status.actors,
        draining = status.draining,
        "status"
    );
}

fn ended(exit: runner::Exit) -> Exit {
    match exit {
        runner::Exit::Drained => {
            info!("stopped");
            Exit::Clean
        }
        runner::Exit::DrainTimeout { actors } => {
            warn!({ fields::COUNT } = actors, "stopped before every actor had ended");
            Exit::Clean
        }
        runner::Exit::Refused(reason) => {
            error!(reason, "the gateway refuses this runner");
            Exit::Refused
        }
    }
}

/// What stopping may take above draining.
const STOPPING: Duration = Duration::from_secs(5);
