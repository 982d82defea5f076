//! Alarms: the gateway wakes a sleeping actor for one. The TypeScript runner has no words for what rang, so there only the
//! start is seen; ours tells the actor.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::{
    cut::Weather,
    process::poll,
    stage::{GatewaySide, RunnerSide, Stage},
};

pub async fn an_alarm_wakes_a_sleeping_actor_when_it_is_due(stage: &Stage) {
    let id = stage.actor("sleep").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    for generation in 0..2 {
        let due = alarm_in(stage, &id, 2_000).await;
        sleep(stage, &id, generation).await;
        rang(stage, &id, generation + 1, due).await;
        assert_eq!(stage.client.count(&id, "/").await, generation + 2);
        assert_eq!(
            stage.client.ask(&id, "/who").await.json()["generation"],
            json!(generation + 1),
            "it is still awake"
        );
    }
    assert_eq!(stage.runs_of(&id, "start"), [(0, 1), (1, 1), (2, 1)].into());
}

pub async fn an_alarm_that_was_set_anew_rings_at_its_new_time_only(stage: &Stage) {
    let (later, sooner) = (stage.actor("sleep").await, stage.actor("sleep").await);
    alarm_in(stage, &later, 1_500).await;
    alarm_in(stage, &sooner, 600_000).await;
    let postponed = alarm_in(stage, &later, 4_000).await;
    let advanced = alarm_in(stage, &sooner, 2_000).await;
    for id in [&later, &sooner] {
        sleep(stage, id, 0).await;
    }
    rang(stage, &sooner, 1, advanced).await;
    rang(stage, &later, 1, postponed).await;
}

pub async fn an_alarm_that_was_taken_away_does_not_ring(stage: &Stage) {
    let (quiet, witness) = (stage.actor("sleep").await, stage.actor("sleep").await);
    alarm_in(stage, &quiet, 1_500).await;
    assert_eq!(stage.client.ask(&quiet, "/alarm").await.text(), "null");
    sleep(stage, &quiet, 0).await;
    // One that is due later has rung: so would the other have.
    let due = alarm_in(stage, &witness, 3_000).await;
    sleep(stage, &witness, 0).await;
    rang(stage, &witness, 1, due).await;
    assert_eq!(stage.runs_of(&quiet, "start"), [(0, 1)].into(), "{:?}", stage.hooks_of(&quiet));
    assert!(stage.client.actor(&quiet).await["sleep_ts"].is_number());
}

pub async fn an_alarm_of_a_sleeping_actor_outlives_a_broken_connection(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let due = alarm_in(stage, &id, 2_000).await;
    sleep(stage, &id, 0).await;
    // A gateway that has not heard of it yet is told again after the cut, which the TypeScript runner may do in vain.
    let sleeps = || async { stage.client.actor(&id).await["sleep_ts"].is_number().then_some(()) };
    assert!(poll(Duration::from_secs(5), sleeps).await.is_some(), "the gateway knows that it sleeps");
    stage.cut.spell(Weather::Down, Duration::from_secs(4)).await.expect("it ends");
    rang(stage, &id, 1, due).await;
}

pub async fn an_alarm_due_while_awake_is_told_at_once_and_wakes_nobody_later(stage: &Stage) {
    let (id, witness) = (stage.actor("sleep").await, stage.actor("sleep").await);
    let due = alarm_in(stage, &id, 500).await;
    told(stage, &id, 0, due).await;
    sleep(stage, &id, 0).await;
    let due = alarm_in(stage, &witness, 2_000).await;
    sleep(stage, &witness, 0).await;
    rang(stage, &witness, 1, due).await;
    assert_eq!(stage.runs_of(&id, "start"), [(0, 1)].into(), "{:?}", stage.hooks_of(&id));
}

pub async fn an_alarm_outlives_the_runner_that_set_it(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let due = alarm_in(stage, &id, 3_000).await;
    sleep(stage, &id, 0).await;
    drop(stage.signal_runner(Signal::KILL).await);
    stage.ensure_runner().await;
    // The engine may give the actor to the runner that is gone, and learns of that when it declares it lost.
    rang_within(stage, &id, 1, due, Duration::from_secs(60)).await;
}

/// Sets the actor's alarm; gives when it is due, in milliseconds since the epoch.
async fn alarm_in(stage: &Stage, id: &str, ms: u64) -> u64 {
    stage.client.count(id, &format!("/alarm?in_ms={ms}")).await
}

/// Puts the actor to sleep, and waits until this life of it is over.
async fn sleep(stage: &Stage, id: &str, generation: u64) {
    stage.client.ask(id, "/sleep").await;
    stage.hook_ran(id, "stop", generation).await;
}

/// Waits until the alarm has started this life of the actor, once and not early. Nothing else wakes it.
async fn rang(stage: &Stage, id: &str, generation: u64, due: u64) {
    rang_within(stage, id, generation, due, Duration::from_secs(20)).await;
}

async fn rang_within(stage: &Stage, id: &str, generation: u64, due: u64, limit: Duration) {
    stage.hook_ran_within(id, "start", generation, limit).await;
    let early = match stage.gateway_side {
        GatewaySide::RealEngine => EARLY,
        GatewaySide::Ours => 0,
    };
    assert!(at(stage, id, "start", generation) + early >= due, "woken early for {due}: {:?}", stage.hooks_of(id));
    stage.assert_started_once_per_generation(id);
    if stage.runner_side == RunnerSide::Ours {
        told(stage, id, generation, due).await;
    }
    let awake = poll(Duration::from_secs(10), || async {
        let actor = stage.client.actor(id).await;
        (actor["connectable_ts"].is_number() && actor["sleep_ts"].is_null()).then_some(())
    });
    assert!(awake.await.is_some(), "woken, and not seen awake: {}", stage.client.actor(id).await);
}

/// Waits until this life of the actor was told its alarm, once and not early.
async fn told(stage: &Stage, id: &str, generation: u64, due: u64) {
    stage.hook_ran(id, "alarm", generation).await;
    assert!(at(stage, id, "alarm", generation) >= due, "told early for {due}: {:?}", stage.hooks_of(id));
    assert_eq!(stage.runs_of(id, "alarm")[&generation], 1, "{:?}", stage.hooks_of(id));
}

/// When a hook first ran for a generation, in milliseconds since the epoch.
fn at(stage: &Stage, id: &str, hook: &str, generation: u64) -> u64 {
    let hooks = stage.hooks_of(id);
    let ran = hooks.iter().find(|seen| seen["hook"] == hook && seen["generation"] == generation);
    ran.and_then(|seen| seen["at"].as_u64()).expect("the hook ran and has its time")
}

/// The engine starts an actor about 12 ms before its alarm is due. Our runner tells the alarm when it is.
const EARLY: u64 = 100;
