//! The log filter of this process, which can be changed while it runs.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, info};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::LogFilter;

/// Changes the log filter.
#[derive(Debug)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    state: Mutex<State>,
}

/// What is logged is decided by the filter, and not whom it is about: a span of ours exists whatever the filter says, or
/// an actor that started while little was logged would have no name in all that is logged later.
#[derive(Debug)]
pub(super) struct Filter(reload::Layer<EnvFilter, Registry>);

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
    pub(super) fn new(filter: &LogFilter) -> (Filter, Self) {
        let (layer, handle) = reload::Layer::new(filter.build());
        let status = FilterStatus { filter: filter.clone(), configured: filter.clone(), until: None };
        (Filter(layer), LogControl { handle, state: Mutex::new(State { status, change: 0 }) })
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

impl Layer<Registry> for Filter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.0.register_callsite(metadata);
        if is_ours(metadata) { Interest::always() } else { interest }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, Registry>) -> bool {
        is_ours(metadata) || self.0.enabled(metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint().map(|hint| hint.max(LevelFilter::INFO))
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, Registry>) -> bool {
        self.0.event_enabled(event, context)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, Registry>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, Registry>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, Registry>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        self.0.on_close(id, context);
    }
}

/// A span that says whom records are about.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("greenroom")
}

static CONTROL: OnceLock<LogControl> = OnceLock::new();

#[cfg(test)]
mod tests {
    use tracing::{info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::config::LogSettings;
    use crate::telemetry::layer::tests::Lines;
    use crate::telemetry::{Form, LogLayer};

    #[test]
    fn an_actor_that_started_while_little_was_logged_is_named_later() {
        let (filter, control) = LogControl::new(&LogSettings::filter_of("error").unwrap());
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = LogLayer::new(Form::Json, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(layer), || {
            let span = info_span!("actor", actor_id = "a1");
            let _entered = span.enter();
            warn!("not wanted");
            control.configure(&LogSettings::filter_of("warn").unwrap());
            warn!("wanted");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("\"wanted\"") && text.contains("\"a1\"") && !text.contains("not wanted"), "{text}");
    }
}
