use greenroom::actor::StopReason;
use greenroom::protocol::{Event, ToClient, ToServer, Version};
use greenroom::session::{Effect, Features, Input};

use crate::stage::*;

#[test]
fn events_are_numbered_within_a_life_from_zero() {
    let mut stage = Stage::with_actor();
    assert_eq!(alarm(&mut stage, 5), [(0, 1, Event::SetAlarm { at: Some(5) })]);
    let effects = stage.handle(Input::SetAlarm(key("a", 0), None));
    assert_eq!(events_of(&effects, "a"), [(0, 2, Event::SetAlarm { at: None })]);
    stage.start("a", 1, 0);
    stage.end("a", 0);
    assert_eq!(events_of(&stage.run("a", 1), "a"), [(1, 0, Event::Running)]);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_in_order_with_its_numbers() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    for at in 1..=5 {
        alarm(&mut stage, at);
    }
    stage.acknowledge("a", 0, 2);
    stage.cut();
    assert_eq!(alarm(&mut stage, 6), [], "kept while the gateway is away");
    let again: Vec<i64> = events_of(&stage.reconnect(), "a").into_iter().map(|(_, index, _)| index).collect();
    assert_eq!(again, [3, 4, 5, 6]);
    assert_eq!(stage.effects(), []);
}

#[test]
fn a_gateway_that_may_have_been_started_again_hears_once_more_what_runs_here() {
    for (features, runs) in [(OURS, true), (Features::default(), false)] {
        let mut stage = Stage::open_to(features).and_actor();
        stage.acknowledge("a", 0, 0);
        stage.start("b", 0, 0);
        stage.start("c", 3, 0);
        stage.run("c", 3);
        stage.acknowledge("c", 3, 0);
        stage.stop("c", 3, 1);
        stage.cut();
        let effects = stage.reconnect();
        let affirmed = if runs { vec![(0, 0, Event::Running)] } else { vec![] };
        assert_eq!(events_of(&effects, "a"), affirmed, "under the number that it had");
        assert_eq!((events_of(&effects, "b"), events_of(&effects, "c")), (vec![], vec![]), "one starts, one stops");
        let effects = stage.stop("a", 0, 1);
        assert_eq!(stopped(&effects), [(key("a", 0), StopReason::Stop)], "what it does not know it stops");
    }
}

#[test]
fn an_end_that_was_lost_on_the_way_is_told_again() {
    let mut stage = Stage::with_actor();
    stage.acknowledge("a", 0, 0);
    stage.crash("a", 0);
    for _ in 0..3 {
        stage.cut();
        let events = events_of(&stage.reconnect(), "a");
        assert!(matches!(&events[..], [(0, 1, end)] if is_error(end)), "{events:?}");
    }
    stage.acknowledge("a", 0, 1);
    stage.cut();
    assert_eq!(events_of(&stage.reconnect(), "a"), []);
}

#[test]
fn an_end_while_the_gateway_is_away_is_told_on_the_next_connection() {
    let mut stage = Stage::with_actor();
    stage.acknowledge("a", 0, 0);
    stage.cut();
    assert_eq!(stage.crash("a", 0), []);
    assert!(matches!(&events_of(&stage.reconnect(), "a")[..], [(0, 1, end)] if is_error(end)));
}

#[test]
fn an_acknowledgement_of_more_than_was_sent_takes_only_what_was_sent() {
    let mut stage = Stage::with_actor();
    stage.cut();
    alarm(&mut stage, 1);
    stage.until_dial();
    let features = stage.features;
    stage.handle(Input::Dialed { features });
    // The gateway claims everything before this connection has carried anything.
    stage.session.handle(init(stage.runner_id), stage.now);
    let claim = ToClient::AckEvents(vec![checkpoint("a", 0, i64::MAX)]);
    stage.session.handle(Input::Received(claim), stage.now);
    let effects = stage.effects();
    assert_eq!(events_of(&effects, "a"), [(0, 1, Event::SetAlarm { at: Some(1) })]);
}

#[test]
fn an_acknowledgement_for_something_unknown_is_harmless() {
    let mut stage = Stage::with_actor();
    assert_eq!(stage.acknowledge("nobody", 0, 7), []);
    assert_eq!(stage.acknowledge("a", 9, 7), []);
    assert_eq!(stage.acknowledge("a", 0, -1), []);
    stage.cut();
    assert_eq!(events_of(&stage.reconnect(), "a").len(), 1);
}

#[test]
fn in_version_4_an_acknowledgement_without_generation_means_the_newest() {
    let mut stage = Stage::with(|settings| settings.version = Version::V4).opened();
    stage.start("a", 6, 0);
    stage.run("a", 6);
    alarm_of(&mut stage, "a", 6, 1);
    stage.acknowledge("a", 0, 0);
    stage.cut();
    let again = events_of(&stage.reconnect(), "a");
    assert_eq!(again.last(), Some(&(6, 1, Event::SetAlarm { at: Some(1) })), "{again:?}");
}

#[test]
fn in_version_4_an_acknowledgement_is_for_older_lives_first() {
    let mut stage = Stage::with(|settings| settings.version = Version::V4).opened();
    stage.start("a", 0, 0);
    stage.run("a", 0);
    stage.crash("a", 0);
    stage.start("a", 1, 0);
    stage.run("a", 1);
    assert_eq!(stage.session.unacknowledged_events(), 3);
    stage.acknowledge("a", 0, 1);
    assert_eq!(stage.session.unacknowledged_events(), 1, "the newest life's is left");
    stage.acknowledge("a", 0, 0);
    assert_eq!(stage.session.unacknowledged_events(), 0);
}

#[test]
fn many_events_travel_in_bounded_messages_and_in_order() {
    let mut stage = Stage::with_actor();
    stage.start("b", 0, 0);
    stage.run("b", 0);
    stage.cut();
    for at in 0..3000 {
        alarm(&mut stage, at);
        alarm_of(&mut stage, "b", 0, at);
    }
    let effects = stage.reconnect();
    let sizes: Vec<usize> = sent(&effects)
        .into_iter()
        .filter_map(|message| match message {
            ToServer::Events(events) => Some(events.len()),
            _ => None,
        })
        .collect();
    assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
    for actor in ["a", "b"] {
        let indexes: Vec<i64> = events_of(&effects, actor).into_iter().map(|(_, index, _)| index).collect();
        assert_eq!(indexes, (0..=3000).collect::<Vec<_>>());
    }
}

#[test]
fn a_batch_that_one_actor_fills_exactly_is_not_exceeded_by_the_next() {
    let mut stage = Stage::with_actor();
    stage.start("b", 0, 0);
    stage.run("b", 0);
    stage.cut();
    for at in 1..1024 {
        alarm(&mut stage, at);
        alarm_of(&mut stage, "b", 0, at);
    }
    let effects = stage.reconnect();
    let sizes: Vec<usize> = sent(&effects)
        .into_iter()
        .filter_map(|m| if let ToServer::Events(e) = m { Some(e.len()) } else { None })
        .collect();
    assert_eq!(sizes, [1024, 1024]);
}

#[test]
fn beyond_the_bound_only_the_last_alarm_is_kept_and_state_always() {
    let mut stage = Stage::with_actor();
    stage.cut();
    for at in 0..20_000 {
        alarm(&mut stage, at);
    }
    stage.crash("a", 0);
    let events = events_of(&stage.reconnect(), "a");
    assert_eq!(events.len(), 10_000 + 2);
    let [.., (_, _, kept), (_, _, held), (_, _, end)] = &events[..] else { panic!("{}", events.len()) };
    assert_eq!(*kept, Event::SetAlarm { at: Some(9_998) });
    assert_eq!(*held, Event::SetAlarm { at: Some(19_999) });
    assert!(is_error(end));
}

#[test]
fn a_held_alarm_follows_as_soon_as_there_is_room() {
    let mut stage = Stage::with_actor();
    for at in 1..10_000 {
        alarm(&mut stage, at);
    }
    assert_eq!(alarm(&mut stage, 77_000), []);
    assert_eq!(alarm(&mut stage, 78_000), []);
    let effects = stage.acknowledge("a", 0, 250);
    assert_eq!(events_of(&effects, "a"), [(0, 10_000, Event::SetAlarm { at: Some(78_000) })]);
}

#[test]
fn nothing_is_sent_before_the_init_of_a_new_connection() {
    let mut stage = Stage::with_actor();
    stage.cut();
    stage.crash("a", 0);
    stage.until_dial();
    let features = stage.features;
    let effects = stage.handle(Input::Dialed { features });
    assert!(matches!(sent(&effects)[..], [ToServer::Init(_)]), "{effects:?}");
    assert_eq!(events_of(&stage.greet(), "a").len(), 2);
}

#[test]
fn an_alarm_of_a_life_that_is_over_or_waits_changes_nothing() {
    let mut stage = Stage::with_actor();
    stage.start("a", 1, 0);
    assert_eq!(alarm_of(&mut stage, "a", 1, 1), []);
    stage.end("a", 0);
    assert_eq!(alarm(&mut stage, 1), []);
    assert_eq!(alarm_of(&mut stage, "a", 1, 1).len(), 1, "while it starts it may");
}

fn alarm(stage: &mut Stage, at: i64) -> Vec<(u32, i64, Event)> {
    alarm_of(stage, "a", 0, at)
}

fn alarm_of(stage: &mut Stage, actor: &str, generation: u32, at: i64) -> Vec<(u32, i64, Event)> {
    let effects: Vec<Effect> = stage.handle(Input::SetAlarm(key(actor, generation), Some(at)));
    events_of(&effects, actor)
}
