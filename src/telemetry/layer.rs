//! Turns events into lines.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::journal::Journal;
use crate::telemetry::record::{Fields, Value};
use crate::telemetry::repeats::{Repeats, Verdict};
use crate::telemetry::{fields, json, metrics, text};

/// Writes every event as a line.
#[derive(Debug)]
pub struct LogLayer<W> {
    form: Form,
    writer: W,
    repeats: Mutex<Repeats>,
}

/// What a record looks like.
#[derive(Debug)]
pub enum Form {
    /// For people.
    Text {
        /// With colours, for a terminal.
        colour: bool,
    },
    /// A JSON object.
    Json,
    /// Fields for the journal, which gets them without the writer.
    Journal(Journal),
}

/// A record about to be written.
pub(super) struct Record<'a> {
    /// RFC 3339, in UTC.
    pub time: String,
    pub level: &'a Level,
    pub target: &'a str,
    pub message: &'a str,
    /// Its own fields first, then those of its spans from the inside out.
    pub fields: Fields,
}

impl<W> LogLayer<W> {
    /// Records of this form to this writer; each line is one write.
    pub fn new(form: Form, writer: W) -> Self {
        LogLayer { form, writer, repeats: Mutex::default() }
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take("message").unwrap_or_default();
        let metadata = event.metadata();
        // Records of the `log` facade carry their target as a field.
        let facade = if metadata.target() == "log" { fields.take("log.target") } else { None };
        if facade.is_some() {
            fields.retain(|name| !name.starts_with("log."));
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        let verdict = {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            repeats.judge(metadata, &message, &fields, Instant::now())
        };
        match verdict {
            Verdict::Write => {}
            Verdict::WriteWithCount(times) => fields.add(fields::REPEATED, Value::Unsigned(times)),
            Verdict::Skip => return,
        }
        let mut time = String::new();
        if SystemTime.format_time(&mut Writer::new(&mut time)).is_err() {
            time.push('-');
        }
        let record = Record {
            time,
            level: metadata.level(),
            target: facade.as_deref().unwrap_or(metadata.target()),
            message: &message,
            fields,
        };
        let mut line = String::with_capacity(256);
        match &self.form {
            Form::Text { colour } => text::write(&mut line, &record, *colour),
            Form::Json => json::write(&mut line, &record),
            Form::Journal(journal) => return journal.send(&record),
        }
        // There is nowhere left to report that stderr is gone, but a scraper may see it.
        match self.writer.make_writer_for(metadata).write_all(line.as_bytes()) {
            Ok(()) => metrics::runner().log_record(metadata.level()),
            Err(_) => drop(metrics::runner().log_dropped.inc()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::Value;
    use tracing::{info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_json_record_is_flat_and_has_the_fields_of_its_spans() {
        let line = json(|| {
            let _outer = info_span!("runner", session = 3, actor_id = "outer").entered();
            let inner = info_span!("actor", actor_id = "a1", generation = tracing::field::Empty).entered();
            inner.record("generation", 7_u32);
            warn!(target: "greenroom::runner::driver", reason = ?Some("x"), delay_ms = 1.5, ok = true, "stopping actor");
        });
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "greenroom::runner::driver");
        assert_eq!(line["message"], "stopping actor");
        assert_eq!(line["reason"], "Some(\"x\")");
        assert_eq!(line["delay_ms"], 1.5);
        assert_eq!(line["ok"], true);
        assert_eq!(line["actor_id"], "a1");
        assert_eq!(line["generation"], 7);
        assert_eq!(line["session"], 3);
    }

    #[test]
    fn a_field_never_takes_the_name_of_a_part_of_the_record() {
        let line = json(|| info!(level = "mine", ts = 1, nan = f64::NAN, ms = 5_u128, r#type = "t", "message"));
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["field_level"], "mine");
        assert_eq!(line["nan"], "NaN");
        assert_eq!(line["ms"], 5);
        assert_eq!(line["type"], "t");
    }

    #[test]
    fn a_text_record_is_one_line_without_control_characters() {
        let line = capture(Form::Text { colour: false }, || {
            info!(target: "greenroom::host", line = "two\nlines \u{1b}[31m", count = 2, "actor wrote");
        });
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{line}");
        assert_eq!(rest, " INFO host: actor wrote line=\"two\\nlines \\u{1b}[31m\" count=2\n");
    }

    #[test]
    fn colours_are_only_for_terminals() {
        let line = capture(Form::Text { colour: true }, || info!("hello"));
        assert!(line.contains("\u{1b}[32m INFO\u{1b}[0m"), "{line:?}");
    }

    fn json(log: impl FnOnce()) -> Value {
        serde_json::from_str(&capture(Form::Json, log)).unwrap()
    }

    fn capture(form: Form, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(LogLayer::new(form, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        let lines = lines.0.lock().unwrap().clone();
        String::from_utf8(lines).unwrap()
    }

    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Lines(pub Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
