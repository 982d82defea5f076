//! Logs: one record per line on stderr, as text for people or JSON for machines; where stderr is the journal, with the
//! journal's own fields.
//!
//! A record is a time, a level, a target, a constant message and fields; the fields of its spans say whom it is about.
//! Control characters never reach the terminal or the log file as they are: much of what is logged was sent by peers.

mod escape;
pub mod fields;
mod filter;
mod journal;
mod json;
mod layer;
pub mod metrics;
pub mod output;
mod record;
mod repeats;
mod span;
mod text;
mod time;
mod trace;

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use filter::{FilterStatus, LogControl, control};
pub use journal::Journal;
pub use layer::{Form, LogLayer};
pub use span::{FinishedSpan, Span, SpanKind, SpanValue, collect_spans};
pub use time::rfc3339;
pub use trace::{TRACEPARENT, new_traceparent, trace_id};

use crate::config::{LogFormat, LogSettings};

/// Logs of this process were set up before.
#[derive(Debug, thiserror::Error)]
#[error("logs are set up already")]
pub struct AlreadySetUp;

/// Sends the records of this process to stderr from now on, panics among them.
///
/// # Errors
/// [`AlreadySetUp`] when this is not the first call, or another subscriber is in place.
pub fn init(settings: &LogSettings) -> Result<(), AlreadySetUp> {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let form = match settings.format {
        LogFormat::Text => Form::Text { colour },
        LogFormat::Json => Form::Json,
        LogFormat::Auto if terminal => Form::Text { colour },
        LogFormat::Auto => match Journal::of_stderr(std::env::var_os("JOURNAL_STREAM").as_deref()) {
            Some(journal) => Form::Journal(journal),
            None => Form::Json,
        },
    };
    let layer = LogLayer::new(form, io::stderr);
    let (filter, control) = LogControl::new(&settings.filter);
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| AlreadySetUp)?;
    control.install();
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let reason = info.payload_as_str().unwrap_or("a payload that is no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(reason, place, thread = thread.name(), "panicked; this is a bug in greenroom");
}
