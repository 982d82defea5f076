//! A gateway that does only what the test says.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use greenroom::config::Endpoint;
use greenroom::protocol::{
    ActorConfig, Checkpoint, Command, CommandWrapper, Event, Headers, Init, InitMetadata, MessageId, StreamId,
    ToClient, ToClientTunnel, ToServer, ToServerTunnel, Version,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

/// Listens for runners.
pub struct Gateway {
    listener: TcpListener,
}

/// One runner's connection, from the gateway's end.
pub struct Wire {
    socket: WebSocketStream<TcpStream>,
    /// Path and query of the upgrade.
    pub uri: String,
    /// Headers of the upgrade.
    pub headers: Vec<(String, String)>,
    version: Version,
    /// Read, and one event a message by now.
    unpacked: VecDeque<ToServer>,
    /// Looked at and left.
    seen: VecDeque<ToServer>,
}

/// How a connection ended, from the gateway's end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By a closing frame.
    Closed(u16, String),
    /// Without one.
    Broken,
}

impl Gateway {
    pub async fn listen() -> Self {
        Gateway { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    /// Listens where another has listened before.
    pub async fn at(address: &str) -> Self {
        Gateway { listener: TcpListener::bind(address).await.expect("the port is free again") }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::of_listener(self.listener.local_addr().expect("it listens"))
    }

    /// The next TCP connection, as it is.
    pub async fn accept_tcp(&self) -> TcpStream {
        let accepted = timeout(PATIENCE, self.listener.accept()).await.expect("the runner dials in time");
        accepted.expect("a connection").0
    }

    /// Nobody dials within this time.
    pub async fn is_left_alone(&self, within: Duration) -> bool {
        timeout(within, self.listener.accept()).await.is_err()
    }

    /// Upgrades the next connection and grants nothing beyond the protocol.
    pub async fn accept(&self) -> Wire {
        self.accept_granting(None).await
    }

    /// Upgrades the next connection and grants these features.
    pub async fn accept_granting(&self, features: Option<&'static str>) -> Wire {
        let stream = self.accept_tcp().await;
        stream.set_nodelay(true).expect("a TCP socket");
        let (mut uri, mut headers) = (String::new(), Vec::new());
        #[expect(clippy::result_large_err, reason = "the type of the callback is the library's")]
        let upgrade = |request: &Request, mut response: Response| {
            uri = request.uri().to_string();
            let pairs = request.headers().iter();
            headers = pairs.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
            response.headers_mut().insert("sec-websocket-protocol", "rivet".parse().unwrap());
            if let Some(features) = features {
                response.headers_mut().insert("x-greenroom-features", features.parse().unwrap());
            }
            Ok(response)
        };
        let config = WebSocketConfig::default().max_frame_size(Some(1 << 26)).max_message_size(Some(1 << 26));
        let upgraded = tokio_tungstenite::accept_hdr_async_with_config(stream, upgrade, Some(config)).await;
        let socket = upgraded.expect("an upgrade");
        let version = uri.split_once("protocol_version=").expect("a version").1;
        let version = version.split('&').next().unwrap().parse::<u16>().unwrap();
        let version = Version::try_from(version).unwrap();
        Wire { socket, uri, headers, version, unpacked: VecDeque::new(), seen: VecDeque::new() }
    }

    /// Accepts, and greets with the usual runner id.
    pub async fn open(&self) -> Wire {
        let mut wire = self.accept().await;
        wire.greet().await;
        wire
    }
}

impl Wire {
    /// Reads the runner's introduction and answers it.
    pub async fn greet(&mut self) -> Init {
        self.greet_as("runner-1", 15_000).await
    }

    /// Reads the runner's introduction and answers it with this identity and lost threshold.
    pub async fn greet_as(&mut self, runner_id: &str, lost_after_ms: i64) -> Init {
        let ToServer::Init(init) = self.receive().await else { panic!("the first message is no init") };
        self.send(ToClient::Init {
            runner_id: runner_id.into(),
            metadata: InitMetadata {
                runner_lost_threshold: lost_after_ms,
                actor_stop_threshold: (self.version >= Version::V6).then_some(1_800_000),
                serverless_drain_grace_period: None,
            },
        })
        .await;
        init
    }

    pub async fn send(&mut self, message: ToClient) {
        let mut frame = BytesMut::new();
        message.encode(self.version, &mut frame).expect("encodes");
        self.send_frame(Message::Binary(frame.freeze())).await;
    }

    pub async fn send_frame(&mut self, frame: Message) {
        self.socket.send(frame).await.expect("the runner reads");
    }

    /// Sends the head of a frame that claims to be this long, and nothing more.
    pub async fn send_part_of_a_frame(mut self, bytes: u64) {
        let mut head = vec![0x82, 127];
        head.extend(bytes.to_be_bytes());
        self.socket.get_mut().write_all(&head).await.expect("the runner reads");
        // The connection ends at once, and not when everything has been read.
        assert_eq!(self.end().await, End::Broken);
    }

    /// The next frame that is no message of the protocol.
    pub async fn pick_frame(&mut self) -> Message {
        loop {
            let frame = timeout(PATIENCE, self.socket.next()).await.expect("the runner says something");
            match frame.expect("the connection holds").expect("the connection holds") {
                Message::Binary(bytes) => {
                    self.unpacked.push_back(ToServer::decode(bytes, self.version).expect("decodes"));
                }
                frame => return frame,
            }
        }
    }

    /// Sends without waiting for the runner to read it all.
    pub async fn try_send(&mut self, message: ToClient, within: Duration) -> bool {
        let mut frame = BytesMut::new();
        message.encode(self.version, &mut frame).expect("encodes");
        timeout(within, self.socket.send(Message::Binary(frame.freeze()))).await.is_ok()
    }

    /// Sends what is left of a message that could not be sent in time.
    pub async fn finish_sending(&mut self) {
        timeout(PATIENCE, self.socket.flush()).await.expect("the runner reads").expect("the connection holds");
    }

    /// The next message that was not looked at yet.
    pub async fn receive(&mut self) -> ToServer {
        match self.seen.pop_front() {
            Some(message) => message,
            None => self.read().await,
        }
    }

    /// The first message, past or future, that `pick` takes; the others stay.
    pub async fn pick<T>(&mut self, what: &str, mut pick: impl FnMut(&ToServer) -> Option<T>) -> T {
        for place in 0..self.seen.len() {
            if let Some(picked) = pick(&self.seen[place]) {
                self.seen.remove(place);
                return picked;
            }
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let read = tokio::time::timeout_at(deadline, self.read()).await;
            let Ok(message) = read else { panic!("waited for {what}, had only {:#?}", self.seen) };
            match pick(&message) {
                Some(picked) => return picked,
                None => self.seen.push_back(message),
            }
        }
    }

    /// What `pick` takes of everything that arrives within this time.
    pub async fn gather<T>(&mut self, within: Duration, mut pick: impl FnMut(&ToServer) -> Option<T>) -> Vec<T> {
        let deadline = tokio::time::Instant::now() + within;
        while let Ok(message) = tokio::time::timeout_at(deadline, self.read()).await {
            self.seen.push_back(message);
        }
        self.seen.iter().filter_map(&mut pick).collect()
    }

    async fn read(&mut self) -> ToServer {
        if let Some(message) = self.unpacked.pop_front() {
            return message;
        }
        let frame = timeout(PATIENCE, self.socket.next()).await.expect("the runner says something");
        match frame.expect("the connection holds").expect("the connection holds") {
            Message::Binary(bytes) => match ToServer::decode(bytes, self.version).expect("decodes") {
                ToServer::Events(events) => {
                    self.unpacked.extend(events.into_iter().map(|event| ToServer::Events(vec![event])));
                    self.unpacked.pop_front().expect("no empty list of events")
                }
                message => message,
            },
            frame => panic!("the runner sent {frame:?}"),
        }
    }

    /// Reads until the connection ends.
    pub async fn end(mut self) -> End {
        let end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        let end = End::Closed(frame.code.into(), frame.reason.to_string());
                        // Lets the answer out.
                        while let Some(Ok(_)) = self.socket.next().await {}
                        return end;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return End::Broken,
                }
            }
        };
        timeout(PATIENCE, end).await.expect("the runner leaves")
    }

    /// Closes with a reason, as gateways do.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).await.expect("the runner is there");
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Is restarted: the runner comes back at once.
    pub async fn go_away(self) {
        self.close(1011, "ws.going_away#ray").await;
    }

    /// Breaks the connection in the middle of everything.
    pub fn cut(self) {
        drop(self);
    }

    // Commands.

    pub async fn start(&mut self, actor_id: &str, generation: u32, name: &str) {
        self.send(ToClient::Commands(vec![start(actor_id, generation, name)])).await;
    }

    pub async fn stop(&mut self, actor_id: &str, generation: u32) {
        self.send(ToClient::Commands(vec![stop(actor_id, generation)])).await;
    }

    /// Starts an actor and waits until it runs.
    pub async fn run(&mut self, actor_id: &str, generation: u32, name: &str) {
        self.start(actor_id, generation, name).await;
        self.event(actor_id, |event| *event == Event::Running).await;
    }

    /// The next event of an actor that `pick` takes, with its index.
    pub async fn event(&mut self, actor_id: &str, pick: impl Fn(&Event) -> bool) -> (i64, Event) {
        let what = format!("an event of {actor_id}");
        self.pick(&what, |message| match message {
            ToServer::Events(events) => events
                .iter()
                .find(|event| &*event.checkpoint.actor_id == actor_id && pick(&event.event))
                .map(|event| (event.checkpoint.index, event.event.clone())),
            _ => None,
        })
        .await
    }

    /// The end of an actor: its error, or nothing when it ended well.
    pub async fn stopped(&mut self, actor_id: &str) -> Option<String> {
        let ended = |event: &Event| matches!(event, Event::StoppedOk { .. } | Event::StoppedError { .. });
        match self.event(actor_id, ended).await.1 {
            Event::StoppedError { message } => Some(message.expect("an error has a message").to_string()),
            _ => None,
        }
    }

    // Streams.

    /// Sends a request without waiting for its answer.
    pub async fn request(&mut self, stream: StreamId, actor_id: &str, path: &str, body: Option<Bytes>) {
        self.tunnel(stream, 0, request(actor_id, path, body, false)).await;
    }

    pub async fn tunnel(&mut self, stream: StreamId, index: u16, message: ToClientTunnel) {
        self.send(ToClient::Tunnel { id: MessageId { stream, index }, message }).await;
    }

    /// The next message of a stream.
    pub async fn answer(&mut self, stream: StreamId) -> ToServerTunnel {
        self.pick(&format!("a message of stream {stream}"), |message| match message {
            ToServer::Tunnel { id, message } if id.stream == stream => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// A whole response.
    pub async fn response(&mut self, stream: StreamId) -> (u16, Headers, Bytes) {
        match self.answer(stream).await {
            ToServerTunnel::ResponseStart { status, headers, body, stream: false } => {
                (status, headers, body.unwrap_or_default())
            }
            other => panic!("not a whole response: {other:?}"),
        }
    }

    /// Asks and waits for the whole response; the body as text.
    pub async fn get(&mut self, stream: StreamId, actor_id: &str, path: &str) -> (u16, String) {
        self.request(stream, actor_id, path, None).await;
        let (status, _, body) = self.response(stream).await;
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// Opens a socket and waits until the actor takes it.
    pub async fn open_socket(&mut self, stream: StreamId, actor_id: &str, path: &str) {
        let message = ToClientTunnel::WebSocketOpen { actor_id: actor_id.into(), path: path.into(), headers: vec![] };
        self.tunnel(stream, 0, message).await;
        assert_eq!(self.answer(stream).await, ToServerTunnel::WebSocketOpen { can_hibernate: false });
    }
}

pub fn start(actor_id: &str, generation: u32, name: &str) -> CommandWrapper {
    let config = ActorConfig { name: name.into(), key: Some("key".into()), create_ts: 77, input: None };
    let checkpoint = Checkpoint { actor_id: actor_id.into(), generation, index: 0 };
    CommandWrapper { checkpoint, command: Command::Start { config, hibernating: vec![] } }
}

pub fn stop(actor_id: &str, generation: u32) -> CommandWrapper {
    let checkpoint = Checkpoint { actor_id: actor_id.into(), generation, index: 1 };
    CommandWrapper { checkpoint, command: Command::Stop }
}

pub fn request(actor_id: &str, path: &str, body: Option<Bytes>, stream: bool) -> ToClientTunnel {
    ToClientTunnel::RequestStart {
        actor_id: actor_id.into(),
        method: if body.is_some() { "POST".into() } else { "GET".into() },
        path: path.into(),
        headers: vec![("x-test".into(), "yes".into())],
        body,
        stream,
    }
}

pub fn stream(number: u32) -> StreamId {
    StreamId { gateway: *b"gate", request: number.to_be_bytes() }
}

/// What everything may take that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
