//! The log filter of this process, which can be changed while it runs.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::info;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::LogFilter;

/// Changes the log filter.
#[derive(Debug)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    state: Mutex<State>,
}

/// The filter that holds now.
#[derive(Clone, Debug)]
pub struct FilterStatus {
    /// What is logged.
    pub filter: LogFilter,
    /// What the settings say.
    pub configured: LogFilter,
    /// When the configured filter holds again by itself.
    pub until: Option<SystemTime>,
}

#[derive(Debug)]
struct State {
    status: FilterStatus,
    /// Rises with every change, so that an old timer does not undo a new one.
    change: u64,
}

/// The filter's control, once logs are set up.
#[must_use]
pub fn control() -> Option<&'static LogControl> {
    CONTROL.get()
}

impl LogControl {
    /// The layer that filters, and what [`control`] gives out once [`LogControl::install`] was called.
    pub(super) fn new(filter: &LogFilter) -> (reload::Layer<EnvFilter, Registry>, Self) {
        let (layer, handle) = reload::Layer::new(filter.build());
        let status = FilterStatus { filter: filter.clone(), configured: filter.clone(), until: None };
        (layer, LogControl { handle, state: Mutex::new(State { status, change: 0 }) })
    }

    pub(super) fn install(self) {
        // Only the subscriber that was installed first can log, and only its control is of use.
        let _ = CONTROL.set(self);
    }

    /// What holds now.
    #[must_use]
    pub fn status(&self) -> FilterStatus {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// Changes what is logged, for good or for a while. Must be called on a tokio runtime, which undoes it in time.
    pub fn set(&'static self, filter: &LogFilter, during: Option<Duration>) {
        let until = during.and_then(|during| SystemTime::now().checked_add(during));
        let change = self.change(filter, until, false);
        info!(filter = %filter, revert_in_ms = during.map(|during| during.as_millis()), "log filter changed");
        if let Some(during) = during {
            tokio::spawn(async move {
                tokio::time::sleep(during).await;
                self.revert(change);
            });
        }
    }

    /// Changes what the settings say, and with it what is logged.
    pub fn configure(&self, filter: &LogFilter) {
        self.change(filter, None, true);
    }

    fn revert(&self, change: u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.change != change {
            return;
        }
        let configured = state.status.configured.clone();
        drop(state);
        self.change(&configured, None, true);
        info!(filter = %configured, "log filter as configured again");
    }

    fn change(&self, filter: &LogFilter, until: Option<SystemTime>, configured: bool) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.change += 1;
        state.status.filter = filter.clone();
        state.status.until = until;
        if configured {
            state.status.configured = filter.clone();
        }
        // It fails only when the subscriber is gone, and then nothing is logged anyway.
        let _ = self.handle.reload(filter.build());
        state.change
    }
}

static CONTROL: OnceLock<LogControl> = OnceLock::new();
