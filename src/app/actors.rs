//! From the actors file to hosts.

use std::fmt::Write;
use std::sync::Arc;

use crate::config::{ActorDefinition, Listen, RunSettings};
use crate::host::{ActorHost, child_process};

/// The hosts of the defined actors, by name.
pub(super) fn hosts(settings: &RunSettings) -> Vec<(String, Arc<dyn ActorHost>)> {
    let host = |actor: &ActorDefinition| {
        let _settings = child_process(actor);
        // The host of child processes is completed here.
        tracing::error!(name = actor.name, "child processes are not wired yet");
        None
    };
    settings.actors.iter().filter_map(|actor| Some((actor.name.clone(), host(actor)?))).collect()
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
