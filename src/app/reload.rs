//! What HUP does: the actors file is read again, egresses included, and so is the log filter.

use std::time::Duration;

use tracing::{error, info};

use crate::app::actors::{self, Hosts};
use crate::app::run;
use crate::app::systemd::ServiceManager;
use crate::config::{Mistakes, RunSettings};
use crate::runner::RunnerHandle;
use crate::telemetry::{self, fields, metrics};

/// What a runner was told last, and how to read it again.
pub(super) struct Reloaded {
    settings: RunSettings,
    hosts: Hosts,
    read: Box<dyn Fn() -> Result<RunSettings, Mistakes> + Send>,
}

/// What another reading of the actors file has brought, of actors or of egresses.
#[derive(Debug, Default, PartialEq, Eq)]
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
    /// that start from now on, those of egresses, which count for calls that begin from now on, and the log filter.
    /// With a mistake in them everything stays as it is.
    pub(super) async fn reload(&mut self, runner: &RunnerHandle, manager: ServiceManager) {
        manager.reloading();
        let applied = match (self.read)() {
            Ok(settings) => self.apply(settings, runner).await,
            Err(mistakes) => {
                for mistake in mistakes.iter() {
                    error!({ fields::ERROR } = %mistake, "not reloaded; everything stays as it was");
                }
                false
            }
        };
        metrics::runner().reloaded(applied);
        manager.ready("reloaded");
    }

    /// Whether it could be.
    async fn apply(&mut self, settings: RunSettings, runner: &RunnerHandle) -> bool {
        if let Some(control) = telemetry::control() {
            control.configure(&settings.log.filter);
        }
        let actors = Changes::between(&self.settings.actors, &settings.actors, |actor| &actor.name);
        let egresses = Changes::between(&self.settings.egress, &settings.egress, |egress| &egress.name);
        if actors == Changes::default() && egresses == Changes::default() {
            info!("reloaded; no actor has changed");
            return true;
        }
        // When this fails the log says why.
        if actors::change(&mut self.hosts, &settings).await.is_err() {
            return false;
        }
        runner.set_hosts(self.hosts.by_name.iter().cloned()).await;
        if egresses != Changes::default() {
            run::warn_of(&settings);
            info!(
                added = egresses.added.join(","),
                changed = egresses.changed.join(","),
                removed = egresses.removed.join(","),
                "reloaded; calls of actors that begin from now on go to the new egresses"
            );
        }
        (self.settings.actors, self.settings.egress) = (settings.actors, settings.egress);
        info!(
            added = actors.added.join(","),
            changed = actors.changed.join(","),
            removed = actors.removed.join(","),
            "reloaded; actors that run go on as they are"
        );
        true
    }
}

impl Changes {
    fn between<T: PartialEq>(old: &[T], new: &[T], name: impl Fn(&T) -> &String) -> Self {
        let find = |all: &'_ [T], wanted: &str| all.iter().position(|one| name(one) == wanted);
        let mut changes = Changes::default();
        for one in new {
            match find(old, name(one)) {
                None => changes.added.push(name(one).clone()),
                Some(before) if old[before] != *one => changes.changed.push(name(one).clone()),
                Some(_) => {}
            }
        }
        let gone = old.iter().filter(|one| find(new, name(one)).is_none());
        changes.removed = gone.map(|one| name(one).clone()).collect();
        changes
    }
}
