//! The actor API over its real sockets, with a runner played by the test: a map that answers storage requests.
#![cfg(feature = "daemon")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use greenroom::actor::{ActorKey, StartReason};
use greenroom::api::Api;
use greenroom::host::{ActorContext, Call, KvError, StartActor};
use greenroom::protocol::{KvEntryMetadata, KvListQuery, KvRequest, KvResponse};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

#[tokio::test]
async fn an_actor_learns_who_it_is_and_what_it_was_given() {
    let stage = Stage::start().await;
    let (status, body) = stage.call("GET", "/v1/actor", b"").await;
    assert_eq!(status, 200);
    let actor: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(actor["id"], "actor-1");
    assert_eq!(actor["generation"], 3);
    assert_eq!(actor["key"], "room/1");
    assert_eq!(actor["start_reason"], "wake");
    assert_eq!(stage.call("GET", "/v1/input", b"").await, (200, b"\x00input".to_vec()));
}

#[tokio::test]
async fn values_are_raw_bytes_under_any_key() {
    let stage = Stage::start().await;
    for path in ["/v1/kv/plain", "/v1/kv/a%2Fb", "/v1/kv/a/c", "/v1/kv/%ff%00", "/v1/kv/", "/v1/kv/_wA?enc=b64"] {
        let value = format!("\u{1F680} {path}");
        assert_eq!(stage.call("GET", path, b"").await.0, 404, "{path}");
        assert_eq!(stage.call("PUT", path, value.as_bytes()).await.0, 204, "{path}");
        assert_eq!(stage.call("GET", path, b"").await, (200, value.into_bytes()), "{path}");
        assert_eq!(stage.call("DELETE", path, b"").await.0, 204, "{path}");
        assert_eq!(stage.call("GET", path, b"").await.0, 404, "{path}");
    }
    // The same key in two spellings.
    stage.call("PUT", "/v1/kv/%ff%00", b"1").await;
    assert_eq!(stage.call("GET", "/v1/kv/_wA?enc=b64", b"").await, (200, b"1".to_vec()));
    stage.call("DELETE", "/v1/kv", b"").await;
    assert_eq!(stage.call("GET", "/v1/kv/%ff%00", b"").await.0, 404);
}

#[tokio::test]
async fn lists_and_batches_speak_base64url() {
    let stage = Stage::start().await;
    let put = br#"{"put":[["YQ","MQ"],["Yg==","Mg=="],["_w","Mw"]]}"#;
    assert_eq!(stage.call("POST", "/v1/kv:batch", put).await, (200, b"{}".to_vec()));
    let keys = |body: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let entries = body["entries"].as_array().expect("entries").clone();
        entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&stage.call("GET", "/v1/kv", b"").await.1), ["YQ", "Yg", "_w"]);
    assert_eq!(keys(&stage.call("GET", "/v1/kv?reverse=true&limit=2", b"").await.1), ["_w", "Yg"]);
    assert_eq!(keys(&stage.call("GET", "/v1/kv?prefix=%ff", b"").await.1), ["_w"]);
    assert_eq!(keys(&stage.call("GET", "/v1/kv?start=a&end=b", b"").await.1), ["YQ"]);
    assert_eq!(keys(&stage.call("GET", "/v1/kv?start=Yg&enc=b64", b"").await.1), ["Yg", "_w"]);
    assert_eq!(keys(&stage.call("POST", "/v1/kv:batch", br#"{"get":["Yg","eno"]}"#).await.1), ["Yg"]);
    assert_eq!(stage.call("POST", "/v1/kv:batch", br#"{"delete_range":["YQ","Yg"]}"#).await.0, 200);
    assert_eq!(stage.call("POST", "/v1/kv:batch", br#"{"delete":["_w"]}"#).await.0, 200);
    assert_eq!(keys(&stage.call("GET", "/v1/kv", b"").await.1), ["Yg"]);
}

#[tokio::test]
async fn the_daemons_own_keys_are_not_there_for_actors() {
    let stage = Stage::start().await;
    let note = Bytes::from_static(b"\0greenroom/1/e/a\x01tick");
    stage.stored.lock().expect("no panic").insert(note.clone(), "note".into());
    assert_eq!(stage.call("PUT", "/v1/kv/mine", b"1").await.0, 204);
    assert_eq!(stage.call("PUT", "/v1/kv/%00", b"1").await.0, 204);
    assert_eq!(stage.call("GET", "/v1/kv/%00greenroom%2f1%2fe%2fa%01tick", b"").await.0, 404);
    for (method, path, body) in [
        ("PUT", "/v1/kv/%00greenroom%2f1%2fx", &b"1"[..]),
        ("DELETE", "/v1/kv/%00greenroom%2f", b""),
        ("POST", "/v1/kv:batch", br#"{"put":[["YQ","MQ"],["AGdyZWVucm9vbS8x","MQ"]]}"#),
        ("POST", "/v1/kv:batch", br#"{"delete":["AGdyZWVucm9vbS8x"]}"#),
    ] {
        let (status, answer) = stage.call(method, path, body).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(status == 403 && answer.contains("reserved_key"), "{method} {path}: {status} {answer}");
    }
    for (path, keys) in [
        ("/v1/kv", &["AA", "bWluZQ"][..]),
        ("/v1/kv?limit=1", &["AA"]),
        ("/v1/kv?limit=1&reverse=true", &["bWluZQ"]),
        ("/v1/kv?prefix=%00", &["AA"]),
        ("/v1/kv?prefix=%00greenroom", &[]),
        ("/v1/kv?start=%00g&end=z", &["bWluZQ"]),
    ] {
        let (_, answer) = stage.call("GET", path, b"").await;
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        let found: Vec<_> = answer["entries"].as_array().expect("entries").iter().map(|entry| &entry["key"]).collect();
        assert_eq!(found, keys, "{path}");
    }
    assert_eq!(stage.call("POST", "/v1/kv:batch", br#"{"delete_range":["AA","eg"]}"#).await.0, 200);
    assert_eq!(stage.stored.lock().expect("no panic").keys().collect::<Vec<_>>(), [&note]);
    assert_eq!(stage.call("PUT", "/v1/kv/mine", b"1").await.0, 204);
    assert_eq!(stage.call("DELETE", "/v1/kv", b"").await.0, 204);
    assert_eq!(stage.stored.lock().expect("no panic").keys().collect::<Vec<_>>(), [&note]);
}

#[tokio::test]
async fn mistakes_are_told_apart_and_change_nothing() {
    let stage = Stage::start().await;
    let large = vec![b'x'; 5 * 1024 * 1024];
    for (method, path, body, status, code) in [
        ("POST", "/v1/kv:batch", &b"{}"[..], 400, "bad_request"),
        ("POST", "/v1/kv:batch", br#"{"get":[],"put":[]}"#, 400, "bad_request"),
        ("POST", "/v1/kv:batch", br#"{"get":["not base64!"]}"#, 400, "bad_request"),
        ("POST", "/v1/kv:batch", br#"{"put":[["YQ"]]}"#, 400, "bad_request"),
        ("POST", "/v1/kv:batch", b"nonsense", 400, "bad_request"),
        ("GET", "/v1/kv?limit=many", b"", 400, "bad_request"),
        ("GET", "/v1/kv?prefixx=a", b"", 400, "bad_request"),
        ("DELETE", "/v1/kv?prefix=a", b"", 400, "bad_request"),
        ("PUT", "/v1/kv/large", &large, 413, "too_large"),
        ("PUT", "/v1/kv/refused", b"refuse me", 400, "refused"),
        ("PUT", "/v1/kv/unknown", b"outcome unknown", 504, "outcome_unknown"),
        ("PUT", "/v1/kv/away", b"gateway away", 503, "gateway_away"),
        ("POST", "/v1/actor", b"", 405, "method_not_allowed"),
        ("GET", "/v2", b"", 404, "no_such_route"),
        ("GET", "/v1/alarms", b"", 409, "not_served"),
        ("PUT", "/v1/alarms/a", b"{}", 400, "bad_request"),
        ("PUT", "/v1/alarms/a", br#"{"in_ms":1,"at":1}"#, 400, "bad_request"),
        ("PUT", "/v1/alarms/a", br#"{"in_ms":1,"every":1}"#, 400, "bad_request"),
        ("PUT", "/v1/keep-awake/a?ttl_ms=9999999", b"", 400, "bad_request"),
        ("GET", "/v1/next", b"", 409, "not_pull"),
        ("POST", "/v1/reply/x", b"", 400, "bad_request"),
        ("POST", "/v1/jobs/1/cancel", b"", 501, "not_built"),
    ] {
        let (found, answer) = stage.call(method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {}", String::from_utf8_lossy(&answer));
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["error"]["code"], code, "{method} {path}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

#[tokio::test]
async fn a_token_opens_its_own_life_and_only_while_it_lasts() {
    let stage = Stage::start().await;
    for token in [None, Some("nonsense"), Some("")] {
        assert_eq!(stage.call_as(token, "GET", "/v1/actor", b"").await.0, 401);
        assert_eq!(stage.call_as(token, "GET", "/v1/alarms", b"").await.0, 401);
    }
    let other = stage.life("actor-2", 0);
    let (_, body) = stage.call_as(Some(other.expose_secret()), "GET", "/v1/actor", b"").await;
    assert!(String::from_utf8_lossy(&body).contains("actor-2"));
    stage.api.doors().tokens.revoke(&other);
    let (status, body) = stage.call_as(Some(other.expose_secret()), "PUT", "/v1/kv/a", b"1").await;
    assert_eq!(status, 410);
    assert!(String::from_utf8_lossy(&body).contains("stale_generation"));
    assert_eq!(stage.call("GET", "/v1/kv/a", b"").await.0, 404);
}

#[tokio::test]
async fn a_lease_is_seen_until_it_is_given_back() {
    let stage = Stage::start().await;
    let reasons = async || {
        let (_, body) = stage.call("GET", "/v1/actor", b"").await;
        let actor: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let reasons = actor["awake_because"].as_array().expect("a list").clone();
        reasons.iter().map(|reason| reason["reason"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(reasons().await, ["never_sleeps"]);
    assert_eq!(stage.call("PUT", "/v1/keep-awake/upload", b"").await.0, 204);
    // Both sockets answer alike, so the time that is left is not looked at twice.
    let (_, body) = stage.call_unix("GET", "/v1/actor").await;
    assert!(String::from_utf8_lossy(&body).contains(r#""name":"upload","reason":"keep_awake""#));
    assert_eq!(stage.call("DELETE", "/v1/keep-awake/upload", b"").await.0, 204);
    assert_eq!(reasons().await, ["never_sleeps"]);
}

#[tokio::test]
async fn sleep_and_destroy_are_passed_on() {
    let mut stage = Stage::start().await;
    assert_eq!(stage.call("POST", "/v1/sleep", b"").await.0, 202);
    assert_eq!(stage.call("POST", "/v1/destroy", b"").await.0, 202);
    assert_eq!(stage.wishes.recv().await, Some("sleep"));
    assert_eq!(stage.wishes.recv().await, Some("destroy"));
}

#[tokio::test]
async fn the_unix_socket_is_private_replaced_when_stale_and_never_taken_from_another() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale socket"));
    let first = Api::start(loopback(), dir.path()).await.expect("serves");
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = Api::start(loopback(), dir.path()).await.expect_err("in use");
    assert!(refused.to_string().contains("--runtime-dir"), "{refused}");
    drop(first);
    assert!(!path.exists());
}

type Stored = Arc<Mutex<BTreeMap<Bytes, Bytes>>>;

struct Stage {
    api: Api,
    token: SecretString,
    calls: mpsc::Sender<Call>,
    wishes: mpsc::UnboundedReceiver<&'static str>,
    stored: Stored,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let api = Api::start(loopback(), dir.path()).await.expect("serves");
        let (calls, inbox) = mpsc::channel(16);
        let (wish, wishes) = mpsc::unbounded_channel();
        let stored = Stored::default();
        tokio::spawn(play_runner(inbox, wish, stored.clone()));
        let mut stage = Stage { api, token: String::new().into(), calls, wishes, stored, _dir: dir };
        stage.token = stage.life("actor-1", 3);
        stage
    }

    fn life(&self, id: &str, generation: u32) -> SecretString {
        let start = StartActor {
            key: ActorKey::new(id, generation),
            name: "counter".into(),
            actor_key: Some("room/1".into()),
            create_ts: 1,
            input: Some(Bytes::from_static(b"\x00input")),
            reason: StartReason::Wake,
            hibernating: Vec::new(),
        };
        self.api.doors().tokens.issue(ActorContext::new(Arc::new(start), self.calls.clone()))
    }

    async fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.call_as(Some(self.token.expose_secret()), method, path, body).await
    }

    async fn call_unix(&self, method: &str, path: &str) -> (u16, Vec<u8>) {
        let stream = unix(&self.api.doors().unix).await;
        exchange(stream, Some(self.token.expose_secret()), method, path, b"").await
    }

    /// The same call over both sockets has the same answer; the second one is given.
    async fn call_as(&self, token: Option<&str>, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let reads = method == "GET";
        let unix = exchange(unix(&self.api.doors().unix).await, token, method, path, body);
        if !reads {
            return unix.await;
        }
        let unix = unix.await;
        let tcp = TcpStream::connect(self.api.doors().tcp).await.expect("connects");
        let tcp = exchange(tcp, token, method, path, body).await;
        assert_eq!(unix, tcp);
        tcp
    }
}

async fn unix(path: &Path) -> UnixStream {
    UnixStream::connect(path).await.expect("connects")
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let token = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: actor-api\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n{token}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    // A server that refuses a large body does not read all of it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        answer.extend_from_slice(&piece[..length]);
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let status = std::str::from_utf8(&answer[9..12]).expect("a status").parse().expect("a number");
    (status, answer[end + 4..].to_vec())
}

/// Answers like a gateway with a map; some values ask for an error.
async fn play_runner(mut calls: mpsc::Receiver<Call>, wishes: mpsc::UnboundedSender<&'static str>, stored: Stored) {
    while let Some(call) = calls.recv().await {
        match call {
            Call::Kv { request, reply, .. } => {
                let _ = reply.send(answer(&mut stored.lock().expect("no panic"), request));
            }
            Call::Sleep(_) => wishes.send("sleep").expect("somebody listens"),
            Call::Destroy(_) => wishes.send("destroy").expect("somebody listens"),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn answer(stored: &mut BTreeMap<Bytes, Bytes>, request: KvRequest) -> Result<KvResponse, KvError> {
    let metadata = |count: usize| vec![KvEntryMetadata { version: Bytes::new(), update_ts: 5 }; count];
    match request {
        KvRequest::Get { keys } => {
            let keys: Vec<Bytes> = keys.into_iter().filter(|key| stored.contains_key(key)).collect();
            let values = keys.iter().map(|key| stored[key].clone()).collect();
            Ok(KvResponse::Get { metadata: metadata(keys.len()), keys, values })
        }
        KvRequest::Put { values, .. } if values == ["refuse me"] => {
            Ok(KvResponse::Error { message: "no, because".into() })
        }
        KvRequest::Put { values, .. } if values == ["outcome unknown"] => Err(KvError::OutcomeUnknown),
        KvRequest::Put { values, .. } if values == ["gateway away"] => Err(KvError::Unavailable),
        KvRequest::Put { keys, values } => {
            stored.extend(keys.into_iter().zip(values));
            Ok(KvResponse::Put)
        }
        KvRequest::Delete { keys } => {
            stored.retain(|key, _| !keys.contains(key));
            Ok(KvResponse::Delete)
        }
        KvRequest::DeleteRange { start, end } => {
            stored.retain(|key, _| *key < start || *key >= end);
            Ok(KvResponse::Delete)
        }
        KvRequest::Drop => {
            stored.clear();
            Ok(KvResponse::Drop)
        }
        KvRequest::List { query, reverse, limit } => {
            let within = |key: &Bytes| match &query {
                KvListQuery::All => true,
                KvListQuery::Prefix { key: prefix } => key.starts_with(prefix),
                KvListQuery::Range { start, end, exclusive } => {
                    key >= start && (key < end || (key == end && !exclusive))
                }
            };
            let mut keys: Vec<Bytes> = stored.keys().filter(|key| within(key)).cloned().collect();
            if reverse == Some(true) {
                keys.reverse();
            }
            keys.truncate(limit.map_or(usize::MAX, |limit| usize::try_from(limit).expect("small")));
            let values = keys.iter().map(|key| stored[key].clone()).collect();
            Ok(KvResponse::List { metadata: metadata(keys.len()), keys, values })
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
