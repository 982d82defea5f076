//! `greenroom run`: an unreachable gateway, a gateway that says no, signals.

use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::process::Daemon;

#[tokio::test]
async fn an_unreachable_gateway_is_reported_and_does_not_end_the_daemon() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut daemon = Daemon::run(&endpoint);

    let record = daemon.record("not connected to the gateway").await;
    assert_eq!(record["level"], "WARN");
    assert!(record["reason"].as_str().unwrap().contains("Connection refused"), "{record}");

    daemon.signal(Signal::HUP);
    daemon.record("reloaded; no actor has changed").await;
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
async fn a_check_online_says_hello_with_a_key_of_its_own_and_tells_what_the_gateway_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("ws://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut daemon =
        Daemon::start(dir, &["config", "check", "--online", "--runner-key", "mine", "--endpoint", &endpoint]);
    let (path, mut socket) = accept(&listener).await;
    assert!(!path.contains("runner_key=mine"), "it would evict the runner: {path}");
    socket.next().await.unwrap().unwrap();
    socket.close(Some(CloseFrame { code: 1011.into(), reason: "api.forbidden#ray".into() })).await.unwrap();
    daemon.line("all settings are right").await;
    assert_eq!(daemon.exit_code().await, 69);
}

#[tokio::test]
async fn the_runner_key_is_kept_in_the_data_directory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut daemon = Daemon::run(&endpoint);
    let key = |path: &str| path.split(['?', '&']).find_map(|pair| pair.strip_prefix("runner_key=").map(str::to_owned));
    let (path, _socket) = accept(&listener).await;
    let kept = std::fs::read_to_string(daemon.dir.path().join("data/runner-key")).unwrap();
    assert_eq!(key(&path).unwrap(), kept.trim());
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exit_code().await, 0);
}

async fn check(reason: &'static str, code: u16, says: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut daemon = Daemon::run(&format!("ws://{}", listener.local_addr().unwrap()));
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
