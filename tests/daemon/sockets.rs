//! What an actor may do with its client sockets over its API (`/v1/ws`), from the call to the other end of the socket.

use std::path::Path;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::http::request;
use crate::process::{Daemon, PATIENCE};

#[tokio::test]
async fn an_actor_lists_its_sockets_and_speaks_to_one_to_some_or_to_all() {
    let stage = Stage::set().await;
    let door = stage.door("events").await;
    assert_eq!(door.get("/v1/ws").await, (200, json!({ "sockets": [] })));
    let mut red = stage.socket("events", "red?since=1").await;
    let (mut first, mut second) = (stage.socket("events", "blue,left").await, stage.socket("events", "blue").await);

    let all = door.sockets("").await;
    let described: Vec<_> = all
        .iter()
        .map(|socket| (&socket["path"], &socket["tags"], &socket["attachment"], &socket["connected"]))
        .collect();
    let (none, yes) = (Value::Null, json!(true));
    let expected =
        [("/blue", json!(["blue"])), ("/blue,left", json!(["blue", "left"])), ("/red?since=1", json!(["red"]))];
    let expected: Vec<_> = expected.map(|(path, tags)| (json!(path), tags)).into();
    assert_eq!(described, expected.iter().map(|(path, tags)| (path, tags, &none, &yes)).collect::<Vec<_>>());
    assert_eq!(door.sockets("?tag=left").await, [all[1].clone()]);
    assert_eq!(door.sockets("?tag=green").await, [] as [Value; 0]);

    // The content type says what a frame is; nothing said is binary.
    let path = format!("/v1/ws/{}", id(&all[2]));
    for (content_type, expected) in [
        ("text/plain; charset=utf-8", Message::text("to you")),
        ("application/json", Message::text("to you")),
        ("application/octet-stream", Message::binary("to you")),
        ("", Message::binary("to you")),
    ] {
        assert_eq!(door.call("POST", &path, content_type, "to you").await, (204, Bytes::new()));
        assert_eq!(heard(&mut red).await, expected);
    }

    // What comes next on a socket shows that nothing meant for others came before.
    let said = async |path: &str, text: &'static str| {
        let (status, answer) = door.call("POST", path, "text/plain", text).await;
        (status, json(&answer))
    };
    assert_eq!(said("/v1/ws:broadcast?tag=blue", "to the blue").await, (200, json!({ "sockets": 2 })));
    assert_eq!(said("/v1/ws:broadcast?tag=green", "to nobody").await, (200, json!({ "sockets": 0 })));
    assert_eq!(said("/v1/ws:broadcast", "to all").await, (200, json!({ "sockets": 3 })));
    for socket in [&mut first, &mut second] {
        assert_eq!(heard(socket).await, Message::text("to the blue"));
    }
    for socket in [&mut red, &mut first, &mut second] {
        assert_eq!(heard(socket).await, Message::text("to all"));
    }
    stage.dev.stop().await;
}

#[tokio::test]
async fn a_closed_socket_is_closed_for_its_client_told_to_the_actor_and_gone_from_the_list() {
    let stage = Stage::set().await;
    let door = stage.door("events").await;
    let mut sockets = Vec::new();
    for (path, query, code, reason) in [
        ("plain", "", 1000, ""),
        ("own", "?code=4001&reason=that%27s%20it", 4001, "that's it"),
        ("away", "?code=1001", 1001, ""),
    ] {
        let mut socket = stage.socket("events", path).await;
        let [listed] = &door.sockets(&format!("?tag={path}")).await[..] else { panic!("not one socket") };
        let path = format!("/v1/ws/{}", id(listed));
        assert_eq!(door.call("DELETE", &format!("{path}{query}"), "", "").await, (204, Bytes::new()));
        let closed = heard(&mut socket).await;
        assert_eq!(closed, Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() })));
        assert_eq!(door.refused("DELETE", &path, "", "").await, (404, "no_such_socket".to_owned()));
        assert_eq!(door.refused("POST", &path, "text/plain", "too late").await, (404, "no_such_socket".to_owned()));
        sockets.push(format!("{} {code} {reason}", id(listed)));
    }
    // One that its client closes is gone as well.
    let mut socket = stage.socket("events", "client").await;
    let [listed] = &door.sockets("").await[..] else { panic!("not one socket") };
    socket.close(Some(CloseFrame { code: 4002.into(), reason: "enough".into() })).await.unwrap();
    sockets.push(format!("{} 4002 enough", id(listed)));
    let told = async { while stage.ask("events", "closes").await != json!(sockets) {} };
    tokio::time::timeout(PATIENCE, told).await.expect("the actor is told of each close, once");
    assert_eq!(door.sockets("").await, [] as [Value; 0]);
    stage.dev.stop().await;
}

#[tokio::test]
async fn an_attachment_stays_with_its_socket_while_the_actor_sleeps() {
    let mut stage = Stage::set().await;
    let door = stage.door("events").await;
    let mut socket = stage.socket("events", "red").await;
    let mut other = stage.socket("events", "blue").await;
    let [listed] = &door.sockets("?tag=red").await[..] else { panic!("not one socket") };
    let path = format!("/v1/ws/{}/attachment", id(listed));
    assert_eq!(door.call("GET", &path, "", "").await, (200, Bytes::new()));
    let bytes: Vec<u8> = (0..16 * 1024).map(|place| (place % 256) as u8).collect();
    for attachment in ["first".as_bytes(), &bytes] {
        assert_eq!(door.call("PUT", &path, "", attachment.to_vec()).await, (204, Bytes::new()));
        assert_eq!(door.call("GET", &path, "", "").await, (200, Bytes::copy_from_slice(attachment)));
    }

    assert_eq!(door.call("POST", "/v1/sleep", "", "").await.0, 202);
    stage.dev.find("actor stopped").await;
    socket.send(Message::text("wake up")).await.unwrap();
    assert_eq!(heard(&mut socket).await, Message::text("1:wake up"));
    assert_eq!(door.refused("GET", &path, "", "").await, (410, "stale_generation".to_owned()));
    let door = stage.door("events").await;
    assert_eq!(door.call("GET", &path, "", "").await, (200, Bytes::from(bytes.clone())));
    let listed = door.sockets("").await;
    assert_eq!(listed[0]["attachment"], Value::Null, "{}", listed[0]["path"]);
    assert_eq!(listed[1]["attachment"], json!(BASE64URL_NOPAD.encode(&bytes)));
    // Its tags stayed too, and both sockets are open.
    assert_eq!(door.call("POST", "/v1/ws:broadcast?tag=blue", "text/plain", "awake").await.0, 200);
    assert_eq!(heard(&mut other).await, Message::text("awake"));

    assert_eq!(door.call("PUT", &path, "", "").await, (204, Bytes::new()));
    assert_eq!(door.sockets("?tag=red").await[0]["attachment"], Value::Null);
    stage.dev.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_with_a_socket_is_refused_with_the_reason() {
    let stage = Stage::set().await;
    let door = stage.door("events").await;
    let mut socket = stage.socket("events", "red").await;
    let path = format!("/v1/ws/{}", id(&door.sockets("").await[0]));
    let attachment = format!("{path}/attachment");
    let with = |query: &str| format!("{path}?{query}");
    for (method, path, content_type, body, status, code) in [
        ("POST", "/v1/ws/0011223344556677", "", Bytes::new(), 404, "no_such_socket"),
        ("POST", "/v1/ws/nonsense", "", Bytes::new(), 404, "no_such_socket"),
        ("GET", "/v1/ws/0011223344556677/attachment", "", Bytes::new(), 404, "no_such_socket"),
        ("PUT", "/v1/ws/0011223344556677/attachment", "", Bytes::new(), 404, "no_such_socket"),
        ("DELETE", "/v1/ws/0011223344556677", "", Bytes::new(), 404, "no_such_socket"),
        ("POST", &path, "text/plain", Bytes::from_static(b"\xff"), 400, "bad_request"),
        ("POST", "/v1/ws:broadcast", "application/json", Bytes::from_static(b"\xff"), 400, "bad_request"),
        ("POST", &path, "", vec![0; (20 << 20) + 1].into(), 413, "too_large"),
        ("PUT", &attachment, "", vec![0; (16 << 10) + 1].into(), 413, "too_large"),
        ("DELETE", &with("code=999"), "", Bytes::new(), 400, "bad_request"),
        ("DELETE", &with("code=1005"), "", Bytes::new(), 400, "bad_request"),
        ("DELETE", &with("code=5000"), "", Bytes::new(), 400, "bad_request"),
        ("DELETE", &with("code=soon"), "", Bytes::new(), 400, "bad_request"),
        ("DELETE", &with("why=enough"), "", Bytes::new(), 400, "bad_request"),
        ("GET", "/v1/ws?tags=red", "", Bytes::new(), 400, "bad_request"),
        ("PUT", "/v1/ws", "", Bytes::new(), 405, "method_not_allowed"),
    ] {
        assert_eq!(door.refused(method, path, content_type, body).await, (status, code.to_owned()), "{method} {path}");
    }
    // None of it did anything to the socket.
    assert_eq!(door.call("POST", &path, "text/plain", "still here").await.0, 204);
    assert_eq!(heard(&mut socket).await, Message::text("still here"));

    let proxied = stage.door("proxied").await;
    assert_eq!(proxied.refused("GET", "/v1/ws", "", "").await, (409, "no_socket_events".to_owned()));
    assert_eq!(proxied.refused("POST", "/v1/ws:broadcast", "", "").await, (409, "no_socket_events".to_owned()));
    stage.dev.stop().await;
}

/// `greenroom dev` with an actor that takes its sockets as events, and one that does not.
struct Stage {
    dev: Daemon,
    /// The addresses of the actors, by name.
    actors: Vec<(&'static str, String)>,
}

impl Stage {
    async fn set() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (script, file) = (data.path().join("actor.py"), data.path().join("actors.toml"));
        std::fs::write(&script, ACTOR).unwrap();
        std::fs::write(&file, actors_file(&script)).unwrap();
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--admin", "off", "--actors", file.to_str().unwrap()];
        let mut dev = Daemon::start(data, &arguments);
        let mut actors = Vec::new();
        for name in ["events", "proxied"] {
            let url = dev.line("curl http://").await;
            actors.push((name, url.strip_prefix("curl ").unwrap().to_owned()));
        }
        Stage { dev, actors }
    }

    fn url(&self, actor: &str, path: &str) -> String {
        let (_, url) = self.actors.iter().find(|(name, _)| *name == actor).unwrap();
        format!("{url}{path}")
    }

    /// The actor's own answer to a request.
    async fn ask(&self, actor: &str, path: &str) -> Value {
        let (status, answer) = request("GET", &self.url(actor, path), &[], Bytes::new()).await;
        assert_eq!(status, 200, "{answer:?}");
        json(&answer)
    }

    /// What the actor's process has to call its API; it is the test that calls.
    async fn door(&self, actor: &str) -> Door {
        let door = self.ask(actor, "door").await;
        Door { api: door["api"].as_str().unwrap().to_owned(), token: door["token"].as_str().unwrap().to_owned() }
    }

    /// A client's socket that the actor has taken.
    async fn socket(&self, actor: &str, path: &str) -> Socket {
        let url = self.url(actor, path).replacen("http", "ws", 1);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        assert_eq!(heard(&mut socket).await, Message::text("hello"));
        socket
    }
}

/// The API of one life of an actor.
struct Door {
    api: String,
    token: String,
}

impl Door {
    /// Status and body of the answer.
    async fn call(&self, method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> (u16, Bytes) {
        let authorization = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", authorization.as_str())];
        if !content_type.is_empty() {
            headers.push(("content-type", content_type));
        }
        request(method, &format!("{}{path}", self.api), &headers, body.into()).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, answer) = self.call("GET", path, "", "").await;
        (status, json(&answer))
    }

    /// The sockets listed for a query, by path.
    async fn sockets(&self, query: &str) -> Vec<Value> {
        let (status, mut listed) = self.get(&format!("/v1/ws{query}")).await;
        assert_eq!(status, 200, "{listed}");
        let Value::Array(mut sockets) = listed["sockets"].take() else { panic!("no list: {listed}") };
        sockets.sort_by_key(|socket| socket["path"].as_str().unwrap().to_owned());
        sockets
    }

    /// Status and code of a refusal, which has words for a person, too.
    async fn refused(&self, method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> (u16, String) {
        let (status, answer) = self.call(method, path, content_type, body).await;
        let error = &json(&answer)["error"];
        assert!(!error["message"].as_str().unwrap().is_empty() && error.get("hint").is_some(), "{error}");
        (status, error["code"].as_str().unwrap().to_owned())
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn heard(socket: &mut Socket) -> Message {
    let next = tokio::time::timeout(PATIENCE, socket.next()).await;
    next.expect("a frame in time").expect("the socket goes on").unwrap()
}

fn id(socket: &Value) -> &str {
    socket["id"].as_str().unwrap()
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

fn actors_file(script: &Path) -> String {
    let actor = format!("command = [\"python3\", {script:?}]\nstart_timeout = \"29s\"\n");
    format!("[actors.events]\n{actor}\n[actors.proxied]\nwebsocket = \"proxy\"\n{actor}")
}

/// An actor that gives away the way to its API, takes every socket with the tags that its path names, answers each frame
/// with its generation before it, and remembers the closes it was told.
const ACTOR: &str = r#"
import json, os, socketserver
from http.server import BaseHTTPRequestHandler

closes = []

class Actor(BaseHTTPRequestHandler):
    def do_GET(self):
        door = {"api": os.environ["ACTOR_API"], "token": open(os.environ["ACTOR_TOKEN_FILE"]).read().strip()}
        self.answer(200, json.dumps(door if self.path == "/door" else closes))
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        event, path = self.headers["actor-event"], self.headers.get("actor-ws-path", "")
        if event == "open":
            self.answer(200, "hello", [("actor-ws-tags", path.lstrip("/").split("?")[0])])
        elif event == "message":
            self.answer(200, os.environ["ACTOR_GENERATION"] + ":" + body)
        elif event == "close":
            told = [self.headers["actor-ws-" + name] or "" for name in ("id", "code", "reason")]
            closes.append(" ".join(told))
            self.answer(200, "")
        else:
            self.answer(404, "")
    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in [("content-type", "text/plain"), ("content-length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())
    def address_string(self):
        return ""
    def log_message(self, *_):
        pass

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

Server(os.environ["ACTOR_SOCKET"], Actor).serve_forever()
"#;
