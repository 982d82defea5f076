use greenroom::actor::StopReason;
use greenroom::protocol::{KvRequest, ToClient, ToServer};
use greenroom::session::{DialFailure, Effect, Exit, Input, LinkStatus};

use crate::stage::*;

#[test]
fn a_session_dials_introduces_itself_and_is_open() {
    let mut stage = Stage::new();
    assert_eq!(stage.effects(), [Effect::Dial]);
    assert_eq!(stage.session.link_status(), LinkStatus::Dialing);

    let features = stage.features;
    let effects = stage.handle(Input::Dialed { features });
    assert!(matches!(sent(&effects)[..], [ToServer::Init(init)] if &*init.name == "pool"), "{effects:?}");
    assert_eq!(stage.session.link_status(), LinkStatus::Greeting);

    assert_eq!(stage.greet(), [Effect::Connected { runner_id: "runner-1".into(), lost_after: LOST_AFTER }]);
    assert_eq!(stage.session.link_status(), LinkStatus::Open);
}

#[test]
fn an_unreachable_gateway_is_dialled_for_ever_with_growing_waits() {
    let mut stage = Stage::new();
    stage.effects();
    let mut waits = Vec::new();
    for _ in 0..10 {
        let effects = stage.handle(Input::DialFailed(DialFailure("refused".into())));
        let [Effect::Disconnected { retry_in, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(stage.pass(retry_in - millis(1)), []);
        assert_eq!(stage.pass(millis(1)), [Effect::Dial], "exactly when it was announced");
        waits.push(retry_in);
    }
    for (wait, base) in waits.into_iter().zip([1, 2, 4, 8, 16, 30, 30, 30, 30, 30].map(secs)) {
        assert!(wait >= base && wait <= base.mul_f64(1.25), "{wait:?} instead of about {base:?}");
    }
}

#[test]
fn no_second_socket_is_asked_for_while_one_exists() {
    let mut stage = Stage::open();
    let features = stage.features;
    assert_eq!(stage.handle(Input::Dialed { features }), []);
    assert_eq!(stage.handle(Input::DialFailed(DialFailure("late".into()))), []);
    assert_eq!(stage.pass(secs(3600)), []);
    assert_eq!(stage.greet(), [], "a second init changes nothing");
}

#[test]
fn a_gateway_that_does_not_greet_is_left_and_dialled_again() {
    let mut stage = Stage::new();
    stage.effects();
    let features = stage.features;
    stage.handle(Input::Dialed { features });
    assert_eq!(stage.pass(secs(10)), [Effect::Hangup { code: 1002, reason: "runner.no_init" }]);
    assert_eq!(stage.greet(), [], "too late");
    assert_eq!(stage.pass(secs(60)), [], "the socket is still there, so no dial");
    assert!(matches!(stage.cut()[..], [Effect::Disconnected { .. }]));
    stage.reconnect();
    assert_eq!(stage.session.link_status(), LinkStatus::Open);
}

#[test]
fn nothing_but_an_init_is_taken_before_the_init() {
    let mut stage = Stage::new();
    stage.effects();
    let features = stage.features;
    stage.handle(Input::Dialed { features });
    assert_eq!(stage.receive(ToClient::Ping { ts: 1 }), []);
    assert_eq!(stage.start("a", 0, 0), []);
    assert_eq!(stage.tunnel(stream(1), 0, request_start("a")), []);
    stage.greet();
    assert_eq!(stage.receive(ToClient::Ping { ts: 2 }), [Effect::Send(ToServer::Pong { ts: 2 })]);
}

#[test]
fn the_backoff_starts_afresh_only_after_a_connection_that_held() {
    let mut stage = Stage::open();
    // Accepted and dropped at once, again and again.
    let mut last = secs(0);
    for attempt in 0..8 {
        let effects = stage.cut();
        let [Effect::Disconnected { retry_in, .. }] = effects[..] else { panic!("{effects:?}") };
        assert!(retry_in > last || attempt > 2, "{retry_in:?} after {last:?}");
        // Never so long that the gateway would give the actors up.
        assert!(retry_in <= secs(5), "{retry_in:?}");
        last = retry_in;
        stage.reconnect();
    }
    stage.pass(secs(5));
    let effects = stage.cut();
    assert!(matches!(effects[..], [Effect::Disconnected { retry_in, .. }] if retry_in <= millis(1250)), "{effects:?}");
}

#[test]
fn a_gateway_that_goes_away_is_dialled_again_at_once() {
    let mut stage = Stage::with_actor();
    stage.pass(secs(10));
    let effects = stage.close(1011, "ws.going_away#ray");
    assert!(matches!(effects[..], [Effect::Disconnected { retry_in, .. }] if retry_in == millis(100)), "{effects:?}");
    stage.reconnect();
    // One that does so again and again is not hammered.
    let effects = stage.close(1011, "ws.going_away#ray");
    assert!(matches!(effects[..], [Effect::Disconnected { retry_in, .. }] if retry_in >= secs(1)), "{effects:?}");
}

#[test]
fn an_eviction_ends_the_session_instead_of_fighting() {
    let mut stage = Stage::with_actor();
    stage.kv("a", 0, KvRequest::Drop);
    let effects = stage.close(1000, "ws.eviction#ray9");
    assert_eq!(answers(&effects).len(), 1);
    let Some(Exit::Refused(reason)) = exit_of(&effects) else { panic!("{effects:?}") };
    assert!(reason.contains("--runner-key") && reason.contains("ray9"), "{reason}");
    assert!(matches!(effects.last(), Some(Effect::Exit(_))), "nothing follows an exit");
    assert_eq!(stage.session.poll_timeout(), None);
    assert_eq!(stage.pass(secs(3600)), []);
}

#[test]
fn every_refusal_for_good_says_what_to_do() {
    for (reason, word) in [
        ("ws.eviction#r", "--runner-key"),
        ("namespace.not_found#r", "--namespace"),
        ("api.forbidden#r", "--token-file"),
        ("api.unauthorized", "--token-file"),
        ("guard.missing_header#r", "--token-file"),
        ("ws.invalid_url#r", "--protocol-version"),
    ] {
        let mut stage = Stage::new();
        stage.effects();
        let features = stage.features;
        stage.handle(Input::Dialed { features });
        let exit = exit_of(&stage.close(1011, reason));
        assert!(matches!(&exit, Some(Exit::Refused(text)) if text.contains(word)), "{reason}: {exit:?}");
    }
}

#[test]
fn a_gateway_that_was_just_started_may_not_know_the_namespace_yet() {
    let mut stage = Stage::new();
    stage.effects();
    stage.handle(Input::DialFailed(DialFailure("connection refused".into())));
    let features = stage.features;
    for _ in 0..3 {
        assert!(stage.pass(secs(60)).contains(&Effect::Dial));
        stage.handle(Input::Dialed { features });
        let effects = stage.close(1011, "namespace.not_found#r");
        assert!(matches!(effects[..], [Effect::Disconnected { .. }]), "{effects:?}");
    }
    assert!(stage.pass(secs(60)).contains(&Effect::Dial));
    stage.handle(Input::Dialed { features });
    let exit = exit_of(&stage.close(1011, "namespace.not_found#r"));
    assert!(matches!(exit, Some(Exit::Refused(_))), "not for ever: {exit:?}");
}

#[test]
fn after_the_end_only_storage_requests_are_answered() {
    let mut stage = Stage::with_actor();
    stage.start("a", 1, 1);
    stage.close(1000, "ws.eviction");
    assert_eq!(stage.end("a", 0), [], "the waiting life does not start any more");
    assert_eq!(stage.start("b", 0, 0), []);
    let (ticket, effects) = stage.kv("a", 1, KvRequest::Drop);
    assert!(matches!(answers(&effects)[..], [(answered, Err(_))] if answered == ticket));
}

#[test]
fn actors_are_stopped_exactly_when_the_gateway_gives_them_up() {
    let mut stage = Stage::with_actor();
    let (read, _) = stage.kv("a", 0, KvRequest::Get { keys: vec![] });
    stage.request(stream(1), "a");
    stage.cut();
    let dials = stage.pass(LOST_AFTER - millis(1));
    assert!(stopped(&dials).is_empty() && !dials.contains(&Effect::Lost), "{dials:?}");
    let effects = stage.pass(millis(1));
    assert!(effects.contains(&Effect::Lost));
    assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Lost)]);
    assert_eq!(answers(&effects).iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [read]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Cancel { .. })));
}

#[test]
fn a_failed_attempt_to_come_back_does_not_restart_the_clock_of_the_lost() {
    let mut stage = Stage::with_actor();
    stage.cut();
    stage.until_dial();
    let features = stage.features;
    stage.handle(Input::Dialed { features });
    stage.cut();
    let effects = stage.pass(LOST_AFTER);
    assert!(effects.contains(&Effect::Lost));
}

#[test]
fn a_gateway_that_is_back_in_time_finds_its_actors_running() {
    let mut stage = Stage::with_actor();
    stage.cut();
    stage.pass(millis(1));
    let effects = stage.reconnect();
    stage.pass(LOST_AFTER * 3);
    assert!(stopped(&effects).is_empty());
    assert_eq!(stage.session.live_actors(), 1);
}

#[test]
fn a_lost_actor_whose_gateway_comes_back_is_reported_as_failed() {
    let mut stage = Stage::with_actor();
    stage.cut();
    // The dials meanwhile fail.
    while stage.session.live_actors() > 0 {
        for effect in stage.pass(millis(500)) {
            match effect {
                Effect::Dial => drop(stage.handle(Input::DialFailed(DialFailure("refused".into())))),
                Effect::Stop { key, .. } => drop(stage.end(&key.id, key.generation)),
                _ => {}
            }
        }
    }
    let effects = stage.reconnect();
    let events = events_of(&effects, "a");
    assert!(matches!(&events[..], [(0, 0, _), (0, 1, end)] if is_error(end)), "{events:?}");
}

#[test]
fn an_idle_runner_is_not_alarmed_about_actors_it_does_not_have() {
    let mut stage = Stage::open();
    stage.cut();
    assert!(!stage.pass(LOST_AFTER).contains(&Effect::Lost));
}

#[test]
fn another_identity_stops_every_actor_and_forgets_what_was_to_be_told() {
    let mut stage = Stage::with_actor();
    stage.start("ended", 0, 0);
    stage.crash("ended", 0);
    let (write, _) = stage.kv("a", 0, KvRequest::Drop);
    stage.request(stream(1), "a");
    stage.cut();
    stage.runner_id = "runner-2";
    let effects = stage.reconnect();
    assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Lost)]);
    assert!(matches!(answers(&effects)[..], [(ticket, Err(_))] if ticket == write));
    assert!(events_of(&effects, "a").is_empty() && events_of(&effects, "ended").is_empty(), "{effects:?}");
    assert!(asked(&effects).is_empty() && acks_of(&effects).is_empty());

    // Its end is nobody's business, and the new identity may start it again.
    let effects = stage.start("a", 1, 0);
    assert_eq!(started(&effects), [], "the old life has not ended");
    let effects = stage.end("a", 0);
    assert_eq!(started(&effects), [key("a", 1)]);
    assert!(events_of(&effects, "a").is_empty(), "{effects:?}");
    assert_eq!(events_of(&stage.run("a", 1), "a").len(), 1);
}

#[test]
fn a_threshold_that_makes_no_sense_is_taken_for_a_second() {
    let mut stage = Stage::new();
    stage.effects();
    let features = stage.features;
    stage.handle(Input::Dialed { features });
    let metadata = greenroom::protocol::InitMetadata {
        runner_lost_threshold: -5,
        actor_stop_threshold: None,
        serverless_drain_grace_period: None,
    };
    let effects = stage.receive(ToClient::Init { runner_id: "r".into(), metadata });
    assert_eq!(effects, [Effect::Connected { runner_id: "r".into(), lost_after: secs(1) }]);
}
