//! Client requests to an app that speaks HTTP/1.1, and its responses back.
//!
//! Nothing is parsed twice: requests are built from names and values, never from text, and both sides frame their
//! bodies anew. Bodies stream in both directions as fast as the slower side reads.

mod connection;
mod events;
mod headers;
mod remote;
mod site;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use greenroom_protocol::{Headers, StreamId};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use crate::host::{Gone, Request, Responder, StartActor};
use crate::telemetry::{SpanKind, fields};
pub(super) use connection::{Address, Driver, Outbound};
use connection::{Connection, Io, SendError};
pub use events::is_text;
pub(super) use events::{answer_of, client_request, event_of};
pub(super) use headers::Identity;
pub use headers::{from_app, from_client, is_reserved};
pub(super) use remote::Remote;
pub(super) use site::{Site, Unwell};

/// The app of one actor life.
pub(super) struct App {
    site: Site,
    name: Arc<str>,
    identity: Identity,
    gone: CancellationToken,
}

/// Why there is no answer from the app.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppError {
    /// No connection.
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    /// The connection closed before the answer.
    #[error("closed the connection without an answer")]
    Silent,
    /// What came is no HTTP.
    #[error("answered with something that is not HTTP/1.1: {0}")]
    Malformed(hyper::Error),
    /// The client went away while its body was sent.
    #[error("was not asked in full: the client went away")]
    ClientGone,
    /// It has more to answer than it may.
    #[error("has too many events and requests to answer")]
    Busy,
}

impl App {
    /// The app that listens at this address; `gone` tells when its process is no more.
    pub(super) fn new(address: Address, start: &StartActor, gone: CancellationToken) -> Self {
        Site::of_one(address).app(start, Identity::new(start), gone)
    }

    /// Resolves when the app accepts a connection.
    pub(super) async fn listens(&self) {
        self.site.listens().await;
    }

    /// Passes a client's request to the app, and its answer back.
    pub(super) async fn serve(&self, request: Request, responder: Responder) {
        let head = *request.method == *"HEAD";
        let mut request = request;
        let mut span = request.begin_span(SpanKind::Client, responder.actor());
        span.set("greenroom.actor.name", &*self.name);
        let request = match self.build(request) {
            Ok(request) => request,
            Err(refusal) => {
                // Without a runner there is no client to tell.
                let _ = refusal.answer(responder).await;
                return;
            }
        };
        let logged = info_span!("request", { fields::TRACE_ID } = headers::trace_of(request.headers()));
        let served = async {
            match self.exchange(request).await {
                Ok((response, connection)) => {
                    span.status(response.status().as_u16());
                    self.forward(response, connection, head, responder).await
                }
                Err(error) => {
                    span.failed(&error.to_string());
                    self.fail(error, responder).await
                }
            }
        };
        let _ = served.instrument(logged).await;
    }

    /// Sends the app an event of our own and reads its answer, up to [`EVENT_ANSWER_MAX`] bytes of it.
    pub(super) async fn event(
        &self,
        event: &'static str,
        more: &[(&'static str, String)],
    ) -> Result<(StatusCode, Bytes), AppError> {
        let mut request = hyper::Request::new(Outbound::whole(Bytes::new()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/_actor");
        *request.headers_mut() = hook_headers(event, more);
        self.identity.add_to(request.headers_mut());
        headers::trace(request.headers_mut());
        let (response, mut connection) = self.exchange(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while answer.len() < EVENT_ANSWER_MAX {
            match connection.piece(&mut body).await {
                Some(Ok(piece)) => answer.extend_from_slice(&piece[..piece.len().min(EVENT_ANSWER_MAX - answer.len())]),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    self.site.pool.put_back(connection).await;
                    break;
                }
            }
        }
        Ok((status, answer.freeze()))
    }

    fn build(&self, request: Request) -> Result<hyper::Request<Outbound>, Refusal> {
        if headers::is_reserved(&request.path) {
            return Err(Refusal(StatusCode::NOT_FOUND, "not found".into()));
        }
        let bad = |text: &str| Refusal(StatusCode::BAD_REQUEST, text.to_owned());
        let method =
            Method::from_bytes(request.method.as_bytes()).map_err(|_| bad("the request method is not valid"))?;
        if method == Method::CONNECT {
            return Err(Refusal(StatusCode::NOT_IMPLEMENTED, "actors take no CONNECT requests".into()));
        }
        let uri = path_and_query(&request.path).ok_or_else(|| bad("the request path is not valid"))?;
        let length = headers::declared_length(&request.headers);
        let headers = self.client_headers(&request.headers, request.stream).map_err(|text| bad(&text))?;
        let mut built = hyper::Request::new(Outbound::new(request.body, length));
        *built.method_mut() = method;
        *built.uri_mut() = uri;
        *built.headers_mut() = headers;
        Ok(built)
    }

    /// A client's headers as the app gets them, with those that say who is asked.
    pub(super) fn client_headers(&self, headers: &Headers, stream: StreamId) -> Result<HeaderMap, String> {
        let mut headers = headers::from_client(headers)?;
        self.identity.add_to_request(&mut headers, stream);
        Ok(headers)
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> io::Result<Io> {
        self.site.address.connect_patiently().await
    }

    /// Sends a request on a kept connection or a new one. A kept one that turns out to be closed before anything was
    /// sent is replaced by a new one; what may have been sent is never sent again.
    async fn exchange(
        &self,
        mut request: hyper::Request<Outbound>,
    ) -> Result<(hyper::Response<Incoming>, Connection), AppError> {
        loop {
            let mut connection = match self.site.pool.take().await {
                Some(connection) => connection,
                None => {
                    let io = self.connect().await.map_err(AppError::Unreachable)?;
                    Connection::open(io).await?
                }
            };
            let fresh = !connection.was_used();
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(SendError::Unsent(_)) if fresh => return Err(AppError::Silent),
                Err(SendError::Unsent(unsent)) => request = *unsent,
                Err(SendError::Failed(error)) => return Err(error.into()),
            }
        }
    }

    /// Passes a response on. A body that is at hand goes out in one piece with the head, another one as it comes.
    async fn forward(
        &self,
        response: hyper::Response<Incoming>,
        mut connection: Connection,
        head: bool,
        responder: Responder,
    ) -> Result<(), Gone> {
        let (parts, mut body) = response.into_parts();
        let status = parts.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return self.bad_gateway("switched to another protocol, unasked", responder).await;
        }
        let mut headers = headers::from_app(&parts.headers);
        // The connection has checked the length it goes by; for a response without a body it is only told.
        let length = if head || status == StatusCode::NOT_MODIFIED {
            let told = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
            told.and_then(|value| value.parse().ok())
        } else {
            body.size_hint().exact().filter(|_| status != StatusCode::NO_CONTENT)
        };
        if let Some(length) = length {
            headers.push(("content-length".into(), length.to_string().into()));
        }
        let Ok(first) = gather(&mut connection, &mut body).await else {
            debug!("an app broke a response off");
            responder.abort();
            return Ok(());
        };
        let status = status.as_u16();
        let first = match first {
            Gathered::Whole(whole) => {
                self.site.pool.put_back(connection).await;
                return responder.respond(status, headers, whole).await;
            }
            Gathered::Part(first) => first,
        };
        let mut writer = responder.start_with(status, headers, first).await?;
        loop {
            match connection.piece(&mut body).await {
                Some(Ok(piece)) => writer.chunk(piece).await?,
                Some(Err(error)) => {
                    debug!(%error, "an app broke a response off");
                    return Ok(());
                }
                None => break,
            }
        }
        self.site.pool.put_back(connection).await;
        writer.finish().await
    }

    /// Answers for an app that did not: an app that is no more, or is just ending, aborts, so that the gateway tries
    /// the actor's next life; one that goes on without answering is a bad gateway.
    async fn fail(&self, error: AppError, responder: Responder) -> Result<(), Gone> {
        if matches!(error, AppError::ClientGone) || self.is_gone().await {
            debug!(%error, "gave a request up");
            responder.abort();
            return Ok(());
        }
        self.bad_gateway(&error.to_string(), responder).await
    }

    async fn bad_gateway(&self, what: &str, responder: Responder) -> Result<(), Gone> {
        let text = format!("the actor {} ({}) {what}", self.name, responder.actor());
        tracing::warn!(actor = %responder.actor(), what, "an app did not answer a request");
        Refusal(StatusCode::BAD_GATEWAY, text).answer(responder).await
    }

    /// Whether the process ends about now: its sockets close a moment before its end is seen.
    pub(super) async fn is_gone(&self) -> bool {
        self.site.doubt();
        tokio::time::timeout(END_SEEN_WITHIN, self.gone.cancelled()).await.is_ok()
    }
}

/// As much of a body as is there without waiting.
enum Gathered {
    Whole(Bytes),
    Part(Bytes),
}

/// Gathers up to [`GATHER_MAX`] bytes that are at hand, or all of a body that is known to fit.
async fn gather(connection: &mut Connection, body: &mut Incoming) -> hyper::Result<Gathered> {
    let fits = body.size_hint().exact().is_some_and(|length| length <= GATHER_MAX as u64);
    if body.is_end_stream() {
        return Ok(Gathered::Whole(Bytes::new()));
    }
    let mut all = Parts::None;
    loop {
        let piece = if fits {
            connection.piece(body).await
        } else {
            let at_hand = tokio::select! {
                biased;
                piece = connection.piece(body) => Some(piece),
                () = std::future::ready(()) => None,
            };
            match at_hand {
                Some(piece) => piece,
                None => return Ok(Gathered::Part(all.join())),
            }
        };
        match piece.transpose()? {
            Some(piece) => all.push(piece),
            None => return Ok(Gathered::Whole(all.join())),
        }
        if !fits && all.len() >= GATHER_MAX {
            return Ok(Gathered::Part(all.join()));
        }
    }
}

/// Pieces of a body; a single one is never copied.
enum Parts {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Parts {
    fn push(&mut self, piece: Bytes) {
        *self = match std::mem::replace(self, Parts::None) {
            Parts::None => Parts::One(piece),
            Parts::One(first) => {
                let mut all = BytesMut::with_capacity(first.len() + piece.len());
                all.extend_from_slice(&first);
                all.extend_from_slice(&piece);
                Parts::Many(all)
            }
            Parts::Many(mut all) => {
                all.extend_from_slice(&piece);
                Parts::Many(all)
            }
        };
    }

    fn len(&self) -> usize {
        match self {
            Parts::None => 0,
            Parts::One(piece) => piece.len(),
            Parts::Many(all) => all.len(),
        }
    }

    fn join(self) -> Bytes {
        match self {
            Parts::None => Bytes::new(),
            Parts::One(piece) => piece,
            Parts::Many(all) => all.freeze(),
        }
    }
}

/// An answer in the app's place.
struct Refusal(StatusCode, String);

impl Refusal {
    async fn answer(self, responder: Responder) -> Result<(), Gone> {
        let headers: Headers = vec![("content-type".into(), "text/plain; charset=utf-8".into())];
        responder.respond(self.0.as_u16(), headers, self.1.into()).await
    }
}

impl From<hyper::Error> for AppError {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() {
            AppError::ClientGone
        } else if error.is_parse() {
            AppError::Malformed(error)
        } else {
            AppError::Silent
        }
    }
}

/// The headers of an event of our own.
pub(super) fn hook_headers(event: &'static str, more: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost"));
    headers.insert("actor-event", HeaderValue::from_static(event));
    for (name, value) in more {
        let value = HeaderValue::from_str(value).expect("events carry only words and numbers");
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
}

/// What an event of our own says of the start or stop: why, and how much time there is.
pub(super) fn hook_details(reason: &str, left: Duration) -> [(&'static str, String); 2] {
    [("actor-reason", reason.to_owned()), ("actor-deadline-ms", left.as_millis().to_string())]
}

/// What the answer to an event of our own says. An app without such a hook is fine; the error is a refusal.
pub(super) fn hook_answer(event: &str, status: StatusCode, answer: &[u8]) -> Result<(), String> {
    // Servers that know no such hook have many ways to say so, 400 and 403 among them.
    if status == StatusCode::NOT_IMPLEMENTED || !status.is_server_error() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(answer);
    Err(format!("answered the {event} event with {}: {}", status.as_u16(), answer.trim()))
}

/// A path in origin form, as it goes on the request line.
#[must_use]
pub fn path_and_query(path: &str) -> Option<Uri> {
    if !path.starts_with('/') {
        return None;
    }
    Uri::builder().path_and_query(path).build().ok()
}

/// A body up to this size, in bytes, is sent with the head in one message when it is at hand.
const GATHER_MAX: usize = 64 * 1024;

/// How much of the answer to an event is read, in bytes: enough for a reason.
const EVENT_ANSWER_MAX: usize = 4 * 1024;

/// How long after its sockets the end of a process is seen, at most.
const END_SEEN_WITHIN: Duration = Duration::from_millis(250);
