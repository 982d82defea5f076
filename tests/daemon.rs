//! `greenroom run` from the outside: signals, an unreachable gateway, a gateway that says no.
#![cfg(feature = "daemon")]

use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

#[tokio::test]
async fn an_unreachable_gateway_is_reported_and_does_not_end_the_daemon() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut daemon = Daemon::start(&endpoint);

    let record = daemon.record("not connected to the gateway").await;
    assert_eq!(record["level"], "WARN");
    assert!(record["reason"].as_str().unwrap().contains("Connection refused"), "{record}");

    daemon.signal(Signal::HUP);
    daemon.record("reload is not built yet; restart to apply new settings").await;
    daemon.signal(Signal::USR1);
    let record = daemon.record("status").await;
    assert_eq!(record["draining"], false);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code().await, 0);
}

#[tokio::test]
async fn a_refusal_for_good_ends_with_69_and_says_which() {
    check("ws.eviction#ray", 1000, "another runner").await;
    check("namespace.not_found#ray", 1011, "namespace").await;
    check("api.forbidden#ray", 1011, "token").await;
}

#[tokio::test]
async fn the_runner_key_is_kept_in_the_data_directory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut daemon = Daemon::start(&endpoint);
    let key = |path: &str| path.split(['?', '&']).find_map(|pair| pair.strip_prefix("runner_key=").map(str::to_owned));
    let (path, _socket) = accept(&listener).await;
    let kept = std::fs::read_to_string(daemon.dir.path().join("data/runner-key")).unwrap();
    assert_eq!(key(&path).unwrap(), kept.trim());
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exit_code().await, 0);
}

async fn check(reason: &'static str, code: u16, says: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut daemon = Daemon::start(&format!("ws://{}", listener.local_addr().unwrap()));
    let (_, mut socket) = accept(&listener).await;
    socket.next().await.unwrap().unwrap();
    socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await.unwrap();
    let record = daemon.record("the gateway refuses this runner").await;
    assert_eq!(record["level"], "ERROR");
    assert!(record["reason"].as_str().unwrap().contains(says), "{record}");
    assert_eq!(daemon.exit_code().await, 69);
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

/// Plays the gateway for one connection; answers with the path that was asked for.
async fn accept(listener: &TcpListener) -> (String, Socket) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the callback's type is given")]
    let answer = |request: &Request, mut response: Response| {
        path = request.uri().to_string();
        response.headers_mut().insert("sec-websocket-protocol", "rivet".parse().unwrap());
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, answer).await.unwrap();
    (path, socket)
}

/// A running `greenroom run` and its log.
struct Daemon {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start(endpoint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_greenroom"))
            .args(["run", "--endpoint", endpoint, "--admin", "off", "--log-format", "json", "--data-dir"])
            .arg(dir.path().join("data"))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Daemon { child, log, dir }
    }

    /// The next record with this message.
    async fn record(&mut self, message: &str) -> Value {
        let find = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let record: Value = serde_json::from_str(&line).unwrap();
                if record["message"] == message {
                    return record;
                }
            }
            panic!("the log ended without {message:?}");
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no record says {message:?}"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn exit_code(&mut self) -> i32 {
        let exit = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        exit.expect("the daemon ends in time").unwrap().code().expect("the daemon is not killed by a signal")
    }
}

/// Far more than any of this takes; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);
