//! What the service manager is told: ready, alive, reloading, stopping.
//!
//! The words are those of `sd_notify(3)`; without `NOTIFY_SOCKET` nothing is said. Ready means that the daemon does its
//! work: a runner is initialised at its gateway, a gateway answers. Alive means that its loops turn: a watchdog that is
//! fed by a timer would outlive the daemon it watches.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::runner::{LinkStatus, RunnerHandle, Status};

/// The service manager of this process, if it has one that wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceManager {
    /// How long it lets us be silent before it ends us.
    watchdog: Option<Duration>,
}

/// Something that can tell whether its loops turn.
pub(super) trait ProofOfLife {
    /// Resolves when every loop has turned once.
    async fn prove(&self) -> bool;
}

impl ProofOfLife for RunnerHandle {
    async fn prove(&self) -> bool {
        // There is no such actor, and the loop that says so is the one that does everything.
        self.actor("", None).await.is_none()
    }
}

#[cfg(feature = "gateway")]
impl ProofOfLife for crate::gateway::GatewayHandle {
    async fn prove(&self) -> bool {
        // The first is answered by the loop, the second by the thread that makes things durable.
        self.health().await.is_ok() && self.read(crate::store::Query::NextAlarm).await.is_ok()
    }
}

impl ServiceManager {
    /// The service manager that the environment of this process names.
    pub(super) fn of_process() -> Self {
        ServiceManager { watchdog: sd_notify::watchdog_enabled() }
    }

    /// The daemon does its work.
    pub(super) fn ready(self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Settings are being read again; [`ServiceManager::ready`] ends that.
    pub(super) fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "the service manager is not told of a reload"),
        }
    }

    /// The daemon stops, and may take this long.
    pub(super) fn stopping(self, status: &str, within: Duration) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status), extension(within)]);
    }

    /// Tells how a runner is doing for as long as this is polled; never resolves.
    pub(super) async fn follow(self, runner: RunnerHandle) {
        let mut changes = runner.watch_status();
        tokio::join!(self.feed_watchdog(&runner), self.tell_status(&mut changes));
    }

    async fn tell_status(self, changes: &mut watch::Receiver<Status>) {
        let mut was_ready = false;
        let mut last = String::new();
        let mut patience = interval(STARTING / 3);
        loop {
            let status = changes.borrow_and_update().clone();
            let line = line(&status);
            match (status.link, was_ready) {
                (LinkStatus::Open, false) => {
                    was_ready = true;
                    self.ready(&line);
                }
                (LinkStatus::Closed, _) => return,
                (_, false) => tell(&[NotifyState::Status(&line), extension(STARTING)]),
                (_, true) if line != last => tell(&[NotifyState::Status(&line)]),
                (_, true) => {}
            }
            last = line;
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                // Not yet ready: the gateway may be away, which is no failure to start.
                _ = patience.tick(), if !was_ready => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Feeds the watchdog for as long as the loops turn; never resolves.
    pub(super) async fn feed_watchdog(self, daemon: &impl ProofOfLife) {
        let Some(limit) = self.watchdog else { return std::future::pending().await };
        let mut pace = interval(limit / 3);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            match timeout(limit / 3, daemon.prove()).await {
                Ok(true) => tell(&[NotifyState::Watchdog]),
                // It has ended, and so will the process.
                Ok(false) => return std::future::pending().await,
                Err(_) => warn!(
                    silent_ms = (limit / 3).as_millis(),
                    "a loop of this daemon does not turn; the service manager will restart it"
                ),
            }
        }
    }
}

/// How a runner is doing, in a line for `systemctl status`.
fn line(status: &Status) -> String {
    let actors = status.actors;
    match (status.draining, status.link, &status.reason) {
        (true, ..) => format!("draining, {actors} actors left"),
        (false, LinkStatus::Open, _) => format!("connected, {actors} actors"),
        (false, _, Some(reason)) => format!("not connected ({reason}), {actors} actors"),
        (false, _, None) => format!("connecting, {actors} actors"),
    }
}

fn extension(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

fn tell(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        debug!(%error, "the service manager is not told");
    }
}

/// How long the service manager is asked to wait for a daemon that has not found its gateway yet, again and again.
const STARTING: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_line_for_people() {
        let mut status = Status {
            link: LinkStatus::Waiting,
            runner_id: None,
            lost_after: None,
            reason: Some("connection refused".to_owned()),
            actors: 2,
            draining: false,
        };
        assert_eq!(line(&status), "not connected (connection refused), 2 actors");
        status.link = LinkStatus::Open;
        assert_eq!(line(&status), "connected, 2 actors");
        status.draining = true;
        assert_eq!(line(&status), "draining, 2 actors left");
    }
}
