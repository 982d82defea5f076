//! HTTP requests to actors.

use std::time::Duration;

use bytes::Bytes;
use greenroom_protocol::credit::GRANT;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{hasty, path, start};
use crate::gateway::fake::{ACTOR, code, connect, get, http, json, serve, soon};
use crate::gateway::ingress::Patience;
use crate::gateway::public_api::ApiSettings;
use crate::gateway::{GatewayError, TunnelEvent};
use crate::store::ActorError;

#[tokio::test]
async fn an_actor_answers() {
    let (address, mut driver, _) = start().await;
    let request = Request::post(path("/a/b?c=d%20e")).header("x-own", "1").header("cookie", "a=b");
    let client = tokio::spawn(http(address, request, "hello"));
    let wanted = driver.wanted().await;
    assert_eq!(&*wanted.actor_id, ACTOR);
    let stream = wanted.open();
    assert_eq!(stream.request(), ("POST", "/a/b?c=d%20e", b"hello".as_slice()));
    assert_eq!(stream.header("x-own"), Some("1"));
    assert_eq!(stream.header("cookie"), Some("a=b"));
    assert_eq!(stream.header("content-length"), Some("5"));
    let ray = stream.header("x-rivet-ray-id").expect("a ray").to_owned();
    stream.respond(207, &[("x-from-actor", "yes"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], "world");
    let response = client.await.expect("client");
    assert_eq!(response.status(), 207);
    assert_eq!(response.headers()["x-from-actor"], "yes");
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(response.headers()["x-rivet-ray-id"], ray);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(response.headers().get("x-rivet-error"), None);
    assert_eq!(response.body(), "world");
}

#[tokio::test]
async fn a_request_without_a_body_has_none() {
    let (address, mut driver, _) = start().await;
    let client = tokio::spawn(async move { get(address, &path("")).await });
    let stream = driver.open().await;
    assert_eq!(stream.request(), ("GET", "/", b"".as_slice()));
    stream.respond(204, &[], "");
    let response = client.await.expect("client");
    assert_eq!(response.status(), 204);
    assert!(response.body().is_empty());
}

#[tokio::test]
async fn custom_methods_reach_the_actor() {
    let (address, mut driver, _) = start().await;
    let request = Request::builder().method("PURGE").uri(path("/"));
    let client = tokio::spawn(http(address, request, ""));
    let stream = driver.open().await;
    assert_eq!(stream.request().0, "PURGE");
    stream.respond(200, &[], "");
    assert_eq!(client.await.expect("client").status(), 200);
}

#[tokio::test]
async fn pieces_of_a_response_reach_the_client_as_they_come() {
    let (address, mut driver, _) = start().await;
    let (mut sender, connection) = connect(address).await;
    tokio::spawn(connection);
    let request = Request::get(path("/")).header("host", "test").body(Full::<Bytes>::default()).expect("request");
    let client = tokio::spawn(async move { sender.send_request(request).await });
    let stream = driver.open().await;
    stream.send(TunnelEvent::Response { status: 200, headers: Vec::new(), body: None, more: true });
    let mut response = soon(client).await.expect("client").expect("a response");
    for piece in ["one", "two", "three"] {
        stream.send(TunnelEvent::Chunk { body: Bytes::from(piece), finish: false });
        let frame = soon(response.body_mut().frame()).await.expect("a frame").expect("a piece");
        assert_eq!(frame.into_data().expect("data"), piece);
    }
    stream.send(TunnelEvent::Chunk { body: Bytes::from("end"), finish: true });
    let frame = soon(response.body_mut().frame()).await.expect("a frame").expect("a piece");
    assert_eq!(frame.into_data().expect("data"), "end");
    assert!(soon(response.body_mut().frame()).await.is_none());
}

#[tokio::test]
async fn what_the_client_takes_of_a_response_is_granted_to_the_actor() {
    let (address, mut driver, _) = start().await;
    let (mut sender, connection) = connect(address).await;
    tokio::spawn(connection);
    let request = Request::get(path("/")).header("host", "test").body(Full::<Bytes>::default()).expect("request");
    let client = tokio::spawn(async move { sender.send_request(request).await });
    let stream = driver.open().await;
    let piece = Bytes::from(vec![7; GRANT]);
    let body = Some(piece.clone());
    stream.send(TunnelEvent::Response { status: 200, headers: Vec::new(), body, more: true });
    stream.send(TunnelEvent::Chunk { body: piece, finish: false });
    let response = soon(client).await.expect("client").expect("a response");
    let body = tokio::spawn(response.into_body().collect());
    soon(async {
        while stream.took() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stream.send(TunnelEvent::Chunk { body: Bytes::new(), finish: true });
    assert_eq!(soon(body).await.expect("client").expect("a body").to_bytes().len(), 2 * GRANT);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_taken_for_complete() {
    let (address, mut driver, _) = start().await;
    for cause in [Some(GatewayError::TunnelClosed), None] {
        let (mut sender, connection) = connect(address).await;
        tokio::spawn(connection);
        let request = Request::get(path("/")).header("host", "test").body(Full::<Bytes>::default()).expect("request");
        let client = tokio::spawn(async move { sender.send_request(request).await });
        let stream = driver.open().await;
        let body = Some(Bytes::from("half"));
        stream.send(TunnelEvent::Response { status: 200, headers: Vec::new(), body, more: true });
        let response = soon(client).await.expect("client").expect("a response");
        match cause {
            Some(error) => stream.send(TunnelEvent::Failed(error)),
            None => drop(stream),
        }
        soon(response.into_body().collect()).await.expect_err("a broken body");
    }
}

#[tokio::test]
async fn a_client_that_leaves_drops_the_stream() {
    let (address, mut driver, _) = start().await;
    // Before the head.
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let head = format!("GET {} HTTP/1.1\r\nhost: test\r\n\r\n", path("/"));
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut stream = driver.open().await;
    drop(client);
    stream.dropped().await;
    // Within the body.
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut stream = driver.open().await;
    stream.send(TunnelEvent::Response { status: 200, headers: Vec::new(), body: None, more: true });
    let mut buffer = [0; 1];
    client.read_exact(&mut buffer).await.expect("a head");
    drop(client);
    stream.dropped().await;
}

#[tokio::test]
async fn what_the_actor_says_of_its_length_cannot_break_the_framing() {
    let (address, mut driver, _) = start().await;
    for length in ["0", "3", "5000", "nonsense"] {
        let client = tokio::spawn(async move { get(address, &path("/")).await });
        driver.open().await.respond(200, &[("content-length", length), ("transfer-encoding", "chunked")], "hello");
        let response = client.await.expect("client");
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(response.headers().get("transfer-encoding"), None);
        assert_eq!(response.body(), "hello");
    }
}

#[tokio::test]
async fn a_length_claimed_for_pieces_is_held_to() {
    let (address, mut driver, _) = start().await;
    for (pieces, ok) in [(&["he", "llo"][..], true), (&["he"][..], false)] {
        let (mut sender, connection) = connect(address).await;
        tokio::spawn(connection);
        let request = Request::get(path("/")).header("host", "test").body(Full::<Bytes>::default()).expect("request");
        let client = tokio::spawn(async move { sender.send_request(request).await });
        let stream = driver.open().await;
        let headers = vec![("content-length".into(), "5".into())];
        stream.send(TunnelEvent::Response { status: 200, headers, body: None, more: true });
        for piece in pieces {
            stream.send(TunnelEvent::Chunk { body: Bytes::from(*piece), finish: false });
        }
        stream.send(TunnelEvent::Chunk { body: Bytes::new(), finish: true });
        // The connection may break before the head is out.
        let whole = match soon(client).await.expect("client") {
            Ok(response) => {
                assert_eq!(response.headers()["content-length"], "5");
                soon(response.into_body().collect()).await.is_ok()
            }
            Err(_) => false,
        };
        assert_eq!(whole, ok);
    }
}

#[tokio::test]
async fn a_head_request_tells_the_length_without_a_body() {
    let (address, mut driver, _) = start().await;
    let client = tokio::spawn(http(address, Request::head(path("/")), ""));
    driver.open().await.respond(200, &[("content-length", "1234")], "");
    let response = client.await.expect("client");
    assert_eq!(response.headers()["content-length"], "1234");
    assert!(response.body().is_empty());
}

#[tokio::test]
async fn a_response_that_http_does_not_allow_is_an_internal_error() {
    let (address, mut driver, _) = start().await;
    let cases: [(u16, &[(&str, &str)]); 7] = [
        (0, &[]),
        (99, &[]),
        (101, &[]),
        (1000, &[]),
        (200, &[("bad name", "x")]),
        (200, &[("x", "a\r\nset-cookie: b")]),
        (200, &[("", "x")]),
    ];
    for (status, headers) in cases {
        let client = tokio::spawn(async move { get(address, &path("/")).await });
        driver.open().await.respond(status, headers, "body");
        let response = client.await.expect("client");
        assert_eq!(response.status(), 500, "{status} {headers:?}");
        assert_eq!(code(&response), "core.internal_error");
        assert_eq!(response.headers()["x-rivet-error"], "core.internal_error");
    }
    let client = tokio::spawn(async move { get(address, &path("/")).await });
    driver.open().await.respond(999, &[], "odd");
    assert_eq!(client.await.expect("client").status(), 999);
}

#[tokio::test]
async fn every_failure_has_its_status_and_names_itself() {
    let (address, mut driver, _) = start().await;
    let crashed = ActorError::Crashed { message: Some("exit code 3".to_owned()) };
    let cases = [
        (GatewayError::ActorNotFound, 404, "actor.not_found"),
        (GatewayError::ActorDestroyed, 404, "actor.not_found"),
        (GatewayError::ActorReadyTimeout { error: Some(crashed) }, 503, "guard.actor_ready_timeout"),
        (GatewayError::Unavailable("busy"), 503, "guard.service_unavailable"),
        (GatewayError::Internal("secret path".to_owned()), 500, "core.internal_error"),
    ];
    for (error, status, name) in cases {
        let client = tokio::spawn(async move { get(address, &path("/")).await });
        driver.wanted().await.refuse(error);
        let response = client.await.expect("client");
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(code(&response), name);
        assert_eq!(response.headers()["x-rivet-error"], name);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert_eq!(response.headers()["x-rivet-ray-id"].len(), 30);
        let text = json(&response).to_string();
        assert!(!text.contains("secret"), "{text}");
        if name == "guard.actor_ready_timeout" {
            assert_eq!(json(&response)["metadata"], json!({ "actor_id": ACTOR }));
            assert!(text.contains("exit code 3"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_request_is_tried_again_until_it_is_answered() {
    let (address, mut driver, _) = start().await;
    let client = tokio::spawn(http(address, Request::put(path("/x")), "body"));
    for error in [GatewayError::ActorStopped, GatewayError::RequestAborted, GatewayError::TunnelClosed] {
        let stream = driver.open().await;
        assert_eq!(stream.request(), ("PUT", "/x", b"body".as_slice()));
        stream.send(TunnelEvent::Failed(error));
    }
    drop(driver.open().await);
    driver.open().await.respond(503, &[("X-Rivet-Error", "guard.tunnel_response_closed")], "");
    driver.open().await.respond(504, &[("x-rivet-error", "guard.gateway_response_start_timeout")], "");
    driver.open().await.respond(200, &[], "at last");
    let response = client.await.expect("client");
    assert_eq!(response.status(), 200);
    assert_eq!(response.body(), "at last");
}

#[tokio::test]
async fn attempts_are_limited() {
    let (address, mut driver, _) = start().await;
    let client = tokio::spawn(async move { get(address, &path("/")).await });
    for _ in 0..7 {
        driver.open().await.send(TunnelEvent::Failed(GatewayError::ActorStopped));
    }
    let response = client.await.expect("client");
    assert_eq!(response.status(), 502);
    assert_eq!(code(&response), "guard.retry_attempts_exceeded");
    let metadata = json!({
        "attempts": 7,
        "last_error_code": "guard.actor_stopped_while_waiting",
        "last_status": 503,
        "last_target_kind": "actor",
    });
    assert_eq!(json(&response)["metadata"], metadata);
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_request_that_may_change_something_runs_once() {
    let (address, mut driver, _) = start().await;
    for method in [Method::POST, Method::PATCH] {
        // It may have run.
        for (error, name) in [
            (GatewayError::ActorStopped, "guard.actor_stopped_while_waiting"),
            (GatewayError::TunnelClosed, "guard.tunnel_response_closed"),
            (GatewayError::RequestAborted, "guard.tunnel_request_aborted"),
        ] {
            let client = tokio::spawn(http(address, Request::builder().method(&method).uri(path("/")), "x"));
            driver.open().await.send(TunnelEvent::Failed(error));
            let response = client.await.expect("client");
            assert_eq!(response.status(), 503);
            assert_eq!(code(&response), name);
            assert!(driver.is_idle());
        }
        // It has not run.
        let client = tokio::spawn(http(address, Request::builder().method(&method).uri(path("/")), "x"));
        driver.wanted().await.refuse(GatewayError::ActorStopped);
        driver.open().await.respond(503, &[("x-rivet-error", "guard.service_unavailable")], "");
        driver.open().await.respond(200, &[], "");
        assert_eq!(client.await.expect("client").status(), 200);
    }
    // Its sender takes care of repeats.
    let request = Request::post(path("/")).header("idempotency-key", "1");
    let client = tokio::spawn(http(address, request, "x"));
    driver.open().await.send(TunnelEvent::Failed(GatewayError::ActorStopped));
    driver.open().await.respond(200, &[], "");
    assert_eq!(client.await.expect("client").status(), 200);
}

#[tokio::test]
async fn an_answer_is_an_answer() {
    let (address, mut driver, _) = start().await;
    let cases: [(u16, &[(&str, &str)]); 5] = [
        (503, &[]),
        (503, &[("x-rivet-error", "runner.actor_not_found")]),
        (503, &[("x-rivet-error", "guard.other")]),
        (500, &[("x-rivet-error", "guard.service_unavailable")]),
        (404, &[]),
    ];
    for (status, headers) in cases {
        let client = tokio::spawn(async move { get(address, &path("/")).await });
        driver.open().await.respond(status, headers, "as it is");
        let response = client.await.expect("client");
        assert_eq!(response.status(), status);
        assert_eq!(response.body(), "as it is");
    }
    // A deferral that must not be followed is passed on as well.
    let client = tokio::spawn(http(address, Request::post(path("/")), "x"));
    driver.open().await.respond(503, &[("x-rivet-error", "guard.tunnel_response_closed")], "words");
    let response = client.await.expect("client");
    assert_eq!(response.status(), 503);
    assert_eq!(response.body(), "words");
}

#[tokio::test]
async fn an_actor_that_does_not_begin_to_answer_is_given_up() {
    let patience = Patience { response_start: Duration::from_millis(50), ..hasty() };
    let (address, mut driver, _) = serve(patience, ApiSettings::default()).await;
    let client = tokio::spawn(async move { get(address, &path("/")).await });
    let mut stream = driver.open().await;
    let response = client.await.expect("client");
    assert_eq!(response.status(), 504);
    assert_eq!(code(&response), "guard.gateway_response_start_timeout");
    stream.dropped().await;
}

#[tokio::test]
async fn what_cannot_begin_a_response_is_not_heard() {
    let (address, mut driver, _) = start().await;
    let client = tokio::spawn(async move { get(address, &path("/")).await });
    let stream = driver.open().await;
    stream.send(TunnelEvent::Chunk { body: Bytes::from("early"), finish: false });
    stream.send(TunnelEvent::Open { can_hibernate: false });
    stream.send(TunnelEvent::Message { data: Bytes::from("x"), binary: true });
    stream.respond(200, &[], "answer");
    assert_eq!(client.await.expect("client").body(), "answer");
}

#[tokio::test]
async fn browsers_may_call_from_any_page() {
    let (address, mut driver, _) = start().await;
    let request = Request::options(path("/x"))
        .header("origin", "http://site.test")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-a, x-b");
    let response = http(address, request, "").await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "http://site.test");
    assert_eq!(response.headers()["access-control-allow-methods"], "GET, POST, PUT, DELETE, OPTIONS, PATCH");
    assert_eq!(response.headers()["access-control-allow-headers"], "x-a, x-b");
    assert_eq!(response.headers()["access-control-max-age"], "86400");
    assert_eq!(response.headers()["vary"], "Origin");
    assert!(driver.is_idle());
    let response = http(address, Request::options(path("/x")), "").await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["access-control-allow-headers"], "*");

    let request = Request::get(path("/")).header("origin", "http://site.test");
    let client = tokio::spawn(http(address, request, ""));
    driver.open().await.respond(200, &[("vary", "accept")], "");
    let response = client.await.expect("client");
    assert_eq!(response.headers()["access-control-allow-origin"], "http://site.test");
    assert_eq!(response.headers()["access-control-allow-credentials"], "true");
    assert_eq!(response.headers()["access-control-expose-headers"], "*");
    assert_eq!(response.headers().get_all("vary").iter().count(), 2);

    let request = Request::get(path("/")).header("origin", "http://site.test");
    let client = tokio::spawn(http(address, request, ""));
    driver.open().await.respond(200, &[("access-control-allow-origin", "http://only.test")], "");
    let response = client.await.expect("client");
    assert_eq!(response.headers()["access-control-allow-origin"], "http://only.test");
    assert_eq!(response.headers().get("access-control-allow-credentials"), None);
}

#[tokio::test]
async fn the_header_form_reaches_the_actor_with_its_whole_path() {
    let (address, mut driver, _) = start().await;
    let request = Request::get("/request/echo?q").header("x-rivet-target", "actor").header("x-rivet-actor", ACTOR);
    let client = tokio::spawn(http(address, request, ""));
    let stream = driver.open().await;
    assert_eq!(stream.request().1, "/request/echo?q");
    stream.respond(200, &[], "");
    assert_eq!(client.await.expect("client").status(), 200);
}
