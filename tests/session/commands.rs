use greenroom::actor::{ActorKey, StartReason, StopReason};
use greenroom::protocol::{ActorConfig, Command, CommandWrapper, Event, ToClient, Version};
use greenroom::session::{Effect, Input};

use crate::stage::*;

#[test]
fn a_start_reaches_the_host_once_and_running_the_gateway() {
    let mut stage = Stage::open();
    let config = ActorConfig {
        name: "counter".into(),
        key: Some("k".into()),
        create_ts: 77,
        input: Some(bytes::Bytes::from_static(b"in")),
    };
    let command = Command::Start { config, hibernating: vec![stream(1)] };
    let effects =
        stage.receive(ToClient::Commands(vec![CommandWrapper { checkpoint: checkpoint("a", 0, 0), command }]));
    let [Effect::Start(start)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&start.key, &*start.name, start.actor_key.as_deref()), (&key("a", 0), "counter", Some("k")));
    assert_eq!((start.create_ts, start.input.as_deref()), (77, Some(&b"in"[..])));
    assert_eq!((start.reason, &start.hibernating[..]), (StartReason::Create, &[stream(1)][..]));

    assert_eq!(events_of(&stage.run("a", 0), "a"), [(0, 0, Event::Running)]);
    assert_eq!(stage.run("a", 0), [], "said once");
}

#[test]
fn a_replayed_start_does_not_start_the_actor_twice() {
    let mut stage = Stage::with_actor();
    assert_eq!(started(&stage.start("a", 0, 0)), []);
    stage.cut();
    stage.reconnect();
    // Redelivered with an empty list of hibernating sockets, which means nothing.
    assert_eq!(started(&stage.start("a", 0, 0)), []);
    assert_eq!(stage.session.live_actors(), 1);
}

#[test]
fn a_replayed_start_of_an_ended_life_does_not_start_it_again() {
    let mut stage = Stage::with_actor();
    stage.crash("a", 0);
    stage.cut();
    let effects = stage.reconnect();
    assert_eq!(events_of(&effects, "a").len(), 2, "running and stopped are told again");
    let effects = stage.start("a", 0, 0);
    assert_eq!((started(&effects), events_of(&effects, "a").len()), (vec![], 0));
    assert_eq!(acks_of(&stage.pass(secs(1))), [("a".into(), 0, 0)]);
}

#[test]
fn a_start_redelivered_long_after_its_life_ended_is_still_known() {
    // The gateway's process was away for minutes; it knows the end and lacks the acknowledgement of the start.
    let mut stage = Stage::with_actor();
    stage.crash("a", 0);
    stage.acknowledge("a", 0, 1);
    stage.cut();
    for _ in 0..20 {
        stage.until_dial();
        stage.handle(Input::DialFailed(greenroom::session::DialFailure("refused".into())));
    }
    stage.reconnect();
    assert_eq!(started(&stage.start("a", 0, 0)), []);
}

#[test]
fn counters_survive_a_redelivered_start() {
    let mut stage = Stage::with_actor();
    stage.handle(Input::SetAlarm(key("a", 0), Some(1)));
    stage.acknowledge("a", 0, 1);
    stage.cut();
    stage.reconnect();
    stage.start("a", 0, 0);
    let effects = stage.handle(Input::SetAlarm(key("a", 0), Some(2)));
    assert_eq!(events_of(&effects, "a"), [(0, 2, Event::SetAlarm { at: Some(2) })]);
}

#[test]
fn starts_and_stops_are_acknowledged_within_a_second() {
    let mut stage = Stage::open();
    stage.start("a", 0, 0);
    stage.start("b", 3, 1);
    stage.stop("b", 3, 2);
    assert_eq!(acks_of(&stage.pass(secs(1))), [("a".into(), 0, 0), ("b".into(), 3, 2)]);
    assert_eq!(stage.pass(secs(50)), [], "once");
    stage.stop("a", 0, 1);
    assert_eq!(acks_of(&stage.pass(secs(1))), [("a".into(), 0, 1)]);
}

#[test]
fn acknowledgements_that_did_not_leave_are_sent_on_the_next_connection() {
    let mut stage = Stage::open();
    stage.start("a", 0, 0);
    stage.cut();
    assert!(acks_of(&stage.pass(millis(500))).is_empty());
    assert_eq!(acks_of(&stage.reconnect()), [("a".into(), 0, 0)]);
}

#[test]
fn every_replay_is_acknowledged_again() {
    let mut stage = Stage::with_actor();
    stage.stop("a", 0, 1);
    stage.pass(secs(1));
    stage.cut();
    stage.reconnect();
    stage.receive(ToClient::Commands(vec![start("a", 0, 0), stop("a", 0, 1)]));
    assert_eq!(acks_of(&stage.pass(secs(1))), [("a".into(), 0, 1)]);
}

#[test]
fn a_stop_with_the_index_of_the_start_is_a_stop() {
    // After an actor was declared lost the engine stops the old generation with index 0, as its start had.
    let mut stage = Stage::with_actor();
    assert_eq!(stopped(&stage.stop("a", 0, 0)), [(key("a", 0), StopReason::Stop)]);
    // The next generation begins at 1.
    assert_eq!(started(&stage.start("a", 1, 1)), []);
    let effects = stage.end("a", 0);
    assert_eq!(events_of(&effects, "a"), [(0, 1, stopped_ok())]);
    assert_eq!(started(&effects), [key("a", 1)]);
    assert_eq!(acks_of(&stage.pass(secs(1))), [("a".into(), 0, 0), ("a".into(), 1, 1)]);
    assert_eq!(stopped(&stage.stop("a", 1, 2)), [(key("a", 1), StopReason::Stop)]);
}

#[test]
fn a_stop_and_a_start_of_different_generations_may_share_a_message() {
    let mut stage = Stage::with_actor();
    let effects = stage.receive(ToClient::Commands(vec![stop("a", 0, 0), start("a", 1, 1)]));
    assert_eq!((stopped(&effects).len(), started(&effects).len()), (1, 0));
    assert_eq!(started(&stage.end("a", 0)), [key("a", 1)]);
}

#[test]
fn a_newer_generation_replaces_an_older_one_in_order() {
    let mut stage = Stage::with_actor();
    let effects = stage.start("a", 1, 0);
    assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Replaced)]);
    assert_eq!(started(&effects), []);
    let effects = stage.end("a", 0);
    assert_eq!(started(&effects), [key("a", 1)]);
    assert!(matches!(&events_of(&effects, "a")[..], [(0, 1, end)] if is_error(end)), "{effects:?}");
}

#[test]
fn of_several_newer_generations_only_the_newest_starts() {
    let mut stage = Stage::with_actor();
    stage.start("a", 1, 0);
    let effects = stage.start("a", 2, 0);
    assert!(matches!(&events_of(&effects, "a")[..], [(1, 0, end)] if is_error(end)), "{effects:?}");
    assert_eq!(started(&stage.end("a", 0)), [key("a", 2)]);
    assert_eq!(stage.session.live_actors(), 1);
}

#[test]
fn a_life_stopped_while_it_waits_never_starts() {
    let mut stage = Stage::with_actor();
    stage.start("a", 1, 0);
    let effects = stage.stop("a", 1, 1);
    assert_eq!(events_of(&effects, "a"), [(1, 0, stopped_ok())]);
    assert_eq!(started(&stage.end("a", 0)), []);
}

#[test]
fn an_older_generation_is_refused_with_a_reason() {
    let mut stage = Stage::open();
    stage.start("a", 5, 0);
    let effects = stage.start("a", 4, 0);
    assert_eq!((started(&effects), stopped(&effects)), (vec![], vec![]));
    assert!(matches!(&events_of(&effects, "a")[..], [(4, _, end)] if is_error(end)), "{effects:?}");
    assert_eq!(acks_of(&stage.pass(secs(1))).len(), 2);
}

#[test]
fn a_stop_for_an_unknown_life_is_answered_with_an_end_beyond_any_earlier_event() {
    let mut stage = Stage::open();
    let effects = stage.stop("gone", 3, 1);
    assert!(matches!(&events_of(&effects, "gone")[..], [(3, index, end)] if is_error(end) && *index > 1 << 32));
    assert_eq!(events_of(&stage.stop("gone", 3, 1), "gone"), [], "once a connection");
    assert_eq!(acks_of(&stage.pass(secs(1))), [("gone".into(), 3, 1)]);
}

#[test]
fn a_stop_for_an_ended_life_is_acknowledged_and_nothing_else() {
    let mut stage = Stage::with_actor();
    stage.crash("a", 0);
    assert_eq!(stage.stop("a", 0, 1), []);
    assert_eq!(acks_of(&stage.pass(secs(1))), [("a".into(), 0, 1)]);
}

#[test]
fn what_an_earlier_process_left_behind_is_reported_as_failed() {
    let mut stage = Stage::with(|settings| settings.lost_lives = vec![key("a", 2), key("a", 2), key("b", 0)]);
    stage.effects();
    let effects = stage.connect();
    for (actor, generation) in [("a", 2), ("b", 0)] {
        let events = events_of(&effects, actor);
        let [(told, index, end)] = &events[..] else { panic!("{events:?}") };
        assert!(*told == generation && *index > 1 << 32 && is_error(end), "{events:?}");
    }
    assert_eq!(started(&stage.start("a", 2, 0)), [], "redelivered, but over");
    let effects = stage.start("a", 3, 1);
    assert_eq!(started(&effects), [key("a", 3)]);
}

#[test]
fn the_reason_of_a_start_is_as_exact_as_the_past_is_known() {
    let mut stage = Stage::open();
    let mut reason = |prepare: &dyn Fn(&mut Stage), generation| {
        prepare(&mut stage);
        let effects = stage.start("a", generation, 0);
        let reason = effects.iter().find_map(|effect| match effect {
            Effect::Start(start) => Some(start.reason),
            _ => None,
        });
        stage.run("a", generation);
        reason
    };
    assert_eq!(reason(&|_| {}, 0), Some(StartReason::Create));
    assert_eq!(reason(&|stage| drop(stage.crash("a", 0)), 1), Some(StartReason::Restart));
    let sleep = |stage: &mut Stage| {
        stage.handle(Input::Sleep(key("a", 1)));
        stage.stop("a", 1, 1);
        stage.end("a", 1);
    };
    assert_eq!(reason(&sleep, 2), Some(StartReason::Wake));
    let effects = stage.start("elsewhere-before", 7, 0);
    assert!(matches!(&effects[..], [Effect::Start(start)] if start.reason == StartReason::Wake));
}

#[test]
fn ended_lives_are_forgotten_after_a_minute_on_an_open_connection() {
    let mut stage = Stage::open();
    stage.start("a", 0, 0);
    stage.crash("a", 0);
    stage.pass(secs(59));
    assert_eq!(started(&stage.start("a", 0, 0)), []);
    stage.pass(secs(1));
    assert_eq!(stage.session.poll_timeout(), None, "nothing is left to forget");
    // With its end it is forgotten; a gateway that starts it again now means it.
    assert_eq!(started(&stage.start("a", 0, 0)), [key("a", 0)]);
}

#[test]
fn ended_lives_that_the_gateway_has_acknowledged_are_forgotten_after_a_reconnect_too() {
    let mut stage = Stage::with_actor();
    stage.crash("a", 0);
    stage.acknowledge("a", 0, 1);
    stage.cut();
    assert!(events_of(&stage.reconnect(), "a").is_empty());
    stage.pass(secs(60));
    assert_eq!(started(&stage.start("a", 0, 0)), [key("a", 0)]);
}

#[test]
fn in_version_4_an_ended_life_is_never_started_again() {
    // Acknowledgements carry no generation there, so the engine redelivers later generations' commands for ever.
    let mut stage = Stage::with(|settings| settings.version = Version::V4);
    stage = stage.opened();
    stage.start("a", 1, 0);
    stage.crash("a", 1);
    stage.pass(secs(3600));
    stage.cut();
    stage.reconnect();
    assert_eq!(started(&stage.start("a", 1, 0)), []);
}

#[test]
fn commands_for_many_actors_are_acknowledged_together() {
    let mut stage = Stage::open();
    let actors: Vec<String> = (0..300).map(|number| format!("actor-{number:03}")).collect();
    let effects = stage.receive(ToClient::Commands(actors.iter().map(|actor| start(actor, 0, 0)).collect()));
    assert_eq!(started(&effects), actors.iter().map(|actor| ActorKey::new(&**actor, 0)).collect::<Vec<_>>());
    let effects = stage.pass(secs(1));
    assert_eq!((sent(&effects).len(), acks_of(&effects).len()), (1, 300));
}
