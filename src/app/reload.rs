//! What HUP does: the actors file is read again, and so is the log filter.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{error, info};

use crate::app::actors::{self, Hosts};
use crate::app::systemd::ServiceManager;
use crate::config::{ActorDefinition, Mistakes, RunSettings};
use crate::runner::RunnerHandle;
use crate::telemetry::{self, fields};

/// What a runner was told last, and how to read it again.
pub(super) struct Reloaded {
    settings: RunSettings,
    hosts: Hosts,
    read: Box<dyn Fn() -> Result<RunSettings, Mistakes> + Send>,
}

/// What another reading of the actors file has brought.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Reloaded {
    /// Begins with what the runner was started with.
    pub(super) fn new(
        settings: RunSettings,
        hosts: Hosts,
        read: impl Fn() -> Result<RunSettings, Mistakes> + Send + 'static,
    ) -> Self {
        Reloaded { settings, hosts, read: Box::new(read) }
    }

    /// How long stopping may take.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.settings.drain_timeout
    }

    /// Reads settings again and applies what can be without a restart: definitions of actors, which count for lives
    /// that start from now on, and the log filter. With a mistake in them everything stays as it is.
    pub(super) async fn reload(&mut self, runner: &RunnerHandle, manager: ServiceManager) {
        manager.reloading();
        match (self.read)() {
            Ok(settings) => self.apply(settings, runner).await,
            Err(mistakes) => {
                for mistake in mistakes.iter() {
                    error!({ fields::ERROR } = %mistake, "not reloaded; everything stays as it was");
                }
            }
        }
        manager.ready("reloaded");
    }

    async fn apply(&mut self, settings: RunSettings, runner: &RunnerHandle) {
        if let Some(control) = telemetry::control() {
            control.configure(&settings.log.filter);
        }
        let changes = Changes::between(&self.settings.actors, &settings.actors);
        if changes.is_empty() {
            return info!("reloaded; no actor has changed");
        }
        // When this fails the log says why.
        if actors::change(&mut self.hosts, &settings).await.is_err() {
            return;
        }
        runner.set_hosts(self.hosts.by_name.iter().cloned()).await;
        self.settings.actors = settings.actors;
        let Changes { added, changed, removed } = changes;
        info!(
            added = added.join(","),
            changed = changed.join(","),
            removed = removed.join(","),
            "reloaded; actors that run go on as they are"
        );
    }
}

impl Changes {
    fn between(old: &[ActorDefinition], new: &[ActorDefinition]) -> Self {
        let by_name = |actors: &[ActorDefinition]| -> BTreeMap<String, ActorDefinition> {
            actors.iter().map(|actor| (actor.name.clone(), actor.clone())).collect()
        };
        let (old, new) = (by_name(old), by_name(new));
        let names = |wanted: &dyn Fn(&str) -> bool, of: &BTreeMap<String, ActorDefinition>| {
            of.keys().filter(|name| wanted(name)).cloned().collect()
        };
        Changes {
            added: names(&|name| !old.contains_key(name), &new),
            changed: names(&|name| old.get(name).is_some_and(|before| Some(before) != new.get(name)), &new),
            removed: names(&|name| !new.contains_key(name), &old),
        }
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}
