//! Request bodies that follow their head in pieces.

use std::net::SocketAddr;

use greenroom_protocol::credit::{GRANT, WINDOW};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{path, start};
use crate::gateway::fake::{Opened, soon};
use crate::gateway::{GatewayError, StreamHead, StreamUp, TunnelEvent};

#[tokio::test]
async fn an_upload_begins_before_it_is_complete_and_goes_as_far_as_its_credit() {
    let (address, mut driver, _) = start().await;
    let total = 4 * WINDOW;
    let client = upload(address, "POST", total).await;
    let mut stream = driver.open().await;
    let (mut received, mut allowed) = (first(&stream), WINDOW);
    assert!(more(&stream));
    loop {
        // The next piece may be too large for what is left.
        if allowed - received < GRANT {
            stream.events.grant();
            allowed += GRANT;
        }
        let (bytes, finish) = piece(&mut stream).await;
        received += bytes;
        assert!(received <= allowed, "{received} of {allowed}");
        if finish {
            break;
        }
    }
    assert_eq!(received, total);
    stream.respond(200, &[], "done");
    assert!(soon(client).await.expect("client").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_runner_that_takes_bodies_whole_gets_it_whole() {
    let (address, mut driver, _) = start().await;
    let client = upload(address, "POST", 300_000).await;
    let wanted = driver.wanted().await;
    assert!(matches!(wanted.head, StreamHead::Request { more: true, .. }));
    wanted.refuse(GatewayError::WholeBodyNeeded);
    let stream = driver.open().await;
    assert!(!more(&stream));
    assert_eq!(first(&stream), 300_000);
    stream.respond(200, &[], "");
    assert!(soon(client).await.expect("client").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_upload_that_no_actor_had_is_tried_again_from_its_beginning() {
    let (address, mut driver, _) = start().await;
    let total = WINDOW / 2;
    let client = upload(address, "POST", total).await;
    let mut stream = driver.open().await;
    let mut received = first(&stream);
    while received < total {
        received += piece(&mut stream).await.0;
    }
    stream.respond(503, &[("x-rivet-error", "guard.service_unavailable")], "");
    let mut stream = driver.open().await;
    let mut received = first(&stream);
    loop {
        let (bytes, finish) = piece(&mut stream).await;
        received += bytes;
        if finish {
            break;
        }
    }
    assert_eq!(received, total);
    stream.respond(200, &[], "");
    assert!(soon(client).await.expect("client").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_upload_that_an_actor_has_begun_to_take_is_not_tried_again() {
    let (address, mut driver, _) = start().await;
    // Its method would allow it.
    let client = upload(address, "PUT", 2 * WINDOW).await;
    let mut stream = driver.open().await;
    let mut received = first(&stream);
    stream.events.grant();
    while received < WINDOW + GRANT / 2 {
        received += piece(&mut stream).await.0;
        stream.events.grant();
    }
    stream.send(TunnelEvent::Failed(GatewayError::ActorStopped));
    let answer = soon(client).await.expect("client");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("guard.actor_stopped_while_waiting"), "{answer}");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_client_that_leaves_within_its_upload_drops_the_stream() {
    let (address, mut driver, _) = start().await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(head("POST", WINDOW).as_bytes()).await.expect("sent");
    client.write_all(&vec![7; 100_000]).await.expect("sent");
    let mut stream = driver.open().await;
    drop(client);
    stream.dropped().await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let (address, mut driver, _) = start().await;
    let client = upload(address, "POST", 8 * WINDOW).await;
    let stream = driver.open().await;
    stream.respond(413, &[], "enough");
    let answer = soon(client).await.expect("client");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("enough"), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let (address, mut driver, _) = start().await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let head = head("POST", 100_000).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut told = [0; 25];
    soon(client.read_exact(&mut told)).await.expect("told");
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(&vec![7; 100_000]).await.expect("sent");
    let mut stream = driver.open().await;
    let mut received = first(&stream);
    while received < 100_000 {
        received += piece(&mut stream).await.0;
    }
}

/// A client that sends a body of this length and reads the answer.
async fn upload(address: SocketAddr, method: &str, length: usize) -> tokio::task::JoinHandle<String> {
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(head(method, length).as_bytes()).await.expect("sent");
    tokio::spawn(async move {
        let (mut read, mut write) = client.split();
        let body = vec![7; length];
        let mut answer = String::new();
        // The server may answer and close before it has read everything.
        let (_, read) = tokio::join!(write.write_all(&body), read.read_to_string(&mut answer));
        let _ = read;
        answer
    })
}

fn head(method: &str, length: usize) -> String {
    format!("{method} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n", path("/"))
}

/// What came with the head.
fn first(stream: &Opened) -> usize {
    stream.request().2.len()
}

fn more(stream: &Opened) -> bool {
    matches!(stream.head, StreamHead::Request { more: true, .. })
}

/// The length of the next piece, and whether it is the last.
async fn piece(stream: &mut Opened) -> (usize, bool) {
    match stream.up().await {
        StreamUp::Chunk { body, finish } => (body.len(), finish),
        other => panic!("{other:?}"),
    }
}
