//! What a user's program would be: plain HTTP and WebSocket calls against a gateway's public address.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::protocol::WebSocketConfig};

use crate::process::poll;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Calls one gateway; every call has its own connection and a deadline, and never retries.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    port: u16,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Client {
    pub fn new(port: u16) -> Self {
        Self { port }
    }

    /// One exchange; the error is the network's, in words.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let exchange = async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await.map_err(|e| format!("connect: {e}"))?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
            let connection = tokio::spawn(connection);
            let method = Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?;
            let mut request =
                Request::builder().method(method).uri(path).header("host", format!("127.0.0.1:{}", self.port));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Full::new(body.into())).map_err(|e| e.to_string())?;
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let (parts, body) = response.into_parts();
            let body =
                body.collect().await.map_err(|e| format!("{} with a broken body: {e}", parts.status))?.to_bytes();
            connection.abort();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        timeout(CALL_LIMIT, exchange).await.unwrap_or_else(|_| Err(format!("no answer to {path} in {CALL_LIMIT:?}")))
    }

    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        self.call("GET", path, &[], "").await
    }

    /// A JSON body on the public API.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> Result<Answer, String> {
        self.call(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Creates the test actor and gives its id.
    pub async fn create(&self, pool: &str, key: &str, crash_policy: &str) -> String {
        self.create_named("counter", pool, key, crash_policy).await
    }

    /// Creates an actor of this name and gives its id.
    pub async fn create_named(&self, name: &str, pool: &str, key: &str, crash_policy: &str) -> String {
        let body = json!({
            "name": name, "key": key, "runner_name_selector": pool, "crash_policy": crash_policy, "input": "aGVsbG8=",
        });
        let answer = self.send("POST", "/actors?namespace=default", body).await.expect("the gateway answers a create");
        assert_eq!(answer.status, 200, "create: {}", answer.text());
        answer.json()["actor"]["actor_id"].as_str().expect("an actor has an id").to_owned()
    }

    /// The actor as the gateway sees it now; null when it knows no such actor.
    pub async fn actor(&self, id: &str) -> Value {
        let path = format!("/actors?actor_ids={id}&namespace=default");
        self.get(&path).await.expect("the gateway answers").json()["actors"][0].clone()
    }

    /// Waits until a time of the actor (`sleep_ts`, `destroy_ts`, …) is set; gives the actor.
    pub async fn actor_when(&self, id: &str, field: &str, limit: Duration) -> Value {
        let set = poll(limit, || async { Some(self.actor(id).await).filter(|actor| actor[field].is_number()) }).await;
        match set {
            Some(actor) => actor,
            None => panic!("no {field} within {limit:?}: {}", self.actor(id).await),
        }
    }

    /// A request to the actor; anything but an answer of the actor with 2xx fails the test.
    pub async fn ask(&self, id: &str, path: &str) -> Answer {
        let answer = self.get(&format!("/gateway/{id}{path}")).await;
        let answer = answer.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert!((200..300).contains(&answer.status), "GET {path}: {} {}", answer.status, answer.text());
        answer
    }

    /// The answer of a request to the actor as a number: what the counter says.
    pub async fn count(&self, id: &str, path: &str) -> u64 {
        let text = self.ask(id, path).await.text();
        text.parse().unwrap_or_else(|_| panic!("GET {path}: not a count: {text:?}"))
    }

    /// A WebSocket to the actor.
    pub async fn socket(&self, id: &str, path: &str) -> Socket {
        let url = format!("ws://127.0.0.1:{}/gateway/{id}{path}", self.port);
        let mut request =
            tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(url).expect("a URL");
        // The gateway always answers with this subprotocol, so a client has to offer it.
        request.headers_mut().insert("sec-websocket-protocol", "rivet".parse().expect("a header value"));
        let config = WebSocketConfig::default().max_frame_size(Some(64 << 20)).max_message_size(Some(64 << 20));
        let connect = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (socket, _) =
            timeout(CALL_LIMIT, connect).await.expect("an upgrade in time").expect("the gateway upgrades");
        socket
    }
}

/// Longer than the gateway's own longest wait for an actor to get ready (30 s), so its refusal is seen, not ours.
const CALL_LIMIT: Duration = Duration::from_secs(40);
