//! What the handlers share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use secrecy::SecretString;

use super::answer::Refusal;
use crate::runner::{ActorLife, Census, LinkStatus, RunnerHandle, Status};

/// One of these per server; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) runner: RunnerHandle,
    pub(super) write_token: Option<SecretString>,
    pub(super) drain_timeout: Duration,
    pub(super) started: (SystemTime, Instant),
    link: Mutex<Link>,
}

/// Where the link to the gateway stands, and since when.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) open: bool,
    pub(super) since: SystemTime,
}

impl std::ops::Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Shared {
    pub(super) fn new(runner: RunnerHandle, write_token: Option<SecretString>, drain_timeout: Duration) -> Self {
        let now = SystemTime::now();
        let link = Mutex::new(Link { open: false, since: now });
        Shared(Arc::new(Inner { runner, write_token, drain_timeout, started: (now, Instant::now()), link }))
    }

    /// Notes when the link changes, for as long as the runner lives.
    pub(super) async fn watch_link(self) {
        let mut changes = self.runner.watch_status();
        loop {
            let open = changes.borrow_and_update().link == LinkStatus::Open;
            {
                let mut link = self.lock();
                if link.open != open {
                    *link = Link { open, since: SystemTime::now() };
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// How the runner does, and since when its link is as it is.
    pub(super) fn link(&self) -> (Status, SystemTime) {
        let status = self.runner.status();
        let link = self.lock().clone();
        // A change that was not noted yet has just happened.
        let since = if link.open == (status.link == LinkStatus::Open) { link.since } else { SystemTime::now() };
        (status, since)
    }

    pub(super) async fn lives(&self) -> Result<Vec<ActorLife>, Refusal> {
        in_time(self.runner.lives()).await
    }

    pub(super) async fn census(&self) -> Result<Census, Refusal> {
        in_time(self.runner.census()).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the driver says, or why it does not.
async fn in_time<T>(answer: impl Future<Output = Option<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Refusal::no_answer("the runner has stopped")),
        Err(_) => Err(Refusal::no_answer(format!("the runner has not answered for {PATIENCE:?}; it may be stuck"))),
    }
}

/// How long the driver may take to answer: it does nothing that waits, so this is a sign of trouble.
const PATIENCE: Duration = Duration::from_secs(2);
