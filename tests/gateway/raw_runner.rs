//! A runner that does nothing by itself: the test says every message.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use greenroom::gateway::{GatewayOptions, RunningGateway};
use greenroom::protocol::{
    Checkpoint, CommandWrapper, Event, EventWrapper, Init, KvRequest, KvResponse, MessageId, ToClient, ToClientTunnel,
    ToServer, ToServerTunnel, Version,
};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// One connection to a gateway.
pub struct RawRunner {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    version: Version,
    /// What came while something else was waited for.
    kept: Vec<ToClient>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    /// Without the ray.
    pub reason: String,
}

/// A gateway on a memory store with quick thresholds.
pub async fn gateway() -> RunningGateway {
    RunningGateway::start_with(greenroom::store::MemoryStore::new(), options()).await.expect("starts")
}

pub fn options() -> GatewayOptions {
    GatewayOptions::new("127.0.0.1:0".parse().expect("address"), "unused")
}

pub fn init(pool: &str) -> Init {
    Init {
        name: pool.into(),
        version: 1,
        total_slots: 10,
        prepopulate_actor_names: None,
        metadata: Some(r#"{"a":1}"#.into()),
    }
}

impl RawRunner {
    /// Opens a socket with this query and these subprotocols and headers.
    pub async fn dial(
        gateway: &RunningGateway,
        query: &str,
        protocols: &str,
        headers: &[(&'static str, &str)],
    ) -> (Self, Vec<(String, String)>) {
        let url = format!("ws://{}/runners/connect?{query}", gateway.local_addr());
        let mut request = url.into_client_request().expect("request");
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().expect("value"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("value"));
        }
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let (socket, response) =
            tokio_tungstenite::connect_async_with_config(request, Some(config), true).await.expect("upgrade");
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned())).collect();
        let version = query
            .split('&')
            .find_map(|parameter| parameter.strip_prefix("protocol_version="))
            .and_then(|version| Version::try_from(version.parse::<u16>().ok()?).ok())
            .unwrap_or(Version::LATEST);
        (RawRunner { socket, version, kept: Vec::new() }, headers)
    }

    /// A connection that has introduced itself; answers the runner's id too.
    pub async fn connect(gateway: &RunningGateway, pool: &str, key: &str, version: Version) -> (Self, String) {
        let query = format!("protocol_version={version}&namespace=default&runner_key={key}");
        let (mut runner, _) = Self::dial(gateway, &query, "rivet", &[]).await;
        runner.send(ToServer::Init(init(pool))).await;
        let ToClient::Init { runner_id, metadata } = runner.next().await else { panic!("no init") };
        assert_eq!(metadata.actor_stop_threshold.is_some(), version >= Version::V6);
        (runner, runner_id.to_string())
    }

    pub async fn send(&mut self, message: ToServer) {
        let mut frame = BytesMut::new();
        message.encode(self.version, &mut frame).expect("can be said");
        self.send_frame(Message::Binary(frame.freeze())).await;
    }

    pub async fn send_frame(&mut self, frame: Message) {
        self.socket.send(frame).await.expect("sent");
    }

    /// As [`RawRunner::send_frame`]; answers whether the gateway took it all.
    pub async fn send_frame_or_break(&mut self, frame: Message) -> bool {
        self.socket.send(frame).await.is_ok()
    }

    pub async fn kv(&mut self, life: &Checkpoint, request_id: u32, request: KvRequest) {
        let actor_id = life.actor_id.clone();
        self.send(ToServer::Kv { actor_id, request_id, request }).await;
    }

    pub async fn kv_answer(&mut self) -> (u32, KvResponse) {
        self.expect(|message| match message {
            ToClient::Kv { request_id, response } => Some((*request_id, response.clone())),
            _ => None,
        })
        .await
    }

    /// The next message but pings, which are answered.
    pub async fn next(&mut self) -> ToClient {
        if !self.kept.is_empty() {
            return self.kept.remove(0);
        }
        self.receive().await
    }

    async fn receive(&mut self) -> ToClient {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            match frame.expect("open").expect("readable") {
                Message::Binary(frame) => match ToClient::decode(frame, self.version).expect("valid") {
                    ToClient::Ping { ts } => self.send(ToServer::Pong { ts }).await,
                    message => return message,
                },
                Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next message that `pick` picks; others are kept.
    pub async fn expect<T>(&mut self, mut pick: impl FnMut(&ToClient) -> Option<T>) -> T {
        if let Some(place) = self.kept.iter().position(|message| pick(message).is_some()) {
            let message = self.kept.remove(place);
            return pick(&message).expect("picked before");
        }
        loop {
            let message = self.receive().await;
            match pick(&message) {
                Some(picked) => return picked,
                None => self.kept.push(message),
            }
        }
    }

    /// The next commands.
    pub async fn commands(&mut self) -> Vec<CommandWrapper> {
        self.expect(|message| match message {
            ToClient::Commands(commands) => Some(commands.clone()),
            _ => None,
        })
        .await
    }

    /// The next message of a stream.
    pub async fn tunnel(&mut self) -> (MessageId, ToClientTunnel) {
        self.expect(|message| match message {
            ToClient::Tunnel { id, message } => Some((*id, message.clone())),
            _ => None,
        })
        .await
    }

    pub async fn event(&mut self, life: &Checkpoint, index: i64, event: Event) {
        let checkpoint = Checkpoint { index, ..life.clone() };
        self.send(ToServer::Events(vec![EventWrapper { checkpoint, event }])).await;
    }

    pub async fn answer(&mut self, id: MessageId, message: ToServerTunnel) {
        self.send(ToServer::Tunnel { id, message }).await;
    }

    /// Whether the connection ends without another message.
    pub async fn is_gone(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("an end in time");
        !matches!(frame, Some(Ok(Message::Binary(_))))
    }

    /// How the gateway closes the connection; other messages are passed over.
    pub async fn closed(&mut self) -> Closed {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a close in time");
            match frame.expect("a close").expect("readable") {
                Message::Close(Some(frame)) => {
                    let reason = frame.reason.split('#').next().unwrap_or_default().to_owned();
                    assert!(frame.reason.contains('#'), "no ray in {}", frame.reason);
                    return Closed { code: frame.code.into(), reason };
                }
                Message::Close(None) => panic!("no reason"),
                _ => {}
            }
        }
    }
}

/// A whole response.
pub fn response(status: u16, body: &'static str) -> ToServerTunnel {
    ToServerTunnel::ResponseStart {
        status,
        headers: vec![("content-type".into(), "text/plain".into())],
        body: Some(Bytes::from_static(body.as_bytes())),
        stream: false,
    }
}

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
