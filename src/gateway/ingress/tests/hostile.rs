//! What is sent by mistake or on purpose.

use std::time::Duration;

use bytes::Bytes;
use greenroom_protocol::limits::PAYLOAD_MAX;
use http_body_util::Full;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{hasty, path, start};
use crate::gateway::GatewayError;
use crate::gateway::fake::{FakeDriver, code, connect, get, raw, serve, soon};
use crate::gateway::ingress::Patience;
use crate::gateway::public_api::ApiSettings;

#[tokio::test]
async fn paths_that_name_no_actor_are_refused() {
    let (address, mut driver, _) = start().await;
    for (path, status, name) in [
        (path("//x"), 404, "api.not_found"),
        (path("@/x"), 404, "api.not_found"),
        ("/gateway".to_owned(), 404, "api.not_found"),
        ("/gateway/".to_owned(), 404, "api.not_found"),
        ("/gateway/garbage/".to_owned(), 500, "core.internal_error"),
        ("/gateway/%20/x".to_owned(), 500, "core.internal_error"),
        ("/gateway/%ff%fe/x".to_owned(), 500, "core.internal_error"),
        ("/gateway/..%2f..%2fetc/x".to_owned(), 500, "core.internal_error"),
        (format!("/gateway/{}/", "a".repeat(5_000)), 500, "core.internal_error"),
        ("/gateway/x/?rvt-method=get".to_owned(), 400, "guard.query_invalid_params"),
        ("/nowhere".to_owned(), 404, "api.not_found"),
    ] {
        let response = get(address, &path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(code(&response), name, "{path}");
        assert_eq!(response.headers()["x-rivet-ray-id"].len(), 30);
    }
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_taken_and_a_larger_one_is_not() {
    let (address, mut driver, _) = start().await;
    let (mut sender, connection) = connect(address).await;
    tokio::spawn(connection);
    let request = |size| {
        let body = Full::new(Bytes::from(vec![7; size]));
        Request::post(path("/")).header("host", "test").body(body).expect("request")
    };
    let largest = request(PAYLOAD_MAX);
    let client = tokio::spawn(async move { sender.send_request(largest).await });
    wants_whole(&mut driver).await;
    let stream = driver.open().await;
    assert_eq!(stream.request().2.len(), PAYLOAD_MAX);
    stream.respond(200, &[], "");
    assert_eq!(soon(client).await.expect("client").expect("response").status(), 200);

    let (mut sender, connection) = connect(address).await;
    tokio::spawn(connection);
    let client = tokio::spawn(sender.send_request(request(PAYLOAD_MAX + 1)));
    wants_whole(&mut driver).await;
    let response = soon(client).await.expect("client").expect("a response");
    assert_eq!(response.status(), 413);
    assert_eq!(response.headers()["x-rivet-error"], "guard.invalid_request_body");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn an_announced_body_that_is_too_large_is_refused_before_it_comes() {
    let (address, mut driver, _) = start().await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let head = format!("POST {} HTTP/1.1\r\nhost: test\r\ncontent-length: 99999999999\r\n\r\n", path("/"));
    client.write_all(head.as_bytes()).await.expect("sent");
    wants_whole(&mut driver).await;
    let mut answer = [0; 12];
    soon(client.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_at_the_limit() {
    let (address, mut driver, _) = start().await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let (mut read, mut write) = client.split();
    let head = format!("POST {} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n", path("/"));
    let sending = async {
        write.write_all(head.as_bytes()).await?;
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
        for _ in 0..25 {
            write.write_all(chunk.as_bytes()).await?;
        }
        write.write_all(b"0\r\n\r\n").await
    };
    let mut answer = Vec::new();
    let (_, read, ()) =
        soon(async { tokio::join!(sending, read.read_to_end(&mut answer), wants_whole(&mut driver)) }).await;
    read.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let patience = Patience { body_pause: Duration::from_millis(50), ..hasty() };
    let (address, mut driver, _) = serve(patience, ApiSettings::default()).await;
    let head = format!("POST {} HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf", path("/"));
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    soon(client.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let (address, mut driver, _) = start().await;
    let path = path("/");
    for head in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5, 6\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "bad name: x\r\n",
        "x: a\0b\r\n",
        "x : y\r\n",
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{head}\r\nhello");
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{head:?} {answer:?}");
        assert!(driver.is_idle(), "{head:?}");
    }
    for line in ["GET /gateway/x", "G\0T / HTTP/1.1", "GET / HTTP/9.9", "GET http:// HTTP/1.1", ""] {
        let answer = raw(address, format!("{line}\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{line:?} {answer:?}");
        assert!(driver.is_idle(), "{line:?}");
    }
}

#[tokio::test]
async fn chunked_wins_over_a_length_and_nothing_is_left_for_a_second_request() {
    let (address, mut driver, _) = start().await;
    let path = path("/first");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 4\r\ntransfer-encoding: \
         chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /gateway/x HTTP/1.1\r\n\r\n"
    );
    let client = tokio::spawn(async move { raw(address, request.as_bytes()).await });
    // Refusing such a request altogether is fine too.
    let answer = tokio::select! {
        stream = driver.open() => {
            assert_eq!(stream.request(), ("POST", "/first", b"hello".as_slice()));
            assert_eq!(stream.header("content-length"), None);
            stream.respond(200, &[], "ok");
            None
        }
        answer = client => Some(answer.expect("client")),
    };
    assert!(answer.is_none_or(|answer| answer.starts_with("HTTP/1.1 400")));
    assert!(driver.is_idle());
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let (address, mut driver, _) = start().await;
    let headers: String = (0..1_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer = raw(address, format!("GET {} HTTP/1.1\r\nhost: test\r\n{headers}\r\n", path("/")).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let huge = "y".repeat(1024 * 1024);
    let answer =
        raw(address, format!("GET {} HTTP/1.1\r\nhost: test\r\nx: {huge}\r\n\r\n", path("/")).as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn an_old_client_without_a_host_is_served() {
    let (address, mut driver, _) = start().await;
    let request = format!("GET {} HTTP/1.0\r\n\r\n", path("/x"));
    let client = tokio::spawn(async move { raw(address, request.as_bytes()).await });
    driver.open().await.respond(200, &[], "old");
    let answer = client.await.expect("client");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.ends_with("old"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused() {
    let (address, mut driver, _) = start().await;
    let path = path("/");
    let request = |headers: &str| format!("GET {path} HTTP/1.1\r\nhost: t\r\nupgrade: websocket\r\n{headers}\r\n");
    let answer = raw(address, request("connection: close\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let old =
        "connection: close, upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 8\r\n";
    let answer = raw(address, request(old).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("sec-websocket-version: 13"), "{answer}");
    let key = "connection: close, upgrade\r\nsec-websocket-key: short\r\nsec-websocket-version: 13\r\n";
    let answer = raw(address, request(key).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(driver.is_idle());
}

/// The actor's runner takes bodies whole.
async fn wants_whole(driver: &mut FakeDriver) {
    driver.wanted().await.refuse(GatewayError::WholeBodyNeeded);
}
