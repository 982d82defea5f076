use greenroom::actor::{Outcome, StopReason};
use greenroom::protocol::{KvRequest, ToServer};
use greenroom::session::{DialFailure, Effect, Exit, Features, Input, LinkStatus};

use crate::stage::*;

#[test]
fn a_runner_without_actors_leaves_at_once() {
    let mut stage = Stage::open();
    let effects = stage.drain(secs(12));
    assert_eq!(effects, [Effect::Send(ToServer::Stopping), hangup()]);
    assert_eq!(stage.session.link_status(), LinkStatus::Closed);
    assert_eq!(stage.close(1000, ""), [Effect::Exit(Exit::Drained)]);
    assert_eq!(stage.session.poll_timeout(), None);
}

#[test]
fn a_runner_that_never_connected_just_ends() {
    let mut stage = Stage::new();
    stage.effects();
    assert_eq!(stage.drain(secs(12)), [Effect::Exit(Exit::Drained)]);

    let mut stage = Stage::new();
    stage.effects();
    stage.handle(Input::DialFailed(DialFailure("refused".into())));
    assert_eq!(stage.drain(secs(12)), [Effect::Exit(Exit::Drained)]);

    let mut stage = Stage::new();
    stage.effects();
    let features = stage.features;
    stage.handle(Input::Dialed { features });
    assert_eq!(stage.drain(secs(12)), [hangup()]);
    assert_eq!(stage.cut(), [Effect::Exit(Exit::Drained)]);
}

#[test]
fn the_gateway_answers_with_stops_and_acknowledges_every_end() {
    let mut stage = Stage::with_actor();
    stage.start("b", 0, 0);
    stage.run("b", 0);
    assert_eq!(stage.drain(secs(12)), [Effect::Send(ToServer::Stopping)]);
    for actor in ["a", "b"] {
        assert_eq!(stopped(&stage.stop(actor, 0, 1)), [(key(actor, 0), StopReason::Stop)]);
        assert_eq!(events_of(&stage.end(actor, 0), actor), [(0, 1, stopped_ok())]);
    }
    assert_eq!(stage.acknowledge("a", 0, 1), []);
    let effects = stage.acknowledge("b", 0, 1);
    assert_eq!(acks_of(&effects).len(), 2, "the stops are acknowledged, too");
    assert_eq!(effects.last(), Some(&hangup()));
    assert_eq!(stage.close(1000, ""), [Effect::Exit(Exit::Drained)]);
}

#[test]
fn an_engine_that_does_not_acknowledge_is_waited_for_only_briefly() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    stage.drain(secs(12));
    stage.stop("a", 0, 1);
    stage.end("a", 0);
    let effects = stage.pass(secs(1));
    assert_eq!(effects.last(), Some(&hangup()));
    assert_eq!(exit_of(&stage.close(1000, "")), Some(Exit::Drained), "it has read all that was said");
}

#[test]
fn an_engine_that_does_not_even_close_the_connection_may_have_heard_nothing() {
    for breaks in [true, false] {
        let mut stage = Stage::open_to(Features::default()).and_actor();
        stage.drain(secs(12));
        stage.stop("a", 0, 1);
        stage.end("a", 0);
        // It has every end, and not the acknowledgement of the stop.
        stage.acknowledge("a", 0, 1);
        stage.pass(secs(1));
        let effects = if breaks { stage.cut() } else { stage.pass(secs(2)) };
        assert_eq!(exit_of(&effects), Some(Exit::DrainTimeout { actors: 1 }));
    }
}

#[test]
fn an_end_that_our_gateway_did_not_acknowledge_may_not_be_known() {
    for (within, waits) in [(secs(12), secs(2)), (secs(0), millis(500))] {
        let mut stage = Stage::with_actor();
        stage.drain(within);
        stage.stop("a", 0, 1);
        stage.end("a", 0);
        assert!(!stage.pass(waits - millis(1)).contains(&hangup()), "the acknowledgement may be on its way");
        assert_eq!(stage.pass(millis(1)).last(), Some(&hangup()));
        assert_eq!(exit_of(&stage.close(1000, "")), Some(Exit::DrainTimeout { actors: 1 }));
        assert_eq!(stage.session.unacknowledged_events(), 2, "so that the next process is asked to tell it again");
    }
}

#[test]
fn a_silent_gateway_does_not_hold_up_the_stops() {
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    let effects = stage.pass(secs(2));
    assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Drain)]);
    // Nobody asked for this end, so it is an error, and the gateway moves the actor.
    let events = events_of(&stage.end("a", 0), "a");
    assert!(matches!(&events[..], [(0, 1, end)] if is_error(end)), "{events:?}");
}

#[test]
fn a_stop_of_the_gateway_that_comes_late_still_makes_the_end_a_wanted_one() {
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    stage.pass(secs(2));
    assert_eq!(stopped(&stage.stop("a", 0, 1)), [], "it was told already");
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 1, stopped_ok())]);
}

#[test]
fn a_sleeping_wish_survives_the_drain() {
    let mut stage = Stage::with_actor();
    stage.handle(Input::Sleep(key("a", 0)));
    stage.drain(secs(12));
    stage.pass(secs(2));
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 2, stopped_ok())]);
}

#[test]
fn no_actor_is_taken_on_during_a_drain() {
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    let effects = stage.start("late", 0, 0);
    assert_eq!(started(&effects), []);
    assert!(matches!(&events_of(&effects, "late")[..], [(0, _, end)] if is_error(end)));
    stage.stop("a", 0, 1);
    let effects = stage.tunnel(stream(1), 0, request_start("a"));
    assert_eq!(tunnelled(&effects).len(), 1, "given back");
}

#[test]
fn an_actor_that_never_stops_is_killed_and_counted() {
    let mut stage = Stage::with_actor();
    stage.start("b", 0, 0);
    stage.drain(secs(12));
    let effects = stage.pass(secs(12));
    assert_eq!(stopped(&effects).len(), 2);
    let kills: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Kill { .. })).collect();
    assert_eq!(kills.len(), 2);
    stage.end("b", 0);
    assert_eq!(exit_of(&stage.pass(secs(2))), Some(Exit::DrainTimeout { actors: 1 }));
}

#[test]
fn an_actor_that_ends_after_its_kill_is_still_reported() {
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    stage.pass(secs(12));
    assert_eq!(events_of(&stage.end("a", 0), "a").len(), 1);
    let effects = stage.acknowledge("a", 0, 1);
    assert_eq!(effects.last(), Some(&hangup()));
    assert_eq!(exit_of(&stage.close(1000, "")), Some(Exit::Drained));
}

#[test]
fn a_drain_without_any_time_kills_at_once() {
    let mut stage = Stage::with_actor();
    let effects = stage.drain(secs(0));
    assert!(effects.contains(&Effect::Kill { key: key("a", 0) }), "{effects:?}");
}

#[test]
fn with_the_gateway_away_actors_stop_and_their_ends_are_told_when_it_is_back() {
    let mut stage = Stage::with_actor();
    stage.pass(secs(5));
    stage.cut();
    let effects = stage.drain(secs(12));
    assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Drain)], "there is nobody to ask");
    assert_eq!(exit_of(&stage.crash("a", 0)), None, "the gateway may be back in time");
    let effects = stage.reconnect();
    assert_eq!(sent(&effects)[1], &ToServer::Stopping);
    assert!(matches!(&events_of(&effects, "a")[..], [_, (0, 1, end)] if is_error(end)));
    assert_eq!(stage.acknowledge("a", 0, 1).last(), Some(&hangup()));
    assert_eq!(exit_of(&stage.close(1000, "")), Some(Exit::Drained));
}

#[test]
fn a_gateway_that_stays_away_is_waited_for_until_the_time_is_up() {
    let mut stage = Stage::with_actor();
    stage.pass(secs(5));
    stage.cut();
    stage.drain(secs(12));
    stage.crash("a", 0);
    let from = stage.now;
    let exit = loop {
        let mut effects = stage.pass(millis(500));
        if effects.contains(&Effect::Dial) {
            effects.extend(stage.handle(Input::DialFailed(DialFailure("refused".into()))));
        }
        if let Some(exit) = exit_of(&effects) {
            break exit;
        }
        assert!(stage.now < from + secs(12), "beyond its time");
    };
    assert!(stage.now >= from + secs(3), "given up while a dial could still succeed");
    assert_eq!(exit, Exit::DrainTimeout { actors: 1 });
}

#[test]
fn a_gateway_that_could_not_be_back_in_time_is_not_waited_for() {
    let mut stage = Stage::with_actor();
    stage.cut();
    for _ in 0..6 {
        stage.until_dial();
        stage.handle(Input::DialFailed(DialFailure("refused".into())));
    }
    // The next dial is 30 s away.
    stage.crash("a", 0);
    assert_eq!(exit_of(&stage.drain(secs(12))), Some(Exit::DrainTimeout { actors: 1 }));
}

#[test]
fn with_everything_told_an_absent_gateway_is_not_waited_for() {
    let mut stage = Stage::with_actor();
    stage.crash("a", 0);
    stage.acknowledge("a", 0, 1);
    stage.cut();
    assert_eq!(exit_of(&stage.drain(secs(12))), Some(Exit::Drained));
}

#[test]
fn every_new_connection_during_a_drain_hears_of_it() {
    let mut stage = Stage::with_actor();
    assert_eq!(sent(&stage.drain(secs(12))), [&ToServer::Stopping]);
    for _ in 0..2 {
        stage.cut();
        let effects = stage.reconnect();
        assert_eq!(sent(&effects).iter().filter(|message| ***message == ToServer::Stopping).count(), 1);
    }
}

#[test]
fn a_cut_while_settling_has_the_ends_told_again() {
    let mut stage = Stage::with_actor();
    stage.pass(secs(5));
    stage.drain(secs(12));
    stage.stop("a", 0, 1);
    stage.end("a", 0);
    assert_eq!(exit_of(&stage.cut()), None);
    assert_eq!(events_of(&stage.reconnect(), "a").len(), 2);
    assert_eq!(stage.pass(secs(2)).last(), Some(&hangup()));
}

#[test]
fn a_gateway_that_evicts_a_drained_runner_is_not_dialled_again() {
    // The engine closes with an eviction about 15 s after the announcement.
    let mut stage = Stage::with_actor();
    stage.drain(secs(60));
    stage.pass(secs(8));
    let (ticket, _) = stage.kv("a", 0, KvRequest::Drop);
    let effects = stage.close(1000, "ws.eviction#r");
    assert!(matches!(answers(&effects)[..], [(answered, Err(_))] if answered == ticket));
    let effects = stage.pass(secs(5));
    assert!(!effects.contains(&Effect::Dial), "{effects:?}");
    assert_eq!(stage.kv("a", 0, KvRequest::Drop).1.len(), 1, "answered at once");
    assert_eq!(exit_of(&stage.end("a", 0)), Some(Exit::DrainTimeout { actors: 1 }));
}

#[test]
fn an_eviction_while_settling_ends_the_drain_and_says_nothing_of_what_was_heard() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    stage.drain(secs(12));
    stage.stop("a", 0, 1);
    stage.end("a", 0);
    assert_eq!(exit_of(&stage.close(1000, "ws.eviction")), Some(Exit::DrainTimeout { actors: 1 }));
}

#[test]
fn an_eviction_right_after_the_announcement_stops_the_actors() {
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    let effects = stage.close(1000, "ws.eviction");
    assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Lost)]);
    let effects = stage.pass(secs(14));
    assert!(effects.contains(&Effect::Kill { key: key("a", 0) }));
    assert_eq!(exit_of(&effects), Some(Exit::DrainTimeout { actors: 1 }));
}

#[test]
fn a_second_drain_changes_nothing() {
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    assert_eq!(stage.drain(secs(1)), []);
    let effects = stage.pass(secs(3));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Kill { .. })));
}

#[test]
fn a_drain_ends_without_waiting_for_the_next_thing_to_happen() {
    // The last end and nothing else: no ping, no acknowledgement.
    let mut stage = Stage::with_actor();
    stage.drain(secs(12));
    stage.stop("a", 0, 1);
    stage.handle(Input::Ended(key("a", 0), Outcome::Wanted));
    let due = stage.session.poll_timeout().expect("a timer");
    assert!(due <= stage.now + secs(1));
}

fn hangup() -> Effect {
    Effect::Hangup { code: 1000, reason: "pegboard.runner_shutdown" }
}
