//! Records as text: a line per record.

use std::fmt::Write;

use tracing::Level;

use crate::telemetry::escape;
use crate::telemetry::layer::Record;
use crate::telemetry::record::Value;

/// Writes `time level target: message name=value …` and a newline.
pub(super) fn write(out: &mut String, record: &Record<'_>, colour: bool) {
    let paint = |style: &'static str| if colour { style } else { "" };
    let level = match *record.level {
        Level::ERROR => paint("\x1b[31m"),
        Level::WARN => paint("\x1b[33m"),
        Level::INFO => paint("\x1b[32m"),
        Level::DEBUG => paint("\x1b[34m"),
        _ => paint("\x1b[35m"),
    };
    let (dim, reset) = (paint("\x1b[2m"), paint("\x1b[0m"));
    // Writing to a string cannot fail.
    let _ = write!(out, "{dim}{}{reset} {level}{:>5}{reset} {dim}", record.time, record.level.as_str());
    escape::plain(out, short(record.target));
    let _ = write!(out, ":{reset} ");
    painted(out, record, dim, reset);
    out.push('\n');
}

/// Writes `message name=value …`.
pub(super) fn message(out: &mut String, record: &Record<'_>) {
    painted(out, record, "", "");
}

fn painted(out: &mut String, record: &Record<'_>, dim: &str, reset: &str) {
    escape::plain(out, record.message);
    for (name, value) in record.fields.iter() {
        // Writing to a string cannot fail.
        let _ = write!(out, " {dim}{name}={reset}");
        match value {
            Value::Text(text) => escape::value(out, text),
            Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) | Value::Bool(_) => drop(write!(out, "{value}")),
        }
    }
}

/// Our own targets without the crate's name: every line would begin with it.
fn short(target: &str) -> &str {
    target.strip_prefix("greenroom::").unwrap_or(target)
}
