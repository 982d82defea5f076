//! How lives end, and how the gateway is to take it.

use greenroom::actor::{Outcome, StopReason};
use greenroom::protocol::Event;
use greenroom::session::{Effect, Input};

use crate::stage::*;

#[test]
fn a_stop_of_the_gateway_is_reported_as_ok_whatever_the_process_does() {
    let mut stage = Stage::with_actor();
    assert_eq!(stopped(&stage.stop("a", 0, 1)), [(key("a", 0), StopReason::Stop)]);
    assert_eq!(events_of(&stage.crash("a", 0), "a"), [(0, 1, stopped_ok())]);
}

#[test]
fn a_crash_is_reported_with_its_reason() {
    let mut stage = Stage::with_actor();
    let message = Some("boom".into());
    assert_eq!(events_of(&stage.crash("a", 0), "a"), [(0, 1, Event::StoppedError { message })]);
    assert_eq!(stage.crash("a", 0), [], "it ends once");
}

#[test]
fn a_failed_start_is_reported_as_failed_and_never_as_running() {
    for end in [Stage::crash, Stage::end] {
        let mut stage = Stage::open();
        stage.start("a", 0, 0);
        let events = events_of(&end(&mut stage, "a", 0), "a");
        assert!(matches!(&events[..], [(0, 0, end)] if is_error(end)), "{events:?}");
    }
}

#[test]
fn a_sleep_is_asked_for_answered_by_a_stop_and_reported_as_ok() {
    let mut stage = Stage::with_actor();
    let effects = stage.handle(Input::Sleep(key("a", 0)));
    assert_eq!(events_of(&effects, "a"), [(0, 1, Event::SleepIntent)]);
    assert_eq!(stage.handle(Input::Sleep(key("a", 0))), [], "asked once");
    assert_eq!(stage.handle(Input::Destroy(key("a", 0))), [], "the first wish counts");
    assert_eq!(stopped(&stage.stop("a", 0, 1)), [(key("a", 0), StopReason::Sleep)]);
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 2, stopped_ok())]);
}

#[test]
fn a_wish_to_be_destroyed_is_asked_for_and_reported_as_ok() {
    let mut stage = Stage::with_actor();
    let effects = stage.handle(Input::Destroy(key("a", 0)));
    assert_eq!(events_of(&effects, "a"), [(0, 1, Event::StopIntent)]);
    assert_eq!(stopped(&stage.stop("a", 0, 1)), [(key("a", 0), StopReason::Destroy)]);
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 2, stopped_ok())]);
}

#[test]
fn an_actor_that_just_ends_sleeps_instead_of_being_destroyed() {
    let mut stage = Stage::with_actor();
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 1, Event::SleepIntent), (0, 2, stopped_ok())]);
}

#[test]
fn an_actor_that_wished_to_leave_and_ended_by_itself_is_done() {
    let mut stage = Stage::open();
    stage.start("a", 0, 0);
    stage.handle(Input::Destroy(key("a", 0)));
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 1, stopped_ok())]);
}

#[test]
fn a_stop_before_the_start_is_done_ends_without_running() {
    let mut stage = Stage::open();
    stage.start("a", 0, 0);
    assert_eq!(stopped(&stage.stop("a", 0, 1)), [(key("a", 0), StopReason::Stop)]);
    assert_eq!(stage.run("a", 0), [], "overtaken");
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 0, stopped_ok())]);
}

#[test]
fn the_owner_decides_how_the_gateway_takes_his_stop() {
    for (outcome, expected) in [
        (Outcome::Wanted, stopped_ok()),
        (Outcome::Failed("moved".into()), Event::StoppedError { message: Some("moved".into()) }),
    ] {
        let mut stage = Stage::with_actor();
        let effects = stage.handle(Input::Stop(key("a", 0), outcome));
        assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Stop)]);
        assert_eq!(events_of(&stage.crash("a", 0), "a"), [(0, 1, expected)]);
    }
}

#[test]
fn a_kill_by_the_owner_is_an_error_so_that_no_state_is_lost() {
    let mut stage = Stage::with_actor();
    assert_eq!(stage.handle(Input::Kill(key("a", 0))), [Effect::Kill { key: key("a", 0) }]);
    let events = events_of(&stage.end("a", 0), "a");
    assert!(matches!(&events[..], [(0, 1, end)] if is_error(end)), "{events:?}");
}

#[test]
fn a_kill_of_a_stopping_actor_hurries_its_stop() {
    let mut stage = Stage::with_actor();
    stage.stop("a", 0, 1);
    assert_eq!(stage.handle(Input::Kill(key("a", 0))), [Effect::Kill { key: key("a", 0) }]);
    assert_eq!(events_of(&stage.end("a", 0), "a"), [(0, 1, stopped_ok())]);
}

#[test]
fn a_waiting_life_that_is_killed_or_lost_is_an_error() {
    let end: [fn(&mut Stage) -> Vec<Effect>; 2] = [
        |stage| stage.handle(Input::Kill(key("a", 1))),
        |stage| {
            stage.cut();
            stage.pass(LOST_AFTER);
            stage.reconnect()
        },
    ];
    for end in end {
        let mut stage = Stage::with_actor();
        stage.start("a", 1, 0);
        let events = events_of(&end(&mut stage), "a");
        assert!(events.iter().any(|(generation, _, event)| *generation == 1 && is_error(event)), "{events:?}");
    }
}

#[test]
fn inputs_about_lives_that_are_not_there_change_nothing() {
    let mut stage = Stage::open();
    let nobody = || key("nobody", 0);
    for input in [
        Input::Running(nobody()),
        Input::Ended(nobody(), Outcome::Wanted),
        Input::Sleep(nobody()),
        Input::Destroy(nobody()),
        Input::Stop(nobody(), Outcome::Wanted),
        Input::Kill(nobody()),
        Input::SetAlarm(nobody(), None),
    ] {
        assert_eq!(stage.handle(input), []);
    }
}

#[test]
fn a_very_long_reason_is_cut_between_characters() {
    let mut stage = Stage::with_actor();
    let effects = stage.handle(Input::Ended(key("a", 0), Outcome::Failed("é".repeat(10_000))));
    let events = events_of(&effects, "a");
    let [(0, 1, Event::StoppedError { message: Some(message) })] = &events[..] else { panic!("{events:?}") };
    assert_eq!(message.len(), 4096);
}
