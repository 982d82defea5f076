//! HTTP and WebSocket through gateway and runner.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{client::Socket, process::poll, stage::Stage};

pub async fn requests_reach_the_actor_as_sent_and_answers_come_back_as_given(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let path = format!("/gateway/{id}/echo?a=b%20c&d=%C3%A9&e");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let body: Vec<u8> = (0..=255).collect();
        let headers = [("x-test", "one"), ("content-type", "application/x-test"), ("cookie", "a=b; c=d")];
        let answer = stage.client.call(method, &path, &headers, body.clone()).await.unwrap();
        assert_eq!(answer.status, 207, "the actor's own status: {}", answer.text());
        assert_eq!(answer.header("x-from-actor"), "yes");
        let seen = answer.json();
        assert_eq!(seen["method"], method);
        assert_eq!(seen["path"], "/echo?a=b%20c&d=%C3%A9&e", "the query is not decoded");
        assert_eq!(seen["headers"]["x-test"], "one");
        assert_eq!(seen["headers"]["content-type"], "application/x-test");
        assert_eq!(seen["headers"]["cookie"], "a=b; c=d");
        assert_eq!(seen["body"], json!(data_encoding::BASE64.encode(&body)));
    }
    let head = stage.client.call("HEAD", &format!("/gateway/{id}/echo"), &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (207, 0));
    let bare = stage.client.ask(&id, "").await;
    assert_eq!(bare.text(), "1", "no path means /");
    let missing = stage.client.get(&format!("/gateway/{id}/nowhere")).await.unwrap();
    assert_eq!((missing.status, missing.text().as_str()), (404, "no such route"), "the actor's own 404 passes");
}

pub async fn large_bodies_pass_in_both_directions(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let size = 4 << 20;
    assert_eq!(stage.client.ask(&id, &format!("/bytes?n={size}")).await.body.len(), size);
    let body = Bytes::from(vec![b'x'; size]);
    let answer = stage.client.call("POST", &format!("/gateway/{id}/echo"), &[], body.clone()).await.unwrap();
    let seen = answer.json();
    assert_eq!(seen["body"].as_str().map(str::len), Some(data_encoding::BASE64.encode_len(size)));
}

pub async fn fifty_concurrent_requests_each_count_once(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let mut counts = join_all((0..50).map(|_| stage.client.count(&id, "/"))).await;
    counts.sort_unstable();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>());
}

pub async fn the_gateway_routes_tokens_and_keys(stage: &Stage) {
    let key = stage.fresh_key();
    let id = stage.create(&key, "sleep").await;
    let with_token = stage.client.get(&format!("/gateway/{id}@some-token/count")).await.unwrap();
    assert_eq!((with_token.status, with_token.text().as_str()), (200, "0"));
    let by_key = format!("/gateway/counter/echo?rvt-namespace=default&rvt-method=get&rvt-key={key}&x=1");
    let by_key = stage.client.get(&by_key).await.unwrap();
    assert_eq!((by_key.status, &by_key.json()["path"]), (207, &json!("/echo?x=1")), "{}", by_key.text());
    let made = format!(
        "/gateway/counter/who?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner={}&rvt-key=list,{key}",
        stage.pool
    );
    let made = stage.client.get(&made).await.unwrap();
    assert_eq!((made.status, &made.json()["key"]), (200, &json!(format!("list/{key}"))), "{}", made.text());

    let origin = [("origin", "http://site.test"), ("access-control-request-method", "POST")];
    let preflight = stage.client.call("OPTIONS", &format!("/gateway/{id}/count"), &origin, "").await.unwrap();
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, "http://site.test"));
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, POST, PUT, DELETE, OPTIONS, PATCH");
}

pub async fn a_websocket_echoes_text_and_binary_in_order(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let mut socket = stage.client.socket(&id, "/ws?room=1").await;
    for number in 0..100 {
        socket.send(Message::text(format!("text {number}"))).await.unwrap();
        socket.send(Message::binary(vec![number; 3])).await.unwrap();
    }
    for number in 0..100 {
        assert_eq!(next(&mut socket).await, Message::text(format!("text {number}")));
        assert_eq!(next(&mut socket).await, Message::binary(vec![number; 3]));
    }
    let large = Message::binary(vec![9; 1 << 20]);
    socket.send(large.clone()).await.unwrap();
    assert!(next(&mut socket).await == large, "a message of 1 MiB comes back unchanged");
    socket.send(Message::text("")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text(""));
    let opened = stage.hooks_of(&id).into_iter().find(|hook| hook["hook"] == "ws_open").unwrap();
    assert_eq!(opened["path"], "/ws?room=1");
}

pub async fn a_closed_websocket_is_closed_on_the_other_side(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let mut socket = stage.client.socket(&id, "/ws").await;
    socket.send(Message::text("there?")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("there?"));
    let frame = CloseFrame { code: CloseCode::from(4001), reason: "enough".into() };
    socket.close(Some(frame)).await.unwrap();
    let limit = Duration::from_secs(10);
    let closed =
        poll(limit, || async { stage.hooks_of(&id).into_iter().find(|hook| hook["hook"] == "ws_close") }).await;
    let closed = closed.expect("the actor hears of the close");
    assert_eq!((&closed["code"], &closed["reason"]), (&json!(4001), &json!("enough")), "{closed}");

    let mut socket = stage.client.socket(&id, "/ws").await;
    socket.send(Message::text("there?")).await.unwrap();
    next(&mut socket).await;
    stage.client.ask(&id, "/sleep").await;
    let end = timeout(Duration::from_secs(15), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break None,
            }
        }
    });
    assert_eq!(end.await, Ok(Some(1000)), "a socket that cannot hibernate ends when its actor sleeps");
}

/// The next message, before a deadline.
pub async fn next(socket: &mut Socket) -> Message {
    let message = timeout(Duration::from_secs(20), socket.next()).await.expect("a message within 20 s");
    message.expect("the socket is open").expect("the socket works")
}
