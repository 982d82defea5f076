//! From the actors file to hosts.

use std::fmt::Write;
use std::sync::Arc;

use crate::app::Exit;
use crate::config::{ActorDefinition, Listen, RunSettings};
use crate::host::child_process::{self, ChildProcess, Roots};
use crate::host::{ActorHost, Doors};
use crate::telemetry::fields;

/// The hosts of the defined actors, by name, with the API that they tell their processes of.
pub(super) async fn hosts(settings: &RunSettings) -> Result<Vec<(String, Arc<dyn ActorHost>)>, Exit> {
    if settings.actors.is_empty() {
        return Ok(Vec::new());
    }
    let doors = open_doors(settings).await?;
    let roots = Roots { runtime: settings.runtime_dir.clone(), data: settings.data_dir.clone() };
    let host = |actor: &ActorDefinition| {
        let host: Arc<dyn ActorHost> = Arc::new(ChildProcess::new(child_process(actor), roots.clone(), doors.clone()));
        (actor.name.clone(), host)
    };
    Ok(settings.actors.iter().map(host).collect())
}

/// Opens the actor API.
async fn open_doors(settings: &RunSettings) -> Result<Doors, Exit> {
    // The API's server is started here, on `settings.api` and on a socket in `settings.runtime_dir`.
    tracing::error!({ fields::ADDRESS } = %settings.api, "the actor API is not wired yet");
    Err(Exit::Internal)
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
    };
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
