//! Sockets that outlive an actor's process.

use std::time::Duration;

use bytes::Bytes;
use greenroom::protocol::{
    ActorConfig, Command, CommandWrapper, Event, Features, KvRequest, KvResponse, StreamId, ToClient, ToClientTunnel,
    ToServer, ToServerTunnel,
};
use greenroom::session::{Effect, Input};
use greenroom::stream::{StreamKey, StreamReply};

use crate::stage::*;

#[test]
fn a_socket_that_hibernates_survives_every_end_that_is_no_destroy() {
    for end in ["sleep", "crash", "move", "drain"] {
        let (mut stage, lasting) = with_lasting_socket();
        let plain = stage.websocket(stream(2), 0, "a").expect("it opens");
        stage.reply(plain, StreamReply::Open { can_hibernate: false });
        let effects = match end {
            "sleep" => {
                stage.handle(Input::Sleep(key("a", 0)));
                stage.stop("a", 0, 1);
                stage.end("a", 0)
            }
            "crash" => stage.crash("a", 0),
            "drain" => {
                stage.drain(secs(12));
                stage.stop("a", 0, 1);
                stage.end("a", 0)
            }
            _ => {
                stage.stop("a", 0, 1);
                stage.end("a", 0)
            }
        };
        assert!(effects.contains(&Effect::Cancel { stream: lasting }), "{end}: the runner lets go of it");
        let closed: Vec<StreamId> = tunnelled(&effects).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(closed, [stream(2)], "{end}: only the socket that does not hibernate is closed");
        assert!(!events_of(&effects, "a").is_empty(), "{end}");
    }
}

#[test]
fn an_actor_that_destroys_itself_closes_its_sockets_before_its_end_is_told() {
    let (mut stage, lasting) = with_lasting_socket();
    stage.handle(Input::Destroy(key("a", 0)));
    stage.stop("a", 0, 1);
    let effects = stage.end("a", 0);
    assert_eq!(tunnelled(&effects), [(lasting.id, 1, close(1000, "actor.stopped"))]);
    let order: Vec<bool> = sent(&effects).iter().map(|sent| matches!(sent, ToServer::Events(_))).collect();
    assert_eq!(order, [false, true]);
}

#[test]
fn a_life_goes_on_where_an_earlier_one_stopped() {
    let (mut stage, _) = with_lasting_socket();
    let socket = restored(&mut stage, 41);
    assert_eq!(stage.frame(socket.id, 41), [ack(socket.id, 0, 41)], "taken before: its acknowledgement was lost");
    assert_eq!(stage.frame(socket.id, 40), [], "and what came before it");
    assert!(
        matches!(stage.frame(socket.id, 42)[..], [Effect::WebSocketMessage { stream, index: 42, .. }] if stream == socket)
    );
    assert_eq!(stage.frame(socket.id, 42), [], "given to the actor, and not taken yet");
    assert_eq!(stage.session.unacknowledged_messages(), 1);
    assert_eq!(stage.reply(socket, StreamReply::MessageAck { index: 43 }), [], "never given");
    assert_eq!(stage.reply(socket, StreamReply::MessageAck { index: 42 }), [ack(socket.id, 1, 42)]);
    assert_eq!(stage.session.unacknowledged_messages(), 0);
    assert_eq!(stage.reply(socket, StreamReply::MessageAck { index: 41 }), [], "an older one says nothing new");
}

#[test]
fn indexes_wrap_over_lives() {
    let (mut stage, _) = with_lasting_socket();
    let socket = restored(&mut stage, 65_534);
    for index in [65_535, 0, 1] {
        assert!(matches!(stage.frame(socket.id, index)[..], [Effect::WebSocketMessage { .. }]), "{index}");
        assert_eq!(tunnelled(&stage.reply(socket, StreamReply::MessageAck { index })).len(), 1, "{index}");
    }
    assert_eq!(stage.frame(socket.id, 65_535), [], "long taken");
    assert_eq!(tunnelled(&stage.frame(socket.id, 1)).len(), 1, "the last one taken");
}

#[test]
fn what_an_actor_says_before_the_engine_listens_is_held_back() {
    let (mut stage, _) = with_lasting_socket();
    stage.crash("a", 0);
    start_with(&mut stage, 1, &[stream(1), stream(3)]);
    let effects = stage.handle(Input::Restored {
        actor: key("a", 1),
        sockets: vec![(stream(1), 7), (stream(3), 9)],
        unknown: vec![],
    });
    let [first, second] = restored_in(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(stage.reply(first, text("before it runs")), []);
    stage.run("a", 1);
    assert_eq!(stage.reply(second, text("hello")), []);
    // The waking message proves that its socket is attached; the quiet one has to wait.
    let effects = stage.frame(first.id, 8);
    assert!(matches!(effects[0], Effect::WebSocketMessage { index: 8, .. }));
    assert_eq!(tunnelled(&effects), [(first.id, 0, message("before it runs"))]);
    assert_eq!(tunnelled(&stage.reply(first, text("at once"))), [(first.id, 1, message("at once"))]);
    assert_eq!(tunnelled(&stage.pass(millis(499))), []);
    assert_eq!(tunnelled(&stage.pass(millis(1))), [(second.id, 0, message("hello"))]);
    assert_eq!(tunnelled(&stage.reply(second, text("more"))), [(second.id, 1, message("more"))]);
}

#[test]
fn our_own_gateway_listens_from_the_start() {
    let mut stage = Stage::with_actor();
    let socket = stage.websocket(stream(1), 0, "a").expect("it opens");
    stage.reply(socket, StreamReply::Open { can_hibernate: true });
    let socket = restored_by_crash(&mut stage, 0);
    assert_eq!(tunnelled(&stage.reply(socket, text("hello"))).len(), 1);
    stage.cut();
    let effects = stage.reconnect();
    assert_eq!(tunnelled(&effects), []);
    let asked = stage.pass(secs(3));
    assert!(!tunnelled(&asked).iter().any(|(.., said)| *said == attach_anew()), "it sends what it keeps by itself");
}

#[test]
fn after_a_reconnect_our_own_gateway_is_asked_for_every_socket_because_it_may_be_another() {
    let mut stage = Stage::with_actor();
    let lasting = stage.websocket(stream(1), 0, "a").expect("it opens");
    stage.reply(lasting, StreamReply::Open { can_hibernate: true });
    let plain = stage.websocket(stream(2), 0, "a").expect("it opens");
    stage.reply(plain, StreamReply::Open { can_hibernate: false });
    stage.cut();
    stage.reconnect();
    let asked: Vec<_> = tunnelled(&stage.pass(millis(100))).into_iter().map(|(id, _, said)| (id, said)).collect();
    let ack = || ToServerTunnel::WebSocketMessageAck { index: 0 };
    assert_eq!(asked, [(stream(1), ack()), (stream(2), ack())]);
    let lost = ToClientTunnel::WebSocketClose { code: Some(1011), reason: None };
    let effects = stage.tunnel(lasting.id, 0, lost);
    assert!(matches!(effects[..], [Effect::WebSocketClosed { code: Some(1011), .. }]), "{effects:?}");
    assert_eq!(tunnelled(&stage.pass(millis(100))), []);
}

#[test]
fn too_much_held_back_closes_the_socket_with_a_reason() {
    let (mut stage, _) = with_lasting_socket();
    let socket = restored(&mut stage, 0);
    let big = StreamReply::Message { data: Bytes::from(vec![0; 10 << 20]), binary: true };
    let mut effects = Vec::new();
    for _ in 0..7 {
        effects.extend(stage.reply(socket, big.clone()));
    }
    assert!(matches!(&effects[..], [Effect::WebSocketClosed { code: Some(1013), .. }]), "{effects:?}");
    let told = tunnelled(&stage.pass(secs(1)));
    assert!(matches!(&told[0].2, ToServerTunnel::WebSocketClose { code: Some(1013), .. }), "{told:?}");
}

#[test]
fn missing_messages_are_asked_for_before_a_socket_is_given_up() {
    let (mut stage, socket) = with_lasting_socket();
    stage.frame(socket.id, 1);
    assert_eq!(stage.frame(socket.id, 3), [asks(socket.id, 1)]);
    assert_eq!(stage.frame(socket.id, 4), [], "sent before the gateway was asked");
    assert_eq!(stage.reply(socket, StreamReply::MessageAck { index: 1 }), [], "held back: it would be lost");
    // Everything kept comes again, from the oldest that was not acknowledged.
    assert_eq!(
        tunnelled(&stage.frame(socket.id, 1)),
        [(socket.id, 2, ToServerTunnel::WebSocketMessageAck { index: 1 })]
    );
    for index in 2..=4 {
        assert!(matches!(stage.frame(socket.id, index)[..], [Effect::WebSocketMessage { .. }]), "{index}");
    }
    // A gateway that does not have what is missing.
    let mut asked = tunnelled(&stage.frame(socket.id, 6)).len();
    let mut effects = Vec::new();
    while !effects.iter().any(|effect| matches!(effect, Effect::WebSocketClosed { .. })) {
        effects = stage.pass(millis(500));
        asked += tunnelled(&effects).len();
    }
    assert_eq!(asked, 4, "three questions and the close");
    assert!(tunnelled(&effects).iter().any(|(.., told)| *told == close(1008, "ws.message_index_skip")));
}

#[test]
fn an_opening_that_was_lost_leaves_no_gap_in_what_the_client_says() {
    for (opened, first) in [(0, 2), (1, 3), (2, 8)] {
        for later_life in [false, true] {
            let mut stage = Stage::open_to(Features::default()).and_actor();
            let mut socket = stage.websocket(stream(1), opened, "a").expect("it opens");
            stage.reply(socket, StreamReply::Open { can_hibernate: true });
            if later_life {
                socket = restored(&mut stage, opened);
                stage.pass(secs(1));
            }
            assert_eq!(tunnelled(&stage.frame(socket.id, first)).len(), 1, "it is asked for what is missing");
            assert_eq!(stage.frame(socket.id, first + 1), [], "sent before that");
            for _ in 0..3 {
                let effects = tunnelled(&stage.frame(socket.id, first));
                assert!(matches!(&effects[..], [(_, _, asked)] if *asked == attach_anew()), "{effects:?}");
            }
            let effects = stage.frame(socket.id, first);
            assert!(matches!(effects[..], [Effect::WebSocketMessage { index, .. }] if index == first), "{effects:?}");
            assert!(matches!(stage.frame(socket.id, first + 1)[..], [Effect::WebSocketMessage { .. }]));
            let told = tunnelled(&stage.reply(socket, StreamReply::MessageAck { index: first }));
            assert!(matches!(told[..], [(_, _, ToServerTunnel::WebSocketMessageAck { index })] if index == first));
            assert!(!stage.pass(secs(20)).iter().any(|effect| matches!(effect, Effect::WebSocketClosed { .. })));
        }
    }
}

#[test]
fn an_engine_that_began_to_count_again_with_an_opening_that_was_lost_is_followed() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let socket = stage.websocket(stream(1), 3, "a").expect("it opens");
    stage.reply(socket, StreamReply::Open { can_hibernate: true });
    for index in 1..=4 {
        let effects = stage.frame(socket.id, index);
        assert!(
            matches!(effects[..], [Effect::WebSocketMessage { index: given, .. }] if given == index),
            "{effects:?}"
        );
        assert_eq!(stage.reply(socket, StreamReply::MessageAck { index }).len(), 1);
    }
}

#[test]
fn an_answer_that_the_engine_takes_for_one_to_a_later_opening_keeps_the_socket() {
    let (mut stage, first) = with_lasting_socket();
    let second = stage.websocket(first.id, 1, "a").expect("it opens once more");
    stage.handle(Input::Sleep(key("a", 0)));
    assert_eq!(stage.frame(second.id, 2), [], "it wants to sleep");
    stage.stop("a", 0, 1);
    assert_eq!(tunnelled(&stage.end("a", 0)), [], "the next life goes on with it");
    let socket = restored_as(&mut stage, 1, 1);
    assert!(matches!(stage.frame(socket.id, 2)[..], [Effect::WebSocketMessage { index: 2, .. }]));
}

#[test]
fn a_gap_behind_messages_is_never_taken_for_a_lost_opening() {
    let (mut stage, socket) = with_lasting_socket();
    stage.frame(socket.id, 1);
    for _ in 0..10 {
        let effects = stage.frame(socket.id, 3);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::WebSocketMessage { .. })), "{effects:?}");
    }
}

#[test]
fn a_life_that_wants_to_sleep_is_not_punished_for_what_it_misses() {
    let (mut stage, socket) = with_lasting_socket();
    assert_eq!(stage.frame(socket.id, 2), [asks(socket.id, 1)]);
    stage.handle(Input::Sleep(key("a", 0)));
    for index in 1..=3 {
        assert_eq!(stage.frame(socket.id, index), [], "it comes again for the next life");
    }
    assert_eq!(tunnelled(&stage.pass(secs(30))), []);
    stage.stop("a", 0, 1);
    assert_eq!(tunnelled(&stage.end("a", 0)), []);
    let socket = restored_as(&mut stage, 1, 0);
    assert!(matches!(stage.frame(socket.id, 1)[..], [Effect::WebSocketMessage { index: 1, .. }]));
}

#[test]
fn a_slow_connection_is_given_longer_for_missing_messages_each_time() {
    let (mut stage, socket) = with_lasting_socket();
    stage.frame(socket.id, 1);
    assert_eq!(stage.frame(socket.id, 3), [asks(socket.id, 1)]);
    for (wait, index) in [(millis(500), 2), (secs(2), 3)] {
        assert_eq!(tunnelled(&stage.pass(wait - millis(1))), []);
        assert_eq!(stage.pass(millis(1)), [asks(socket.id, index)]);
    }
    assert_eq!(tunnelled(&stage.pass(secs(8) - millis(1))), []);
    // What the first question brings arrives in time.
    for index in 2..=3 {
        let effects = stage.frame(socket.id, index);
        assert!(matches!(effects[0], Effect::WebSocketMessage { .. }), "{effects:?}");
    }
    let effects = stage.pass(secs(8));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::WebSocketClosed { .. })), "{effects:?}");
}

#[test]
fn after_a_cut_the_engine_is_asked_for_what_nobody_may_ever_show_to_be_missing() {
    let (mut stage, socket) = with_lasting_socket();
    for number in 10..90 {
        let socket = stage.websocket(stream(number), 0, "a").expect("it opens");
        stage.reply(socket, StreamReply::Open { can_hibernate: true });
    }
    stage.frame(socket.id, 1);
    stage.frame(socket.id, 2);
    stage.cut();
    assert_eq!(stage.reply(socket, StreamReply::MessageAck { index: 1 }), []);
    assert_eq!(stage.reply(socket, StreamReply::MessageAck { index: 2 }), []);
    assert_eq!(stage.reply(socket, text("meanwhile")), []);
    let effects = stage.reconnect();
    let acked = ToServerTunnel::WebSocketMessageAck { index: 2 };
    assert_eq!(tunnelled(&effects), [(socket.id, 1, message("meanwhile")), (socket.id, 2, acked)], "only the newest");
    let first = tunnelled(&stage.pass(millis(100)));
    assert_eq!(first[0], (socket.id, 3, attach_anew()));
    assert_eq!(first.len(), 64, "not all at once: the engine loses messages of bursts");
    assert_eq!(tunnelled(&stage.pass(millis(100))).len(), 17);
    assert_eq!(tunnelled(&stage.pass(secs(10))), []);
    assert!(matches!(stage.frame(socket.id, 3)[..], [Effect::WebSocketMessage { index: 3, .. }]));
}

#[test]
fn nothing_is_given_to_an_actor_that_wants_to_sleep() {
    let (mut stage, socket) = with_lasting_socket();
    assert!(!stage.frame(socket.id, 1).is_empty());
    let effects = stage.handle(Input::Sleep(key("a", 0)));
    assert_eq!(events_of(&effects, "a"), [(0, 1, Event::SleepIntent)]);
    assert_eq!(stage.frame(socket.id, 2), []);
    stage.stop("a", 0, 1);
    assert_eq!(stage.frame(socket.id, 3), []);
    stage.end("a", 0);
    let socket = restored_as(&mut stage, 1, 1);
    assert!(matches!(stage.frame(socket.id, 2)[..], [Effect::WebSocketMessage { index: 2, .. }]));
}

#[test]
fn a_close_behind_what_a_life_was_not_given_comes_to_the_next_one_in_its_place() {
    let mut stage = Stage::with_actor();
    let socket = stage.websocket(stream(1), 0, "a").expect("it opens");
    stage.reply(socket, StreamReply::Open { can_hibernate: true });
    stage.handle(Input::Sleep(key("a", 0)));
    assert_eq!(stage.frame(socket.id, 1), [], "it wants to sleep");
    let bye = ToClientTunnel::WebSocketClose { code: Some(4001), reason: Some("bye".into()) };
    stage.tunnel(socket.id, 2, bye.clone());
    assert_eq!(stage.tunnel(socket.id, 2, bye.clone()), [], "once more, after a reconnect");
    stage.stop("a", 0, 1);
    stage.end("a", 0);
    let socket = restored_as(&mut stage, 1, 0);
    assert!(matches!(stage.frame(socket.id, 1)[..], [Effect::WebSocketMessage { index: 1, .. }]));
    assert!(matches!(stage.tunnel(socket.id, 2, bye)[..], [Effect::WebSocketClosed { code: Some(4001), .. }]));
}

#[test]
fn a_sleep_waits_until_everything_was_said() {
    let (mut stage, _) = with_lasting_socket();
    let socket = restored(&mut stage, 0);
    stage.reply(socket, text("good night"));
    assert_eq!(stage.handle(Input::Sleep(key("a", 1))), []);
    let effects = stage.pass(millis(500));
    assert_eq!(tunnelled(&effects), [(socket.id, 0, message("good night"))]);
    assert_eq!(events_of(&effects, "a"), [(1, 1, Event::SleepIntent)]);

    stage.crash("a", 1);
    let socket = restored_as(&mut stage, 2, 0);
    stage.reply(socket, text("good night"));
    stage.handle(Input::Sleep(key("a", 2)));
    let effects = stage.end("a", 2);
    let told: Vec<Event> = events_of(&effects, "a").into_iter().map(|(.., event)| event).collect();
    assert_eq!(told, [Event::SleepIntent, stopped_ok()], "an end that comes first takes the wish along");
    assert_eq!(tunnelled(&effects).len(), 1);
}

#[test]
fn a_socket_that_nobody_knows_is_closed_once_the_gateway_listens_and_again_if_it_did_not() {
    let mut stage = Stage::open_to(Features::default());
    start_with(&mut stage, 1, &[stream(1)]);
    stage.frame(stream(1), 1);
    let restored = Input::Restored { actor: key("a", 1), sockets: vec![], unknown: vec![stream(1)] };
    assert_eq!(stage.handle(restored), [], "too early: the engine would lose it");
    assert_eq!(tunnelled(&stage.frame(stream(1), 1)), []);
    assert_eq!(tunnelled(&stage.run("a", 1)), []);
    let unknown = close(1000, "ws.meta_not_found_during_restore");
    assert_eq!(tunnelled(&stage.pass(millis(500))), [(stream(1), 0, unknown.clone())]);
    assert_eq!(tunnelled(&stage.frame(stream(1), 1)), [(stream(1), 1, unknown.clone())]);
    assert_eq!(tunnelled(&stage.pass(secs(1))), [(stream(1), 2, unknown)]);
    stage.tunnel(stream(1), 2, ToClientTunnel::WebSocketClose { code: Some(1000), reason: None });
    assert_eq!(tunnelled(&stage.pass(secs(10))), []);
    assert_eq!(stage.frame(stream(1), 3), []);
}

#[test]
fn a_close_that_comes_before_the_socket_is_known_reaches_the_life_once() {
    for early in ["between lives", "while it starts", "while it stops"] {
        let (mut stage, socket) = with_lasting_socket();
        let bye = ToClientTunnel::WebSocketClose { code: Some(4001), reason: Some("bye".into()) };
        if early == "while it stops" {
            stage.handle(Input::Sleep(key("a", 0)));
            let effects = stage.tunnel(socket.id, 2, bye.clone());
            assert!(matches!(effects[..], [Effect::WebSocketClosed { .. }]), "it may still take note");
        }
        stage.crash("a", 0);
        if early == "between lives" {
            assert_eq!(stage.tunnel(socket.id, 2, bye.clone()), []);
        }
        start_with(&mut stage, 1, &[]);
        if early == "while it starts" {
            assert_eq!(stage.tunnel(socket.id, 2, bye), []);
        }
        let restored = || Input::Restored { actor: key("a", 1), sockets: vec![(socket.id, 1)], unknown: vec![] };
        let effects = stage.handle(restored());
        let [Effect::WebSocketRestored { .. }, Effect::WebSocketClosed { code, reason, .. }] = &effects[..] else {
            panic!("{early}: {effects:?}")
        };
        assert_eq!((*code, reason.as_deref()), (Some(4001), Some("bye")), "{early}");
        assert_eq!(stage.handle(restored()).len(), 1, "{early}: told once");
    }
}

#[test]
fn a_deleted_actors_sockets_are_closed_and_those_of_a_moved_one_are_not() {
    for (destroyed, quick) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut stage, socket) = with_lasting_socket();
        let effects = stage.stop("a", 0, 1);
        let [(id, KvRequest::Get { .. })] = asked(&effects)[..] else { panic!("{effects:?}") };
        let answer = if destroyed {
            KvResponse::Error { message: "actor does not exist".into() }
        } else {
            KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] }
        };
        let mut effects = Vec::new();
        if quick {
            effects.extend(stage.kv_answer(id, answer));
            effects.extend(stage.end("a", 0));
        } else {
            effects.extend(stage.end("a", 0));
            effects.extend(stage.kv_answer(id, answer));
        }
        let told: Vec<_> = tunnelled(&effects).into_iter().map(|(id, _, message)| (id, message)).collect();
        let expected = if destroyed { vec![(socket.id, close(1000, "actor.destroyed"))] } else { vec![] };
        assert_eq!(told, expected, "destroyed: {destroyed}, answered before the end: {quick}");
    }
}

#[test]
fn an_actor_whose_storage_goes_only_after_its_stop_is_found_deleted() {
    let there = || KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] };
    for late in 1..=3 {
        let (mut stage, socket) = with_lasting_socket();
        let mut effects = stage.stop("a", 0, 1);
        effects.extend(stage.end("a", 0));
        for _ in 0..late {
            let [(id, KvRequest::Get { .. })] = asked(&effects)[..] else { panic!("{effects:?}") };
            assert_eq!(tunnelled(&stage.kv_answer(id, there())), []);
            effects = stage.pass(Duration::from_secs(4));
        }
        let [(id, _)] = asked(&effects)[..] else { panic!("{effects:?}") };
        let gone = KvResponse::Error { message: "actor does not exist".into() };
        let told: Vec<_> = tunnelled(&stage.kv_answer(id, gone)).into_iter().map(|(id, _, told)| (id, told)).collect();
        assert_eq!(told, [(socket.id, close(1000, "actor.destroyed"))], "{late}");
    }
}

#[test]
fn whether_an_actor_was_deleted_is_asked_a_bounded_number_of_times_and_not_once_its_sockets_go_on() {
    let there = || KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] };
    for wakes in [false, true] {
        let (mut stage, socket) = with_lasting_socket();
        let mut effects = stage.stop("a", 0, 1);
        effects.extend(stage.end("a", 0));
        let mut times = 0;
        while let [(id, _)] = asked(&effects)[..] {
            times += 1;
            if wakes {
                start_with(&mut stage, 1, &[socket.id]);
                stage.handle(Input::Restored { actor: key("a", 1), sockets: vec![(socket.id, 0)], unknown: vec![] });
            }
            assert_eq!(tunnelled(&stage.kv_answer(id, there())), []);
            effects = stage.pass(Duration::from_secs(10));
        }
        assert_eq!(times, if wakes { 1 } else { 4 });
    }
}

#[test]
fn a_message_for_an_actor_that_is_no_more_lets_the_engine_find_that_out() {
    let (mut stage, socket) = with_lasting_socket();
    stage.crash("a", 0);
    for _ in 0..3 {
        assert_eq!(tunnelled(&stage.frame(socket.id, 1)), [(socket.id, 0, attach_anew())]);
    }
    assert_eq!(stage.frame(socket.id, 1), [], "not for ever");
    start_with(&mut stage, 1, &[socket.id]);
    assert_eq!(stage.frame(socket.id, 1), [], "the next life will have it");
}

#[test]
fn a_lost_gateway_takes_sockets_without_a_word() {
    let (mut stage, socket) = with_lasting_socket();
    stage.cut();
    let effects = stage.pass(LOST_AFTER);
    assert!(effects.contains(&Effect::Cancel { stream: socket }));
    let effects = stage.reconnect();
    assert_eq!(tunnelled(&effects), []);
}

#[test]
fn a_socket_opened_anew_for_this_life_is_not_restored() {
    let mut stage = Stage::open_to(Features::default());
    start_with(&mut stage, 1, &[]);
    let fresh = stage.websocket(stream(1), 3, "a").expect("it opens");
    let restored = Input::Restored { actor: key("a", 1), sockets: vec![(stream(1), 9)], unknown: vec![stream(1)] };
    assert_eq!(stage.handle(restored), []);
    assert!(matches!(stage.frame(stream(1), 4)[..], [Effect::WebSocketMessage { stream, .. }] if stream == fresh));
}

#[test]
fn a_close_said_too_early_is_said_again_when_the_gateway_listens() {
    let (mut stage, _) = with_lasting_socket();
    let socket = restored(&mut stage, 0);
    stage.reply(socket, text("bye"));
    assert_eq!(stage.reply(socket, StreamReply::Close { code: Some(4000), reason: Some("done".into()) }), []);
    assert_eq!(stage.handle(Input::Sleep(key("a", 1))), [], "after that");
    let effects = stage.pass(millis(500));
    let told = [(socket.id, 0, message("bye")), (socket.id, 1, close(4000, "done"))];
    assert_eq!(tunnelled(&effects), told);
    assert_eq!(events_of(&effects, "a"), [(1, 1, Event::SleepIntent)]);
}

/// An actor on an engine, with a socket that hibernates.
fn with_lasting_socket() -> (Stage, StreamKey) {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let socket = stage.websocket(stream(1), 0, "a").expect("it opens");
    stage.reply(socket, StreamReply::Open { can_hibernate: true });
    (stage, socket)
}

/// Ends the life and starts the next, which goes on with the socket from this index.
fn restored(stage: &mut Stage, last_in: u16) -> StreamKey {
    restored_by_crash(stage, last_in)
}

fn restored_by_crash(stage: &mut Stage, last_in: u16) -> StreamKey {
    stage.crash("a", 0);
    restored_as(stage, 1, last_in)
}

fn restored_as(stage: &mut Stage, generation: u32, last_in: u16) -> StreamKey {
    start_with(stage, generation, &[stream(1)]);
    let actor = key("a", generation);
    let effects = stage.handle(Input::Restored { actor, sockets: vec![(stream(1), last_in)], unknown: vec![] });
    stage.run("a", generation);
    restored_in(&effects)[0]
}

fn restored_in(effects: &[Effect]) -> Vec<StreamKey> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::WebSocketRestored { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect()
}

fn start_with(stage: &mut Stage, generation: u32, hibernating: &[StreamId]) {
    let config = ActorConfig { name: "counter".into(), key: None, create_ts: 1, input: None };
    let command = Command::Start { config, hibernating: hibernating.to_vec() };
    let wrapper = CommandWrapper { checkpoint: checkpoint("a", generation, 0), command };
    let effects = stage.receive(ToClient::Commands(vec![wrapper]));
    assert_eq!(started(&effects), [key("a", generation)]);
}

fn ack(id: StreamId, index: u16, taken: u16) -> Effect {
    tunnel(id, index, ToServerTunnel::WebSocketMessageAck { index: taken })
}

fn asks(id: StreamId, index: u16) -> Effect {
    tunnel(id, index, attach_anew())
}

fn tunnel(stream: StreamId, index: u16, message: ToServerTunnel) -> Effect {
    Effect::Send(ToServer::Tunnel { id: greenroom::protocol::MessageId { stream, index }, message })
}

fn attach_anew() -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: None, reason: None, hibernate: true }
}

fn close(code: u16, reason: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: Some(code), reason: Some(reason.into()), hibernate: false }
}

fn text(text: &'static str) -> StreamReply {
    StreamReply::Message { data: Bytes::from_static(text.as_bytes()), binary: false }
}

fn message(text: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketMessage { data: Bytes::from_static(text.as_bytes()), binary: false }
}
