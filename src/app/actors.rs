//! From the actors file to hosts.

use std::fmt::Write;
use std::sync::Arc;

use tracing::error;

use crate::api::{Api, Services};
use crate::app::Exit;
use crate::config::{ActorDefinition, Listen, RunSettings};
use crate::egress::Egress;
use crate::host::ActorHost;
use crate::host::child_process::{self, ChildProcess, Roots};
use crate::telemetry::fields;

/// Where the actors of a runner run.
pub(super) struct Hosts {
    /// By actor name.
    pub(super) by_name: Vec<(String, Arc<dyn ActorHost>)>,
    /// The API that they tell their processes of; serves while this lives.
    api: Option<Api>,
    /// What the API passes calls on to.
    pub(super) services: Services,
}

impl Hosts {
    /// Hosts that need no API.
    #[cfg(feature = "gateway")]
    pub(super) fn in_process(by_name: Vec<(String, Arc<dyn ActorHost>)>) -> Self {
        Hosts { by_name, api: None, services: Services::default() }
    }
}

/// The hosts of the defined actors, with the API that they tell their processes of.
pub(super) async fn hosts(settings: &RunSettings) -> Result<Hosts, Exit> {
    if settings.actors.is_empty() {
        return Ok(Hosts { by_name: Vec::new(), api: None, services: Services::default() });
    }
    let services = services(settings)?;
    let api = Api::start_with(settings.api, &settings.runtime_dir, services.clone()).await.map_err(|error| {
        error!({ fields::ERROR } = %error, "the actor API does not serve");
        Exit::Misconfigured
    })?;
    let roots = roots(settings);
    // The API serves in the runtime directory, so no other runner does.
    child_process::end_leftovers(&roots);
    Ok(Hosts { by_name: by_name(settings, &roots, &api), api: Some(api), services })
}

/// Makes the hosts those of other definitions; they go on telling their processes of the same API.
pub(super) async fn change(hosts: &mut Hosts, settings: &RunSettings) -> Result<(), Exit> {
    match &hosts.api {
        Some(api) => hosts.by_name = by_name(settings, &roots(settings), api),
        None => *hosts = self::hosts(settings).await?,
    }
    Ok(())
}

fn roots(settings: &RunSettings) -> Roots {
    Roots { runtime: settings.runtime_dir.clone(), data: settings.data_dir.clone() }
}

fn by_name(settings: &RunSettings, roots: &Roots, api: &Api) -> Vec<(String, Arc<dyn ActorHost>)> {
    let host = |actor: &ActorDefinition| {
        let host = ChildProcess::new(child_process(actor), roots.clone(), api.doors().clone());
        (actor.name.clone(), Arc::new(host) as Arc<dyn ActorHost>)
    };
    settings.actors.iter().map(host).collect()
}

/// What actors may call through the API.
fn services(settings: &RunSettings) -> Result<Services, Exit> {
    let used = settings.actors.iter().map(|actor| (actor.name.clone(), actor.egress.clone())).collect();
    let egress = Egress::new(settings.egress.clone(), used).map_err(|error| {
        error!({ fields::ERROR } = %error, "servers outside cannot be called");
        Exit::Internal
    })?;
    Ok(Services { egress: Arc::new(egress), metadata: Arc::default() })
}

/// How to run a defined actor as a child process.
fn child_process(actor: &ActorDefinition) -> child_process::Settings {
    let mut settings = child_process::Settings::new(actor.command.clone(), actor.cwd.clone());
    settings.env.clone_from(&actor.env);
    settings.env_file.clone_from(&actor.env_file);
    settings.listen = match actor.listen {
        Listen::Unix => child_process::Listen::Unix,
        Listen::Port => child_process::Listen::Port,
        Listen::Fd => child_process::Listen::Fd,
        Listen::Pull => child_process::Listen::Pull,
    };
    settings.websocket =
        if actor.proxy_sockets { child_process::WebSocketMode::Proxy } else { child_process::WebSocketMode::Events };
    settings.sleep_after = actor.sleep_after;
    if actor.listen == Listen::Pull {
        // A program that asks does one thing at a time, and what waits for its turn is not late.
        settings.concurrency = 1;
    }
    if let Some(concurrency) = actor.concurrency {
        settings.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    }
    settings.start_timeout = actor.start_timeout.unwrap_or(settings.start_timeout);
    settings.stop_grace = actor.stop_grace.unwrap_or(settings.stop_grace);
    settings
}

/// The actors with their commands, a line each; for `config show`.
pub(super) fn list(actors: &[ActorDefinition]) -> String {
    let width = actors.iter().map(|actor| actor.name.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for actor in actors {
        // Writing to a string cannot fail.
        let _ = write!(lines, "\nactor {:width$}  {:?} in {}", actor.name, actor.command, actor.cwd.display());
    }
    lines
}
