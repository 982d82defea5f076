//! Calls of actors to servers outside: what passes, what is refused, and which backend the next call asks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use greenroom::actor::{ActorKey, StartReason};
use greenroom::api::{Api, Services};
use greenroom::config::{EgressDefinition, SecretFile};
use greenroom::egress::{Egress, Usage};
use greenroom::host::{ActorContext, Call, KvError, StartActor};
use greenroom::protocol::{KvRequest, KvResponse};
use greenroom::telemetry::metrics;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::double::Pool;
use crate::process::Daemon;

#[tokio::test]
async fn the_credential_goes_out_and_the_actors_own_token_does_not() {
    let stage = Stage::start(|_| {}).await;
    let (status, headers, body) = stage.call("POST", "/v1/egress/llm/backend/a/k?q=1", b"x").await;
    assert_eq!((status, &body[..]), (200, &br#"{"by":"a"}"#[..]));
    let asked = stage.pool.last();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/v1/backend/a/k?q=1"));
    assert_eq!(asked.header("authorization"), Some("Bearer canary-1"));
    assert_eq!(asked.header("content-length"), Some("1"));
    assert_eq!(asked.header("host"), Some(stage.pool.address.to_string().as_str()));
    assert!(!asked.headers.iter().any(|(name, _)| name.starts_with("actor-")), "{asked:?}");
    assert!(headers.get("x-hop").is_none());
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);

    stage.write_credential("canary-2");
    stage.call("GET", "/v1/egress/llm/x", b"").await;
    assert_eq!(stage.pool.last().header("authorization"), Some("Bearer canary-2"));
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    let stage = Stage::start(|_| {}).await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let head = format!(
        "POST /v1/egress/llm/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        stage.token.expose_secret()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    for piece in ["one", "two", "six"] {
        stream.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
        // Each comes back before the next is sent.
        while !read.windows(3).any(|window| window == piece.as_bytes()) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    while !read.ends_with(b"0\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
    }
    let usage = stage.egress.usage().into_iter().find(|(name, _)| name == "llm").unwrap().1;
    assert_eq!(usage, Usage { requests: 1, errors: 0, bytes_sent: 9, bytes_received: 9 });
}

#[tokio::test]
async fn refusals_are_told_apart_and_never_show_the_credential() {
    let stage = Stage::start(|llm| {
        llm.max_body = 1000;
        llm.timeout = Duration::from_millis(200);
    })
    .await;
    for (path, body, status, code) in [
        ("/v1/egress/secret/x", &b""[..], 403, "egress_not_allowed"),
        ("/v1/egress/nowhere/x", b"", 403, "egress_not_allowed"),
        ("/v1/egress/llm/../admin", b"", 400, "egress_path"),
        ("/v1/egress/llm/%2e%2e/admin", b"", 400, "egress_path"),
        ("/v1/egress/llm/x", &[b'x'; 1001], 413, "egress_too_large"),
        ("/v1/egress/llm/redirect", b"", 502, "egress_redirect"),
        ("/v1/egress/llm/silent", b"", 504, "egress_timeout"),
        ("/v1/egress/closed/x", b"", 502, "egress_unreachable"),
        ("/v1/egress/metadata/latest", b"", 403, "egress_link_local"),
        ("/v1/egress/nokey/x", b"", 502, "egress_credential"),
    ] {
        let (found, _, answer) = stage.call("POST", path, body).await;
        let text = String::from_utf8(answer).unwrap();
        assert_eq!(found, status, "{path}: {text}");
        assert!(!text.contains("canary"), "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["error"]["code"], code, "{path}");
    }
    assert_eq!(stage.call("POST", "/v1/egress/llm/x", &[b'x'; 1000]).await.0, 200);
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit_too() {
    let stage = Stage::start(|llm| llm.max_body = 10).await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let request = format!(
        "POST /v1/egress/llm/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         transfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n",
        stage.token.expose_secret()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("egress_too_large"), "{answer}");
}

#[tokio::test]
async fn a_server_that_falls_silent_and_too_many_calls_end() {
    let stage = Stage::start(|llm| {
        llm.timeout = Duration::from_millis(200);
        llm.max_in_flight = 1;
    })
    .await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let token = stage.token.expose_secret();
    let request = format!("GET /v1/egress/llm/stall HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(7).any(|window| window == b"data: 1") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
    }
    let (status, headers, answer) = stage.call("GET", "/v1/egress/llm/x", b"").await;
    // On a busy machine the silent one may be over already.
    if status != 200 {
        assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "1"));
        assert!(String::from_utf8(answer).unwrap().contains("egress_busy"));
    }
    // It ends without its last chunk.
    while stream.read_buf(&mut read).await.is_ok_and(|length| length > 0) {}
    assert!(!read.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn the_hint_follows_the_backend_that_answered_once_that_is_durable() {
    let stage = Stage::start(|_| {}).await;
    let ask = async |backend: &str| {
        assert_eq!(stage.call("GET", &format!("/v1/egress/llm/backend/{backend}/k-{backend}"), b"").await.0, 200);
        stage.pool.last().header("x-preferred").map(str::to_owned)
    };
    assert_eq!(ask("a").await, None);
    stage.until_stored("a").await;
    assert_eq!(ask("a").await.as_deref(), Some("a"));
    // It was full, and another one answered.
    assert_eq!(ask("b").await.as_deref(), Some("a"));
    stage.until_stored("b").await;
    assert_eq!(stage.egress.sticky_backends()["llm"], BTreeMap::from([("b".to_owned(), 1)]));

    let counted = metrics::runner().encode(metrics::Format::Text);
    assert!(counted.contains("\ngreenroom_backend_switches_total{egress=\"llm\"} "), "{counted}");
    assert!(!counted.contains("\ngreenroom_backend_switches_total{egress=\"llm\"} 0\n"), "{counted}");

    // Writes fail: the hint stays, and each answer tries again.
    *stage.store.failing.lock().unwrap() = Some(KvError::Unavailable);
    let puts = stage.store.puts();
    for tries in 1..4 {
        assert_eq!(ask("c").await.as_deref(), Some("b"));
        stage.until_puts(puts + tries).await;
    }
    *stage.store.failing.lock().unwrap() = None;
    assert_eq!(ask("c").await.as_deref(), Some("b"));
    stage.until_stored("c").await;
    let puts = stage.store.puts();
    for _ in 0..3 {
        assert_eq!(ask("c").await.as_deref(), Some("c"));
    }
    assert_eq!(stage.store.puts(), puts, "unchanged answers write nothing");

    // A job has a record of its own.
    let headers = [("actor-job", "job-1")];
    let (status, ..) = stage.call_with("GET", "/v1/egress/llm/backend/d/k", b"", &headers).await;
    assert_eq!((status, stage.pool.last().header("x-preferred")), (200, None));
    stage.until_stored("d").await;
    assert_eq!(ask("c").await.as_deref(), Some("c"));
    // Another life reads what is stored, and nothing an actor can see.
    let next = stage.life(4);
    stage.call_as(&next, "GET", "/v1/egress/llm/backend/c/k-c", b"", &headers).await;
    assert_eq!(stage.pool.last().header("x-preferred"), Some("d"));
    assert_eq!(stage.call("GET", "/v1/kv", b"").await.2, br#"{"entries":[]}"#);
}

#[tokio::test]
async fn metadata_of_actors_is_merged_and_bounded() {
    let stage = Stage::start(|_| {}).await;
    assert_eq!(stage.call("PATCH", "/v1/metadata", br#"{"model":"m","load":{"now":1}}"#).await.0, 204);
    assert_eq!(stage.call("PATCH", "/v1/metadata", br#"{"model":null,"load":{"avg":2}}"#).await.0, 204);
    assert_eq!(stage.call("GET", "/v1/metadata", b"").await.2, br#"{"load":{"avg":2}}"#);
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(64 * 1024));
    for (body, status, code) in
        [(r#"{"slots":1}"#, 400, "reserved_key"), ("[]", 400, "bad_request"), (&large, 413, "too_large")]
    {
        let (found, _, answer) = stage.call("PATCH", "/v1/metadata", body.as_bytes()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        // Whatever the extractor calls a body of another kind, it is the caller's mistake.
        assert!(found == status || (code == "bad_request" && found == 422), "{found} {answer}");
        assert_eq!(answer["error"]["code"], code);
    }
}

#[tokio::test]
async fn after_a_kill_the_first_call_asks_for_the_last_backend_that_was_durable() {
    let pool = Pool::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("caller.py"), CALLER).unwrap();
    let file = dir.path().join("actors.toml");
    let text = format!(
        "[actors.caller]\ncommand = [\"python3\", \"caller.py\"]\nlisten = \"port\"\negress = [\"llm\"]\n\
         [egress.llm]\nurl = \"http://{}/v1\"\npreferred_backend_header = \"x-preferred\"\n\
         resolved_backend_header = \"x-backend\"\ncache_key_header = \"x-cache-key\"\n",
        pool.address
    );
    std::fs::write(&file, text).unwrap();
    let arguments = ["dev", "--listen=127.0.0.1:0", "--admin=off", "--actors", file.to_str().unwrap()];
    let file_dir = dir;
    let mut data = tempfile::tempdir().unwrap();
    let mut durable: Option<String> = None;
    for round in 0..3 {
        let mut dev = Daemon::start(data, &arguments);
        dev.line("caller").await;
        let url = dev.line("curl ").await.trim_start_matches("curl ").to_owned();
        for backend in [format!("a{round}"), format!("b{round}")] {
            assert_eq!(crate::dev::get(&format!("{url}backend/{backend}/key")).await.0, 200);
            assert_eq!(pool.last().header("x-preferred"), durable.as_deref(), "the last durable backend is the hint");
            let record = dev.record("another backend answers").await;
            assert_eq!((record["new"].as_str(), record["old"].as_str()), (Some(&*backend), durable.as_deref()));
            assert_eq!(record["cache_key"], "key");
            durable = Some(backend);
        }
        // One more whose write the kill may or may not come before: memory is not ahead, so only the log can say.
        assert_eq!(crate::dev::get(&format!("{url}backend/c{round}/key")).await.0, 200);
        dev.signal(Signal::KILL);
        let (rest, kept) = dev.killed().await;
        data = kept;
        let told = rest.iter().any(|record| record["message"] == "another backend answers");
        let mut dev = Daemon::start(data, &arguments);
        dev.line("caller").await;
        let url = dev.line("curl ").await.trim_start_matches("curl ").to_owned();
        assert_eq!(crate::dev::get(&format!("{url}plain")).await.0, 200);
        let hint = pool.last().header("x-preferred").map(str::to_owned);
        let last = Some(format!("c{round}"));
        assert!(hint == last || (hint == durable && !told), "{hint:?} after {durable:?}, {told}");
        durable = hint;
        data = dev.stop().await;
    }
    drop(file_dir);
}

/// An actor that passes every request on to its egress.
const CALLER: &str = r#"
import http.server, os, urllib.request

class Caller(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        request = urllib.request.Request(os.environ["ACTOR_API"] + "/v1/egress/llm" + self.path)
        request.add_header("Authorization", "Bearer " + open(os.environ["ACTOR_TOKEN_FILE"]).read())
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Caller).serve_forever()
"#;

struct Stage {
    api: Api,
    egress: Arc<Egress>,
    pool: Pool,
    store: Arc<Store>,
    calls: mpsc::Sender<Call>,
    token: SecretString,
    dir: tempfile::TempDir,
}

/// A gateway's storage, played by the test.
#[derive(Default)]
struct Store {
    values: Mutex<BTreeMap<Bytes, Bytes>>,
    puts: Mutex<usize>,
    failing: Mutex<Option<KvError>>,
}

impl Stage {
    /// An actor `counter` that may use all but `secret`.
    async fn start(change: impl FnOnce(&mut EgressDefinition)) -> Self {
        let (pool, dir) = (Pool::start().await, tempfile::tempdir().unwrap());
        write_secret(&dir, "credential", "canary-1");
        write_secret(&dir, "nokey", "canary-1");
        let mut llm = definition("llm", &format!("http://{}/v1", pool.address));
        llm.credential = Some(SecretFile::private(dir.path().join("credential")).unwrap());
        llm.preferred_backend_header = Some("x-preferred".parse().unwrap());
        llm.resolved_backend_header = Some("x-backend".parse().unwrap());
        llm.cache_key_header = Some("x-cache-key".parse().unwrap());
        change(&mut llm);
        let mut nokey = definition("nokey", "http://127.0.0.1:1");
        nokey.credential = Some(SecretFile::private(dir.path().join("nokey")).unwrap());
        std::fs::remove_file(dir.path().join("nokey")).unwrap();
        // Bound and dropped: nobody listens there.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let definitions = vec![
            llm,
            nokey,
            definition("closed", &format!("http://{closed}")),
            definition("metadata", "http://[::ffff:169.254.169.254]:80"),
            definition("secret", "http://127.0.0.1:1"),
        ];
        let allowed = ["llm", "nokey", "closed", "metadata", "nowhere"].map(str::to_owned).to_vec();
        let egress = Arc::new(Egress::new(definitions, BTreeMap::from([("counter".to_owned(), allowed)])).unwrap());
        let services = Services { egress: egress.clone(), metadata: Arc::default() };
        let api = Api::start_with(([127, 0, 0, 1], 0).into(), dir.path(), services).await.unwrap();
        let (calls, inbox) = mpsc::channel(16);
        let store = Arc::new(Store::default());
        tokio::spawn(play_runner(inbox, store.clone()));
        let mut stage = Stage { api, egress, pool, store, calls, token: String::new().into(), dir };
        stage.token = stage.life(3);
        stage
    }

    fn life(&self, generation: u32) -> SecretString {
        let start = StartActor {
            key: ActorKey::new("actor-1", generation),
            name: "counter".into(),
            actor_key: None,
            create_ts: 1,
            input: None,
            reason: StartReason::Wake,
            hibernating: Vec::new(),
        };
        self.api.doors().tokens.issue(ActorContext::new(Arc::new(start), self.calls.clone()))
    }

    fn address(&self) -> SocketAddr {
        self.api.doors().tcp
    }

    fn write_credential(&self, text: &str) {
        write_secret(&self.dir, "credential", text);
    }

    async fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, HeaderMap, Vec<u8>) {
        self.call_with(method, path, body, &[("actor-forged", "x")]).await
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> (u16, HeaderMap, Vec<u8>) {
        self.call_as(&self.token, method, path, body, headers).await
    }

    async fn call_as(
        &self,
        token: &SecretString,
        method: &str,
        path: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "actor-api")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", token.expose_secret()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR);
        (status.as_u16(), headers, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    /// Waits until the hint of some scope is this backend, on disk and in memory.
    async fn until_stored(&self, backend: &str) {
        let mut changes = self.egress.watch_backends();
        let stored = changes.wait_for(|_| {
            let backends = self.egress.sticky_backends();
            backends.get("llm").is_some_and(|backends| backends.contains_key(backend))
        });
        tokio::time::timeout(PATIENCE, stored).await.expect("it is stored").unwrap();
        let values = self.store.values.lock().unwrap();
        assert!(values.values().any(|value| String::from_utf8_lossy(value).contains(&format!("\"{backend}\""))));
        assert!(values.keys().all(|key| key.starts_with(b"\0greenroom/1/b/llm")), "{values:?}");
    }

    async fn until_puts(&self, puts: usize) {
        let wait = async {
            while self.store.puts() < puts {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it is tried");
        // The tracker hears of the failure after the storage has said it.
        tokio::task::yield_now().await;
    }
}

impl Store {
    fn puts(&self) -> usize {
        *self.puts.lock().unwrap()
    }

    fn answer(&self, request: KvRequest) -> Result<KvResponse, KvError> {
        let mut values = self.values.lock().unwrap();
        match request {
            KvRequest::Get { keys } => {
                let keys: Vec<Bytes> = keys.into_iter().filter(|key| values.contains_key(key)).collect();
                let found = keys.iter().map(|key| values[key].clone()).collect();
                Ok(KvResponse::Get { keys, values: found, metadata: Vec::new() })
            }
            KvRequest::Put { keys, values: new } => {
                *self.puts.lock().unwrap() += 1;
                if let Some(error) = self.failing.lock().unwrap().clone() {
                    return Err(error);
                }
                values.extend(keys.into_iter().zip(new));
                Ok(KvResponse::Put)
            }
            _ => Ok(KvResponse::List { keys: vec![], values: vec![], metadata: vec![] }),
        }
    }
}

async fn play_runner(mut calls: mpsc::Receiver<Call>, store: Arc<Store>) {
    while let Some(call) = calls.recv().await {
        if let Call::Kv { request, reply, .. } = call {
            let _ = reply.send(store.answer(request));
        }
    }
}

fn definition(name: &str, url: &str) -> EgressDefinition {
    EgressDefinition {
        name: name.to_owned(),
        url: url.parse().unwrap(),
        credential: None,
        preferred_backend_header: None,
        resolved_backend_header: None,
        cache_key_header: None,
        allow_link_local: false,
        timeout: PATIENCE,
        max_body: 1 << 20,
        max_in_flight: 8,
    }
}

fn write_secret(dir: &tempfile::TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Far more than any of this takes; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);
