//! A child, or the runner itself, ends; by request or by surprise.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::faults::answers;
use crate::{
    process::poll,
    stage::{RunnerSide, Stage},
};

pub async fn a_crashed_child_is_restarted_under_the_next_generation(stage: &Stage) {
    let id = stage.actor("restart").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    stage.client.ask(&id, "/crash").await;
    stage.hook_ran(&id, "start", 1).await;
    answers(stage, &id, 2).await;
    stage.assert_started_once_per_generation(&id);

    let asleep = stage.actor("sleep").await;
    stage.client.ask(&asleep, "/crash").await;
    let actor = stage.client.actor_when(&asleep, "sleep_ts", Duration::from_secs(15)).await;
    let message = actor["error"]["crashed"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains('3'), "the message names the exit code: {actor}");
    answers(stage, &asleep, 1).await;
}

pub async fn a_terminated_runner_stops_its_actors_and_exits_cleanly(stage: &Stage) {
    let (sleeps, moves) = (stage.actor("sleep").await, stage.actor("restart").await);
    assert_eq!(stage.client.count(&sleeps, "/").await, 1);
    assert_eq!(stage.client.count(&moves, "/").await, 1);
    let mut runner = stage.signal_runner(Signal::TERM).await;
    let status = runner.exit_within(Duration::from_secs(20)).await;
    let status = status.unwrap_or_else(|| panic!("the runner does not exit\n{}", runner.tail(30)));
    assert!(status.success(), "{status}\n{}", runner.tail(30));
    for id in [&sleeps, &moves] {
        assert_eq!(stage.runs_of(id, "stop"), [(0, 1)].into(), "every actor was asked to stop, once");
    }
    let asleep = stage.client.actor_when(&sleeps, "sleep_ts", Duration::from_secs(15)).await;
    assert!(asleep["error"].is_null() || stage.runner_side == RunnerSide::TypeScript, "{asleep}");
    stage.client.actor_when(&moves, "pending_allocation_ts", Duration::from_secs(15)).await;

    stage.ensure_runner().await;
    answers(stage, &moves, 2).await;
    answers(stage, &sleeps, 2).await;
    assert_eq!(stage.client.ask(&sleeps, "/who").await.json()["generation"], json!(1));
    stage.assert_started_once_per_generation(&sleeps);
    stage.assert_started_once_per_generation(&moves);
}

pub async fn a_killed_runner_is_replaced_and_the_count_survives(stage: &Stage) {
    let id = stage.actor("restart").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    let before = stage.client.ask(&id, "/who").await.json()["pid"].as_u64().expect("the actor knows its pid");
    let mut runner = stage.signal_runner(Signal::KILL).await;
    runner.exit_within(Duration::from_secs(5)).await.expect("a killed process ends");
    let killed = Instant::now();
    stage.ensure_runner().await;
    stage.hook_ran_within(&id, "start", 1, Duration::from_secs(60)).await;
    let away = killed.elapsed();
    answers(stage, &id, 2).await;
    stage.assert_started_once_per_generation(&id);
    eprintln!("       after SIGKILL the actor runs again within {:.1} s", away.as_secs_f32());

    if stage.runner_side == RunnerSide::Ours {
        // Our runner comes back with the same key and says at once which actors it no longer has; nobody has to wait
        // for the gateway's runner lost threshold.
        assert!(away < Duration::from_secs(12), "the actor was away for {away:?}");
        let limit = Duration::from_secs(5);
        let old = std::path::PathBuf::from(format!("/proc/{before}"));
        let ended = poll(limit, || async { (!old.exists()).then_some(()) }).await;
        assert!(ended.is_some(), "the old child {before} still runs beside the new one");
    }
}
