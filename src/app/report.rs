//! What the control plane is told of this runner, and when.
//!
//! The whole state is put together when something has changed, a moment later, so that many changes are one report.
//! Each report is the whole state: a control plane that has lost what it knew is right again after one.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::error;

use crate::api::Services;
use crate::app::Exit;
use crate::config::{ReportSettings, RunSettings};
use crate::report::{Patch, WorkerState};
use crate::reporter::{Reporter, ReporterSettings};
use crate::runner::{Census, Identity, LinkStatus, RunnerHandle, Status};
use crate::telemetry::fields;

/// A runner's reports. Dropped, they end without a word.
pub(super) struct Reports {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Where the state is read from.
struct Worker {
    runner: RunnerHandle,
    services: Services,
    /// Why the link to the gateway was last not open.
    link_error: Option<String>,
}

impl Reports {
    /// Begins to report, when there is anybody to report to.
    pub(super) fn start(
        settings: &RunSettings,
        runner: &RunnerHandle,
        services: &Services,
    ) -> Result<Option<Self>, Exit> {
        let Some(ReportSettings { url, token }) = settings.report.clone() else { return Ok(None) };
        let reporter = Reporter::start(ReporterSettings::new(url, token)).map_err(|error| {
            error!({ fields::ERROR } = %error, "reports cannot be sent");
            Exit::Internal
        })?;
        let worker = Worker { runner: runner.clone(), services: services.clone(), link_error: None };
        let (stop, stopped) = oneshot::channel();
        Ok(Some(Reports { stop, task: tokio::spawn(worker.report(reporter, stopped)) }))
    }

    /// Tells that the worker has stopped, and ends.
    pub(super) async fn stop(self) {
        // A task that is gone has nothing left to tell.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

impl Worker {
    async fn report(mut self, reporter: Reporter, mut stopped: oneshot::Receiver<()>) {
        let mut status = self.runner.watch_status();
        let (mut metadata, mut backends) = (self.services.metadata.watch(), self.services.egress.watch_backends());
        let mut told = WorkerState::default();
        loop {
            let census = self.runner.census().await.unwrap_or_default();
            let in_between = census.by_name.values().any(|[starting, _, stopping]| starting + stopping > 0);
            let state = self.state(&status.borrow_and_update().clone(), &census);
            if state != told {
                reporter.push(state.whole_after(&told));
                told = state;
            }
            tokio::select! {
                () = changed(&mut status) => {}
                () = changed(&mut metadata) => {}
                () = changed(&mut backends) => {}
                // Nobody says when an actor has started; those that are in between are looked at again.
                () = tokio::time::sleep(LOOK_AGAIN), if in_between => {}
                _ = &mut stopped => break,
            }
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                _ = &mut stopped => break,
            }
        }
        let last = self.state(&self.runner.status(), &Census::default()).whole_after(&told);
        reporter.close(last.set("worker_status", "stopped"), LAST_WORD).await;
    }

    fn state(&mut self, status: &Status, census: &Census) -> WorkerState {
        let (identity, Services { egress, metadata }) = (self.runner.identity(), &self.services);
        if let Some(reason) = status.reason.as_ref().filter(|_| status.link != LinkStatus::Open) {
            self.link_error = Some(reason.clone());
        }
        let word = match status.link {
            LinkStatus::Closed => "stopped",
            _ if status.draining => "draining",
            LinkStatus::Open => "ready",
            LinkStatus::Dialing | LinkStatus::Greeting | LinkStatus::Waiting => "connecting",
        };
        let used: usize = census.by_name.values().flatten().sum();
        let actors = census.by_name.iter().filter(|(_, counts)| counts.iter().any(|count| *count > 0));
        let actors: Map<String, Value> = actors.map(|(name, counts)| (name.to_string(), by_state(counts))).collect();
        let last_error = census.last_error.as_ref().map(|(_, error)| error);
        let patch = Patch::new()
            .set("worker_status", word)
            .external("actors", actors)
            .external("slots", json!({ "total": identity.slots, "used": used }))
            .internal("runner_key", identity.key.as_str())
            .internal("runner_name", identity.pool.as_str())
            .internal("namespace", identity.namespace.as_str())
            .internal("endpoint", identity.endpoint.to_string())
            .internal("versions", versions(identity))
            .internal("last_error", json!(last_error.or(self.link_error.as_ref())))
            .internal("sticky_backends", json!(egress.sticky_backends()));
        WorkerState::from(metadata.add_to(patch))
    }
}

/// The counts that are not zero.
fn by_state(counts: &[usize; 3]) -> Value {
    let named = ["starting", "running", "stopping"].into_iter().zip(counts).filter(|(_, count)| **count > 0);
    named.map(|(state, count)| (state.to_owned(), json!(count))).collect::<Map<_, _>>().into()
}

/// Resolves at a change, and never when there will be none.
async fn changed<T>(watch: &mut watch::Receiver<T>) {
    if watch.changed().await.is_err() {
        std::future::pending().await
    }
}

fn versions(identity: &Identity) -> Value {
    json!({
        "greenroom": env!("CARGO_PKG_VERSION"),
        "runner": identity.version,
        "protocol": identity.protocol_version,
    })
}

/// How long changes are gathered before they are told.
const GATHER: Duration = Duration::from_millis(200);
/// How soon actors that start or stop are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the last report may take. It comes on top of the drain timeout, so it is short.
const LAST_WORD: Duration = Duration::from_secs(2);
