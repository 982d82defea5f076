//! What the system asks of a daemon.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tracing::info;

use crate::telemetry::fields;

/// The signals of this process. While it exists none of them ends the process by itself.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    user1: Stream,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let a process listen.
    pub fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Resolves at the next TERM or INT: the first means drain, then stop; the one after it means stop now.
    ///
    /// On USR1 `report` writes a status record to the log; on HUP `reload` reads again what can be. Cancel-safe.
    pub async fn stop(&mut self, report: impl AsyncFn(), mut reload: impl AsyncFnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    info!({ fields::SIGNAL } = "TERM", "asked to stop");
                    return;
                }
                _ = self.interrupt.recv() => {
                    info!({ fields::SIGNAL } = "INT", "asked to stop");
                    return;
                }
                _ = self.hangup.recv() => {
                    info!({ fields::SIGNAL } = "HUP", "asked to reload");
                    reload().await;
                }
                _ = self.user1.recv() => report().await,
            }
        }
    }
}
