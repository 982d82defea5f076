//! WebSockets in proxy mode.

use greenroom::actor::StopReason;

use crate::stage::Kind;

#[tokio::test]
async fn the_app_gets_the_clients_upgrade_with_its_headers_and_ours() {
    let stage = Kind::Unix.stage().await;
    let mut socket = stage.socket(
        "/socket?headers",
        &[
            ("host", "client.example"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade, x-hop"),
            ("x-hop", "1"),
            ("sec-websocket-key", "clients"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("actor-id", "spoofed"),
            ("cookie", "a=1"),
        ],
    );
    socket.opened().await;
    let (headers, _) = socket.received().await;
    let headers: Vec<(String, String)> = serde_json::from_slice(&headers).unwrap();
    let all = |name: &str| {
        let named = headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(all("host"), ["client.example"]);
    assert_eq!(all("actor-id"), ["a1"]);
    assert_eq!(all("cookie"), ["a=1"]);
    assert_eq!(all("sec-websocket-protocol"), ["chat, superchat"]);
    assert_eq!(all("sec-websocket-version"), ["13"]);
    assert_ne!(all("sec-websocket-key"), ["clients"]);
    assert!(all("sec-websocket-extensions").is_empty() && all("x-hop").is_empty());
}

#[tokio::test]
async fn the_clients_close_reaches_the_app_with_code_and_reason() {
    let stage = Kind::Unix.stage().await;
    let environment: serde_json::Value = serde_json::from_str(&stage.text("/environment").await).unwrap();
    let note = std::path::Path::new(environment["TMPDIR"].as_str().unwrap()).join("closed");
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    socket.close(4002, "enough").await;
    let expected = [&4002_u16.to_be_bytes()[..], b"enough"].concat();
    crate::stage::until(|| std::fs::read(&note).is_ok_and(|note| note == expected)).await;
}

#[tokio::test]
async fn a_message_above_the_gateways_limit_closes_the_one_socket_with_1009() {
    let stage = Kind::Unix.stage().await;
    let mut socket = stage.socket("/socket?big", &[]);
    socket.opened().await;
    assert_eq!(socket.closed().await.0, Some(1009));
    assert_eq!(stage.text("/ping").await, "pong");
}

#[tokio::test]
async fn an_app_that_drops_a_socket_closes_it_with_1011() {
    let stage = Kind::Unix.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    socket.message("drop me", false).await;
    assert_eq!(socket.closed().await.0, Some(1011));
}

#[tokio::test]
async fn a_crash_closes_the_socket_and_is_reported() {
    let mut stage = Kind::Unix.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    socket.message("crash", false).await;
    socket.closed().await;
    assert!(stage.failed().await.contains("exited with code 3"));
}

#[tokio::test]
async fn a_stop_closes_open_sockets() {
    let mut stage = Kind::Unix.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    stage.stop(StopReason::Sleep).await;
    assert!(matches!(socket.closed().await.0, Some(1000 | 1001)));
}

#[tokio::test]
async fn a_flood_that_is_echoed_does_not_lock_up() {
    let stage = Kind::Unix.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    for _ in 0..100 {
        socket.message(vec![1; 200_000], true).await;
    }
    for _ in 0..100 {
        assert_eq!(socket.received().await.0.len(), 200_000);
    }
}

#[tokio::test]
async fn the_reserved_path_and_odd_paths_are_refused() {
    let stage = Kind::Unix.stage().await;
    for path in ["/_actor", "/%5factor/x", "no-slash", "/a b"] {
        let mut socket = stage.socket(path, &[]);
        socket.opened().await;
        assert_eq!(socket.closed().await.0, Some(1008), "{path}");
    }
}
