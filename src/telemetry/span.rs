//! Spans: who waited for whom, and for how long, in the words of OpenTelemetry.
//!
//! Nothing is noted unless somebody collects; then a span is noted when it ends, in a queue that is bounded and never
//! waited for. Who was asked in a trace that is not sampled notes nothing and passes the context on as it is.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::metrics::{self, SpanFate};
use super::trace::{Context, context};

/// A piece of work in the name of a request. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedSpan {
    /// The trace it belongs to; never 0.
    pub trace: u128,
    /// Its own id; never 0.
    pub id: u64,
    /// The span that asked for it, when there is one.
    pub parent: Option<u64>,
    /// What was done.
    pub name: &'static str,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// Why it went wrong.
    pub error: Option<String>,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Who was asked.
    Server,
    /// Who asks.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

#[derive(Debug)]
struct Open {
    span: FinishedSpan,
    began: Instant,
    collector: &'static mpsc::Sender<FinishedSpan>,
}

impl Span {
    /// Begins a span below this W3C context, which is only looked for when somebody collects, or a trace of its own below
    /// none that can be read.
    #[must_use]
    pub fn start<'a>(kind: SpanKind, name: &'static str, traceparent: impl FnOnce() -> Option<&'a str>) -> Self {
        let Some(collector) = COLLECTOR.get() else { return Span(None) };
        let (trace, parent) = match traceparent().and_then(context) {
            Some(Context { sampled: false, .. }) => return Span(None),
            Some(Context { trace, span, sampled: true }) => (trace, Some(span)),
            None => (rand::random::<u128>().max(1), None),
        };
        let span = FinishedSpan {
            trace,
            id: rand::random::<u64>().max(1),
            parent,
            name,
            kind,
            started: SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        };
        Span(Some(Box::new(Open { span, began: Instant::now(), collector })))
    }

    /// The context that those who are asked next are given; nothing when it is to stay as it is.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let FinishedSpan { trace, id, .. } = self.0.as_ref()?.span;
        Some(format!("00-{trace:032x}-{id:016x}-01"))
    }

    /// Notes something of it. Tokens and payloads are nobody's business.
    pub fn set(&mut self, name: &'static str, value: impl Into<SpanValue>) {
        if let Some(open) = &mut self.0 {
            open.span.attributes.push((name, value.into()));
        }
    }

    /// Notes the status of an HTTP response; one of the server's faults is an error.
    pub fn status(&mut self, status: u16) {
        self.set("http.response.status_code", i64::from(status));
        if status >= 500 {
            self.failed(&format!("status {status}"));
        }
    }

    /// Notes why it went wrong; the first reason counts.
    pub fn failed(&mut self, why: &str) {
        if let Some(open) = &mut self.0 {
            open.span.error.get_or_insert_with(|| why.to_owned());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { mut span, began, collector } = *open;
        span.took = began.elapsed();
        if collector.try_send(span).is_err() {
            metrics::count_spans(SpanFate::Dropped, 1);
        }
    }
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> Self {
        SpanValue::Text(text.to_owned())
    }
}

impl From<i64> for SpanValue {
    fn from(number: i64) -> Self {
        SpanValue::Number(number)
    }
}

/// Spans are noted from now on, and come out here. At most 4096 wait; what ends then is dropped and counted.
///
/// Nothing when somebody collects already.
#[must_use]
pub fn collect_spans() -> Option<mpsc::Receiver<FinishedSpan>> {
    let (collector, spans) = mpsc::channel(QUEUE);
    COLLECTOR.set(collector).ok().map(|()| spans)
}

static COLLECTOR: OnceLock<mpsc::Sender<FinishedSpan>> = OnceLock::new();

/// Spans that may wait for the exporter: some 300 bytes each.
const QUEUE: usize = 4096;
