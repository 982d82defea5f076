//! Tells a collector of the spans of this process: `POST {endpoint}/v1/traces`, OTLP over HTTP as JSON.
//!
//! Spans are gathered for a moment and sent in batches, one at a time. A batch that is not taken is dropped and
//! counted: traces are a help and no record, and nothing ever waits for them. [`Exporter::stop`] sends what is there,
//! within a bound.

mod json;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub use json::{Resource, traces};

use crate::config::TraceSettings;
use crate::socket::{CallError, HttpClient, Reach};
use crate::telemetry::metrics::{self, SpanFate};
use crate::telemetry::{FinishedSpan, collect_spans, fields};

/// The task that exports.
#[derive(Debug)]
pub struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Why spans are not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailure {
    /// The system's certificates cannot be used.
    #[error("the system's certificates cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// Another exporter of this process has them.
    #[error("the spans of this process are exported already")]
    Taken,
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{0} (--otlp-endpoint)")]
    Call(#[from] CallError),
    #[error("no answer came within {} s (--otlp-endpoint)", TIMEOUT.as_secs())]
    TimedOut,
    #[error("the collector answered {} (--otlp-endpoint)", .0.as_u16())]
    Status(StatusCode),
}

struct Collector {
    settings: TraceSettings,
    resource: Resource,
    client: HttpClient,
    /// The current trouble has been told.
    told: bool,
}

impl Exporter {
    /// Begins to collect and export. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`ExportFailure`].
    pub fn start(settings: TraceSettings) -> Result<Self, ExportFailure> {
        let client = HttpClient::new(settings.endpoint.clone(), Reach::Anywhere)?;
        let spans = collect_spans().ok_or(ExportFailure::Taken)?;
        let resource = Resource::of_process(settings.service_name.clone());
        info!({ fields::ENDPOINT } = %settings.endpoint, "traces are exported");
        let collector = Collector { settings, resource, client, told: false };
        let (stop, stopped) = oneshot::channel();
        Ok(Exporter { stop, task: tokio::spawn(collector.run(spans, stopped)) })
    }

    /// Sends what is there, at most for this long, and ends.
    pub async fn stop(mut self, within: Duration) {
        // A task that is gone has nothing left to send.
        let _ = self.stop.send(());
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            info!("the last traces were not taken in time");
            self.task.abort();
        }
    }
}

impl Collector {
    async fn run(mut self, mut spans: mpsc::Receiver<FinishedSpan>, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                _ = spans.recv_many(&mut batch, BATCH) => {}
                _ = &mut stopped => break,
            }
            let gathered = tokio::time::sleep(GATHER);
            tokio::pin!(gathered);
            let mut last = false;
            while batch.len() < BATCH && !last {
                let room = BATCH - batch.len();
                tokio::select! {
                    _ = spans.recv_many(&mut batch, room) => {}
                    () = &mut gathered => break,
                    _ = &mut stopped => last = true,
                }
            }
            self.export(&mut batch).await;
            if last {
                break;
            }
        }
        // No more than what was there when the end was asked for, and a queue's worth at that.
        while let Ok(span) = spans.try_recv() {
            batch.push(span);
            if batch.len() == BATCH {
                self.export(&mut batch).await;
            }
        }
        self.export(&mut batch).await;
    }

    async fn export(&mut self, batch: &mut Vec<FinishedSpan>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        let body = traces(&self.resource, batch).to_string();
        batch.clear();
        let fate = match self.send(body).await {
            Ok(()) => {
                if std::mem::take(&mut self.told) {
                    info!("the collector takes traces again");
                }
                SpanFate::Exported
            }
            Err(error) if self.told => {
                debug!({ fields::ERROR } = %error, { fields::COUNT } = count, "traces were not taken");
                SpanFate::Failed
            }
            Err(error) => {
                self.told = true;
                warn!({ fields::ERROR } = %error, { fields::COUNT } = count, "traces were not taken; they are dropped");
                SpanFate::Failed
            }
        };
        metrics::count_spans(fate, count);
    }

    async fn send(&self, body: String) -> Result<(), SendError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        // A path that was checked with the settings.
        *request.uri_mut() = format!("{}/v1/traces", self.settings.endpoint.path_prefix).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(self.settings.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("greenroom/", env!("CARGO_PKG_VERSION"))));
        // Dropping the answer closes the connection; what a collector says beyond its status is of no use here.
        let answer = tokio::time::timeout(TIMEOUT, self.client.call(request)).await;
        let status = answer.map_err(|_| SendError::TimedOut)??.status();
        if status.is_success() { Ok(()) } else { Err(SendError::Status(status)) }
    }
}

/// Spans in one request: some 200 KiB of JSON.
const BATCH: usize = 512;
/// How long spans are gathered for one request.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for one request, the connection included.
const TIMEOUT: Duration = Duration::from_secs(10);
