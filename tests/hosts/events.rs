//! Sockets whose frames come as events, for every host alike.

use std::sync::atomic::Ordering;

use greenroom::actor::{Outcome, StopReason};
use greenroom::host::{Call, Outgoing, SocketError, StreamReply};

use crate::stage::{Kind, Socket, Stage, in_time, until};

/// One test per host for each of these.
macro_rules! for_every_host {
    ($($name:ident,)*) => {
        mod in_process {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::InProcess).await; })*
        }
        mod child {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::Unix).await; })*
        }
        mod one_process_for_all {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::PerName).await; })*
        }
        mod upstream {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::Upstream).await; })*
        }
    };
}

for_every_host! {
    a_socket_is_opened_and_its_frames_are_answered_in_order_and_acknowledged,
    a_refused_socket_says_with_which_status,
    a_frame_that_is_not_taken_is_told_again_with_the_same_number,
    a_handler_that_hangs_is_given_up_and_told_again,
    sockets_do_not_wait_for_each_other,
    nothing_is_said_before_it_is_durable,
    a_close_is_told_once,
    an_answer_closes_its_socket,
    sockets_outlive_a_sleep_with_their_numbers_tags_and_attachments,
    sockets_outlive_a_crash_and_unanswered_frames_are_told_again,
    a_socket_that_only_the_gateway_knows_is_unknown,
    broadcasts_reach_those_with_the_tag,
    a_stop_finishes_the_event_that_is_being_told,
    a_wish_to_sleep_is_told_when_nothing_is_under_way,
}

async fn a_socket_is_opened_and_its_frames_are_answered_in_order_and_acknowledged(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    for n in 0..20_u16 {
        socket.frame(n + 1, "seq").await;
    }
    let mut acknowledged = 0;
    let mut answers = Vec::new();
    while acknowledged < 20 {
        match socket.stream.reply().await {
            StreamReply::Message { data, binary: false } => answers.push(String::from_utf8(data.to_vec()).unwrap()),
            StreamReply::MessageAck { index } => {
                assert!(index > acknowledged && usize::from(index) <= answers.len());
                acknowledged = index;
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = (0..20).map(|n| format!("{n}/1")).collect();
    assert_eq!(answers, expected);
    socket.feed.try_send(greenroom::host::Frame::Message { data: "b".into(), binary: true, index: 21 }).unwrap();
    assert_eq!(socket.received().await, ("b".into(), true));
}

async fn a_refused_socket_says_with_which_status(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut socket = stage.socket("/room?refuse", &[]);
    socket.opened().await;
    assert_eq!(socket.closed().await, (Some(1008), "the actor refused the socket: 403: no".into()));
    assert!(stage.storage.lock().unwrap().entries.is_empty());
}

async fn a_frame_that_is_not_taken_is_told_again_with_the_same_number(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    socket.frame(1, "fail once").await;
    socket.frame(2, "seq").await;
    assert_eq!(socket.said().await, "0/2");
    assert_eq!(socket.said().await, "1/1");
}

async fn a_handler_that_hangs_is_given_up_and_told_again(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    socket.frame(1, "hang once").await;
    assert_eq!(socket.said().await, "0/2");
}

async fn sockets_do_not_wait_for_each_other(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut slow = opened(&stage, "/room").await;
    let mut fast = opened(&stage, "/room").await;
    slow.frame(1, "wait").await;
    fast.frame(1, "seq").await;
    assert_eq!(fast.said().await, "0/1");
    stage.get("/release").await;
    assert_eq!(slow.said().await, "released");
}

async fn nothing_is_said_before_it_is_durable(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    stage.storage.lock().unwrap().away = true;
    socket.frame(1, "seq").await;
    until(|| stage.refused_writes.load(Ordering::SeqCst) > 1).await;
    assert!(socket.stream.nothing_yet());
    stage.storage.lock().unwrap().away = false;
    assert_eq!(socket.said().await, "0/1");
    assert_eq!(socket.stream.reply().await, StreamReply::MessageAck { index: 1 });
}

async fn a_close_is_told_once(kind: Kind) {
    let stage = kind.events_stage().await;
    let socket = opened(&stage, "/room").await;
    socket.frame(1, "seq").await;
    socket.close(4000, "bye").await;
    let expected = format!("{} 4000 bye\n", socket.id);
    loop {
        let closes = stage.text("/closes").await;
        if !closes.is_empty() {
            assert_eq!(closes, expected);
            break;
        }
    }
    until(|| stage.storage.lock().unwrap().entries.is_empty()).await;
    assert_eq!(stage.text("/closes").await, expected);
    assert_eq!(stage.handle.context().sockets().send(socket.id, Outgoing::text("x")).await, Err(SocketError::Unknown));
}

async fn an_answer_closes_its_socket(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    socket.frame(1, "close me").await;
    assert_eq!(socket.said().await, "last");
    assert_eq!(socket.closed().await, (Some(4001), "as you wish".into()));
    let expected = format!("{} 4001 as you wish\n", socket.id);
    until_text(&stage, "/closes", &expected).await;
}

async fn sockets_outlive_a_sleep_with_their_numbers_tags_and_attachments(kind: Kind) {
    let mut stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room?tags=a,b").await;
    socket.frame(1, "seq").await;
    assert_eq!(socket.said().await, "0/1");
    let sockets = stage.handle.context().sockets().clone();
    in_time(sockets.attach(socket.id, "who it is")).await.unwrap();
    stage.stop(StopReason::Sleep).await;
    assert_eq!(in_time(sockets.list(None)).await, Err(SocketError::Over));

    let (stage, restored, unknown) = stage.again(kind, 2, vec![socket.id]).await;
    assert_eq!((restored, unknown), (vec![(socket.id, 1)], vec![]));
    let mut socket = stage.restored(socket.id);
    socket.frame(2, "seq").await;
    assert_eq!(socket.said().await, "1/1");
    let sockets = stage.handle.context().sockets();
    let listed = in_time(sockets.list(Some("b"))).await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].path.as_str(), &listed[0].attachment[..]),
        (1, "/room?tags=a,b", &b"who it is"[..])
    );
}

async fn sockets_outlive_a_crash_and_unanswered_frames_are_told_again(kind: Kind) {
    let mut stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    socket.frame(1, "seq").await;
    assert_eq!(socket.said().await, "0/1");
    assert_eq!(socket.stream.reply().await, StreamReply::MessageAck { index: 1 });
    socket.frame(2, "wait").await;
    stage.handle.kill();
    assert_eq!(stage.ended().await, Outcome::Wanted);

    let (stage, restored, _) = stage.again(kind, 2, vec![socket.id]).await;
    assert_eq!(restored, [(socket.id, 1)]);
    let mut socket = stage.restored(socket.id);
    socket.frame(2, "seq").await;
    assert_eq!(socket.said().await, "1/1");
    assert_eq!(socket.stream.reply().await, StreamReply::MessageAck { index: 2 });
}

async fn a_socket_that_only_the_gateway_knows_is_unknown(kind: Kind) {
    let mut stage = kind.events_stage().await;
    let socket = stage.socket("/room?refuse", &[]);
    stage.stop(StopReason::Sleep).await;
    let (_stage, restored, unknown) = stage.again(kind, 2, vec![socket.id]).await;
    assert_eq!((restored, unknown), (vec![], vec![socket.id]));
}

async fn broadcasts_reach_those_with_the_tag(kind: Kind) {
    let stage = kind.events_stage().await;
    let mut first = opened(&stage, "/room?tags=a").await;
    let mut second = opened(&stage, "/room?tags=a,b").await;
    let sockets = stage.handle.context().sockets();
    assert_eq!(in_time(sockets.broadcast(Some("b"), Outgoing::text("b"))).await, Ok(1));
    assert_eq!(in_time(sockets.broadcast(None, Outgoing::text("all"))).await, Ok(2));
    assert_eq!(second.said().await, "b");
    assert_eq!(second.said().await, "all");
    assert_eq!(first.said().await, "all");
    in_time(sockets.close(first.id, 4009, "enough")).await.unwrap();
    assert_eq!(first.closed().await, (Some(4009), "enough".into()));
}

async fn a_stop_finishes_the_event_that_is_being_told(kind: Kind) {
    let mut stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    socket.frame(1, "wait").await;
    socket.frame(2, "seq").await;
    until_text(&stage, "/waiting", "yes").await;
    let release = stage.send("GET", "/release", &[], greenroom::host::Body::Whole(bytes::Bytes::new()));
    stage.handle.stop(StopReason::Drain);
    assert_eq!(socket.said().await, "released");
    assert_eq!(socket.stream.reply().await, StreamReply::MessageAck { index: 1 });
    drop(release);
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert!(socket.stream.nothing_yet(), "the socket stays open, and what follows is for the next life");
}

async fn a_wish_to_sleep_is_told_when_nothing_is_under_way(kind: Kind) {
    let mut stage = kind.events_stage().await;
    let mut socket = opened(&stage, "/room").await;
    socket.frame(1, "wait").await;
    until_text(&stage, "/waiting", "yes").await;
    stage.handle.context().sleep().await.unwrap();
    stage.get("/release").await;
    assert!(matches!(stage.next().await, Call::Sleep(_)));
    assert_eq!(socket.said().await, "released");
    assert_eq!(socket.stream.reply().await, StreamReply::MessageAck { index: 1 });
}

async fn opened(stage: &Stage, path: &str) -> Socket {
    let mut socket = stage.socket(path, &[("cookie", "a=1"), ("actor-event", "spoofed")]);
    assert_eq!(socket.stream.reply().await, StreamReply::Open { can_hibernate: true });
    assert_eq!(socket.said().await, "hello");
    socket
}

async fn until_text(stage: &Stage, path: &str, expected: &str) {
    in_time(async {
        while stage.text(path).await != expected {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
