//! Tells a control plane how this worker is doing: `PUT {url}/worker`.
//!
//! What is sent when is decided by [`Delivery`]; here it is sent. Reports are merged under a lock instead of queued, so
//! that no more than two of them ever exist, however long the control plane is away.
//!
//! [`Reporter::close`] tells the last state and ends it: after that no request begins, and one that hangs is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::config::{Endpoint, SecretFile};
use crate::report::{ActorMetadata, Answer, Delivery, Effect, Input, MetadataRefusal, Pace, Patch};
use crate::socket::{CallError, HttpClient, Reach};
use crate::telemetry::fields;
use crate::telemetry::metrics::{self, Upload};

/// Who is told, and how.
#[derive(Clone, Debug)]
pub struct ReporterSettings {
    /// The control plane's base; reports go to `/worker` below it.
    pub url: Endpoint,
    /// The bearer token, read for every report.
    pub token: Option<SecretFile>,
    /// How long to wait after failures.
    pub pace: Pace,
    /// How long a report may take.
    pub timeout: Duration,
}

/// A task that reports. Dropped, it ends without a word.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    delivery: Mutex<Delivery>,
    /// When the oldest change was told that is not being sent.
    untold: Mutex<Option<Instant>>,
    changed: Notify,
}

/// What actors add to the worker's state, with a signal when it changes.
#[derive(Debug, Default)]
pub struct Metadata {
    actors: Mutex<ActorMetadata>,
    changes: watch::Sender<u64>,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("{0} (--report-token-file)")]
    Token(String),
    #[error("{0} (--report-url)")]
    Call(#[from] CallError),
    #[error("no answer came within {} s (--report-url)", within.as_secs_f64())]
    TimedOut { within: Duration },
    #[error("the control plane answered {} (--report-url)", .0.as_u16())]
    Status(StatusCode),
}

impl ReporterSettings {
    /// Reports to this control plane with the usual delays.
    #[must_use]
    pub fn new(url: Endpoint, token: Option<SecretFile>) -> Self {
        ReporterSettings { url, token, pace: PACE, timeout: TIMEOUT }
    }
}

impl Reporter {
    /// Starts a reporter that has nothing to tell yet. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn start(settings: ReporterSettings) -> Result<Self, rustls::Error> {
        let client = HttpClient::new(settings.url.clone(), Reach::Anywhere)?;
        let delivery = Mutex::new(Delivery::new(settings.pace, rand::random()));
        let shared = Arc::new(Shared { delivery, untold: Mutex::default(), changed: Notify::new() });
        let task = tokio::spawn(run(shared.clone(), settings, client));
        Ok(Reporter { shared, task })
    }

    /// Reports a change; what was not sent yet is merged with it. Does not wait.
    pub fn push(&self, patch: Patch) {
        self.shared.handle(Input::Patch(patch));
    }

    /// Reports the last change, waits at most this long until it is taken, and ends. Nothing is sent afterwards.
    pub async fn close(mut self, last: Patch, within: Duration) {
        self.shared.handle(Input::Last(last));
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            self.shared.handle(Input::Close);
            warn!("the control plane was not told that this worker stops");
            self.task.abort();
            // It was aborted, and holds nothing but its connection.
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.shared.handle(Input::Close);
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the oldest change has waited, after a report with changes since then had this answer.
    fn lag(&self, since: Option<Instant>, answer: Answer) -> Duration {
        let mut untold = self.untold();
        if answer != Answer::Taken {
            *untold = since.or(*untold);
        }
        untold.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn untold(&self) -> MutexGuard<'_, Option<Instant>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, input: Input) {
        let now = Instant::now();
        self.untold().get_or_insert(now);
        self.lock().handle(input, now);
        self.changed.notify_one();
    }
}

impl From<Answer> for Upload {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Taken => Upload::Taken,
            Answer::Failed => Upload::Failed,
            Answer::Refused => Upload::Refused,
        }
    }
}

impl Metadata {
    /// Merges an actor's patch into what all actors tell.
    ///
    /// # Errors
    /// [`MetadataRefusal`]; nothing is changed then.
    pub fn patch(&self, actor: &Arc<str>, patch: Map<String, Value>) -> Result<(), MetadataRefusal> {
        if self.lock().patch(actor, patch)? {
            self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
        Ok(())
    }

    /// What one actor wrote last.
    #[must_use]
    pub fn of(&self, actor: &str) -> Map<String, Value> {
        self.lock().of(actor)
    }

    /// What all actors tell, added to a patch.
    #[must_use]
    pub fn add_to(&self, patch: Patch) -> Patch {
        self.lock().iter().fold(patch, |patch, (key, value)| patch.external(key, value.clone()))
    }

    /// Changes when what actors tell does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, ActorMetadata> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportError {
    /// What the delivery is to make of it.
    fn answer(&self) -> Answer {
        match self {
            ReportError::Token(_) | ReportError::Call(_) | ReportError::TimedOut { .. } => Answer::Failed,
            ReportError::Status(StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => Answer::Failed,
            // It does not want it as it is, or from us: until somebody changes that, asking often helps nobody. Giving
            // up would need a restart to be mended.
            ReportError::Status(status) if status.is_client_error() || status.is_redirection() => Answer::Refused,
            ReportError::Status(_) => Answer::Failed,
        }
    }
}

async fn run(shared: Arc<Shared>, settings: ReporterSettings, client: HttpClient) {
    // Whether the current trouble has been told.
    let mut told: Option<Answer> = None;
    loop {
        let (effect, due) = {
            let mut delivery = shared.lock();
            (delivery.poll_effect(Instant::now()), delivery.poll_timeout())
        };
        match (effect, due) {
            (Some(Effect::Closed), _) => return,
            (Some(Effect::Send(patch)), _) => {
                let since = shared.untold().take();
                let answer = match report(&settings, &client, &patch).await {
                    Ok(()) => Answer::Taken,
                    Err(error) => {
                        let answer = error.answer();
                        if told == Some(answer) {
                            debug!({ fields::ERROR } = %error, "a report was not taken");
                        } else {
                            warn!({ fields::ERROR } = %error, "a report was not taken; it is tried again");
                        }
                        answer
                    }
                };
                if answer == Answer::Taken && told.take().is_some() {
                    info!("the control plane takes reports again");
                }
                if answer != Answer::Taken {
                    told = Some(answer);
                }
                metrics::runner().uploads.uploaded(answer.into(), shared.lag(since, answer));
                shared.lock().handle(Input::Answered(answer), Instant::now());
            }
            (None, Some(due)) => tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = shared.changed.notified() => {}
            },
            (None, None) => shared.changed.notified().await,
        }
    }
}

/// Sends one report. The answer's body is of no interest; dropping it closes the connection.
async fn report(settings: &ReporterSettings, client: &HttpClient, patch: &Patch) -> Result<(), ReportError> {
    let body = Full::new(Bytes::from(patch.to_json().to_string()));
    let mut request = Request::new(body);
    *request.method_mut() = Method::PUT;
    // A path that was checked with the settings.
    *request.uri_mut() = format!("{}/worker", settings.url.path_prefix).parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("greenroom/", env!("CARGO_PKG_VERSION"))));
    if let Some(file) = settings.token.clone() {
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        let token = read.unwrap_or_else(|error| Err(error.to_string())).map_err(ReportError::Token)?;
        let token = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
        let mut token = token.map_err(|_| ReportError::Token("the token cannot stand in a header".to_owned()))?;
        token.set_sensitive(true);
        headers.insert(AUTHORIZATION, token);
    }
    let answer = tokio::time::timeout(settings.timeout, client.call(request)).await;
    let status = answer.map_err(|_| ReportError::TimedOut { within: settings.timeout })??.status();
    if status.is_success() { Ok(()) } else { Err(ReportError::Status(status)) }
}

/// From a second to half a minute: a control plane that comes back knows soon, one that is away is not stormed.
const PACE: Pace =
    Pace { first: Duration::from_secs(1), most: Duration::from_secs(30), refused: Duration::from_secs(60) };
/// A report is small; whoever takes longer for it is not well.
const TIMEOUT: Duration = Duration::from_secs(10);
