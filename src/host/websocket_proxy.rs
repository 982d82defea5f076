//! Client sockets to an app that serves WebSockets itself: frames both ways, close codes both ways.
//!
//! Each direction waits only for itself, so an app that echoes into a slow client cannot lock both up. The app need
//! not choose one of the client's subprotocols: the gateway has answered the client already.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use greenroom_protocol::{close, limits};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tracing::{debug, warn};

use super::http::{App, Driver, Outbound, is_reserved, path_and_query};
use super::websocket::WebSocketSender;
use super::{Frame, WebSocket, WebSocketRequest};

type AppSocket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Why the app has no socket for us.
enum OpenError {
    /// The request is not one that may reach an app.
    Bad(&'static str),
    /// The app said no.
    Refused(StatusCode),
    /// The app said yes and meant something else.
    NoWebSocket(&'static str),
    /// There was no answer.
    NoAnswer(String),
}

/// Who ended a socket, and with what words.
enum Ending {
    Client {
        code: Option<u16>,
        reason: Option<ByteString>,
    },
    App {
        code: u16,
        reason: ByteString,
    },
    /// The app's connection is gone without a word.
    Lost,
    /// The runner has stopped.
    RunnerGone,
}

impl App {
    /// Opens the same socket at the app and relays until one side closes.
    pub(super) async fn proxy_websocket(&self, request: WebSocketRequest, socket: WebSocket) {
        let opened = match timeout(OPEN_TIMEOUT, self.open(&request)).await {
            Ok(opened) => opened,
            Err(_) => Err(OpenError::NoAnswer("no answer in time".into())),
        };
        // Without a runner there is no client to tell.
        let _ = match opened {
            Ok(app) => self.relay(app, socket).await,
            Err(OpenError::Bad(text)) => socket.close(1008, text).await,
            Err(OpenError::Refused(status)) => {
                socket.close(1008, &format!("the actor answered with status {}", status.as_u16())).await
            }
            Err(OpenError::NoWebSocket(text)) => {
                warn!(actor = %socket.actor(), text, "an app did not answer a WebSocket upgrade as it should");
                socket.close(1011, &format!("the actor's answer is no WebSocket: {text}")).await
            }
            Err(OpenError::NoAnswer(error)) => {
                if self.is_gone().await {
                    // Closes before it was opened: the gateway tries the actor's next life.
                    debug!(error, "gave a socket up");
                    return;
                }
                warn!(actor = %socket.actor(), error, "an app did not answer a WebSocket upgrade");
                socket.close(1011, "the actor cannot be reached").await
            }
        };
    }

    async fn open(&self, request: &WebSocketRequest) -> Result<AppSocket, OpenError> {
        if is_reserved(&request.path) {
            return Err(OpenError::Bad("not found"));
        }
        let key = generate_key();
        let request = self.upgrade_request(request, &key)?;
        let no_answer = |error: &dyn std::fmt::Display| OpenError::NoAnswer(error.to_string());
        let io = self.connect().await.map_err(|error| no_answer(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| no_answer(&error))?;
        let mut driver = Driver::new(connection.with_upgrades());
        let response = driver.while_waiting_for(sender.send_request(request)).await;
        let mut response = response.map_err(|error| no_answer(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(OpenError::Refused(response.status()));
        }
        let accept = response.headers().get("sec-websocket-accept").map(HeaderValue::as_bytes);
        if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(OpenError::NoWebSocket("its sec-websocket-accept is wrong"));
        }
        if response.headers().contains_key("sec-websocket-extensions") {
            return Err(OpenError::NoWebSocket("it uses an extension that was not offered"));
        }
        let upgraded = driver.while_waiting_for(hyper::upgrade::on(&mut response)).await;
        let upgraded = upgraded.map_err(|error| no_answer(&error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(limits::PAYLOAD_MAX))
            .max_frame_size(Some(limits::PAYLOAD_MAX))
            .read_buffer_size(READ_BUFFER);
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await)
    }

    fn upgrade_request(&self, request: &WebSocketRequest, key: &str) -> Result<hyper::Request<Outbound>, OpenError> {
        let uri = path_and_query(&request.path).ok_or(OpenError::Bad("the request path is not valid"))?;
        let mut headers = self
            .client_headers(&request.headers, request.stream)
            .map_err(|_| OpenError::Bad("a request header is not valid"))?;
        headers.remove(EXTENSIONS);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(VERSION, HeaderValue::from_static("13"));
        headers.insert(KEY, HeaderValue::from_str(key).expect("a key is base64"));
        let mut built = hyper::Request::new(Outbound::whole(Bytes::new()));
        *built.method_mut() = Method::GET;
        *built.uri_mut() = uri;
        *built.headers_mut() = headers;
        Ok(built)
    }

    async fn relay(&self, app: AppSocket, mut socket: WebSocket) -> Result<(), super::Gone> {
        socket.accept().await?;
        let sender = socket.sender();
        let (mut to_app, mut from_app) = app.split();
        let ending = tokio::select! {
            ending = upward(&mut socket, &mut to_app) => ending,
            ending = downward(&mut from_app, &sender) => ending,
        };
        match ending {
            Ending::Client { code, reason } => {
                close_app(to_app, from_app, code, reason.as_deref().unwrap_or_default()).await;
                Ok(())
            }
            Ending::RunnerGone => {
                close_app(to_app, from_app, Some(1001), "").await;
                Ok(())
            }
            Ending::App { code, reason } => {
                let closed = socket.close(code, &reason).await;
                close_app(to_app, from_app, Some(code), &reason).await;
                closed
            }
            Ending::Lost if self.is_gone().await => socket.close(1000, "actor.stopped").await,
            Ending::Lost => socket.close(1011, "the actor dropped the connection").await,
        }
    }
}

/// From the client to the app; frames that are there together go out together.
async fn upward(socket: &mut WebSocket, app: &mut SplitSink<AppSocket, Message>) -> Ending {
    loop {
        let mut next = socket.receive().await;
        loop {
            let message = match next {
                Some(Frame::Message { data, binary: true, .. }) => Message::Binary(data),
                Some(Frame::Message { data, binary: false, .. }) => match Utf8Bytes::try_from(data) {
                    Ok(text) => Message::Text(text),
                    Err(_) => return Ending::App { code: 1007, reason: "a text message is not UTF-8".into() },
                },
                Some(Frame::Closed { code, reason }) => return Ending::Client { code, reason },
                None => return Ending::RunnerGone,
            };
            if app.feed(message).await.is_err() {
                return Ending::Lost;
            }
            match socket.receive().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        if app.flush().await.is_err() {
            return Ending::Lost;
        }
    }
}

/// From the app to the client.
async fn downward(app: &mut SplitStream<AppSocket>, client: &WebSocketSender) -> Ending {
    loop {
        let (data, binary) = match app.next().await {
            Some(Ok(Message::Text(text))) => (Bytes::from(text), false),
            Some(Ok(Message::Binary(data))) => (data, true),
            Some(Ok(Message::Close(frame))) => {
                let code = close::sendable_code(frame.as_ref().map(|frame| frame.code.into()));
                let reason = frame.map_or_else(ByteString::new, |frame| close::clip(&frame.reason).into());
                return Ending::App { code, reason };
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(Error::Capacity(error))) => {
                debug!(%error, "an app sent a message that is too big");
                return Ending::App { code: 1009, reason: "message above 20 MiB".into() };
            }
            Some(Err(error)) => {
                debug!(%error, "the connection to an app broke");
                return Ending::Lost;
            }
            None => return Ending::Lost,
        };
        if client.send(data, binary).await.is_err() {
            return Ending::RunnerGone;
        }
    }
}

/// Says goodbye to the app and gives it a moment to answer.
async fn close_app(
    mut to_app: SplitSink<AppSocket, Message>,
    mut from_app: SplitStream<AppSocket>,
    code: Option<u16>,
    reason: &str,
) {
    let code = close::sendable_code(code).into();
    let frame = CloseFrame { code, reason: close::clip(reason).into() };
    let goodbye = async {
        // When the app has closed first this only sends what is left of our answer.
        let _ = to_app.send(Message::Close(Some(frame))).await;
        let _ = to_app.close().await;
        while let Some(Ok(_)) = from_app.next().await {}
    };
    // An app that does not say goodbye is left behind.
    let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
}

const EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// How long an app may take to take a socket: a gateway gives up after 15 s.
const OPEN_TIMEOUT: Duration = Duration::from_secs(14);

/// How long an app may take to answer a close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// The read buffer of a socket, in bytes; it is there for as long as the socket is.
const READ_BUFFER: usize = 16 * 1024;
