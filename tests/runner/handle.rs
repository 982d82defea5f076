//! What the owner of a runner can see and do.

use std::time::{Duration, Instant};

use greenroom::actor::{ActorKey, Outcome};
use greenroom::host::KvError;
use greenroom::protocol::{Event, KvResponse, ToClient, ToServer};
use greenroom::runner::{LinkStatus, RunnerHandle};

use crate::actors::Stage;
use crate::gateway::{Gateway, Wire, start, stream};

#[tokio::test]
async fn actors_are_found_by_id_and_generation() {
    let (mut wire, runner, _stage) = running().await;
    let found = runner.actor("a", None).await.expect("it runs");
    assert_eq!(found.start.key, ActorKey::new("a", 0));
    assert_eq!(
        (&*found.start.name, found.start.actor_key.as_deref(), found.start.create_ts),
        ("probe", Some("key"), 77)
    );
    assert!(found.running);
    assert!(runner.actor("a", Some(0)).await.is_some());
    assert!(runner.actor("a", Some(1)).await.is_none());
    assert!(runner.actor("b", None).await.is_none());
    wire.run("b", 3, "probe").await;
    assert_eq!(runner.actor("b", None).await.expect("it runs").start.key.generation, 3);
    assert_eq!(runner.actors().await.len(), 2);
    assert_eq!(runner.status().actors, 2);
}

#[tokio::test]
async fn a_runner_whose_owner_has_let_go_of_it_serves_and_rests() {
    let (mut wire, runner, _stage) = running().await;
    drop(runner);
    assert_eq!(wire.get(stream(1), "a", "/who").await.1, "a@0");
    let metrics = tokio::runtime::Handle::current().metrics();
    let (begin, busy) = (Instant::now(), metrics.worker_total_busy_duration(0));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = metrics.worker_total_busy_duration(0) - busy;
    assert!(busy < begin.elapsed() / 2, "busy for {busy:?}");
}

#[tokio::test]
async fn a_newer_life_replaces_the_older_one_in_order() {
    let (mut wire, runner, stage) = running().await;
    wire.send(ToClient::Commands(vec![start("a", 1, "probe")])).await;
    wire.event("a", |event| matches!(event, Event::StoppedOk { .. } | Event::StoppedError { .. })).await;
    assert!(wire.event("a", |event| *event == Event::Running).await.0 >= 0);
    assert_eq!(stage.take(), ["start a@0", "stop a@0 replaced", "start a@1"]);
    assert_eq!(runner.actor("a", None).await.expect("it runs").start.key.generation, 1);
    assert_eq!(wire.get(stream(1), "a", "/who").await.1, "a@1");
}

#[tokio::test]
async fn waiting_for_a_start_ends_with_the_start_or_with_its_failure() {
    let (mut wire, runner, stage) = running().await;
    assert!(runner.started(&ActorKey::new("a", 0)).await, "it runs already");
    assert!(!runner.started(&ActorKey::new("a", 1)).await, "nobody spoke of it");
    for (id, name) in [("b", "gated"), ("c", "gated")] {
        wire.start(id, 0, name).await;
    }
    while runner.actor("c", None).await.is_none() {
        tokio::task::yield_now().await;
    }
    let waiting = |id: &str| {
        let (runner, key) = (runner.clone(), ActorKey::new(id, 0));
        tokio::spawn(async move { runner.started(&key).await })
    };
    let (starts, fails) = (waiting("b"), waiting("c"));
    wire.stop("c", 0).await;
    assert!(!fails.await.unwrap());
    assert!(!starts.is_finished());
    stage.gate.add_permits(1);
    assert!(starts.await.unwrap());
}

#[tokio::test]
async fn a_sleep_asked_from_outside_is_the_actors_own() {
    let (mut wire, runner, stage) = running().await;
    runner.sleep(&ActorKey::new("a", 0)).await.unwrap();
    wire.event("a", |event| *event == Event::SleepIntent).await;
    wire.stop("a", 0).await;
    assert_eq!(wire.stopped("a").await, None);
    assert_eq!(stage.take(), ["start a@0", "stop a@0 sleep"]);
}

#[tokio::test]
async fn an_actor_that_sleeps_says_so_and_wakes_with_its_next_life() {
    let (mut wire, runner, stage) = running().await;
    assert_eq!(wire.get(stream(1), "a", "/sleep").await.0, 200);
    wire.event("a", |event| *event == Event::SleepIntent).await;
    wire.stop("a", 0).await;
    assert_eq!(wire.stopped("a").await, None);
    assert!(runner.actor("a", None).await.is_none());
    wire.run("a", 1, "probe").await;
    assert_eq!(stage.take(), ["start a@0", "stop a@0 sleep", "start a@1"]);
    assert_eq!(runner.actor("a", None).await.unwrap().start.reason.as_str(), "wake");
}

#[tokio::test]
async fn a_stop_carries_the_outcome_it_was_given() {
    let (mut wire, runner, _stage) = running().await;
    wire.run("b", 0, "probe").await;
    runner.stop(&ActorKey::new("a", 0), Outcome::Wanted).await.unwrap();
    assert_eq!(wire.stopped("a").await, None);
    runner.stop(&ActorKey::new("b", 0), Outcome::Failed("too hot".to_owned())).await.unwrap();
    assert_eq!(wire.stopped("b").await.as_deref(), Some("too hot"));
    runner.stop(&ActorKey::new("b", 0), Outcome::Wanted).await.unwrap();
    assert_eq!(runner.actors().await.len(), 0);
}

#[tokio::test]
async fn a_forced_stop_asks_nobody_and_leaves_the_actor_to_its_crash_policy() {
    let (mut wire, runner, stage) = running().await;
    runner.force_stop(&ActorKey::new("a", 0)).await.unwrap();
    assert!(wire.stopped("a").await.is_some(), "an end without an error would destroy the actor");
    assert_eq!(stage.take(), ["start a@0"]);
}

#[tokio::test]
async fn alarms_and_storage_work_in_an_actors_name() {
    let (mut wire, runner, _stage) = running().await;
    let context = runner.actor("a", None).await.expect("it runs").context;
    context.set_alarm(Some(1234)).await.unwrap();
    context.set_alarm(None).await.unwrap();
    assert_eq!(wire.event("a", |event| matches!(event, Event::SetAlarm { .. })).await.1, alarm(Some(1234)));
    assert_eq!(wire.event("a", |event| matches!(event, Event::SetAlarm { .. })).await.1, alarm(None));

    let put = tokio::spawn({
        let context = context.clone();
        async move { context.put("k", "v").await }
    });
    let id = wire.pick("a put", |message| match message {
        ToServer::Kv { request_id, .. } => Some(*request_id),
        _ => None,
    });
    let request_id = id.await;
    wire.send(ToClient::Kv { request_id, response: KvResponse::Put }).await;
    assert_eq!(put.await.unwrap(), Ok(()));
    let too_long = context.put(vec![0; 3000], "v").await;
    assert!(matches!(too_long, Err(KvError::Refused(_))), "{too_long:?}");
}

#[tokio::test]
async fn the_status_follows_the_link() {
    let (wire, runner, _stage) = running().await;
    let mut status = runner.watch_status();
    wire.close(1011, "core.internal_error#ray7").await;
    let waiting = status.wait_for(|status| status.link == LinkStatus::Waiting).await.unwrap().clone();
    let reason = waiting.reason.expect("a reason");
    assert!(reason.contains("1011") && reason.contains("core.internal_error#ray7"), "{reason}");
    assert_eq!(waiting.actors, 1, "a lost link costs no actor");
}

async fn running() -> (Wire, RunnerHandle, Stage) {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    (wire, runner, stage)
}

fn alarm(at: Option<i64>) -> Event {
    Event::SetAlarm { at }
}
