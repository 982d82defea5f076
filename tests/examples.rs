//! The counters of `examples/`, each run as a process against a stand-in for the actor API.
#![cfg(feature = "daemon")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as RoutePath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn the_node_counter_counts_on_after_a_restart() {
    let command = Command::new("node");
    check(command, &["counter/counter.mjs"], Sockets::Served).await;
}

#[tokio::test]
async fn the_python_counter_counts_on_after_a_restart() {
    let command = Command::new("python3");
    check(command, &["counter/counter.py"], Sockets::Served).await;
}

#[tokio::test]
async fn the_rust_counter_counts_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("counter");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-o"])
        .arg(&program)
        .arg(examples().join("counter.rs"))
        .status()
        .await
        .unwrap();
    assert!(compiled.success());
    check(Command::new(program), &[], Sockets::None).await;
}

/// Whether an example serves WebSockets.
#[derive(PartialEq)]
enum Sockets {
    Served,
    None,
}

async fn check(mut command: Command, arguments: &[&str], sockets: Sockets) {
    let daemon = Daemon::start();
    command.args(arguments).current_dir(examples());

    let first = daemon.run(&mut command).await;
    assert_eq!(daemon.request("GET", "/").await, (200, "1\n".to_owned()));
    assert_eq!(daemon.request("GET", "/?query=1").await, (200, "2\n".to_owned()));
    assert_eq!(daemon.request("POST", "/_actor").await.0, 404);
    assert_eq!(daemon.request("GET", "/sleep").await, (202, "going to sleep\n".to_owned()));
    assert_eq!(*daemon.state.sleeps.lock().unwrap(), 1);
    daemon.stop(first).await;

    let second = daemon.run(&mut command).await;
    assert_eq!(daemon.request("GET", "/").await, (200, "3\n".to_owned()));
    if sockets == Sockets::Served {
        daemon.talk().await;
        assert_eq!(daemon.request("GET", "/").await, (200, "6\n".to_owned()));
    }
    // Many at once: every answer is another count.
    let expected = if sockets == Sockets::Served { 7..27 } else { 4..24 };
    let answers = futures_util::future::join_all((0..20).map(|_| daemon.request("GET", "/"))).await;
    let mut counts: Vec<u32> = answers.iter().map(|(_, text)| text.trim().parse().unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, expected.collect::<Vec<_>>());
    assert_eq!(daemon.request("POST", "/reset").await, (200, "0\n".to_owned()));
    assert_eq!(daemon.state.values.lock().unwrap()["count"], "0");
    daemon.stop(second).await;
}

/// What an actor sees of the daemon.
struct Daemon {
    dir: tempfile::TempDir,
    state: Arc<Stored>,
}

#[derive(Default)]
struct Stored {
    values: Mutex<HashMap<String, Bytes>>,
    sleeps: Mutex<u32>,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "t0ken\n").unwrap();
        let state = Arc::new(Stored::default());
        let routes = Router::new()
            .route("/v1/kv/{key}", get(read).put(write))
            .route("/v1/sleep", post(sleep))
            .with_state(Arc::clone(&state));
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Daemon { dir, state }
    }

    /// Starts the actor and waits until it serves.
    async fn run(&self, command: &mut Command) -> Child {
        let path = std::env::var_os("PATH").unwrap();
        let _ = std::fs::remove_file(self.socket());
        let mut child = command
            .env_clear()
            .env("PATH", path)
            .env("ACTOR_SOCKET", self.socket())
            .env("ACTOR_API_SOCKET", self.dir.path().join("api.sock"))
            .env("ACTOR_TOKEN_FILE", self.dir.path().join("token"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut again = tokio::time::interval(Duration::from_millis(10));
        tokio::time::timeout(PATIENCE, async {
            while UnixStream::connect(self.socket()).await.is_err() {
                assert!(child.try_wait().unwrap().is_none(), "the actor ended before it served");
                again.tick().await;
            }
        })
        .await
        .expect("the actor serves in time");
        child
    }

    /// Ends the actor politely and expects that it listens.
    async fn stop(&self, mut child: Child) {
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("the actor stops in time").unwrap();
    }

    async fn request(&self, method: &str, path: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            hyper::Request::builder().method(method).uri(path).header("host", "actor").body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Two messages, of which one is long, a ping, and a close, over a socket.
    async fn talk(&self) {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async("ws://actor/ws", stream).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("4 hello"));
        let long = "ü".repeat(40_000);
        socket.send(Message::text(long.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(format!("5 {long}")));
        socket.send(Message::Ping("p".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
        socket.close(None).await.unwrap();
        while let Some(message) = socket.next().await {
            assert!(matches!(message.unwrap(), Message::Close(_)));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("actor.sock")
    }
}

async fn read(
    State(stored): State<Arc<Stored>>,
    RoutePath(key): RoutePath<String>,
    headers: HeaderMap,
) -> (StatusCode, Bytes) {
    if !authorized(&headers) {
        return (StatusCode::UNAUTHORIZED, Bytes::new());
    }
    match stored.values.lock().unwrap().get(&key) {
        Some(value) => (StatusCode::OK, value.clone()),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
    }
}

async fn write(
    State(stored): State<Arc<Stored>>,
    RoutePath(key): RoutePath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if !authorized(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    stored.values.lock().unwrap().insert(key, body);
    StatusCode::NO_CONTENT
}

async fn sleep(State(stored): State<Arc<Stored>>, headers: HeaderMap) -> StatusCode {
    if !authorized(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    *stored.sleeps.lock().unwrap() += 1;
    StatusCode::ACCEPTED
}

fn authorized(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == "Bearer t0ken")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Far more than any of this takes; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);
